"""The models of actor, critic and reference.

Difference from the usual shared critic: the value head reads the trunk's features, but its gradient does not reach the
trunk. A sparse reward at the end of a short episode gives a noisy value gradient, which would disturb a small language
model. It also allows the critic to be warmed up without a change of the policy. `critic: separate` trains a trunk of
its own instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from apprentice.errors import ApprenticeError
from apprentice.learning.fidelity import choose_attention
from apprentice.learning.forward import logits_and_features, takes_rows, trunk_features
from apprentice.learning.packing import PackedBatch
from apprentice.policy.loading import load_causal_model

CHUNK_TOKENS = {"cpu": 32, "cuda": 1024}
"""Action tokens whose fp32 distribution exists at the same time; on a CPU, few enough to stay in the cache."""


@dataclass(frozen=True)
class Scores:
    """The actor's output for the A action tokens of a micro-batch."""

    logprobs: Tensor
    """[A] fp32, at the sampling temperature."""
    entropy: Tensor | None
    """[A] fp32, in nats; None if it was not requested."""
    features: Tensor
    """[A, hidden] trunk features before each action token, detached."""


class Actor(nn.Module):
    """A causal language model that scores the action tokens of packed trajectories."""

    def __init__(self, language_model: nn.Module):
        super().__init__()
        self.language_model = language_model

    @property
    def takes_rows(self) -> bool:
        """The `rows` argument that `pack` needs for this model."""
        return takes_rows(self.language_model)

    def forward(self, batch: PackedBatch, temperature: float = 1.0, with_entropy: bool = False) -> Scores:
        """Scores the action tokens; logits are computed only at positions that predict one."""
        logits, hidden = logits_and_features(self.language_model, batch)
        logprobs, entropy = token_scores(logits, batch.targets, temperature, with_entropy)
        return Scores(logprobs, entropy, hidden.detach())


class ValueHead(nn.Module):
    """A linear map from normalised features to the expected return, initialised to 0."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.linear = nn.Linear(hidden, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[A, hidden] -> [A] fp32."""
        return self.linear(self.norm(features.to(self.linear.weight.dtype)))[:, 0].float()


