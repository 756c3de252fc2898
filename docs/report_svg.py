"""Draws the top of a pipeline's report as a standalone SVG.

    .venv/bin/python docs/report_svg.py reports/quick/report.html docs/report.svg

The chart and the curves are the report's own SVG elements, and the colors come from its style sheet, light and dark.
"""

import html
import re
import sys
import textwrap
from pathlib import Path

WIDTH, MARGIN, LINE_HEIGHT, CURVES = 1060, 30, 24, 3
CHARACTERS_PER_LINE = 104
RULES = ("svg .grid", "svg .zero", "svg .tick", "svg .label", "svg .interval", "svg .curve", ".c-")
STYLE = "text { font-family: system-ui, sans-serif; fill: var(--ink); } .verdict { font-size: 17px; }"


def main(report: Path, picture: Path) -> None:
    """Write the picture of a report."""
    page = report.read_text(encoding="utf-8")
    title = re.search(r"<h1>(.*?)</h1>", page)[1]
    verdict = textwrap.wrap(html.unescape(re.search(r'<section class="verdict[^>]*>(.*?)</section>', page)[1]), CHARACTERS_PER_LINE)
    chart = re.search(r"<svg.*?</svg>", page)[0]
    curves = re.findall(r"<h3>([^<]*)<span>[^<]*</span></h3>(<svg.*?</svg>)", page)
    chosen = [curve for curve in curves if curve[0].startswith(("Reward", "KL", "Entropy"))][:CURVES]
    height = 100 + LINE_HEIGHT * len(verdict)
    parts = [f'<text x="{MARGIN}" y="48" font-size="28" font-weight="600">{title}</text>']
    parts += [f'<text x="{MARGIN}" y="{84 + LINE_HEIGHT * row}" class="verdict">{html.escape(line)}</text>' for row, line in enumerate(verdict)]
    parts += [_heading(MARGIN, height, "Held-out tasks, with 95% intervals"), _placed(chart, MARGIN, height + 12)]
    height += 12 + _height(chart) + 36
    for column, (name, curve) in enumerate(chosen):
        left = MARGIN + column * (WIDTH - 2 * MARGIN) // CURVES
        parts += [_heading(left, height, name), _placed(curve, left, height + 10)]
    height += 10 + max(_height(curve) for _, curve in chosen) + MARGIN
    frame = f'<rect x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="12" fill="var(--card)" stroke="var(--rule)"/>'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    note = "<!-- Drawn by docs/report_svg.py from a run of the pipeline quick. -->"
    picture.write_text("\n".join([opening, note, f"<style>{_style(page)}</style>", frame, *parts, "</svg>\n"]), encoding="utf-8")


def _style(page: str) -> str:
    """The color variables and the rules of charts from the report's style sheet."""
    sheet = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    variables = re.match(r"\s*:root \{.*?\}\s*@media \(prefers-color-scheme: dark\) \{ :root \{.*?\} \}", sheet, re.DOTALL)[0]
    rules = [rule.strip() for rule in re.findall(r"[^{}]+\{[^{}]*\}", sheet[len(variables) :]) if rule.strip().startswith(RULES)]
    return "\n".join([variables.strip(), STYLE, *rules])


def _heading(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="15" font-weight="600">{text}</text>'


def _placed(svg: str, x: int, y: int) -> str:
    """A chart of the report at a place of the picture."""
    return svg.replace("<svg ", f'<svg x="{x}" y="{y}" height="{_height(svg)}" ', 1)


def _height(svg: str) -> int:
    return int(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
