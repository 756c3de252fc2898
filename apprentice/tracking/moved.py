"""Updates the absolute addresses in MLflow's database after a project was moved or copied."""

import sqlite3
from contextlib import closing
from pathlib import Path

from apprentice.config.layout import RUNTIME

DATABASE = "mlflow.db"
ARTIFACTS = RUNTIME / "mlartifacts"
LOCK_TIMEOUT_S = 5.0
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("trace_tags", "value"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Table and column of every address that MLflow stores."""


def follow(root: Path) -> None:
    """Replace addresses in the project's former folder by addresses in `root`, in one transaction.

    The artifact locations of the project's experiments tell the former folder. Other addresses stay as they are.

    Raises:
        sqlite3.Error: the database is damaged, locked or not writable.
    """
    database = (root / DATABASE).resolve()
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as connection:
        if not _former_roots(connection, root):
            return
        connection.execute("BEGIN IMMEDIATE")
        for former in _former_roots(connection, root):  # another process may have replaced them in the meantime
            for table, column in ADDRESSES:
                _replace(connection, table, column, former, root.resolve().as_uri())
        connection.execute("COMMIT")


def _former_roots(connection: sqlite3.Connection, root: Path) -> list[str]:
    """Return the addresses of other folders in which experiments of this project keep their artifacts."""
    if not _has(connection, "experiments", "artifact_location"):
        return []
    locations = {location for (location,) in connection.execute("SELECT artifact_location FROM experiments") if location}
    below = f"/{ARTIFACTS.as_posix()}"
    return sorted(one.removesuffix(below) for one in locations if one.endswith(below) and one != (root.resolve() / ARTIFACTS).as_uri())


def _replace(connection: sqlite3.Connection, table: str, column: str, former: str, current: str) -> None:
    if _has(connection, table, column):
        below = f"substr({column}, 1, length(:former) + 1) = :former || '/'"
        connection.execute(
            f"UPDATE {table} SET {column} = :current || substr({column}, length(:former) + 1) WHERE {below}", {"former": former, "current": current}
        )


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """Whether the database has this column; the database of an older MLflow may lack it."""
    return bool(connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)).fetchone())
