"""Sequential rollout: the order of the tasks, their groups, and the reward for skills."""

import asyncio
from dataclasses import replace

import pytest
from learning.toys import train_config
from online.test_loop import SOUND, Learner, Policy

from apprentice.learning.checkpoint import CheckpointStore
from apprentice.online.collection import collect
from apprentice.online.loop import OnlineTraining
from apprentice.online.sampler import TaskSampler
from apprentice.online.sequential_rollout import SequentialRollout
from apprentice.records import Skill, SkillLibrary, Task
from apprentice.records.events import Progress
from apprentice.rollout.busy import BusyTime
from apprentice.rollout.simulator import Played, plan_episodes


class Answers:
    """A simulator that plays every episode and its follow-up with the answer that `says` returns. The last episode
    finishes first."""

    def __init__(self, says):
        self._says, self.episodes, self.sampling = says, [], BusyTime()

    async def played(self, episodes):
        for index, episode in reversed(list(enumerate(episodes))):
            yield self._play(index, episode)

    def _play(self, index, episode):
        self.episodes.append(episode)
        answer = self._says(episode)
        if answer is None:
            return Played(index, episode, [replace(SOUND, id=episode.id, outcome="fault", reward=0.0, error="broke")])
        solved = "!" in answer
        trajectory = replace(
            SOUND, id=episode.id, task_id=episode.task.id, group=episode.group, answer=answer, reward=float(solved), outcome="success" if solved else "failure"
        )
        played = Played(index, episode, [], trajectory)
        if episode.then:
            played.then = self._play(index, episode.then(trajectory))
        return played


class Words:
    """Skills that are words in capitals: kept from an answer, and used when a later answer repeats them."""

    def kept(self, task, trajectory):
        names = [word for word in trajectory.answer.split() if word.isupper()]
        return [Skill(scenario=task.scenario, name=name, signature=f"{name}()", description=name, code=f"def {name}(): pass") for name in names]

    def used(self, skills, trajectory):
        return [skill for skill in skills if skill.name in trajectory.answer.split()]


TASKS = [Task(id=f"{scenario}{n}", scenario=scenario, split="train", instruction="?", answers=("x",)) for scenario in "ab" for n in range(3)]
LONELY = Task(id="c0", scenario="c", split="train", instruction="?", answers=("x",))


def chains_of(simulator, library=None, reward=1.0, seed=0) -> SequentialRollout:
    return SequentialRollout(simulator, Words(), [*TASKS, LONELY], reward, SkillLibrary() if library is None else library, seed)


def collected(chains, tasks, attempts=2):
    return asyncio.run(collect(chains, plan_episodes(tasks, attempts, 0, "s"), len(tasks), mixed_only=False))


def test_a_task_is_followed_by_another_of_its_scenario_which_its_group_shares():
    chains = chains_of(Answers(lambda episode: "no"))
    found = collected(chains, [TASKS[0], TASKS[4], LONELY], attempts=3)
    by_group = {}
    for trajectory in found.chosen:
        by_group.setdefault(trajectory.group, []).append(trajectory.task_id)
    assert len(found.chosen) == 15 and sorted(map(len, by_group.values())) == [3] * 5
    assert by_group["s-c0"] == ["c0"] * 3 and not any(name.startswith("s-c0-then") for name in by_group)
    for first in ("a0", "b1"):
        [second] = {task for name, tasks in by_group.items() if name.startswith(f"s-{first}-then") for task in tasks}
        assert second[0] == first[0] and second != first
    assert len({trajectory.id for trajectory in found.chosen}) == 15


def test_second_tasks_depend_on_the_seed_and_the_step():
    def seconds(seed, tag):
        simulator = Answers(lambda episode: "no")
        asyncio.run(collect(chains_of(simulator, seed=seed), plan_episodes(TASKS, 1, 0, tag), 6, mixed_only=False))
        return [episode.task.id for episode in simulator.episodes]

    assert seconds(0, "s0") == seconds(0, "s0")
    assert len({tuple(seconds(seed, tag)) for seed in (0, 1) for tag in ("s0", "s1")}) > 1


@pytest.mark.parametrize(
    ("first", "second", "rewards"),
    [
        ("F !", "F !", (2.0, 2.0)),
        ("F", "F !", (1.0, 2.0)),
        ("F !", "F", (1.0, 0.0)),
        ("F !", "!", (1.0, 1.0)),
        ("!", "F !", (1.0, 1.0)),
        ("", "", (0.0, 0.0)),
    ],
)
def test_both_are_rewarded_where_the_second_was_solved_with_what_the_first_kept(first, second, rewards):
    library = SkillLibrary()
    chains = chains_of(Answers(lambda episode: first if episode.then else second), library)
    found = collected(chains, TASKS[:1], attempts=1)
    assert tuple(trajectory.reward for trajectory in found.chosen) == rewards
    assert chains.metrics["chains_proven"] == (rewards[1] == 2.0) and len(library) == (rewards[1] == 2.0)


def test_the_second_task_has_what_the_first_kept_and_nothing_else():
    simulator = Answers(lambda episode: f"F{episode.id[-1].upper()} G{episode.id[-1]}".upper())
    collected(chains_of(simulator), TASKS[:1])
    firsts = {episode.id: episode for episode in simulator.episodes if episode.then}
    for episode in simulator.episodes:
        if not episode.then:
            number = episode.id.split("-")[2]
            assert [skill.name for skill in episode.task.skills] == [f"F{number}", f"G{number}"]
    assert all(episode.task.skills == () for episode in firsts.values())


def test_without_a_reward_for_skills_the_tasks_own_rewards_stay():
    found = collected(chains_of(Answers(lambda episode: "F !"), reward=0.0), TASKS[:1], attempts=1)
    assert [trajectory.reward for trajectory in found.chosen] == [1.0, 1.0]


def test_a_second_attempt_that_breaks_leaves_the_first_as_it_is():
    chains = chains_of(Answers(lambda episode: "F !" if episode.then else None))
    found = collected(chains, TASKS[:1], attempts=2)
    assert [trajectory.reward for trajectory in found.chosen] == [1.0, 1.0] and len(found.faults) == 2
    assert chains.metrics["chains"] == 0


def test_groups_count_as_mixed_where_either_place_is():
    tenth = {"n": 0}

    def says(episode):
        tenth["n"] += episode.then is None
        return "!" if episode.then is None and tenth["n"] == 1 else "no"

    found = asyncio.run(collect(chains_of(Answers(says)), plan_episodes(TASKS[:2], 2, 0, "s"), 1, mixed_only=True))
    assert {trajectory.task_id[0] for trajectory in found.chosen} == {"a"} and len(found.chosen) == 4


def test_an_interrupted_training_keeps_its_library(tmp_path):
    def run(learner, library):
        config = train_config(steps=3, attempts=2, sequential_rollout=True)
        says = lambda episode: f"{'FGH'[int(episode.group[4])]} !"  # noqa: E731
        store, progress = CheckpointStore(tmp_path / "checkpoints"), Progress(tmp_path / "events.jsonl", "train")
        chains = chains_of(Answers(says), library)
        training = OnlineTraining(config, learner, chains, Policy(), TaskSampler(TASKS, config, 4), store, tmp_path, tmp_path, progress, library)
        return asyncio.run(training.run([]))

    with pytest.raises(KeyboardInterrupt):
        run(Learner(die_at=2), SkillLibrary())
    library = SkillLibrary()
    rows = run(Learner(), library)
    assert {skill.name for skill in library} == {"F", "G", "H"}
    assert [row["chains_proven"] for row in rows] == [1.0] * 3 and rows[-1]["skills"] == len(library)
