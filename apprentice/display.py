"""A stage's progress for people, from its events: a live line on a terminal, a plain line every few seconds elsewhere."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_EVERY_S = 10.0
"""Between two lines of the same stage where the output is no terminal."""
SHOWN_METRICS = ("reward", "loss", "kl_reference", "entropy")
BAR_WIDTH = 24


class EventTail:
    """Reads what has been appended to an events file since the last look."""

    def __init__(self, path: Path, *, from_end: bool = True):
        """`from_end` skips what the file already holds."""
        self._path = path
        self._position = path.stat().st_size if from_end and path.exists() else 0
        self._rest = b""

    def read(self) -> list[dict]:
        """The new events, in their order; a line still being written is kept for the next call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            chunk = file.read()
        self._position += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [event for line in lines if (event := _event(line))]


def _event(line: bytes) -> dict | None:
    """None for a line that an interruption cut short."""
    try:
        return json.loads(line)
    except ValueError:
        return None


@dataclass
class Phase:
    """How far one phase of a stage has come."""

    began: float
    first: int
    done: int
    total: int

    def left(self, now: float) -> float | None:
        """Seconds until it is finished at its pace so far; None where no pace is known."""
        finished = self.done - self.first
        if finished <= 0 or self.done >= self.total:
            return None
        return (now - self.began) / finished * (self.total - self.done)


@dataclass
class StageProgress:
    """What a stage's events have told so far."""

    stage: str
    began: float
    phases: dict[str, Phase] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    """The figures of the last step."""
    notes: list[str] = field(default_factory=list)
    """Not yet printed."""

    def take(self, event: Mapping) -> None:
        """Takes one event into account."""
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
        if phase is None or done < phase.done:  # a phase that comes again, such as every step's simulation, starts anew
            self.phases[name] = Phase(event["time"], done, done, total)
        else:
            phase.done, phase.total = done, total

    @property
    def leading(self) -> tuple[str, Phase] | None:
        """The phase that tells how long the stage still takes: the earliest begun that is not finished, else the latest."""
        unfinished = [(name, phase) for name, phase in self.phases.items() if phase.done < phase.total]
        return unfinished[0] if unfinished else next(reversed(self.phases.items()), None)

    @property
    def share(self) -> float:
        """How much of the leading phase is done, 0 to 1."""
        if self.leading is None:
            return 0.0
        _, phase = self.leading
        return phase.done / max(1, phase.total)

    def words(self, now: float) -> str:
        """One line: phase, units, time spent, time left, last figures."""
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
    """Shows one stage while it runs; use as a context manager."""

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
        took = clock(time.time() - self.progress.began)
        mark = ("✓ ", "green") if kind is None else ("✗ ", "red")
        self.console.print(Text.assemble(mark, (f"{self.progress.stage:<9}", "bold"), f" {took}"))

    def update(self, events: Iterable[Mapping]) -> None:
        """Takes new events and shows where the stage stands."""
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
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=1.0, completed=self.progress.share, width=BAR_WIDTH, pulse=not self.progress.phases)
        line.add_row(Text(f"  {self.progress.stage:<9}", style="bold"), bar, Text(self.progress.words(time.time())))
        return line


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
