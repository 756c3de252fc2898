"""The stage filter: probes training tasks with the starting policy, and keeps those that carry a learning signal."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from apprentice.config import Layout, PipelineConfig
from apprentice.data.difficulty import Curriculum, pass_rate, select_curriculum, signal, smoothed
from apprentice.errors import ApprenticeError
from apprentice.records import Task, Trajectory
from apprentice.records.events import Progress
from apprentice.records.files import write_json, write_text
from apprentice.records.metrics import csv_text, mean
from apprentice.records.tables import read_tasks, write_tasks
from apprentice.stages.entry import main


def run(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    """Write the curriculum, difficulty.json, and difficulty.csv with one row per probed task.

    Raises:
        ApprenticeError: there is no training task, or no probe has a turn.
    """
    tasks = candidates(read_tasks(layout.tasks, "train"), config.filter.candidates, config.filter.seed)
    if not tasks:
        raise ApprenticeError("has no training task", where=layout.tasks, todo="raise data.train, or add tasks of the split `train`")
    trajectories, faults = asyncio.run(_probe(config, layout, tasks, progress))
    trajectories = played(trajectories, config.environment.max_tokens, progress)
    rates = pass_rates(trajectories)
    curriculum = select_curriculum(tasks, rates, config.filter.probes, config.filter)
    progress.note(curriculum.note)
    metrics = difficulty_metrics(trajectories, rates, curriculum, config.filter.probes) | {"faults": faults}
    progress.metrics(0, metrics)
    write_tasks(layout.curriculum, [task.model_copy(update={"pass_rate": rates[task.id]}) for task in curriculum.tasks])
    write_text(layout.curves("difficulty"), difficulty_rows(tasks, rates, curriculum, config.filter.probes))
    write_json(layout.metrics("difficulty"), metrics)


def candidates(tasks: Sequence[Task], limit: int, seed: int) -> list[Task]:
    """Sample at most `limit` tasks with a seed."""
    return random.Random(seed).sample(list(tasks), min(limit, len(tasks)))


def played(trajectories: Sequence[Trajectory], max_tokens: int, progress: Progress) -> list[Trajectory]:
    """Return the trajectories that have a turn. Tasks whose first message leaves no room for a turn are dropped.

    Raises:
        ApprenticeError: no trajectory has a turn.
    """
    with_turns = [trajectory for trajectory in trajectories if trajectory.turns]
    left_out = {trajectory.task_id: trajectory.error for trajectory in trajectories if not trajectory.turns}
    if left_out and not with_turns:
        reason = next(iter(left_out.values()))
        what = f"no probed task leaves room for a turn: {reason}"
        raise ApprenticeError(what, where=f"environment.max_tokens={max_tokens}", todo="raise environment.max_tokens")
    if left_out:
        progress.note(f"{len(left_out)} tasks are left out, such as {next(iter(left_out))!r}: {next(iter(left_out.values()))}")
    return with_turns


def pass_rates(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the share of successful episodes of each task, by task id."""
    outcomes = defaultdict(list)
    for trajectory in trajectories:
        outcomes[trajectory.task_id].append(trajectory.outcome == "success")
    return {task_id: pass_rate(sum(successes), len(successes)) for task_id, successes in outcomes.items()}


def difficulty_metrics(trajectories: Sequence[Trajectory], rates: Mapping[str, float], curriculum: Curriculum, probes: int) -> dict[str, float]:
    """Return the metrics of the probes and of the curriculum, for difficulty.json."""
    from apprentice.rollout.metrics import rollout_metrics

    kept = [rates[task.id] for task in curriculum.tasks]
    metrics = rollout_metrics(trajectories)
    return {
        "probed": len(rates),
        "solved_always": sum(rate == 1.0 for rate in rates.values()),
        "solved_sometimes": sum(0.0 < rate < 1.0 for rate in rates.values()),
        "solved_never": sum(rate == 0.0 for rate in rates.values()),
        "kept": len(kept),
        "pass_rate": mean(rates.values()),
        "pass_rate_kept": mean(kept),
        "signal_kept": mean(signal(smoothed(rate, probes), probes) for rate in kept),
        **{key: metrics[key] for key in ("malformed_share", "truncated_share", "turns", "tokens_per_episode")},
    }


def difficulty_rows(tasks: Sequence[Task], rates: Mapping[str, float], curriculum: Curriculum, probes: int) -> str:
    """Return a CSV with one row per probed task."""
    kept = {task.id for task in curriculum.tasks}
    rows = []
    for task in tasks:
        if task.id in rates:
            rate = rates[task.id]
            of_task = round(signal(smoothed(rate, probes), probes), 6)
            rows.append({"task_id": task.id, "hops": task.hops, "pass_rate": round(rate, 6), "signal": of_task, "kept": int(task.id in kept)})
    return csv_text(rows)


async def _probe(config: PipelineConfig, layout: Layout, tasks: Sequence[Task], progress: Progress) -> tuple[list[Trajectory], int]:
    from apprentice.environments.usecase import use_case
    from apprentice.policy.base_models import starting_policy
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.factory import open_policy
    from apprentice.rollout.setup import make_simulator
    from apprentice.rollout.simulator import plan_episodes

    start, settings = starting_policy(config, layout), config.filter
    async with use_case(config, layout).opened(ChatFormat(start).encode) as make_environment, open_policy(config, layout, start) as policy:
        simulator = make_simulator(config, make_environment, policy, start, settings.temperature)
        trajectories = await simulator.run(plan_episodes(tasks, settings.probes, settings.seed, tag="probe"), progress, "probes")
    return trajectories, len(simulator.faults)


if __name__ == "__main__":
    main(run)
