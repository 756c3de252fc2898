"""What a training would take on a machine: memory, seconds by phase, and with which parameters it fits. Nothing is run."""
