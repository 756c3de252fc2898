"""When the gate promotes a challenger."""

import json
from pathlib import Path

import pytest
from evaluated import assistant_project, evaluated_project, run_errand

from apprentice.config import load_pipeline
from apprentice.records.fingerprint import fingerprint
from apprentice.records.tables import read_trajectories, write_trajectories
from apprentice.tracking.outcome import PerTask, per_task
from apprentice.tracking.registry import gate

CONFIG, ASSISTANT = (load_pipeline(name, Path(__file__).parents[2] / "params.yaml") for name in ("quick", "assistant"))
TASKS = [f"task{index}" for index in range(40)]


def results(right: int, tasks=TASKS, each: int = 1) -> PerTask:
    """The first `right` tasks are solved; `each` tasks in a row share a scenario."""
    scenarios = {task: f"scenario{index // each}" for index, task in enumerate(tasks)}
    return PerTask(frozenset(tasks), {task: float(index < right) for index, task in enumerate(tasks)}, scenarios)


def row(gain: float, low: float, high: float, p: float, n: int = 80, key: str = "em") -> dict:
    return {key: gain, f"{key}_ci95": [low, high], "p": p, "n": n, "scenarios": n}


def evaluation(total: dict, warm_start: dict | None = None, online: dict | None = None) -> dict:
    """The differences of evaluation.json; by default, the whole gain is that of the warm start."""
    return {"trained": {}, "trained_minus_before": total, "warm_start_minus_before": warm_start or total, "trained_minus_warm_start": online or NOTHING}


BETTER, NOTHING, SLIGHTLY_WORSE = row(0.2, 0.1, 0.3, 0.001), row(0.0, -0.05, 0.05, 1.0), row(-0.0125, -0.05, 0.02, 1.0)
PROVEN = evaluation(BETTER)


def with_margin(margin: float):
    return CONFIG.model_copy(update={"register_": CONFIG.register_.model_copy(update={"margin": margin})})


@pytest.mark.parametrize(
    ("total", "promoted", "words"),
    [
        (BETTER, True, "the first champion: EM +0.200 over the agent before training on 80 tasks, 95% interval +0.100 to +0.300, p 0.001"),
        (row(0.1, -0.05, 0.25, 0.2), False, "no champion yet: the interval is not above 0: EM +0.100"),
        (row(0.1, 0.0, 0.2, 0.04), False, "the interval is not above 0"),
        (row(0.05, 0.01, 0.1, 0.125), False, "no champion yet: p is above 0.05: EM +0.050"),
        (row(0.5, 0.2, 0.8, 0.001, n=19), False, "19 tasks of 19 scenarios are too few to prove anything"),
    ],
)
def test_without_a_champion_training_must_have_helped(total, promoted, words):
    decision = gate(CONFIG, results(20), evaluation(total), None, None)
    assert decision.promoted is promoted
    assert words in decision.reason


@pytest.mark.parametrize("champion", [None, "champion version 3"])
@pytest.mark.parametrize(("online", "promoted"), [(BETTER, True), (NOTHING, True), (SLIGHTLY_WORSE, False)])
def test_a_policy_worse_than_its_warm_start_is_not_promoted(champion, online, promoted):
    decision = gate(CONFIG, results(30), evaluation(BETTER, BETTER, online), champion, results(10))
    assert decision.promoted is promoted
    assert ("worse than its own warm start" in decision.reason) is not promoted


def test_a_pipeline_without_a_warm_start_is_not_compared_with_one():
    config = CONFIG.model_copy(update={"distill": CONFIG.distill.model_copy(update={"source": "none"})})
    decision = gate(config, results(30), evaluation(BETTER, NOTHING, BETTER), None, None)
    assert decision.promoted and decision.reason.endswith("in this evaluation: PPO +0.200 (proven)")


def test_the_reason_states_both_parts_of_the_gain():
    for champion in (None, "champion version 3"):
        reason = gate(CONFIG, results(30), PROVEN, champion, results(10)).reason
        assert reason.endswith("; in this evaluation: warm start +0.200 (proven), PPO +0.000 (not proven)")


@pytest.mark.parametrize("champion", [None, "champion version 3"])
@pytest.mark.parametrize(("lost", "promoted"), [(4, True), (5, False)])
def test_a_challenger_that_lost_many_tasks_to_faults_is_not_promoted(champion, lost, promoted):
    scored = results(40 - lost, TASKS[lost:])
    decision = gate(CONFIG, PerTask(frozenset(TASKS), scored.score, scored.scenario), PROVEN, champion, results(10))
    assert decision.promoted is promoted
    assert (f"{lost} of 40 tasks were lost to faults, although" in decision.reason) is not promoted