class SeparateCritic(nn.Module):
    """A critic with its own trunk and value head."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk
        self.head = ValueHead(trunk.config.get_text_config().hidden_size)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Values [A] fp32 before each action token."""
        return self.head(trunk_features(self.trunk, batch))


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters of every linear layer: W + alpha / rank B A with W frozen (LoRA, Hu et al. 2021)."""

    rank: int
    alpha: float
    seed: int
    """Seed of the initial A; B is initialised to 0."""


def load_language_model(checkpoint: Path, dtype: torch.dtype, *, recompute: bool = False, adapters: Adapters | None = None) -> nn.Module:
    """Loads a causal language model for training, without dropout.

    It scores packed sequences as plain Transformers scores each of them on its own (see `choose_attention`).

    Args:
        checkpoint: folder of the model.
        dtype: type of the weights.
        recompute: recomputes the activations within a layer in the backward pass instead of saving them.
        adapters: the adapters to train; None trains every weight.

    Raises:
        ApprenticeError: the folder holds no model, tensors are missing or unexpected, or its architecture cannot be
            trained.
    """
    if not (checkpoint / "config.json").is_file():
        raise ApprenticeError("the folder holds no model: config.json is missing", where=checkpoint, todo="run the stage that writes it: `dvc repro`")
    model = load_causal_model(checkpoint, dtype, attention="eager")
    model.config.use_cache = False
    choose_attention(model, checkpoint)
    _drop_nothing(model)
    if adapters is not None:
        _adapt(model, adapters)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # the layers only recompute in training mode
    return model


def _drop_nothing(model: nn.Module) -> None:
    """Disables dropout, so that the trained policy is the one that was sampled."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _adapt(model: nn.Module, adapters: Adapters) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(adapters.seed)
        inject_adapter_in_model(LoraConfig(r=adapters.rank, lora_alpha=adapters.alpha, target_modules="all-linear", task_type="CAUSAL_LM"), model)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """A context in which the adapters are disabled, so that the model equals the starting policy."""
    layers = _adapted(model)
    for layer in layers:
        layer._disable_adapters = True  # peft's own switch also stops their training
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def merged_weights(model: nn.Module, *, trained: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the weights with all adapters merged; tied weights occur once.

    Args:
        model: a Transformers causal language model.
        trained: yields only the weights that training changes: with adapters, those of the adapted layers.
    """
    layers = {id(layer.base_layer.weight): layer for layer in _adapted(model)}
    seen = set()
    for name, weight in model.state_dict(keep_vars=True).items():
        layer = layers.get(id(weight))
        if ".lora_" in name or weight.data_ptr() in seen or (trained and layers and layer is None):
            continue
        seen.add(weight.data_ptr())
        yield name.replace(".base_layer.", "."), weight.detach() if layer is None else weight.detach().float() + _delta(layer)


def _adapted(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")]


@torch.no_grad()
def _delta(layer: nn.Module) -> Tensor:
    (name,) = layer.lora_A
    return layer.scaling[name] * (layer.lora_B[name].weight.float() @ layer.lora_A[name].weight.float())


def load_reference(checkpoint: Path, dtype: torch.dtype) -> Actor:
    """Loads the frozen reference of the KL penalty."""
    return Actor(load_language_model(checkpoint, dtype)).eval().requires_grad_(False)


def token_scores(logits: Tensor, targets: Tensor, temperature: float, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of `targets` under softmax(logits / temperature), and the entropy of that distribution.

    Args:
        logits: [A, vocabulary], in the model's type. The backward pass, of which there may be only one, overwrites
            them.
        targets: [A] token ids.
        temperature: divides the logits.
        with_entropy: whether to compute the entropy.

    Returns:
        [A] fp32 and [A] fp32 or None, in nats.
    """
    logprobs, entropy = _TokenScores.apply(logits, targets, temperature, with_entropy)
    return logprobs, entropy if with_entropy else None


class _TokenScores(torch.autograd.Function):
    """Holds fp32 values over the vocabulary for one chunk of tokens at a time and overwrites logits by their gradient.

    With p = softmax(z): d log p_y / dz = onehot(y) - p and dH / dz = -p (log p + H).
    """

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, temperature: float, with_entropy: bool):
        logprobs, entropy, normalizer = torch.zeros(3, len(logits), device=logits.device).unbind(0)
        for part in _chunks(logits):
            scaled = logits[part].to(torch.float32, copy=True).div_(temperature)
            top = scaled.amax(-1, keepdim=True)
            weights = scaled.sub_(top).exp()
            total = weights.sum(-1)
            normalizer[part] = top[:, 0] + total.log()
            logprobs[part] = scaled.gather(1, targets[part, None])[:, 0] - total.log()
            if with_entropy:
                entropy[part] = total.log() - weights.mul_(scaled).sum(-1) / total
        ctx.save_for_backward(logits, targets, normalizer, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, grad_logprobs: Tensor, grad_entropy: Tensor):
        logits, targets, normalizer, entropy = ctx.saved_tensors
        grad_logprobs = torch.zeros_like(normalizer) if grad_logprobs is None else grad_logprobs
        for part in _chunks(logits):
            log_probabilities = logits[part].to(torch.float32, copy=True).div_(ctx.temperature).sub_(normalizer[part, None])
            slope = -grad_logprobs[part, None] / ctx.temperature
            if grad_entropy is not None:
                slope = slope - grad_entropy[part, None] / ctx.temperature * (log_probabilities + entropy[part, None])
            grad_logits = log_probabilities.exp_().mul_(slope)
            logits[part] = grad_logits.scatter_add_(1, targets[part, None], grad_logprobs[part, None] / ctx.temperature)
        return logits.detach(), None, None, None


def _chunks(logits: Tensor) -> list[slice]:
    size = CHUNK_TOKENS[logits.device.type]
    return [slice(start, start + size) for start in range(0, len(logits), size)]
