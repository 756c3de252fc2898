"""Advice on the parameters with which a training fits a machine's memory and takes the least time."""

from dataclasses import replace
from itertools import product

from apprentice.config import PipelineConfig
from apprentice.config.schema import TrainConfig
from apprentice.planning.estimate import Episodes, step_seconds
from apprentice.planning.hardware import GIB, Hardware
from apprentice.planning.plan import memory_by_phase, optimizer_step_tokens, token_bytes
from apprentice.planning.shape import Shape

KNOBS = ("zero_stage", "recompute_activations", "offload_optimizer", "micro_batch_tokens")
"""Parameters of the `train` section that the advice sets."""
STAGES = (1, 2, 3)
"""Stages of ZeRO to choose from; stage 0 runs as stage 1."""
ROUND_TOKENS = 256
"""The advised tokens of a micro-batch are a multiple of this, unless one episode is longer."""
MOST_GPUS = 1024


def advise(config: PipelineConfig, shape: Shape, episodes: Episodes, hardware: Hardware) -> TrainConfig | None:
    """Find the `train` section that fits the memory and has the fastest step.

    It tries each combination of recomputation and offloading, with the smallest ZeRO stage that fits, and the largest
    micro-batch that fits and still leaves one for each rank.

    Returns:
        The best candidate; None if nothing fits.
    """
    fitting = []
    for recompute, offload in product((False, True), (False, True)):
        for stage in STAGES:
            changes = {"zero_stage": stage, "recompute_activations": recompute, "offload_optimizer": offload}
            train = _filled(config, config.train.model_copy(update=changes), shape, episodes, hardware)
            if train is not None:
                fitting.append(train)
                break
    return min(fitting, key=lambda train: step_seconds(config.model_copy(update={"train": train}), shape, episodes, hardware).total, default=None)


def enough_gpus(config: PipelineConfig, shape: Shape, episodes: Episodes, hardware: Hardware) -> int | None:
    """Return the smallest power of two of these GPUs on which the training fits; None if MOST_GPUS are too few."""
    powers = (1 << power for power in range(MOST_GPUS.bit_length()))
    return next((gpus for gpus in powers if advise(config, shape, episodes, replace(hardware, gpus=gpus))), None)


def _filled(config: PipelineConfig, train: TrainConfig, shape: Shape, episodes: Episodes, hardware: Hardware) -> TrainConfig | None:
    """Return `train` with the largest useful micro-batch that fits; None if not even one episode fits."""
    one = train.model_copy(update={"micro_batch_tokens": episodes.tokens})
    updating, playing = (sum(parts.values()) for parts in memory_by_phase(config.model_copy(update={"train": one}), shape, episodes, hardware.gpus))
    free = hardware.memory_gib * GIB - updating
    if free < 0 or playing > hardware.memory_gib * GIB:
        return None
    most = episodes.tokens + int(free / token_bytes(train, shape, episodes))
    useful = -(-optimizer_step_tokens(train, episodes) // hardware.gpus)
    return train.model_copy(update={"micro_batch_tokens": max(episodes.tokens, min(most, useful) // ROUND_TOKENS * ROUND_TOKENS)})
