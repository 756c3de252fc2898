"""Actions are read strictly, and each malformation is answered by what to write instead."""

import asyncio

import pytest

from apprentice.environments.tools import Call, Malformed, ToolEnvironment, parse_action, tool
from apprentice.records import Task

TAGS = {"search": "query", "answer": "phrase"}
USAGE = "<search>query</search> or <answer>phrase</answer>"


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("<search>who won</search>", Call("search", "who won")),
        ("  <search> who won </search>\n", Call("search", "who won")),
        ("<think>I look it up.</think><search>who won</search>", Call("search", "who won")),
        ("<think>\nfirst <search>\n</think>\n<answer>Paris</answer>", Call("answer", "Paris")),
        ("<think></think><answer>Paris</answer>", Call("answer", "Paris")),
        ("<answer>a < b and b > a</answer>", Call("answer", "a < b and b > a")),
        ("<search>two\nlines</search>", Call("search", "two\nlines")),
    ],
)
def test_a_well_formed_action_is_understood(text, call):
    assert parse_action(text, TAGS) == call


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", f"Write {USAGE}."),
        ("Paris", f"Write {USAGE}."),
        ("<think>done</think>", f"Write {USAGE}."),
        ("<think>never closed <search>x</search>", f"Close <think> with </think>, then write {USAGE}."),
        ("<search>a</search><search>b</search>", f"Write one tag only: {USAGE}."),
        ("<search>a</search><answer>b</answer>", f"Write one tag only: {USAGE}."),
        ("<search>a <answer>b</answer></search>", f"Write one tag only: {USAGE}."),
        ("<lookup>x</lookup>", f"<lookup> is unknown: write {USAGE}."),
        ("<search>who won", "Close <search> with </search>."),
        ("<answer>Paris</search>", "Close <answer> with </answer>."),
        ("who won</search>", "Open </search> with <search>."),
        ("Let me see: <search>x</search>", "Write nothing before <search>."),
        ("<search>x</search>.", "Write nothing after </search>."),
        ("<search>x</search><think>y</think>", "Write nothing after </search>."),
        ("<search></search>", "Write a query between <search> and </search>."),
        ("<answer> \n</answer>", "Write a phrase between <answer> and </answer>."),
    ],
)
def test_a_malformed_action_is_told_what_to_write(text, advice):
    assert parse_action(text, TAGS) == Malformed(advice)


class Calculator(ToolEnvironment):
    """All that a user writes."""

    @tool
    def double(self, number: str) -> str:
        """Doubles a number."""
        return str(2 * int(number))

    @tool
    async def negate(self, number: str) -> str:
        """Changes the sign."""
        return str(-int(number))

    def check(self, task, answer):
        return answer in task.answers


class BetterCalculator(Calculator):
    @tool
    def square(self, number: str) -> str:
        return str(int(number) ** 2)


def play(*actions, environment=Calculator):
    async def episode():
        world = environment()
        told = [await world.reset(Task(id="t", scenario="s", split="train", instruction="What is 2 * 21?", answers=("42",)))]
        told += [await world.step(action) for action in actions]
        return told, await world.verify()

    return asyncio.run(episode())


def test_tools_are_described_to_the_agent_and_end_its_actions():
    (first,), verdict = play()
    assert first.text == (
        "<double>number</double>: Doubles a number.\n<negate>number</negate>: Changes the sign.\n<answer>phrase</answer>: Ends the task.\nWhat is 2 * 21?"
    )
    assert Calculator.stop == ("</double>", "</negate>", "</answer>")
    assert not verdict.success and verdict.score == 0.0 and verdict.answer == ""


def test_tools_are_called_whether_sync_or_async():
    (_, doubled, negated), _ = play("<double>21</double>", "<negate>42</negate>")
    assert (doubled.text, doubled.kind, doubled.done) == ("42", "double", False)
    assert (negated.text, negated.kind) == ("-42", "negate")


def test_tools_are_inherited():
    assert tuple(BetterCalculator.tags) == ("double", "negate", "square", "answer")
    assert play("<square>3</square>", environment=BetterCalculator)[0][1].text == "9"


def test_an_answer_ends_the_episode_and_is_checked():
    (_, last), verdict = play("<think>easy</think><answer>42</answer>")
    assert last.done and last.kind == "answer"
    assert verdict.success and verdict.score == 1.0 and verdict.answer == "42"


def test_a_malformed_action_does_not_end_the_episode():
    (_, told), verdict = play("42")
    assert told.kind == "malformed" and not told.done and not verdict.success


def test_what_a_tool_raises_is_not_hidden():
    with pytest.raises(ValueError, match="invalid literal"):
        play("<double>x</double>")


def test_a_tool_must_take_one_string():
    with pytest.raises(TypeError, match="exactly one argument of type str"):

        @tool
        def add(self, a: int, b: int) -> str: ...


def test_a_tool_cannot_be_called_answer():
    with pytest.raises(TypeError, match="is reserved"):

        @tool
        def answer(self, text: str) -> str: ...
