"""Compares algorithms with the same starting policy, curriculum, and budget over several seeds.

    python -m benchmarks.algorithms

The pipeline must have run up to `rollout`. Each run trains with the pipeline's budget, is scored on held-out tasks in
greedy and sampled episodes, and is logged to the MLflow experiment `<pipeline>-algorithms`. All runs share one policy
server. Each has its own process, because DeepSpeed does not free all its memory. Finished runs are skipped, and an
interrupted run resumes.
"""

import argparse
import asyncio
import csv
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.policy.server import STATE
from apprentice.processes.children import spawn
from apprentice.processes.limits import use_cores_sparingly
from apprentice.records.events import Progress
from apprentice.records.files import read_json, write_json, write_text

GROUP = {"normalize_advantages": False, "kl_coefficient": 0.0}
"""Group advantages need no further normalisation, and these algorithms use no reference."""
ALGORITHMS: Mapping[str, Mapping[str, object]] = {
    "PPO with critic (GAE)": {"advantage": "gae"},
    "RLOO": {**GROUP, "advantage": "rloo"},
    "LOOP": {**GROUP, "advantage": "rloo", "clip_low": 0.1, "clip_high": 0.1, "min_advantage": 0.01, "epochs": 2},
    "GRPO": {**GROUP, "advantage": "grpo", "loss_mean": "sequence"},
    "Dr. GRPO": {**GROUP, "advantage": "dr_grpo", "loss_mean": "constant"},
    "DAPO": {**GROUP, "advantage": "grpo", "clip_high": 0.28, "mixed_groups_only": True, "oversampling": 1.5},
    "SALT": {**GROUP, "advantage": "salt"},
    "SALT over RLOO": {**GROUP, "advantage": "salt_rloo"},
    "GiGPO": {**GROUP, "advantage": "gigpo", "history": 0},
    "GSPO": {**GROUP, "advantage": "grpo", "objective": "gspo", "loss_mean": "sequence", "clip_low": 0.0003, "clip_high": 0.0004},
    "CISPO": {**GROUP, "advantage": "grpo", "objective": "cispo", "clip_low": 0.99, "clip_high": 4.0},
}
"""Parameters of the `train` section that each algorithm sets; clip bounds and loss means follow its paper."""
RESULT, LOG = "result.json", "run.log"


