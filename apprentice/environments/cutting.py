"""Truncates texts to a number of tokens, so that a passage or an observation stays within its share of an episode."""

from collections.abc import Callable, Sequence

Encode = Callable[[str], Sequence[int]]
"""Tokenizes a text as the pipeline's model does."""
MAX_TOKEN_CHARS = 32
"""Upper bound on the mean characters per token of a readable text. The rest of a longer text is dropped before
tokenizing, which could take minutes."""
MAX_WORD_CHARS = 30
"""Length up to which a word is kept whole. Texts in scripts without spaces are cut between characters."""


def cut(text: str, tokens: int, encode: Encode) -> str:
    """Return the longest prefix of a text with at most `tokens` tokens, cut between words if it has any."""
    head = text[: tokens * MAX_TOKEN_CHARS]
    if len(head.encode("utf-8", "surrogatepass")) <= tokens or len(encode(head)) <= tokens:
        return head
    fits, too_long = 0, len(head)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if len(encode(head[:middle])) <= tokens:
            fits = middle
        else:
            too_long = middle
    return _whole_words(head, fits)


def _whole_words(text: str, end: int) -> str:
    if text[end : end + 1].isspace():
        return text[:end].rstrip()
    start = max((place for place in range(max(0, end - MAX_WORD_CHARS), end) if text[place].isspace()), default=0)
    ends = any(letter.isspace() for letter in text[end : start + MAX_WORD_CHARS]) or len(text) <= start + MAX_WORD_CHARS
    return text[:start].rstrip() if start and ends else text[:end]
