"""Compares the seconds of a GRPO step with those of TRL's GRPOTrainer in one run.

    python -m benchmarks.grpo

Both use the same model, prompts, group size, turns, new tokens per turn, observations, reward, and objective (TRL's
default: group advantages, a mean over sampled tokens, no reference). They take steps in turn, so that load on the
machine slows both alike; the first step of each is a warm-up. Apprentice samples with vLLM and keeps float32 master
weights. TRL samples with Transformers, all sequences in one batch, because its vLLM modes need a GPU; it trains bf16
weights and does not checkpoint activations.

With several turns, TRL uses its environment interface (`environment_factory`). Every action is parsed as a call of the
environment's only tool, so that every episode has all its turns on both sides.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.environments.protocol import Observation
from apprentice.planning.hardware import GIB
from apprentice.processes.limits import SHARING_CORES, use_cores_sparingly
from apprentice.processes.memory import MemoryPeak
from apprentice.records import Task, Verdict
from apprentice.records.events import Progress
from apprentice.records.files import write_json
from benchmarks.metrics import print_spreads, spread

PYTHON = Path(".venv-trl/bin/python")
LOOK_S = 0.5
"""Seconds between two measurements of both sides' memory."""
TOPICS = ("a lighthouse", "the tides", "two brothers", "a market in spring", "the first snow", "an old clock", "a long train ride", "the desert at night")
OBSERVATION = "Go on: tell what happens next, and let somebody come into the story who has not been in it so far."
OURS = {
    "attempts": 4, "advantage": "grpo", "normalize_advantages": False, "kl_coefficient": 0.0, "epochs": 1, "minibatches": 1, "learning_rate": 1e-6,
    "warmup_steps": 0, "micro_batch_tokens": 2048, "checkpoint_every": 1000, "sampling": "shuffle",
}  # fmt: skip


class Conversation:
    """Answers every action but the last with OBSERVATION. The reward is the share of distinct words in all actions."""

    stop: tuple[str, ...] = ()
    takes_cut_actions = True

    def __init__(self, turns: int):
        self._turns, self._words, self._taken = turns, [], 0

    async def reset(self, task: Task) -> Observation:
        """Returns the task's text."""
        return Observation(task.instruction)

    async def step(self, action: str) -> Observation:
        """Counts the words of an action; the last turn ends the episode."""
        self._words += action.split()
        self._taken += 1
        if self._taken == self._turns:
            return Observation("", done=True, kind="answer")
        return Observation(OBSERVATION, kind="say")

    async def verify(self) -> Verdict:
        """Returns the share of distinct words as the score."""
        share = len(set(self._words)) / max(1, len(self._words))
        return Verdict(share == 1.0, share)

    async def close(self) -> None:
        """Does nothing: there are no resources to release."""


@dataclass(frozen=True)
class Step:
    """Measurements of one step."""

    seconds: float
    sampled_tokens: float
    turns: float
    """Mean number of turns per episode."""


class Trl:
    """TRL in a separate process and virtual environment."""

    def __init__(self, python: Path, job: dict, log: Path):
        command = [str(python), str(Path(__file__).with_name("trl_side.py")), json.dumps(job)]
        own = {name: value for name, value in os.environ.items() if name not in SHARING_CORES}
        variables = {**own, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
        self._log = log
        with log.open("w") as errors:
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables)
        self.pid = self._child.pid

    def step(self) -> Step:
        """Runs one step and returns its measurements."""
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write("go\n")
            self._child.stdin.flush()
        for line in self._child.stdout:
            if line.startswith("STEP "):
                return Step(**json.loads(line[5:]))
        raise SystemExit(f"TRL ended with exit code {self._child.wait()}:\n{self._log.read_text()[-2000:]}")

    def close(self) -> None:
        """Kills the process."""
        self._child.kill()
        self._child.wait()


class InTurn(Progress):
    """Progress that lets TRL take a step after each of ours."""

    def __init__(self, path: Path, trl: Trl):
        super().__init__(path, "grpo")
        self._trl, self.steps = trl, []

    def metrics(self, step: int, metrics: dict) -> None:
        """Records a finished step of ours and runs TRL's."""
        ours = Step(metrics["seconds_step"], metrics["action_tokens"], metrics["turns"])
        self.steps.append((ours, self._trl.step(), metrics))
        print(f"step {step}: ours {ours.seconds:.1f} s, TRL {self.steps[-1][1].seconds:.1f} s" + (" (to warm up)" if step == 0 else ""), flush=True)


def install() -> None:
    """Installs TRL's environment if it is missing."""
    subprocess.run([sys.executable, "requirements/install.py", "trl"], check=True)


