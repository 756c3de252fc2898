"""Decides whether a knowledge base holds an answer, whatever its case, punctuation and Unicode form, in any script."""

import re
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache

ARTICLES = re.compile(r"\b(a|an|the)\b")
POSSESSIVE = re.compile(r"['’ʼ′]s\b")
JOINTS = re.compile(r"[-‐-―−/⁄]")
"""Dashes and slashes: they tie words together that are looked for one by one."""
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Letters of Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese, which are written without spaces between words."""


class Holdings:
    """The texts of a knowledge base, folded twice: with punctuation left out (`U.S.` is `us`) and turned into spaces (`Rome,Italy`)."""

    def __init__(self, texts: Iterable[str]):
        listed = list(texts)
        self._views = [(filler, "\n".join(_folded(text, filler) for text in listed)) for filler in ("", " ")]

    def holds(self, phrase: str) -> bool:
        """Whether a phrase occurs as whole words; in scripts without spaces, as a run of characters."""
        return any(words.strip() and words in texts for filler, texts in self._views for words in [_folded(phrase, filler)])


def _folded(text: str, filler: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    text = JOINTS.sub(" ", POSSESSIVE.sub(" ", _invisible().sub("", text)))
    text = UNSPACED.sub(r" \g<0> ", _punctuation().sub(filler, text))
    return f" {' '.join(ARTICLES.sub(' ', text).split())} "


@cache
def _punctuation() -> re.Pattern[str]:
    return _of_category("P", "S")


@cache
def _invisible() -> re.Pattern[str]:
    """Zero-width characters, soft hyphens and marks of writing direction."""
    return _of_category("Cf")


def _of_category(*categories: str) -> re.Pattern[str]:
    return re.compile(
        f"[{re.escape(''.join(letter for letter in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(letter).startswith(categories)))}]"
    )
