"""The contracts of environments and use cases, and tools made from typed methods."""
