"""The scores of a condition, and their groups."""

import pytest
from evaluated import episode, task

from apprentice.usecases.deepsearch.metrics.scores import abstention, by_difficulty, by_hops, difference, score_condition, summary

TASKS = [task(0), task(1, hops=2), task(2, answerable=False), task(3, hops=2)]


def scored(*answers, **options):
    return score_condition(TASKS, [episode(f"t{index}", answer, **options) for index, answer in enumerate(answers)], len(answers)).scores


def test_answers_are_scored_by_em_cover_em_and_f1():
    first, second, third, _ = scored("the Oslo.", "In Oslo town", "unknown", "Bergen")
    assert (first.em, first.cover_em, first.f1) == (1, 1, 1)
    assert (second.em, second.cover_em, second.f1) == (0, 1, pytest.approx(0.5))
    assert (third.em, third.abstained) == (1, 1)


def test_the_folded_score_is_separate_from_the_official_one():
    condition = score_condition([task(0, "Levi’s Stadium")], [episode("t0", "Levi's Stadium")], 1)
    assert (condition.scores[0].em, condition.scores[0].em_folded) == (0, 1)
    assert (summary(condition.scores)["em"], summary(condition.scores)["em_folded"]) == (0, 1)


def test_truncated_episodes_score_zero_even_with_the_right_answer():
    condition = score_condition(TASKS[:1], [episode("t0", "Oslo", outcome="truncated")], 1)
    assert condition.scores[0].em == 0


def test_no_answer_scores_zero():
    assert scored("  ")[0].cover_em == 0


def test_faults_are_not_scored_and_the_task_drops_out():
    condition = score_condition(TASKS[:2], [episode("t0", "Oslo"), episode("t1", "", outcome="fault")], 2)
    assert [score.task_id for score in condition.scores] == ["t0"]
    assert condition.faults == 1
    assert summary(condition.scores)["n"] == 1


def test_missing_episodes_count_as_faults():
    assert score_condition(TASKS, [episode("t0", "Oslo")], planned=4).faults == 3


def test_episodes_of_a_task_are_averaged():
    condition = score_condition(TASKS[:1], [episode("t0", "Oslo"), episode("t0", "Bergen", attempt=1)], 2)
    assert condition.scores[0].em == 0.5


def test_summary_has_the_stable_keys():
    metrics = summary(scored("Oslo", "Oslo", "Rome", "Rome"))
    assert list(metrics) == ["em", "em_folded", "cover_em", "f1", "n", "em_ci95"]
    assert metrics["em"] == 0.5
    assert 0 <= metrics["em_ci95"][0] < 0.5 < metrics["em_ci95"][1] <= 1


def test_a_summary_without_scores_has_the_widest_interval():
    assert summary([]) == {"em": 0.0, "em_folded": 0.0, "cover_em": 0.0, "f1": 0.0, "n": 0, "em_ci95": [0.0, 1.0]}


def test_difference_is_paired_over_the_tasks_that_both_scored():
    after, before = scored("Oslo", "Oslo", "unknown", "Oslo"), scored("Oslo", "Rome", "Rome")
    assert difference(after, before)["em"] == pytest.approx(2 / 3, abs=1e-4)


def test_groups_by_hops_keep_questions_without_an_answer_apart():
    assert by_hops(scored("Oslo", "Oslo", "Rome", "Rome")) == {"1": {"em": 1.0, "n": 1}, "2": {"em": 0.5, "n": 2}, "unanswerable": {"em": 0.0, "n": 1}}


def test_groups_by_difficulty_use_the_pass_rates_given():
    rates = {"t0": 0.0, "t1": 0.5, "t3": 1.0}
    groups = by_difficulty(scored("Oslo", "Rome", "unknown", "Oslo"), rates)
    assert {name: group["em"] for name, group in groups.items()} == {"never_solved": 1.0, "sometimes_solved": 0.0, "always_solved": 1.0}


def test_abstention_by_hand():
    assert abstention(scored("unknown", "Oslo", "Unknown.", "Rome")) == {"precision": 0.5, "recall": 1.0, "said_unknown": 2, "unanswerable": 1}
    assert abstention(scored("Oslo", "Oslo")) == {"precision": None, "recall": None, "said_unknown": 0, "unanswerable": 0}
