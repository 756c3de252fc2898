"""The stage rollout: samples and checks trajectories of the starting policy, which measure it before training."""

import asyncio
import random
from collections.abc import Sequence

from apprentice.config import Layout, PipelineConfig
from apprentice.data.trajectories import checked
from apprentice.errors import ApprenticeError
from apprentice.records import Task, Trajectory
from apprentice.records.events import Progress
from apprentice.records.files import write_json, write_lines
from apprentice.records.tables import read_tasks, write_trajectories
from apprentice.stages.entry import main


def run(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    """Write the valid trajectories, the rejected ones with reasons, and rollout.json.

    Raises:
        ApprenticeError: no trajectory is valid.
    """
    from apprentice.rollout.metrics import rollout_metrics

    tasks = sample_tasks(read_tasks(layout.curriculum), config.rollout.tasks, config.rollout.seed)
    trajectories, faults = asyncio.run(_simulate(config, layout, tasks, progress))
    good, rejected = checked(trajectories, faults)
    if not good:
        raise ApprenticeError(f"every trajectory was rejected; the first: {rejected[0]['problems'][0]}", where="rollout")
    metrics = rollout_metrics(good) | {"tasks": len(tasks), "faults": len(faults), "quarantined": len(rejected) - len(faults)}
    progress.metrics(0, metrics)
    write_lines(layout.rollout_quarantine, rejected)
    write_trajectories(layout.rollouts, good)
    write_json(layout.metrics("rollout"), metrics)


def sample_tasks(tasks: Sequence[Task], limit: int, seed: int) -> list[Task]:
    """Sample at most `limit` tasks with a seed; keep the order of the curriculum."""
    chosen = sorted(random.Random(seed).sample(range(len(tasks)), min(limit, len(tasks))))
    return [tasks[index] for index in chosen]


async def _simulate(config: PipelineConfig, layout: Layout, tasks: Sequence[Task], progress: Progress) -> tuple[list[Trajectory], list[Trajectory]]:
    from apprentice.environments.usecase import use_case
    from apprentice.policy.base_models import starting_policy
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.factory import open_policy
    from apprentice.rollout.setup import make_simulator
    from apprentice.rollout.simulator import plan_episodes

    start, settings = starting_policy(config, layout), config.rollout
    async with use_case(config, layout).opened(ChatFormat(start).encode) as make_environment, open_policy(config, layout, start) as policy:
        simulator = make_simulator(config, make_environment, policy, start, settings.temperature)
        trajectories = await simulator.run(plan_episodes(tasks, settings.attempts, settings.seed, tag="rollout"), progress)
    return trajectories, simulator.faults


if __name__ == "__main__":
    main(run)
