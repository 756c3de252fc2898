"""The evaluation report: a self-contained HTML page with scores, curves and examples, in a light and a dark theme."""

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
from apprentice.evaluation.examples import choose_examples, tally
from apprentice.evaluation.gains import Gains, p_value
from apprentice.evaluation.measures import Measure, measure_of
from apprentice.evaluation.statistics import MIN_SCENARIOS, MIN_TASKS, SIGNIFICANCE
from apprentice.evaluation.usage import stage_seconds
from apprentice.records import Task
from apprentice.records.events import read_events
from apprentice.records.files import read_json
from apprentice.records.metrics import flatten, read_csv

TEMPLATES = Path(__file__).parent
MINUS = "−"
CURVES = {
    "reward": "Reward",
    "success_rate": "Success rate",
    "kl_reference": "KL to the reference (nats per token)",
    "entropy": "Entropy (nats per token)",
    "clip_fraction": "Share of clipped tokens",
    "explained_variance": "Explained variance of the critic",
    "gradient_norm": "Gradient norm",
    "sampler_gap_mean": "Gap to the sampler (nats per token)",
    "malformed_share": "Malformed actions",
    "truncated_share": "Truncated episodes",
    "turns": "Turns per episode",
    "searches": "Searches per episode",
    "action_tokens_per_episode": "Sampled tokens per episode",
    "seconds_step": "Seconds per step",
}
"""Columns of the training curves to draw, in this order, with their titles."""


def report_page(config: PipelineConfig, layout: Layout, tasks: Sequence[Task], episodes: Episodes, metrics: Mapping[str, Any]) -> str:
    """Return the report as HTML. Text from tasks, models and files is escaped; the page loads nothing from elsewhere.

    Args:
        tasks: the held-out tasks that were evaluated.
        metrics: the contents of evaluation.json.
    """
    measure = measure_of(config)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(signed=_signed, share=_share, minutes=_minutes, count=_count, plain=_plain, tally=tally, p=p_value)
    return environment.get_template("report.html.jinja").render(
        pipeline=layout.pipeline,
        config=config,
        metrics=metrics,
        measure=measure,
        conditions=measure.conditions,
        sets=measure.evaluated(metrics),
        differences=_differences(measure.conditions),
        verdict=_verdict(config, measure, metrics),
        headline=_headline(measure, metrics),
        curves=list(_curves(measure, layout.curves("training"))),
        strata=[(words, chart) for words, of_part in measure.strata(metrics).items() if (chart := _groups(of_part, measure.key))],
        pass_rates=_pass_rates(layout.curves("difficulty")),
        agents=AGENTS,
        significance=SIGNIFICANCE,
        minimum=(MIN_TASKS, MIN_SCENARIOS),
        behaviour_bars=list(_behaviour_bars(measure, metrics["behaviour"])),
        examples=choose_examples(measure, tasks, episodes["before"], episodes["trained"]),
        facts={name: _listed(layout.metrics(name)) for name in ("validation", "difficulty", "training")},
        stages=stage_seconds(read_events(layout.events)),
        parameters=parameters(config),
    )


def _differences(conditions: Mapping[str, str]) -> dict[str, str]:
    return {name: f"{conditions[after]} − {conditions[before][0].lower()}{conditions[before][1:]}" for name, (after, before) in DIFFERENCES.items()}


def _verdict(config: PipelineConfig, measure: Measure, metrics: Mapping[str, Any]) -> tuple[str, str]:
    """Return the gains on every set of held-out tasks in words, and the CSS class of the verdict.

    The class is `good` only if the gain of online RL itself is proven.
    """
    headline, *others = measure.evaluated(metrics)
    gains = Gains.of(config, measure, headline, metrics)
    counted = headline.count(headline.of(metrics["trained"])["n"])
    sentences = [f"The agent's {measure.full_name} on {counted} went {_change(config, measure, headline, metrics)}."]
    for held_out in others:
        sentences.append(f"On {held_out.count(held_out.of(metrics['trained'])['n'])} it went {_change(config, measure, held_out, metrics)}.")
    worse = gains.total.proven_worse or gains.online.difference.proven_worse
    return " ".join(sentences), "bad" if worse else "good" if gains.online.difference.proven() else "open"


