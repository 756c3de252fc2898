"""How a benchmark says what it measured."""

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, most and how many."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}
