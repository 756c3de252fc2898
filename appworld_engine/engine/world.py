"""Open tasks and worlds: databases in memory and the apps over them. A world never runs the agent's code."""

import json
import os
import shutil
import socket
from dataclasses import asdict
from pathlib import Path

from appworld.apps.api_lib import save_local_dbs, set_local_date_and_time, set_local_random_seed, set_local_show_api_response_schemas
from appworld.apps.model_lib import get_db_home_path, get_direct_cached_sqlite3_connection
from appworld.collections.models import ModelCollection
from appworld.common.constants import DB_VERSION
from appworld.common.path_store import path_store
from appworld.task import Task

from engine.gateway import ADMIN, WRITE_BUDGET, Answer, Gateway, Refused, Request, error_response, read_request
from engine.identity import renew_secrets
from engine.output import enforce_limit
from engine.shortcuts import uncache_docs_if_changed
from engine.wire import Closed, Late, Lines, Malformed, clock

CALL_LIMIT = 1100
"""API calls in one execution before the interpreter is killed; it enforces AppWorld's own limit of 1,000 itself."""
GRACE_S = 2.0
"""Seconds that an interpreter has beyond its time to report that it ran out of time."""
REQUEST_LIMIT = 24 << 20
"""Bytes of the longest message that an interpreter may send."""
FULL = "There is no room left for this."
RANDOM_SEED = 100


class OpenTask:
    """A task's databases in the state in which an agent finds them."""

    def __init__(self, task_id: str, gateway: Gateway):
        """Open the task in this process, which must not have opened another one.

        Raises:
            Exception: AppWorld's own, if the task is missing or of another version.
        """
        self.gateway = gateway
        self.task = Task.load(task_id=task_id, load_ground_truth=False)
        if self.task.db_version != DB_VERSION:
            raise ValueError(f"the databases of task {task_id} have version {self.task.db_version}, this AppWorld reads {DB_VERSION}")
        self._home = get_db_home_path(storage_type="memory", type="task_output", task_id=task_id)
        self.apps = [*self.task.allowed_apps, ADMIN]
        uncache_docs_if_changed(Path(self.task.models_from_db_home_path))
        self.models = ModelCollection.load(to_db_home_path=self._home, from_db_home_path=self.task.models_from_db_home_path, load_apps=self.apps)
        self._freezer = set_local_date_and_time(self.task.datetime)
        set_local_show_api_response_schemas(True)
        get_direct_cached_sqlite3_connection.cache_clear()  # no open file crosses a fork

    def unfreeze(self) -> None:
        """Release the task's frozen clock."""
        self._freezer.stop()

    def info(self) -> dict:
        """Return what the agent may know of the task, and the task's difficulty if the data contain it."""
        task = self.task
        person = {key: task.supervisor[key] for key in ("first_name", "last_name", "email", "phone_number")}
        return {
            "task_id": task.id,
            "instruction": task.instruction,
            "supervisor": person,
            "datetime": task.datetime.isoformat(),
            "apps": list(task.allowed_apps),
            "difficulty": self._difficulty(),
        }

    def _difficulty(self) -> int | None:
        file = Path(path_store.data) / "tasks" / self.task.id / "ground_truth" / "metadata.json"
        return json.loads(file.read_text(encoding="utf-8")).get("difficulty") if file.is_file() else None

    def flush(self, folder: Path) -> None:
        """Write the databases into the folder in which AppWorld's evaluator looks for them."""
        target = folder / "tasks" / self.task.id / "dbs"
        save_local_dbs(self._home, str(target), format="changes", app_names=list(self.apps), delete_if_exists=True, save_model_hashes=True)


