"""Memory and time of a pipeline's training, computed from its parameters, the model's architecture and the machine."""

import math
from dataclasses import dataclass

from apprentice.config import PipelineConfig
from apprentice.config.schema import TrainConfig
from apprentice.planning.estimate import BF16, FP32, Episodes, Load, StepSeconds, step_seconds, trained_weights
from apprentice.planning.hardware import GIB, Hardware
from apprentice.planning.shape import Shape

ACTIVATIONS = "activations of a micro-batch (bf16)"
BUCKET, LIVE = 500_000_000, 1_000_000_000
"""Defaults of DeepSpeed's `reduce_bucket_size` and `stage3_max_live_parameters`, in elements."""


@dataclass(frozen=True)
class Plan:
    """Memory of one GPU, and the work and time of the training."""

    memory_gib: dict[str, float]
    """Memory by purpose, at its peak; trainer and policy server share the GPUs."""
    seconds: StepSeconds
    """Time of one online step."""
    optimizer_steps: int
    """Optimizer steps of the whole training."""
    micro_batches_a_rank: int
    """Micro-batches of one optimizer step on one rank."""
    tokens: int
    """Tokens of the whole training."""
    hours: float
    """Time of the whole training."""

    @property
    def total_gib(self) -> float:
        """Peak memory of one GPU."""
        return sum(self.memory_gib.values())


def expected_episodes(config: PipelineConfig, actions: int | None = None, shared: int = 0) -> Episodes:
    """Return a step's episodes, each of the maximal length.

    Args:
        config: limits of an episode, and number of episodes.
        actions: tokens of an episode that the policy samples; None takes as many as its turns allow.
        shared: length of the prefix that the attempts of a task share, in tokens.

    Raises:
        ApprenticeError: `actions` and `shared` exceed the tokens of an episode.
    """
    limits, train = config.environment, config.train
    most = min(limits.max_turns * limits.max_turn_tokens, limits.max_tokens - shared)
    return Episodes(train.tasks_per_step, train.attempts, limits.max_tokens, most if actions is None else actions, shared)


def plan(config: PipelineConfig, shape: Shape, episodes: Episodes, hardware: Hardware) -> Plan:
    """Plan the train stage."""
    train = config.train
    seconds = step_seconds(config, shape, episodes, hardware)
    parts = max(memory_by_phase(config, shape, episodes, hardware.gpus), key=lambda parts: sum(parts.values()))
    return Plan(
        memory_gib={name: size / GIB for name, size in parts.items()},
        seconds=seconds,
        optimizer_steps=train.steps * train.epochs * train.minibatches,
        micro_batches_a_rank=Load.of(train, episodes, hardware.gpus).micro_batches,
        tokens=episodes.count * episodes.tokens * train.steps,
        hours=seconds.total * train.steps / 3600,
    )


def _largest_micro_batch(train: TrainConfig, episodes: Episodes) -> int:
    """Return the tokens of the largest micro-batch: at least one episode, and at most an optimizer step."""
    return max(episodes.tokens, min(train.micro_batch_tokens, optimizer_step_tokens(train, episodes)))


def optimizer_step_tokens(train: TrainConfig, episodes: Episodes) -> int:
    """Return the tokens of an optimizer step on all ranks together."""
    return math.ceil(episodes.count * episodes.tokens / min(train.minibatches, episodes.tasks))


def token_bytes(train: TrainConfig, shape: Shape, episodes: Episodes) -> float:
    """Return the bytes that the backward pass needs for a token of a micro-batch.

    A layer keeps 16 values of the hidden width and 4 of the feed-forward width. With recomputation, it keeps only its
    input, and one layer at a time keeps all values. Action tokens add logits and their gradients.
    """
    layer, layer_input = 16 * shape.hidden + 4 * shape.intermediate, shape.hidden
    activations = shape.layers * layer_input + layer if train.recompute_activations else shape.layers * layer
    return BF16 * activations + 2 * BF16 * shape.vocabulary * episodes.actions / episodes.tokens


def trainer_bytes(train: TrainConfig, shape: Shape, episodes: Episodes, ranks: int) -> dict[str, float]:
    """Return the memory of one rank of the trainer, by purpose.

    ZeRO (Rajbhandari et al. 2020, section 3) shards the optimizer's state in stage 1, also the gradients in stage 2,
    and also the weights in stage 3.
    """

    def shards(stage: int) -> int:
        return ranks if train.zero_stage >= stage else 1

    trained, weights = trained_weights(train, shape), shape.parameters
    reference = train.kl_coefficient > 0 and not train.lora_rank
    parts = {
        "weights (bf16)": BF16 * weights / shards(3),
        "gradients (fp32)": FP32 * trained / shards(2),
        "optimizer (fp32 weights, two moments)": 3 * FP32 * trained / ranks * (not train.offload_optimizer),
        "reference (bf16, replicated on each rank)": BF16 * weights * reference,
        "communication buffers": _communication_bytes(train, shape),
        ACTIVATIONS: _largest_micro_batch(train, episodes) * token_bytes(train, shape, episodes),
    }
    if train.advantage == "gae" and train.critic == "separate":
        parts["critic (weights, gradients, optimizer)"] = (BF16 / shards(3) + FP32 / shards(2) + 3 * FP32 / ranks * (not train.offload_optimizer)) * weights
    return {name: size for name, size in parts.items() if size}


def _communication_bytes(train: TrainConfig, shape: Shape) -> float:
    """Return the bytes of DeepSpeed's gradient bucket and, in stage 3, of the weights that are gathered at a time."""
    bucket = (FP32 if train.zero_stage <= 1 else BF16) * min(BUCKET, trained_weights(train, shape))
    return bucket + BF16 * min(LIVE, shape.parameters) * (train.zero_stage == 3)


def memory_by_phase(config: PipelineConfig, shape: Shape, episodes: Episodes, gpus: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the memory of one GPU by purpose, during an update and during sampling.

    A sleeping policy server takes no memory during an update.
    """
    trainer, server = trainer_bytes(config.train, shape, episodes, gpus), _server_bytes(config, shape, gpus)
    resting = {name: size for name, size in trainer.items() if name != ACTIVATIONS}
    return trainer | ({} if config.policy.sleep else server), resting | server


def _server_bytes(config: PipelineConfig, shape: Shape, gpus: int) -> dict[str, float]:
    """Return the policy server's memory on one GPU; its weights are sharded over all GPUs."""
    return {"policy server's weights (bf16)": BF16 * shape.parameters / gpus, "policy server's keys and values": config.policy.kv_cache_gib * GIB}
