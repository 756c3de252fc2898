"""evaluation.json: every condition's scores, their paired differences, behaviour and cost, under stable names."""

from collections.abc import Mapping, Sequence

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
"""The conditions that search for themselves."""
SAMPLED = ("warm_start", "trained")
"""The conditions that have sampled episodes too: what training started from and what came of it. The base model's greedy ones say enough."""
DIFFERENCES = {"trained_minus_before": ("trained", "before"), "trained_minus_warm_start": ("trained", "warm_start")}

Episodes = Mapping[str, Sequence[Trajectory]]
"""The episodes of each condition, greedy and sampled together."""


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
        **_figures(by_greedy, config),
        "sampled": _figures(by_sampling, config) if config.samples else {},
        "by_hops": {name: by_hops(condition.scores) for name, condition in by_greedy.items()},
        "by_difficulty": {name: by_difficulty(condition.scores, pass_rates) for name, condition in by_greedy.items()} if pass_rates else {},
        "abstention": {name: abstention(condition.scores) for name, condition in by_greedy.items()},
        "behaviour": {name: {**behaviour(greedy(episodes[name])), "faults": by_greedy[name].faults} for name in AGENTS},
        "tokens": {name: _tokens(episodes[name]) for name in CONDITIONS},
        "seconds": {**{name: rounded(seconds[name], 1) for name in CONDITIONS}, "total": rounded(sum(seconds[name] for name in CONDITIONS), 1)},
    }


def curve_rows(figures: Mapping) -> str:
    """A CSV for `dvc plots`: `condition,em,low,high,cover_em,f1`, one row a condition, greedy."""
    lines = ["condition,em,low,high,cover_em,f1"]
    for name in CONDITIONS:
        row = figures[name]
        lines.append(",".join([name, *(str(value) for value in (row["em"], *row["em_ci95"], row["cover_em"], row["f1"]))]))
    return "\n".join(lines) + "\n"


def _figures(conditions: Mapping[str, Condition], config: EvaluateConfig) -> dict:
    scores = {name: summary(condition.scores, config.bootstrap, config.seed) for name, condition in conditions.items()}
    differences = {
        name: difference(conditions[after].scores, conditions[before].scores, config.bootstrap, config.seed)
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
