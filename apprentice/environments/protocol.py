"""The contract of an environment. One object is one episode and holds its state."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from apprentice.records import Skill, Task, Trajectory, Verdict

MALFORMED = "malformed"
"""Kind of an action that could not be parsed."""
ERROR = "error"
"""Kind of an action that was executed and failed."""
AGENT = "agent"
"""Name of the environment of the agent itself, as opposed to the baselines of a use case."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The environment's reply to an action."""

    text: str
    """The text that the agent sees."""
    done: bool = False
    """Whether the episode is over; `text` is then not shown."""
    kind: str = ""
    """How the action was parsed: the name of a tool, `answer`, `malformed`, …"""
    calls: tuple[str, ...] = ()
    """Calls that the action made to external APIs (`Turn.calls`)."""
    uses: tuple[str, ...] = ()
    """Skills from earlier tasks that the action used (`Turn.uses`)."""


class Environment(Protocol):
    """One episode. An exception in one of its methods is a fault of the environment, never the agent's failure."""

    stop: tuple[str, ...]
    """Strings that end an action."""
    takes_cut_actions: bool
    """Whether to execute an action that reached the turn's token limit; if not, it counts as malformed and `step` is
    not called."""

    async def reset(self, task: Task) -> Observation:
        """Start the episode and return the first user message."""
        ...

    async def step(self, action: str) -> Observation:
        """Execute one action of the agent; the reply to a malformed action says what to write instead."""
        ...

    async def verify(self) -> Verdict:
        """Judge the episode in its current state; called once, after the last step."""
        ...

    async def close(self) -> None:
        """Release the resources of the episode."""
        ...


MakeEnvironment = Callable[..., Environment]
"""Creates the environment of one episode. Its optional argument is AGENT (the default) or one of the use case's
baselines."""
Actions = Generator[str, str, None]
"""Yields actions and receives the observation of each one."""
Expert = Callable[[Task], Actions]
"""Yields actions as text and receives the observation of each; returns when it gives up."""


class Skills(Protocol):
    """The skills that attempts keep for later tasks."""

    def kept(self, task: Task, trajectory: Trajectory) -> Sequence[Skill]:
        """Return the skills that an attempt at a task kept."""
        ...

    def used(self, skills: Sequence[Skill], trajectory: Trajectory) -> Sequence[Skill]:
        """Return those of the available skills that an attempt used."""
        ...
