"""Cuts texts to a number of tokens, so that a passage or an observation never takes more of an episode than it may."""

from collections.abc import Callable, Sequence

Encode = Callable[[str], Sequence[int]]
"""The tokens of a text, in the pipeline's model."""
MAX_TOKEN_CHARS = 32
"""Characters a token, on average, of any text worth reading; what lies beyond is dropped before anything is counted, which could take minutes."""
MAX_WORD_CHARS = 30
"""A word is not cut unless it is longer than this; scripts without spaces are cut between characters."""


def cut(text: str, tokens: int, encode: Encode) -> str:
    """The longest beginning of a text that takes at most so many tokens, in whole words where it has words."""
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
