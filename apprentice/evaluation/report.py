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
from apprentice.evaluation.charts import Dot, bar_chart, interval_chart, line_chart
from apprentice.evaluation.comparison import AGENTS, DIFFERENCES, Episodes, HeldOut
from apprentice.evaluation.configuration import parameters
from apprentice.evaluation.cost import stage_seconds
from apprentice.evaluation.examples import choose_examples, tally
from apprentice.evaluation.gains import Gains, p_value
from apprentice.evaluation.measures import Measure, measure_of
from apprentice.evaluation.statistics import MIN_SCENARIOS, MIN_TASKS, SIGNIFICANCE
from apprentice.records import Task
from apprentice.records.files import read_json

TEMPLATES = Path(__file__).parent
MINUS = "−"
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
    measure = measure_of(config)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(signed=_signed, share=_share, minutes=_minutes, count=_count, plain=_plain, tally=tally, p=p_value)
    return environment.get_template("report.html.jinja").render(
        pipeline=layout.pipeline,
        config=config,
        figures=figures,
        measure=measure,
        conditions=measure.conditions,
        sets=measure.evaluated(figures),
        differences=_differences(measure.conditions),
        verdict=_verdict(config, measure, figures),
        headline=_headline(measure, figures),
        curves=list(_curves(measure, layout.curves("training"))),
        strata=[(words, chart) for words, of_part in measure.strata(figures).items() if (chart := _groups(of_part, measure.key))],
        pass_rates=_pass_rates(layout.curves("difficulty")),
        agents=AGENTS,
        significance=SIGNIFICANCE,
        least=(MIN_TASKS, MIN_SCENARIOS),
        behaviour_bars=list(_behaviour_bars(measure, figures["behaviour"])),
        examples=choose_examples(measure, tasks, episodes["before"], episodes["trained"]),
        facts={name: dict(_flat(_optional(layout.metrics(name)))) for name in ("validation", "difficulty", "training")},
        stages=stage_seconds(layout.events),
        parameters=parameters(config),
    )


def _differences(conditions: Mapping[str, str]) -> dict[str, str]:
    return {name: f"{conditions[after]} − {conditions[before][0].lower()}{conditions[before][1:]}" for name, (after, before) in DIFFERENCES.items()}


def _verdict(config: PipelineConfig, measure: Measure, figures: Mapping[str, Any]) -> tuple[str, str]:
    """Say what the warm start and what online RL did on every set, and whether each is proven; and the tone for the style sheet.

    The tone is good only where the gain of online RL itself is proven.
    """
    headline, *others = measure.evaluated(figures)
    gains = Gains.of(config, measure, headline, figures)
    counted = headline.count(headline.of(figures["trained"])["n"])
    sentences = [f"The agent's {measure.full_name} on {counted} went {_change(config, measure, headline, figures)}."]
    for held_out in others:
        sentences.append(f"On {held_out.count(held_out.of(figures['trained'])['n'])} it went {_change(config, measure, held_out, figures)}.")
    worse = gains.total.proven_worse or gains.online.difference.proven_worse
    return " ".join(sentences), "bad" if worse else "good" if gains.online.difference.proven() else "open"


def _change(config: PipelineConfig, measure: Measure, held_out: HeldOut, figures: Mapping[str, Any]) -> str:
    before, trained = (held_out.of(figures[name])[measure.key] for name in ("before", "trained"))
    gains = Gains.of(config, measure, held_out, figures)
    return f"from {before:.3f} to {trained:.3f}: {gains.told(sign=MINUS, evidence=True)}"


def _headline(measure: Measure, figures: Mapping[str, Any]) -> Markup:
    rows = [(name, held_out.label(label), held_out.of(figures[name])) for held_out in measure.evaluated(figures) for name, label in measure.conditions.items()]
    dots = [Dot(label, row[measure.key], *row[measure.interval], f"c-{name}") for name, label, row in rows]
    return interval_chart(dots, 0.0, min(1.0, math.ceil(max(dot.high for dot in dots) * 10) / 10))


def _behaviour_bars(measure: Measure, figures: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, Markup]]:
    """`(title, chart)` of each figure that the measure draws: the agent's conditions side by side, on a scale of their own."""
    for key in measure.drawn:
        bars = [(f"c-{name}", figures[name][key]) for name in AGENTS]
        high = max(value for _, value in bars) or 1.0
        # Above 1 one decimal is enough, and fits above a bar.
        shown = [(colour, value if value < 1 else round(value, 1)) for colour, value in bars]
        yield measure.behaviour[key].capitalize(), bar_chart({"": shown}, high, width=320, height=150)


def _curves(measure: Measure, path: Path) -> Iterator[tuple[str, str, Markup]]:
    """`(title, last value, chart)` of each training curve that exists."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [_number(row.get("step")) for row in rows]
    known = {title: column for column, title in reversed(CURVES.items()) if rows and column in rows[0]}
    for column, title in CURVES.items():
        # Every use case's curves count searches; where no agent can search they would only show that.
        if known.get(title) != column or (column == "searches" and column not in measure.behaviour):
            continue
        values = [_number(row.get(column)) for row in rows]
        finite = [value for value in values if math.isfinite(value)]
        if finite and all(map(math.isfinite, steps)):
            yield title, f"{finite[-1]:.4g}", line_chart(steps, values, "c-trained")


def _groups(figures: Mapping[str, Mapping[str, Mapping]], main: str) -> Markup | None:
    """Bars of every condition's main figure, one group a part of `{condition: {part: {<main>, n}}}`."""
    parts = list(dict.fromkeys(part for of_condition in figures.values() for part in of_condition))
    if not parts:
        return None
    counts = {part: max(of_condition[part]["n"] for of_condition in figures.values() if part in of_condition) for part in parts}
    groups = {
        f"{part} ({counts[part]} tasks)": [(f"c-{name}", of_condition[part][main]) for name, of_condition in figures.items() if part in of_condition]
        for part in parts
    }
    return bar_chart(groups, 1.0)


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
    return f"{value:+.3f}".replace("-", MINUS)


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