def _change(config: PipelineConfig, measure: Measure, held_out: HeldOut, metrics: Mapping[str, Any]) -> str:
    before, trained = (held_out.of(metrics[name])[measure.key] for name in ("before", "trained"))
    gains = Gains.of(config, measure, held_out, metrics)
    return f"from {before:.3f} to {trained:.3f}: {gains.describe(sign=MINUS, evidence=True)}"


def _headline(measure: Measure, metrics: Mapping[str, Any]) -> Markup:
    rows = [(name, held_out.label(label), held_out.of(metrics[name])) for held_out in measure.evaluated(metrics) for name, label in measure.conditions.items()]
    dots = [Dot(label, row[measure.key], *row[measure.interval], f"c-{name}") for name, label, row in rows]
    return interval_chart(dots, 0.0, min(1.0, math.ceil(max(dot.high for dot in dots) * 10) / 10))


def _behaviour_bars(measure: Measure, metrics: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, Markup]]:
    """Yield `(title, chart)` for each behaviour metric to draw; a chart compares the agent's conditions."""
    for key in measure.drawn:
        bars = [(f"c-{name}", metrics[name][key]) for name in AGENTS]
        high = max(value for _, value in bars) or 1.0
        # Above 1, one decimal is enough and fits above a bar.
        shown = [(colour, value if value < 1 else round(value, 1)) for colour, value in bars]
        yield measure.behaviour[key].capitalize(), bar_chart({"": shown}, high, width=320, height=150)


def _curves(measure: Measure, path: Path) -> Iterator[tuple[str, str, Markup]]:
    """Yield `(title, last value, chart)` for each training curve that exists."""
    rows = read_csv(path)
    steps = [_number(row.get("step")) for row in rows]
    for column, title in CURVES.items():
        # Every use case's curves count searches, also those whose agents cannot search.
        if column == "searches" and column not in measure.behaviour:
            continue
        values = [_number(row.get(column)) for row in rows]
        finite = [value for value in values if math.isfinite(value)]
        if finite and all(map(math.isfinite, steps)):
            yield title, f"{finite[-1]:.4g}", line_chart(steps, values, "c-trained")


def _groups(metrics: Mapping[str, Mapping[str, Mapping]], key: str) -> Markup | None:
    """Draw the main metric of every condition, one group for each part of `{condition: {part: {<key>, n}}}`."""
    parts = list(dict.fromkeys(part for of_condition in metrics.values() for part in of_condition))
    if not parts:
        return None
    counts = {part: max(of_condition[part]["n"] for of_condition in metrics.values() if part in of_condition) for part in parts}
    groups = {
        f"{part} ({counts[part]} tasks)": [(f"c-{name}", of_condition[part][key]) for name, of_condition in metrics.items() if part in of_condition]
        for part in parts
    }
    return bar_chart(groups, 1.0)


def _pass_rates(path: Path) -> Markup | None:
    """Draw the number of probed tasks by pass rate, from the CSV file of the stage filter."""
    rates = (_number(row.get("pass_rate")) for row in read_csv(path))
    counts = Counter(rate for rate in rates if math.isfinite(rate))
    if not counts:
        return None
    top = max(counts.values())
    return bar_chart({f"{rate:.2f}": [("c-before", counts[rate])] for rate in sorted(counts)}, float(top), height=180)


def _listed(path: Path) -> dict[str, Any]:
    """Return the metrics of a JSON file under readable names; none if it does not exist."""
    return {name.replace("_", " "): value for name, value in flatten(read_json(path))} if path.exists() else {}


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
    """Format a value for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else "none" if value is None else str(value)
