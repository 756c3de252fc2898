"""Plans of a training on a machine: memory, seconds by phase, and parameters that fit. Nothing is run."""
