"""Checks of a model's weights by the headers of its safetensors files, without reading a tensor."""

import json
from pathlib import Path
from typing import Any

from apprentice.errors import ApprenticeError
from apprentice.records.files import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PATTERN = "*.safetensors"
MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit, https://huggingface.co/docs/safetensors."""
COPY_AGAIN = "copy or download the folder again"


def check_weights(folder: Path) -> None:
    """Check the files that Transformers would load: model.safetensors, or else the shards that the index names.

    Raises:
        ApprenticeError: a file is missing, empty, truncated or not in the safetensors format, or lacks tensors that the
            index lists.
    """
    if (folder / SINGLE).is_file():
        _header(folder / SINGLE)
        return
    if not (folder / INDEX).is_file():
        found = ", ".join(sorted(path.name for path in folder.glob(PATTERN))[:3])
        raise ApprenticeError(f"has neither {SINGLE} nor {INDEX}, without which {found} cannot be loaded", where=folder, todo=COPY_AGAIN)
    shards: dict[str, set[str]] = {}
    for tensor, shard in _weight_map(folder / INDEX).items():
        shards.setdefault(shard, set()).add(tensor)
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if missing:
        raise ApprenticeError(f"{len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:3])}", where=folder / INDEX, todo=COPY_AGAIN)
    for shard, tensors in sorted(shards.items()):
        absent = sorted(tensors - set(_header(folder / shard)))
        if absent:
            raise ApprenticeError(f"lacks {len(absent)} tensors that {INDEX} expects in it: {', '.join(absent[:3])}", where=folder / shard, todo=COPY_AGAIN)


def _weight_map(index: Path) -> dict[str, str]:
    values = read_json(index)
    found = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(found, dict) or not found or not all(isinstance(shard, str) and Path(shard).name == shard for shard in found.values()):
        raise ApprenticeError("is not an index of weights: `weight_map` does not give the file of each tensor", where=index, todo=COPY_AGAIN)
    return found


def _header(file: Path) -> dict[str, Any]:
    """Return the tensors that a safetensors file lists, after checking that they account for its size."""
    size = file.stat().st_size
    if size == 0:
        raise ApprenticeError("is empty", where=file, todo=COPY_AGAIN)
    with file.open("rb") as opened:
        start = opened.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= MAX_HEADER_BYTES:
            raise ApprenticeError("is not a safetensors file", where=file, todo=COPY_AGAIN)
        text = opened.read(length)
    if len(text) < length:
        raise ApprenticeError(f"is truncated: its header alone takes {8 + length} bytes, the file has {size}", where=file, todo=COPY_AGAIN)
    try:
        tensors = json.loads(text)
        tensors.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError):
        raise ApprenticeError("is not a safetensors file: its header does not list tensors", where=file, todo=COPY_AGAIN) from None
    if size != end:
        raise ApprenticeError(f"is {'truncated' if size < end else 'too long'}: it has {size} bytes, and its tensors take {end}", where=file, todo=COPY_AGAIN)
    return tensors
