"""Where the assistant's tasks come from: an AppWorld data root, official or generated."""
