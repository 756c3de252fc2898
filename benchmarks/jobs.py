"""Measures the jobs of `benchmarks.scaling`: updates of the trainer and completions of the policy server.

Every measurement comes with the speed of the machine at that time.
"""

import asyncio
import ctypes
import gc
import multiprocessing
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from apprentice.config import Layout, PipelineConfig
from apprentice.planning.hardware import GIB, Hardware, this_machine
from apprentice.policy.protocol import Policy, Sampling
from apprentice.records import Trajectory
from benchmarks.grpo import TOPICS

if TYPE_CHECKING:
    from apprentice.learning.ppo import PpoLearner
    from apprentice.policy.chat import ChatFormat

REPEATS = 2
OBSERVATION = 64
"""Number of tokens in a random observation."""


@dataclass(frozen=True)
class Job:
    """One point to measure: a phase and the sizes that determine its cost."""

    tasks: int = 4
    phase: Literal["learning", "sampling"] = "learning"
    attempts: int = 1
    tokens: int = 256
    actions: int = 64
    turns: int = 1
    shared: int = 0
    micro_batch_tokens: int = 512
    minibatches: int = 1
    ranks: int = 1
    zero_stage: int = 1

    @property
    def train(self) -> tuple[tuple[str, int], ...]:
        """Overrides of the pipeline's `train` section."""
        return tuple((name, getattr(self, name)) for name in ("micro_batch_tokens", "minibatches", "ranks", "zero_stage"))


WARM_UP = Job(32, "sampling", actions=8)


@dataclass(frozen=True)
class Measured:
    """Measurements of a job."""

    job: Job
    """The job with the number of tokens that were really sampled; completions may end early."""
    seconds: float
    hardware: Hardware
    """The speed of this machine during the job."""
    gib: float | None = None
    """Peak memory of the first rank in GiB, excluding its libraries; None for sampling."""


Tell = Callable[[Job, Measured], None]
"""Callback that receives each job and its measurements."""


def learn(config: PipelineConfig, checkpoint: Path, jobs: Sequence[Job], tell: Tell) -> dict[Job, Measured]:
    """Measures learning jobs; jobs with the same `train` overrides share a learner in a separate process."""
    spawning, done = multiprocessing.get_context("spawn"), {}
    for train in {job.train: None for job in jobs}:
        mine = [job for job in jobs if job.train == train]
        ours, theirs = spawning.Pipe(duplex=False)
        child = spawning.Process(target=_learner, args=(theirs, config, checkpoint, mine), daemon=True)
        child.start()
        theirs.close()
        for job in mine:
            done[job] = ours.recv()
            tell(job, done[job])
        child.join()
    return done


def _learner(results: Connection, config: PipelineConfig, checkpoint: Path, jobs: Sequence[Job]) -> None:
    """Runs a learner's process.

    Jobs arrive in increasing order of memory, so that memory kept from one job does not raise the peak of the next.
    """
    import deepspeed  # noqa: F401 (its memory counts as a library's)
    import torch

    from apprentice.learning.ranks import open_learner

    train, cores, libraries = config.train.model_copy(update=dict(jobs[0].train)), torch.get_num_threads(), _status("VmRSS")
    with tempfile.TemporaryDirectory() as folder, open_learner(train, checkpoint, Path(folder)) as learner:
        learner.update(trajectories(Job(1)), 0)
        for job in jobs:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            before = _machine(job.ranks, cores)
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
            seconds = [_timed(learner, trajectories(job)) for _ in range(REPEATS)]
            peak = _status("VmHWM") - libraries
            results.send(Measured(job, min(seconds), _between(before, _machine(job.ranks, cores)), peak))


def _timed(learner: "PpoLearner", attempts: Sequence[Trajectory]) -> float:
    """Returns the seconds of an update."""
    began = time.perf_counter()
    learner.update(attempts, 1)
    return time.perf_counter() - began


async def sample(config: PipelineConfig, checkpoint: Path, jobs: Sequence[Job], tell: Tell) -> dict[Job, Measured]:
    """Measures sampling jobs on a policy server of its own."""
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.factory import open_policy

    chat, done = ChatFormat(checkpoint), {}
    with tempfile.TemporaryDirectory() as folder:
        async with open_policy(config, Layout("quick", Path(folder)), checkpoint) as policy:
            for number, job in enumerate((WARM_UP, *jobs)):
                before = this_machine()
                seconds, sampled, prompt = min([await _sampled(policy, chat, job, f"{number}.{repeat}") for repeat in range(REPEATS)])
                as_done = replace(job, actions=round(sampled), tokens=round(prompt + sampled))
                done[job] = Measured(as_done, seconds, _between(before, this_machine()))
                if job is not WARM_UP:
                    tell(job, done[job])
    return done


async def _sampled(policy: Policy, chat: "ChatFormat", job: Job, name: str) -> tuple[float, float, float]:
    """Samples concurrent stories. Returns the seconds and the mean number of sampled tokens and of prompt tokens."""
    prompts = [chat.prompt(f"Tell me a very long story about {TOPICS[index % len(TOPICS)]}, number {name}.{index}.") for index in range(job.tasks)]
    began = time.perf_counter()
    answers = await asyncio.gather(*(policy.generate(prompt, Sampling(job.actions, 1.0, seed)) for seed, prompt in enumerate(prompts)))
    seconds = time.perf_counter() - began
    return seconds, statistics.mean(len(answer.token_ids) for answer in answers), statistics.mean(map(len, prompts))


def trajectories(job: Job) -> list[Trajectory]:
    """Returns trajectories of random tokens: a prompt, then alternating actions and observations."""
    rng, made = random.Random(0), []
    for task in range(job.tasks):
        common = tuple(rng.randrange(5, 40_000) for _ in range(job.shared))
        for attempt in range(job.attempts):
            ids = common + tuple(rng.randrange(5, 40_000) for _ in range(job.tokens - job.shared))
            mask = _mask(job)
            logprobs = tuple(-1.0 * sampled for sampled in mask)
            made.append(Trajectory(f"{task}.{attempt}", "t", f"g{task}", ids, mask, logprobs, (), float(rng.random() < 0.5), "success", "", 0, 1.0))
    return made


def _mask(job: Job) -> tuple[int, ...]:
    """Returns the action mask: the prompt, then actions separated by observations, each of equal length."""
    action, observation = job.actions // job.turns, OBSERVATION
    body = ([1] * action + [0] * observation) * (job.turns - 1) + [1] * (job.actions - action * (job.turns - 1))
    return tuple([0] * (job.tokens - len(body)) + body)


def _machine(ranks: int, cores: int) -> Hardware:
    """Measures this machine with all its cores, as `ranks` processes share it."""
    import torch

    mine = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        return this_machine(ranks)
    finally:
        torch.set_num_threads(mine)


def _between(one: Hardware, other: Hardware) -> Hardware:
    """Returns the mean of two measurements of a machine."""
    return replace(one, **{name: (getattr(one, name) + getattr(other, name)) / 2 for name in ("tflops", "bandwidth_gbs", "link_gbs", "host_gbs")})


def _status(name: str) -> float:
    """Returns a memory field of /proc/self/status in GiB."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / GIB
