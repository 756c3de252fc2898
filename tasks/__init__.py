"""Prefect tasks, one per stage. They run a stage through DVC, retry it, and report its progress."""
