"""Turns typed Python methods into tools for an agent: an environment needs only tools and a check."""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from apprentice.environments.protocol import MALFORMED, Observation
from apprentice.records import Task, Verdict

ANSWER, THINK = "answer", "think"
OPENING_TAG = re.compile(r"<([A-Za-z]\w{0,31})>")


@dataclass(frozen=True, slots=True)
class Call:
    """A well-formed action."""

    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """An action that could not be parsed."""

    advice: str
    """One short sentence that tells the agent what to write."""


def parse_action(text: str, tags: Mapping[str, str]) -> Call | Malformed:
    """Parse an optional `<think>…</think>`, then exactly one `<tag>argument</tag>`.

    Args:
        text: the action.
        tags: name of each tag -> name of its argument, such as {"search": "query", "answer": "phrase"}.
    """
    usage = " or ".join(f"<{name}>{word}</{name}>" for name, word in tags.items())
    rest = text.strip()
    if rest.startswith(f"<{THINK}>"):
        _, closed, rest = rest.partition(f"</{THINK}>")
        if not closed:
            return Malformed(f"Close <{THINK}> with </{THINK}>, then write {usage}.")
        rest = rest.strip()
    opened = OPENING_TAG.findall(rest)
    known = [name for name in opened if name in tags]
    if len(known) > 1:
        return Malformed(f"Write one tag only: {usage}.")
    if not known:
        return Malformed(_without_tag(rest, opened, tags, usage))
    return _one_call(rest, known[0], tags)


def _without_tag(rest: str, opened: list[str], tags: Mapping[str, str], usage: str) -> str:
    unopened = next((name for name in tags if f"</{name}>" in rest), None)
    if unopened:
        return f"Open </{unopened}> with <{unopened}>."
    if opened:
        return f"<{opened[0]}> is unknown: write {usage}."
    return f"Write {usage}."


def _one_call(rest: str, name: str, tags: Mapping[str, str]) -> Call | Malformed:
    before, _, inside = rest.partition(f"<{name}>")
    argument, closed, after = inside.partition(f"</{name}>")
    if not closed:
        return Malformed(f"Close <{name}> with </{name}>.")
    if before:
        return Malformed(f"Write nothing before <{name}>.")
    if after.strip():
        return Malformed(f"Write nothing after </{name}>.")
    if not argument.strip():
        return Malformed(f"Write a {tags[name]} between <{name}> and </{name}>.")
    return Call(name, argument.strip())


def tool(method: Callable) -> Callable:
    """Mark a method as a tool: the agent calls `def name(self, word: str) -> str`, sync or async, with
    `<name>word</name>`.

    The agent sees the returned text. An exception is a fault of the environment.

    Raises:
        TypeError: the signature does not fit, or the name is reserved.
    """
    parameters = list(inspect.signature(method).parameters.values())[1:]
    if len(parameters) != 1 or parameters[0].annotation not in (str, "str"):
        raise TypeError(f"tool {method.__qualname__!r} must take exactly one argument of type str besides self")
    if method.__name__ in (ANSWER, THINK):
        raise TypeError(f"<{method.__name__}> is reserved: rename tool {method.__qualname__!r}")
    method.tool_argument = parameters[0].name
    return method


class ToolEnvironment(ABC):
    """An environment made of tools: each `@tool` method is a tag, `<answer>` ends the episode, and `check` judges the
    answer."""

    instruction: ClassVar[str] = ""
    """Text before the task in the first message; if empty, it is built from the first lines of the tools'
    docstrings."""
    takes_cut_actions: ClassVar[bool] = False
    tags: ClassVar[Mapping[str, str]] = MappingProxyType({ANSWER: "phrase"})
    """Name of each tag -> name of its argument; collected from the tools."""
    stop: ClassVar[tuple[str, ...]] = (f"</{ANSWER}>",)

    def __init_subclass__(cls, **arguments) -> None:
        super().__init_subclass__(**arguments)
        members = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
        tools = {name: value.tool_argument for name, value in members.items() if hasattr(value, "tool_argument")}
        cls.tags = MappingProxyType({**tools, ANSWER: "phrase"})
        cls.stop = tuple(f"</{name}>" for name in cls.tags)
        if not cls.instruction:
            lines = [f"<{name}>{word}</{name}>: {(members[name].__doc__ or name).strip().splitlines()[0]}" for name, word in tools.items()]
            cls.instruction = "\n".join([*lines, f"<{ANSWER}>phrase</{ANSWER}>: Ends the task."])

    @abstractmethod
    def check(self, task: Task, answer: str) -> float:
        """Return the score of the agent's answer; 1.0 is success."""

    def opening(self, task: Task) -> str:
        """Return the first user message."""
        return f"{self.instruction}\n{task.instruction}"

    async def reset(self, task: Task) -> Observation:
        """Start the episode."""
        self._task, self._answer = task, ""
        return Observation(self.opening(task))

    async def step(self, action: str) -> Observation:
        """Call the tool that the action names, accept its answer, or advise what to write instead."""
        call = parse_action(action, self.tags)
        if isinstance(call, Malformed):
            return Observation(call.advice, kind=MALFORMED)
        if call.name == ANSWER:
            self._answer = call.argument
            return Observation("", done=True, kind=ANSWER)
        result = getattr(self, call.name)(call.argument)
        return Observation(await result if inspect.isawaitable(result) else result, kind=call.name)

    async def verify(self) -> Verdict:
        """Check the answer; an episode without an answer fails."""
        score = float(self.check(self._task, self._answer)) if self._answer else 0.0
        return Verdict(success=score >= 1.0, score=score, answer=self._answer)

    async def close(self) -> None:  # noqa: B027 (optional to override)
        """Release nothing; override it if the episode holds resources."""
