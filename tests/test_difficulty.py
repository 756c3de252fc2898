"""The curriculum keeps the tasks that carry a signal, and is never empty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apprentice.config.schema import FilterConfig
from apprentice.data.difficulty import pass_rate, select_curriculum, signal, smoothed, weight
from apprentice.errors import ApprenticeError
from apprentice.records import Task

PROBES = 4


def config(keep=4, hardness=0.5, unsolved_share=0.25):
    return FilterConfig(candidates=99, probes=PROBES, keep=keep, hardness=hardness, unsolved_share=unsolved_share, temperature=1.0, seed=0)


def tasks_with(successes):
    tasks = [Task(id=f"t{index}", scenario="s", split="train", instruction="?", answers=("x",)) for index in range(len(successes))]
    return tasks, {task.id: pass_rate(count, PROBES) for task, count in zip(tasks, successes, strict=True)}


def kept(successes, **settings):
    tasks, rates = tasks_with(successes)
    return [task.id for task in select_curriculum(tasks, rates, PROBES, config(**settings)).tasks]


def test_signal_by_hand():
    assert signal(0.5, 4) == pytest.approx(1 - 1 / 16 - 1 / 16)
    assert signal(0.25, 2) == pytest.approx(0.375)
    assert signal(0.0, 4) == signal(1.0, 4) == 0.0


def test_smoothing_by_hand():
    assert [smoothed(count / 4, 4) for count in range(5)] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


def test_harder_tasks_are_preferred_among_equal_signal():
    assert weight(0.25, 4, hardness=0.5) > weight(0.75, 4, hardness=0.5)
    assert weight(0.25, 4, hardness=0.0) == pytest.approx(weight(0.75, 4, hardness=0.0))


@given(st.floats(0, 1), st.integers(2, 32))
def test_signal_is_a_probability_and_symmetric(p, n):
    assert 0.0 <= signal(p, n) <= 1.0
    assert signal(p, n) == pytest.approx(signal(1.0 - p, n), abs=1e-9)


@given(st.integers(0, 8), st.integers(1, 8))
def test_smoothing_keeps_the_order_and_stays_inside(successes, probes):
    if successes < probes:
        assert 0.0 < smoothed(successes / probes, probes) < smoothed((successes + 1) / probes, probes) < 1.0


def test_tasks_with_signal_come_first_and_a_share_of_the_unsolved_is_kept():
    # by hand, with the smoothed rates 0.3, 0.5 and 0.7: 0.752 * 0.7^0.5 = 0.629, 0.875 * 0.5^0.5 = 0.619, 0.752 * 0.3^0.5 = 0.412
    assert kept([4, 3, 0, 1, 2, 0, 4]) == ["t3", "t4", "t1", "t2"]


def test_always_solved_tasks_are_dropped_where_enough_have_signal():
    assert kept([4, 4, 2, 2, 4]) == ["t2", "t3"]


def test_always_solved_tasks_then_unsolved_fill_up_to_half():
    assert kept([0, 0, 4, 2], keep=8, unsolved_share=0.0) == ["t3", "t2", "t0", "t1"]
    assert kept([4, 4, 4, 4, 4, 4], keep=8) == ["t0", "t1", "t2", "t3"]


def test_a_curriculum_without_any_success_says_so():
    tasks, rates = tasks_with([0, 0, 0])
    curriculum = select_curriculum(tasks, rates, PROBES, config())
    assert len(curriculum.tasks) == 2
    assert "no task was ever solved" in curriculum.note


def test_tasks_that_were_not_probed_are_left_out():
    tasks, rates = tasks_with([2, 2])
    assert [task.id for task in select_curriculum(tasks, {"t1": rates["t1"]}, PROBES, config()).tasks] == ["t1"]
    with pytest.raises(ApprenticeError, match="no task was probed"):
        select_curriculum(tasks, {}, PROBES, config())


@given(
    st.lists(st.integers(0, PROBES), min_size=1, max_size=40),
    st.integers(1, 20),
    st.floats(0, 2),
    st.floats(0, 1),
)
def test_a_curriculum_is_never_empty_never_too_long_and_never_repeats(successes, keep, hardness, unsolved_share):
    chosen = kept(successes, keep=keep, hardness=hardness, unsolved_share=unsolved_share)
    assert 1 <= len(chosen) <= keep
    assert len(set(chosen)) == len(chosen)
    assert chosen == kept(successes, keep=keep, hardness=hardness, unsolved_share=unsolved_share)


@given(st.lists(st.integers(0, PROBES), min_size=1, max_size=40), st.integers(2, 20))
def test_no_task_with_signal_is_replaced_by_one_always_solved(successes, keep):
    chosen = set(kept(successes, keep=keep, unsolved_share=0.0))
    left = [count for index, count in enumerate(successes) if f"t{index}" not in chosen]
    if any(successes[int(task_id[1:])] == PROBES for task_id in chosen):
        assert not any(0 < count < PROBES for count in left)
