"""Generates AppWorld data roots offline with AppWorld's own models. It runs inside .venv-appworld: `python -m generator`."""
