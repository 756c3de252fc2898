"""DeepSearch: agentic retrieval-augmented question answering."""
