"""What training a pipeline would take, from its parameters and the model's architecture alone: nothing is loaded, nothing is run."""

from dataclasses import dataclass
from pathlib import Path

from apprentice.config import PipelineConfig
from apprentice.errors import ApprenticeError

GIB = 1 << 30
BF16, FP32 = 2, 4
"""Bytes."""


@dataclass(frozen=True)
class Hardware:
    """The machine that is asked about."""

    gpus: int
    memory_gib: float
    """Of one GPU."""
    tflops: float
    """Of one GPU, dense bf16."""
    utilisation: float
    """Share of it that is reached."""


@dataclass(frozen=True)
class Shape:
    """What a model's config.json tells."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    edges: int
    """Inputs and outputs of all linear layers but the last: what an adapter of rank 1 adds."""

    @classmethod
    def of(cls, folder: Path) -> "Shape":
        """Counts the weights exactly, without making them.

        Raises:
            ApprenticeError: no config.json of a causal language model is there.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
        except (OSError, ValueError) as error:
            raise ApprenticeError(
                f"is no model's architecture: {str(error).splitlines()[0]}", where=folder, todo="name a folder with its config.json"
            ) from None
        weights = {id(weight): weight.numel() for weight in model.parameters()}
        edges = sum(layer.in_features + layer.out_features for layer in model.base_model.modules() if isinstance(layer, torch.nn.Linear))
        return cls(sum(weights.values()), config.num_hidden_layers, config.hidden_size, config.intermediate_size, edges)


@dataclass(frozen=True)
class Plan:
    """Memory of one rank, and the work of all of them."""

    memory_gib: dict[str, float]
    """By what it is for; the trainer's and the policy server's, which share the GPUs."""
    episodes_a_step: int
    tokens_a_step: int
    """At most: every episode as long as it may become."""
    optimizer_steps: int
    micro_batches_a_rank: int
    """Of one pass over a step's episodes."""
    tokens: int
    """Of the whole training, at most."""
    hours: float
    """For these tokens; what episodes share is not taken off."""

    @property
    def total_gib(self) -> float:
        return sum(self.memory_gib.values())


def plan(config: PipelineConfig, shape: Shape, hardware: Hardware) -> Plan:
    """The plan of the train stage.

    Memory follows ZeRO (Rajbhandari et al. 2020, section 3): stage 1 shards the optimizer's state, 2 the gradients as well, 3 the weights as well. A policy
    server shards its weights over the same GPUs. Work counts 2 FLOP a weight and token for sampling, for the old log-probabilities and for the reference,
    and 6 for the update, 8 where it computes activations again.
    """
    train, ranks = config.train, hardware.gpus
    episodes = train.tasks_per_step * train.attempts
    tokens = episodes * config.environment.max_tokens
    passes = 2 + 2 + 2 * (train.kl_coefficient > 0) + (8 if train.recompute_activations else 6) * train.epochs
    flop = passes * shape.parameters * tokens * train.steps
    return Plan(
        memory_gib={name: size / GIB for name, size in _bytes(config, shape, ranks).items()},
        episodes_a_step=episodes,
        tokens_a_step=tokens,
        optimizer_steps=train.steps * train.epochs * train.minibatches,
        micro_batches_a_rank=-(-tokens // (max(train.micro_batch_tokens, config.environment.max_tokens) * ranks)),
        tokens=tokens * train.steps,
        hours=flop / (ranks * hardware.tflops * 1e12 * hardware.utilisation) / 3600,
    )


def _bytes(config: PipelineConfig, shape: Shape, ranks: int) -> dict[str, float]:
    train, weights = config.train, shape.parameters
    trained = train.lora_rank * shape.edges or weights
    reference = train.kl_coefficient > 0 and not train.lora_rank
    in_memory = not train.offload_optimizer

    def sharded(stage: int) -> int:
        return ranks if train.zero_stage >= stage else 1

    batch = max(train.micro_batch_tokens, config.environment.max_tokens)
    within, kept = 16 * shape.hidden + 4 * shape.intermediate, shape.hidden
    activations = shape.layers * kept + within if train.recompute_activations else shape.layers * within
    parts = {
        "weights (bf16)": BF16 * weights / sharded(3),
        "gradients (fp32)": FP32 * trained / sharded(2),
        "optimizer (fp32 weights, two moments)": 3 * FP32 * trained / ranks * in_memory,
        "reference (bf16, whole on each rank)": BF16 * weights * reference,
        "activations of a micro-batch (bf16)": BF16 * batch * activations,
        "policy server's weights (bf16)": BF16 * weights / ranks,
        "policy server's keys and values": config.policy.kv_cache_gib * GIB,
    }
    if train.advantage == "gae" and train.critic == "separate":
        parts["critic (weights, gradients, optimizer)"] = (BF16 / sharded(3) + FP32 / sharded(2) + 3 * FP32 / ranks) * weights
    return {name: size for name, size in parts.items() if size}
