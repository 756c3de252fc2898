"""Judges episodes with AppWorld's own evaluator, from the databases that their worlds wrote: a process of its own that never meets the agent's code."""

import gc
import shutil
import socket
from pathlib import Path

from appworld.apps.model_lib import CachedDBHandler, ModelHashHandler, get_direct_cached_sqlite3_connection
from appworld.common.path_store import path_store
from appworld.evaluator import evaluate_task

from .warden import Warden
from .wire import Lines, receive_message


class Judges:
    """A process that has judged once, so that it is warm, and forks one judge a judgement. Worlds are no descendants of it."""

    def __init__(self, control: socket.socket, outputs: Path, warm_task: str, warm_episode: str):
        """`outputs`: where worlds flush; `warm_episode`: a flushed episode of `warm_task`, removed when it was judged."""
        type(path_store).experiment_outputs = property(lambda _store: str(outputs))
        judge(warm_task, warm_episode)
        shutil.rmtree(outputs / warm_episode)
        forget()
        gc.collect()
        gc.freeze()
        self._control = control
        self._warden = Warden(control, self._on_message)

    def run(self) -> None:
        """Until the zygote ends."""
        self._warden.run()

    def _on_message(self) -> bool:
        received = receive_message(self._control)
        if received is None:
            return False
        message, descriptors = received
        stream, leash = (socket.socket(fileno=descriptor) for descriptor in descriptors)

        def body() -> None:
            try:
                answer = judge(message["task"], message["episode"])
            except Exception as error:  # a broken ground truth, or files that are gone: the client says whose fault it is
                answer = {"error": f"{type(error).__name__}: {error}"}
            Lines(stream).send(answer)

        self._warden.fork(body, leash, (stream.fileno(),))
        stream.close()
        return True


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
