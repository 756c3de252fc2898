"""Compares the cost of a step on this machine, by its size, with the predictions of `apprentice plan`.

    python -m benchmarks.scaling

Learning is `PpoLearner.update` on random trajectories on the CPU, with a critic and a reference as in the pipeline
`quick`; the benchmark measures seconds and the peak memory of the first rank. Sampling is a set of completions of the
policy server. Seconds are the minimum of REPEATS runs. The speed of matrix products and memory copies is measured
before and after each point. A prediction knows this speed, the model's shape, and the constants in
`apprentice/planning/hardware.py`. The benchmark takes about 8 minutes and exits with 1 if the median error exceeds
TOLERANCE.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from apprentice.config import PipelineConfig, load_pipeline
from apprentice.planning.hardware import GIB, Hardware, this_machine
from apprentice.processes.limits import use_cores_sparingly
from apprentice.records.files import write_json
from benchmarks.jobs import OBSERVATION, REPEATS, Job, Measured, Tell, learn, sample

if TYPE_CHECKING:
    from apprentice.planning.estimate import Episodes

TOLERANCE = 0.25
PROMPT, ACTION = 64, 32
"""Number of tokens in the prompt and in each action of a random episode."""
START_S, POINT_S = 20.0, 3.0
"""Estimates for the remaining time: seconds to start and warm up a learner or a server, and overhead per point."""
ON_THE_CPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


def _turns(count: int) -> Job:
    return Job(4, tokens=PROMPT + count * (ACTION + OBSERVATION) - OBSERVATION, actions=count * ACTION, turns=count)


AXES = {
    "trajectories": {str(count): Job(count) for count in (2, 4, 8)},
    "tokens of a trajectory": {str(tokens): Job(1, tokens=tokens) for tokens in (512, 1024, 2048)},
    "turns": {str(count): _turns(count) for count in (1, 2, 3)},
    "attempts that share 3/4": {str(count): Job(4 // count, attempts=count, shared=192 * (count > 1)) for count in (1, 2, 4)},
    "optimizer steps": {str(count): Job(minibatches=count) for count in (1, 2, 4)},
    "tokens of a micro-batch": {str(tokens): Job(micro_batch_tokens=tokens) for tokens in (256, 512, 1024)},
    "ranks": {"1": Job(), "2, ZeRO 1": Job(ranks=2), "2, ZeRO 3": Job(ranks=2, zero_stage=3)},
    "sequences at a time": {str(count): Job(count, "sampling") for count in (4, 16, 32)},
    "new tokens": {str(count): Job(16, "sampling", actions=count) for count in (16, 64, 128)},
}


@dataclass(frozen=True)
class Point:
    """A measurement and its prediction."""

    axis: str
    value: str
    unit: str
    """Unit of both: `s` or `GiB`."""
    measured: float
    predicted: float
    gflops: float
    """Speed of square bf16 matrix products during the measurement."""
    ratio: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", self.predicted / self.measured)


class Predictor:
    """Predicts the cost of a job with the planner's formulas."""

    def __init__(self, config: PipelineConfig, checkpoint: Path):
        from apprentice.planning.shape import Shape

        self._config, self._shape = config, Shape.of(checkpoint)

    def seconds(self, job: Job, hardware: Hardware) -> float:
        """Returns the predicted seconds of the job's phase."""
        from apprentice.planning.estimate import step_seconds

        return getattr(step_seconds(self._of(job), self._shape, _episodes(job), hardware), job.phase)

    def gib(self, job: Job) -> float:
        """Returns the predicted memory of one rank of the trainer."""
        from apprentice.planning.plan import trainer_bytes

        return sum(trainer_bytes(self._of(job).train, self._shape, _episodes(job), job.ranks).values()) / GIB

    def points(self, axis: str, value: str, done: Measured) -> list[Point]:
        """Returns a job's measurements with their predictions."""
        gflops = done.hardware.tflops * done.hardware.gpus * 1e3
        points = [Point(axis, value, "s", done.seconds, self.seconds(done.job, done.hardware), gflops)]
        return points + ([Point(axis, value, "GiB", done.gib, self.gib(done.job), gflops)] if done.gib else [])

    def _of(self, job: Job) -> PipelineConfig:
        return self._config.model_copy(update={"train": self._config.train.model_copy(update=dict(job.train))})


def _episodes(job: Job) -> "Episodes":
    from apprentice.planning.estimate import Episodes

    return Episodes(job.tasks, job.attempts, job.tokens, job.actions, job.shared)


def _teller(predictor: Predictor, jobs: Sequence[Job]) -> Tell:
    """Returns a callback that prints each point and the remaining time.

    The remaining time is the predicted time of the remaining points, scaled by the error of the predictions so far.
    """
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


def measure(config: PipelineConfig, checkpoint: Path, axes: Sequence[str]) -> list[Point]:
    """Measures all points of the given axes and prints each as it finishes."""
    predictor, chosen = Predictor(config, checkpoint), {axis: AXES[axis] for axis in axes}
    jobs = sorted({job for points in chosen.values() for job in points.values()}, key=lambda job: (job.train, job.tokens, job.tasks))
    learning, sampling = ([job for job in jobs if job.phase == phase] for phase in ("learning", "sampling"))
    told = _teller(predictor, [*learning, *sampling])
    done = learn(config, checkpoint, learning, told)
    if sampling:
        done |= asyncio.run(sample(config, checkpoint, sampling, told))
    return [point for axis, points in chosen.items() for value, job in points.items() for point in predictor.points(axis, value, done[job])]


def _say(points: Sequence[Point]) -> float:
    """Prints the points and a summary of the errors, and returns the median error.

    A point that belongs to several axes counts once.
    """
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
    """Plots measurements and predictions, one panel per axis and unit."""
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
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES), metavar="AXIS", help=f"axes to measure: {', '.join(AXES)}")
    parser.add_argument("--json", type=Path, help="also write the points to this file")
    parser.add_argument("--plot", type=Path, help="also plot the points to this file (png, svg, pdf)")
    arguments = parser.parse_args()
    use_cores_sparingly()
    os.environ.update(ON_THE_CPU)

    from apprentice.policy.base_models import base_model

    config = load_pipeline("quick")
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"port": 0})})
    points = measure(config, base_model(config.model.name).absolute(), arguments.only)
    median = _say(points)
    if arguments.json:
        write_json(arguments.json, [asdict(point) for point in points])
    if arguments.plot:
        _plot(points, arguments.plot)
    return 1 if median > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
