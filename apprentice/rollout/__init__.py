"""The simulator: it plays many episodes at once and records them as trajectories."""
