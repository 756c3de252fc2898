"""Tasks, passages and trajectories as Parquet files with typed columns, written atomically."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from apprentice.errors import ApprenticeError
from apprentice.records.files import atomic_file
from apprentice.records.record import Record
from apprentice.records.skill import Skill
from apprentice.records.task import Passage, Task
from apprentice.records.trajectory import Trajectory, Turn

R = TypeVar("R", bound=Record)

SKILL = pa.struct([(name, pa.string()) for name in Skill.model_fields])
TASKS = pa.schema(
    [
        ("id", pa.string()),
        ("scenario", pa.string()),
        ("split", pa.string()),
        ("instruction", pa.string()),
        ("judge", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("answerable", pa.bool_()),
        ("hops", pa.int32()),
        ("difficulty", pa.int32()),
        ("pass_rate", pa.float64()),
        ("supporting", pa.list_(pa.string())),
        ("plan", pa.list_(pa.string())),
        ("skills", pa.list_(SKILL)),
    ]
)
PASSAGES = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
TURN = pa.struct(
    [
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("action", pa.string()),
        ("observation", pa.string()),
        ("kind", pa.string()),
        ("version", pa.int32()),
        ("calls", pa.list_(pa.string())),
        ("uses", pa.list_(pa.string())),
    ]
)
TRAJECTORIES = pa.schema(
    [
        ("id", pa.string()),
        ("task_id", pa.string()),
        ("group", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("action_mask", pa.list_(pa.int8())),
        ("logprobs", pa.list_(pa.float64())),
        ("turns", pa.list_(TURN)),
        ("reward", pa.float64()),
        ("outcome", pa.string()),
        ("answer", pa.string()),
        ("seed", pa.int64()),
        ("temperature", pa.float64()),
        ("error", pa.string()),
    ]
)


def _write(path: Path, rows: list[dict], schema: pa.Schema) -> None:
    with atomic_file(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), part, compression="zstd")


def _read(path: Path) -> list[dict]:
    try:
        return pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise ApprenticeError("is missing", where=path, todo="run the stage that writes it: `dvc repro`") from None
    except pa.ArrowInvalid as error:
        raise ApprenticeError(f"is not a Parquet file: {error}", where=path) from None


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write tasks."""
    _write(path, [task.model_dump() for task in tasks], TASKS)


def read_tasks(path: Path, split: str | None = None) -> list[Task]:
    """Read tasks, of one split or of all."""
    tasks = [Task.model_validate(row) for row in _read(path)]
    return [task for task in tasks if split is None or task.split == split]


def write_passages(path: Path, passages: Iterable[Passage]) -> None:
    """Write the passages of a knowledge base."""
    _write(path, [passage.model_dump() for passage in passages], PASSAGES)


def read_passages(path: Path) -> list[Passage]:
    """Read the passages of a knowledge base."""
    return [Passage.model_validate(row) for row in _read(path)]


def write_trajectories(path: Path, trajectories: Sequence[Trajectory]) -> None:
    """Write trajectories."""
    _write(path, [asdict(trajectory) for trajectory in trajectories], TRAJECTORIES)


def read_trajectories(path: Path) -> list[Trajectory]:
    """Read trajectories."""
    return [_trajectory(row) for row in _read(path)]


def _trajectory(row: dict) -> Trajectory:
    row["turns"] = tuple(Turn(**{name: tuple(value) if isinstance(value, list) else value for name, value in turn.items()}) for turn in row["turns"])
    for column in ("token_ids", "action_mask", "logprobs"):
        row[column] = tuple(row[column])
    return Trajectory(**row)
