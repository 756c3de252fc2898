"""Prefect flows: in what order, when, and what happens on failure."""
