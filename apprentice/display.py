"""Displays a stage's progress from its events: a live line on a terminal, a plain line every few seconds elsewhere.

The bars are rich's, but `rich.progress` does not fit: it estimates the time left from the updates of the last 30
seconds, while a training step takes minutes, and it prints nothing before the end if the output is not a terminal. So
`Phase` estimates the time left for both kinds of output.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_EVERY_S = 10.0
"""Seconds between two lines of a stage if the output is not a terminal."""
SHOWN_METRICS = ("reward", "loss", "kl_reference", "entropy")
BAR_WIDTH = 24


@dataclass
class Phase:
    """Progress of one phase of a stage."""

    began: float
    """Unix time of its first event."""
    first: int
    """Units that were done at that time: a resumed stage does not begin at 0."""
    done: int
    total: int

    def left(self, now: float) -> float | None:
        """Return the seconds left at the average pace so far; None if no pace is known or the phase is finished."""
        finished = self.done - self.first
        if finished <= 0 or self.done >= self.total:
            return None
        return (now - self.began) / finished * (self.total - self.done)


@dataclass
class StageProgress:
    """Progress of a stage according to its events so far."""

    stage: str
    began: float
    phases: dict[str, Phase] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    """Metrics of the last step."""
    notes: list[str] = field(default_factory=list)
    """Notes that are not printed yet."""

    def take(self, event: Mapping) -> None:
        """Update the progress with an event; events of other stages are ignored."""
        if event.get("stage") != self.stage:
            return
        if event["kind"] == "progress":
            self._advance(event)
        elif event["kind"] == "metrics":
            self.values = event["values"]
        elif event["kind"] == "note":
            self.notes.append(event["text"])

    def _advance(self, event: Mapping) -> None:
        name, done, total = event["phase"], event["done"], event["total"]
        phase = self.phases.get(name)
        if phase is None or done < phase.done:  # the phase starts again, as each step's simulation does
            self.phases[name] = Phase(event["time"], done, done, total)
        else:
            phase.done, phase.total = done, total

    @property
    def leading(self) -> tuple[str, Phase] | None:
        """The phase that determines the time left: the first one that is not finished, otherwise the last one."""
        unfinished = [(name, phase) for name, phase in self.phases.items() if phase.done < phase.total]
        return unfinished[0] if unfinished else next(reversed(self.phases.items()), None)

    @property
    def share(self) -> float:
        """Completed share of the leading phase, from 0 to 1."""
        if self.leading is None:
            return 0.0
        _, phase = self.leading
        return phase.done / max(1, phase.total)

    def words(self, now: float) -> str:
        """Return one line with the phases, elapsed time, time left and the last metrics."""
        parts = []
        if self.leading:
            name, phase = self.leading
            parts.append(f"{name} {phase.done}/{phase.total}")
            inner = [(other, p) for other, p in self.phases.items() if p is not phase and p.done < p.total]
            parts += [f"{other} {p.done}/{p.total}" for other, p in inner[-1:]]
        parts.append(clock(now - self.began))
        left = self.leading[1].left(now) if self.leading else None
        if left is not None:
            parts.append(f"about {clock(left)} left")
        parts += [f"{name} {self.values[name]:.3g}" for name in SHOWN_METRICS if name in self.values]
        return " · ".join(parts)


class StageDisplay:
    """Displays a stage while it runs; a context manager."""

    def __init__(self, stage: str, console: Console | None = None):
        self.console = console or Console()
        self.progress = StageProgress(stage, time.time())
        self._live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self._printed = time.monotonic()

    def __enter__(self) -> "StageDisplay":
        if self._live:
            self._live.start()
            self._live.update(self._bar(), refresh=True)
        else:
            self.console.print(f"{self.progress.stage}: starting", highlight=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if self._live:
            self._live.stop()
        elapsed = clock(time.time() - self.progress.began)
        mark = ("✓ ", "green") if kind is None else ("✗ ", "red")
        self.console.print(Text.assemble(mark, (f"{self.progress.stage:<9}", "bold"), f" {elapsed}"))

    def update(self, events: Iterable[Mapping]) -> None:
        """Process new events and refresh the display."""
        for event in events:
            self.progress.take(event)
        for note in self.progress.notes:
            self.console.print(f"  {self.progress.stage}: {note}", style="dim", markup=False, highlight=False, soft_wrap=True)
        self.progress.notes.clear()
        if self._live:
            self._live.update(self._bar(), refresh=True)
        elif time.monotonic() - self._printed >= PLAIN_EVERY_S:
            self._printed = time.monotonic()
            self.console.print(f"{self.progress.stage}: {self.progress.words(time.time())}", markup=False, highlight=False, soft_wrap=True)

    def _bar(self) -> Table:
        line = Table.grid(padding=(0, 1))
        for _ in range(2):
            line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=1.0, completed=self.progress.share, width=BAR_WIDTH, pulse=not self.progress.phases)
        line.add_row(Text(f"  {self.progress.stage:<9}", style="bold"), bar, Text(self.progress.words(time.time())))
        return line


def clock(seconds: float) -> str:
    """Format seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
