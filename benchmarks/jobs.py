"""What `benchmarks.scaling` measures: updates of the trainer in processes of their own, completions of the policy server; beside each, the machine."""

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
"""Tokens of a random observation."""


@dataclass(frozen=True)
class Job:
    """What to measure."""

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
        """What differs from the pipeline's `train` section."""
        return tuple((name, getattr(self, name)) for name in ("micro_batch_tokens", "minibatches", "ranks", "zero_stage"))


WARM_UP = Job(32, "sampling", actions=8)


@dataclass(frozen=True)
class Measured:
    """A job, done."""

    job: Job
    """As it was done: samples may end early."""
    seconds: float
    hardware: Hardware
    """This machine at that time."""
    gib: float | None = None
    """Peak memory of the first rank, without its libraries; None for sampling."""


Tell = Callable[[Job, Measured], None]
"""Is told of a job that has been done."""


def learn(config: PipelineConfig, checkpoint: Path, jobs: Sequence[Job], tell: Tell) -> dict[Job, Measured]:
    """Does learning jobs, in a process for those that one learner can do."""
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
    """The body of a learner's process. Jobs come in the order of their memory: what an allocator keeps of one is not counted for the next."""
    import deepspeed  # noqa: F401, so that its memory counts as a library's
    import torch

    from apprentice.learning.ranks import open_learner

    train, cores, libraries = config.train.model_copy(update=dict(jobs[0].train)), torch.get_num_threads(), _status("VmRSS")
    with tempfile.TemporaryDirectory() as folder, open_learner(train, checkpoint, Path(folder)) as learner:
        learner.update(trajectories(Job(1)), 0)
        for job in jobs:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            before = _machine(job.ranks, cores)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
            seconds = [_timed(learner, trajectories(job)) for _ in range(REPEATS)]
            peak = _status("VmHWM") - libraries
            results.send(Measured(job, min(seconds), _between(before, _machine(job.ranks, cores)), peak))


def _timed(learner: "PpoLearner", attempts: Sequence[Trajectory]) -> float:
    """Seconds of an update."""
    began = time.perf_counter()
    learner.update(attempts, 1)
    return time.perf_counter() - began


async def sample(config: PipelineConfig, checkpoint: Path, jobs: Sequence[Job], tell: Tell) -> dict[Job, Measured]:
    """Does sampling jobs, with a policy server of its own."""
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
    """Lets the policy tell stories, all at a time: seconds; the mean of the tokens that were sampled, and of the prompts'."""
    prompts = [chat.prompt(f"Tell me a very long story about {TOPICS[index % len(TOPICS)]}, number {name}.{index}.") for index in range(job.tasks)]
    began = time.perf_counter()
    answers = await asyncio.gather(*(policy.generate(prompt, Sampling(job.actions, 1.0, seed)) for seed, prompt in enumerate(prompts)))
    seconds = time.perf_counter() - began
    return seconds, statistics.mean(len(answer.token_ids) for answer in answers), statistics.mean(map(len, prompts))


def trajectories(job: Job) -> list[Trajectory]:
    """Random tokens: a prompt, then actions and observations in turn."""
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
    """Actions of equal length, the last at the end, with observations of equal length between them, and the prompt in front."""
    action, observation = job.actions // job.turns, OBSERVATION
    body = ([1] * action + [0] * observation) * (job.turns - 1) + [1] * (job.actions - action * (job.turns - 1))
    return tuple([0] * (job.tokens - len(body)) + body)


def _machine(ranks: int, cores: int) -> Hardware:
    """This machine, measured with all its cores, as `ranks` share it."""
    import torch

    mine = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        return this_machine(ranks)
    finally:
        torch.set_num_threads(mine)


def _between(one: Hardware, other: Hardware) -> Hardware:
    """The mean of two measurements of a machine."""
    return replace(one, **{name: (getattr(one, name) + getattr(other, name)) / 2 for name in ("tflops", "bandwidth_gbs", "link_gbs", "host_gbs")})


def _status(name: str) -> float:
    """GiB that the kernel says this process has."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / GIB
