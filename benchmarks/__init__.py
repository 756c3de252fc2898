"""Benchmarks of Apprentice on this machine: `make bench`."""
