"""Find in a policy server's log why the server ended."""

import re
from collections.abc import Iterator
from pathlib import Path

PREFIX = re.compile(r"(?:\([^()]* pid=\d+\) )*(?:(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
"""What vLLM's logger writes before each line of a message; other output has no such beginning."""
HARMLESS = ("DEBUG", "INFO", "WARNING")
TRACEBACK = "Traceback (most recent call last):"
CHAINED = ("The above exception was the direct cause of the following", "During handling of the above exception")
ELSEWHERE = re.compile(r"\broot cause\b", re.IGNORECASE)
"""Occurs in the exceptions with which vLLM's processes report that another one failed."""
MESSAGE_LINES = 4
"""Lines of an exception that are shown, at most."""
MESSAGE_CHARS = 800
CHAIN_GAP = 2
"""Lines between an exception and the words that link it to the next one: an empty line precedes them."""
LAST_LINES = 5
"""Lines that are shown of a log without an exception."""


def root_cause(log: Path) -> str:
    """The exception that ended the server, after those that it arose from; without one, the end of the log.

    vLLM's server consists of several processes: the one that fails writes its exception, and then others write that
    they saw it fail. So it is the last exception before the first of theirs; where there is none of theirs, the first
    that is more than a warning.
    """
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{log} cannot be read"
    before: list[str] = []
    for chain in _chains(lines):
        if not chain and before:
            return before[-1]
        before += [chain] if chain else []
    ends = [line for line in lines if line.strip()][-LAST_LINES:]
    return before[0] if before else "\n".join(ends) or "its log is empty"


def _chains(lines: list[str]) -> Iterator[str]:
    """The exceptions at the ends of tracebacks, those that arose from each other together.

    A chain is empty where it only refers to another process's exception.
    """
    parsed = [(found.group(1), line[found.end() :]) for line in lines if (found := PREFIX.match(line))]
    chain: list[str] = []
    for place, (level, text) in enumerate(parsed):
        if text.startswith(TRACEBACK) and level not in HARMLESS:
            told, end = _exception([text for _, text in parsed[place + 1 :]])
            chain += [] if ELSEWHERE.search(told) else [told]
            goes_on = any(text.startswith(CHAINED) for _, text in parsed[place + 1 + end :][:CHAIN_GAP])
            if not goes_on:
                yield "\n".join(chain)
                chain = []


def _exception(texts: list[str]) -> tuple[str, int]:
    """The exception that ends a traceback, and the number of lines up to its end.

    It is the first line that is not indented, with the indented lines after it.

    Args:
        texts: what follows the first line of the traceback.
    """
    start = next((place for place, text in enumerate(texts) if text and not text[0].isspace()), len(texts))
    end = next((place for place in range(start + 1, len(texts)) if not texts[place][:1].isspace() or not texts[place].strip()), len(texts))
    return " ".join(text.strip() for text in texts[start : min(end, start + MESSAGE_LINES)])[:MESSAGE_CHARS], end
