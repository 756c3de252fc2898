"""Scores of short answers, normalised as in the official SQuAD and Natural Questions scripts."""

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous white space, in that order."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 where the prediction equals any gold answer once both are normalised, else 0.0."""
    return float(any(normalise(prediction) == normalise(gold) for gold in golds))


def cover_exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 where the words of any gold answer occur in the prediction, in one piece, once both are normalised, else 0.0."""
    covered = f" {normalise(prediction)} "
    return float(any(f" {words} " in covered for words in map(normalise, golds) if words) or exact_match(prediction, golds))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """The best harmonic mean, over the gold answers, of precision and recall of words."""
    return max(_f1(normalise(prediction).split(), normalise(gold).split()) for gold in golds)


def _f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold))
