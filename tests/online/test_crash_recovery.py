"""Crash recovery: with the Transformers engine, a training killed at any moment ends bit for bit as an undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_checkpoint

TESTS = Path(__file__).parent.parent
PHASES = ("rollout", "update", "checkpoint", "sync")
SCRIPT = '''
"""Trains in forks of this process, which has imported everything. Each is killed at a random moment of a phase, until there were enough kills."""
import asyncio, json, os, random, shutil, signal, sys, threading, time
from pathlib import Path

import deepspeed, torch, transformers  # noqa: F401
from learning.toys import train_config
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

CONFIG = train_config(steps=6, tasks_per_step=3, attempts=3, learning_rate=1e-2, micro_batch_tokens=200, sampling="adaptive",
                      replay=3, advantage="rloo", kl_coefficient=0.0, **json.loads(sys.argv[4]))
LIMITS = EnvironmentConfig(use="toy", max_turns=1, max_turn_tokens=4, max_failed_turns=1, max_tokens=200, concurrency=9)
TASKS = [Task(id=f"t{n}", scenario="s", split="train", instruction=f"Task {n}?", answers=("x",)) for n in range(6)]


class Parity:
    """Rewards an answer of an even length of at most 3."""
    stop, takes_cut_actions = (), True
    async def reset(self, task): return Observation(task.instruction)
    async def step(self, action):
        self.good = len(action) % 2 == 0 and len(action) < 4
        return Observation("", done=True, kind="answer")
    async def verify(self): return Verdict(self.good, float(self.good))
    async def close(self): pass


def train(folder: Path, checkpoint: Path) -> None:
    learner, policy = PpoLearner(CONFIG, checkpoint, dtype="float32"), TransformersPolicy(checkpoint, max_sequences=9)
    simulator = Simulator(policy, ChatFormat(checkpoint), Parity, LIMITS, temperature=1.0)
    store, progress = CheckpointStore(folder / "checkpoints"), Progress(folder / "events.jsonl", "train")
    training = OnlineTraining(CONFIG, learner, simulator, policy, TaskSampler(TASKS, CONFIG, 1), store, checkpoint, folder, progress)
    rows = asyncio.run(training.run([]))
    learner.save_policy(folder / "policy")
    timeless = [{name: value for name, value in row.items() if "second" not in name} for row in rows]
    (folder / "rows.json").write_text(json.dumps(timeless, sort_keys=True))


def dying_in(owner, method: str, entry: int, delay: float) -> None:
    """Kills the process `delay` seconds after the start of the `entry`-th call of a method."""
    plain, calls = getattr(owner, method), []
    def watched(*arguments, **options):
        calls.append(1)
        if len(calls) == entry:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return plain(*arguments, **options)
    setattr(owner, method, watched)


def forked(folder: Path, checkpoint: Path, *death) -> int:
    """Trains in a fork; returns its exit code, or the negative number of the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if death:
                dying_in(*death)
            train(folder, checkpoint)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    checkpoint, base, wanted = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    where = {"rollout": (Simulator, "played"), "update": (PpoLearner, "update"),
             "checkpoint": (CheckpointStore, "save"), "sync": (PpoLearner, "publish")}
    rng, ends = random.Random(0), {phase: [] for phase in where}
    assert forked(base / "whole", checkpoint) == 0
    while sum(code == -signal.SIGKILL for codes in ends.values() for code in codes) < wanted:
        phase = min(where, key=lambda name: len(ends[name]))
        code = forked(base / "killed", checkpoint, *where[phase], rng.choice((1, 1, 2)), rng.choice((0.0, 0.005, 0.02, 0.1)))
        ends[phase].append(code)
        if code == 0:  # finished before the kill: starts again
            assert (base / "killed/rows.json").read_bytes() == (base / "whole/rows.json").read_bytes()
            shutil.rmtree(base / "killed")
    assert forked(base / "killed", checkpoint) == 0
    print(json.dumps(ends))


main()
'''


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "surely_in", "changes"),
    [(20, PHASES, {"checkpoint_every": 1}), (6, ("rollout", "update"), {"checkpoint_every": 3, "overlap": True})],
    ids=["in turn", "overlapping"],
)
def test_killed_time_and_again_it_ends_as_the_undisturbed_run_does(checkpoint, tmp_path, kills, surely_in, changes):
    variables = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", SCRIPT, str(checkpoint), str(tmp_path), str(kills), json.dumps(changes)]
    finished = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-3000:]
    ends = json.loads(finished.stdout.splitlines()[-1])
    assert set(ends) == set(PHASES) and all(-9 in ends[phase] for phase in surely_in), ends
    assert all(code in (0, -9) for codes in ends.values() for code in codes), finished.stderr[-3000:]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert (killed / "rows.json").read_bytes() == (whole / "rows.json").read_bytes()
    assert (killed / "policy" / "model.safetensors").read_bytes() == (whole / "policy" / "model.safetensors").read_bytes()
    rows = json.loads((whole / "rows.json").read_text())
    assert len(rows) == 6 and len({row["reward"] for row in rows}) > 1
