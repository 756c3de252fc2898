"""Checks a project's folder before anything starts for what would keep DVC from working in it."""

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
"""What Git writes between the two sides of a merge."""
DAMAGED = "is damaged: it is not what DVC reads"


def check_folder(root: Path = Path()) -> None:
    """Refuses a folder in which DVC cannot work.

    Raises:
        ApprenticeError: its path cannot be used, it is not in a Git repository, or one of DVC's files is damaged.
    """
    check_location(root)
    if not in_git(root):
        todo = "git init   (a downloaded or exported project comes without a repository; no commit is needed)"
        raise ApprenticeError("is not a Git repository, which DVC works in", where=root.resolve(), todo=todo)
    _without_markers(root / CONFIG)
    read_stages(root / STAGES_FILE)
    read_lock(root)
    check_rwlock(root)


def read_lock(root: Path = Path()) -> dict[str, Any]:
    """Stage -> what dvc.lock records of it; empty before the first stage has run.

    Raises:
        ApprenticeError: the file is damaged.
    """
    path = root / LOCK_FILE
    todo = f"restore it (`git checkout -- {LOCK_FILE}`), or remove it (`rm {LOCK_FILE}`): stages whose results DVC has cached are not run again"
    stages = read_stages(path, todo) if path.exists() else {}
    if not all(isinstance(entry, dict) for entry in stages.values()):
        raise ApprenticeError(DAMAGED, where=path, todo=todo)
    return stages


def read_stages(path: Path, todo: str = "restore it: `git checkout -- dvc.yaml`") -> dict[str, Any]:
    """The stages of dvc.yaml or dvc.lock.

    Args:
        todo: what the user can do where the file is damaged.

    Raises:
        ApprenticeError: it is damaged, or cannot be read.
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
    """A file's text.

    Raises:
        ApprenticeError: it holds the markers of a merge, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ApprenticeError(f"cannot be read: {error.strerror}", where=path, todo="make it a file that you can read") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(MARKERS):
            todo = f"take one side: `git checkout --ours {path}` or `git checkout --theirs {path}`; stages it does not fit run again"
            raise ApprenticeError("holds the markers of an unfinished merge", where=f"{path}:{number}", todo=todo)
    return text


def check_rwlock(root: Path = Path()) -> None:
    """Refuses DVC's file of locks where it is damaged, or holds a lock of a process that is not DVC any more.

    DVC itself drops a lock whose process id is free. Where another program has the id, or a dead process nobody waited for, DVC would wait for ever.

    Raises:
        ApprenticeError: with the file and the command that mends it.
    """
    path = root / RWLOCK
    todo = f"rm {path}   (while no DVC command runs in this folder)"
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
            raise ApprenticeError(f"a lock of `{command}` is left over: its process id {pid} now belongs to `{now}`", where=path, todo=todo)


def _holders(locks: Any) -> Iterator[tuple[int, str]]:
    """Process id and command of each lock.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: DVC would refuse the file.
    """
    for mode in ("read", "write"):
        for infos in locks.get(mode, {}).values():
            for info in infos if isinstance(infos, list) else [infos]:
                if not isinstance(info["pid"], int):
                    raise ValueError
                yield info["pid"], str(info["cmd"])


def _command_line(pid: int) -> list[str]:
    """The words of a process's command; its name in brackets where it has ended and nobody waited for it; empty where there is none."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return [word for word in words if word] or [f"[{Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()}]"]
    except OSError:
        return []
