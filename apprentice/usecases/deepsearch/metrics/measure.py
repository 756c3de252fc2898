"""Compares DeepSearch's policies: exact match, also by hops and difficulty, abstention, behaviour, and cost."""

from collections.abc import Mapping, Sequence

from apprentice.config.schema import EvaluateConfig
from apprentice.evaluation.comparison import AGENTS, DIFFERENCES, HELD_OUT, SAMPLED, Episodes, Strata, greedy, sampled, spent
from apprentice.evaluation.measures import Measure
from apprentice.records import Task
from apprentice.usecases.deepsearch.metrics import behaviour
from apprentice.usecases.deepsearch.metrics.scores import (
    Condition,
    abstention,
    by_difficulty,
    by_hops,
    difference,
    episode_scores,
    score_condition,
    summary,
)

CONDITIONS = {
    "base_closed_book": "Base model, no retrieval",
    "base_rag": "Base model, plain RAG",
    **AGENTS,
}
"""Condition -> its label, in the order of the report."""


def compare(tasks: Sequence[Task], episodes: Episodes, config: EvaluateConfig, seconds: Mapping[str, float]) -> dict:
    """Return the contents of evaluation.json. Metrics are of the greedy episodes, except those under `sampled`.

    Args:
        tasks: the held-out tasks that every condition was run on.
        episodes: condition -> its episodes.
        config: the section `evaluate`.
        seconds: condition -> wall time in seconds.
    """
    by_greedy = {name: score_condition(tasks, greedy(episodes[name]), len(tasks)) for name in CONDITIONS}
    by_sampling = {name: score_condition(tasks, sampled(episodes[name]), len(tasks) * config.samples) for name in SAMPLED}
    pass_rates = {score.task_id: score.em for score in by_sampling["warm_start"].scores}
    return {
        **_metrics(by_greedy),
        "sampled": _metrics(by_sampling) if config.samples else {},
        "by_hops": {name: by_hops(condition.scores) for name, condition in by_greedy.items()},
        "by_difficulty": {name: by_difficulty(condition.scores, pass_rates) for name, condition in by_greedy.items()} if pass_rates else {},
        "abstention": {name: abstention(condition.scores) for name, condition in by_greedy.items()},
        "behaviour": {name: {**behaviour.behaviour(greedy(episodes[name])), "faults": by_greedy[name].faults} for name in AGENTS},
        **spent(CONDITIONS, episodes, seconds),
    }


def strata(metrics: Mapping) -> Strata:
    """Return EM by hops, and by the task's difficulty for the starting policy."""
    words = {
        "by_hops": "Greedy EM by the number of hops.",
        "by_difficulty": "Greedy EM by how often the starting policy solved the task in its sampled episodes.",
    }
    named = {"by_hops": _hop_name, "by_difficulty": lambda key: key.replace("_", " ")}
    return {words[part]: {name: {named[part](key): row for key, row in rows.items()} for name, rows in metrics[part].items()} for part in words}


def _metrics(conditions: Mapping[str, Condition]) -> dict:
    scores = {name: summary(condition.scores) for name, condition in conditions.items()}
    differences = {
        name: difference(conditions[after].scores, conditions[before].scores)
        for name, (after, before) in DIFFERENCES.items()
        if {after, before} <= conditions.keys()
    }
    return {**scores, **differences}


def _hop_name(key: str) -> str:
    return key if not key.isdigit() else f"{key} hop{'' if key == '1' else 's'}"


MEASURE = Measure(
    key="em",
    name="EM",
    full_name="exact match",
    also={"cover_em": "cover-EM", "f1": "F1"},
    counts={"n": "tasks"},
    method="Exact match (EM) of one greedy episode per task, as in the official script of NQ-open, with 95% Wilson intervals over tasks. "
    "Folded EM also ignores dashes, quotes, and apostrophes of other scripts, and the width of characters.",
    conditions=CONDITIONS,
    sets=HELD_OUT,
    marks=("right", "wrong"),
    scores=episode_scores,
    compare=compare,
    strata=strata,
    behaviour=behaviour.METRICS,
    shares=behaviour.SHARES,
    beside={"em_folded": "folded EM"},
)
