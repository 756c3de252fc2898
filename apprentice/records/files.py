"""Files that are either whole or absent: written beside, flushed, then renamed."""

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apprentice.errors import ApprenticeError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; renames it over `path` when the block ends well, removes it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ApprenticeError(f"could not be written: {error.strerror}", where=path, todo="free some disk space and run again") from error
    finally:
        beside.unlink(missing_ok=True)


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
