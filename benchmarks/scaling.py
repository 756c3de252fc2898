"""`python -m benchmarks.scaling`: what a step costs on this machine against its size, beside what `apprentice plan` predicts.

Learning: `PpoLearner.update` on random trajectories on the CPU, with critic and reference as in the pipeline `quick`; seconds, and the peak memory of the first
rank. Sampling: completions of the policy server. Seconds are the least of REPEATS. Matrix products and copies within the memory are measured before and after
each point: a prediction knows them, the model's shape and the constants of `apprentice/learning/hardware.py`. About 8 minutes. Exits with 1 where the median
error exceeds TOLERANCE.
"""

import argparse
import asyncio
import ctypes
import gc
import multiprocessing
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.learning.hardware import GIB, Hardware, this_machine
from apprentice.policy.protocol import Policy, Sampling
from apprentice.processes import use_cores_sparingly
from apprentice.records import Trajectory
from apprentice.records.files import write_json
from benchmarks.grpo import TOPICS

if TYPE_CHECKING:
    from apprentice.learning.cost import Episodes
    from apprentice.learning.ppo import PpoLearner
    from apprentice.policy.chat import ChatFormat

TOLERANCE = 0.25
REPEATS = 2
PROMPT, ACTION, OBSERVATION = 64, 32, 64
"""Tokens of the parts of a random episode."""
START_S, POINT_S = 20.0, 3.0
"""Not measured, for the time left: until a learner or a server has started and is warm; beside a point."""
ON_THE_CPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Job:
    """What to measure."""

    tasks: int = 4
    phase: str = "learning"
    """Or `sampling`."""
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


def _turns(count: int) -> Job:
    return Job(4, tokens=PROMPT + count * (ACTION + OBSERVATION) - OBSERVATION, actions=count * ACTION, turns=count)


