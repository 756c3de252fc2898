"""Estimate of the seconds of an online step, by phase, from its parameters, the model's shape and the machine's speed.

A forward pass takes 2 FLOP per weight and token, and a backward pass 4 (Kaplan et al. 2020, section 2.1). Attention
takes 4 FLOP per channel and pair of tokens, and 2.5 times that backward (Dao 2023, section 4.1). The time of a phase is
its work divided by the share of the peak that `Efficiency` gives. The estimate does not include the time of tools.
"""

import math
from dataclasses import dataclass

from apprentice.config import PipelineConfig
from apprentice.config.schema import TrainConfig
from apprentice.errors import ApprenticeError
from apprentice.learning.sharing import MIN_SHARED
from apprentice.planning.hardware import GIB, Hardware
from apprentice.planning.shape import Shape

BF16, FP32 = 2, 4
"""Bytes of a number."""
OPTIMIZER_BYTES = 3 * FP32 + FP32 + 3 * FP32 + BF16 + 3 * FP32
"""Bytes per weight that an optimizer step moves.

It reads weight, moments and gradient, writes weight and moments, writes the bf16 weight, and computes the norm of the
gradient and clips it.
"""
ACCUMULATION_BYTES = BF16 + 2 * FP32
"""Bytes per weight that are read and written to add a micro-batch's gradient to the sum."""


