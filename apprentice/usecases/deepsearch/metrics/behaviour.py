"""Metrics of an agent's behaviour, independent of the outcome."""

import re
from collections.abc import Iterable, Sequence

from apprentice.evaluation.comparison import rounded
from apprentice.records import Trajectory, Turn
from apprentice.records.metrics import mean

QUERY = re.compile(r"<search>(.*?)(?:</search>|$)", re.DOTALL)
THOUGHT = re.compile(r"<think>.*?\S.*?</think>", re.DOTALL)

METRICS = {
    "searched_before_answering": "episodes that searched before they answered",
    "searches": "searches per episode",
    "repeated_queries": "searches that repeat an earlier one of the episode",
    "malformed": "malformed actions",
    "thinking": "actions with a thought",
    "turns": "turns per episode",
    "action_tokens": "tokens sampled per episode",
    "answered": "episodes that ended with an answer",
    "truncated": "episodes that ran out of turns or tokens",
}
"""Metric of `behaviour` -> its label."""
SHARES = ("searched_before_answering", "repeated_queries", "malformed", "thinking", "answered", "truncated")
"""The metrics that are shares; the others are means per episode."""


def behaviour(trajectories: Iterable[Trajectory]) -> dict[str, float]:
    """Return the metrics in `METRICS`, without faulty episodes; all 0 if no episode was completed."""
    episodes = [trajectory for trajectory in trajectories if trajectory.outcome != "fault"]
    turns = [turn for episode in episodes for turn in episode.turns]
    queries = [_queries(episode) for episode in episodes]
    asked = sum(map(len, queries))
    repeated = asked - sum(len(set(of_episode)) for of_episode in queries)
    metrics = {
        "searched_before_answering": mean(_searched_before_answering(episode) for episode in episodes),
        "searches": mean(len(of_episode) for of_episode in queries),
        "repeated_queries": repeated / asked if asked else 0.0,
        "malformed": mean(turn.kind == "malformed" for turn in turns),
        "thinking": mean(bool(THOUGHT.search(turn.action)) for turn in turns),
        "turns": mean(len(episode.turns) for episode in episodes),
        "action_tokens": mean(episode.action_tokens for episode in episodes),
        "answered": mean(any(turn.kind == "answer" for turn in episode.turns) for episode in episodes),
        "truncated": mean(episode.outcome == "truncated" for episode in episodes),
    }
    return {name: rounded(value) for name, value in metrics.items()}


def query_of(turn: Turn) -> str:
    """Return the query of a search action in lower case with single spaces; without tags, the whole action."""
    match = QUERY.search(turn.action)
    return " ".join((match.group(1) if match else turn.action).lower().split())


def _queries(episode: Trajectory) -> Sequence[str]:
    return [query_of(turn) for turn in episode.turns if turn.kind == "search"]


def _searched_before_answering(episode: Trajectory) -> bool:
    kinds = [turn.kind for turn in episode.turns]
    return "answer" in kinds and "search" in kinds[: kinds.index("answer")]
