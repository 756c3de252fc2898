"""The engine's process: a zygote that forks all other processes of the engine."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from apprentice.errors import ApprenticeError
from apprentice.processes.children import Child, spawn
from apprentice.usecases.assistant.config import ENGINE
from apprentice.usecases.assistant.environment.episode import EpisodeLimits, WorldDied
from apprentice.usecases.assistant.environment.link import Link

START_TIMEOUT_S = 180.0
BYTES_PER_CHARACTER, CALLS_LIMIT = 12, 2 << 20
"""Bytes of JSON that one character takes at most, and those of all calls of a block: together the longest answer."""
ENGINE_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ")
"""Environment variables that the engine receives; the others may hold keys and tokens."""

Isolation = Literal["full", "degraded-allowed"]


class EngineProcess:
    """Starts the zygote, starts it again if it has died, and connects to the processes that it forks."""

    def __init__(self, python: Path, root: Path, scratch: Path, limits: EpisodeLimits, isolation: Isolation):
        self._python, self._root, self._folder = python, root, scratch / "engine"
        self._log = scratch / "engine.log"
        self._limits, self._isolation = limits, isolation
        self._child: Child | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self.pid: int | None = None
        self.missing_layers: tuple[str, ...] = ()

    @property
    def outputs(self) -> Path:
        """The folder into which episodes flush their databases."""
        return self._folder / "episodes"

    @property
    def supervisor_pid(self) -> int | None:
        """Process id of the engine's topmost process; None if the engine is not running."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the zygote and wait until it is warm, unless it has been started.

        Raises:
            ApprenticeError: the engine cannot run here.
        """
        async with self._starting:
            if self._child is None:
                await self._start()

    async def connect(self, message: dict) -> Link:
        """Ask for a process that handles `message`, and return the link to it; a dead zygote is started again.

        Raises:
            ApprenticeError: the engine cannot run here.
            WorldDied: the zygote ended.
        """
        if self._child is None or self._child.poll() is not None:
            await self._restart()
        ours, theirs = socket.socketpair()
        lifeline, held = socket.socketpair()
        with theirs, held:
            try:
                socket.send_fds(self._control, [json.dumps(message).encode()], [theirs.fileno(), held.fileno()])
            except OSError:
                ours.close()
                lifeline.close()
                raise WorldDied("the engine ended") from None
        reader, writer = await asyncio.open_connection(sock=ours, limit=BYTES_PER_CHARACTER * self._limits.output_chars + CALLS_LIMIT)
        return Link(reader, writer, lifeline)

    async def close(self) -> None:
        """End every process of the engine and remove its files."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._child is not None:
            await asyncio.to_thread(self._child.stop)
            self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _restart(self) -> None:
        async with self._starting:
            if self._child is not None and self._child.poll() is not None:
                await self.close()
            if self._child is None:
                await self._start()

    async def _start(self) -> None:
        self._check()
        shutil.rmtree(self._folder, ignore_errors=True)
        self.outputs.mkdir(parents=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child = spawn(
                [str(self._python), "-W", "ignore", "-m", "engine.zygote"],
                log=self._log,
                stdin=theirs.fileno(),
                env={**dict.fromkeys(os.environ.keys() - ENGINE_VARIABLES), "PYTHONPATH": str(ENGINE)},
                grace_s=2.0,
            )
        self._control = ours
        ours.send(json.dumps(self._settings()).encode())
        answer = await self._first_answer(ours)
        if "ready" not in answer:
            await self.close()
            raise self._refusal(answer)
        self.pid, self.missing_layers = answer["pid"], tuple(answer["missing"])
        if self.missing_layers:
            print(f"WARNING: the agent's code runs with degraded isolation: {'; '.join(self.missing_layers)}", file=sys.stderr, flush=True)

    def _check(self) -> None:
        if not self._python.is_file():
            raise ApprenticeError("AppWorld is not installed", where=self._python, todo="run `python3.11 requirements/install.py appworld`")
        if not (self._root / "data" / "tasks").is_dir() or not (self._root / "data" / "base_dbs").is_dir():
            raise ApprenticeError("this is not an AppWorld data root", where=self._root, todo="generate one, or run `appworld download data` there")

    def _settings(self) -> dict:
        """Return the fields of the engine's `Settings`."""
        return {"root": str(self._root), "scratch": str(self._folder), "isolation": self._isolation, **asdict(self._limits)}

    async def _first_answer(self, control: socket.socket) -> dict:
        """Return what the zygote reports after its start, or the error of a zygote that reports nothing."""
        control.setblocking(False)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(TimeoutError):
                data = await asyncio.wait_for(loop.sock_recv(control, 1 << 16), 1.0)
                control.setblocking(True)
                return json.loads(data) if data else {"error": "it ended during its start", "log": str(self._log)}
            if self._child.poll() is not None or loop.time() > deadline:
                return {"error": "it did not start", "log": str(self._log)}

    def _refusal(self, answer: dict) -> ApprenticeError:
        if "refused" in answer:
            return ApprenticeError(
                f"this machine cannot isolate the agent's code: {answer['refused']}",
                todo='run as root or allow user namespaces, or set isolation to "degraded-allowed" if you trust the code',
            )
        where = answer.get("log", self._python)
        return ApprenticeError(f"AppWorld's engine: {answer['error']}", where=where, todo="run `python3.11 requirements/install.py appworld`, or read the log")
