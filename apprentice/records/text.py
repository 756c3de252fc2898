"""Removes from text the characters that tokenizers, files and terminals cannot handle, and secrets."""

import re

UNFIT = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Control characters except tab, line feed and carriage return; and lone surrogates, which have no UTF-8 encoding."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
QUERY = re.compile(r"(?<=://)([^?\s]*)\?\S+")


def plain(text: str) -> str:
    """Return the text with each unfit character replaced."""
    return UNFIT.sub(REPLACEMENT, text)


def redacted(text: str) -> str:
    """Return the text with the user, password and query string of every URL replaced by `…`."""
    return QUERY.sub(r"\1?…", CREDENTIALS.sub("…@", text))
