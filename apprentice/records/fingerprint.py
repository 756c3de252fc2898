"""A hash of everything that determines a result; resumable work is stored under it."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel


def fingerprint(*parts: BaseModel | Path | str | int) -> str:
    """Return 16 hex digits for configuration sections, text, numbers, and the contents of files or folders."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, BaseModel):
            digest.update(json.dumps(part.model_dump(mode="json"), sort_keys=True).encode())
        elif isinstance(part, Path):
            for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
                if file.is_file():
                    digest.update(file.name.encode())
                    with file.open("rb") as stream:
                        digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            digest.update(str(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
