"""A policy in process: Transformers with its own sampling loop, for tests and for machines without vLLM."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from apprentice.errors import ApprenticeError
from apprentice.policy.loading import load_causal_model
from apprentice.policy.protocol import Completion, Sampling

SETTLE_ITERATIONS = 4
"""Iterations of the event loop without a new request after which the waiting requests are answered."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(eq=False)
class _Request:
    prompt: tuple[int, ...]
    sampling: Sampling
    answer: asyncio.Future


@dataclass(eq=False)
class _Sequence:
    """A completion that is being sampled."""

    sampling: Sampling
    generator: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] | None = None


class TransformersPolicy:
    """A checkpoint as a policy (protocol `Policy`).

    Requests that wait at the same time are batched in the order of their arrival, and a batch blocks the event loop
    until it is complete. The same requests therefore give the same completions, bit for bit. Each request has its own
    random generator with its own seed.

    Args:
        checkpoint: folder with safetensors and tokenizer.
        max_sequences: completions in one batch, at most.
        dtype: None takes fp32 on a CPU and bf16 on a GPU.
        device: None takes a GPU if there is one.
        version: version of the checkpoint's weights.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        max_sequences: int,
        dtype: Literal["bf16", "fp32"] | None = None,
        device: str | None = None,
        version: int = 0,
    ):
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._dtype = DTYPES[dtype or ("fp32" if self._device.type == "cpu" else "bf16")]
        self._max_sequences = max_sequences
        self._waiting: list[_Request] = []
        self._read(checkpoint, version)
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False, local_files_only=True)

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Complete the prompt `token_ids` (see `Policy.generate`)."""
        loop = asyncio.get_running_loop()
        request = _Request(tuple(token_ids), sampling, loop.create_future())
        self._waiting.append(request)
        if len(self._waiting) == 1:
            loop.call_soon(self._settle, loop, 1, 0)
        return await request.answer

    async def load(self, checkpoint: Path, version: int, changed: Path | None = None) -> None:
        """Replace the weights (see `Policy.load`)."""
        if changed is None or checkpoint != self._checkpoint:
            self._read(checkpoint, version)
        unknown = self._model.load_state_dict(load_file(changed), strict=False).unexpected_keys if changed else []
        if unknown:
            raise ApprenticeError(f"contains weights that the model does not have: {', '.join(unknown[:3])}", where=changed)
        self.version = version

    async def sleep(self) -> None:
        """Do nothing: this engine keeps its weights in memory."""

    async def close(self) -> None:
        """Release the model."""
        self._model = None

    def _read(self, checkpoint: Path, version: int) -> None:
        if not any(checkpoint.glob("*.safetensors")):
            raise ApprenticeError("contains no weights (*.safetensors)", where=checkpoint)
        model = load_causal_model(checkpoint, self._dtype)
        self._model, self._checkpoint, self.version = model.to(self._device).eval(), checkpoint, version
        ends = model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])

    def _settle(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int) -> None:
        quiet = quiet + 1 if len(self._waiting) == seen else 0
        if quiet < SETTLE_ITERATIONS:
            loop.call_soon(self._settle, loop, len(self._waiting), quiet)
            return
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), self._max_sequences):
            self._answer([request for request in waiting[start : start + self._max_sequences] if not request.answer.done()])

    def _answer(self, batch: list[_Request]) -> None:
        """Answer a batch of requests, also with an exception: raised in the event loop, it would leave them waiting."""
        try:
            completions = self._complete(batch) if batch else []
        except Exception as error:
            for request in batch:
                request.answer.set_exception(error)
            return
        for request, completion in zip(batch, completions, strict=True):
            request.answer.set_result(completion)

    @torch.inference_mode()
    def _complete(self, batch: list[_Request]) -> list[Completion]:
        sequences = [_Sequence(request.sampling, torch.Generator().manual_seed(request.sampling.seed)) for request in batch]
        ids, mask = self._left_padded([request.prompt for request in batch])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = None
        while True:
            out = self._model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            self._extend(sequences, out.logits[:, -1])
            if all(sequence.finish_reason for sequence in sequences):
                return [Completion(tuple(s.token_ids), tuple(s.logprobs), s.finish_reason, self.version) for s in sequences]
            ids = torch.tensor([[sequence.token_ids[-1]] for sequence in sequences], device=self._device)
            mask = torch.cat([mask, mask.new_ones(len(sequences), 1)], dim=1)
            positions = positions[:, -1:] + 1

    def _left_padded(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and mask, both of shape (prompts, longest prompt)."""
        width = max(map(len, prompts))
        ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)

    def _extend(self, sequences: list[_Sequence], logits: torch.Tensor) -> None:
        """Sample one token for each unfinished sequence.

        Sampling inverts the cumulative distribution at a number from the sequence's own generator, so a token does not
        depend on other sequences.

        Args:
            sequences: the batch.
            logits: shape (sequences, vocabulary).
        """
        greedy = torch.tensor([[sequence.sampling.temperature == 0.0] for sequence in sequences], device=self._device)
        temperatures = torch.tensor([[sequence.sampling.temperature or 1.0] for sequence in sequences], device=self._device)
        uniform = torch.stack([torch.rand(1, dtype=torch.float64, generator=sequence.generator) for sequence in sequences]).to(self._device)
        logprobs = (logits.float() / temperatures).log_softmax(-1)
        cumulative = logprobs.double().exp().cumsum(-1)
        sampled = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)
        next_tokens = torch.where(greedy, logprobs.argmax(-1, keepdim=True), sampled)
        chosen = logprobs.gather(1, next_tokens)
        for sequence, token_id, logprob in zip(sequences, next_tokens[:, 0].tolist(), chosen[:, 0].tolist(), strict=True):
            if not sequence.finish_reason:
                sequence.token_ids.append(token_id)
                sequence.logprobs.append(logprob)
                sequence.finish_reason = self._finished(sequence)

    def _finished(self, sequence: _Sequence) -> Literal["stop", "length"] | None:
        if sequence.token_ids[-1] in {*self._ends, self._tokenizer.eos_token_id, *sequence.sampling.stop_token_ids}:
            return "stop"
        text = self._tokenizer.decode(sequence.token_ids, skip_special_tokens=False) if sequence.sampling.stop else ""
        if any(stop in text for stop in sequence.sampling.stop):
            return "stop"
        return "length" if len(sequence.token_ids) >= sequence.sampling.max_tokens else None
