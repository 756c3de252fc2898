"""The interface of a policy, which two engines implement: vLLM over HTTP and Transformers in process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample a completion."""

    max_tokens: int
    temperature: float
    """0 selects greedy decoding."""
    seed: int
    stop: tuple[str, ...] = ()
    """Strings that end the completion; it includes the one that ended it."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the completion, besides the model's own; it includes the one that ended it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Tokens that a policy sampled for one prompt."""

    token_ids: tuple[int, ...]
    """Sampled tokens, including the end-of-sequence token if the policy sampled one."""
    logprobs: tuple[float, ...]
    """Log-probability of each token in nats, at the sampling temperature; at temperature 1 if decoding is greedy."""
    finish_reason: Literal["stop", "length"]
    version: int
    """Version of the weights that sampled the tokens."""


class Policy(Protocol):
    """Completes many prompts at once, and takes new weights between them."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Complete the prompt `token_ids`.

        Raises:
            PolicyUnavailable: the engine has ended or does not answer.
        """
        ...

    async def load(self, checkpoint: Path, version: int, changed: Path | None = None) -> None:
        """Replace the weights; every later completion uses the new ones.

        Args:
            checkpoint: folder with safetensors files.
            version: version that later completions report.
            changed: safetensors file with weights that replace those of `checkpoint`. With the same checkpoint, it must
                always contain tensors of the same names.
        """
        ...

    async def sleep(self) -> None:
        """Free the engine's GPU memory if it is configured to sleep; only `load` wakes it for the next `generate`."""
        ...

    async def close(self) -> None:
        """Release the policy's connections and processes."""
        ...
