"""Reads the tasks of an AppWorld data root, which is generated or official."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from apprentice.config import Layout
from apprentice.data.candidates import VARIANTS, Candidate, DataSet
from apprentice.errors import ApprenticeError
from apprentice.records.events import Progress
from apprentice.records.files import local_path
from apprentice.records.fingerprint import fingerprint
from apprentice.usecases.assistant.config import ENGINE, INTERPRETER, AppWorldDataConfig
from apprentice.usecases.assistant.source.roots import ROOT_VARIABLE, DataRoot, ensure_generated, official_root

FOLDER = "appworld"
"""Name of a generated root's folder in the output of `prepare`."""
CACHE = Path(".cache") / "appworld"
"""Folder of generated roots, so that each is generated once."""


def read_appworld(data: AppWorldDataConfig, layout: Layout, progress: Progress) -> DataSet:
    """Read the training tasks, their held-out variants, and the tasks of `data.heldout_split`.

    Raises:
        ApprenticeError: AppWorld is not installed, the root is invalid, or it has no such split.
    """
    root, place = _root(data, layout, progress)
    tasks = tuple(_candidates(root, data))
    about = {"format": "appworld", "source": f"AppWorld (seed {root.seed})" if root.seed is not None else "AppWorld", "root": place}
    return DataSet(tasks, (), about | {"digest": fingerprint(root.path / "data")})


def _root(data: AppWorldDataConfig, layout: Layout, progress: Progress) -> tuple[DataRoot, str]:
    """Return the root and its path for the other stages, absolute or relative to the output of `prepare`."""
    if data.source is None:
        made = _generated(data, layout, progress)
        shutil.copytree(made, layout.raw / FOLDER, dirs_exist_ok=True)
        return DataRoot.open(layout.raw / FOLDER), FOLDER
    if data.source != ROOT_VARIABLE:
        root = DataRoot.open(local_path(data.source, "data.source").absolute())
    elif (root := official_root(os.environ)) is None:
        raise ApprenticeError(
            f"{ROOT_VARIABLE} is not set",
            where="data.source",
            todo="set it to the folder in which you ran `appworld download data`, or leave data.source empty to generate tasks",
        )
    return root, str(root.path)


def _generated(data: AppWorldDataConfig, layout: Layout, progress: Progress) -> Path:
    generator = fingerprint(*sorted((ENGINE / "generator").rglob("*.py")))
    folder = layout.root / CACHE / f"{generator}-{data.seed}-{data.variants}"

    def advance(done: int, total: int) -> None:
        progress.advance("tasks generated and proved", done, total)

    return ensure_generated(layout.root / INTERPRETER, folder, data.seed, advance, variants=data.variants).path


def _candidates(root: DataRoot, data: AppWorldDataConfig) -> Iterator[Candidate]:
    for split, name in (("train", "train"), (data.heldout_split, "dev")):
        tasks = [root.task(task_id) for task_id in root.split(split)]
        left = Counter(task.scenario for task in tasks)
        for line, task in enumerate(tasks, 1):
            held_out = name == "train" and left[task.scenario] <= data.heldout_variants
            left[task.scenario] -= 1
            record = {
                "id": task.task_id,
                "scenario": task.scenario,
                "split": VARIANTS if held_out else name,
                "instruction": task.instruction,
                "judge": "environment",
                "difficulty": task.difficulty,
                "plan": [] if held_out or name == "dev" else list(root.steps(task.task_id)),
            }
            yield Candidate(f"{root.path.name}/data/datasets/{split}.txt", line, record, split=record["split"])
