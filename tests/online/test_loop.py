"""The online loop: what it learns from, its quarantine, checkpoints, overlap and alarms."""

import asyncio
import math
import threading
from dataclasses import replace

import pytest
from learning.toys import train_config

from apprentice.errors import ApprenticeError, PolicyUnavailable
from apprentice.learning.checkpoint import CheckpointStore
from apprentice.online.alarms import update_alarms
from apprentice.online.loop import OnlineTraining
from apprentice.online.sampler import TaskSampler
from apprentice.records import Task, Trajectory, Turn
from apprentice.records.events import Progress
from apprentice.records.tables import read_trajectories
from apprentice.rollout.busy import BusyTime
from apprentice.rollout.simulator import Played
from apprentice.stages.train import training_metrics

SOUND = Trajectory("sound", "t", "g", (1, 2, 3), (0, 1, 1), (0.0, -1.0, -1.0), (Turn(1, 3, "a", "", "answer", 0),), 1.0, "success", "a", 0, 1.0)
BROKEN = replace(SOUND, id="broken", logprobs=(0.0, 0.5, -1.0))
FAULT = replace(SOUND, id="f", outcome="fault", reward=0.0, error="KeyError: 'x'")


class Simulator:
    """Plays the same trajectories in every step, with one fault each time."""

    def __init__(self, *trajectories):
        self._trajectories, self.sampling = trajectories, BusyTime()

    async def played(self, episodes):
        for index, (episode, trajectory) in enumerate(zip(episodes, self._trajectories, strict=True)):
            yield Played(index, episode, [] if index else [FAULT], trajectory)


class Learner:
    """A learner whose weights are the numbers of the steps that it has taken."""

    def __init__(self, die_at: int | None = None, harmful: tuple[int, ...] = ()):
        self.seen, self._die_at, self.harmful, self.weights, self.synced = [], die_at, harmful, "", []

    def update(self, trajectories, step):
        if step == self._die_at:
            raise KeyboardInterrupt
        self.seen.append([trajectory.id for trajectory in trajectories])
        self.weights += f"{step}"
        return {"approx_kl": 50.0 if step in self.harmful else 0.1}

    def publish(self, file):
        self.synced.append(self.weights)

    def save_state(self, folder):
        (folder / "weights").write_text(self.weights)

    def load_state(self, folder):
        self.weights = (folder / "weights").read_text()


class Policy:
    async def load(self, checkpoint, version, changed):
        pass

    async def sleep(self):
        pass


TASK = Task(id="t", scenario="s", split="train", instruction="?", answers=("x",))


def training(learner, folder, trajectories=(SOUND, BROKEN), *, simulator=None, policy=None, sampler=None, **settings) -> OnlineTraining:
    store, progress = CheckpointStore(folder / "checkpoints"), Progress(folder / "events.jsonl", "train")
    config = train_config(**{"steps": 2, "attempts": len(trajectories)} | settings)
    simulator, policy, sampler = simulator or Simulator(*trajectories), policy or Policy(), sampler or TaskSampler([TASK], config, 4)
    return OnlineTraining(config, learner, simulator, policy, sampler, store, folder / "start", folder, progress)


def test_the_log_says_what_the_critic_is_worth_on_trajectories_left_out(tmp_path):
    class WithCritic(Learner):
        def warm_up_critic(self, trajectories):
            return {"explained_variance": 0.25, "epochs": 7.0, "trajectories": float(len(trajectories))}

    asyncio.run(training(WithCritic(), tmp_path).run([SOUND] * 3))
    said = "critic: explained variance 0.25 on held-out trajectories, after 7 epochs on 3 trajectories"
    assert said in (tmp_path / "events.jsonl").read_text()


def test_refused_trajectories_and_faults_are_kept_aside_with_their_reasons(tmp_path):
    learner = Learner()
    run = training(learner, tmp_path)
    rows = asyncio.run(run.run([]))
    assert learner.seen == [[SOUND.id]] * 2
    assert [(row["faults"], row["quarantined"]) for row in rows] == [(1, 1)] * 2
    assert [(row["step"], row["id"]) for row in run.quarantine] == [(0, BROKEN.id), (0, "f"), (1, BROKEN.id), (1, "f")]
    assert "above 0" in run.quarantine[0]["problems"][0] and run.quarantine[1]["problems"] == ["KeyError: 'x'"]


def test_an_episode_whose_first_message_did_not_fit_is_kept_aside(tmp_path):
    unfit = replace(SOUND, id="long", turns=(), token_ids=(), action_mask=(), logprobs=(), reward=0.0, outcome="truncated", error="900 tokens")
    learner = Learner()
    run = training(learner, tmp_path, (SOUND, unfit), steps=1)
    asyncio.run(run.run([]))
    assert learner.seen == [[SOUND.id]]
    assert run.quarantine[0]["id"] == "long" and "'truncated': 900 tokens" in run.quarantine[0]["problems"][0]


