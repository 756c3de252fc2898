"""Makes an AppWorld data root of our own, offline, with AppWorld's own models. Runs inside .venv-appworld: `python -m generator`."""
