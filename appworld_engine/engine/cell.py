"""The process that forks interpreters: itself a fork of the zygote from before any data was read, behind the walls of `jail`."""

import gc
import os
import socket
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from engine import jail
from engine.bounds import EPISODE_OOM_SCORE, offer_to_oom_killer
from engine.warden import FIRST_FREE, Warden, die_with_parent, keep_only
from engine.wire import Closed, Lines, send_message


@dataclass(frozen=True)
class Options:
    """Of every interpreter."""

    timeout_s: int
    """Of one block of code."""
    memory_mb: int
    cpu_s: int
    output_chars: int
    """Of what one block may say; more is cut."""


class Cells:
    """The zygote's side."""

    def __init__(self, options: Options, place: Path):
        """Forks at once; `place`: an empty folder for the root of the interpreters."""
        place.mkdir()
        self._control, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours, theirs = socket.socketpair()
        self._lines, parent = Lines(ours), os.getpid()
        if os.fork() == 0:
            try:
                die_with_parent()
                if os.getppid() == parent:
                    keep_only(inside.fileno(), theirs.fileno())
                    _Keeper(inside, Lines(theirs), options, place).live()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        inside.close()
        theirs.close()

    def admit(self, apis: dict) -> None:
        """Tells the keeper what agents may call: app -> API -> path and method. It then gets ready, meanwhile."""
        self._lines.send(apis)

    def walls(self) -> jail.Walls:
        """Waits until it is ready; what holds the agent's code."""
        try:
            message = self._lines.receive()
        except Closed:
            raise RuntimeError("the process that runs interpreters ended while it got ready") from None
        return jail.Walls(**{**message, "missing": tuple(message["missing"])})

    def fork(self, stream: socket.socket, leash: socket.socket) -> None:
        """A new interpreter that speaks over `stream`, and lives while the other end of `leash` is held."""
        send_message(self._control, {}, (stream.fileno(), leash.fileno()))


class _Keeper:
    """Inside."""

    def __init__(self, control: socket.socket, lines: Lines, options: Options, place: Path):
        self._control, self._lines, self._options, self._place = control, lines, options, place
        self._number = 0

    def live(self) -> None:
        """Walls itself in, then serves until the zygote ends."""
        reason = jail.separate()
        if reason is None:
            self._become_first_process()
        apis = self._lines.receive()

        from engine.interpreter import Interpreter, preload, warm

        preload()
        interpreter = Interpreter(apis)
        warm(interpreter)
        self._interpreter = interpreter
        jail.note_size()
        jail.forget_start()
        offer_to_oom_killer(EPISODE_OOM_SCORE)
        own_account = jail.may_change_account()
        missing = [] if reason is None else [f"no namespaces ({reason})"]
        if reason is None and (reason := jail.empty_root(self._place)) is not None:
            missing.append(f"no empty root ({reason})")
        if unfiltered := jail.filter_reason():
            missing.append(f"no system-call filter ({unfiltered})")
        self._walls = jail.Walls(reason is None, unfiltered is None, own_account, tuple(missing))
        gc.collect()
        gc.freeze()
        self._lines.send(asdict(self._walls))
        self._warden = Warden(self._control, self._on_message)
        self._warden.run()

    def _become_first_process(self) -> None:
        """The next child is the first of the new process namespace, and all of them end with it."""
        child = os.fork()
        if child:
            keep_only()
            os.waitpid(child, 0)
            os._exit(0)
        die_with_parent()

    def _on_message(self, _message: dict, stream: socket.socket, leash: socket.socket) -> None:
        self._number += 1
        self._warden.fork(lambda: self._interpret(stream), leash, (stream.fileno(),))
        stream.close()

    def _interpret(self, stream: socket.socket) -> None:
        os.setsid()
        self._interpreter.renew_loop()
        jail.lock(self._walls, jail.Limits(self._options.memory_mb, self._options.cpu_s), self._number)
        # From here on nothing of what goes wrong reaches the log: the agent's code must hold no file of ours.
        os.closerange(0, FIRST_FREE)
        try:
            self._interpreter.serve(stream, self._options.timeout_s, self._options.output_chars)
        finally:
            os._exit(0)