LEARNING = {
    "trajectories": {str(count): Job(count) for count in (2, 4, 8)},
    "tokens of a trajectory": {str(tokens): Job(2, tokens=tokens) for tokens in (256, 768, 1536)},
    "turns": {str(count): _turns(count) for count in (1, 2, 4)},
    "attempts that share 3/4": {str(count): Job(8 // count, attempts=count, shared=192 * (count > 1)) for count in (1, 4, 8)},
    "optimizer steps": {str(count): Job(minibatches=count) for count in (1, 2, 4)},
    "tokens of a micro-batch": {str(tokens): Job(micro_batch_tokens=tokens) for tokens in (256, 512, 1024)},
    "ranks": {"1": Job(), "2, ZeRO 1": Job(ranks=2), "2, ZeRO 3": Job(ranks=2, zero_stage=3)},
}
WARM_UP = Job(48, "sampling", actions=8)
SAMPLING = {
    "sequences at a time": {str(count): Job(count, "sampling") for count in (4, 16, 48)},
    "new tokens": {str(count): Job(16, "sampling", actions=count) for count in (16, 64, 128)},
}


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


@dataclass(frozen=True)
class Point:
    """A measured figure beside its prediction."""

    axis: str
    value: str
    unit: str
    """`s` or `GiB`."""
    measured: float
    predicted: float
    gflops: float
    """Of square bf16 matrix products at that time."""
    ratio: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", self.predicted / self.measured)


Tell = Callable[[Job, Measured], None]
"""Is told of a job that has been done."""


class Predictor:
    """What the planner says of a job on a machine."""

    def __init__(self, config: PipelineConfig, checkpoint: Path):
        from apprentice.learning.shape import Shape

        self._config, self._shape = config, Shape.of(checkpoint)

    def seconds(self, job: Job, hardware: Hardware) -> float:
        """Of the job's phase."""
        from apprentice.learning.cost import step_seconds

        return getattr(step_seconds(self._of(job), self._shape, _episodes(job), hardware), job.phase)

    def gib(self, job: Job) -> float:
        """Of one rank of the trainer."""
        from apprentice.learning.plan import trainer_bytes

        return sum(trainer_bytes(self._of(job).train, self._shape, _episodes(job), job.ranks).values()) / GIB

    def points(self, axis: str, value: str, done: Measured) -> list[Point]:
        """A job's figures beside the predictions."""
        gflops = done.hardware.tflops * done.hardware.gpus * 1e3
        points = [Point(axis, value, "s", done.seconds, self.seconds(done.job, done.hardware), gflops)]
        return points + ([Point(axis, value, "GiB", done.gib, self.gib(done.job), gflops)] if done.gib else [])

    def _of(self, job: Job) -> PipelineConfig:
        return self._config.model_copy(update={"train": self._config.train.model_copy(update=dict(job.train))})


def _episodes(job: Job) -> "Episodes":
    from apprentice.learning.cost import Episodes

    return Episodes(job.tasks, job.attempts, job.tokens, job.actions, job.shared)


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
        learner.update(trajectories(Job(2)), 0)
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
    from apprentice.policy.opening import open_policy

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


def _teller(predictor: Predictor, jobs: Sequence[Job]) -> Tell:
    """Says each point as it comes, and the time left: what was expected of the others, as much longer as what was expected of those done has taken."""
    machine, began = this_machine(), time.monotonic()
    expected = {job: POINT_S + REPEATS * predictor.seconds(job, machine) for job in jobs}
    for first in {(job.phase, job.train): job for job in reversed(jobs)}.values():
        expected[first] += START_S
    left = dict(expected)

    def tell(job: Job, measured: Measured) -> None:
        del left[job]
        spent = sum(expected.values()) - sum(left.values())
        minutes = (time.monotonic() - began) / 60 * sum(left.values()) / spent
        said = predictor.points("", "", measured)[0]
        print(f"{job.phase}: {said.measured:.1f} s, predicted {said.predicted:.1f}; about {minutes:.1f} minutes left", flush=True)

    return tell


def measure(config: PipelineConfig, checkpoint: Path) -> list[Point]:
    """All points, told as they come."""
    predictor = Predictor(config, checkpoint)
    learning, sampling = ({job for jobs in axes.values() for job in jobs.values()} for axes in (LEARNING, SAMPLING))
    learning = sorted(learning, key=lambda job: (job.train, job.tokens, job.tasks))
    told = _teller(predictor, [*learning, *sampling])
    done = learn(config, checkpoint, learning, told) | asyncio.run(sample(config, checkpoint, list(sampling), told))
    return [point for axis, jobs in (LEARNING | SAMPLING).items() for value, job in jobs.items() for point in predictor.points(axis, value, done[job])]


def _say(points: Sequence[Point]) -> float:
    """Prints the points and how well they are met, those of several axes counted once; the median error."""
    for axis in dict.fromkeys(point.axis for point in points):
        print(axis)
        for point in points:
            if point.axis == axis:
                mark = "" if abs(point.ratio - 1) <= TOLERANCE else "  *"
                print(f"  {point.value:<10} {point.measured:7.2f} {point.unit:<4} predicted {point.predicted:7.2f}  x {point.ratio:.2f}{mark}")
    errors = [abs(ratio - 1) for ratio in {(point.unit, point.measured): point.ratio for point in points}.values()]
    median = statistics.median(errors)
    print(f"{sum(error <= TOLERANCE for error in errors)} of {len(errors)} points within {TOLERANCE:.0%}; median error {median:.0%}, largest {max(errors):.0%}")
    return median


def _plot(points: Sequence[Point], path: Path) -> None:
    """A panel an axis and unit: measured and predicted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(dict.fromkeys((point.axis, point.unit) for point in points))
    figure, places = pyplot.subplots(-(-len(panels) // 4), 4, figsize=(14, 3 * -(-len(panels) // 4)), squeeze=False, layout="constrained")
    for place in places.flat[len(panels) :]:
        place.remove()
    for (axis, unit), place in zip(panels, places.flat, strict=False):
        mine = [point for point in points if (point.axis, point.unit) == (axis, unit)]
        for name, style in (("measured", "o-"), ("predicted", "x--")):
            place.plot([point.value for point in mine], [getattr(point, name) for point in mine], style, label=name)
        place.set(xlabel=axis, ylabel=unit, ylim=(0, None))
    places.flat[0].legend()
    figure.savefig(path, dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the points here")
    parser.add_argument("--plot", type=Path, help="also draw them here (png, svg, pdf)")
    arguments = parser.parse_args()
    use_cores_sparingly()
    os.environ.update(ON_THE_CPU)

    from apprentice.policy.models import base_model

    config = load_pipeline("quick")
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"port": 0})})
    points = measure(config, base_model(config.model.name).absolute())
    median = _say(points)
    if arguments.json:
        write_json(arguments.json, [asdict(point) for point in points])
    if arguments.plot:
        _plot(points, arguments.plot)
    return 1 if median > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
