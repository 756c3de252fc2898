"""DeepSearch's metrics and their comparison between policies."""
