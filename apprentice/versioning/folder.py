"""Checks that DVC can work in a project's folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from apprentice.errors import ApprenticeError
from apprentice.location import check_location, in_git

STAGES_FILE, LOCK_FILE, CONFIG = Path("dvc.yaml"), Path("dvc.lock"), Path(".dvc") / "config"
RWLOCK = Path(".dvc") / "tmp" / "rwlock"
MARKERS = ("<<<<<<<", "=======", ">>>>>>>")
"""Prefixes of the lines that Git inserts at a merge conflict."""
DAMAGED = "is damaged: DVC cannot read it"


def check_folder(root: Path = Path()) -> None:
    """Reject a folder in which DVC cannot work.

    Raises:
        ApprenticeError: its path is unusable, it is not in a Git repository, or one of DVC's files is damaged.
    """
    check_location(root)
    if not in_git(root):
        todo = "git init   (a downloaded archive has no repository; no commit is needed)"
        raise ApprenticeError("is not a Git repository, which DVC requires", where=root.resolve(), todo=todo)
    _without_markers(root / CONFIG)
    read_stages(root / STAGES_FILE)
    read_lock(root)
    check_rwlock(root)


def read_lock(root: Path = Path()) -> dict[str, Any]:
    """Return stage -> its entry in dvc.lock; empty before the first stage has run.

    Raises:
        ApprenticeError: the file is damaged.
    """
    path = root / LOCK_FILE
    todo = f"restore it (`git checkout -- {LOCK_FILE}`), or remove it (`rm {LOCK_FILE}`); DVC reuses the results in its cache"
    stages = read_stages(path, todo) if path.exists() else {}
    if not all(isinstance(entry, dict) for entry in stages.values()):
        raise ApprenticeError(DAMAGED, where=path, todo=todo)
    return stages


def read_stages(path: Path, todo: str = "restore it: `git checkout -- dvc.yaml`") -> dict[str, Any]:
    """Return the stages of dvc.yaml or dvc.lock.

    Args:
        path: the file.
        todo: advice to the user if the file is damaged.

    Raises:
        ApprenticeError: the file is damaged, or cannot be read.
    """
    text = _without_markers(path)
    try:
        stages = YAML(typ="safe").load(text).get("stages", {})
    except (YAMLError, AttributeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ApprenticeError(DAMAGED, where=f"{path}:{mark.line + 1}" if mark else path, todo=todo) from None
    if not isinstance(stages, dict):
        raise ApprenticeError(DAMAGED, where=path, todo=todo)
    return stages


def _without_markers(path: Path) -> str:
    """Return a file's text.

    Raises:
        ApprenticeError: the file contains merge conflict markers, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ApprenticeError(f"cannot be read: {error.strerror}", where=path, todo="check that it is a file and that you may read it") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(MARKERS):
            todo = f"choose one side: `git checkout --ours {path}` or `git checkout --theirs {path}`; DVC reruns the stages that differ"
            raise ApprenticeError("contains the conflict markers of an unfinished merge", where=f"{path}:{number}", todo=todo)
    return text


def check_rwlock(root: Path = Path()) -> None:
    """Reject DVC's lock file if it is damaged, or if it contains a lock whose process is no longer DVC.

    DVC itself drops a lock whose process id is unused. It would wait forever for a lock whose process id belongs to
    another program or to a zombie process.

    Raises:
        ApprenticeError: the file is damaged or contains a stale lock.
    """
    path = root / RWLOCK
    todo = f"rm {path}   (while no DVC command is running in this folder)"
    try:
        holders = dict(_holders(json.loads(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ApprenticeError("is damaged: DVC cannot read its locks", where=path, todo=todo) from None
    for pid, command in holders.items():
        words = _command_line(pid)
        if words and "dvc" not in {Path(word).name for word in words}:
            now = " ".join(words)[:120]
            raise ApprenticeError(f"contains a stale lock of `{command}`: its process id {pid} now belongs to `{now}`", where=path, todo=todo)


def _holders(locks: Any) -> Iterator[tuple[int, str]]:
    """Yield the process id and command of each lock.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: DVC would reject the file.
    """
    for mode in ("read", "write"):
        for infos in locks.get(mode, {}).values():
            for info in infos if isinstance(infos, list) else [infos]:
                if not isinstance(info["pid"], int):
                    raise ValueError
                yield info["pid"], str(info["cmd"])


def _command_line(pid: int) -> list[str]:
    """Return the command line of a process; for a zombie, its name in brackets; empty if there is no such process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return [word for word in words if word] or [f"[{Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()}]"]
    except OSError:
        return []
