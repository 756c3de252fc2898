"""Policies: they take token ids and return sampled token ids, log-probabilities and the version of their weights."""
