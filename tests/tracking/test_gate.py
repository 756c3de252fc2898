"""When a challenger becomes the champion."""

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
BETTER, UNPROVEN = {"em": 0.2, "em_ci95": [0.1, 0.3], "p": 0.001}, {"em": 0.1, "em_ci95": [-0.05, 0.25], "p": 0.2}


def results(right: int, tasks=TASKS) -> PerTask:
    return PerTask(frozenset(tasks), {task: float(index < right) for index, task in enumerate(tasks)})


def with_margin(margin: float):
    return CONFIG.model_copy(update={"register_": CONFIG.register_.model_copy(update={"margin": margin})})


@pytest.mark.parametrize(("over_before", "promoted"), [(BETTER, True), (UNPROVEN, False), ({"em": 0.1, "em_ci95": [0.0, 0.2], "p": 0.06}, False)])
def test_without_a_champion_training_must_have_helped(over_before, promoted):
    decision = gate(CONFIG, results(20), over_before, None, None)
    assert decision.promoted is promoted
    assert ("not above 0" in decision.reason) is not promoted


def test_a_clearly_better_challenger_is_promoted():
    assert gate(CONFIG, results(30), BETTER, "champion version 3", results(10)).promoted


def test_a_challenger_that_only_beats_the_untrained_agent_is_not():
    decision = gate(CONFIG, results(20), BETTER, "champion version 3", results(20))
    assert not decision.promoted
    assert "champion version 3" in decision.reason


def test_the_margin_must_be_exceeded():
    decision = gate(with_margin(0.5), results(30), BETTER, "champion", results(10))
    assert not decision.promoted
    assert "margin" in decision.reason


def test_other_tasks_cannot_be_compared():
    decision = gate(CONFIG, results(40), BETTER, "champion", results(0, TASKS[:-1]))
    assert not decision.promoted
    assert "other tasks" in decision.reason


def test_a_champion_without_results_stays():
    assert not gate(CONFIG, results(40), BETTER, "champion", None).promoted


def test_tasks_lost_to_faults_are_left_out_on_both_sides():
    challenger = PerTask(frozenset(TASKS), {task: 1.0 for task in TASKS[:-1]})
    assert "39 tasks" in gate(CONFIG, challenger, BETTER, "champion", results(0)).reason


def test_the_reason_names_the_figure_of_the_use_case():
    assert gate(CONFIG, results(30), BETTER, None, None).reason == "the first champion: EM +0.200 over the agent before training, 95% interval +0.100 to +0.300"
    better = {"tgc": 0.2, "tgc_ci95": [0.1, 0.3], "p": 0.001}
    assert gate(ASSISTANT, results(30), better, None, None).reason.startswith("the first champion: TGC +0.200 over")
    assert gate(ASSISTANT, results(30), better, "champion version 1", results(10)).reason.startswith("TGC +0.500 over champion version 1 on 40 tasks")


def test_results_by_task_are_the_greedy_ones(tmp_path):
    config, layout, tasks, *_ = evaluated_project(tmp_path)
    trained = per_task(config, layout)
    assert trained.tasks == {fingerprint(task) for task in tasks} == trained.score.keys()
    assert trained.score[fingerprint(tasks[0])] == 0.0 and sum(trained.score.values()) == 19
    assert PerTask.of(json.loads(trained.text())) == trained


def test_an_assistant_is_compared_on_all_held_out_variants(tmp_path):
    config, layout, tasks, *_ = assistant_project(tmp_path)
    trained = per_task(config, layout)
    variants = [task for task in tasks if task.split == "variants"]
    assert trained.tasks == {fingerprint(task) for task in variants} == trained.score.keys()
    assert sum(trained.score.values()) == 19

    path = layout.evaluations / "trained.parquet"
    lost = run_errand(variants[1], solved=True, outcome="fault")
    write_trajectories(path, [lost, *(one for one in read_trajectories(path) if one.task_id != variants[1].id)])
    again = per_task(config, layout)
    assert again.tasks == trained.tasks and again.score.keys() == trained.score.keys() - {fingerprint(variants[1])}
