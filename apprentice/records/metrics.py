"""Metrics as files hold them: flat names of nested values, means, and CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any


def flatten(values: Mapping[str, Any], separator: str = ".", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(name, value)` for each value of nested mappings; a name is the path of keys, joined by `separator`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value


def mean(values: Iterable[float]) -> float:
    """Return the mean; 0.0 without values."""
    values = list(values)
    return fmean(values) if values else 0.0


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header: the keys of all rows in order of first occurrence.

    A cell is empty if its row lacks the key.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header; no rows if it does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
