"""Where runs and models are kept: an SQLite file at the project's root, unless MLFLOW_TRACKING_URI names another store."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from apprentice.errors import ApprenticeError
from apprentice.records.files import make_private_file
from apprentice.records.text import redacted
from apprentice.tracking.moved import ARTIFACTS, DATABASE, follow

if TYPE_CHECKING:
    from mlflow import MlflowClient

UI_ADDRESS = "http://127.0.0.1:5000"
"""Where `make mlflow` shows runs."""
NOISE = ("mlflow", "alembic")
HTTP_RETRIES = "3"
"""MLflow's own 7 keep a run waiting for 4 minutes where the server is down."""


def named_store() -> str:
    """The address in MLFLOW_TRACKING_URI, which may hold a password; empty where none is named."""
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def is_server() -> bool:
    """Whether the store is an MLflow server and no database."""
    return named_store().startswith(("http://", "https://"))


def tracking_uri(root: Path = Path()) -> str:
    """The store's address; may hold a password, so never show it without `redacted`."""
    return named_store() or f"sqlite:///{(root / DATABASE).resolve()}"


def open_commands() -> str:
    """The command that opens MLflow's pages; the address itself where the store is a server."""
    return redacted(named_store()) if is_server() else "make mlflow"


def follow_folder(root: Path = Path()) -> None:
    """Lets the project's own database follow a folder that was moved.

    Raises:
        ApprenticeError: the database is damaged, locked or not writable.
    """
    try:
        follow(root)
    except sqlite3.Error as error:
        todo = "end the process that holds the database, or move the damaged database aside"
        raise ApprenticeError(str(error), where=(root / DATABASE).resolve(), todo=todo) from error


def connect(root: Path = Path()) -> "MlflowClient":
    """A client of the store, made ready where it does not exist yet. The project's own database follows a folder that was moved. MLflow's telemetry is off."""
    if not named_store():
        follow(root)
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_ENABLE_ASYNC_TRACE_LOGGING="false", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"
    )
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", HTTP_RETRIES)
    from mlflow import MlflowClient

    for name in NOISE:
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = tracking_uri(root)
    if not named_store():
        with suppress(OSError):  # the store itself reports what is wrong with its file
            make_private_file(root / DATABASE)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def current_store(root: Path) -> Iterator[None]:
    """MLflow's tracing writes to the process-wide store only; this sets it for a block, and takes it back."""
    import mlflow

    # MLflow puts the store it is told into the environment as well, where it would outlive the block.
    named = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri(root))
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if named is not None:
            os.environ["MLFLOW_TRACKING_URI"] = named


def experiment_id(client: "MlflowClient", name: str, root: Path) -> str:
    """The experiment's id; made where it does not exist, with its artifacts under the project's runtime folder if the store is a file."""
    known = client.get_experiment_by_name(name)
    if known:
        return known.experiment_id
    artifacts = (root / ARTIFACTS).resolve()
    return client.create_experiment(name, artifact_location=artifacts.as_uri() if tracking_uri(root).startswith("sqlite:") else None)
