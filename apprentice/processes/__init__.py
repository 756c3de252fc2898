"""Processes of this machine: children, memory, file locks, limits, network and output."""
