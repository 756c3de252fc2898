"""evaluate: base model, warm start and trained policy on held-out tasks, compared task by task; the report."""

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from apprentice.config import Layout, PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.records import SkillLibrary, Task, Trajectory
from apprentice.records.events import Progress
from apprentice.records.files import read_json, write_json, write_text
from apprentice.records.fingerprint import fingerprint
from apprentice.records.tables import read_tasks, read_trajectories, write_trajectories
from apprentice.stages.entry import main


@dataclass(frozen=True)
class Plan:
    """One condition: which weights act in which environment."""

    name: str
    checkpoint: Path
    version: int
    """Of the weights, among the checkpoints compared here."""
    environment: str
    """Which of the use case's."""
    samples: int
    """Sampled episodes a task besides the greedy one."""
    skills: Path | None = None
    """A library to offer functions from."""


def run(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    """Writes the episodes, evaluation.json, its CSV and the report; conditions finished before an interruption are kept."""
    from apprentice.evaluation.measures import measure_of
    from apprentice.evaluation.report import report_page

    tasks = held_out([task for task in read_tasks(layout.tasks) if task.split != "train"], config.evaluate.tasks, config.evaluate.seed)
    if not tasks:
        raise ApprenticeError("has no held-out task", where=layout.tasks, todo="raise data.dev, or bring tasks whose split is `dev`")
    episodes, seconds = asyncio.run(_episodes(config, layout, _plans(config, layout, progress), tasks, progress))
    measure = measure_of(config)
    metrics = measure.compare(tasks, episodes, config.evaluate, seconds)
    write_json(layout.metrics("evaluation"), metrics)
    write_text(layout.curves("evaluation"), measure.curve_rows(metrics))
    _publish(layout.evaluations, episodes)
    write_text(layout.report, report_page(config, layout, tasks, episodes, metrics))
    shutil.rmtree(layout.runtime / "evaluation", ignore_errors=True)


def held_out(tasks: Sequence[Task], limit: int, seed: int) -> list[Task]:
    """At most `limit` tasks, drawn with a seed, in the order of the file."""
    if len(tasks) <= limit:
        return list(tasks)
    chosen = set(random.Random(seed).sample(range(len(tasks)), limit))
    return [task for index, task in enumerate(tasks) if index in chosen]


def _plans(config: PipelineConfig, layout: Layout, progress: Progress) -> list[Plan]:
    from apprentice.environments.protocol import AGENT
    from apprentice.environments.usecase import use_case
    from apprentice.policy.models import base_model, starting_policy

    base, start, samples = base_model(config.model.name, progress), starting_policy(config, layout), config.evaluate.samples
    case = use_case(config, layout)
    plans = [
        *(Plan(name, base, 0, name, 0) for name in case.baselines),
        Plan("before", base, 0, AGENT, samples if config.distill.source == "none" else 0),
        Plan("trained", layout.policy, 2, AGENT, samples, layout.skills if case.skills else None),
    ]
    return plans if config.distill.source == "none" else [*plans, Plan("warm_start", start, 1, AGENT, samples)]


async def _episodes(
    config: PipelineConfig, layout: Layout, plans: Sequence[Plan], tasks: Sequence[Task], progress: Progress
) -> tuple[dict[str, list[Trajectory]], dict[str, float]]:
    """The episodes and wall seconds of every condition; what an interrupted run finished is read, the rest simulated."""
    files = {plan.name: layout.runtime / "evaluation" / f"{plan.name}-{_tag(config, layout, plan, tasks)}.parquet" for plan in plans}
    missing = sorted((plan for plan in plans if not files[plan.name].exists()), key=lambda plan: plan.version)
    if missing:
        await _simulate_all(config, layout, missing, tasks, files, progress)
    episodes = {name: read_trajectories(file) for name, file in files.items()}
    seconds = {name: read_json(file.with_suffix(".json"))["seconds"] for name, file in files.items()}
    if "warm_start" not in episodes:
        episodes["warm_start"], seconds["warm_start"] = episodes["before"], 0.0
    return episodes, seconds


def _tag(config: PipelineConfig, layout: Layout, plan: Plan, tasks: Sequence[Task]) -> str:
    """Everything that determines a condition's episodes."""
    from apprentice.environments.usecase import use_case

    reads = use_case(config, layout).reads
    return fingerprint(config.environment, config.evaluate, config.policy.engine, config.policy.max_context, plan.name, plan.checkpoint, *reads, *tasks)


async def _simulate_all(
    config: PipelineConfig, layout: Layout, plans: Sequence[Plan], tasks: Sequence[Task], files: Mapping[str, Path], progress: Progress
) -> None:
    from apprentice.environments.usecase import use_case
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.opening import open_policy

    case, version = use_case(config, layout), plans[0].version
    async with (
        case.opened(ChatFormat(plans[0].checkpoint).encode) as make_environment,
        open_policy(config, layout, plans[0].checkpoint, version=version) as policy,
    ):
        for plan in plans:
            if plan.version != version:
                await policy.load(plan.checkpoint, plan.version)
                version = plan.version
            started = time.monotonic()
            trajectories = await _simulate(config, plan, partial(make_environment, plan.environment), policy, tasks, progress)
            write_json(files[plan.name].with_suffix(".json"), {"seconds": round(time.monotonic() - started, 3)})
            write_trajectories(files[plan.name], trajectories)


async def _simulate(config: PipelineConfig, plan: Plan, make_environment: Callable, policy, tasks: Sequence[Task], progress: Progress) -> list[Trajectory]:
    """One greedy episode a task, then the sampled ones. Every condition gives the same sample of the same task the same seed."""
    from apprentice.rollout.setup import make_simulator
    from apprentice.rollout.simulator import plan_episodes

    trajectories: list[Trajectory] = []
    library = SkillLibrary.read(plan.skills) if plan.skills else SkillLibrary()
    tasks = [library.offered(task) for task in tasks]
    settings = config.evaluate
    for manner, temperature, attempts in (("greedy", 0.0, 1), ("sampled", settings.temperature, plan.samples)):
        if not attempts:
            continue
        simulator = make_simulator(config, make_environment, policy, plan.checkpoint, temperature)
        episodes = plan_episodes(tasks, attempts, settings.seed, tag=manner)
        trajectories += await simulator.run(episodes, progress, f"{plan.name}, {manner}")
    return trajectories


def _publish(folder: Path, episodes: Mapping[str, Sequence[Trajectory]]) -> None:
    """One Parquet file a condition, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, trajectories in episodes.items():
        write_trajectories(folder / f"{name}.parquet", trajectories)


if __name__ == "__main__":
    main(run)
