"""The warm process from which all others are forked: `python -m engine.zygote`, with its control socket as stdin.

The client's first message holds the `Settings`. Each later message comes with two sockets, a stream and a lifeline:
{"op": "open", "task": id, "episode": name} or {"op": "judge", "task": id, "episode": name}.
"""

import functools
import gc
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from engine.fork_server import ForkServer, ForkServerPool
from engine.interpreter_server import InterpreterOptions, InterpreterServer
from engine.limits import ProcessLimits, memory_allowance, raise_oom_score
from engine.wire import Lines, receive_message, send_message

VERSION = "0.1.3.post1"
FIRST_DATE = "2023-05-18T12:00:00"
"""Time at which the clock is frozen before any fork: the first freeze searches every module, later ones are free."""
REFUSED = 3
"""Exit code if the engine cannot serve as asked."""
ZYGOTE_OOM_SCORE = 500
"""If memory runs out, the kernel kills an episode (1000) before the engine, and the engine before the trainer."""
WARM_EPISODE = ".warm"
WORLD_FILE = 64 << 20
"""Bytes of the largest file that a world may write."""


@dataclass(frozen=True)
class Settings:
    """The client's settings. They arrive as a message, because every forked process can read its command line."""

    root: str
    """Path of the data root."""
    scratch: str
    """Folder for the files of episodes."""
    isolation: str
    """`full` or `degraded-allowed`."""
    timeout_s: int
    memory_mb: int
    cpu_s: int
    output_chars: int
    templates: int
    """Number of tasks that are held open."""


def main() -> int:
    """Warm up, report to the client, and serve."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if (received := receive_message(control)) is None:
        return 0  # the client has ended
    options = Settings(**received[0])
    raise_oom_score(ZYGOTE_OOM_SCORE)
    scratch = Path(options.scratch)
    os.environ.update(APPWORLD_ROOT=options.root, IPYTHONDIR=str(scratch / "ipython"), HOME=str(scratch), APPWORLD_CACHE=str(scratch / "cache"))
    os.chdir(scratch)

    import appworld

    if appworld.__version__ != VERSION:
        send_message(control, {"error": f"appworld {appworld.__version__} is installed, {VERSION} is needed"})
        return REFUSED
    limits = InterpreterOptions(options.timeout_s, options.memory_mb, options.cpu_s, options.output_chars)
    interpreters = InterpreterServer(limits, scratch / "sandbox")
    zygote = Zygote(control, interpreters, options, scratch)
    isolation = interpreters.wait()
    if options.isolation == "full" and not isolation.full:
        send_message(control, {"refused": "; ".join(isolation.missing)})
        return REFUSED
    send_message(control, {"ready": True, "missing": isolation.missing, "pid": os.getpid()})
    zygote.run()
    return 0


class Zygote:
    """The warm process: everything is imported, and no task is open."""

    def __init__(self, control: socket.socket, interpreters: InterpreterServer, options: Settings, scratch: Path):
        from engine import gateway, identity, shortcuts, warming
        from engine.judge import JudgeServer

        self._interpreters, self._options = interpreters, options
        self._outputs = scratch / "episodes"
        shortcuts.install()
        identity.randomize_codes()
        self._gateway = gateway.Gateway()
        interpreters.send_apis(gateway.public_apis())
        warm_task = min(path.name for path in (Path(options.root) / "data" / "tasks").iterdir())
        warming.warm(self._gateway, warm_task, self._outputs / WARM_EPISODE)
        warming.freeze(FIRST_DATE)
        gc.collect()
        gc.freeze()
        self._server = ForkServer(control, self._on_message)
        self._templates = ForkServerPool(self._server, options.templates)
        self._judges = ForkServerPool(self._server, 1)
        self._judge = lambda inside: JudgeServer(inside, self._outputs, warm_task, WARM_EPISODE, options.templates).run()
        self._judges.start("judges", self._judge)  # it warms up in the background

    def run(self) -> None:
        """Serve until the client closes the connection; all other processes end with this one."""
        self._server.run(linger=False)

    def _on_message(self, message: dict, stream: socket.socket, lifeline: socket.socket) -> None:
        with stream, lifeline:
            if message["op"] == "judge":
                self._judges.send("judges", self._judge, message, (stream.fileno(), lifeline.fileno()))
            else:
                self._open(message, stream, lifeline)

    def _open(self, message: dict, stream: socket.socket, lifeline: socket.socket) -> None:
        to_interpreter, to_world = socket.socketpair()
        interpreter_end, world_end = socket.socketpair()
        with to_interpreter, to_world, interpreter_end, world_end:
            self._interpreters.fork(to_interpreter, interpreter_end)
            descriptors = tuple(end.fileno() for end in (stream, lifeline, to_world, world_end))
            start = functools.partial(Template, message["task"], self._gateway, self._options, self._outputs)
            self._templates.send(message["task"], lambda inside: start(inside).run(), message, descriptors)


class Template:
    """A process that holds one task open in the state in which agents find it, and forks its worlds."""

    def __init__(self, task_id: str, gateway, options: Settings, outputs: Path, control: socket.socket):
        from engine.world import OpenTask

        self._control, self._options, self._outputs = control, options, outputs
        self._opened, self._error, self._memory = None, "", memory_allowance(Path(options.root) / "data")
        try:
            self._opened = OpenTask(task_id, gateway)
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"
        gc.freeze()

    def run(self) -> None:
        """Serve until the zygote retires the template and its last world has ended."""
        self._server = ForkServer(self._control, self._on_message)
        self._server.run()

    def _on_message(self, message: dict, client: socket.socket, lifeline: socket.socket, interpreter: socket.socket, its_lifeline: socket.socket) -> None:
        ends = (client, interpreter, its_lifeline)
        if self._opened is None:
            Lines(client).send({"error": self._error})
            lifeline.close()
        else:
            self._server.fork(lambda: self._world(message["episode"], *ends), lifeline, tuple(end.fileno() for end in ends))
        for end in ends:
            end.close()

    def _world(self, episode: str, client: socket.socket, interpreter: socket.socket, its_lifeline: socket.socket) -> None:
        from engine.world import REQUEST_LIMIT, World

        ProcessLimits(self._memory, WORLD_FILE).apply()
        folder, options = self._outputs / episode, self._options
        World(self._opened, Lines(client), Lines(interpreter, REQUEST_LIMIT), its_lifeline, folder, options.timeout_s, options.output_chars).serve()


if __name__ == "__main__":
    sys.exit(main())