class World:
    """Serves one episode between the client and the interpreter."""

    def __init__(self, opened: OpenTask, client: Lines, interpreter: Lines, lifeline: socket.socket, folder: Path, timeout_s: int, output_chars: int):
        self._opened, self._client, self._interpreter, self._lifeline = opened, client, interpreter, lifeline
        self._folder, self._timeout_s, self._output_chars = folder, timeout_s, output_chars
        self._killed: str | None = None
        self._completed = False
        self._calls: list[list] = []
        self._kept: frozenset[str] = frozenset()
        self._bytes_left = WRITE_BUDGET

    def serve(self) -> None:
        """Serve until the client closes the connection."""
        set_local_random_seed(RANDOM_SEED)  # Python reseeds itself after a fork
        renew_secrets(self._opened.apps)
        deadline = clock() + self._timeout_s
        try:
            self._interpreter.send({"now": self._opened.task.datetime.isoformat()}, deadline)
            self._interpreter.receive(deadline)
        except (Closed, Late, Malformed) as error:
            self._kill(error)
        self._client.send({"info": self._opened.info(), "killed": self._killed})
        operations = {"execute": self._execute, "flush": self._flush, "who": self._who}
        while True:
            try:
                message = self._client.receive()
            except Closed:
                return
            self._client.send(operations[message.pop("op")](**message))

    def _execute(self, code: str, kept: list[str]) -> dict:
        """Run a block. `kept` are functions that it defines; later API calls report which of these they came from."""
        self._calls, output = [], ""
        self._kept |= frozenset(kept)
        if self._killed is None:
            try:
                output = self._run(code, kept)
            except (Closed, Late, Malformed, Refused) as error:
                self._kill(error)
        failed = self._killed is not None or output.startswith("Execution failed. Traceback:")
        return {"output": output, "failed": failed, "completed": self._completed, "killed": self._killed, "calls": self._calls}

    def _run(self, code: str, kept: list[str]) -> str:
        deadline = clock() + self._timeout_s + GRACE_S
        self._interpreter.send({"code": code, "kept": kept}, deadline)
        while True:
            message = self._interpreter.receive(deadline)
            if not isinstance(message, dict) or len(message) != 1:
                raise Refused("not one field")
            if "done" in message:
                if not isinstance(message["done"], str):
                    raise Refused("output of the wrong kind")
                return enforce_limit(message["done"], self._output_chars)
            if len(self._calls) >= CALL_LIMIT:
                raise Refused("too many API calls")
            self._interpreter.send(self._answer(message.get("api")), deadline)

    def _answer(self, message: object) -> dict:
        request = read_request(message, self._kept)
        answer, gateway = self._call(request), self._opened.gateway
        ok = answer.response.status == 200
        about = gateway.documented_endpoint(request) if answer.app == "api_docs" else ""
        self._calls.append([answer.app, answer.api, answer.response.status, ok, about, request.within])
        if ok and (answer.app, answer.api) == ("supervisor", "complete_task"):
            self._completed = True
        return asdict(answer.response)

    def _call(self, request: Request) -> Answer:
        if request.writes > self._bytes_left:
            return Answer(error_response(413, FULL), "", "")
        self._bytes_left -= request.writes
        return self._opened.gateway.answer(request)

    def _kill(self, error: Exception) -> None:
        if isinstance(error, Closed):
            self._killed = self._cause_of_death()
        elif isinstance(error, Late):
            self._killed = f"time: it did not end {GRACE_S:g} s after the limit of {self._timeout_s} s"
        else:
            self._killed = f"protocol: {error}"
        self._lifeline.close()

    def _cause_of_death(self) -> str:
        try:
            self._lifeline.settimeout(GRACE_S)
            code = int(self._lifeline.recv(64) or b"0")
        except (OSError, ValueError):
            return "died"
        signals = {-9: "killed", -24: "cpu: it used up its processor time", -11: "crashed", -31: "forbidden system call"}
        return signals.get(code, f"died with code {code}")

    def _flush(self) -> dict:
        """Kill the interpreter, so that nothing changes the databases any more, then write them."""
        self._lifeline.close()
        self._killed = self._killed or "flushed"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._opened.flush(self._folder)
        return {"flushed": True}

    def _who(self) -> dict:
        return {"pid": os.getpid()}
