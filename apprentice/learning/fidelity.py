"""Chooses the attention that a language model trains with, and verifies its scores against plain Transformers."""

import inspect
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from apprentice.errors import ApprenticeError
from apprentice.learning import attention
from apprentice.learning.forward import logits_and_features, takes_rows
from apprentice.learning.packing import action_positions, pack
from apprentice.records import Trajectory

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest mean difference of a sequence in nats per token. In bf16, rounding causes up to 0.05, a missing window 0.25
or more."""
AFFORDABLE_S = 10.0
"""Time limit for comparing a sequence longer than the sliding window, whose duration is estimated from short ones."""
SINGLE, BRANCH, SHARED, BEYOND_WINDOW, SCORED = 12, 20, 16, 16, 8
"""Tokens of a sequence without a common prefix, of each of two sequences with one, of that prefix, beyond a window, and
scored per sequence."""
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""Layer types that packed attention covers; other layers would take a row of trees for a single sequence."""


def choose_attention(language_model: nn.Module, where: Path) -> None:
    """Sets the fastest attention that scores packed sequences as plain Transformers scores each of them on its own.

    This is packed attention where it covers the model's layers, else Transformers' own. The baseline is Transformers'
    `eager` attention.

    Args:
        language_model: a Transformers causal language model, on a CPU, in evaluation mode.
        where: folder of the model, for error messages.

    Raises:
        ApprenticeError: no attention gives the same scores, or the model is not causal.
    """
    name = type(language_model).__name__
    _set(language_model, "eager")
    sample, expected = _sample_and_scores(language_model)
    if not _is_causal(expected, language_model):
        raise ApprenticeError(f"{name} is not a causal language model: a token's probability depends on later tokens", where=where, todo="choose another model")
    errors = {}
    for implementation in _candidates(language_model):
        _set(language_model, implementation)
        try:
            errors[implementation] = _difference(_scores(language_model, sample), expected)
        except attention.Unsupported:
            continue
        if errors[implementation] <= TOLERANCES[language_model.dtype]:
            return
    measured = ", ".join(f"{implementation} {error:.3f}" for implementation, error in errors.items())
    raise ApprenticeError(
        f"{name} cannot be trained: its log-probabilities of packed sequences differ from those of each sequence on its own (nats per token: {measured})",
        where=where,
        todo="choose a model of another architecture",
    )


def _candidates(model: nn.Module) -> list[str]:
    """The implementations to try, fastest first. `sdpa` ignores soft-caps and sinks, which the comparison reveals."""
    layers = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    passes_arguments = any(each.kind is each.VAR_KEYWORD for each in inspect.signature(model.forward).parameters.values())
    if passes_arguments and layers <= KNOWN_LAYERS:
        return [attention.NAME, "eager"]
    return ["sdpa", "eager"] if model._supports_sdpa else ["eager"]


def _set(model: nn.Module, implementation: str) -> None:
    attention.register()
    model.set_attn_implementation(implementation)


def _scores(language_model: nn.Module, sample: list[Trajectory]) -> Tensor:
    """Log-probabilities [A] of packed sequences, as training computes them."""
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


def _difference(scores: Tensor, expected: Tensor) -> float:
    """The largest mean difference of a sequence; NaN stays NaN."""
    return float((scores - expected).abs().view(-1, SCORED).mean(1).max())


def _is_causal(scores: Tensor, model: nn.Module) -> bool:
    """Whether the first two sequences of the sample have the same scores in their common prefix."""
    one, other = scores[: 2 * SCORED].split(SCORED)
    shared = SCORED - (BRANCH - SHARED)
    return float((one[:shared] - other[:shared]).abs().mean()) <= TOLERANCES[model.dtype]


def _sample_and_scores(model: nn.Module) -> tuple[list[Trajectory], Tensor]:
    """Sequences of random tokens and their scores by plain Transformers: two with a common prefix, one without, and one
    longer than the model's sliding window if that takes at most AFFORDABLE_S."""
    rng = random.Random(0)
    vocabulary = model.get_input_embeddings().num_embeddings // 2  # the last tokens may stand for images

    def tokens(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    shared = tokens(SHARED)
    sample = [_trajectory(number, ids) for number, ids in enumerate([shared + tokens(BRANCH - SHARED), shared + tokens(BRANCH - SHARED), tokens(SINGLE)])]
    began = time.perf_counter()
    scores = _plain_scores(model, sample)
    seconds_per_token = (time.perf_counter() - began) / (2 * BRANCH + SINGLE)
    longer = (getattr(model.config.get_text_config(), "sliding_window", None) or 0) + BEYOND_WINDOW
    if longer > BEYOND_WINDOW and 2 * longer * seconds_per_token <= AFFORDABLE_S:
        beyond = _trajectory(len(sample), tokens(longer))
        return [*sample, beyond], torch.cat([scores, _plain_scores(model, [beyond])])
    return sample, scores


def _trajectory(number: int, ids: list[int]) -> Trajectory:
    mask = tuple(int(place >= len(ids) - SCORED) for place in range(len(ids)))
    return Trajectory(str(number), "", "", tuple(ids), mask, (0.0,) * len(ids), (), 0.0, "success", "", 0, 1.0)
