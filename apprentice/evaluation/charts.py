"""Charts as inline SVG. The page's style sheet colours them, so they follow its light or dark theme."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

LABEL_WIDTH, VALUE_WIDTH = 200, 190
"""Pixels to the left and right of an interval chart's dots; the left grows with the labels."""
CHARACTER_WIDTH = 6.5
"""Average pixels of a character in a label."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of an interval chart."""

    label: str
    mean: float
    low: float
    high: float
    colour: str
    """A CSS class that sets `color`."""


def interval_chart(dots: Sequence[Dot], low: float, high: float, width: int = 1000) -> Markup:
    """Draw means with their intervals, one per row, on an axis from `low` to `high`."""
    row, top = 34, 8
    left = max([LABEL_WIDTH, *(20 + CHARACTER_WIDTH * len(dot.label) for dot in dots)])
    right, bottom = width - VALUE_WIDTH, top + row * len(dots)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = [_line(x(tick), top, x(tick), bottom, "zero" if tick == 0 else "grid") + _text(x(tick), bottom + 16, _short(tick)) for tick in _ticks(low, high)]
    for index, dot in enumerate(dots):
        y = top + row * (index + 0.5)
        parts += [
            _text(left - 14, y + 4, dot.label, "end", "label"),
            f'<g class="{escape(dot.colour)}">{_line(x(dot.low), y, x(dot.high), y, "interval")}',
            f'<circle cx="{x(dot.mean):.1f}" cy="{y:.1f}" r="6" fill="currentColor"/></g>',
            _text(right + 14, y + 4, f"{dot.mean:.3f}  [{dot.low:.3f}, {dot.high:.3f}]", "start", "label"),
        ]
    return _svg(width, bottom + 24, parts)


def line_chart(steps: Sequence[float], values: Sequence[float], colour: str, width: int = 320, height: int = 140) -> Markup:
    """Draw a metric over steps. The axis shows the ends of its range; NaN values are skipped."""
    points = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    if not points:
        return Markup('<p class="none">no values</p>')
    low, high = _range([value for _, value in points])
    first, last = points[0][0], points[-1][0]
    left, right, top, bottom = 56, width - 10, 10, height - 24

    def place(step: float, value: float) -> tuple[float, float]:
        along = (step - first) / (last - first) if last > first else 0.5
        return left + along * (right - left), bottom - (value - low) / (high - low) * (bottom - top)

    placed = [place(*point) for point in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts = [_line(left, place(first, tick)[1], right, place(first, tick)[1], "grid") for tick in (low, (low + high) / 2, high)]
    parts += [_text(left - 6, place(first, tick)[1] + 4, _short(tick), "end") for tick in (low, high)]
    parts += [_text(left, height - 6, _short(first), "start"), _text(right, height - 6, _short(last), "end")] if last > first else []
    parts += [f'<g class="{escape(colour)}"><polyline points="{path}" class="curve"/>']
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 if len(placed) <= 40 else 1.5}" fill="currentColor"/>' for x, y in placed]
    return _svg(width, height, [*parts, "</g>"])


def bar_chart(groups: Mapping[str, Sequence[tuple[str, float]]], high: float, width: int = 1000, height: int = 220) -> Markup:
    """Draw groups of bars.

    Args:
        groups: `{name of the group: [(CSS class of the bar's colour, value)]}`.
        high: upper end of the axis, which begins at 0.
    """
    left, right, top, bottom = 44, width - 8, 20, height - 28
    parts = []
    for tick in _ticks(0, high):
        y = bottom - tick / high * (bottom - top)
        parts += [_line(left, y, right, y, "grid"), _text(left - 8, y + 4, _short(tick), "end")]
    span = (right - left) / max(1, len(groups))
    for index, (name, bars) in enumerate(groups.items()):
        step = min(46.0, span * 0.8 / max(1, len(bars)))
        start = left + span * (index + 0.5) - step * len(bars) / 2
        for place, (colour, value) in enumerate(bars):
            tall, x = value / high * (bottom - top), start + step * place
            box = f'x="{x + 2:.1f}" y="{bottom - tall:.1f}" width="{step - 4:.1f}" height="{tall:.1f}"'
            parts.append(f'<rect class="{escape(colour)}" fill="currentColor" {box} rx="2"/>')
            parts.append(_text(x + step / 2, bottom - tall - 5, f"{value:.2f}" if 0 < value < 1 else f"{value:g}"))
        parts.append(_text(left + span * (index + 0.5), height - 8, name, "middle", "label"))
    return _svg(width, height, parts)


def _svg(width: int, height: float, parts: Sequence[str]) -> Markup:
    return Markup(f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" role="img">{"".join(parts)}</svg>')


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{name}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", name: str = "tick") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{name}">{escape(text)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round values between `low` and `high`."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - pad if low else 0.0, high + pad


def _short(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
