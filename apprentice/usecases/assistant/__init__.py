"""A personal assistant in AppWorld: an agent that writes code against the APIs of everyday apps."""
