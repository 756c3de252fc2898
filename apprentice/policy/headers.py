"""Check a model folder's safetensors by their headers: whole, of the sizes that they announce, and all there."""

import json
from pathlib import Path
from typing import Any

from apprentice.errors import ApprenticeError
from apprentice.records.files import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PATTERN = "*.safetensors"
POINTER = b"version https://git-lfs"
"""Begins the text that Git LFS leaves in place of a file that it has not fetched."""
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit, https://huggingface.co/docs/safetensors."""
ANEW = "copy or download the folder anew"


def check_weights(folder: Path) -> None:
    """Read the headers of a folder's weights, as Transformers finds them: model.safetensors, else the shards that the index names.

    Raises:
        ApprenticeError: a file is missing, empty, truncated or a Git LFS pointer, or lacks tensors that the index promises.
    """
    if (folder / SINGLE).is_file():
        _header(folder / SINGLE)
        return
    if not (folder / INDEX).is_file():
        found = ", ".join(sorted(path.name for path in folder.glob(PATTERN))[:3])
        raise ApprenticeError(f"holds neither {SINGLE} nor {INDEX}, which says what {found} holds", where=folder, todo=ANEW)
    promised: dict[str, set[str]] = {}
    for tensor, shard in _weight_map(folder / INDEX).items():
        promised.setdefault(shard, set()).add(tensor)
    missing = sorted(shard for shard in promised if not (folder / shard).is_file())
    if missing:
        raise ApprenticeError(f"{len(missing)} of {len(promised)} shards are missing: {', '.join(missing[:3])}", where=folder / INDEX, todo=ANEW)
    for shard, tensors in sorted(promised.items()):
        absent = sorted(tensors - set(_header(folder / shard)))
        if absent:
            raise ApprenticeError(f"lacks {len(absent)} tensors that {INDEX} says it holds: {', '.join(absent[:3])}", where=folder / shard, todo=ANEW)


def _weight_map(index: Path) -> dict[str, str]:
    values = read_json(index)
    found = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(found, dict) or not found or not all(isinstance(shard, str) and Path(shard).name == shard for shard in found.values()):
        raise ApprenticeError("is no index: `weight_map` does not say which file of the folder holds which tensor", where=index, todo=ANEW)
    return found


def _header(file: Path) -> dict[str, Any]:
    """The tensors that a safetensors file announces, once its size is what they take."""
    size = file.stat().st_size
    if size == 0:
        raise ApprenticeError("is empty", where=file, todo=ANEW)
    with file.open("rb") as opened:
        start = opened.read(8)
        if POINTER.startswith(start):
            raise ApprenticeError("is a Git LFS pointer, not the weights", where=file, todo="fetch them with `git lfs pull` in the folder's repository")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= MAX_HEADER_BYTES:
            raise ApprenticeError("is no safetensors file", where=file, todo=ANEW)
        text = opened.read(length)
    if len(text) < length:
        raise ApprenticeError(f"is truncated: its header alone takes {8 + length} bytes, the file has {size}", where=file, todo=ANEW)
    try:
        tensors = json.loads(text)
        tensors.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError):
        raise ApprenticeError("is no safetensors file: its header does not list tensors", where=file, todo=ANEW) from None
    if size != end:
        raise ApprenticeError(f"{'is truncated' if size < end else 'goes on too long'}: {size} bytes, where its tensors take {end}", where=file, todo=ANEW)
    return tensors
