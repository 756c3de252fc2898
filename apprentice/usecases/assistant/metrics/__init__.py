"""The assistant's metrics."""