def test_what_was_kept_aside_outlives_an_interruption(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(training(Learner(die_at=1), tmp_path).run([]))
    run = training(Learner(), tmp_path)
    assert [row["step"] for row in asyncio.run(run.run([]))] == [0, 1]
    assert [row["step"] for row in run.quarantine] == [0, 0, 1, 1]


def test_a_checkpoint_is_written_while_the_next_episodes_are_played_and_knows_nothing_of_them(tmp_path):
    played = threading.Event()

    class Signals(Simulator):
        async def played(self, episodes):
            played.set()
            async for each in super().played(episodes):
                yield each

    class Waits(Learner):
        def save_state(self, folder):
            assert played.wait(10)
            played.clear()
            super().save_state(folder)

    run = training(Waits(die_at=2), tmp_path, simulator=Signals(SOUND, BROKEN), steps=3)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run.run([]))
    assert {row["step"] for row in run.quarantine} == {0, 1, 2}
    folder, state = CheckpointStore(tmp_path / "checkpoints").latest()
    assert (folder / "weights").read_text() == "01" and [row["step"] for row in state["rows"]] == [0, 1]
    assert {row["step"] for row in state["quarantine"]} == {0, 1}


def test_a_checkpoint_that_cannot_be_written_ends_the_training(tmp_path):
    class Full(Learner):
        def save_state(self, folder):
            raise OSError(28, "No space left on device")

    with pytest.raises(ApprenticeError, match="No space left"):
        asyncio.run(training(Full(), tmp_path).run([]))


