"""The page for people: one self-contained HTML file with figures, curves and examples, readable in light and dark."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from apprentice.config import Layout, PipelineConfig
from apprentice.evaluation.behaviour import FIGURES
from apprentice.evaluation.charts import Dot, bar_chart, interval_chart, line_chart
from apprentice.evaluation.comparison import AGENTS, CONDITIONS, DIFFERENCES, Episodes
from apprentice.evaluation.configuration import parameters
from apprentice.evaluation.cost import stage_seconds
from apprentice.evaluation.examples import choose_examples
from apprentice.records import Task
from apprentice.records.files import read_json

TEMPLATES = Path(__file__).parent
SHARES = ("searched_before_answering", "repeated_queries", "malformed", "thinking", "answered", "truncated")
"""Figures of behaviour that are shares; the others are means an episode."""
CURVES = {
    "reward": "Reward",
    "success_rate": "Success rate",
    "kl_reference": "KL to the reference (nats a token)",
    "entropy": "Entropy (nats a token)",
    "clip_fraction": "Clipped share of tokens",
    "explained_variance": "Explained variance of the critic",
    "gradient_norm": "Gradient norm",
    "sampler_gap_mean": "Gap to the sampler (nats a token)",
    "malformed_share": "Malformed actions",
    "truncated_share": "Truncated episodes",
    "turns": "Turns an episode",
    "searches": "Searches an episode",
    "action_tokens_per_episode": "Sampled tokens an episode",
    "seconds_step": "Seconds a step",
}
"""Columns of the training curves that are drawn, in this order, where they exist; of two with one title, the first."""


def report_page(config: PipelineConfig, layout: Layout, tasks: Sequence[Task], episodes: Episodes, figures: Mapping[str, Any]) -> str:
    """The report as HTML. Everything that comes from tasks, models and files is escaped; nothing is loaded from elsewhere.

    Args:
        tasks: the held-out tasks that were evaluated.
        figures: what evaluation.json holds.
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(signed=_signed, share=_share, minutes=_minutes, count=_count, plain=_plain)
    return environment.get_template("report.html.jinja").render(
        pipeline=layout.pipeline,
        config=config,
        figures=figures,
        conditions=CONDITIONS,
        differences={name: f"{CONDITIONS[after]} − {CONDITIONS[before][0].lower()}{CONDITIONS[before][1:]}" for name, (after, before) in DIFFERENCES.items()},
        verdict=_verdict(figures),
        headline=_headline(figures),
        curves=list(_curves(layout.curves("training"))),
        hops=_groups(figures["by_hops"], _hop_name),
        levels=_groups(figures["by_difficulty"], lambda name: name.replace("_", " ")),
        pass_rates=_pass_rates(layout.curves("difficulty")),
        agents=AGENTS,
        behaviour=FIGURES,
        shares=SHARES,
        examples=choose_examples(tasks, episodes["before"], episodes["trained"]),
        facts={name: dict(_flat(_optional(layout.metrics(name)))) for name in ("validation", "difficulty", "training")},
        stages=stage_seconds(layout.events),
        parameters=parameters(config),
    )


def _verdict(figures: Mapping[str, Any]) -> tuple[str, str]:
    """What training did, in one sentence that claims no more than the interval allows; and its tone for the style sheet."""
    difference, before, trained = figures["trained_minus_before"], figures["before"], figures["trained"]
    low, high = difference["em_ci95"]
    change = f"from {before['em']:.3f} to {trained['em']:.3f} ({_signed(difference['em'])}, 95% interval {_signed(low)} to {_signed(high)})"
    if low > 0:
        return f"Training raised the agent's exact match on {trained['n']} held-out tasks {change}.", "good"
    if high < 0:
        return f"Training lowered the agent's exact match on {trained['n']} held-out tasks {change}.", "bad"
    return f"No difference is proven: exact match on {trained['n']} held-out tasks went {change}.", "open"


def _headline(figures: Mapping[str, Any]) -> Markup:
    dots = [Dot(label, figures[name]["em"], *figures[name]["em_ci95"], f"c-{name}") for name, label in CONDITIONS.items()]
    return interval_chart(dots, 0.0, min(1.0, math.ceil(max(dot.high for dot in dots) * 10) / 10))


def _curves(path: Path) -> Iterator[tuple[str, str, Markup]]:
    """`(title, last value, chart)` of each training curve that exists."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [_number(row.get("step")) for row in rows]
    known = {title: column for column, title in reversed(CURVES.items()) if rows and column in rows[0]}
    for column, title in CURVES.items():
        if known.get(title) != column:
            continue
        values = [_number(row.get(column)) for row in rows]
        finite = [value for value in values if math.isfinite(value)]
        if finite and all(map(math.isfinite, steps)):
            yield title, f"{finite[-1]:.4g}", line_chart(steps, values, "c-trained")


def _groups(figures: Mapping[str, Mapping[str, Mapping]], words) -> Markup | None:
    """Bars of every condition's EM, one group a key of `{condition: {key: {em, n}}}`."""
    keys = list(dict.fromkeys(key for of_condition in figures.values() for key in of_condition))
    if not keys:
        return None
    counts = {key: max(of_condition[key]["n"] for of_condition in figures.values() if key in of_condition) for key in keys}
    groups = {
        f"{words(key)} ({counts[key]} tasks)": [(f"c-{name}", of_condition[key]["em"]) for name, of_condition in figures.items() if key in of_condition]
        for key in keys
    }
    return bar_chart(groups, 1.0)


def _hop_name(key: str) -> str:
    return key if not key.isdigit() else f"{key} hop{'' if key == '1' else 's'}"


def _pass_rates(path: Path) -> Markup | None:
    """How many probed tasks have which pass rate, from the CSV of the filter stage."""
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rates = [_number(row.get("pass_rate")) for row in csv.DictReader(file)]
    counts = Counter(rate for rate in rates if math.isfinite(rate))
    if not counts:
        return None
    top = max(counts.values())
    return bar_chart({f"{rate:.2f}": [("c-before", counts[rate])] for rate in sorted(counts)}, float(top), height=180)


def _optional(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.exists() else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}".replace("_", " "), value


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _share(value: float) -> str:
    return f"{value:.1%}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _plain(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else "none" if value is None else str(value)
