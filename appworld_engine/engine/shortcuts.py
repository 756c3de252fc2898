"""Patches that make AppWorld faster in this process without changing its answers. No file of the package is changed.

- Synchronous endpoints run in the calling thread instead of a thread pool, which causes most of the cost of a call
  through AppWorld's test client.
- Databases of one app share their compiled SQL, so a new world finds every statement compiled.
- A database's name and connection are looked up once, not for every change that a judge compares.
- A judge reports which requirements were missed without the source text around each.
- The API documentation, which no API changes, is read once instead of for every look-up.
- Garbage collection is as rare as in AppWorld's own environments.
"""

import os
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

import anyio.to_thread
import fastapi_login.fastapi_login
from appworld import evaluator
from appworld.apps import model_lib
from appworld.apps.api_docs.models import ApiDoc
from appworld.common.utils import GCThreshold

GC_THRESHOLD = 500_000
"""The value that AppWorld uses."""
DOCS_CHANGES = "api_docs.jsonl"
_read_docs = ApiDoc.all


def install() -> None:
    """Install all patches, for this process and its forks."""
    run_inline()
    share_compiled_sql()
    cache_engine_details()
    evaluator.build_fail_trace = lambda _exception: ""
    cache_docs()
    GCThreshold.set(GC_THRESHOLD)


def run_inline() -> None:
    """Run functions in the calling thread instead of a thread pool."""

    async def run_sync(function: Callable, *arguments, **_options):
        return function(*arguments)

    anyio.to_thread.run_sync = run_sync
    fastapi_login.fastapi_login.run_sync = run_sync


def share_compiled_sql() -> None:
    """Let later in-memory engines of an app use the dialect and cache of the first one."""
    make, first = model_lib.get_db_engine, {}

    def get_db_engine(path: str):
        engine = make(path)
        if path.startswith(":memory:"):
            lender = first.setdefault(os.path.basename(path), engine)
            engine.dialect, engine._compiled_cache = lender.dialect, lender._compiled_cache
        return engine

    model_lib.get_db_engine = get_db_engine


def cache_engine_details() -> None:
    """Parse a database engine's URL only once."""
    find, known = model_lib.Database._get_engine_to_details, WeakKeyDictionary()

    def details(engine) -> tuple:
        if engine not in known:
            known[engine] = find(engine)
        return known[engine]

    model_lib.Database._get_engine_to_details = staticmethod(details)


def cache_docs() -> None:
    """Read the records of the API documentation only once."""
    kept: list = []

    def read_once(cls: type) -> list:
        if not kept:
            kept.extend(_read_docs())
        return list(kept)

    ApiDoc.all = classmethod(read_once)


def uncache_docs_if_changed(databases: Path) -> None:
    """Read the records every time if a task has documentation of its own.

    Args:
        databases: the folder of the task's databases.
    """
    changes = databases / DOCS_CHANGES
    if not changes.is_file() or changes.stat().st_size:
        ApiDoc.all = _read_docs
