"""Where tasks and knowledge bases come from, and what is good enough to learn from."""