def test_how_often_tasks_were_solved_outlives_an_interruption(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(training(Learner(die_at=1), tmp_path, sampling="adaptive").run([]))
    samplers = []
    for folder in (tmp_path / "other", tmp_path):
        samplers.append(TaskSampler([TASK], train_config(sampling="adaptive"), 4))
        asyncio.run(training(Learner(), folder, sampler=samplers[-1], sampling="adaptive").run([]))
    whole, resumed = samplers
    assert resumed.counts == whole.counts == {"t": [1.5, 1.5]}


def test_a_remembered_success_joins_a_group_of_failures(tmp_path):
    class Turning(Simulator):
        async def played(self, episodes):
            reward = 1.0 if episodes[0].group.startswith("step0") else 0.0
            for index, episode in enumerate(episodes):
                won = replace(SOUND, id=episode.id, group=episode.group, reward=reward, outcome="success" if reward else "failure")
                yield Played(index, episode, [], won)

    learner = Learner()
    run = training(learner, tmp_path, (SOUND, SOUND), simulator=Turning(), replay=1)
    rows = asyncio.run(run.run([]))
    assert learner.seen == [["step0-t-0", "step0-t-1"], ["step1-t-0", "step1-t-1", "step0-t-1-for-step1-t"]]
    assert [row["replayed"] for row in rows] == [0, 1] and [row["success_rate"] for row in rows] == [1.0, 0.0]


class Versioned:
    """Simulator and policy in one: plays with the version loaded last, slowly enough for the update to begin."""

    def __init__(self, fail_at: int | None = None):
        self.version, self._fail_at, self.ended, self.sampling = 0, fail_at, [], BusyTime()

    async def load(self, checkpoint, version, changed):
        self.version = version

    async def sleep(self):
        pass

    async def played(self, episodes):
        step = int(episodes[0].group.split("-")[0].removeprefix("step"))
        try:
            for index, episode in enumerate(episodes):
                await asyncio.sleep(0.01)
                if step == self._fail_at:
                    raise PolicyUnavailable("gone")
                turns = (replace(SOUND.turns[0], version=self.version),)
                yield Played(index, episode, [], replace(SOUND, id=episode.id, group=episode.group, turns=turns))
        finally:
            self.ended.append(step)


def overlapping(learner, folder, simulator, **settings) -> OnlineTraining:
    common = {"steps": 6, "overlap": True, "checkpoint_every": 3}
    return training(learner, folder, (SOUND,), simulator=simulator, policy=simulator, **common | settings)


def test_overlapping_steps_are_one_version_old_but_not_after_a_checkpoint(tmp_path):
    learner = Learner()
    rows = asyncio.run(overlapping(learner, tmp_path, Versioned()).run([]))
    assert [row["staleness_mean"] for row in rows] == [0, 1, 1, 0, 1, 1]
    assert [seen for (seen,) in learner.seen] == [f"step{step}-t-0" for step in range(6)] and learner.synced[-1] == "012345"


def test_overlapping_steps_resume_as_if_nothing_had_happened(tmp_path):
    whole = Learner()
    rows = asyncio.run(overlapping(whole, tmp_path / "whole", Versioned()).run([]))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(overlapping(Learner(die_at=4), tmp_path / "cut", Versioned()).run([]))
    again = Learner()
    continued = asyncio.run(overlapping(again, tmp_path / "cut", Versioned()).run([]))
    assert again.weights == whole.weights and again.seen == whole.seen[3:]
    untimed = [{name: value for name, value in row.items() if "second" not in name} for row in continued]
    assert untimed == [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def test_an_error_in_episodes_played_ahead_ends_the_training_and_an_error_in_the_update_ends_them(tmp_path):
    learner = Learner()
    with pytest.raises(PolicyUnavailable):
        asyncio.run(overlapping(learner, tmp_path / "ahead", Versioned(fail_at=2)).run([]))
    assert len(learner.seen) == 2
    simulator = Versioned()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(overlapping(Learner(die_at=1), tmp_path / "update", simulator).run([]))
    assert simulator.ended == [0, 1, 2]


def test_a_harmful_update_is_undone_and_its_batch_kept(tmp_path):
    learner = Learner(harmful=(2,))
    run = training(learner, tmp_path, (SOUND,), steps=4, checkpoint_every=2)
    rows = asyncio.run(run.run([]))
    assert learner.synced == ["0", "01", "01", "013"]
    assert [row["alarm"] for row in rows] == [0, 0, 1, 0]
    assert [trajectory.id for trajectory in read_trajectories(tmp_path / "alarms" / "step2.parquet")] == [SOUND.id]
    assert "step 2: approx_kl is 50, above 10; restored the weights after step 2" in (tmp_path / "events.jsonl").read_text()


def test_the_first_update_is_undone_to_the_start(tmp_path):
    learner = Learner(harmful=(0,))
    asyncio.run(training(learner, tmp_path, (SOUND,), steps=2, checkpoint_every=5).run([]))
    assert learner.synced == ["", "1"]


def test_training_that_only_does_harm_ends_and_says_so_also_after_an_interruption(tmp_path):
    settings = {"steps": 9, "checkpoint_every": 1}
    with pytest.raises(ApprenticeError, match="3 consecutive updates raised an alarm: approx_kl is 50, above 10"):
        asyncio.run(training(Learner(harmful=(2, 3, 4)), tmp_path / "whole", (SOUND,), **settings).run([]))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(training(Learner(harmful=(2, 3, 4), die_at=4), tmp_path, (SOUND,), **settings).run([]))
    with pytest.raises(ApprenticeError, match="train, step 4: 3 consecutive updates"):
        asyncio.run(training(Learner(harmful=(4,)), tmp_path, (SOUND,), **settings).run([]))


def test_an_update_after_ever_more_faults_is_undone(tmp_path):
    class Breaking(Simulator):
        """In the third step, an episode has three faults before it succeeds."""

        steps = 0

        async def played(self, episodes):
            self.steps += 1
            yield Played(0, next(iter(episodes)), [FAULT] * (3 if self.steps == 3 else 1), SOUND)

    learner = Learner()
    rows = asyncio.run(training(learner, tmp_path, (SOUND,), simulator=Breaking(), steps=4, checkpoint_every=5).run([]))
    assert [row["alarm"] for row in rows] == [0, 0, 1, 0] and learner.synced == ["0", "01", "", "3"]
    assert "step 2: 75% of the attempts were faults, 50% in the earlier steps; restored" in (tmp_path / "events.jsonl").read_text()


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"policy_loss": float("nan")}, "not finite: policy_loss"),
        ({"kl_reference": float("inf"), "explained_variance": float("nan")}, "not finite: kl_reference, explained_variance"),
        ({"not_finite": 3.0}, "3 action tokens had a log-probability, value, reward or advantage that is not finite"),
        ({"skipped": 2.0}, "2 optimizer steps had a loss or a gradient that is not finite"),
        ({"ratio_max": 11.0}, "ratio_max is 11, above 10"),
        ({"sampler_gap_mean": 0.6}, "sampler_gap_mean is 0.6, above 0.5"),
        ({"entropy": 0.01}, "entropy is 0.01, below 0.02"),
    ],
)
def test_alarms_say_what_is_wrong(metrics, reason):
    config = train_config(alarm_kl=1.0, alarm_ratio=10.0, alarm_sampler_gap=0.5, alarm_entropy=0.02)
    sound = {"policy_loss": 0.1, "gradient_norm": 1.0, "approx_kl": 0.9, "ratio_max": 9.0, "sampler_gap_mean": 0.4, "entropy": 0.03, "skipped": 0.0}
    assert update_alarms(sound, config) == []
    assert update_alarms(sound | metrics, config) == [reason]


def test_a_step_without_a_sound_trajectory_says_what_is_wrong(tmp_path):
    with pytest.raises(ApprenticeError, match="every trajectory was refused.*above 0"):
        asyncio.run(training(Learner(), tmp_path, [BROKEN]).run([]))


def test_the_summary_of_a_training_leaves_out_what_an_undone_update_could_not_say():
    row = {"reward": 0.5, "faults": 0, "quarantined": 0, "seconds_step": 1.0, "entropy": 2.0}
    summary = training_metrics([row, row | {"entropy": float("nan")}])
    assert summary["entropy"] == 2.0 and all(map(math.isfinite, summary.values()))
