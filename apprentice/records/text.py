"""Text as it may be passed on: without characters that tokenizers, files and terminals cannot take, and without secrets."""

import re

UNFIT = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Control characters other than tab, line feed and carriage return; halves of surrogate pairs, which have no UTF-8."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
QUERY = re.compile(r"(?<=://)([^?\s]*)\?\S+")


def plain(text: str) -> str:
    """The text, with a replacement character for each that is unfit."""
    return UNFIT.sub(REPLACEMENT, text)


def redacted(text: str) -> str:
    """The text, with the user, password and query string of every URL in it replaced."""
    return QUERY.sub(r"\1?…", CREDENTIALS.sub("…@", text))