def measure(python: Path, prompts: int, new_tokens: int, steps: int, turns: int = 1) -> dict:
    """Runs `steps` steps of each side after a warm-up step and returns the metrics.

    Args:
        new_tokens: maximum number of sampled tokens per turn.
        turns: number of turns per episode.
    """
    config = load_pipeline("quick")
    train = type(config.train)(**{**config.train.model_dump(), **OURS, "tasks_per_step": prompts, "steps": steps + 1})
    limits = config.environment.model_copy(update={"max_turns": turns, "max_turn_tokens": new_tokens, "max_tokens": turns * (new_tokens + 100) + 100})
    policy = config.policy.model_copy(update={"port": 0})
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(config.model_copy(update={"train": train, "environment": limits, "policy": policy}), Path(folder), python))


async def _measure(config: PipelineConfig, folder: Path, python: Path) -> dict:
    from apprentice.learning.checkpoint import CheckpointStore
    from apprentice.learning.ranks import open_learner
    from apprentice.online.loop import OnlineTraining
    from apprentice.online.sampler import TaskSampler
    from apprentice.policy.base_models import base_model
    from apprentice.policy.factory import open_policy
    from apprentice.rollout.setup import make_simulator

    layout, base, train, limits = Layout("quick", folder), base_model(config.model.name).absolute(), config.train, config.environment
    texts = [f"Tell me a long story about {TOPICS[number % len(TOPICS)]}, number {number}." for number in range(train.tasks_per_step)]
    tasks = [Task(id=f"t{number}", scenario=f"s{number}", split="train", instruction=text, answers=("-",)) for number, text in enumerate(texts)]
    job = {
        "checkpoint": str(base), "prompts": texts, "observation": OBSERVATION, "attempts": train.attempts, "turns": limits.max_turns,
        "new_tokens": limits.max_turn_tokens, "max_tokens": limits.max_tokens, "steps": train.steps,
    }  # fmt: skip
    trl = Trl(python, job, folder / "trl.log")
    progress = InTurn(layout.events, trl)
    peaks = {"ours_gib": MemoryPeak(os.getpid(), apart=trl.pid), "trl_gib": MemoryPeak(trl.pid)}
    try:
        with _watched(peaks.values()), open_learner(train, base, layout.runtime) as learner:
            async with open_policy(config, layout, base) as policy:
                simulator = make_simulator(config, partial(Conversation, limits.max_turns), policy, base, train.temperature)
                sampler = TaskSampler(tasks, train, config.filter.probes)
                store = CheckpointStore(layout.checkpoints)
                await OnlineTraining(train, learner, simulator, policy, sampler, store, base, layout.runtime, progress).run([])
    finally:
        trl.close()
    return _metrics(progress.steps[1:]) | {name: spread([peak.bytes / GIB]) for name, peak in peaks.items()}


@contextlib.contextmanager
def _watched(peaks: Iterable[MemoryPeak]) -> Iterator[None]:
    """Measures memory in a background thread while the context is open."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            for peak in peaks:
                peak.look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _metrics(steps: list[tuple[Step, Step, dict]]) -> dict:
    """Returns the spread of every measurement and of the ratio of paired steps."""
    return {
        "ratio": spread([trl.seconds / ours.seconds for ours, trl, _ in steps]),
        "ours_seconds": spread([ours.seconds for ours, _, _ in steps]),
        "trl_seconds": spread([trl.seconds for _, trl, _ in steps]),
        "ours_sampled_tokens": spread([ours.sampled_tokens for ours, _, _ in steps]),
        "trl_sampled_tokens": spread([trl.sampled_tokens for _, trl, _ in steps]),
        "ours_turns": spread([ours.turns for ours, _, _ in steps]),
        "trl_turns": spread([trl.turns for _, trl, _ in steps]),
        **{name: spread([metrics[name] for _, _, metrics in steps]) for name in steps[0][2] if name.startswith("seconds_")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=PYTHON, help="interpreter of TRL's environment (default: %(default)s, installed if missing)")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, help="maximum number of sampled tokens per turn (default: 64, or 32 with several turns)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the metrics to this file")
    arguments = parser.parse_args()
    use_cores_sparingly()
    if arguments.python == PYTHON:
        install()
    print(f"{arguments.steps + 1} steps of each, one or two minutes for a step of both, after a minute of start-up", flush=True)
    new_tokens = arguments.new_tokens or (64 if arguments.turns == 1 else 32)
    metrics = measure(arguments.python, arguments.prompts, new_tokens, arguments.steps, arguments.turns)
    print_spreads(metrics)
    if arguments.json:
        write_json(arguments.json, metrics)


if __name__ == "__main__":
    main()
