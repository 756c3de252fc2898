"""Supervised warm start: the policy learns to say what successful trajectories said."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from apprentice.config.schema import DistillConfig
from apprentice.errors import ApprenticeError
from apprentice.learning import export, objectives
from apprentice.learning.checkpoint import CheckpointStore
from apprentice.learning.engine import Engine
from apprentice.learning.models import Actor, load_language_model
from apprentice.learning.packing import action_offsets, dealt, pack
from apprentice.records import Trajectory
from apprentice.records.events import Progress

MAX_GRADIENT_NORM = 1.0
WARM_UP_SHARE = 0.1
"""Share of the optimizer steps over which the learning rate rises."""
FINAL_SHARE = 0.1
"""Share of the learning rate left at the last step."""
CHECKPOINT_EVERY_S = 180.0
PHASE = "warm start"


@dataclass(frozen=True)
class Done:
    """What fine-tuning has behind it; small and JSON."""

    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss_first: float = 0.0
    loss_last: float = 0.0


def fine_tune(
    config: DistillConfig,
    checkpoint: Path,
    trajectories: Sequence[Trajectory],
    output: Path,
    store: CheckpointStore,
    progress: Progress,
    dtype: str = "bfloat16",
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> dict[str, float]:
    """Minimises the mean negative log-likelihood of the trajectories' action tokens; continues where it was interrupted.

    Args:
        config: the `distill` section.
        checkpoint: folder of the model to start from.
        trajectories: successful ones; what the environment wrote is read, not learned.
        output: folder for the warm-started policy, written whole at the end.
        store: what an interrupted run continues from; emptied at the end.
        progress: takes done and total optimizer steps, and the loss of each.
        dtype: of weights and activations, `bfloat16` or `float32`.
        checkpoint_every_s: seconds between checkpoints.

    Returns:
        `loss_first` and `loss_last` (nats a token, of the first and last optimizer step), `steps`, `tokens`, `seconds` and `tokens_per_second`.

    Raises:
        ApprenticeError: there are no trajectories, the model is missing, or the disk is full.
    """
    trajectories = [trajectory for trajectory in trajectories if any(trajectory.action_mask[1:])]
    if not trajectories:
        raise ApprenticeError("there are no successful traces to learn from", where="distill.source", todo="use another source, or more attempts")
    kind = getattr(torch, dtype)
    actor = Actor(load_language_model(checkpoint, kind))
    engine = Engine(actor, learning_rate=config.learning_rate, max_gradient_norm=MAX_GRADIENT_NORM, dtype=kind)
    done = _resume(engine, store, progress)
    schedule = _schedule(config, len(trajectories))
    began, saved = time.perf_counter() - done.seconds, time.perf_counter()
    progress.advance(PHASE, done.steps, len(schedule))
    for number, chosen in list(enumerate(schedule))[done.steps :]:
        learning_rate = config.learning_rate * _factor(number, len(schedule))
        loss = _step(engine, trajectories, chosen, config.micro_batch_tokens, learning_rate)
        tokens = done.tokens + sum(len(trajectories[index].token_ids) for index in chosen)
        done = Done(number + 1, time.perf_counter() - began, tokens, loss if number == 0 else done.loss_first, loss)
        progress.metrics(done.steps, {"loss": loss, "learning_rate": learning_rate, "tokens_per_second": tokens / done.seconds})
        progress.advance(PHASE, done.steps, len(schedule))
        if time.perf_counter() - saved >= checkpoint_every_s:
            store.save(done.steps, engine.save, vars(done))
            saved = time.perf_counter()
    with engine.whole_weights():
        export.save_policy(actor.language_model, checkpoint, output)
    store.clear()
    return {name: float(value) for name, value in vars(done).items()} | {"tokens_per_second": done.tokens / done.seconds}


def _resume(engine: Engine, store: CheckpointStore, progress: Progress) -> Done:
    found = store.latest()
    if found is None:
        return Done()
    folder, state = found
    engine.load(folder)
    progress.note(f"continues after optimizer step {state['steps']}")
    return Done(**state)


def _schedule(config: DistillConfig, count: int) -> list[list[int]]:
    """The trajectories of each optimizer step, all epochs; the same for the same seed."""
    schedule = []
    for epoch in range(config.epochs):
        order = list(range(count))
        random.Random(f"{config.seed}/{epoch}").shuffle(order)
        schedule += [order[start : start + config.batch] for start in range(0, count, config.batch)]
    return schedule


def _factor(number: int, total: int) -> float:
    """Share of the learning rate at a step: a linear rise, then a linear fall to `FINAL_SHARE` at the last."""
    warm_up = max(1, round(WARM_UP_SHARE * total))
    if number < warm_up:
        return (number + 1) / warm_up
    return 1 - (1 - FINAL_SHARE) * (number + 1 - warm_up) / max(1, total - warm_up)


def _step(engine: Engine, trajectories: Sequence[Trajectory], chosen: list[int], token_budget: int, learning_rate: float) -> float:
    """One optimizer step; returns its loss in nats a token."""
    offsets = action_offsets(trajectories)
    denominator = float(sum(offsets[index + 1] - offsets[index] for index in chosen))
    loss = 0.0
    for batch in dealt(pack(trajectories, token_budget, chosen, rows=engine.module.takes_rows), engine.rank, engine.ranks):
        logprobs = engine(batch.to(engine.device)).logprobs
        loss += engine.accumulate(objectives.negative_log_likelihood(logprobs, torch.ones_like(logprobs), denominator=denominator))
    engine.step(learning_rate)
    return float(engine.total(torch.tensor(loss)))
