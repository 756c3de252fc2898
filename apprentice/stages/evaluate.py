"""The stage evaluate: compares the base model, warm start, and trained policy on held-out tasks; writes the report."""

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
    """One condition: a checkpoint and the environment that it acts in."""

    name: str
    checkpoint: Path
    version: int
    """Version of the weights; conditions with the same checkpoint share it."""
    environment: str
    """`AGENT`, or one of the use case's baselines."""
    samples: int
    """Sampled episodes per task, in addition to the greedy one."""
    skills: Path | None = None
    """Skill library to offer in the episodes; None offers no skills."""


def run(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    """Write the episodes, metrics, and report; reuse the conditions that an interrupted run finished.

    Raises:
        ApprenticeError: there is no held-out task.
    """
    from apprentice.evaluation.measures import measure_of
    from apprentice.evaluation.report import report_page

    tasks = held_out([task for task in read_tasks(layout.tasks) if task.split != "train"], config.evaluate.tasks, config.evaluate.seed)
    if not tasks:
        raise ApprenticeError("has no held-out task", where=layout.tasks, todo="raise data.dev, or add tasks of the split `dev`")
    episodes, seconds = asyncio.run(_episodes(config, layout, _plans(config, layout, progress), tasks, progress))
    measure = measure_of(config)
    metrics = measure.compare(tasks, episodes, config.evaluate, seconds)
    write_json(layout.metrics("evaluation"), metrics)
    write_text(layout.curves("evaluation"), measure.curve_rows(metrics))
    _publish(layout.evaluations, episodes)
    write_text(layout.report, report_page(config, layout, tasks, episodes, metrics))
    shutil.rmtree(layout.runtime / "evaluation", ignore_errors=True)


def held_out(tasks: Sequence[Task], limit: int, seed: int) -> list[Task]:
    """Sample at most `limit` tasks with a seed; keep the order of the file."""
    if len(tasks) <= limit:
        return list(tasks)
    chosen = set(random.Random(seed).sample(range(len(tasks)), limit))
    return [task for index, task in enumerate(tasks) if index in chosen]


def _plans(config: PipelineConfig, layout: Layout, progress: Progress) -> list[Plan]:
    from apprentice.environments.protocol import AGENT
    from apprentice.environments.usecase import use_case
    from apprentice.policy.base_models import base_model, starting_policy

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
    """Return the episodes and wall time of every condition; read those that are finished and simulate the rest."""
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
    """Return a hash of everything that determines a condition's episodes."""
    from apprentice.environments.usecase import use_case

    reads = use_case(config, layout).reads
    return fingerprint(config.environment, config.evaluate, config.policy.engine, config.policy.max_context, plan.name, plan.checkpoint, *reads, *tasks)


async def _simulate_all(
    config: PipelineConfig, layout: Layout, plans: Sequence[Plan], tasks: Sequence[Task], files: Mapping[str, Path], progress: Progress
) -> None:
    from apprentice.environments.usecase import use_case
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.factory import open_policy

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
    """Run one greedy episode per task, then the sampled ones; a sample has the same seed under every condition."""
    from apprentice.rollout.setup import make_simulator
    from apprentice.rollout.simulator import plan_episodes

    trajectories: list[Trajectory] = []
    library = SkillLibrary.read(plan.skills) if plan.skills else SkillLibrary()
    tasks = [library.offered(task) for task in tasks]
    settings = config.evaluate
    for mode, temperature, attempts in (("greedy", 0.0, 1), ("sampled", settings.temperature, plan.samples)):
        if not attempts:
            continue
        simulator = make_simulator(config, make_environment, policy, plan.checkpoint, temperature)
        episodes = plan_episodes(tasks, attempts, settings.seed, tag=mode)
        trajectories += await simulator.run(episodes, progress, f"{plan.name}, {mode}")
    return trajectories


def _publish(folder: Path, episodes: Mapping[str, Sequence[Trajectory]]) -> None:
    """Replace the folder's contents with one Parquet file per condition."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, trajectories in episodes.items():
        write_trajectories(folder / f"{name}.parquet", trajectories)


if __name__ == "__main__":
    main(run)
