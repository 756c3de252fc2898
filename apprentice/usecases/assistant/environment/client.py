"""The client of the engine: opens AppWorld episodes by the thousand, each in processes of its own, and has them judged.

    workers = AppWorldWorkers(python, root, scratch)
    await workers.start()
    world = await workers.open(task_id, episode="e1")
    execution = await world.execute("print(apis.supervisor.show_profile())")
    judgement = await world.judge()

The agent's code is hostile by assumption: it runs in a process that holds nothing but a socket to the apps (see `engine`). Whatever it does, the
calls here return within their time.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from apprentice.errors import ApprenticeError, InfrastructureFault
from apprentice.processes.children import Child, spawn
from apprentice.records.text import plain
from apprentice.usecases.assistant.config import ENGINE

START_TIMEOUT_S = 180.0
ANSWER_TIMEOUT_S = 60.0
"""For opening, flushing and judging, on a busy machine."""
GRACE_S = 10.0
"""On top of the world's own limit, before the world is killed."""
ENCODED_CHARACTER, CALLS_LIMIT = 12, 2 << 20
"""Bytes that a character takes in JSON, at most, and all calls of a block: what an answer of the engine holds beside its output."""
JUDGE_ATTEMPTS = 2
"""A judge that was killed from outside is no reason to fail an episode."""
ENGINE_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ")
"""What the engine needs of this process's environment, which holds keys and tokens as well."""
EPISODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What one episode may use."""

    timeout_s: int = 30
    """Of one execution, in seconds."""
    memory_mb: int = 256
    """Of the agent's code, beyond what Python begins with."""
    cpu_s: int = 300
    """Processor seconds of the agent's code in one episode."""
    output_chars: int = 20_000
    """Of one execution's output; the middle of more is cut out."""
    templates: int = 8
    """Tasks held open at the same time, so that further episodes of them are forked and not opened."""


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What an agent is told of its task, and its difficulty."""

    task_id: str
    instruction: str
    first_name: str
    last_name: str
    email: str
    phone_number: str
    datetime: str
    """Of the simulated world, ISO format."""
    apps: tuple[str, ...]
    difficulty: int | None


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One request that reached the apps."""

    app: str
    api: str
    """Empty where no API has such an address."""
    status: int
    """Of HTTP."""
    ok: bool
    about: str = ""
    """Of a request for documentation: the `app.api` or the app that it names; empty where there is none of that name."""
    within: tuple[str, ...] = ()
    """Functions at hand from earlier tasks during whose execution it was made."""

    def __str__(self) -> str:
        """`app.api status`, as `Turn.calls` holds it; documentation as `api_docs.show_api_doc(app.api) status`."""
        return f"{self.app}.{self.api}{f'({self.about})' if self.about else ''} {self.status}"