@dataclass(frozen=True)
class Episodes:
    """The episodes that a step samples and learns from, all of the same size.

    Raises:
        ApprenticeError: the numbers of tokens contradict each other.
    """

    tasks: int
    attempts: int
    """Episodes of each task."""
    tokens: int
    """Tokens of an episode, including prompt and observations."""
    actions: int
    """Tokens of an episode that the policy samples."""
    shared: int = 0
    """Length of the prefix that the attempts of a task share, in tokens."""

    def __post_init__(self) -> None:
        if not (0 < self.actions <= self.tokens - self.shared and self.shared >= 0 and self.tasks > 0 and self.attempts > 0):
            raise ApprenticeError(f"{self.shared} shared and {self.actions} action tokens do not fit into {self.tokens} tokens", where="episodes")

    @property
    def count(self) -> int:
        """Episodes of a step."""
        return self.tasks * self.attempts

    @property
    def own(self) -> int:
        """Tokens of an episode after the shared prefix."""
        return self.tokens - self.shared

    def members(self, micro_batch_tokens: int) -> int:
        """Return how many attempts of a task the trainer merges into one tree, see `learning/sharing.py`."""
        return min(self.attempts, max(1, (micro_batch_tokens - self.shared) // self.own)) if self.shared >= MIN_SHARED else 1


@dataclass(frozen=True)
class Load:
    """The trainer's work on a step's episodes; a shared prefix counts once in each tree."""

    tokens: int
    actions: int
    pairs: float
    """Pairs of tokens of which one attends to the other."""
    micro_batches: int
    """Micro-batches of an optimizer step on one rank."""
    share: float
    """Share of a step's work on the busiest rank."""

    @classmethod
    def of(cls, train: TrainConfig, episodes: Episodes, ranks: int) -> "Load":
        """Compute the load for these parameters."""
        members = episodes.members(train.micro_batch_tokens)
        trees = episodes.tasks * math.ceil(episodes.attempts / members)
        tokens = trees * episodes.shared + episodes.count * episodes.own
        pairs = trees * episodes.shared**2 / 2 + episodes.count * episodes.own * (episodes.shared + episodes.own / 2)
        in_a_batch = max(1, train.micro_batch_tokens * trees // tokens)
        batches = math.ceil(trees / in_a_batch / min(train.minibatches, episodes.tasks))
        a_rank = math.ceil(batches / ranks)
        return cls(tokens, episodes.count * episodes.actions, pairs, a_rank, a_rank / batches)


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of each phase of one online step."""

    sampling: float
    """Prefill of prompts and observations, and decoding."""
    old: float
    """Forward passes of policy and critic before the update, if the objective needs them."""
    reference: float
    """Forward pass of the reference."""
    update: float
    """Forward and backward passes."""
    optimizer: float
    """Optimizer steps."""
    ranks: float
    """Communication between the trainer's ranks."""
    sync: float
    """Transfer of the weights to the policy server."""

    @property
    def learning(self) -> float:
        """Time of `PpoLearner.update`."""
        return self.old + self.reference + self.update + self.optimizer + self.ranks

    @property
    def total(self) -> float:
        """Sum of all phases; `train.overlap` hides at most the shorter of sampling and learning."""
        return self.sampling + self.learning + self.sync


def step_seconds(config: PipelineConfig, shape: Shape, episodes: Episodes, hardware: Hardware) -> StepSeconds:
    """Estimate a step of `hardware.gpus` ranks, over whose GPUs the policy server shards its weights."""
    train, load = config.train, Load.of(config.train, episodes, hardware.gpus)
    minibatches = min(train.minibatches, episodes.tasks)
    steps = train.epochs * minibatches
    critic = train.advantage == "gae"
    looks_ahead = critic or (train.kl_coefficient > 0 and train.kl_in == "reward")
    models = 2 if critic and train.critic == "separate" else 1

    forward = load.share * _forward(shape, load.tokens, load.actions, load.pairs, hardware)
    backward = load.share * _backward(shape, load, hardware, adapters=train.lora_rank > 0)
    memory = hardware.bandwidth_gbs * 1e9 * hardware.efficiency.memory
    trained = models * trained_weights(train, shape)
    state = min(memory, hardware.host_gbs * 1e9) if train.offload_optimizer else memory
    return StepSeconds(
        sampling=_sampling(config, shape, episodes, load, hardware),
        old=models * forward * (1.0 if looks_ahead else 1 - 1 / minibatches),
        reference=forward * (train.kl_coefficient > 0),
        update=train.epochs * models * (forward * (1 + train.recompute_activations) + backward)
        + steps * load.micro_batches * ACCUMULATION_BYTES * trained / memory,
        optimizer=steps * OPTIMIZER_BYTES * trained / hardware.gpus / state,
        ranks=models * _between_ranks(train, shape, load, steps, looks_ahead, hardware),
        sync=BF16 * shape.parameters / (hardware.efficiency.sync_gbs * 1e9),
    )


def trained_weights(train: TrainConfig, shape: Shape) -> int:
    """Return the number of trained weights of the policy: its adapters, or all of them."""
    return train.lora_rank * shape.edges or shape.parameters


def _forward(shape: Shape, tokens: float, actions: float, pairs: float, hardware: Hardware) -> float:
    """Return the seconds of a forward pass on one GPU, with logits at action tokens only."""
    peak, efficiency = hardware.tflops * 1e12, hardware.efficiency
    linear = 2 * (shape.body * tokens + shape.embeddings * actions)
    return linear / (peak * efficiency.forward) + 4 * shape.layers * shape.width * pairs / (peak * efficiency.attention)


def _backward(shape: Shape, load: Load, hardware: Hardware, adapters: bool) -> float:
    """Return the seconds of a backward pass on one GPU; with adapters, the weights have no gradient."""
    peak, efficiency = hardware.tflops * 1e12, hardware.efficiency
    linear = (2 if adapters else 4) * (shape.body * load.tokens + shape.embeddings * load.actions)
    return linear / (peak * efficiency.backward) + 10 * shape.layers * shape.width * load.pairs / (peak * efficiency.attention)


def _sampling(config: PipelineConfig, shape: Shape, episodes: Episodes, load: Load, hardware: Hardware) -> float:
    """Return the seconds of sampling, with as many episodes at once as the limits and the cache allow.

    Prompts and observations are prefilled, and actions decoded. A decode step takes the longer of its computation and
    of reading weights, keys and values (Pope et al. 2022, section 2), plus fixed time.
    """
    peak, efficiency = hardware.tflops * 1e12 * hardware.gpus, hardware.efficiency
    cached = 2 * BF16 * shape.layers * shape.key_width * (episodes.shared + episodes.tokens) / 2
    room = config.policy.kv_cache_gib * GIB * hardware.gpus / cached
    batch = max(1.0, min(episodes.count, config.environment.concurrency, config.policy.max_sequences, room))
    weights = shape.body + shape.embeddings
    work = 2 * weights * batch / (peak * efficiency.decode)
    read = (BF16 * weights + batch * cached) / (hardware.bandwidth_gbs * 1e9 * hardware.gpus * efficiency.memory)
    step = max(work, read) + efficiency.decode_step_s + batch * efficiency.decode_sequence_s
    context = load.tokens - load.actions
    prefill = _forward(shape, context, 0, load.pairs * context / load.tokens, hardware) / hardware.gpus
    return prefill + episodes.actions * episodes.count / batch * step


def _between_ranks(train: TrainConfig, shape: Shape, load: Load, steps: int, looks_ahead: bool, hardware: Hardware) -> float:
    """Return the seconds of ZeRO's collectives (Rajbhandari et al. 2020, section 7).

    A collective moves (ranks - 1) / ranks of its bytes through the link of each rank. Stage 1 reduces fp32 gradients
    once per optimizer step, and stage 2 reduces bf16 gradients at each micro-batch; both then gather the new bf16
    weights. Stage 3 gathers the weights for each pass of each micro-batch instead.
    """
    trained, passes, layers = trained_weights(train, shape), steps * load.micro_batches, 0
    if train.zero_stage <= 1:
        moved = steps * (2 * FP32 + BF16) * trained
    elif train.zero_stage == 2:
        moved = (passes + steps) * BF16 * trained
    else:
        gathered = 2 * passes + min(train.minibatches, steps) * load.micro_batches * looks_ahead
        moved = passes * BF16 * trained + gathered * BF16 * shape.parameters
        layers = (passes + gathered) * shape.layers
    others = (hardware.gpus - 1) / hardware.gpus
    return moved * others / (hardware.link_gbs * 1e9 * hardware.efficiency.link) + (others > 0) * layers * hardware.efficiency.layer_exchange_s
