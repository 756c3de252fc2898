"""The summary at the end of a run: scores, gains, time, tokens, peak memory, and the commands that open the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from apprentice.config import Layout, PipelineConfig
from apprentice.evaluation.comparison import DIFFERENCES, HeldOut
from apprentice.evaluation.gains import Gains, p_value, read_evaluation
from apprentice.evaluation.measures import Measure, measure_of
from apprentice.evaluation.usage import stage_seconds, training_tokens
from apprentice.records.events import read_events
from apprentice.records.files import read_json


@dataclass(frozen=True)
class Place:
    """A result of the run, and the command that opens it."""

    name: str
    command: str
    page: str = ""
    """The address to visit once the command runs; empty if the command opens the page itself."""
    remark: str = ""


def summary(config: PipelineConfig, layout: Layout, places: Sequence[Place] = ()) -> RenderableType:
    """Return the summary as a rich renderable.

    Raises:
        ApprenticeError: the pipeline has not been evaluated.
    """
    evaluation, measure = read_evaluation(layout), measure_of(config)
    sets = measure.evaluated(evaluation)
    parts: list[RenderableType] = [_scores(measure, held_out, evaluation, layout.pipeline) for held_out in sets]
    parts += [_differences(measure, held_out, evaluation) for held_out in sets]
    parts.append(Text("\n".join(_gained(config, measure, held_out, evaluation) for held_out in sets) + "\n"))
    parts.append(_used(read_events(layout.events), _peak_memory(layout)))
    return Group(*parts, *([Text(), _commands(places)] if places else []))


def _gained(config: PipelineConfig, measure: Measure, held_out: HeldOut, evaluation: Mapping) -> str:
    """Return the gains of the warm start and of online RL on a set of held-out tasks, as one line."""
    before, trained = (held_out.of(evaluation[name])[measure.key] for name in ("before", "trained"))
    gains = Gains.of(config, measure, held_out, evaluation)
    return f"{held_out.label(measure.name)} {before:.3f} to {trained:.3f}: {gains.describe()}"


def _scores(measure: Measure, held_out: HeldOut, evaluation: Mapping, pipeline: str) -> Table:
    """Return the greedy scores on a set of held-out tasks, one row per condition."""
    table = _table(f"{pipeline}: {held_out.words}, greedy")
    table.add_column("", no_wrap=True)
    counts = {key: key if key == "n" else words for key, words in measure.counts.items()}
    for column in (f"{measure.name} [95% interval]", *measure.also.values(), *counts.values()):
        table.add_column(column, justify="right", no_wrap=True)
    for name, letter in _letters(measure).items():
        row = held_out.of(evaluation[name])
        cells = [f"{row[measure.key]:.3f} {_interval(row[measure.interval])}", *(f"{row[key]:.3f}" for key in measure.also), *(str(row[key]) for key in counts)]
        table.add_row(f"{letter} {_short(measure.conditions[name])}", *cells, style="bold" if name == "trained" else None)
    return table


def _differences(measure: Measure, held_out: HeldOut, evaluation: Mapping) -> Table:
    """Return the paired differences in the main metric, for greedy and for sampled episodes."""
    table, letters = _table(held_out.label(f"Paired difference in {measure.name}")), _letters(measure)
    table.add_column("")
    table.add_column(f"{measure.name} [95% interval]", justify="right")
    table.add_column("p", justify="right")
    named = {name: f"{letters[after]} - {letters[before]}" for name, (after, before) in DIFFERENCES.items()}
    rows = [(words, evaluation[name]) for name, words in named.items()]
    rows += [(f"{words}, sampled", evaluation["sampled"][name]) for name, words in named.items() if name in evaluation.get("sampled", {})]
    for words, difference in rows:
        row = held_out.of(difference)
        table.add_row(words, f"{row[measure.key]:+.3f} {_interval(row[measure.interval], sign=True)}", p_value(row["p"]))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _short(condition: str) -> str:
    """Shorten the report's name of a condition: `Agent after PPO` becomes `after PPO`."""
    words = condition[0].lower() + condition[1:]
    return words.removeprefix("agent ") if words.startswith("agent after") else words


def _letters(measure: Measure) -> dict[str, str]:
    """Return a letter for each condition, in order: `(a)`, `(b)` and so on."""
    return {name: f"({letter})" for name, letter in zip(measure.conditions, ascii_lowercase, strict=False)}


def _used(events: Sequence[Mapping], memory: int) -> Text:
    """List each stage's minutes in its last run, the training tokens and the peak memory (bytes), as far as known."""
    minutes = {stage: seconds / 60 for stage, seconds in stage_seconds(events).items()}
    tokens = training_tokens(events)
    parts = [f"{sum(minutes.values()):.1f} minutes ({', '.join(f'{stage} {value:.1f}' for stage, value in minutes.items())})"] if minutes else []
    parts += [f"{tokens:,.0f} training tokens"] if tokens else []
    parts += [f"{memory / 2**30:.1f} GiB of peak memory"] if memory else []
    return Text(f"Used: {', '.join(parts)}" if parts else "")


def _peak_memory(layout: Layout) -> int:
    """Return the most bytes that a stage used; 0 if no flow has run."""
    return max(read_json(layout.memory).values(), default=0) if layout.memory.exists() else 0


def _commands(places: Sequence[Place]) -> Text:
    """List the results with the commands that open them; long lines are not wrapped, so that they can be copied."""
    lines = []
    for place in places:
        lines.append(Text.assemble((f"{place.name}: ", "bold"), place.command))
        if place.page:
            lines.append(Text(f"    then {place.page}"))
        if place.remark:
            lines.append(Text(f"    {place.remark}", style="dim"))
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def _interval(bounds: Sequence[float], *, sign: bool = False) -> str:
    """Format an interval as `[low, high]` with three decimals."""
    low, high = (f"{bound:+.3f}" if sign else f"{bound:.3f}" for bound in bounds)
    return f"[{low}, {high}]"
