"""Every algorithm learns a small task of two turns from one seed."""

import asyncio
import csv

import pytest
from learning.toys import train_config
from tiny import make_tiny_checkpoint

from apprentice.config.schema import EnvironmentConfig
from apprentice.environments.protocol import Observation
from apprentice.learning.checkpoint import CheckpointStore
from apprentice.learning.ppo import PpoLearner
from apprentice.online.loop import OnlineTraining
from apprentice.online.sampler import TaskSampler
from apprentice.policy.chat import ChatFormat
from apprentice.policy.transformers_engine import TransformersPolicy
from apprentice.records import Task, Verdict
from apprentice.records.events import Progress
from apprentice.rollout.simulator import Simulator
from benchmarks.algorithms import ALGORITHMS

LIMITS = EnvironmentConfig(use="toy", max_turns=2, max_turn_tokens=1, max_failed_turns=2, max_tokens=200, concurrency=64)
COMMON = {"steps": 14, "tasks_per_step": 4, "attempts": 8, "micro_batch_tokens": 800, "learning_rate": 2e-2, "warmup_steps": 0, "checkpoint_every": 99,
          "critic_warmup_epochs": 4, "entropy_coefficient": 0.0, "kl_coefficient": 0.0, "gamma": 1.0, "alarm_entropy": 0.0}  # fmt: skip
TASKS = [Task(id=f"t{number}", scenario="s", split="train", instruction=f"{number}?", answers=("x",)) for number in range(8)]


class TwoLetters:
    """The agent must answer with one ASCII character in each of two turns. One attempt in four succeeds by chance."""

    stop, takes_cut_actions = (), True

    async def reset(self, task):
        self.good, self.turn = True, 0
        return Observation(task.instruction)

    async def step(self, action):
        self.turn += 1
        self.good = self.good and action.isascii() and bool(action)
        return Observation("And?", done=self.turn == 2, kind="letter")

    async def verify(self):
        return Verdict(self.good, float(self.good))

    async def close(self):
        pass


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_it(checkpoint, tmp_path, name):
    config = train_config(**COMMON | ALGORITHMS[name])
    policy = TransformersPolicy(checkpoint, max_sequences=64)
    simulator = Simulator(policy, ChatFormat(checkpoint), TwoLetters, LIMITS, temperature=1.0)
    store, progress = CheckpointStore(tmp_path / "checkpoints"), Progress(tmp_path / "events.jsonl", "train")
    learner = PpoLearner(config, checkpoint, dtype="float32")
    training = OnlineTraining(config, learner, simulator, policy, TaskSampler(TASKS, config, 1), store, checkpoint, tmp_path, progress)
    rows = asyncio.run(training.run([]))
    with (tmp_path / "curve.csv").open("w", newline="") as file:
        csv.writer(file).writerows([(row["step"], row["reward"], row["entropy"], row["gradient_norm"]) for row in rows])
    first, last = (sum(row["reward"] for row in part) / len(part) for part in (rows[:3], rows[-3:]))
    assert first < 0.5 < 0.7 < last, (tmp_path / "curve.csv").read_text()
