"""Tracking in MLflow: runs, traces of episodes, and the model registry."""
