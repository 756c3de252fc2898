"""Text from outside that tokenizers, files and terminals can take."""

import re

UNFIT = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Control characters other than tab, line feed and carriage return; halves of surrogate pairs, which have no UTF-8."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def plain(text: str) -> str:
    """The text, with a replacement character for each that is unfit."""
    return UNFIT.sub(REPLACEMENT, text)
