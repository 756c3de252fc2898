"""Generates AppWorld data roots offline with AppWorld's own models. It runs in .venv-appworld: `python -m generator`."""
