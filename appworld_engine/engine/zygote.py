"""The warmed process from which everything is forked: `python -m engine.zygote`, with its control socket as standard input.

The client's first message holds the `Settings`. Each later one comes with two open files, a stream and a leash:
{"op": "open", "task": id, "episode": name} or {"op": "judge", "task": id, "episode": name}.
"""

import functools
import gc
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from engine import cell
from engine.bounds import Bounds, offer_to_oom_killer, room
from engine.warden import ForkServers, Warden
from engine.wire import Lines, receive_message, send_message

VERSION = "0.1.3.post1"
FIRST_DATE = "2023-05-18T12:00:00"
"""Frozen before any fork: a freeze on top of another costs nothing, the first one searches every module."""
REFUSED = 3
ZYGOTE_OOM_SCORE = 500
"""Where memory runs out, the kernel ends the engine before the training process, and an episode (1000) before the engine."""
WARM_EPISODE = ".warm"
WORLD_FILE = 64 << 20
"""Bytes of the largest file that a world may write."""


@dataclass(frozen=True)
class Settings:
    """What the client asks for. They come as a message: what stands on a command line, every process forked from it can read."""

    root: str
    """The data root."""
    scratch: str
    """A folder for what episodes leave."""
    isolation: str
    timeout_s: int
    memory_mb: int
    cpu_s: int
    output_chars: int
    templates: int


def main() -> int:
    """Prepares, says what it is, serves."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if (received := receive_message(control)) is None:
        return 0  # the client has ended
    options = Settings(**received[0])
    offer_to_oom_killer(ZYGOTE_OOM_SCORE)
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


class Zygote:
    """Everything imported and warm, no task open."""

    def __init__(self, control: socket.socket, cells: "cell.Cells", options: Settings, scratch: Path):
        from engine import gateway, identity, shortcuts, warming
        from engine.judge import Judges

        self._cells, self._options = cells, options
        self._outputs = scratch / "episodes"
        shortcuts.take()
        identity.draw_codes_at_random()
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

    def __init__(self, task_id: str, gateway, options: Settings, outputs: Path, control: socket.socket):
        from engine.world import OpenTask

        self._control, self._options, self._outputs = control, options, outputs
        self._opened, self._error, self._room = None, "", room(Path(options.root) / "data")
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

        Bounds(self._room, WORLD_FILE).take()
        folder, options = self._outputs / episode, self._options
        World(self._opened, Lines(client), Lines(cell_stream, REQUEST_LIMIT), cell_leash, folder, options.timeout_s, options.output_chars).serve()


if __name__ == "__main__":
    sys.exit(main())
