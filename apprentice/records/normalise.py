"""Text normalisation: two texts are the same question or answer when their normal forms are equal."""

import re
import string
import unicodedata

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Normalise as `normalize_answer` of google-research/language (orqa/utils/eval_utils.py), which scores NQ-open.

    The steps, in this order: canonical decomposition (NFD), lower case, no ASCII punctuation, no articles, single
    spaces. The script of SQuAD does the same without NFD.
    """
    return " ".join(ARTICLES.sub(" ", unicodedata.normalize("NFD", text).lower().translate(PUNCTUATION)).split())
