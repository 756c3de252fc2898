"""Reports errors of the tracking store as one message: which store, what is wrong, and how to repair it."""

import re
import shlex
import sqlite3
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from apprentice.config import Layout, PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.records.text import redacted
from apprentice.tracking.moved import DATABASE
from apprentice.tracking.store import is_server, named_store

P, R = ParamSpec("P"), TypeVar("R")
SCHEMA = re.compile(r"out-of-date database schema \(found version (\w+)")
UNKNOWN_SCHEMA = "Can't locate revision"
UNUSABLE = ("is not a database", "is malformed", "no such table", "no such column")


def reports_store_errors(function: Callable[Concatenate[PipelineConfig, Layout, P], R]) -> Callable[Concatenate[PipelineConfig, Layout, P], R]:
    """Decorate a function that writes to the tracking store.

    Raises:
        ApprenticeError: the store failed. The pipeline's results are unchanged.
    """

    @wraps(function)
    def guarded(config: PipelineConfig, layout: Layout, *arguments: P.args, **named: P.kwargs) -> R:
        from alembic.util.exc import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return function(config, layout, *arguments, **named)
        except (MlflowException, SQLAlchemyError, sqlite3.Error, CommandError, OSError, ImportError) as error:
            raise _as_user_error(error, layout) from error

    return guarded


def _as_user_error(error: Exception, layout: Layout) -> ApprenticeError:
    register = f"`.venv/bin/apprentice register {layout.pipeline}`"
    reason = redacted(str(getattr(error, "orig", None) or error).strip().splitlines()[0])
    place = redacted(named_store()) if named_store() else (layout.root / DATABASE).resolve()
    what = f"the results are complete, but MLflow could not store them: {reason}"
    return ApprenticeError(what, where=place, todo=f"{_remedy(str(error), layout.root)}, then run {register}")


def _remedy(text: str, root: Path) -> str:
    schema = SCHEMA.search(text)
    if schema and _known_revision(schema[1]):
        address = '"$MLFLOW_TRACKING_URI"' if named_store() else shlex.quote(f"sqlite:///{(root / DATABASE).resolve()}")
        return f"an older MLflow wrote this database: copy it, run `.venv/bin/mlflow db upgrade {address}`"
    if schema or UNKNOWN_SCHEMA in text:
        return "a newer MLflow wrote this database: move it aside, or set MLFLOW_TRACKING_URI to another store"
    if is_server():
        return "check that this server runs and accepts your credentials, or set MLFLOW_TRACKING_URI to another store"
    if "database is locked" in text:
        return "stop the process that locks the database"
    if any(words in text for words in UNUSABLE):
        return "move the damaged database aside"
    return "make the store writable, with free disk space"


def _known_revision(revision: str) -> bool:
    """Whether the installed MLflow knows this version of the schema, and so can upgrade from it."""
    import mlflow

    return any((Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions").glob(f"{revision}_*.py"))
