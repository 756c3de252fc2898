"""The warmed process from which everything is forked: `python -m engine.zygote --root DIR --scratch DIR …`, its control socket as standard input.

Messages of the client, each with two open files, a stream and a leash: {"op": "open", "task": id, "episode": name} and {"op": "judge", …}.
"""

import argparse
import functools
import gc
import os
import resource
import socket
import sys
from pathlib import Path

from engine import cell
from engine.warden import ForkServers, Warden
from engine.wire import Lines, send_message

VERSION = "0.1.3.post1"
FIRST_DATE = "2023-05-18T12:00:00"
"""Frozen before any fork: a freeze on top of another costs nothing, the first one searches every module."""
WORLD_MEMORY, WORLD_FILE = 2 << 30, 256 << 20
"""Bytes: what a world may hold beyond what it begins with, and its largest file."""
REFUSED = 3
WARM_EPISODE = ".warm"


def main() -> int:
    """Prepares, says what it is, serves."""
    options = _options()
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    scratch = Path(options.scratch)
    os.environ.update(APPWORLD_ROOT=options.root, IPYTHONDIR=str(scratch / "ipython"), HOME=str(scratch), APPWORLD_CACHE=str(scratch / "cache"))
    os.chdir(scratch)

    import appworld

    if appworld.__version__ != VERSION:
        send_message(control, {"error": f"appworld {appworld.__version__} is installed, {VERSION} is needed"})
        return REFUSED
    cells = cell.Cells(cell.Options(options.timeout_s, options.memory_mb, options.cpu_s, options.output_chars), scratch / "jail")
    zygote = Zygote(control, cells, options, scratch)
    walls = cells.walls()
    if options.isolation == "full" and not walls.full:
        send_message(control, {"refused": "; ".join(walls.missing)})
        return REFUSED
    send_message(control, {"ready": True, "missing": walls.missing, "pid": os.getpid()})
    zygote.run()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("root", "scratch", "isolation"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("timeout-s", "memory-mb", "cpu-s", "output-chars", "templates"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


class Zygote:
    """Everything imported and warm, no task open."""

    def __init__(self, control: socket.socket, cells: "cell.Cells", options: argparse.Namespace, scratch: Path):
        from engine import gateway, shortcuts, warming
        from engine.judge import Judges

        self._cells, self._options = cells, options
        self._outputs = scratch / "episodes"
        shortcuts.take()
        self._gateway = gateway.Gateway()
        cells.admit(gateway.public_apis())
        warm_task = min(path.name for path in (Path(options.root) / "data" / "tasks").iterdir())
        warming.warm(self._gateway, warm_task, self._outputs / WARM_EPISODE)
        warming.freeze(FIRST_DATE)
        gc.collect()
        gc.freeze()
        self._warden = Warden(control, self._on_message)
        self._templates = ForkServers(self._warden, options.templates)
        self._judges = ForkServers(self._warden, 1)
        self._judge = lambda inside: Judges(inside, self._outputs, warm_task, WARM_EPISODE, options.templates).run()
        self._judges.start("judges", self._judge)  # it gets warm meanwhile

    def run(self) -> None:
        """Until the client hangs up; everything ends with this process."""
        self._warden.run(linger=False)

    def _on_message(self, message: dict, stream: socket.socket, leash: socket.socket) -> None:
        with stream, leash:
            if message["op"] == "judge":
                self._judges.send("judges", self._judge, message, (stream.fileno(), leash.fileno()))
            else:
                self._open(message, stream, leash)

    def _open(self, message: dict, stream: socket.socket, leash: socket.socket) -> None:
        to_cell, to_world = socket.socketpair()
        cell_leash, world_leash = socket.socketpair()
        with to_cell, to_world, cell_leash, world_leash:
            self._cells.fork(to_cell, cell_leash)
            descriptors = tuple(end.fileno() for end in (stream, leash, to_world, world_leash))
            start = functools.partial(Template, message["task"], self._gateway, self._options, self._outputs)
            self._templates.send(message["task"], lambda inside: start(inside).run(), message, descriptors)


class Template:
    """A process that holds one task open, in the state in which agents find it, and forks worlds."""

    def __init__(self, task_id: str, gateway, options: argparse.Namespace, outputs: Path, control: socket.socket):
        from engine.world import OpenTask

        self._control, self._options, self._outputs = control, options, outputs
        self._opened, self._error = None, ""
        try:
            self._opened = OpenTask(task_id, gateway)
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"
        gc.freeze()

    def run(self) -> None:
        """Until the zygote retires it and its last world has ended."""
        self._warden = Warden(self._control, self._on_message)
        self._warden.run()

    def _on_message(self, message: dict, client: socket.socket, leash: socket.socket, cell_stream: socket.socket, cell_leash: socket.socket) -> None:
        if self._opened is None:
            Lines(client).send({"error": self._error})
            leash.close()
        else:
            keep = (client.fileno(), cell_stream.fileno(), cell_leash.fileno())
            self._warden.fork(lambda: self._world(message["episode"], client, cell_stream, cell_leash), leash, keep)
        for end in (client, cell_stream, cell_leash):
            end.close()

    def _world(self, episode: str, client: socket.socket, cell_stream: socket.socket, cell_leash: socket.socket) -> None:
        from engine.world import REQUEST_LIMIT, World

        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for kind, value in ((resource.RLIMIT_AS, size + WORLD_MEMORY), (resource.RLIMIT_FSIZE, WORLD_FILE), (resource.RLIMIT_CORE, 0)):
            resource.setrlimit(kind, (value, value))
        folder = self._outputs / episode
        World(self._opened, Lines(client), Lines(cell_stream, REQUEST_LIMIT), cell_leash, folder, self._options.timeout_s).serve()


if __name__ == "__main__":
    sys.exit(main())
