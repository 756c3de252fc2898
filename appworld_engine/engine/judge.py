"""Judges episodes with AppWorld's own evaluator, from the databases that their worlds wrote: processes that never meet the agent's code.

One process is warm and forks one for each task, which holds the task's databases ready, as they are at the start; that one forks a judge for each
judgement. Worlds are no descendants of them, nor they of worlds.
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

from engine.bounds import Bounds, room
from engine.warden import ForkServers, Warden
from engine.wire import Lines

LARGEST_FILE, CPU_S = 1 << 20, 30
"""Of a judge, in bytes and seconds: an ordinary one writes nothing and takes less than a second."""
ERROR_CHARS = 1000


class Judges:
    """The warm process."""

    def __init__(self, control: socket.socket, outputs: Path, warm_task: str, warm_episode: str, tasks: int):
        """`outputs`: where worlds flush; `warm_episode`: a flushed episode of `warm_task` to get warm on; `tasks`: how many are held ready."""
        sys.dont_write_bytecode = True  # a task's evaluation is a module: a data root is never written to
        type(path_store).experiment_outputs = property(lambda _store: str(outputs))
        if (outputs / warm_episode).is_dir():
            judge(warm_task, warm_episode)
            shutil.rmtree(outputs / warm_episode)
            forget()
        gc.collect()
        gc.freeze()
        self._outputs = outputs
        self._warden = Warden(control, self._on_message)
        self._benches = ForkServers(self._warden, tasks)

    def run(self) -> None:
        """Until the zygote ends."""
        self._warden.run()

    def _on_message(self, message: dict, stream: socket.socket, leash: socket.socket) -> None:
        with stream, leash:
            task_id = message["task"]
            self._benches.send(task_id, lambda inside: Bench(inside, self._outputs, task_id).run(), message, (stream.fileno(), leash.fileno()))


class Bench:
    """The process of one task."""

    def __init__(self, control: socket.socket, outputs: Path, task_id: str):
        self._outputs, self._task = outputs, Task.load(task_id=task_id, load_ground_truth=False)
        freezer = set_local_date_and_time(self._task.datetime)
        self._task.model_collection  # noqa: B018 (opens the databases of the start, which the evaluator finds again)
        self._end_home = get_db_home_path(storage_type="memory", type="task_output", task_id=task_id)
        self._apps = [*self._task.allowed_apps, "admin"]
        ModelCollection.load(to_db_home_path=self._end_home, from_db_home_path=self._task.models_from_db_home_path, load_apps=self._apps)
        freezer.stop()
        get_direct_cached_sqlite3_connection.cache_clear()  # no open file crosses a fork
        gc.freeze()
        self._bounds = Bounds(room(Path(path_store.data)), LARGEST_FILE, CPU_S)
        self._warden = Warden(control, self._on_message)

    def run(self) -> None:
        """Until it is retired and its last judge has answered."""
        self._warden.run()

    def _on_message(self, message: dict, stream: socket.socket, leash: socket.socket) -> None:
        def body() -> None:
            self._bounds.take()
            Lines(stream).send(self._answer(message["episode"]))

        self._warden.fork(body, leash, (stream.fileno(),))
        stream.close()

    def _answer(self, episode: str) -> dict:
        """Judges what an episode left, or says why that is impossible."""
        try:
            self._bring_to_end(self._outputs / episode / "tasks" / self._task.id / "dbs")
            return judge(self._task.id, episode)
        except Exception as error:  # a broken ground truth, or data that cannot be read: the client finds out whose fault it is
            return {"error": f"{type(error).__name__}: {error}"[:ERROR_CHARS]}

    def _bring_to_end(self, flushed: Path) -> None:
        """Applies what the episode changed; AppWorld's evaluator then finds the databases open and loads none.

        A flushed database is the list of all changes since the base, those that the task itself made first. Where they are not, the open
        databases are let go of, and the evaluator loads everything itself.
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


def judge(task_id: str, episode: str) -> dict:
    """Which tests the flushed databases pass."""
    tracker = evaluate_task(task_id=task_id, experiment_name=episode, suppress_errors=True, save_report=False)
    failures = [entry["requirement"] for entry in tracker.failures]
    return {"success": bool(tracker.success), "passes": tracker.pass_count, "tests": tracker.num_tests, "failures": failures}


def forget() -> None:
    """Lets go of every open database."""
    CachedDBHandler.reset()
    ModelHashHandler.reset()
    get_direct_cached_sqlite3_connection.cache_clear()
