"""Which groups a step plays, and which it learns from."""

import asyncio
from dataclasses import replace

import pytest
from online.test_loop import FAULT, SOUND
from online.test_sampler import curriculum

from apprentice.errors import ApprenticeError
from apprentice.online.collection import Collection, collect
from apprentice.rollout.simulator import Played, plan_episodes


class Scripted:
    """Plays episodes in a given order of (task, attempt, reward); the reward None stands for a fault."""

    def __init__(self, *order: tuple[str, int, float | None]):
        self._order, self.played_until, self.closed = order, 0, False

    async def played(self, episodes):
        by_name = {(episode.task.id, episode.id.rpartition("-")[2]): (index, episode) for index, episode in enumerate(episodes)}
        try:
            for task_id, attempt, reward in self._order:
                index, episode = by_name[task_id, str(attempt)]
                self.played_until += 1
                if reward is None:
                    yield Played(index, episode, [replace(FAULT, id=episode.id)], None, KeyError("x"))
                else:
                    yield Played(index, episode, [], replace(SOUND, id=episode.id, task_id=task_id, group=episode.group, reward=reward))
        finally:
            self.closed = True


def collected(simulator: Scripted, tasks: int, wanted: int, mixed_only: bool = False) -> Collection:
    return asyncio.run(collect(simulator, plan_episodes(curriculum(tasks), 2, 0, "x"), wanted, mixed_only))


def names(trajectories) -> list[str]:
    return [trajectory.id for trajectory in trajectories]


def test_without_spare_groups_everything_is_played_and_comes_in_order():
    simulator = Scripted(("t1", 0, 1.0), ("t0", 1, 0.0), ("t1", 1, 1.0), ("t0", 0, 1.0))
    found = collected(simulator, tasks=2, wanted=2)
    assert names(found.chosen) == ["x-t0-0", "x-t0-1", "x-t1-0", "x-t1-1"]
    assert (found.others, found.faults, found.unfinished) == ([], [], 0)


def test_it_ends_as_soon_as_enough_groups_are_complete():
    simulator = Scripted(("t0", 0, 1.0), ("t2", 0, 1.0), ("t1", 0, 1.0), ("t2", 1, 0.0), ("t1", 1, 1.0), ("t0", 1, 0.0))
    found = collected(simulator, tasks=3, wanted=2)
    assert names(found.chosen) == ["x-t1-0", "x-t1-1", "x-t2-0", "x-t2-1"]
    assert (simulator.played_until, simulator.closed, found.unfinished) == (5, True, 1)


def test_groups_rewarded_alike_are_replaced_where_only_mixed_ones_count():
    simulator = Scripted(("t0", 0, 1.0), ("t0", 1, 1.0), ("t1", 0, 0.0), ("t1", 1, 1.0), ("t2", 0, 0.0), ("t2", 1, 0.0), ("t3", 0, 1.0), ("t3", 1, 0.0))
    found = collected(simulator, tasks=4, wanted=2, mixed_only=True)
    assert {trajectory.task_id for trajectory in found.chosen} == {"t1", "t3"}
    assert {trajectory.task_id for trajectory in found.others} == {"t0", "t2"}


def test_where_mixed_groups_are_too_few_others_make_up_the_number():
    simulator = Scripted(("t0", 0, 1.0), ("t0", 1, 1.0), ("t1", 0, 0.0), ("t1", 1, 1.0), ("t2", 0, 0.0), ("t2", 1, 0.0))
    found = collected(simulator, tasks=3, wanted=2, mixed_only=True)
    assert {trajectory.task_id for trajectory in found.chosen} == {"t0", "t1"}


def test_what_broke_is_told_and_a_group_goes_on_without_it():
    simulator = Scripted(("t0", 0, None), ("t0", 1, 1.0), ("t1", 0, None), ("t1", 1, None))
    found = collected(simulator, tasks=2, wanted=2)
    assert names(found.chosen) == ["x-t0-1"] and len(found.faults) == 3


def test_a_step_in_which_every_episode_broke_says_so():
    with pytest.raises(ApprenticeError, match="all of 2 episodes failed; the first error is KeyError"):
        collected(Scripted(("t0", 0, None), ("t0", 1, None)), tasks=1, wanted=1)
