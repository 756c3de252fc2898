"""How a benchmark says what it measured."""

import statistics
from collections.abc import Mapping, Sequence


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, most and how many."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def print_spreads(figures: Mapping[str, Mapping[str, float]]) -> None:
    """A line a figure."""
    for name, values in figures.items():
        print(f"{name:<34} {values['median']:10.2f} ({values['min']:.2f} to {values['max']:.2f}, n {values['n']})")
