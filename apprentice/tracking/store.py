"""The tracking store: an SQLite file in the project's root, unless MLFLOW_TRACKING_URI names another store."""

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
"""Address at which `make mlflow` serves MLflow's pages."""
NOISE = ("mlflow", "alembic")
HTTP_RETRIES = "3"
"""MLflow's default of 7 makes a run wait 4 minutes for a server that is down."""


def named_store() -> str:
    """Return the address in MLFLOW_TRACKING_URI, which may contain a password, or an empty string."""
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def is_server() -> bool:
    """Whether the store is an MLflow server rather than a database."""
    return named_store().startswith(("http://", "https://"))


def tracking_uri(root: Path = Path()) -> str:
    """Return the store's address. It may contain a password, so show it only through `redacted`."""
    return named_store() or f"sqlite:///{(root / DATABASE).resolve()}"


def open_commands() -> str:
    """Return the command that opens MLflow's pages, or the address of the store if it is a server."""
    return redacted(named_store()) if is_server() else "make mlflow"


def follow_folder(root: Path = Path()) -> None:
    """Update the addresses in the project's own database if the project was moved.

    Raises:
        ApprenticeError: the database is damaged, locked or not writable.
    """
    try:
        follow(root)
    except sqlite3.Error as error:
        todo = "stop the process that locks the database, or move the damaged database aside"
        raise ApprenticeError(str(error), where=(root / DATABASE).resolve(), todo=todo) from error


def connect(root: Path = Path()) -> "MlflowClient":
    """Return a client of the store, with MLflow's telemetry turned off.

    The project's own database is created if it does not exist, and its addresses are updated if the project was moved.
    """
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
        with suppress(OSError):  # MLflow itself reports what is wrong with the file
            make_private_file(root / DATABASE)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def current_store(root: Path) -> Iterator[None]:
    """Set the process-wide store for a block, because MLflow's tracing writes to that one only."""
    import mlflow

    # MLflow also writes the address to this environment variable, where it would outlive the block.
    named = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri(root))
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if named is not None:
            os.environ["MLFLOW_TRACKING_URI"] = named


def experiment_id(client: "MlflowClient", name: str, root: Path) -> str:
    """Return the experiment's id; create the experiment if needed.

    If the store is an SQLite file, its artifacts lie in the project's runtime folder.
    """
    known = client.get_experiment_by_name(name)
    if known:
        return known.experiment_id
    artifacts = (root / ARTIFACTS).resolve()
    return client.create_experiment(name, artifact_location=artifacts.as_uri() if tracking_uri(root).startswith("sqlite:") else None)
