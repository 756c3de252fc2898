"""Limits how much of a block's output the agent is shown."""

NOTE_CHARS = 64
"""Characters that the note about a cut may add to a text."""


def truncate(text: str, limit: int) -> str:
    """Replace the middle of a text of more than `limit` characters with a note."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def enforce_limit(text: str, limit: int) -> str:
    """Truncate a text that is too long to be the result of `truncate`.

    The interpreter calls `truncate` itself, but nothing that it sends is trusted.
    """
    return text if len(text) <= limit + NOTE_CHARS else truncate(text, limit)
