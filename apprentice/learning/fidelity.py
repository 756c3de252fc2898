"""Choose the attention that a language model trains with, and hold its scores against those of plain Transformers."""

import inspect
import random
from pathlib import Path

import torch
from torch import Tensor, nn

from apprentice.errors import ApprenticeError
from apprentice.learning import attention
from apprentice.learning.forward import logits_and_features, takes_rows
from apprentice.learning.packing import action_positions, pack
from apprentice.records import Trajectory

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Nats a token, on average, by which two ways of computing may differ; in bf16, rounding alone gives up to 0.05, a missing window or scale 0.25 or more."""
SPENT = 1e12
"""Floating-point operations that sequences longer than a sliding window may cost; a few seconds on two cores."""
LONG, SHORT, SHARED, BEYOND, SCORED = 40, 28, 20, 24, 12
"""Tokens of the compared sequences, of what two of them share, of one past a window, and of those that are scored."""
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers in a config's `layer_types` that packed attention covers; others see a row of trees as one sequence."""


def choose_attention(language_model: nn.Module, where: Path) -> None:
    """Set the fastest attention with which the model scores packed sequences as plain Transformers scores each alone.

    That is packed attention where it covers the model's layers, else Transformers' own. Everything is compared with Transformers' `eager`.

    Args:
        language_model: a Transformers causal language model, on a CPU, in evaluation mode.
        where: its folder, for errors.

    Raises:
        ApprenticeError: none gives the same scores, or the model's tokens see later ones.
    """
    name, sample = type(language_model).__name__, _sample(language_model)
    _set(language_model, "eager")
    expected = _plain_scores(language_model, sample)
    if not _is_causal(expected, language_model):
        raise ApprenticeError(f"{name} is no causal language model: a token's probability depends on later ones", where=where, todo="choose another model")
    errors = {}
    for implementation in _candidates(language_model):
        _set(language_model, implementation)
        try:
            errors[implementation] = float((_scores(language_model, sample) - expected).abs().mean())
        except attention.Unsupported:
            continue
        if errors[implementation] <= TOLERANCES[language_model.dtype]:
            return
    measured = ", ".join(f"{implementation} {error:.3f}" for implementation, error in errors.items())
    raise ApprenticeError(
        f"{name} cannot be trained: its log-probabilities of several sequences at once differ from those of each alone (nats a token: {measured})",
        where=where,
        todo="choose a model of another architecture",
    )


def _candidates(model: nn.Module) -> list[str]:
    """Fastest first. PyTorch's own kernels (`sdpa`) ignore soft-caps and sinks, which packed attention refuses."""
    layers = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    handed_on = any(each.kind is each.VAR_KEYWORD for each in inspect.signature(model.forward).parameters.values())
    if handed_on and layers <= KNOWN_LAYERS:
        return [attention.NAME, "eager"]
    return ["sdpa", "eager"] if model._supports_sdpa else ["eager"]


def _set(model: nn.Module, implementation: str) -> None:
    attention.register()
    model.set_attn_implementation(implementation)


def _scores(language_model: nn.Module, sample: list[Trajectory]) -> Tensor:
    """Log-probabilities [A] as training computes them."""
    found = torch.zeros(sum(map(len, map(action_positions, sample))))
    with torch.no_grad():
        for batch in pack(sample, 10**9, rows=takes_rows(language_model)):
            logits, _ = logits_and_features(language_model, batch)
            found[batch.actions] = logits.float().log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
    return found


def _plain_scores(language_model: nn.Module, sample: list[Trajectory]) -> Tensor:
    """Log-probabilities [A] of one sequence at a time."""
    found = []
    with torch.no_grad():
        for trajectory in sample:
            ids, predicted = torch.tensor([trajectory.token_ids]), torch.tensor(action_positions(trajectory))
            logits = language_model(input_ids=ids, use_cache=False).logits[0, predicted - 1]
            found.append(logits.float().log_softmax(-1).gather(1, ids[0, predicted, None])[:, 0])
    return torch.cat(found)


def _is_causal(scores: Tensor, model: nn.Module) -> bool:
    """Whether the second and the third sequence of the sample say the same of what they share."""
    _, one, other = scores.split(SCORED)
    alike = SCORED - (SHORT - SHARED)
    return float((one[:alike] - other[:alike]).abs().mean()) <= TOLERANCES[model.dtype]


def _sample(model: nn.Module) -> list[Trajectory]:
    """Three sequences of random tokens: one longer than the model's sliding window, where that is affordable, and two that share their beginning."""
    draw, vocabulary = random.Random(0), model.get_input_embeddings().num_embeddings // 2  # images and other oddities have the last tokens
    tokens = [draw.randrange(vocabulary) for _ in range(_longest(model))]
    shared = [draw.randrange(vocabulary) for _ in range(SHARED)]
    others = [shared + [draw.randrange(vocabulary) for _ in range(SHORT - SHARED)] for _ in range(2)]
    return [_trajectory(number, ids) for number, ids in enumerate([tokens, *others])]


def _longest(model: nn.Module) -> int:
    window = getattr(model.config.get_text_config(), "sliding_window", None) or 0
    cost = 2 * 2 * model.num_parameters() * (window + BEYOND)
    return max(LONG, window + BEYOND) if cost <= SPENT else LONG


def _trajectory(number: int, ids: list[int]) -> Trajectory:
    mask = tuple(int(place >= len(ids) - SCORED) for place in range(len(ids)))
    return Trajectory(str(number), "", "", tuple(ids), mask, (0.0,) * len(ids), (), 0.0, "success", "", 0, 1.0)