def test_a_clearly_better_challenger_is_promoted():
    assert gate(CONFIG, results(30), PROVEN, "champion version 3", results(10)).promoted


def test_a_challenger_that_only_beats_the_untrained_agent_is_not():
    decision = gate(CONFIG, results(20), PROVEN, "champion version 3", results(20))
    assert not decision.promoted
    assert "champion version 3" in decision.reason


def test_four_wins_of_eighty_are_luck():
    tasks = [f"task{index}" for index in range(80)]
    decision = gate(CONFIG, results(44, tasks), PROVEN, "champion version 3", results(40, tasks))
    assert not decision.promoted
    assert "EM +0.050 over champion version 3 on 80 tasks" in decision.reason and "p 0.125" in decision.reason


def test_wins_within_few_scenarios_are_few_wins():
    assert gate(CONFIG, results(12), PROVEN, "champion version 3", results(0)).promoted
    decision = gate(CONFIG, results(12, each=4), PROVEN, "champion version 3", results(0))
    assert not decision.promoted
    assert "p 0.250" in decision.reason


def test_few_tasks_promote_nothing_and_the_reason_says_so():
    decision = gate(CONFIG, results(19, TASKS[:19]), PROVEN, "champion version 3", results(0, TASKS[:19]))
    assert not decision.promoted
    assert "19 tasks of 19 scenarios are too few to prove anything; at least 20 tasks of 10 scenarios are needed" in decision.reason


def test_the_interval_must_lie_above_the_margin():
    assert gate(with_margin(0.1), results(30), PROVEN, "champion", results(10)).promoted
    decision = gate(with_margin(0.4), results(30), PROVEN, "champion", results(10))
    assert not decision.promoted
    assert "not above the margin of 0.400: EM +0.500" in decision.reason


def test_other_tasks_cannot_be_compared():
    decision = gate(CONFIG, results(40), PROVEN, "champion", results(0, TASKS[:-1]))
    assert not decision.promoted
    assert "different tasks" in decision.reason


def test_a_champion_without_results_stays():
    assert not gate(CONFIG, results(40), PROVEN, "champion", None).promoted


def test_tasks_lost_to_faults_are_left_out_on_both_sides():
    challenger = PerTask(frozenset(TASKS), {task: 1.0 for task in TASKS[:-1]})
    assert "39 tasks" in gate(CONFIG, challenger, PROVEN, "champion", results(0)).reason


def test_the_reason_names_the_metric_of_the_use_case():
    metrics = {name: {"heldout_variants": row(0.2, 0.1, 0.3, 0.001, key="tgc")} for name in PROVEN}
    assert gate(ASSISTANT, results(30), metrics, None, None).reason.startswith("the first champion: TGC +0.200 over")
    assert gate(ASSISTANT, results(30), metrics, "champion version 1", results(10)).reason.startswith("TGC +0.500 over champion version 1 on 40 tasks")


def test_a_champion_without_scenarios_can_still_be_read():
    kept = PerTask.of({"tasks": TASKS, "score": dict.fromkeys(TASKS, 0.0)})
    assert kept.scenario == {}
    assert gate(CONFIG, results(30), PROVEN, "champion version 1", kept).promoted


def test_the_hash_of_results_does_not_depend_on_scenarios():
    assert results(5).hash == results(5, each=4).hash != results(6).hash


def test_results_by_task_are_the_greedy_ones(tmp_path):
    config, layout, tasks, *_ = evaluated_project(tmp_path)
    trained = per_task(config, layout)
    assert trained.tasks == {fingerprint(task) for task in tasks} == trained.score.keys()
    assert trained.score[fingerprint(tasks[0])] == 0.0 and sum(trained.score.values()) == 19
    assert len(set(trained.scenario.values())) == len(tasks)
    assert PerTask.of(json.loads(trained.text())) == trained


def test_an_assistant_is_compared_on_all_held_out_variants(tmp_path):
    config, layout, tasks, *_ = assistant_project(tmp_path)
    trained = per_task(config, layout)
    variants = [task for task in tasks if task.split == "variants"]
    assert trained.tasks == {fingerprint(task) for task in variants} == trained.score.keys()
    assert sum(trained.score.values()) == 19
    assert len(set(trained.scenario.values())) == 12

    path = layout.evaluations / "trained.parquet"
    lost = run_errand(variants[1], solved=True, outcome="fault")
    write_trajectories(path, [lost, *(one for one in read_trajectories(path) if one.task_id != variants[1].id)])
    again = per_task(config, layout)
    assert again.tasks == trained.tasks and again.score.keys() == trained.score.keys() - {fingerprint(variants[1])}
