"""Task and scenario goal completion, checked by hand, against AppWorld's definition, and in evaluation.json."""

import csv
import json
from collections import defaultdict
from statistics import fmean

import pytest
from evaluated import assistant_project, errand, run_errand

from apprentice.evaluation.comparison import DIFFERENCES, SAMPLED
from apprentice.usecases.assistant.metrics.goals import MEASURE, GoalScore, by_level, compare, scenario_completion, score_goals, summary

SETS = ("heldout_variants", "heldout_scenarios")
SCORE_KEYS, DIFFERENCE_KEYS = {"tgc", "sgc", "n", "scenarios", "tgc_ci95"}, {"tgc", "tgc_ci95", "p", "n", "scenarios"}


def scores(**runs: tuple[float, ...]) -> list[GoalScore]:
    """Build scores: `a1=(1.0, 0.0)` is variant 1 of scenario a, solved in the first of two runs."""
    return [GoalScore(errand(name[0], int(name[1])), of_task) for name, of_task in runs.items()]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return assistant_project(tmp_path_factory.mktemp("project"))


def test_a_scenario_is_solved_if_all_of_its_tasks_are():
    metrics = summary(scores(a1=(1.0,), a2=(1.0,), b1=(1.0,), b2=(0.0,), c1=(0.0,)))
    assert list(metrics) == ["tgc", "sgc", "n", "scenarios", "tgc_ci95"]
    assert (metrics["tgc"], metrics["sgc"], metrics["n"], metrics["scenarios"]) == (0.6, 0.3333, 5, 3)
    assert 0 <= metrics["tgc_ci95"][0] < 0.6 < metrics["tgc_ci95"][1] <= 1


def test_several_runs_are_scored_separately_and_averaged():
    # Each task is solved in half of its runs; only b's variants are solved in the same one.
    metrics = summary(scores(a1=(1.0, 0.0), a2=(0.0, 1.0), b1=(1.0, 0.0), b2=(1.0, 0.0)))
    assert (metrics["tgc"], metrics["sgc"]) == (0.5, 0.25)


def appworld_aggregate(success: dict[str, bool]) -> tuple[float, float]:
    """Compute what `Metric._compute_metrics` of appworld.evaluator computes from `{task id: success}`.

    The results are percentages with one decimal; a scenario's id ends before `_`.
    """
    scenarios = defaultdict(list)
    for task_id, solved in success.items():
        scenarios[task_id.split("_")[0]].append(float(solved))
    tasks = [score for of_scenario in scenarios.values() for score in of_scenario]
    return round(100 * round(fmean(tasks), 4), 1), round(100 * round(fmean(min(of_scenario) for of_scenario in scenarios.values()), 4), 1)


def test_the_metrics_are_those_of_appworld():
    tasks = [errand(f"s{scenario}", variant) for scenario in range(7) for variant in (1, 2, 3)]
    success = {task.id: index % 4 != 2 or index < 9 for index, task in enumerate(tasks)}
    metrics = summary(score_goals(tasks, [run_errand(task, solved=success[task.id]) for task in tasks]))
    # AppWorld 0.1.3 itself computes 85.7 and 57.1.
    assert (round(100 * metrics["tgc"], 1), round(100 * metrics["sgc"], 1)) == appworld_aggregate(success) == (85.7, 57.1)


def test_the_outcome_decides_not_the_reward():
    task = errand("a")
    nearly = run_errand(task, solved=True, outcome="truncated")
    assert nearly.reward == 1.0
    assert score_goals([task], [nearly])[0].tgc == 0.0


def test_faults_are_not_scored_and_their_scenario_is_left_out():
    tasks = [errand("a", 1), errand("a", 2), errand("b", 1)]
    played = [run_errand(tasks[0], solved=True), run_errand(tasks[1], solved=False, outcome="fault"), run_errand(tasks[2], solved=False)]
    metrics = summary(score_goals(tasks, played))
    assert (metrics["tgc"], metrics["n"]) == (0.5, 2)
    assert (metrics["sgc"], metrics["scenarios"]) == (0.0, 1)


def test_a_run_that_lost_a_task_does_not_make_its_scenario_easier():
    assert scenario_completion(scores(a1=(1.0, 1.0), a2=(0.0,), b1=(1.0, 1.0))) == (0.75, 2)
    assert scenario_completion(scores(a1=())) == (0.0, 0)


def test_no_scored_task_gives_the_widest_interval():
    assert summary(scores(a1=())) == {"tgc": 0.0, "sgc": 0.0, "n": 0, "scenarios": 0, "tgc_ci95": [0.0, 1.0]}


def test_the_interval_is_not_empty_if_all_or_no_tasks_are_solved():
    # Wilson's interval for 0 of 3 ends at z^2 / (3 + z^2) with z = 1.96.
    assert summary(scores(a1=(0.0,), b1=(0.0,), c1=(0.0,)))["tgc_ci95"] == [0.0, pytest.approx(3.8415 / 6.8415, abs=1e-4)]
    assert summary(scores(a1=(1.0,), b1=(1.0,), c1=(1.0,)))["tgc_ci95"] == [pytest.approx(3 / 6.8415, abs=1e-4), 1.0]


