"""Scores short answers: normalised as in the official script of NQ-open, or folded further."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from apprentice.records.normalise import ARTICLES, PUNCTUATION, normalise

MARKS = "ʻʼʹˈ′″−\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Apostrophes, primes, the minus sign, and invisible characters, which Unicode does not classify as punctuation but
`fold` treats as such."""
MEANINGFUL = re.compile(
    r"(?<![\w.,])[-−+±]\s?[.]?\d"  # -5
    r"|\d[./:]\d"  # 3.5, 1/2, 10:30
    r"|[<>≤≥]\s?\d"
    r"|(?<!\w)[A-Za-z][#+*]{1,2}(?!\w)"  # C#, C++, A+
    r"|(?<!\w)[.][A-Za-z]\w"  # .NET
)
"""Punctuation that carries meaning in an answer."""


def fold(text: str) -> str:
    """Normalise further than the official script: also compatibility forms, and all dashes, quotes, and apostrophes.

    Steps: NFKC, case folding, removal of all Unicode punctuation, removal of articles, single spaces.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(char for char in folded.translate(PUNCTUATION) if char not in MARKS and unicodedata.category(char)[0] != "P")
    return " ".join(ARTICLES.sub(" ", kept).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """Return 1.0 if the normalised prediction equals a normalised gold answer, otherwise 0.0."""
    return float(any(normalise(prediction) == normalise(gold) for gold in golds))


def folded_exact_match(prediction: str, golds: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals a gold answer after normalising or folding both, otherwise 0.0."""
    folded = fold(prediction)
    return float(exact_match(prediction, golds) or any(folded == fold(gold) for gold in golds if fold(gold)))


def cover_exact_match(prediction: str, golds: Sequence[str]) -> float:
    """Return 1.0 if the normalised prediction contains a normalised gold answer as whole words, otherwise 0.0."""
    covered = f" {normalise(prediction)} "
    return float(any(f" {words} " in covered for words in map(normalise, golds) if words) or exact_match(prediction, golds))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Return the largest F1 over the gold answers, the harmonic mean of the precision and recall of words."""
    return max(_f1(normalise(prediction).split(), normalise(gold).split()) for gold in golds)


def loses_meaning(answer: str) -> bool:
    """Return whether normalisation drops punctuation that carries meaning, as in `C#`, `-5`, or `3.5`."""
    return MEANINGFUL.search(answer) is not None


def punctuation_warning(answers: Iterable[tuple[str, str]]) -> str:
    """Return a warning that counts the accepted answers that lose their meaning and shows the first; empty if none does.

    Args:
        answers: `(place, answer)` of each accepted answer.
    """
    found = [(place, answer) for place, answer in answers if loses_meaning(answer)]
    if not found:
        return ""
    place, answer = found[0]
    return (
        f"warning: punctuation carries meaning in {len(found)} accepted answer{'s' if len(found) > 1 else ''}, and exact match ignores it: "
        f"{place} accepts {answer!r}, which is scored as {normalise(answer)!r}"
    )


def _f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold))
