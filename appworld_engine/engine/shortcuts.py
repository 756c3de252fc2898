"""What makes AppWorld faster in a process of ours without changing one of its answers. No file of the package is touched.

- Synchronous endpoints run where they are called, instead of in a pool of threads: most of what a call through its test client costs.
- Databases of one app share their compiled SQL: a world that opens finds every statement compiled.
- What a database is called and connected by is found once, not at every change between the two that a judge compares.
- A judge says which requirements were missed, and leaves out the source text around each.
- The app of API documentation, which no API changes, keeps its records instead of reading all of them for every look-up.
- Garbage is collected as seldom as AppWorld itself has it in its environments.
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
"""AppWorld's own."""
DOCS_CHANGES = "api_docs.jsonl"
_read_docs = ApiDoc.all


def take() -> None:
    """Takes all of them, for this process and its forks."""
    run_inline()
    share_compiled_sql()
    keep_details()
    evaluator.build_fail_trace = lambda _exception: ""
    keep_docs()
    GCThreshold.set(GC_THRESHOLD)


def run_inline() -> None:
    """Runs in this thread what would go to a pool."""

    async def run_sync(function: Callable, *arguments, **_options):
        return function(*arguments)

    anyio.to_thread.run_sync = run_sync
    fastapi_login.fastapi_login.run_sync = run_sync


def share_compiled_sql() -> None:
    """The first in-memory engine of an app lends its dialect and cache to the later ones."""
    make, first = model_lib.get_db_engine, {}

    def get_db_engine(path: str):
        engine = make(path)
        if path.startswith(":memory:"):
            lender = first.setdefault(os.path.basename(path), engine)
            engine.dialect, engine._compiled_cache = lender.dialect, lender._compiled_cache
        return engine

    model_lib.get_db_engine = get_db_engine


def keep_details() -> None:
    """Finds out once what a database engine's URL says."""
    find, known = model_lib.Database._get_engine_to_details, WeakKeyDictionary()

    def details(engine) -> tuple:
        if engine not in known:
            known[engine] = find(engine)
        return known[engine]

    model_lib.Database._get_engine_to_details = staticmethod(details)


def keep_docs() -> None:
    """Reads the documentation's records once."""
    kept: list = []

    def read_once(cls: type) -> list:
        if not kept:
            kept.extend(_read_docs())
        return list(kept)

    ApiDoc.all = classmethod(read_once)


def forget_docs_unless_plain(databases: Path) -> None:
    """Reads the records every time again where a task brings documentation of its own."""
    changes = databases / DOCS_CHANGES
    if not changes.is_file() or changes.stat().st_size:
        ApiDoc.all = _read_docs
