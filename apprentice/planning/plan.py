"""What training a pipeline would take, from its parameters, the model's architecture and the machine's figures: nothing is loaded, nothing is run."""

import math
from dataclasses import dataclass

from apprentice.config import PipelineConfig
from apprentice.config.schema import TrainConfig
from apprentice.planning.estimate import BF16, FP32, Episodes, Load, StepSeconds, step_seconds, trained_weights
from apprentice.planning.hardware import GIB, Hardware
from apprentice.planning.shape import Shape

ACTIVATIONS = "activations of a micro-batch (bf16)"
BUCKET, LIVE = 500_000_000, 1_000_000_000
"""Elements: DeepSpeed's `reduce_bucket_size` and `stage3_max_live_parameters`."""


@dataclass(frozen=True)
class Plan:
    """Memory of one rank, and the work of all of them."""

    memory_gib: dict[str, float]
    """By what it is for, when it is most; the trainer and the policy server share the GPUs."""
    seconds: StepSeconds
    """Of one online step."""
    tokens_a_step: int
    optimizer_steps: int
    micro_batches_a_rank: int
    """Of one optimizer step."""
    tokens: int
    """Of the whole training."""
    hours: float

    @property
    def total_gib(self) -> float:
        return sum(self.memory_gib.values())


def expected_episodes(config: PipelineConfig, actions: int | None = None, shared: int = 0) -> Episodes:
    """A step's episodes, each as long as it may become.

    Args:
        actions: tokens of an episode that the policy samples; None is as many as its turns allow.
        shared: tokens with which the attempts of a task begin alike.

    Raises:
        ApprenticeError: `actions` and `shared` are more than an episode has.
    """
    limits, train = config.environment, config.train
    most = min(limits.max_turns * limits.max_turn_tokens, limits.max_tokens - shared)
    return Episodes(train.tasks_per_step, train.attempts, limits.max_tokens, most if actions is None else actions, shared)


def plan(config: PipelineConfig, shape: Shape, episodes: Episodes, hardware: Hardware) -> Plan:
    """The plan of the train stage."""
    train, tokens = config.train, episodes.count * episodes.tokens
    seconds = step_seconds(config, shape, episodes, hardware)
    parts = max(moments(config, shape, episodes, hardware.gpus), key=lambda parts: sum(parts.values()))
    return Plan(
        memory_gib={name: size / GIB for name, size in parts.items()},
        seconds=seconds,
        tokens_a_step=tokens,
        optimizer_steps=train.steps * train.epochs * train.minibatches,
        micro_batches_a_rank=Load.of(train, episodes, hardware.gpus).micro_batches,
        tokens=tokens * train.steps,
        hours=seconds.total * train.steps / 3600,
    )


def _largest(train: TrainConfig, episodes: Episodes) -> int:
    """Tokens of the largest micro-batch: no more than an optimizer step has, and a longer episode gets one of its own."""
    return max(episodes.tokens, min(train.micro_batch_tokens, optimizer_step_tokens(train, episodes)))


def optimizer_step_tokens(train: TrainConfig, episodes: Episodes) -> int:
    """Of all ranks together."""
    return math.ceil(episodes.count * episodes.tokens / min(train.minibatches, episodes.tasks))


def token_bytes(train: TrainConfig, shape: Shape, episodes: Episodes) -> float:
    """What the backward pass needs of a token of a micro-batch: of each layer 16 values of the hidden width and 4 of the feed-forward's, or of each layer
    its input and of one layer the rest, where they are computed again; logits and their gradients at action tokens."""
    within, kept = 16 * shape.hidden + 4 * shape.intermediate, shape.hidden
    activations = shape.layers * kept + within if train.recompute_activations else shape.layers * within
    return BF16 * activations + 2 * BF16 * shape.vocabulary * episodes.actions / episodes.tokens


def trainer_bytes(train: TrainConfig, shape: Shape, episodes: Episodes, ranks: int) -> dict[str, float]:
    """Memory of one rank of the trainer.

    It follows ZeRO (Rajbhandari et al. 2020, section 3): stage 1 shards the optimizer's state, 2 the gradients as well, 3 the weights as well.
    """

    def sharded(stage: int) -> int:
        return ranks if train.zero_stage >= stage else 1

    trained, weights = trained_weights(train, shape), shape.parameters
    reference = train.kl_coefficient > 0 and not train.lora_rank
    parts = {
        "weights (bf16)": BF16 * weights / sharded(3),
        "gradients (fp32)": FP32 * trained / sharded(2),
        "optimizer (fp32 weights, two moments)": 3 * FP32 * trained / ranks * (not train.offload_optimizer),
        "reference (bf16, whole on each rank)": BF16 * weights * reference,
        "buffers of the exchange between ranks": _exchange_bytes(train, shape),
        ACTIVATIONS: _largest(train, episodes) * token_bytes(train, shape, episodes),
    }
    if train.advantage == "gae" and train.critic == "separate":
        parts["critic (weights, gradients, optimizer)"] = (BF16 / sharded(3) + FP32 / sharded(2) + 3 * FP32 / ranks * (not train.offload_optimizer)) * weights
    return {name: size for name, size in parts.items() if size}


def _exchange_bytes(train: TrainConfig, shape: Shape) -> float:
    """DeepSpeed's bucket of gradients, and under stage 3 the weights that are whole at a time; at its own defaults."""
    bucket = (FP32 if train.zero_stage <= 1 else BF16) * min(BUCKET, trained_weights(train, shape))
    return bucket + BF16 * min(LIVE, shape.parameters) * (train.zero_stage == 3)


def moments(config: PipelineConfig, shape: Shape, episodes: Episodes, gpus: int) -> tuple[dict[str, float], dict[str, float]]:
    """Memory of one GPU, by what it is for: in an update, and while episodes are played. A policy server that sleeps takes none in an update."""
    trainer, server = trainer_bytes(config.train, shape, episodes, gpus), _server_bytes(config, shape, gpus)
    resting = {name: size for name, size in trainer.items() if name != ACTIVATIONS}
    return trainer | ({} if config.policy.sleep else server), resting | server


def _server_bytes(config: PipelineConfig, shape: Shape, gpus: int) -> dict[str, float]:
    """Memory of one GPU that the policy server takes, which spreads its weights over all of them."""
    return {"policy server's weights (bf16)": BF16 * shape.parameters / gpus, "policy server's keys and values": config.policy.kv_cache_gib * GIB}
