"""Supervised warm start: fine-tuning on successful trajectories."""

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
from apprentice.learning.packing import action_counts, pack, rank_share
from apprentice.precision import device_dtype
from apprentice.records import Trajectory
from apprentice.records.events import Progress

MAX_GRADIENT_NORM = 1.0
WARM_UP_SHARE = 0.1
"""Share of the optimizer steps in which the learning rate rises."""
FINAL_SHARE = 0.1
"""The learning rate of the last step, as a share of the peak."""
CHECKPOINT_EVERY_S = 180.0
PHASE = "warm start"


@dataclass(frozen=True)
class TrainingState:
    """Progress of the fine-tuning, stored as JSON in its checkpoints."""

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
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> dict[str, float]:
    """Minimises the mean negative log-likelihood of the trajectories' action tokens; resumes after an interruption.

    Args:
        config: the `distill` section.
        checkpoint: folder of the model to start from.
        trajectories: successful trajectories; tokens that the environment wrote carry no loss.
        output: folder of the warm-started policy, written atomically at the end.
        store: checkpoints of an interrupted run; cleared at the end.
        progress: receives the number of optimizer steps done, their total, and the loss of each.
        checkpoint_every_s: seconds between checkpoints.

    Returns:
        `loss_first`, `loss_last` (nats per token), `steps`, `tokens`, `seconds` and `tokens_per_second`.

    Raises:
        ApprenticeError: there are no trajectories, the model is missing, or the disk is full.
    """
    trajectories = [trajectory for trajectory in trajectories if any(trajectory.action_mask[1:])]
    if not trajectories:
        raise ApprenticeError("there are no successful traces to learn from", where="distill.source", todo="choose another source, or raise distill.attempts")
    dtype = getattr(torch, device_dtype())
    actor = Actor(load_language_model(checkpoint, dtype))
    engine = Engine(actor, learning_rate=config.learning_rate, max_gradient_norm=MAX_GRADIENT_NORM, dtype=dtype)
    state = _resume(engine, store, progress)
    schedule = _schedule(config, len(trajectories))
    began, saved = time.perf_counter() - state.seconds, time.perf_counter()
    progress.advance(PHASE, state.steps, len(schedule))
    for number, chosen in list(enumerate(schedule))[state.steps :]:
        learning_rate = config.learning_rate * _factor(number, len(schedule))
        loss = _step(engine, trajectories, chosen, config.micro_batch_tokens, learning_rate)
        tokens = state.tokens + sum(len(trajectories[index].token_ids) for index in chosen)
        state = TrainingState(number + 1, time.perf_counter() - began, tokens, loss if number == 0 else state.loss_first, loss)
        progress.metrics(state.steps, {"loss": loss, "learning_rate": learning_rate, "tokens_per_second": tokens / state.seconds})
        progress.advance(PHASE, state.steps, len(schedule))
        if time.perf_counter() - saved >= checkpoint_every_s:
            store.save(state.steps, engine.save, vars(state))
            saved = time.perf_counter()
    with engine.gathered_weights():
        export.save_policy(actor.language_model, checkpoint, output)
    store.clear()
    return {name: float(value) for name, value in vars(state).items()} | {"tokens_per_second": state.tokens / state.seconds}


def _resume(engine: Engine, store: CheckpointStore, progress: Progress) -> TrainingState:
    found = store.latest()
    if found is None:
        return TrainingState()
    folder, state = found
    engine.load(folder)
    progress.note(f"continues after optimizer step {state['steps']}")
    return TrainingState(**state)


def _schedule(config: DistillConfig, count: int) -> list[list[int]]:
    """The indices of the trajectories of each optimizer step, for all epochs; deterministic in the seed."""
    schedule = []
    for epoch in range(config.epochs):
        order = list(range(count))
        random.Random(f"{config.seed}/{epoch}").shuffle(order)
        schedule += [order[start : start + config.batch] for start in range(0, count, config.batch)]
    return schedule


def _factor(number: int, total: int) -> float:
    """Factor of the learning rate at a step: a linear rise, then a linear decay to `FINAL_SHARE` at the last step."""
    warm_up = max(1, round(WARM_UP_SHARE * total))
    if number < warm_up:
        return (number + 1) / warm_up
    return 1 - (1 - FINAL_SHARE) * (number + 1 - warm_up) / max(1, total - warm_up)


def _step(engine: Engine, trajectories: Sequence[Trajectory], chosen: list[int], token_budget: int, learning_rate: float) -> float:
    """Takes one optimizer step; returns its loss in nats per token."""
    counts = action_counts(trajectories)
    denominator = float(sum(counts[index] for index in chosen))
    loss = 0.0
    for batch in rank_share(pack(trajectories, token_budget, chosen, rows=engine.module.takes_rows), engine.rank, engine.ranks):
        logprobs = engine(batch.to(engine.device)).logprobs
        loss += engine.accumulate(objectives.negative_log_likelihood(logprobs, denominator=denominator))
    engine.step(learning_rate)
    return float(engine.all_reduce(torch.tensor(loss)))
