"""Finds, checks, and reads AppWorld data roots without AppWorld itself.

A data root holds `data/{api_docs,base_dbs,tasks,datasets}`. The official one is the folder that APPWORLD_ROOT names and
into which `appworld download data` wrote. The generator (appworld_engine/generator) makes the others; their
`generated.json` states that they are complete.
"""

import contextlib
import difflib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apprentice.errors import ApprenticeError
from apprentice.processes.children import spawn
from apprentice.records.files import local_path, replace_folder
from apprentice.usecases.assistant.config import ENGINE

APPWORLD_VERSION = "0.1.3.post1"
"""Version of the appworld package that the data must fit."""
DATA_VERSION = "0.1.0"
"""Version of the data that this package reads, as in data/version.txt and every task's specs.json."""
ROOT_VARIABLE = "APPWORLD_ROOT"
MARKER = "generated.json"
SPLITS = ("train", "dev", "test_normal", "test_challenge")
VARIANTS = 3
"""Tasks per scenario, as in AppWorld."""
PARTS = ("api_docs", "base_dbs", "datasets", "tasks")
POLL_S = 0.2
DOWNLOAD = "run `appworld download data` again (it replaces the folder)"


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as it is known without opening it.

    Args:
        scenario: the part of the id that variants of one scenario share.
        difficulty: 1 to 3; None if the root does not contain it.
        apps: the apps that the reference solution uses; empty if the root does not contain them.
        supervisor: first_name, last_name, email, and phone_number of the person who gives the task.
    """

    task_id: str
    scenario: str
    split: str
    instruction: str
    difficulty: int | None
    apps: tuple[str, ...]
    supervisor: Mapping[str, str]


@dataclass(frozen=True)
class DataRoot:
    """A checked data root.

    Args:
        path: the value of APPWORLD_ROOT for this root.
        splits: name -> task ids, in the order of the dataset file.
        seed: seed of a generated root; None for the official one.
    """

    path: Path
    splits: Mapping[str, tuple[str, ...]]
    seed: int | None

    @classmethod
    def open(cls, path: Path) -> "DataRoot":
        """Check the root at `path` and read its splits.

        Raises:
            ApprenticeError: the folder is missing, the root is incomplete, or its data has another version.
        """
        marker = _marker(path)
        _check_folders(path, marker)
        _check_version(path, marker)
        splits = {split: _read_split(path, split) for split in SPLITS if (path / "data" / "datasets" / f"{split}.txt").is_file()}
        for split, ids in splits.items():
            missing = [task_id for task_id in ids if not (path / "data" / "tasks" / task_id / "specs.json").is_file()]
            if missing:
                raise _incomplete(path, marker, f"{len(missing)} of {len(ids)} tasks of {split} are missing, the first is {missing[0]}")
        return cls(path, splits, marker["seed"] if marker else None)

    @property
    def task_ids(self) -> tuple[str, ...]:
        """Task ids of all splits, in order."""
        return tuple(task_id for ids in self.splits.values() for task_id in ids)

    def split(self, name: str) -> tuple[str, ...]:
        """Return the task ids of one split.

        Raises:
            ApprenticeError: this root has no such split.
        """
        if name not in self.splits:
            raise ApprenticeError(f"has no split {name!r}", where=self.path, todo=f"choose one of: {', '.join(self.splits)}")
        return self.splits[name]

    def task(self, task_id: str) -> TaskRecord:
        """Read one task.

        Raises:
            ApprenticeError: no task has this id; the error suggests similar ids.
        """
        split = next((name for name, ids in self.splits.items() if task_id in ids), None)
        if split is None:
            near = difflib.get_close_matches(task_id, self.task_ids, n=3)
            raise ApprenticeError(
                f"has no task {task_id!r}", where=self.path, todo=f"did you mean {' or '.join(near)}?" if near else f"see {self.path}/data/datasets/*.txt"
            )
        folder = self.path / "data" / "tasks" / task_id
        specs = _read_json(folder / "specs.json")
        metadata, apps = _read_json(folder / "ground_truth" / "metadata.json", {}), _read_json(folder / "ground_truth" / "required_apps.json", [])
        supervisor = specs.get("supervisor") or specs.get("main_user", {})
        names = ("first_name", "last_name", "email", "phone_number")
        return TaskRecord(
            task_id,
            task_id.rpartition("_")[0],
            split,
            specs["instruction"],
            metadata.get("difficulty"),
            tuple(apps),
            {name: supervisor[name] for name in names if name in supervisor},
        )

    def steps(self, task_id: str) -> tuple[str, ...]:
        """Return the reference solution in blocks, one per turn; empty if the root has none, as the official one.

        Raises:
            ApprenticeError: no task has this id.
        """
        self.task(task_id)
        return tuple(_read_json(self.path / "data" / "tasks" / task_id / "ground_truth" / "steps.json", []))


def official_root(environment: Mapping[str, str] = os.environ) -> DataRoot | None:
    """Open the root that APPWORLD_ROOT names; None if the variable is not set.

    Raises:
        ApprenticeError: the variable does not name a valid data root.
    """
    named = environment.get(ROOT_VARIABLE)
    return DataRoot.open(local_path(named, ROOT_VARIABLE).absolute()) if named else None


def ensure_generated(
    python: Path,
    root: Path,
    seed: int,
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    scenarios: int | None = None,
    variants: int = VARIANTS,
) -> DataRoot:
    """Open the generated root at `root`, after generating it unless it exists with this seed, version, and size.

    A root is generated beside `root` and renamed when it is complete.

    Args:
        python: the interpreter of .venv-appworld.
        progress: called with (tasks done, total tasks).
        scenarios: how many scenarios to keep; None keeps all.
        variants: tasks of each `train` scenario; the others have VARIANTS.

    Raises:
        ApprenticeError: AppWorld is not installed, `root` is not a generated root, or the generator failed.
    """
    root = root.absolute()
    size = {"variants": variants} | ({} if scenarios is None else {"scenarios": scenarios})
    if not _is_made(root, seed, size):
        _check_replaceable(root)
        if not python.is_file():
            raise ApprenticeError("AppWorld is not installed", where=python, todo="run `python3.11 requirements/install.py appworld`")
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder:
            made = Path(folder) / "root"
            _generate(python, made, seed, size, progress)
            replace_folder(root, made)
    return DataRoot.open(root)


def _generate(python: Path, made: Path, seed: int, size: Mapping[str, int], progress: Callable[[int, int], None]) -> None:
    """Run the generator; it ends when this process ends."""
    command = [str(python), "-m", "generator", "--root", str(made), "--seed", str(seed), "--progress"]
    command += [word for name, count in size.items() for word in (f"--{name}", str(count))]
    log = made.parent / "log"
    child = spawn(command, log=log, env={"PYTHONPATH": str(ENGINE), ROOT_VARIABLE: None})
    try:
        seen = 0
        while child.poll() is None:
            time.sleep(POLL_S)
            seen = _report(log, seen, progress)
        _report(log, seen, progress)
    finally:
        code = child.stop()
    if code:
        said = log.read_text(errors="replace").strip().splitlines()
        raise ApprenticeError(
            f"the AppWorld data generator failed with exit code {code}: {said[-1] if said else 'it printed nothing'}",
            where=made.parent.parent,
            todo="try another seed; if every seed fails, reinstall .venv-appworld",
        )


def _report(log: Path, seen: int, progress: Callable[[int, int], None]) -> int:
    """Report the progress lines after the first `seen` characters; return the characters in complete lines."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    end = text.rfind("\n") + 1
    for line in text[seen:end].splitlines():
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):  # other output of AppWorld
            said = json.loads(line)
            progress(said["done"], said["total"])
    return max(seen, end)


