"""The root cause of a policy server's end, taken from its log."""

import re
from collections.abc import Iterator
from pathlib import Path

PREFIX = re.compile(r"(?:\([^()]* pid=\d+\) )*(?:(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
"""Prefix of each line from vLLM's logger; other output has no such prefix."""
HARMLESS = ("DEBUG", "INFO", "WARNING")
TRACEBACK = "Traceback (most recent call last):"
CHAINED = ("The above exception was the direct cause of the following", "During handling of the above exception")
ELSEWHERE = re.compile(r"\broot cause\b", re.IGNORECASE)
"""Occurs in exceptions in which a process of vLLM reports that another process failed."""
MESSAGE_LINES = 4
"""Lines of an exception that are shown at most."""
MESSAGE_CHARS = 800
CHAIN_GAP = 2
"""Lines in which to look for the words that link an exception to the next one; an empty line precedes them."""
LAST_LINES = 5
"""Lines that are shown if a log has no exception."""


def root_cause(log: Path) -> str:
    """Return the exception that ended the server, after the exceptions that caused it; without one, the end of the log.

    vLLM's server consists of several processes: the one that fails writes its exception, and then others write that
    they saw it fail. The root cause is the last exception before the first of those reports. Without such a report, it
    is the first exception that is logged as more than a warning.
    """
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{log} cannot be read"
    causes: list[str] = []
    for chain in _chains(lines):
        if not chain and causes:
            return causes[-1]
        causes += [chain] if chain else []
    last = [line for line in lines if line.strip()][-LAST_LINES:]
    return causes[0] if causes else "\n".join(last) or "its log is empty"


def _chains(lines: list[str]) -> Iterator[str]:
    """Yield the exceptions at the ends of tracebacks; chained exceptions come together.

    A chain is empty if it only refers to another process's exception.
    """
    parsed = [(found.group(1), line[found.end() :]) for line in lines if (found := PREFIX.match(line))]
    chain: list[str] = []
    for place, (level, text) in enumerate(parsed):
        if text.startswith(TRACEBACK) and level not in HARMLESS:
            exception, end = _exception([text for _, text in parsed[place + 1 :]])
            chain += [] if ELSEWHERE.search(exception) else [exception]
            chained = any(text.startswith(CHAINED) for _, text in parsed[place + 1 + end :][:CHAIN_GAP])
            if not chained:
                yield "\n".join(chain)
                chain = []


def _exception(texts: list[str]) -> tuple[str, int]:
    """Return the exception that ends a traceback, and the number of lines up to its end.

    The exception is the first line without indentation, with the indented lines after it.

    Args:
        texts: the lines after the first line of the traceback.
    """
    start = next((place for place, text in enumerate(texts) if text and not text[0].isspace()), len(texts))
    end = next((place for place in range(start + 1, len(texts)) if not texts[place][:1].isspace() or not texts[place].strip()), len(texts))
    return " ".join(text.strip() for text in texts[start : min(end, start + MESSAGE_LINES)])[:MESSAGE_CHARS], end
