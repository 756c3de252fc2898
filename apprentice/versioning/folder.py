"""Looks at a project's folder before anything starts: what DVC would only complain of later, and not in words that help."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from apprentice.errors import ApprenticeError
from apprentice.place import check_place

LOCK_FILE = Path("dvc.lock")
RWLOCK = Path(".dvc") / "tmp" / "rwlock"
MARKERS = ("<<<<<<<", "=======", ">>>>>>>")
"""What Git writes between the two sides of a merge."""


def check_folder(root: Path = Path()) -> None:
    """Says what keeps DVC from working here.

    Raises:
        ApprenticeError: the folder's path cannot be used, it is no Git repository, or one of DVC's files is damaged.
    """
    check_place(root)
    if not any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
        todo = "git init   (a project that was downloaded or exported without its history has none; no commit is needed)"
        raise ApprenticeError("is not a Git repository, which DVC works in", where=root.resolve(), todo=todo)
    read_lock(root)
    check_rwlock(root)


def read_lock(root: Path = Path()) -> dict[str, Any]:
    """Stage -> what dvc.lock records of it; empty before the first stage has run.

    Raises:
        ApprenticeError: the file is damaged.
    """
    path = root / LOCK_FILE
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(MARKERS):
            todo = f"take one side: `git checkout --ours {LOCK_FILE}` or `git checkout --theirs {LOCK_FILE}`; stages it does not fit run again"
            raise ApprenticeError("holds the markers of an unfinished merge", where=f"{path}:{number}", todo=todo)
    try:
        stages = (YAML(typ="safe").load(text) or {}).get("stages", {})
        if not all(isinstance(entry, dict) for entry in stages.values()):
            raise ValueError
    except (YAMLError, AttributeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        todo = f"restore it (`git checkout -- {LOCK_FILE}`), or remove it (`rm {LOCK_FILE}`): stages whose results DVC has cached are not run again"
        raise ApprenticeError("is damaged: it is not what DVC writes", where=f"{path}:{mark.line + 1}" if mark else path, todo=todo) from None
    return stages


def check_rwlock(root: Path = Path()) -> None:
    """Refuses a damaged file of DVC's locks, and one with a lock that no DVC process holds any more.

    DVC itself drops a lock whose process id is free. Where the id was given to another program, DVC would wait for that program.

    Raises:
        ApprenticeError: one of both; it names the file and the command that mends it.
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
        running = _command_line(pid)
        if running and "dvc" not in running:
            raise ApprenticeError(f"a lock of `{command}` is left over: its process id {pid} now belongs to `{running}`", where=path, todo=todo)


def _holders(locks: Any) -> Iterator[tuple[int, str]]:
    """Process id and command line of each lock."""
    for mode in ("read", "write"):
        for infos in locks.get(mode, {}).values():
            for info in infos if isinstance(infos, list) else [infos]:
                yield int(info["pid"]), str(info["cmd"])


def _command_line(pid: int) -> str:
    """Of a living process; empty where there is none, or where this user may not look."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:120]
    except OSError:
        return ""
