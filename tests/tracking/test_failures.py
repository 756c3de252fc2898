"""A failure of the tracking store is one error with the command that repairs it; registering again then succeeds."""

import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from evaluated import evaluated_project

from apprentice.config import Layout, PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.tracking.registry import register
from apprentice.tracking.runs import log_run
from apprentice.tracking.store import connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the installed MLflow."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect(folder).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PipelineConfig, Layout]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, layout, *_ = evaluated_project(tmp_path)
    return config, layout


def failure(evaluated: tuple[PipelineConfig, Layout]) -> str:
    with pytest.raises(ApprenticeError, match="the results are complete, but MLflow could not store them") as raised:
        log_run(*evaluated, {"data/quick/tasks.parquet": "a" * 32})
    assert str(raised.value).endswith("then run `.venv/bin/apprentice register quick`")
    return str(raised.value)


def catch_up(evaluated: tuple[PipelineConfig, Layout]) -> None:
    tracked = log_run(*evaluated, {"data/quick/tasks.parquet": "a" * 32})
    assert register(*evaluated, tracked.run_id, "c" * 32).version == "1"


def test_an_older_database_needs_the_upgrade_that_the_error_names(evaluated, empty_store: Path):
    database = Path(shutil.copy(empty_store, evaluated[1].root))
    newest = at_revision(database, "75868b020152")
    message = failure(evaluated)
    assert message.startswith(f"{database}: ") and "an older MLflow wrote this database" in message
    command = shlex.split(re.search(r"`(\.venv/bin/mlflow db upgrade [^`]+)`", message)[1])
    at_revision(database, newest)  # no older schema has all tables, without which MLflow upgrades by itself
    subprocess.run([sys.executable, "-m", "mlflow", *command[1:]], check=True, capture_output=True, timeout=120)
    catch_up(evaluated)


def test_a_newer_database_is_not_to_be_upgraded(evaluated, empty_store: Path):
    database = Path(shutil.copy(empty_store, evaluated[1].root))
    at_revision(database, "ffffffffffff")
    message = failure(evaluated)
    assert message.startswith(f"{database}: ") and "a newer MLflow wrote this database: move it aside" in message
    with sqlite3.connect(database) as connection:
        connection.execute("drop table metrics")
    assert "a newer MLflow wrote this database" in failure(evaluated)


def at_revision(database: Path, revision: str) -> str:
    """Set the revision of a database's schema; return the previous one."""
    with sqlite3.connect(database) as connection:
        (before,) = connection.execute("select version_num from alembic_version").fetchone()
        connection.execute("update alembic_version set version_num = ?", (revision,))
    return before


def test_a_damaged_database_is_to_be_moved_aside(evaluated):
    (evaluated[1].root / "mlflow.db").write_bytes(b"no database " * 1000)
    message = failure(evaluated)
    assert "file is not a database" in message and "move the damaged database aside" in message


def test_a_locked_database_is_named_and_can_be_used_later(evaluated):
    database = evaluated[1].root / "mlflow.db"
    with locked(database):
        message = failure(evaluated)
        assert message.startswith(f"{database}: ") and "database is locked" in message and "stop the process that locks the database" in message
    catch_up(evaluated)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    connection = sqlite3.connect(database)
    connection.execute("begin exclusive")
    try:
        yield
    finally:
        connection.close()


def test_a_server_that_refuses_is_named_without_its_password(evaluated, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    message = failure(evaluated)
    assert message.startswith("http://…@127.0.0.1:9: ") and "check that this server runs" in message and "hush" not in message
