"""Toys for the simulator: a chat format with one token per character, and policies that follow a script."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from apprentice.config.schema import EnvironmentConfig
from apprentice.environments.tools import ToolEnvironment, tool
from apprentice.policy.protocol import Completion, Sampling
from apprentice.records import Task


class ToyChat:
    """A character's token is its code point; `[]` enclose the user's turns, and `{}` the assistant's."""

    end_token_id = ord("}")

    def prompt(self, user_text: str) -> list[int]:
        return self.encode(f"[{user_text}]{{")

    def reply(self, text: str, ended: bool) -> list[int]:
        return self.encode(("" if ended else "}") + f"[{text}]{{")

    def action(self, text: str) -> list[int]:
        return self.encode(text)

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in ids if token != self.end_token_id)


class ToyPolicy:
    """Completes each prompt with `script(prompt text, sampling)`, up to the token limit."""

    def __init__(self, script: Callable[[str, Sampling], str], delay_s: float = 0.0):
        self.script, self.delay_s = script, delay_s
        self.requests: list[tuple[str, Sampling]] = []
        self.in_flight = self.most_in_flight = 0

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        prompt = "".join(map(chr, token_ids))
        self.requests.append((prompt, sampling))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            tokens = tuple(ord(character) for character in self.script(prompt, sampling))
        finally:
            self.in_flight -= 1
        kept = tokens[: sampling.max_tokens]
        return Completion(kept, tuple(-0.5 - index / 100 for index in range(len(kept))), "length" if len(tokens) > len(kept) else "stop", version=3)


class Echo(ToolEnvironment):
    """Echoes `<say>word</say>`, expects the task's answer, and counts its open instances."""

    instruction = "Go."
    open = 0

    def __init__(self):
        type(self).open += 1

    @tool
    def say(self, word: str) -> str:
        if word == "boom":
            raise RuntimeError("the tool broke")
        return word.upper()

    def check(self, task: Task, answer: str) -> float:
        return answer in task.answers

    async def close(self) -> None:
        type(self).open -= 1


@pytest.fixture
def chat():
    return ToyChat()


@pytest.fixture
def toy_policy():
    return ToyPolicy


@pytest.fixture
def echo():
    """A new class, so that its count of open environments starts at 0."""
    return type("FreshEcho", (Echo,), {"open": 0})


@pytest.fixture
def limits():
    """A function that makes the limits of an episode; those that are not given are generous."""

    def make(**settings) -> EnvironmentConfig:
        roomy = {"max_turns": 3, "max_turn_tokens": 40, "max_failed_turns": 3, "max_tokens": 500, "concurrency": 8}
        return EnvironmentConfig(use="toy", **(roomy | settings))

    return make


@pytest.fixture
def tasks():
    """A function that makes a number of tasks, `t0` and up, with the answer `yes`."""
    return lambda count: [Task(id=f"t{index}", scenario="s", split="train", instruction=f"Task {index}?", answers=("yes",)) for index in range(count)]
