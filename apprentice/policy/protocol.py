"""The contract of a policy: two engines keep it, vLLM over HTTP and Transformers in process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a completion is drawn."""

    max_tokens: int
    temperature: float
    """0 is greedy."""
    seed: int
    stop: tuple[str, ...] = ()
    """The completion ends with the first of these strings it contains, that string included."""
    stop_token_ids: tuple[int, ...] = ()
    """The completion ends with the first of these tokens, that token included, besides the model's own end-of-sequence tokens."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy sampled."""

    token_ids: tuple[int, ...]
    """Includes the end-of-sequence token where the policy sampled one."""
    logprobs: tuple[float, ...]
    """One a token, in nats, under the distribution it was drawn from (the temperature applied; untempered where greedy)."""
    finish_reason: Literal["stop", "length"]
    version: int
    """Version of the weights that sampled it."""


class Policy(Protocol):
    """Answers prompts, many at once; takes new weights between them."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Continues `token_ids`.

        Raises:
            PolicyUnavailable: the engine is gone or does not answer.
        """
        ...

    async def load(self, checkpoint: Path, version: int, changed: Path | None = None) -> None:
        """Replaces the weights by those of a checkpoint folder (safetensors). No completion after it uses older ones.

        Args:
            changed: a safetensors file with weights that take the place of the checkpoint's; of the same names whenever it comes with the same checkpoint.
        """
        ...

    async def sleep(self) -> None:
        """Frees the memory that the engine holds on GPUs, where it is meant to; the next `load` wakes it. Nothing is to be generated until then."""
        ...

    async def close(self) -> None:
        """Lets go of connections and processes of its own."""
        ...
