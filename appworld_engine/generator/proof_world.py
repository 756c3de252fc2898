"""AppWorld's own environment, but forked instead of opened again, and saved once instead of after every block."""

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

# The app is stateless and slow to build, so all worlds of this process share one.
requester_module.build_main_app = functools.cache(requester_module.build_main_app)


class ProofWorld(AppWorld):
    """A world with AppWorld's semantics that writes its databases to disk only when they are judged."""

    _flushing = False

    def __init__(self, task_id: str):
        super().__init__(task_id=task_id, experiment_name=EXPERIMENT, ground_truth_mode="full")

    def _save_state(self, directory: str) -> None:
        if self._flushing or directory != self.output_db_home_path_on_disk:
            super()._save_state(directory)

    def save_logs(self) -> None:
        """Do nothing: nobody reads the logs of a proof."""

    def run(self, code: str) -> str:
        """Execute one block.

        Raises:
            GenerationError: the block failed; the message contains its output.
        """
        output = self.execute(code)
        if output.startswith(FAILED):
            raise GenerationError(f"{output}\n--- in ---\n{code}")
        return output

    def judge(self) -> TestTracker:
        """Run AppWorld's evaluator on the current databases. The world must not be used afterwards."""
        self._flushing = True
        # The evaluator relies on hashes that only saving refreshes. Without saving, it would miss collateral changes.
        self._save_state(self.output_db_home_path_on_disk)
        self._flushing = False
        return evaluate_task(task_id=self.task_id, experiment_name=EXPERIMENT, save_report=False)

    def in_fork(self, action: Callable[["ProofWorld"], Any]) -> Any:
        """Run `action` in a copy of this world, discard the copy, and return the result, which must be JSON.

        Raises:
            GenerationError: the action raised an exception, or the copy died.
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

    def _serve(self, action: Callable[["ProofWorld"], Any], writer: int) -> None:
        end_with_parent()
        try:
            self._attach()
            reply = {"result": action(self)}
        except Exception as error:  # sent to the parent, which raises it
            reply = {"error": str(error) or repr(error)}
        try:
            with os.fdopen(writer, "w") as pipe:
                json.dump(reply, pipe)
        finally:
            os._exit(0)  # never return up the stack, which belongs to the parent

    def _detach(self) -> None:
        """Close the client's thread and open handles, which a fork cannot copy safely."""
        client = Requester.clients.pop(self.requester.apps, None)
        if client:
            client.__exit__(None, None, None)
        get_direct_cached_sqlite3_connection.cache_clear()

    def _attach(self) -> None:
        client = TestClient(requester_module.build_main_app(self.requester.apps)).__enter__()
        Requester.clients[self.requester.apps] = self.requester.client = client


def end_with_parent() -> None:
    """Make the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def warm_up(task_id: str, blocks: Sequence[str]) -> None:
    """Run and judge a throw-away world, so that what AppWorld builds at its first use exists before any fork."""
    importlib.import_module("pytest")  # the evaluator uses it for comparisons
    world = ProofWorld(task_id)
    try:
        verdict(world, blocks)
    finally:
        close(world)
    gc.collect()
    gc.freeze()  # a collection would touch, and thus copy, every page that forks share


def is_warm() -> bool:
    """Return whether this process has warmed up."""
    return gc.get_freeze_count() > 0


def close(world: ProofWorld) -> None:
    """Close the world and drop its databases."""
    world.close()
    drop_databases()


def drop_databases() -> None:
    """Drop every cached database."""
    CachedDBHandler.reset()
    get_direct_cached_sqlite3_connection.cache_clear()


def verdict(world: ProofWorld, blocks: Sequence[str] = ()) -> dict[str, Any]:
    """Run the blocks and judge the world.

    Returns:
        `success`, the requirements met (`passes`), and those missed with their traces (`failures`).
    """
    for block in blocks:
        world.run(block)
    tracker = world.judge()
    return {"success": tracker.success, "passes": [dict(entry) for entry in tracker.passes], "failures": [dict(entry) for entry in tracker.failures]}
