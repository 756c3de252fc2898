"""How much of what a block printed the agent is shown."""

NOTE_CHARS = 64
"""What the note about a cut may add to a text."""


def cut(text: str, limit: int) -> str:
    """Leaves the middle out of a text of more than `limit` characters, and says so in its place."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def bounded(text: str, limit: int) -> str:
    """Cuts a text that `cut` cannot have made: the interpreter calls `cut` itself, and nothing that comes from it is to be believed."""
    return text if len(text) <= limit + NOTE_CHARS else cut(text, limit)
