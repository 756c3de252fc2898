"""Files that are either whole or absent: written beside, flushed, then renamed. A write that fails is one error, with the free space."""

import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apprentice.errors import ApprenticeError

WRITER_ERRORS = ("PytorchStreamWriter", "inline_container", "iostream error", "I/O error")
"""Words in the errors of PyTorch's and safetensors' writers, which are no OSErrors, where a write failed."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO
FREE_SPACE = "free some disk space and run again"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; renames it over `path` when the block ends well, removes it otherwise.

    Raises:
        ApprenticeError: the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with write_errors(path, beside):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            beside.replace(path)
    finally:
        if beside.exists():
            beside.unlink()


@contextmanager
def write_errors(path: Path, beside: Path, *, need: int = 0, todo: str = FREE_SPACE) -> Iterator[None]:
    """Reports a failed write as one error that names the file, the need and the free space.

    Args:
        path: the file or folder to be made.
        beside: where it is written first.
        need: bytes it takes; 0 where that is unknown, and what was written before the failure is told instead.
        todo: what the user can do.

    Raises:
        ApprenticeError: there is less space than needed, or a write in the block failed.
    """
    try:
        free = _free(path)
        if free < need:
            raise ApprenticeError(f"needs {_size(need)} of disk space, and {_size(free)} are free", where=path, todo=todo)
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not any(words in str(error) for words in WRITER_ERRORS):
            raise
        reason = _reason(error)
        needs = _size(need) if need else f"more than the {_size(size_of(beside))} written"
        raise ApprenticeError(f"could not be written: {reason}; it needs {needs}, and {_size(_free(path))} are free", where=path, todo=todo) from error


def replace_folder(folder: Path, beside: Path) -> None:
    """Puts `beside` in the place of `folder`, which is deleted last: an interruption never leaves half of it."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def make_private(folder: Path) -> None:
    """Makes a folder that only this user can enter; one of theirs that others can enter is closed to them."""
    folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    _close(folder)


def make_private_file(path: Path) -> None:
    """Makes an empty file that only this user can read, or closes one of theirs to others."""
    path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    _close(path)


def _close(path: Path) -> None:
    found = path.stat()
    if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
        path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


def _reason(error: Exception) -> str:
    """The system's word for a failed write; PyTorch keeps it to itself, safetensors and PyArrow put it last."""
    told = str(error)
    if isinstance(error, OSError):
        return error.strerror or told
    return told.rpartition("I/O error: ")[2] if "I/O error: " in told else "a write failed"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where it is absent."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _free(path: Path) -> int:
    """Bytes that this user may still write on the disk of `path`, which need not exist yet."""
    return shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free


def _size(count: int) -> str:
    """`count` bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Writes `text` as UTF-8, whole or not at all. Only this user can read a `private` file."""
    with written_whole(path) as beside:
        if private:
            beside.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Writes `value` as indented JSON with its keys in their own order, whole or not at all (see `write_text`)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", private=private)


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes JSON objects, one a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Reads one JSON file.

    Raises:
        ApprenticeError: the file is absent or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ApprenticeError("is missing", where=path, todo="run the stage that writes it: `dvc repro`") from None
    except json.JSONDecodeError as error:
        raise ApprenticeError(f"is not JSON: {error.msg}", where=f"{path}:{error.lineno}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, an integer of thousands of digits, thousands of brackets
        raise ApprenticeError(f"is not JSON: {error}", where=path) from None


def local_path(named: str, parameter: str) -> Path:
    """The path that a person named, with `~` and `~user` filled in. It need not exist.

    Args:
        named: the path as it was written.
        parameter: the parameter or environment variable that holds it, for errors.

    Raises:
        ApprenticeError: the user is unknown, or no path can have this name.
    """
    try:
        path = Path(named).expanduser()
        path.exists()
    except (RuntimeError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ApprenticeError(f"cannot be looked up: {reason}", where=f"{parameter}={named!r}", todo="give the path of a folder") from None
    return path
