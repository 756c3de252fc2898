"""Prefect flows: they decide in which order and when stages run, and what happens on failure."""
