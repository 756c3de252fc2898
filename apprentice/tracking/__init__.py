"""MLflow: runs, traces of episodes, and the registry of models."""
