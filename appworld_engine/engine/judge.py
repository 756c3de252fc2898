"""Judges episodes with AppWorld's own evaluator, in processes that never meet the agent's code.

The input of a judge is the databases that a world wrote. One warm process forks a template for each task, which holds
the task's databases in their initial state; the template forks a judge for each judgement. Worlds are not descendants
of these processes, nor these of worlds.
"""

import gc
import json
import shutil
import socket
import sys
from pathlib import Path

from appworld.apps.api_lib import set_local_date_and_time
from appworld.apps.model_lib import CachedDBHandler, ModelHashHandler, get_db_home_path, get_direct_cached_sqlite3_connection
from appworld.collections.models import ModelCollection
from appworld.common.path_store import path_store
from appworld.common.utils import import_models_module
from appworld.evaluator import evaluate_task
from appworld.task import Task

from engine.fork_server import ForkServer, ForkServerPool
from engine.limits import ProcessLimits, memory_allowance
from engine.wire import Lines

LARGEST_FILE, CPU_S = 1 << 20, 30
"""Limits of a judge in bytes and seconds; an ordinary one writes nothing and takes less than a second."""
ERROR_CHARS = 1000


class JudgeServer:
    """The warm process."""

    def __init__(self, control: socket.socket, outputs: Path, warm_task: str, warm_episode: str, tasks: int):
        """Warm this process up.

        Args:
            outputs: the folder into which worlds flush their databases.
            warm_episode: a flushed episode of `warm_task`, which is judged and then removed.
            tasks: how many task templates are kept.
        """
        sys.dont_write_bytecode = True  # a task's evaluation is a module, and nothing may be written to a data root
        type(path_store).experiment_outputs = property(lambda _store: str(outputs))
        if (outputs / warm_episode).is_dir():
            evaluate(warm_task, warm_episode)
            shutil.rmtree(outputs / warm_episode)
            drop_databases()
        gc.collect()
        gc.freeze()
        self._outputs = outputs
        self._server = ForkServer(control, self._on_message)
        self._templates = ForkServerPool(self._server, tasks)

    def run(self) -> None:
        """Serve until the zygote ends."""
        self._server.run()

    def _on_message(self, message: dict, stream: socket.socket, lifeline: socket.socket) -> None:
        with stream, lifeline:
            task_id = message["task"]
            self._templates.send(task_id, lambda inside: JudgeTemplate(inside, self._outputs, task_id).run(), message, (stream.fileno(), lifeline.fileno()))


class JudgeTemplate:
    """A process that holds one task's databases and forks its judges."""

    def __init__(self, control: socket.socket, outputs: Path, task_id: str):
        self._outputs, self._task = outputs, Task.load(task_id=task_id, load_ground_truth=False)
        freezer = set_local_date_and_time(self._task.datetime)
        self._task.model_collection  # noqa: B018 (opens the initial databases, which the evaluator reuses)
        self._end_home = get_db_home_path(storage_type="memory", type="task_output", task_id=task_id)
        self._apps = [*self._task.allowed_apps, "admin"]
        ModelCollection.load(to_db_home_path=self._end_home, from_db_home_path=self._task.models_from_db_home_path, load_apps=self._apps)
        freezer.stop()
        get_direct_cached_sqlite3_connection.cache_clear()  # no open file crosses a fork
        gc.freeze()
        self._limits = ProcessLimits(memory_allowance(Path(path_store.data)), LARGEST_FILE, CPU_S)
        self._server = ForkServer(control, self._on_message)

    def run(self) -> None:
        """Serve until the template is retired and its last judge has answered."""
        self._server.run()

    def _on_message(self, message: dict, stream: socket.socket, lifeline: socket.socket) -> None:
        def body() -> None:
            self._limits.apply()
            Lines(stream).send(self._answer(message["episode"]))

        self._server.fork(body, lifeline, (stream.fileno(),))
        stream.close()

    def _answer(self, episode: str) -> dict:
        """Judge the databases of an episode, or return the reason why that is impossible."""
        try:
            self._replay(self._outputs / episode / "tasks" / self._task.id / "dbs")
            return evaluate(self._task.id, episode)
        except Exception as error:  # broken ground truth or unreadable data; the client finds out which
            return {"error": f"{type(error).__name__}: {error}"[:ERROR_CHARS]}

    def _replay(self, flushed: Path) -> None:
        """Replay the episode's changes, so that AppWorld's evaluator finds the databases open and loads none.

        A flushed database is the list of all changes since the base and begins with those that the task itself made.
        If it does not, the open databases are dropped, and the evaluator loads everything itself.
        """
        before = Path(self._task.models_from_db_home_path)
        for app in self._apps:
            start, end = ((folder / f"{app}.jsonl").read_bytes() for folder in (before, flushed))
            if not end.startswith(start):
                CachedDBHandler.reset(self._end_home)
                return
            connection = import_models_module(app).SQLModel.db.connection
            for line in end[len(start) :].splitlines():
                statement, parameters, many = json.loads(line)
                (connection.executemany if many else connection.execute)(statement, parameters)
            connection.commit()


def evaluate(task_id: str, episode: str) -> dict:
    """Run AppWorld's tests of a task on the databases that an episode flushed."""
    tracker = evaluate_task(task_id=task_id, experiment_name=episode, suppress_errors=True, save_report=False)
    failures = [entry["requirement"] for entry in tracker.failures]
    return {"success": bool(tracker.success), "passes": tracker.pass_count, "tests": tracker.num_tests, "failures": failures}


def drop_databases() -> None:
    """Drop every open database."""
    CachedDBHandler.reset()
    ModelHashHandler.reset()
    get_direct_cached_sqlite3_connection.cache_clear()
