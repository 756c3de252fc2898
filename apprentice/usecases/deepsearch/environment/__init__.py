"""DeepSearch's episodes: the search environment, its retrievers, answer scores, expert and baselines."""
