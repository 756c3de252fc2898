"""Files and folders that are either complete or absent: written under a temporary name, flushed, then renamed.

A write that fails is reported as one error that names the free disk space.
"""

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
"""Words in the messages of failed writes by PyTorch and safetensors, whose exceptions are not OSErrors."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO
FREE_SPACE = "free some disk space and run again"
PART = ".part"
"""Suffix of files and folders that are still being written."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` when the block succeeds, and remove it otherwise.

    Raises:
        ApprenticeError: the file cannot be written.
    """
    part = _part_of(path)
    try:
        with write_errors(path, part):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            _flush(part)
            part.replace(path)
    finally:
        if part.exists():
            part.unlink()


@contextmanager
def atomic_folder(folder: Path, *, need: int = 0, todo: str = FREE_SPACE) -> Iterator[Path]:
    """Yield a temporary folder to fill; rename it to `folder` when the block succeeds, and remove it otherwise.

    Args:
        need: bytes that the folder takes; 0 if they are not known in advance.
        todo: what the user can do if the write fails.

    Raises:
        ApprenticeError: the disk has less space than needed, or a write fails; `folder` is unchanged.
    """
    part = _part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    try:
        with write_errors(folder, part, need=need, todo=todo):
            part.mkdir(parents=True)
            yield part
            for file in part.rglob("*"):
                if file.is_file():
                    _flush(file)
            replace_folder(folder, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(folder: Path, new: Path) -> None:
    """Rename `new` to `folder` and delete the former `folder` last, so an interruption never leaves half of either."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def write_errors(path: Path, part: Path, *, need: int = 0, todo: str = FREE_SPACE) -> Iterator[None]:
    """Report a failed write as one error that names the file, the space it needs and the free space.

    Args:
        path: the file or folder to be written.
        part: the temporary path that is written first.
        need: bytes that it takes. If they are not known in advance, 0: the message then has the bytes already written.
        todo: what the user can do.

    Raises:
        ApprenticeError: the disk has less space than needed, or a write in the block fails.
    """
    try:
        free = _free(path)
        if free < need:
            raise ApprenticeError(f"needs {_size(need)} of disk space, and {_size(free)} are free", where=path, todo=todo)
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not any(words in str(error) for words in WRITER_ERRORS):
            raise
        needs = _size(need) if need else f"more than the {_size(size_of(part))} written"
        what = f"could not be written: {_reason(error)}; it needs {needs}, and {_size(_free(path))} are free"
        raise ApprenticeError(what, where=path, todo=todo) from error


def make_private(folder: Path) -> None:
    """Create a folder that only this user can access, or revoke others' access to an existing folder of this user."""
    folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    _revoke_access(folder)


def make_private_file(path: Path) -> None:
    """Create an empty file that only this user can read, or revoke others' access to an existing file of this user."""
    path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    _revoke_access(path)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 if it does not exist."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write `text` as UTF-8, atomically. Only this user can read a `private` file."""
    with atomic_file(path) as part:
        if private:
            part.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write `value` as indented JSON in the order of its keys, atomically (see `write_text`)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", private=private)


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON objects, one per line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ApprenticeError: the file does not exist or is not JSON.
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
    """Return the path that a user wrote, with `~` and `~user` expanded. It need not exist.

    Args:
        named: the path as written.
        parameter: the parameter or environment variable that holds it, for error messages.

    Raises:
        ApprenticeError: the user is unknown, or the text cannot be a path.
    """
    try:
        path = Path(named).expanduser()
        path.exists()
    except (RuntimeError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ApprenticeError(f"cannot be looked up: {reason}", where=f"{parameter}={named!r}", todo="give the path of a folder") from None
    return path


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{PART}")


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _revoke_access(path: Path) -> None:
    found = path.stat()
    if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
        path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


def _reason(error: Exception) -> str:
    """Why a write failed: PyTorch's messages do not tell, those of safetensors and PyArrow end with it."""
    text = str(error)
    if isinstance(error, OSError):
        return error.strerror or text
    return text.rpartition("I/O error: ")[2] if "I/O error: " in text else "a write failed"


def _free(path: Path) -> int:
    """Return the bytes that this user may still write to the disk of `path`, which need not exist yet."""
    return shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
