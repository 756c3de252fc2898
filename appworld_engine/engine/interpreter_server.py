"""The sandboxed process that forks interpreters. The zygote forks it before it reads any data."""

import gc
import os
import socket
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from engine import sandbox
from engine.fork_server import FIRST_FREE, ForkServer, close_all_but, die_with_parent
from engine.limits import EPISODE_OOM_SCORE, raise_oom_score
from engine.seccomp import filter_reason
from engine.wire import Closed, Lines, send_message


@dataclass(frozen=True)
class InterpreterOptions:
    """Limits of every interpreter."""

    timeout_s: int
    """Seconds that one block of code may take."""
    memory_mb: int
    cpu_s: int
    output_chars: int
    """Characters that one block may print; the middle of longer output is cut out."""


class InterpreterServer:
    """The zygote's handle of the sandboxed process."""

    def __init__(self, options: InterpreterOptions, place: Path):
        """Fork the process immediately.

        Args:
            place: a folder to create, on which the root of the interpreters is mounted.
        """
        place.mkdir()
        self._control, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours, theirs = socket.socketpair()
        self._lines, parent = Lines(ours), os.getpid()
        if os.fork() == 0:
            try:
                die_with_parent()
                if os.getppid() == parent:
                    close_all_but(inside.fileno(), theirs.fileno())
                    _SandboxedServer(inside, Lines(theirs), options, place).run()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        inside.close()
        theirs.close()

    def send_apis(self, apis: dict) -> None:
        """Send the APIs that agents may call, app -> API -> path and method; the process then warms up."""
        self._lines.send(apis)

    def wait(self) -> sandbox.Isolation:
        """Wait until the process is ready, and return the isolation that it achieved."""
        try:
            message = self._lines.receive()
        except Closed:
            raise RuntimeError("the process that runs interpreters ended during its start") from None
        return sandbox.Isolation(**{**message, "missing": tuple(message["missing"])})

    def fork(self, stream: socket.socket, lifeline: socket.socket) -> None:
        """Fork an interpreter that speaks over `stream` and lives while the other end of `lifeline` is open."""
        send_message(self._control, {}, (stream.fileno(), lifeline.fileno()))


class _SandboxedServer:
    """The sandboxed process itself."""

    def __init__(self, control: socket.socket, lines: Lines, options: InterpreterOptions, place: Path):
        self._control, self._lines, self._options, self._place = control, lines, options, place
        self._forked = 0

    def run(self) -> None:
        """Isolate this process, then serve until the zygote ends."""
        no_namespaces = sandbox.enter_namespaces()
        if no_namespaces is None:
            self._become_first_process()
        apis = self._lines.receive()

        from engine.interpreter import Interpreter, preload, warm

        preload()
        interpreter = Interpreter(apis)
        warm(interpreter)
        self._interpreter = interpreter
        sandbox.record_virtual_size()
        sandbox.erase_start_strings()
        raise_oom_score(EPISODE_OOM_SCORE)
        self._isolation = self._isolate(no_namespaces)
        gc.collect()
        gc.freeze()
        self._lines.send(asdict(self._isolation))
        self._server = ForkServer(self._control, self._on_message)
        self._server.run()

    def _become_first_process(self) -> None:
        """Continue in a child, the first process of the new namespace, with which all its processes end."""
        child = os.fork()
        if child:
            close_all_but()
            os.waitpid(child, 0)
            os._exit(0)
        die_with_parent()

    def _isolate(self, no_namespaces: str | None) -> sandbox.Isolation:
        """Enter the empty root, and return what isolates the agent's code and what is missing."""
        own_account = sandbox.can_change_account()
        reason = no_namespaces
        missing = [] if reason is None else [f"no namespaces ({reason})"]
        if reason is None and (reason := sandbox.enter_empty_root(self._place)) is not None:
            missing.append(f"no empty root ({reason})")
        if no_filter := filter_reason():
            missing.append(f"no system-call filter ({no_filter})")
        return sandbox.Isolation(reason is None, no_filter is None, own_account, tuple(missing))

    def _on_message(self, _message: dict, stream: socket.socket, lifeline: socket.socket) -> None:
        self._forked += 1
        self._server.fork(lambda: self._interpret(stream), lifeline, (stream.fileno(),))
        stream.close()

    def _interpret(self, stream: socket.socket) -> None:
        os.setsid()
        self._interpreter.renew_loop()
        sandbox.lock_down(self._isolation, sandbox.InterpreterLimits(self._options.memory_mb, self._options.cpu_s), self._forked)
        # From here on, no failure reaches the log: the agent's code must not hold any file of ours.
        os.closerange(0, FIRST_FREE)
        try:
            self._interpreter.serve(stream, self._options.timeout_s, self._options.output_chars)
        finally:
            os._exit(0)
