"""What training changes, where other processes of this machine read it: a safetensors file in memory, written anew after each update."""

import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from apprentice.learning.models import merged_weights

BYTES = torch.bfloat16.itemsize


@contextmanager
def unnamed_file() -> Iterator[Path]:
    """A file in memory that others open by its path while this process runs; nothing is left of it afterwards, however the process ends."""
    number = os.memfd_create("weights")
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{number}")
    finally:
        os.close(number)


def publish(language_model: nn.Module, file: Path) -> None:
    """Writes the weights that training changes, in bf16, adapters merged into them; in place, as the pages of a new file would be zeroed and mapped first.

    Args:
        language_model: a Transformers causal language model.
        file: is there; nobody else reads or writes it meanwhile.
    """
    header, size = _header({name: weight.shape for name, weight in merged_weights(language_model, trained=True)})
    with file.open("r+b") as opened:
        os.truncate(opened.fileno(), len(header) + size)
        memory = mmap.mmap(opened.fileno(), 0)
    memory[: len(header)] = header
    place = len(header)
    for _, weight in merged_weights(language_model, trained=True):  # one at a time: merged, each is a copy
        torch.frombuffer(memory, dtype=torch.bfloat16, count=weight.numel(), offset=place).view(weight.shape).copy_(weight)
        place += weight.numel() * BYTES


def _header(shapes: dict[str, torch.Size]) -> tuple[bytes, int]:
    """The beginning of a safetensors file (its length in 8 bytes, then JSON, https://huggingface.co/docs/safetensors), and the bytes of weights behind it."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        first, end = end, end + shape.numel() * BYTES
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [first, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end
