"""DeepSearch's episodes: the search environment, retrievers, answer scores, the expert, and the baselines."""
