"""Which tasks a step attempts, and how often."""

from collections import Counter
from dataclasses import replace

from learning.toys import train_config
from online.test_loop import SOUND

from apprentice.online.sampler import ENOUGH_SIGNAL, TaskSampler
from apprentice.records import Task


def curriculum(count: int, pass_rate: float | None = None) -> list[Task]:
    return [Task(id=f"t{number}", scenario="s", split="train", instruction="?", answers=("x",), pass_rate=pass_rate) for number in range(count)]


def sampler(tasks, probes: int = 4, **settings) -> TaskSampler:
    return TaskSampler(tasks, train_config(**settings), probes)


def attempts_at(task_id: str, successes: int, failures: int):
    return [replace(SOUND, task_id=task_id)] * successes + [replace(SOUND, task_id=task_id, outcome="failure", reward=0.0)] * failures


def test_in_turn_every_task_comes_once_an_epoch_in_another_order_and_none_twice_a_step():
    tasks = curriculum(12)
    chosen = sampler(tasks, tasks_per_step=4)
    epochs = [[task.id for step in range(3 * epoch, 3 * epoch + 3) for task in chosen.tasks(step)] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(task.id for task in tasks) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    uneven = sampler(tasks, tasks_per_step=5)
    assert all(len({task.id for task in uneven.tasks(step)}) == 5 for step in range(20))
    assert set(Counter(task.id for step in range(20) for task in uneven.tasks(step))) == {task.id for task in tasks}


def test_a_step_is_no_larger_than_the_curriculum():
    assert {task.id for task in sampler(curriculum(3), tasks_per_step=8).tasks(5)} == {"t0", "t1", "t2"}
    assert len(sampler(curriculum(3), tasks_per_step=8, sampling="adaptive").tasks(5)) == 3


def test_spare_tasks_are_begun_where_asked_for():
    assert len(sampler(curriculum(20), tasks_per_step=4, oversampling=1.5).tasks(0)) == 6


def test_the_same_step_of_the_same_seed_has_the_same_tasks():
    for sampling in ("shuffle", "adaptive"):
        one, same, other = (sampler(curriculum(30), tasks_per_step=4, sampling=sampling, seed=seed).tasks(3) for seed in (1, 1, 2))
        assert one == same != other


def test_adaptive_sampling_prefers_what_is_sometimes_solved_and_follows_the_policy():
    tasks = curriculum(10, pass_rate=1.0)
    tasks[0] = tasks[0].model_copy(update={"pass_rate": 0.5})
    moving = sampler(tasks, probes=8, tasks_per_step=2, attempts=4, sampling="adaptive")

    def share(task_id: str) -> float:
        return sum(task_id in {task.id for task in moving.tasks(step)} for step in range(300)) / 300

    before = share("t0")
    assert before > 2 * share("t1")
    for _ in range(5):
        moving.note(attempts_at("t0", successes=4, failures=0) + attempts_at("t1", successes=2, failures=2))
    assert share("t0") < before / 2 and share("t1") > 2 * share("t2")


def test_older_attempts_fade():
    known = sampler(curriculum(1, pass_rate=0.0), probes=4)
    (task,) = curriculum(1)
    assert known.pass_rate(task) == 0.5 / 5
    known.note(attempts_at("t0", successes=4, failures=0))
    assert known.counts == {"t0": [4.0, 6.0]}
    assert known.pass_rate(task) == 4.5 / 7


def test_tasks_that_seem_hard_or_easy_are_tried_more_often():
    tasks = [task.model_copy(update={"pass_rate": rate}) for task, rate in zip(curriculum(3), (0.5, 0.125, 1.0), strict=True)]
    fixed, growing = sampler(tasks, probes=8, attempts=3), sampler(tasks, probes=8, attempts=3, max_attempts=16)
    assert [fixed.attempts(task) for task in tasks] == [3, 3, 3]
    even, hard, solved = (growing.attempts(task) for task in tasks)
    assert even == 3 < hard < solved <= 16
    p = growing.pass_rate(tasks[1])
    assert 1 - p**hard - (1 - p) ** hard >= ENOUGH_SIGNAL > 1 - p ** (hard - 1) - (1 - p) ** (hard - 1)
