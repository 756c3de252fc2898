"""The contract of an environment: what a user brings. One object is one episode; its state lives in the object."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from apprentice.records import Skill, Task, Trajectory, Verdict

MALFORMED = "malformed"
"""The kind of an action that could not be understood."""
ERROR = "error"
"""The kind of an action that was carried out and failed."""
AGENT = "agent"
"""The environment of the agent itself, where a use case has others to compare it with."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the agent is told."""

    text: str
    done: bool = False
    """The episode is over; `text` is not shown."""
    kind: str = ""
    """What the action was taken for: a tool's name, `answer`, `malformed`, …"""
    calls: tuple[str, ...] = ()
    """What the action asked of the world outside (`Turn.calls`)."""
    uses: tuple[str, ...] = ()
    """Functions kept from earlier tasks that were of use to the action (`Turn.uses`)."""


class Environment(Protocol):
    """One episode. Exceptions raised by these methods are faults of the environment, never the agent's failure."""

    stop: tuple[str, ...]
    """Strings that end an action."""
    takes_cut_actions: bool
    """Whether an action that ran into the turn's token limit is still an action; otherwise it is answered as malformed, without a step."""

    async def reset(self, task: Task) -> Observation:
        """Begins the episode; the observation's text is the first user message."""
        ...

    async def step(self, action: str) -> Observation:
        """Takes one action of the agent, as text. A malformed one is answered by an observation that says what was wrong."""
        ...

    async def verify(self) -> Verdict:
        """Judges the episode as it stands; called once, after the last step."""
        ...

    async def close(self) -> None:
        """Lets go of what the episode holds."""
        ...


MakeEnvironment = Callable[..., Environment]
"""Makes a fresh environment for one episode; its argument is AGENT, which may be left out, or one of the use case's baselines."""
Expert = Callable[[Task], Generator[str, str, None]]
"""Yields actions as text and is sent the observation of each; ends where it gives up."""


class Skills(Protocol):
    """What attempts leave behind for later tasks, as training sees it."""

    def kept(self, task: Task, trajectory: Trajectory) -> Sequence[Skill]:
        """What an attempt at a task kept."""
        ...

    def used(self, skills: Sequence[Skill], trajectory: Trajectory) -> Sequence[Skill]:
        """Which of the skills at hand an attempt used."""
        ...
