"""The stage train: online PPO on the curriculum; the sampler receives the new weights after each update."""

import asyncio
import math
import shutil

from apprentice.config import Layout, PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.records import SkillLibrary
from apprentice.records.events import Progress
from apprentice.records.files import write_json, write_lines, write_text
from apprentice.records.fingerprint import fingerprint
from apprentice.records.metrics import csv_text, mean
from apprentice.records.tables import read_tasks, read_trajectories
from apprentice.stages.entry import main

EDGE_STEPS = 3
"""Number of steps averaged for `reward_first` and `reward_last`."""


def run(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    """Write the trained policy, metrics, and curves; resume from the last checkpoint of the same configuration.

    Raises:
        ApprenticeError: a parameter does not fit the use case, or the starting policy is unusable.
    """
    asyncio.run(_train(config, layout, progress))


async def _train(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    from apprentice.environments.usecase import use_case
    from apprentice.learning.checkpoint import CheckpointStore
    from apprentice.learning.ranks import open_learner
    from apprentice.online.loop import OnlineTraining
    from apprentice.online.sampler import TaskSampler
    from apprentice.online.sequential_rollout import SequentialRollout
    from apprentice.policy.base_models import starting_policy
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.factory import open_policy
    from apprentice.rollout.setup import make_simulator

    start = starting_policy(config, layout)
    curriculum = read_tasks(layout.curriculum)
    seeds = read_trajectories(layout.rollouts)
    progress.note(f"{len(curriculum)} tasks, {config.train.steps} steps of {config.train.tasks_per_step} x {config.train.attempts} episodes")
    case = use_case(config, layout)
    if config.train.sequential_rollout and case.skills is None:
        todo = "use a use case with skills, such as the assistant, and set environment.skills, or turn this parameter off"
        raise ApprenticeError("the use case has no skills that one attempt could pass on to the next", where="train.sequential_rollout", todo=todo)
    run_id = fingerprint(config.train, config.environment, config.model, start, layout.curriculum, layout.rollouts, *case.reads)
    library = SkillLibrary()
    store = CheckpointStore(layout.checkpoints / f"train-{run_id}")
    with open_learner(config.train, start, layout.runtime) as learner:
        async with case.opened(ChatFormat(start).encode) as make_environment, open_policy(config, layout, start) as policy:
            simulator = make_simulator(config, make_environment, policy, start, config.train.temperature)
            if config.train.sequential_rollout:
                simulator = SequentialRollout(simulator, case.skills, curriculum, config.train.skill_reward, library, config.train.seed)
            sampler = TaskSampler(curriculum, config.train, config.filter.probes)
            training = OnlineTraining(config.train, learner, simulator, policy, sampler, store, start, layout.runtime, progress, library)
            rows = await training.run(seeds)
        learner.save_policy(layout.policy)
    if len(library):
        library.write(layout.skills)
    write_lines(layout.train_quarantine, training.quarantine)
    write_text(layout.curves("training"), _csv(rows))
    write_json(layout.metrics("training"), training_metrics(rows))
    shutil.rmtree(layout.checkpoints, ignore_errors=True)


def _csv(rows: list[dict[str, float]]) -> str:
    return csv_text([{key: round(value, 6) for key, value in row.items()} for row in rows]) if rows else "step\n"


def training_metrics(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the metrics for training.json: first and last rewards, means of the diagnostics, and cost."""

    def mean_of(key: str, chosen: list[dict[str, float]]) -> float:
        return mean(row[key] for row in chosen if math.isfinite(row.get(key, math.nan)))  # NaN: an update that was undone

    return {
        "steps": len(rows),
        "reward_first": mean_of("reward", rows[:EDGE_STEPS]),
        "reward_last": mean_of("reward", rows[-EDGE_STEPS:]),
        **{key: mean_of(key, rows) for key in ("kl_reference", "entropy", "clip_fraction", "explained_variance", "gradient_norm", "sampler_gap_mean")},
        "tokens": sum(row.get("tokens", 0) for row in rows),
        "sampled_tokens": sum(row.get("action_tokens", 0) for row in rows),
        "faults": sum(row["faults"] for row in rows),
        "quarantined": sum(row["quarantined"] for row in rows),
        "seconds": sum(row["seconds_step"] for row in rows),
    }


if __name__ == "__main__":
    main(run)
