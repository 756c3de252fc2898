"""Apprentice: train a language-model agent on your own checkable tasks by online reinforcement learning."""
