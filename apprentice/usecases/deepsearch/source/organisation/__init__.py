"""A generated organisation: its facts, a knowledge base about them, and questions with known answers."""
