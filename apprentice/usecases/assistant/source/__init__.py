"""The source of the assistant's tasks: an AppWorld data root, official or generated."""
