"""What the online loop hands to the learner, and what it keeps aside."""

import asyncio
from dataclasses import replace

import pytest
from learning.toys import train_config

from apprentice.errors import ApprenticeError
from apprentice.learning.checkpoint import CheckpointStore
from apprentice.online.loop import OnlineTraining
from apprentice.records import Task, Trajectory, Turn
from apprentice.records.events import Progress

SOUND = Trajectory("sound", "t", "g", (1, 2, 3), (0, 1, 1), (0.0, -1.0, -1.0), (Turn(1, 3, "a", "", "answer", 0),), 1.0, "success", "a", 0, 1.0)
BROKEN = replace(SOUND, id="broken", logprobs=(0.0, 0.5, -1.0))
FAULT = replace(SOUND, id="f", outcome="fault", reward=0.0, error="KeyError: 'x'")


class Simulator:
    faults = [FAULT]

    def __init__(self, *trajectories):
        self._trajectories = list(trajectories)

    async def run(self, episodes):
        return self._trajectories


class Learner:
    def __init__(self, die_at: int | None = None):
        self.seen, self._die_at = [], die_at

    def update(self, trajectories, step):
        if step == self._die_at:
            raise KeyboardInterrupt
        self.seen.append([trajectory.id for trajectory in trajectories])
        return {}

    def save_policy(self, folder):
        folder.mkdir(parents=True, exist_ok=True)

    def save_state(self, folder):
        (folder / "weights").write_text("")

    def load_state(self, folder):
        assert (folder / "weights").exists()


class Policy:
    async def load(self, checkpoint, version):
        pass


def training(learner, folder, trajectories=(SOUND, BROKEN)) -> OnlineTraining:
    task = Task(id="t", scenario="s", split="train", instruction="?", answers=("x",))
    store, progress = CheckpointStore(folder / "checkpoints"), Progress(folder / "events.jsonl", "train")
    return OnlineTraining(train_config(steps=2), learner, Simulator(*trajectories), Policy(), [task], store, folder / "exchange", progress)


def test_refused_trajectories_and_faults_are_kept_aside_with_their_reasons(tmp_path):
    learner = Learner()
    run = training(learner, tmp_path)
    rows = asyncio.run(run.run([]))
    assert learner.seen == [[SOUND.id]] * 2
    assert [(row["faults"], row["quarantined"]) for row in rows] == [(1, 1)] * 2
    assert [(row["step"], row["id"]) for row in run.quarantine] == [(0, BROKEN.id), (0, "f"), (1, BROKEN.id), (1, "f")]
    assert "above 0" in run.quarantine[0]["problems"][0] and run.quarantine[1]["problems"] == ["KeyError: 'x'"]


def test_what_was_kept_aside_outlives_an_interruption(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(training(Learner(die_at=1), tmp_path).run([]))
    run = training(Learner(), tmp_path)
    assert [row["step"] for row in asyncio.run(run.run([]))] == [0, 1]
    assert [row["step"] for row in run.quarantine] == [0, 0, 1, 1]


def test_a_step_without_a_sound_trajectory_says_what_is_wrong(tmp_path):
    with pytest.raises(ApprenticeError, match="every trajectory was refused.*above 0"):
        asyncio.run(training(Learner(), tmp_path, [BROKEN]).run([]))
