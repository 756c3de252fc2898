"""Passes the trained weights to other processes of this machine through a safetensors file in memory."""

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
    """A file in memory that others can open by its path. It disappears with this process, however that ends."""
    number = os.memfd_create("weights")
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{number}")
    finally:
        os.close(number)


def publish(language_model: nn.Module, file: Path) -> None:
    """Writes the weights that training changes, in bf16 and with adapters merged.

    The file is overwritten in place, because the pages of a new file would have to be zeroed and mapped first.

    Args:
        language_model: a Transformers causal language model.
        file: an existing file that nobody else reads or writes meanwhile.
    """
    header, size = _header({name: weight.shape for name, weight in merged_weights(language_model, trained=True)})
    with file.open("r+b") as opened:
        os.truncate(opened.fileno(), len(header) + size)
        memory = mmap.mmap(opened.fileno(), 0)
    memory[: len(header)] = header
    place = len(header)
    for _, weight in merged_weights(language_model, trained=True):  # one at a time, because a merged weight is a copy
        torch.frombuffer(memory, dtype=torch.bfloat16, count=weight.numel(), offset=place).view(weight.shape).copy_(weight)
        place += weight.numel() * BYTES


def _header(shapes: dict[str, torch.Size]) -> tuple[bytes, int]:
    """The header of a safetensors file (https://huggingface.co/docs/safetensors) and the size of the weights."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        first, end = end, end + shape.numel() * BYTES
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [first, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end
