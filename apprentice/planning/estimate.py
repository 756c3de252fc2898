"""Seconds of an online step, by phase, from its parameters, the model's shape and the machine's figures.

Work is 2 FLOP a weight and token forward and 4 backward (Kaplan et al. 2020, section 2.1), 4 FLOP a channel and pair of tokens for attention and 2.5 times
that backward (Dao 2023, section 4.1); a phase takes its work over the share of the peak that `Efficiency` says it reaches. What tools take is not in it.
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
"""Bytes."""
OPTIMIZER_BYTES = 3 * FP32 + FP32 + 3 * FP32 + BF16 + 3 * FP32
"""Read and written a weight by a step: weight, moments and gradient; weight and moments; the bf16 weight; norm and clipping of the gradient."""
ACCUMULATION_BYTES = BF16 + 2 * FP32
"""Read and written a weight when a micro-batch's gradient is added to the sum."""


@dataclass(frozen=True)
class Episodes:
    """What a step samples and learns from: episodes that are all alike.

    Raises:
        ApprenticeError: their tokens do not add up.
    """

    tasks: int
    attempts: int
    """Of each task."""
    tokens: int
    """Of an episode, prompt and observations included."""
    actions: int
    """Of these, sampled by the policy."""
    shared: int = 0
    """Tokens with which the attempts of a task begin alike."""

    def __post_init__(self) -> None:
        if not (0 < self.actions <= self.tokens - self.shared and self.shared >= 0 and self.tasks > 0 and self.attempts > 0):
            raise ApprenticeError(f"{self.shared} shared tokens and {self.actions} action tokens are no part of {self.tokens}", where="episodes")

    @property
    def count(self) -> int:
        return self.tasks * self.attempts

    @property
    def own(self) -> int:
        """Tokens of an episode that no other has."""
        return self.tokens - self.shared

    def members(self, micro_batch_tokens: int) -> int:
        """Attempts of a task that the trainer merges into one tree, see `learning/sharing.py`."""
        return min(self.attempts, max(1, (micro_batch_tokens - self.shared) // self.own)) if self.shared >= MIN_SHARED else 1


@dataclass(frozen=True)
class Load:
    """What the trainer computes of a step's episodes, what they share once."""

    tokens: int
    actions: int
    pairs: float
    """Of tokens one of which attends to the other."""
    micro_batches: int
    """Of an optimizer step and rank."""
    share: float
    """Of a step's work that falls to the busiest rank."""

    @classmethod
    def of(cls, train: TrainConfig, episodes: Episodes, ranks: int) -> "Load":
        """The load under these parameters."""
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
    """Of one online step."""

    sampling: float
    """Prompts and observations, and token after token."""
    old: float
    """What the policy and its critic say before the update, where that has to be known."""
    reference: float
    update: float
    """Forward and backward."""
    optimizer: float
    ranks: float
    """What the ranks of the trainer tell each other."""
    sync: float
    """Weights to the policy server."""

    @property
    def learning(self) -> float:
        """`PpoLearner.update`."""
        return self.old + self.reference + self.update + self.optimizer + self.ranks

    @property
    def total(self) -> float:
        """One phase after the other; `train.overlap` hides at most the shorter of sampling and learning."""
        return self.sampling + self.learning + self.sync


def step_seconds(config: PipelineConfig, shape: Shape, episodes: Episodes, hardware: Hardware) -> StepSeconds:
    """Seconds of a step; `hardware.gpus` ranks train, and the policy server's weights are spread over the same GPUs."""
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
    """Of the policy: its adapters, or all."""
    return train.lora_rank * shape.edges or shape.parameters


def _forward(shape: Shape, tokens: float, actions: float, pairs: float, hardware: Hardware) -> float:
    """Seconds of a forward pass on one GPU; logits at action tokens only."""
    peak, efficiency = hardware.tflops * 1e12, hardware.efficiency
    linear = 2 * (shape.body * tokens + shape.embeddings * actions)
    return linear / (peak * efficiency.forward) + 4 * shape.layers * shape.width * pairs / (peak * efficiency.attention)


def _backward(shape: Shape, load: Load, hardware: Hardware, adapters: bool) -> float:
    """Seconds of a backward pass on one GPU; where adapters are trained, weights get no gradient."""
    peak, efficiency = hardware.tflops * 1e12, hardware.efficiency
    linear = (2 if adapters else 4) * (shape.body * load.tokens + shape.embeddings * load.actions)
    return linear / (peak * efficiency.backward) + 10 * shape.layers * shape.width * load.pairs / (peak * efficiency.attention)


def _sampling(config: PipelineConfig, shape: Shape, episodes: Episodes, load: Load, hardware: Hardware) -> float:
    """Prompts and observations in a pass, actions token after token, as many episodes at a time as the limits and the cache allow.

    A decode step takes the longer of its work and of reading weights, keys and values (Pope et al. 2022, section 2), besides what is fixed.
    """
    peak, efficiency = hardware.tflops * 1e12 * hardware.gpus, hardware.efficiency
    kept = 2 * BF16 * shape.layers * shape.key_width * (episodes.shared + episodes.tokens) / 2
    room = config.policy.kv_cache_gib * GIB * hardware.gpus / kept
    batch = max(1.0, min(episodes.count, config.environment.concurrency, config.policy.max_sequences, room))
    weights = shape.body + shape.embeddings
    work = 2 * weights * batch / (peak * efficiency.decode)
    read = (BF16 * weights + batch * kept) / (hardware.bandwidth_gbs * 1e9 * hardware.gpus * efficiency.memory)
    step = max(work, read) + efficiency.decode_step_s + batch * efficiency.decode_sequence_s
    given = load.tokens - load.actions
    prefill = _forward(shape, given, 0, load.pairs * given / load.tokens, hardware) / hardware.gpus
    return prefill + episodes.actions * episodes.count / batch * step


def _between_ranks(train: TrainConfig, shape: Shape, load: Load, steps: int, looks_ahead: bool, hardware: Hardware) -> float:
    """Seconds of ZeRO's collectives (Rajbhandari et al. 2020, section 7), each of which moves (ranks - 1) / ranks of its bytes through a rank's link.

    Stage 1 adds fp32 gradients up over the ranks once an optimizer step, stage 2 bf16 gradients at each micro-batch; both then gather the new bf16 weights.
    Stage 3 gathers the weights for every pass of every micro-batch instead.
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
