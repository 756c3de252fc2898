"""Candidate records, source files, validation, and the difficulty of tasks."""
