"""The trainer: trajectories in, a better policy out. Knows no simulator."""