def _is_made(root: Path, seed: int, size: Mapping[str, int]) -> bool:
    marker = _marker(root)
    wanted = {"seed": seed, "appworld": APPWORLD_VERSION, "complete": True, **size}
    return marker is not None and all(marker.get(name) == value for name, value in wanted.items())


def _check_replaceable(root: Path) -> None:
    """Refuse to delete anything that the generator did not make."""
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / MARKER).is_file())):
        raise ApprenticeError("is not a generated AppWorld root and is therefore not replaced", where=root, todo="choose another folder or remove this one")


def _marker(path: Path) -> dict[str, Any] | None:
    return _read_json(path / MARKER, None)


def _check_folders(path: Path, marker: Mapping[str, Any] | None) -> None:
    if not path.is_dir():
        raise ApprenticeError("no such AppWorld data root", where=path, todo=f"set {ROOT_VARIABLE} to the folder in which you ran `appworld download data`")
    if path.name == "data" and all((path / part).is_dir() for part in PARTS):
        raise ApprenticeError(f"is the data folder of an AppWorld root; {ROOT_VARIABLE} must name the folder above it", where=path, todo=f"use {path.parent}")
    missing = [part for part in PARTS if not (path / "data" / part).is_dir() or not any((path / "data" / part).iterdir())]
    if missing:
        raise _incomplete(path, marker, f"data/{', data/'.join(missing)} {'is' if len(missing) == 1 else 'are'} missing or empty")
    if marker is not None and not marker.get("complete"):
        raise _incomplete(path, marker, f"according to {MARKER}, its generation did not finish")


