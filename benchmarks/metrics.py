"""Summarises and prints the measurements of a benchmark."""

import statistics
from collections.abc import Mapping, Sequence


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median, minimum, maximum, and number of the values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def print_spreads(metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Prints one line per metric."""
    for name, values in metrics.items():
        print(f"{name:<34} {values['median']:10.2f} ({values['min']:.2f} to {values['max']:.2f}, n {values['n']})")
