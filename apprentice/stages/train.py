"""The stage train: online PPO on the curriculum; the sampler receives the new weights after each update."""

import asyncio
import csv
import io
import math
import shutil

from apprentice.config import Layout, PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.records import SkillLibrary
from apprentice.records.events import Progress
from apprentice.records.files import write_json, write_lines, write_text
from apprentice.records.fingerprint import fingerprint
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
    from apprentice.online.chains import Chains
    from apprentice.online.loop import OnlineTraining
    from apprentice.online.sampler import TaskSampler
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.models import starting_policy
    from apprentice.policy.opening import open_policy
    from apprentice.rollout.setup import make_simulator

    start = starting_policy(config, layout)
    curriculum = read_tasks(layout.curriculum)
    seeds = read_trajectories(layout.rollouts)
    progress.note(f"{len(curriculum)} tasks, {config.train.steps} steps of {config.train.tasks_per_step} x {config.train.attempts} episodes")
    case = use_case(config, layout)
    if config.train.chains and case.skills is None:
        todo = "use a use case with skills, such as the assistant, and set environment.skills, or turn this parameter off"
        raise ApprenticeError("the use case has no skills that one attempt could pass on to the next", where="train.chains", todo=todo)
    run_id = fingerprint(config.train, config.environment, config.model, start, layout.curriculum, layout.rollouts)
    library = SkillLibrary()
    store = CheckpointStore(layout.checkpoints / f"train-{run_id}")
    with open_learner(config.train, start, layout.runtime) as learner:
        async with case.opened(ChatFormat(start).encode) as make_environment, open_policy(config, layout, start) as policy:
            simulator = make_simulator(config, make_environment, policy, start, config.train.temperature)
            if config.train.chains:
                simulator = Chains(simulator, case.skills, curriculum, config.train.skill_reward, library, config.train.seed)
            sampler = TaskSampler(curriculum, config.train, config.filter.probes)
            training = OnlineTraining(config.train, learner, simulator, policy, sampler, store, start, layout.runtime, progress, library)
            rows = await training.run(seeds)
        learner.save_policy(layout.policy)
    if len(library):
        library.write(layout.skills)
    write_lines(layout.train_quarantine, training.quarantine)
    write_text(layout.curves("training"), _csv(rows))
    write_json(layout.metrics("training"), _summary(rows))
    shutil.rmtree(layout.checkpoints, ignore_errors=True)


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["step"]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: round(value, 6) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the metrics for training.json: first and last rewards, means of the diagnostics, and cost."""

    def mean(key: str, chosen: list[dict[str, float]]) -> float:
        known = [row[key] for row in chosen if math.isfinite(row.get(key, math.nan))]  # NaN: an update that was undone
        return sum(known) / max(1, len(known))

    return {
        "steps": len(rows),
        "reward_first": mean("reward", rows[:EDGE_STEPS]),
        "reward_last": mean("reward", rows[-EDGE_STEPS:]),
        **{key: mean(key, rows) for key in ("kl_reference", "entropy", "clip_fraction", "explained_variance", "gradient_norm", "sampler_gap_mean")},
        "tokens": sum(row.get("tokens", 0) for row in rows),
        "sampled_tokens": sum(row.get("action_tokens", 0) for row in rows),
        "faults": sum(row["faults"] for row in rows),
        "quarantined": sum(row["quarantined"] for row in rows),
        "seconds": sum(row["seconds_step"] for row in rows),
    }


if __name__ == "__main__":
    main(run)
