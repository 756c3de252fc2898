"""evaluation.json of questions: every condition's scores, their paired differences, behaviour and cost, under stable names.

What every use case's comparison has in common stands here too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from apprentice.config.schema import EvaluateConfig
from apprentice.evaluation.behaviour import behaviour
from apprentice.evaluation.scores import Condition, abstention, by_difficulty, by_hops, difference, rounded, score_condition, summary
from apprentice.records import Task, Trajectory

CONDITIONS = {
    "base_closed_book": "Base model, no retrieval",
    "base_rag": "Base model, plain RAG",
    "before": "Agent before training",
    "warm_start": "Agent after the warm start",
    "trained": "Agent after PPO",
}
"""The conditions in the order of the report, in words."""
AGENTS = ("before", "warm_start", "trained")
"""The conditions that act for themselves."""
SAMPLED = ("warm_start", "trained")
"""The conditions that have sampled episodes too: what training started from and what came of it. The base model's greedy ones say enough."""
DIFFERENCES = {
    "trained_minus_before": ("trained", "before"),
    "warm_start_minus_before": ("warm_start", "before"),
    "trained_minus_warm_start": ("trained", "warm_start"),
}
"""Differences between two conditions, `(after, before)`. The second and the third add up to the first."""

Episodes = Mapping[str, Sequence[Trajectory]]
"""The episodes of each condition, greedy and sampled together."""
Strata = Mapping[str, Mapping[str, Mapping[str, Mapping]]]
"""Words -> condition -> part of the tasks -> its main figure and `n`."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A set of held-out tasks that is scored by itself."""

    words: str
    key: str = ""
    """Under which its figures stand within those of a condition; empty where there is no other set."""
    split: str = ""
    """Of its tasks; empty where there is no other set."""

    def holds(self, task: Task) -> bool:
        """Whether a held-out task is one of this set."""
        return not self.split or task.split == self.split

    def of(self, figures: Mapping) -> Mapping:
        """Its part of the figures of a condition or of a difference."""
        return figures[self.key] if self.key else figures

    def label(self, words: str) -> str:
        """`words`, told apart from those of the other sets."""
        return f"{words}, {self.words}" if self.key else words

    def count(self, number: int) -> str:
        """So many of its tasks, in words."""
        return f"{number} tasks of {self.words}" if self.key else f"{number} {self.words}"


SETS = (HeldOut("held-out tasks"),)


def greedy(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The episodes drawn at temperature 0."""
    return [trajectory for trajectory in trajectories if trajectory.temperature == 0]


def sampled(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The episodes drawn above temperature 0."""
    return [trajectory for trajectory in trajectories if trajectory.temperature > 0]


def compare(tasks: Sequence[Task], episodes: Episodes, config: EvaluateConfig, seconds: Mapping[str, float]) -> dict:
    """What evaluation.json holds. The figures at the top are of the greedy episodes; `sampled` has the same of the others.

    Args:
        tasks: the held-out tasks that every condition was run on.
        seconds: wall time of each condition.
    """
    by_greedy = {name: score_condition(tasks, greedy(episodes[name]), len(tasks)) for name in CONDITIONS}
    by_sampling = {name: score_condition(tasks, sampled(episodes[name]), len(tasks) * config.samples) for name in SAMPLED}
    pass_rates = {score.task_id: score.em for score in by_sampling["warm_start"].scores}
    return {
        **_figures(by_greedy),
        "sampled": _figures(by_sampling) if config.samples else {},
        "by_hops": {name: by_hops(condition.scores) for name, condition in by_greedy.items()},
        "by_difficulty": {name: by_difficulty(condition.scores, pass_rates) for name, condition in by_greedy.items()} if pass_rates else {},
        "abstention": {name: abstention(condition.scores) for name, condition in by_greedy.items()},
        "behaviour": {name: {**behaviour(greedy(episodes[name])), "faults": by_greedy[name].faults} for name in AGENTS},
        **spent(CONDITIONS, episodes, seconds),
    }


def strata(figures: Mapping) -> Strata:
    """EM by hops, and by how hard the task was to the starting policy."""
    words = {
        "by_hops": "EM by the number of facts that must be chained, greedy.",
        "by_difficulty": "EM by how often the starting policy solved the task in its sampled episodes, greedy.",
    }
    named = {"by_hops": _hop_name, "by_difficulty": lambda key: key.replace("_", " ")}
    return {words[part]: {name: {named[part](key): row for key, row in rows.items()} for name, rows in figures[part].items()} for part in words}


def spent(conditions: Iterable[str], episodes: Episodes, seconds: Mapping[str, float]) -> dict:
    """`tokens` and `seconds` of each condition; the seconds in all stand under `total`."""
    names = list(conditions)
    return {
        "tokens": {name: _tokens(episodes[name]) for name in names},
        "seconds": {**{name: rounded(seconds[name], 1) for name in names}, "total": rounded(sum(seconds[name] for name in names), 1)},
    }


def _figures(conditions: Mapping[str, Condition]) -> dict:
    scores = {name: summary(condition.scores) for name, condition in conditions.items()}
    differences = {
        name: difference(conditions[after].scores, conditions[before].scores)
        for name, (after, before) in DIFFERENCES.items()
        if {after, before} <= conditions.keys()
    }
    return {**scores, **differences}


def _tokens(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """`sampled`: written by the policy; `context`: everything in the episodes, prompts and observations included."""
    return {
        "sampled": sum(trajectory.action_tokens for trajectory in trajectories),
        "context": sum(len(trajectory.token_ids) for trajectory in trajectories),
    }


def _hop_name(key: str) -> str:
    return key if not key.isdigit() else f"{key} hop{'' if key == '1' else 's'}"
