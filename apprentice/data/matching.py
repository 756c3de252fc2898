"""Finds answers in a knowledge base regardless of case, punctuation, and Unicode form, in any script."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

INVISIBLE, PUNCTUATION = "invisible", "punctuation"
"""Kinds of characters that are not part of words: format characters (zero-width, soft hyphen, bidirectional marks), and
punctuation and symbols."""
ARTICLES = re.compile(r"\b(a|an|the)\b")
POSSESSIVE = re.compile(r"['’ʼ′]s\b")
JOINTS = re.compile(r"[-‐-―−/⁄]")
"""Dashes and slashes. They join words that match separately."""
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Letters of scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, and Chinese."""


class PhraseIndex:
    """The texts of a knowledge base in two normal forms: without punctuation (`U.S.` is `us`), and with spaces in its
    place (`Rome,Italy`)."""

    def __init__(self, texts: Iterable[str]):
        listed = list(texts)
        self._views = [(filler, "\n".join(_folded(text, filler) for text in listed)) for filler in ("", " ")]

    def contains(self, phrase: str) -> bool:
        """Return whether a phrase occurs as whole words; in scripts without spaces, as a run of characters."""
        return any(words.strip() and words in texts for filler, texts in self._views for words in [_folded(phrase, filler)])


def _folded(text: str, filler: str) -> str:
    text = JOINTS.sub(" ", POSSESSIVE.sub(" ", unicodedata.normalize("NFKC", text).casefold()))
    kinds = {letter: _kind(letter) for letter in set(text)}
    text = text.translate({ord(letter): "" if kind == INVISIBLE else filler for letter, kind in kinds.items() if kind})
    words = ARTICLES.sub(" ", UNSPACED.sub(r" \g<0> ", text)).split()
    return f" {' '.join(words)} "


@cache
def _kind(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cf":
        return INVISIBLE
    return PUNCTUATION if category[0] in "PS" else ""
