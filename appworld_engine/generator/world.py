"""AppWorld's own environment, forked instead of opened again, and saved once instead of after every block."""

import ctypes
import functools
import gc
import importlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import appworld.requester as requester_module
from appworld import AppWorld
from appworld.apps.model_lib import CachedDBHandler, get_direct_cached_sqlite3_connection
from appworld.evaluator import TestTracker, evaluate_task
from appworld.requester import Requester
from fastapi.testclient import TestClient

from generator.draft import GenerationError

EXPERIMENT = "generation"
PR_SET_PDEATHSIG = 1
FAILED = "Execution failed."

# Stateless and slow to build: once is enough for all worlds of this process.
requester_module.build_main_app = functools.cache(requester_module.build_main_app)


class World(AppWorld):
    """Stock semantics; the databases go to disk when they are judged."""

    _flushing = False

    def __init__(self, task_id: str):
        super().__init__(task_id=task_id, experiment_name=EXPERIMENT, ground_truth_mode="full")

    def _save_state(self, directory: str) -> None:
        if self._flushing or directory != self.output_db_home_path_on_disk:
            super()._save_state(directory)

    def save_logs(self) -> None:
        """Nobody reads the logs of a proof."""

    def run(self, code: str) -> str:
        """Executes one block.

        Raises:
            GenerationError: the block failed; the message is its output.
        """
        output = self.execute(code)
        if output.startswith(FAILED):
            raise GenerationError(f"{output}\n--- in ---\n{code}")
        return output

    def judge(self) -> TestTracker:
        """What AppWorld's evaluator says of the databases as they are now; the last thing to do with a world."""
        self._flushing = True
        # The evaluator trusts the hashes that saving refreshes: without this, collateral changes would go unseen.
        self._save_state(self.output_db_home_path_on_disk)
        self._flushing = False
        return evaluate_task(task_id=self.task_id, experiment_name=EXPERIMENT, save_report=False)

    def in_fork(self, action: Callable[["World"], Any]) -> Any:
        """What `action` returns (as JSON) in a copy of this world that is thrown away.

        Raises:
            GenerationError: the action raised one, or the copy died.
        """
        self._detach()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._serve(action, writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        self._attach()
        reply = json.loads(text or '{"error": "the forked world died"}')
        if "error" in reply:
            raise GenerationError(reply["error"])
        return reply["result"]

    def _serve(self, action: Callable[["World"], Any], writer: int) -> None:
        end_with_parent()
        try:
            self._attach()
            reply = {"result": action(self)}
        except Exception as error:  # whatever it is has to reach the parent, which raises it
            reply = {"error": str(error) or repr(error)}
        try:
            with os.fdopen(writer, "w") as pipe:
                json.dump(reply, pipe)
        finally:
            os._exit(0)  # never up the stack: that is the parent's

    def _detach(self) -> None:
        """A fork copies neither the client's thread nor open handles safely: both go before it."""
        client = Requester.clients.pop(self.requester.apps, None)
        if client:
            client.__exit__(None, None, None)
        get_direct_cached_sqlite3_connection.cache_clear()

    def _attach(self) -> None:
        client = TestClient(requester_module.build_main_app(self.requester.apps)).__enter__()
        Requester.clients[self.requester.apps] = self.requester.client = client


def end_with_parent() -> None:
    """Lets the kernel end this process with the one that forked it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def warm_up(task_id: str, blocks: Sequence[str]) -> None:
    """Runs and judges a throw-away world, so that what AppWorld imports and builds on first use is there before any fork."""
    importlib.import_module("pytest")  # the evaluator compares with it
    world = World(task_id)
    try:
        verdict(world, blocks)
    finally:
        close(world)
    gc.collect()
    gc.freeze()  # a collection would touch, and so copy, every page that forks share


def is_warm() -> bool:
    """Whether this process has warmed up."""
    return gc.get_freeze_count() > 0


def close(world: World) -> None:
    """Closes the world and forgets its databases."""
    world.close()
    forget()


def forget() -> None:
    """Drops every cached database."""
    CachedDBHandler.reset()
    get_direct_cached_sqlite3_connection.cache_clear()


def passed(tracker: TestTracker) -> list[dict]:
    """The requirements met, as AppWorld lists them."""
    return [dict(entry) for entry in tracker.passes]


def verdict(world: World, blocks: Sequence[str] = ()) -> dict[str, Any]:
    """Runs the blocks and judges: success, requirements met, requirements missed with their traces."""
    for block in blocks:
        world.run(block)
    tracker = world.judge()
    return {"success": tracker.success, "passes": passed(tracker), "failures": [dict(entry) for entry in tracker.failures]}