@dataclass(frozen=True)
class Job:
    """One algorithm with one seed."""

    name: str
    seed: int
    folder: Path

    def config(self, pipeline: PipelineConfig, steps: int) -> PipelineConfig:
        """Returns the pipeline's parameters with those of the algorithm."""
        train = type(pipeline.train)(**{**pipeline.train.model_dump(), "steps": steps, "seed": self.seed, **ALGORITHMS[self.name]})
        return pipeline.model_copy(update={"train": train})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.algorithms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="quick")
    parser.add_argument("--names", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS), metavar="NAME", help=f"algorithms to run: {', '.join(ALGORITHMS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="training steps of each run (default: the pipeline's train.steps)")
    parser.add_argument("--tasks", type=int, help="maximum number of held-out tasks (default: the pipeline's evaluate.tasks)")
    parser.add_argument("--table", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    use_cores_sparingly()
    pipeline, layout = load_pipeline(arguments.pipeline), Layout(arguments.pipeline)
    steps, tasks = arguments.steps or pipeline.train.steps, arguments.tasks or pipeline.evaluate.tasks
    jobs = [Job(name, seed, _folder(layout, name, seed, steps)) for seed in arguments.seeds for name in arguments.names]
    if left := [job for job in jobs if not (job.folder / RESULT).exists()]:
        _run_all(left, pipeline, layout, steps, tasks)
    table = "\n".join(_table(arguments.names, jobs))
    print(table)
    if arguments.table:
        write_text(arguments.table, table + "\n")


def _folder(layout: Layout, name: str, seed: int, steps: int) -> Path:
    plain = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    return layout.runtime / "algorithms" / f"{plain}-{steps}-{seed}"


def _run_all(jobs: list[Job], pipeline: PipelineConfig, layout: Layout, steps: int, tasks: int) -> None:
    from apprentice.policy.factory import make_policy_server

    with make_policy_server(pipeline, layout) if pipeline.policy.engine == "vllm" else nullcontext():
        started = time.monotonic()
        for number, job in enumerate(jobs):
            pace = (time.monotonic() - started) / number if number else None
            print(f"{number + 1}/{len(jobs)} {job.name}, seed {job.seed}" + (f", {pace * (len(jobs) - number) / 60:.0f} min left" if pace else ""), flush=True)
            if len(jobs) == 1:
                _run(job, job.config(pipeline, steps), layout, tasks)
            else:
                _run_apart(job, layout.pipeline, steps, tasks)


def _run_apart(job: Job, pipeline: str, steps: int, tasks: int) -> None:
    chosen = ["--pipeline", pipeline, "--names", job.name, "--seeds", str(job.seed), "--steps", str(steps), "--tasks", str(tasks)]
    log = job.folder / LOG
    if code := spawn([sys.executable, "-m", "benchmarks.algorithms", *chosen], log=log).wait():
        raise SystemExit(f"{job.name}, seed {job.seed}, ended with exit code {code}; see {log}")


def _run(job: Job, config: PipelineConfig, layout: Layout, tasks: int) -> None:
    from apprentice.stages import train

    own = Layout(layout.pipeline, job.folder)
    for link, target in ((own.data, layout.data), (own.warm_start, layout.warm_start), (own.root / STATE, layout.root / STATE)):
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(target.absolute())
    progress = Progress(own.events, "train")
    if not own.metrics("training").exists():
        train.run(config, own, progress)
    seconds = statistics.median(row["seconds_step"] for row in _curve(own.curves("training")))
    result = {**read_json(own.metrics("training")), "seconds_step": seconds, **asyncio.run(_scores(config, own, tasks, progress))}
    _log(job, config, own, result)
    write_json(job.folder / RESULT, result)
    shutil.rmtree(own.models)


async def _scores(config: PipelineConfig, layout: Layout, tasks: int, progress: Progress) -> dict[str, float]:
    """Returns the share of held-out tasks that the trained policy solves, greedily and sampled."""
    from apprentice.environments.usecase import use_case
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.factory import open_policy
    from apprentice.records.tables import read_tasks
    from apprentice.rollout.setup import make_simulator
    from apprentice.rollout.simulator import plan_episodes

    held_out, shares = read_tasks(layout.tasks, "dev")[:tasks], {}
    async with use_case(config, layout).opened(ChatFormat(layout.policy).encode) as make_environment, open_policy(config, layout, layout.policy) as policy:
        for manner, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            simulator = make_simulator(config, make_environment, policy, layout.policy, temperature)
            played = await simulator.run(plan_episodes(held_out, 1, config.evaluate.seed, tag=manner), progress, manner)
            shares[manner] = sum(trajectory.outcome == "success" for trajectory in played) / len(played)
    return shares


def _log(job: Job, config: PipelineConfig, layout: Layout, result: Mapping[str, float]) -> None:
    import mlflow

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment(f"{layout.pipeline}-algorithms")
    with mlflow.start_run(run_name=f"{job.name}, seed {job.seed}", tags={"algorithm": job.name}):
        mlflow.log_params({f"train.{name}": value for name, value in config.train.model_dump().items()})
        mlflow.log_metrics({name: result[name] for name in ("greedy", "sampled", "reward_first", "reward_last")})
        for row in _curve(layout.curves("training")):
            step = int(row.pop("step"))
            mlflow.log_metrics(row, step=step)


def _curve(path: Path) -> Iterator[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: float(value) for name, value in row.items() if value}


def _table(names: list[str], jobs: list[Job]) -> Iterator[str]:
    """Yields a Markdown table: the mean over the seeds with the lowest and highest value."""
    yield "| algorithm | reward, first steps | reward, last steps | held out, greedy | held out, sampled | seconds a step |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in names:
        results = [read_json(job.folder / RESULT) for job in jobs if job.name == name]
        columns = [_spread([result[key] for result in results]) for key in ("reward_first", "reward_last", "greedy", "sampled")]
        seconds = statistics.median(result["seconds_step"] for result in results)
        yield f"| {name} | {' | '.join(columns)} | {seconds:.0f} |"


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
