"""The last screen of a run: what was reached, what it cost, and where everything is. Reads files, returns rich renderables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from apprentice.config import Layout, PipelineConfig
from apprentice.evaluation.comparison import DIFFERENCES, HeldOut
from apprentice.evaluation.gains import Gains, p_value, read_evaluation
from apprentice.evaluation.measures import Measure, measure_of
from apprentice.records.files import read_json


@dataclass(frozen=True)
class Place:
    """Something the run left behind, and the command that opens it."""

    name: str
    command: str
    page: str = ""
    """Where the command serves it; empty where the command opens it itself."""
    remark: str = ""


def summary(config: PipelineConfig, layout: Layout, places: Sequence[Place] = ()) -> RenderableType:
    """The screen: scores with 95% intervals, paired differences, cost, places.

    Raises:
        ApprenticeError: the pipeline has not been evaluated yet.
    """
    evaluation, measure = read_evaluation(layout), measure_of(config)
    sets = measure.evaluated(evaluation)
    parts: list[RenderableType] = [scores(measure, held_out, evaluation, layout.pipeline) for held_out in sets]
    parts += [differences(measure, held_out, evaluation) for held_out in sets]
    parts.append(Text("\n".join(gained(config, measure, held_out, evaluation) for held_out in sets) + "\n"))
    parts.append(cost(_events(layout.events), memory_peak(layout)))
    return Group(*parts, *([Text(), where(places)] if places else []))


def gained(config: PipelineConfig, measure: Measure, held_out: HeldOut, evaluation: Mapping) -> str:
    """What the warm start and what online RL added on a set of held-out tasks, greedy, and whether each is proven."""
    before, trained = (held_out.of(evaluation[name])[measure.key] for name in ("before", "trained"))
    gains = Gains.of(config, measure, held_out, evaluation)
    return f"{held_out.label(measure.name)} {before:.3f} to {trained:.3f}: {gains.told()}"


def scores(measure: Measure, held_out: HeldOut, evaluation: Mapping, pipeline: str) -> Table:
    """Scores on a set of held-out tasks, a row a condition."""
    table = _table(f"{pipeline}: {held_out.words}, greedy")
    table.add_column("", no_wrap=True)
    counts = {key: key if key == "n" else words for key, words in measure.counts.items()}
    for column in (f"{measure.name} [95% interval]", *measure.also.values(), *counts.values()):
        table.add_column(column, justify="right", no_wrap=True)
    for name, letter in _letters(measure).items():
        row = held_out.of(evaluation[name])
        cells = [f"{row[measure.key]:.3f} {interval(row[measure.interval])}", *(f"{row[key]:.3f}" for key in measure.also), *(str(row[key]) for key in counts)]
        table.add_row(f"{letter} {_short(measure.conditions[name])}", *cells, style="bold" if name == "trained" else None)
    return table


def differences(measure: Measure, held_out: HeldOut, evaluation: Mapping) -> Table:
    """Paired differences in the main figure, of the greedy episodes and of those sampled at `evaluate.temperature`."""
    table, letters = _table(held_out.label(f"Paired difference in {measure.name}")), _letters(measure)
    table.add_column("")
    table.add_column(f"{measure.name} [95% interval]", justify="right")
    table.add_column("p", justify="right")
    named = {name: f"{letters[after]} - {letters[before]}" for name, (after, before) in DIFFERENCES.items()}
    rows = [(words, evaluation[name]) for name, words in named.items()]
    rows += [(f"{words}, sampled", evaluation["sampled"][name]) for name, words in named.items() if name in evaluation.get("sampled", {})]
    for words, difference in rows:
        row = held_out.of(difference)
        table.add_row(words, f"{row[measure.key]:+.3f} {interval(row[measure.interval], sign=True)}", p_value(row["p"]))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _short(condition: str) -> str:
    """The report's words for a condition, shorter: `Agent after PPO` is `after PPO`."""
    words = condition[0].lower() + condition[1:]
    return words.removeprefix("agent ") if words.startswith("agent after") else words


def _letters(measure: Measure) -> dict[str, str]:
    """`(a)`, `(b)` and so on for the conditions, in their order."""
    return {name: f"({letter})" for name, letter in zip(measure.conditions, ascii_lowercase, strict=False)}


def cost(events: Iterable[Mapping], memory: int = 0) -> Text:
    """Minutes of each stage's last complete run, tokens spent, and the most memory held in bytes; nothing where no run has left events."""
    minutes, tokens = spent(events)
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in minutes.items())
    told = [f"{sum(minutes.values()):.1f} minutes ({stages})"] if minutes else []
    told += [f"{tokens:,.0f} tokens in training"] if tokens else []
    told += [f"{memory / 2**30:.1f} GiB of memory at most"] if memory else []
    return Text(f"Spent: {', '.join(told)}" if told else "")


def memory_peak(layout: Layout) -> int:
    """Bytes; 0 where no flow has run."""
    return max(read_json(layout.memory).values(), default=0) if layout.memory.exists() else 0


def spent(events: Iterable[Mapping]) -> tuple[dict[str, float], float]:
    """Minutes by stage and training tokens, from events; work that an interruption cut is counted with the run that finished it."""
    seconds: dict[str, float] = {}
    steps: dict[int, float] = {}
    finished, last = set(), {}
    for event in events:
        stage, kind = event["stage"], event["kind"]
        if kind == "begin":
            if stage in finished:
                finished.discard(stage)
                seconds[stage] = 0.0
                if stage == "train":
                    steps.clear()
        elif stage in last:
            seconds[stage] = seconds.get(stage, 0.0) + event["time"] - last[stage]
        last[stage] = event["time"]
        if kind == "end":
            finished.add(stage)
        if kind == "metrics" and stage == "train":
            steps[event["step"]] = event["values"].get("tokens", 0.0)
    return {stage: value / 60 for stage, value in seconds.items()}, sum(steps.values())


def where(places: Sequence[Place]) -> Text:
    """What the run left behind, each with the command that opens it; lines are never folded, so that they can be copied."""
    lines = []
    for place in places:
        lines.append(Text.assemble((f"{place.name}: ", "bold"), place.command))
        if place.page:
            lines.append(Text(f"    then {place.page}"))
        if place.remark:
            lines.append(Text(f"    {place.remark}", style="dim"))
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def interval(bounds: Sequence[float], *, sign: bool = False) -> str:
    """`[low, high]`, three decimals."""
    low, high = (f"{bound:+.3f}" if sign else f"{bound:.3f}" for bound in bounds)
    return f"[{low}, {high}]"


def _events(path: Path) -> list[dict]:
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:  # cut short by an interruption
            continue
    return events