def _check_version(path: Path, marker: Mapping[str, Any] | None) -> None:
    if marker is not None and marker.get("appworld") != APPWORLD_VERSION:
        raise ApprenticeError(
            f"was generated for appworld {marker.get('appworld')}, but {APPWORLD_VERSION} is used here",
            where=path,
            todo="remove it; it will be generated again",
        )
    file = path / "data" / "version.txt"
    version = file.read_text().strip() if file.is_file() else DATA_VERSION
    if version.split(".")[:2] != DATA_VERSION.split(".")[:2]:
        raise ApprenticeError(f"holds AppWorld data {version}; appworld {APPWORLD_VERSION} reads {DATA_VERSION}", where=file, todo=DOWNLOAD)
    specs = next((path / "data" / "tasks").glob("*/specs.json"), None)
    if specs is None:
        raise _incomplete(path, marker, "data/tasks contains no task")
    found = _read_json(specs).get("db_version")
    if found != DATA_VERSION:
        raise ApprenticeError(f"holds AppWorld data {found}; appworld {APPWORLD_VERSION} reads {DATA_VERSION}", where=specs, todo=DOWNLOAD)


def _incomplete(path: Path, marker: Mapping[str, Any] | None, what: str) -> ApprenticeError:
    if marker is None:
        return ApprenticeError(f"the AppWorld data root is incomplete: {what}", where=path, todo=DOWNLOAD)
    return ApprenticeError(f"the generated AppWorld root is incomplete: {what}", where=path, todo="remove it; it will be generated again")


def _read_split(path: Path, split: str) -> tuple[str, ...]:
    lines = (path / "data" / "datasets" / f"{split}.txt").read_text().splitlines()
    # A tag may follow the id after a colon.
    return tuple(line.split(":")[0].strip() for line in lines if line.strip())


def _read_json(path: Path, *default: Any) -> Any:
    """Read a JSON file, or return `default`, if one is given, for a missing file.

    Raises:
        ApprenticeError: the file is not JSON, or it is missing and there is no default.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        if default:
            return default[0]
        raise ApprenticeError("is missing from the AppWorld data root", where=path, todo=DOWNLOAD) from error
    except json.JSONDecodeError as error:
        raise ApprenticeError(f"is not JSON: {error}", where=path, todo="download or generate the data root again") from error
