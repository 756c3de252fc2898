"""The stage distill: fine-tunes the base model on successful traces, for models that rarely succeed by themselves."""

import asyncio
import random
import shutil
from collections.abc import Coroutine, Sequence
from pathlib import Path

from apprentice.config import Layout, PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.records import SkillLibrary, Task, Trajectory
from apprentice.records.events import Progress
from apprentice.records.files import write_json
from apprentice.records.fingerprint import fingerprint
from apprentice.records.tables import read_tasks
from apprentice.stages.entry import main

EXPERTS = 8
"""Number of concurrent expert episodes."""


def run(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    """Write the starting policy: a fine-tuned checkpoint, or with `source: none` a pointer to the base model.

    Raises:
        ApprenticeError: the base model is unusable, or no trace succeeds.
    """
    from apprentice.policy.base_models import base_model

    base = base_model(config.model.name, progress)
    if config.distill.source == "none":
        write_json(layout.warm_start / "base.json", {"model": config.model.name})
        write_json(layout.metrics("distill"), {"traces": 0})
        return
    _check_loadable(base)
    tasks = read_tasks(layout.tasks, "train")
    random.Random(config.distill.seed).shuffle(tasks)
    traces = asyncio.run(_traces(config, layout, tasks, progress))
    if not traces:
        raise ApprenticeError(
            "no trace succeeded, so there is nothing to train on",
            where=f"distill.source={config.distill.source}",
            todo="give tasks a `plan` (expert), raise distill.attempts (rejection), or set distill.source=none",
        )
    progress.note(f"{len(traces)} successful traces")
    _fine_tune(config, layout, base, traces, progress)


def _check_loadable(base: Path) -> None:
    """Reject an unusable model before the traces are sampled, which can take long."""
    import torch

    from apprentice.policy.loading import load_causal_model

    load_causal_model(base, torch.bfloat16, on_meta=True)


async def _traces(config: PipelineConfig, layout: Layout, tasks: Sequence[Task], progress: Progress) -> list[Trajectory]:
    if config.distill.source == "expert":
        return await _expert_traces(config, layout, tasks, progress)
    return await _own_successes(config, layout, tasks, progress)


async def _expert_traces(config: PipelineConfig, layout: Layout, tasks: Sequence[Task], progress: Progress) -> list[Trajectory]:
    """Run the expert until enough traces succeed. With skills, every second task offers the skills kept so far."""
    from apprentice.environments.usecase import use_case
    from apprentice.policy.base_models import base_model
    from apprentice.policy.chat import ChatFormat
    from apprentice.rollout.expert import enact

    chat, case, wanted = ChatFormat(base_model(config.model.name)), use_case(config, layout), min(config.distill.traces, len(tasks))
    traces: list[Trajectory] = []
    library = SkillLibrary()
    async with case.opened(chat.encode) as make_environment:

        def trace(task: Task) -> Coroutine[None, None, Trajectory | None]:
            return enact(task, make_environment(), chat, case.expert, limits=config.environment, seed=config.distill.seed)

        for first in range(0, len(tasks), EXPERTS):
            batch = [library.offered(task) if index % 2 else task for index, task in enumerate(tasks[first : first + EXPERTS])]
            enacted = await asyncio.gather(*map(trace, batch))
            for task, trajectory in zip(batch, enacted, strict=True):
                if case.skills and trajectory:
                    library.add(case.skills.kept(task, trajectory))
            traces += [trajectory for trajectory in enacted if trajectory is not None]
            progress.advance("expert traces", min(len(traces), wanted), wanted)
            if len(traces) >= wanted:
                break
    return traces[:wanted]


async def _own_successes(config: PipelineConfig, layout: Layout, tasks: Sequence[Task], progress: Progress) -> list[Trajectory]:
    """Sample episodes of the base policy until enough tasks are solved, and keep the shortest success of each task."""
    from apprentice.environments.usecase import use_case
    from apprentice.policy.base_models import base_model
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.factory import open_policy
    from apprentice.rollout.setup import make_simulator
    from apprentice.rollout.simulator import plan_episodes

    base = base_model(config.model.name)
    best: dict[str, Trajectory] = {}
    async with use_case(config, layout).opened(ChatFormat(base).encode) as make_environment, open_policy(config, layout, base) as policy:
        simulator = make_simulator(config, make_environment, policy, base, config.rollout.temperature)
        width = max(1, config.environment.concurrency // config.distill.attempts)
        for first in range(0, len(tasks), width):
            if len(best) >= config.distill.traces:
                break
            episodes = plan_episodes(tasks[first : first + width], config.distill.attempts, config.distill.seed, tag="rejection")
            for trajectory in await simulator.run(episodes):
                known = best.get(trajectory.task_id)
                if trajectory.outcome == "success" and (known is None or len(trajectory.token_ids) < len(known.token_ids)):
                    best[trajectory.task_id] = trajectory
            progress.advance("tasks tried", min(first + width, len(tasks)), len(tasks))
    return list(best.values())[: config.distill.traces]


def _fine_tune(config: PipelineConfig, layout: Layout, base: Path, traces: Sequence[Trajectory], progress: Progress) -> None:
    from apprentice.environments.usecase import use_case
    from apprentice.learning.checkpoint import CheckpointStore
    from apprentice.learning.distillation import fine_tune

    run_id = fingerprint(config.distill, config.environment, config.model, layout.tasks, *use_case(config, layout).reads)
    store = CheckpointStore(layout.checkpoints / f"distill-{run_id}")
    metrics = fine_tune(config.distill, base, traces, layout.warm_start, store, progress)
    write_json(layout.metrics("distill"), {"traces": len(traces), **metrics})
    shutil.rmtree(layout.checkpoints, ignore_errors=True)


if __name__ == "__main__":
    main(run)