def test_variants_of_one_scenario_count_as_one_cluster():
    alone = summary(scores(**{f"{letter}1": (float(letter in "abc"),) for letter in "abcdef"}))["tgc_ci95"]
    tripled = summary(scores(**{f"{letter}{variant}": (float(letter in "abc"),) for letter in "abcdef" for variant in (1, 2, 3)}))["tgc_ci95"]
    assert tripled[0] <= alone[0] and tripled[1] >= alone[1]


def test_levels_are_those_of_the_data_root():
    known = [GoalScore(errand("a", variant, difficulty=level), (float(variant == 1),)) for variant, level in ((1, 2), (2, 2), (3, 1), (4, None))]
    assert by_level(known) == {"1": {"tgc": 0.0, "n": 1}, "2": {"tgc": 0.5, "n": 2}}


def test_stable_keys(evaluated):
    metrics = evaluated[-1]
    assert list(metrics)[:6] == ["before", "warm_start", "trained", *DIFFERENCES]
    for name in MEASURE.conditions:
        assert tuple(metrics[name]) == SETS
        assert all(metrics[name][key].keys() == SCORE_KEYS for key in SETS)
    for name in DIFFERENCES:
        assert all(metrics[name][key].keys() == DIFFERENCE_KEYS for key in SETS)
    assert metrics["sampled"].keys() == {*SAMPLED, "trained_minus_warm_start"}
    assert metrics["behaviour"]["trained"].keys() == {*MEASURE.behaviour, "faults"}
    assert metrics["tokens"].keys() == set(MEASURE.conditions)
    assert metrics["seconds"] == {"before": 1.0, "warm_start": 1.0, "trained": 1.0, "total": 3.0}


def test_the_metrics_of_the_project_by_hand(evaluated):
    metrics = evaluated[-1]
    # Of variants 0 to 23, training starts with 1, 9, and 17 solved and ends with all but 0, 5, 10, 15, and 20 solved.
    assert (metrics["before"]["heldout_variants"]["tgc"], metrics["trained"]["heldout_variants"]["tgc"]) == (0.125, pytest.approx(19 / 24, abs=1e-4))
    assert (metrics["before"]["heldout_variants"]["sgc"], metrics["trained"]["heldout_variants"]["sgc"]) == (0.0, pytest.approx(7 / 12, abs=1e-4))
    # Of tasks 24 to 35 of new scenarios, 25 and 33 are solved before and all but 25, 30, and 35 after training.
    assert (metrics["before"]["heldout_scenarios"]["tgc"], metrics["trained"]["heldout_scenarios"]["tgc"]) == (pytest.approx(2 / 12, abs=1e-4), 0.75)
    assert (metrics["trained"]["heldout_scenarios"]["sgc"], metrics["trained"]["heldout_scenarios"]["scenarios"]) == (0.25, 4)
    assert metrics["by_level"]["trained"]["heldout_scenarios"]["3"] == {"tgc": pytest.approx(2 / 3, abs=1e-4), "n": 3}


def test_differences_are_those_of_the_means(evaluated):
    metrics = evaluated[-1]
    for name, (after, before) in DIFFERENCES.items():
        for key in SETS:
            row = metrics[name][key]
            assert row["tgc"] == pytest.approx(metrics[after][key]["tgc"] - metrics[before][key]["tgc"], abs=2e-4)
            assert row["tgc_ci95"][0] < row["tgc"] < row["tgc_ci95"][1]


def test_a_set_without_tasks_is_absent_everywhere(evaluated):
    config, _, tasks, episodes, _ = evaluated
    metrics = compare([task for task in tasks if task.split == "dev"], episodes, config.evaluate, dict.fromkeys(episodes, 1.0))
    assert "heldout_scenarios" in json.dumps(metrics) and "heldout_variants" not in json.dumps(metrics)
    assert [held_out.key for held_out in MEASURE.evaluated(metrics)] == ["heldout_scenarios"]


def test_faults_of_both_sets_are_counted(evaluated):
    config, _, tasks, episodes, _ = evaluated
    lost = {**episodes, "trained": [one for one in episodes["trained"] if one.task_id not in (tasks[0].id, tasks[-1].id)]}
    metrics = compare(tasks, lost, config.evaluate, dict.fromkeys(episodes, 1.0))
    assert (metrics["behaviour"]["trained"]["faults"], metrics["behaviour"]["before"]["faults"]) == (2, 0)
    assert metrics["trained"]["heldout_variants"]["n"] == 23


def test_without_sampled_episodes_there_are_no_sampled_metrics(evaluated):
    config, _, tasks, episodes, _ = evaluated
    metrics = compare(tasks, episodes, config.evaluate.model_copy(update={"samples": 0}), dict.fromkeys(episodes, 1.0))
    assert metrics["sampled"] == {}


def test_the_csv_has_a_row_a_condition_and_set(evaluated):
    rows = list(csv.DictReader(MEASURE.curve_rows(evaluated[-1]).splitlines()))
    assert list(rows[0]) == ["condition", "score", "low", "high", "sgc"]
    assert [row["condition"] for row in rows][2:4] == ["trained, held-out variants", "before, held-out scenarios"]
    assert all(float(row["low"]) <= float(row["score"]) <= float(row["high"]) for row in rows)
    assert float(rows[2]["score"]) == evaluated[-1]["trained"]["heldout_variants"]["tgc"]