@dataclass(frozen=True, slots=True)
class Execution:
    """What came of one block of code."""

    output: str
    """As AppWorld words it."""
    failed: bool
    completed: bool
    """The agent has called `complete_task`, in this block or before."""
    killed: str | None
    """Why the episode was ended from outside; None while it lives."""
    api_calls: tuple[ApiCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """AppWorld's tests on the databases that the episode left."""

    success: bool
    passes: int
    tests: int
    failures: tuple[str, ...]


class WorldDied(InfrastructureFault):
    """A process of the engine ended, or did not answer, for a reason that is not the agent's."""


class World:
    """One episode."""

    def __init__(self, workers: "AppWorldWorkers", task_id: str, episode: str, link: "Link", info: TaskInfo, killed: str | None):
        self._workers, self._link, self._killed = workers, link, killed
        self.task_id, self.episode, self.info = task_id, episode, info

    async def execute(self, code: str, kept: Sequence[str] = ()) -> Execution:
        """Runs one block. Ends within the limit and a few seconds, whatever the code does; a dead world answers at once.

        Args:
            code: the block.
            kept: names of functions that it defines; later calls of the apps tell which of these they were made in.
        """
        if self._killed is None:
            limit = self._workers.limits.timeout_s + GRACE_S
            try:
                answer = await self._link.ask({"op": "execute", "code": code, "kept": list(kept)}, limit)
            except WorldDied as error:
                self._killed = str(error)
                self._link.cut()
            else:
                self._killed = answer["killed"]
                calls = tuple(ApiCall(*call, within=tuple(within)) for *call, within in answer["calls"])
                return Execution(plain(answer["output"]), answer["failed"], answer["completed"], self._killed, calls)
        return Execution("", True, False, self._killed)

    async def pid(self) -> int:
        """Process id of the world, for those who measure it.

        Raises:
            WorldDied
        """
        return (await self._link.ask({"op": "who"}, ANSWER_TIMEOUT_S))["pid"]

    async def flush(self) -> None:
        """Ends the agent's code and writes the databases for a judge.

        Raises:
            WorldDied
        """
        await self._link.ask({"op": "flush"}, ANSWER_TIMEOUT_S)

    async def judge(self) -> Judgement:
        """Ends the episode and judges it, in a process that never met the agent's code. An episode that was killed has failed."""
        if self._killed is None:
            try:
                await self.flush()
            except WorldDied as error:
                self._killed = str(error)
        self._link.cut()
        if self._killed is not None:
            return Judgement(False, 0, 1, (f"the episode was killed: {self._killed}",))
        self._killed = "judged"
        return await self._workers.judge(self.task_id, self.episode)

    async def close(self) -> None:
        """Ends the episode's processes; safe to call twice."""
        self._killed = self._killed or "closed"
        self._link.cut()
        shutil.rmtree(self._workers.outputs / self.episode, ignore_errors=True)


class Link:
    """A stream to one process of the engine, and the leash by which it lives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, leash: socket.socket):
        self._reader, self._writer, self._leash = reader, writer, leash

    async def ask(self, message: dict, timeout_s: float) -> dict:
        """Sends one message and waits for the answer to it.

        Raises:
            WorldDied
        """
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            return await self.hear(timeout_s)
        except (ConnectionError, RuntimeError):
            raise WorldDied("its process ended") from None

    async def hear(self, timeout_s: float) -> dict:
        """The next message.

        Raises:
            WorldDied
        """
        try:
            line = await asyncio.wait_for(self._reader.readline(), timeout_s)
        except TimeoutError:
            raise WorldDied(f"time: no answer within {timeout_s:g} s") from None
        except (ConnectionError, ValueError):
            raise WorldDied("its process ended") from None
        if not line.endswith(b"\n"):
            raise WorldDied("its process ended")
        return json.loads(line)

    def cut(self) -> None:
        """Lets go: the process is killed."""
        self._leash.close()
        self._writer.close()


class AppWorldWorkers:
    """The engine of one process: a zygote and what is forked from it. Everything ends with this process, also after SIGKILL."""

    def __init__(
        self,
        python: Path,
        root: Path,
        scratch: Path,
        *,
        limits: WorkerLimits = WorkerLimits(),  # noqa: B008 (frozen)
        isolation: Literal["full", "degraded-allowed"] = "full",
    ):
        """`python`: of .venv-appworld; `root`: a data root of AppWorld; `scratch`: a folder for what episodes leave, made and emptied here."""
        self._python, self._root, self._scratch = Path(python).absolute(), Path(root).absolute(), Path(scratch).absolute()
        self.limits, self._isolation = limits, isolation
        self.outputs = self._scratch / "engine" / "episodes"
        self._child: Child | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._pid: int | None = None
        self.missing_walls: tuple[str, ...] = ()
        """Walls around the agent's code that this machine does not allow; empty with full isolation."""

    @property
    def pid(self) -> int | None:
        """Process id of the zygote; None before the start."""
        return self._pid

    @property
    def supervisor_pid(self) -> int | None:
        """Process id above all processes of the engine; None before the start."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Warms a zygote, in some ten seconds.

        Raises:
            ApprenticeError: no AppWorld environment, no data root, another version, or no isolation where "full" is asked for.
        """
        async with self._starting:
            if self._child is None:
                await self._start()

    async def open(self, task_id: str, episode: str) -> World:
        """A new episode of a task.

        Raises:
            ApprenticeError: there is no such task, or its data cannot be read.
            WorldDied: the engine broke.
        """
        if not EPISODE.fullmatch(episode):
            raise ApprenticeError(f"an episode cannot be called {episode!r}", todo="use letters, digits, dots, dashes and underscores")
        if not EPISODE.fullmatch(task_id) or not (self._root / "data" / "tasks" / task_id / "specs.json").is_file():
            raise ApprenticeError(f"there is no task {task_id!r}", where=self._root, todo="name one that its data/datasets/*.txt list")
        link = await self._connect({"op": "open", "task": task_id, "episode": episode})
        try:
            answer = await link.hear(ANSWER_TIMEOUT_S)
        except BaseException:
            link.cut()
            raise
        if "error" in answer:
            link.cut()
            raise ApprenticeError(f"task {task_id} cannot be opened: {answer['error']}", where=self._root, todo="make or download the data again")
        info = answer["info"]
        about = TaskInfo(task_id, info["instruction"], **info["supervisor"], datetime=info["datetime"], apps=tuple(info["apps"]), difficulty=info["difficulty"])
        return World(self, task_id, episode, link, about, answer["killed"])

    async def judge(self, task_id: str, episode: str) -> Judgement:
        """Judges what a world has flushed, in a fresh process; what it flushed is removed.

        An episode whose databases cannot be judged has failed, as long as its task can be judged as agents find it.

        Raises:
            WorldDied: the task's ground truth is missing or broken, or the engine ended.
        """
        try:
            for _attempt in range(JUDGE_ATTEMPTS):
                answer = await self._judged(task_id, episode)
                if "error" not in answer:
                    return Judgement(answer["success"], answer["passes"], answer["tests"], tuple(answer["failures"]))
                if not (self.outputs / episode).is_dir():
                    raise WorldDied(f"{task_id} could not be judged: what the episode left is gone")
        finally:
            shutil.rmtree(self.outputs / episode, ignore_errors=True)
        await self._check_ground_truth(task_id)
        return Judgement(False, 0, 1, (f"what the episode left cannot be judged: {plain(answer['error'])}",))

    async def _check_ground_truth(self, task_id: str) -> None:
        """Judges a world in which no agent was.

        Raises:
            WorldDied: it cannot be judged.
        """
        world = await self.open(task_id, uuid.uuid4().hex)
        try:
            await world.flush()
            answer = await self._judged(task_id, world.episode)
        finally:
            await world.close()
        if "error" in answer:
            raise WorldDied(f"{task_id} could not be judged: {answer['error']}")

    async def _judged(self, task_id: str, episode: str) -> dict:
        """What one judge answers; `{"error": reason}` where it ended without an answer."""
        link = await self._connect({"op": "judge", "task": task_id, "episode": episode})
        try:
            return await link.hear(ANSWER_TIMEOUT_S)
        except WorldDied as error:
            return {"error": str(error)}
        finally:
            link.cut()

    async def close(self) -> None:
        """Ends every process of the engine and removes what it left."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._child is not None:
            await asyncio.to_thread(self._child.stop)
            self._child = None
        shutil.rmtree(self._scratch / "engine", ignore_errors=True)

    async def _connect(self, message: dict) -> Link:
        """A new process for `message`, and the stream to it. A zygote that has ended is started again."""
        if self._child is None or self._child.poll() is not None:
            await self._restart()
        ours, theirs = socket.socketpair()
        leash, held = socket.socketpair()
        with theirs, held:
            try:
                socket.send_fds(self._control, [json.dumps(message).encode()], [theirs.fileno(), held.fileno()])
            except OSError:
                ours.close()
                leash.close()
                raise WorldDied("the engine ended") from None
        reader, writer = await asyncio.open_connection(sock=ours, limit=ENCODED_CHARACTER * self.limits.output_chars + CALLS_LIMIT)
        return Link(reader, writer, leash)

    async def _restart(self) -> None:
        async with self._starting:
            if self._child is not None and self._child.poll() is not None:
                await self.close()
            if self._child is None:
                await self._start()

    async def _start(self) -> None:
        self._check()
        folder = self._scratch / "engine"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "episodes").mkdir(parents=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = self._scratch / "engine.log"
        with theirs:
            self._child = spawn(
                [str(self._python), "-W", "ignore", "-m", "engine.zygote"],
                log=log,
                stdin=theirs.fileno(),
                env={**dict.fromkeys(os.environ.keys() - ENGINE_VARIABLES), "PYTHONPATH": str(ENGINE)},
                grace_s=2.0,
            )
        self._control = ours
        ours.send(json.dumps(self._settings(folder)).encode())
        answer = await self._hello(ours, log)
        if "ready" not in answer:
            await self.close()
            self._refuse(answer)
        self._pid, self.missing_walls = answer["pid"], tuple(answer["missing"])
        if self.missing_walls:
            print(f"WARNING: the agent's code runs with degraded isolation: {'; '.join(self.missing_walls)}", file=sys.stderr, flush=True)

    def _check(self) -> None:
        if not self._python.is_file():
            raise ApprenticeError("there is no AppWorld environment", where=self._python, todo="run `python3.11 requirements/install.py appworld`")
        if not (self._root / "data" / "tasks").is_dir() or not (self._root / "data" / "base_dbs").is_dir():
            raise ApprenticeError("this is no data root of AppWorld", where=self._root, todo="generate one, or run `appworld download data` there")

    def _settings(self, folder: Path) -> dict:
        """The engine's `Settings`."""
        return {"root": str(self._root), "scratch": str(folder), "isolation": self._isolation, **asdict(self.limits)}

    async def _hello(self, control: socket.socket, log: Path) -> dict:
        control.setblocking(False)
        loop, deadline = asyncio.get_running_loop(), asyncio.get_running_loop().time() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(TimeoutError):
                data = await asyncio.wait_for(loop.sock_recv(control, 1 << 16), 1.0)
                control.setblocking(True)
                return json.loads(data) if data else {"error": "it ended while it started", "log": str(log)}
            if self._child.poll() is not None or loop.time() > deadline:
                return {"error": "it did not start", "log": str(log)}

    def _refuse(self, answer: dict) -> None:
        if "refused" in answer:
            raise ApprenticeError(
                f"this machine cannot isolate the agent's code: {answer['refused']}",
                todo='run as root or allow user namespaces, or set isolation to "degraded-allowed" where the code is trusted',
            )
        where = answer.get("log", self._python)
        raise ApprenticeError(f"AppWorld's engine: {answer['error']}", where=where, todo="run `python3.11 requirements/install.py appworld`, read the log")


__all__ = ["ApiCall", "AppWorldWorkers", "Execution", "Judgement", "TaskInfo", "WorkerLimits", "World", "WorldDied"]
