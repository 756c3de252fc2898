"""Where a data set's files are: a folder here, or a Hugging Face data set; and reading them line by line without losing one."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from apprentice.errors import ApprenticeError

SUFFIXES = ("", ".gz")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of data files, and the name under which its files are reported."""

    folder: Path
    label: str

    def shown(self, path: Path) -> str:
        """How a file of this source is named to people."""
        return f"{self.label}/{path.relative_to(self.folder).as_posix()}"


@dataclass(frozen=True, slots=True)
class Line:
    """One non-blank line of a data file: a JSON object, or what is wrong with it."""

    file: str
    number: int
    """From 1."""
    value: dict[str, Any] | None
    error: str | None = None


def open_source(source: str) -> Source:
    """The folder a source names, fetched first where it is a Hugging Face data set id.

    Raises:
        ApprenticeError: there is no such folder, or the data set cannot be fetched.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Source(folder, source.rstrip("/") or source)
    if folder.exists():
        raise ApprenticeError("is a file, not a folder", where=source, todo="give data.source the folder that holds the files")
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        raise ApprenticeError("there is no such folder", where=source, todo="give data.source a folder, or a Hugging Face data set id (owner/name)")
    return Source(_fetched(source), f"hf://datasets/{source}")


def _fetched(repository: str) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=["*.jsonl", "*.jsonl.gz"]))
    except (OSError, HfHubHTTPError, HFValidationError, httpx.HTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ApprenticeError(
            f"is neither a folder here nor a Hugging Face data set that can be fetched now ({type(error).__name__}: {reason})",
            where=repository,
            todo="check the spelling and the network, or download the files by hand and give data.source their folder",
        ) from None


def find_file(source: Source, patterns: tuple[str, ...], holds: str) -> Path:
    """The one file of a source that fits the first pattern that any file fits, plain or gzipped.

    Raises:
        ApprenticeError: none fits, or several do.
    """
    for pattern in patterns:
        for suffix in SUFFIXES:
            found = sorted(source.folder.glob(pattern + suffix)) or sorted(source.folder.glob(f"**/{pattern}{suffix}"))
            if len(found) > 1:
                listed = ", ".join(path.name for path in found)
                raise ApprenticeError(f"{len(found)} files fit {pattern}: {listed}", where=source.label, todo=f"leave one file with {holds} in the folder")
            if found:
                return found[0]
    expected = " or ".join(f"{pattern}[.gz]" for pattern in patterns)
    raise ApprenticeError(f"there is no {expected}", where=source.label, todo=f"put the file with {holds} there")


def read_lines(source: Source, path: Path) -> Iterator[Line]:
    """Each non-blank line of a JSONL file; one that cannot be read is yielded with its error.

    Raises:
        ApprenticeError: the file holds no line, or its compression is broken.
    """
    shown, empty = source.shown(path), True
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    empty = False
                    yield _parsed(raw, shown, number)
    except (EOFError, gzip.BadGzipFile) as error:
        raise ApprenticeError(f"its compression is broken: {error}", where=shown, todo="fetch the file again") from None
    except OSError as error:
        raise ApprenticeError(f"cannot be read: {error.strerror or error}", where=shown) from None
    if empty:
        raise ApprenticeError("is empty", where=shown, todo="put one JSON object a line into it")


def _parsed(raw: bytes, file: str, number: int) -> Line:
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Line(file, number, None, f"is not UTF-8 (byte 0x{raw[error.start]:02x} at position {error.start}); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Line(file, number, None, f"is not JSON, perhaps truncated: {error.msg} at position {error.pos}")
    if not isinstance(value, dict):
        return Line(file, number, None, f"is a JSON {type(value).__name__}, not an object")
    return Line(file, number, value)


def fingerprint(source: Source, path: Path) -> dict[str, Any]:
    """What a file was when it was read: its name, SHA-256 and size in bytes."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return {"path": source.shown(path), "sha256": digest.hexdigest(), "bytes": path.stat().st_size}
