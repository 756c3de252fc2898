"""Forks children, each on a leash: a socket whose other end somebody holds. Let go of it and the child is killed.

The holder learns over the leash how the child ended. A pid is never signalled after its process was collected, so none is ever mistaken.
"""

import ctypes
import gc
import os
import select
import signal
import socket
from collections import OrderedDict
from collections.abc import Callable

from engine.wire import receive_message, send_message

PR_SET_PDEATHSIG = 1
FIRST_FREE = 3
"""Descriptors 0, 1 and 2 are standard input, output and error."""


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def keep_only(*descriptors: int) -> None:
    """Closes every other open file but standard input, output and error."""
    low = FIRST_FREE
    for descriptor in sorted(descriptors):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 20)


class Warden:
    """Serves one control socket and looks after the children forked meanwhile; single-threaded, so that it may always fork."""

    def __init__(self, control: socket.socket, on_message: Callable[..., None]):
        """`on_message` is called with each message that comes over the control socket, and the sockets sent with it."""
        self._control, self._on_message = control, on_message
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._leashes: dict[int, tuple[socket.socket, int]] = {}
        self._processes: dict[int, tuple[int, socket.socket, Callable[[], None] | None]] = {}
        self._open = True

    def fork(self, body: Callable[[], None], leash: socket.socket, keep: tuple[int, ...], on_end: Callable[[], None] | None = None) -> int:
        """Runs `body` in a child that keeps only the descriptors `keep`; its pid. `body` never returns into the caller's code."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._in_child(body, keep, parent)
        process = os.pidfd_open(pid)
        self._leashes[leash.fileno()] = (leash, process)
        self._processes[process] = (pid, leash, on_end)
        self._poll.register(process, select.POLLIN)
        self._poll.register(leash, select.POLLIN)
        return pid

    def _in_child(self, body: Callable[[], None], keep: tuple[int, ...], parent: int) -> None:
        code = 1
        try:
            die_with_parent()
            if os.getppid() == parent:
                keep_only(*keep)
                gc.enable()
                body()
                code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def run(self, *, linger: bool = True) -> None:
        """Until the control socket is closed and, where it is to `linger`, the last child has ended."""
        while self._open or (linger and self._processes):
            for descriptor, _ in self._poll.poll():
                if self._open and descriptor == self._control.fileno():
                    self._receive()
                elif descriptor in self._processes:
                    self._collect(descriptor)
                elif descriptor in self._leashes:
                    self._let_go(descriptor)

    def _receive(self) -> None:
        if (received := receive_message(self._control)) is None:
            self._open = False
            self._poll.unregister(self._control)
        else:
            message, sockets = received
            self._on_message(message, *sockets)

    def _let_go(self, descriptor: int) -> None:
        leash, process = self._leashes.pop(descriptor)
        self._poll.unregister(descriptor)
        signal.pidfd_send_signal(process, signal.SIGKILL)

    def _collect(self, process: int) -> None:
        pid, leash, on_end = self._processes.pop(process)
        self._poll.unregister(process)
        os.close(process)
        _, status = os.waitpid(pid, 0)
        if self._leashes.pop(leash.fileno(), None):
            self._poll.unregister(leash)
        try:
            leash.send(str(os.waitstatus_to_exitcode(status)).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # nobody holds it any more
        leash.close()
        if on_end:
            on_end()


class ForkServers:
    """Children that each hold one thing ready, known by a key, and fork from it; at most `limit`, those not used for longest are retired."""

    def __init__(self, warden: Warden, limit: int):
        self._warden, self._limit = warden, limit
        self._ready: OrderedDict[str, socket.socket] = OrderedDict()
        self._leashes: dict[socket.socket, socket.socket] = {}

    def send(self, key: str, body: Callable[[socket.socket], None], message: dict, descriptors: tuple[int, ...]) -> None:
        """Gives a message to the child of `key`; where there is none, `body` becomes it, with the socket on which it is told."""
        try:
            send_message(self.start(key, body), message, descriptors)
        except OSError:  # it has just ended
            self._ready.pop(key, None)
            send_message(self.start(key, body), message, descriptors)

    def start(self, key: str, body: Callable[[socket.socket], None]) -> socket.socket:
        """The control socket of the child of `key`, which is started where there is none."""
        if key not in self._ready:
            self._ready[key] = self._fork(key, body)
            if len(self._ready) > self._limit:
                self._ready.popitem(last=False)[1].close()  # it ends with the last of its own children
        self._ready.move_to_end(key)
        return self._ready[key]

    def _fork(self, key: str, body: Callable[[socket.socket], None]) -> socket.socket:
        control, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._leashes[control], leash = socket.socketpair()

        def gone() -> None:
            del self._leashes[control]
            if self._ready.get(key) is control:
                del self._ready[key]

        self._warden.fork(lambda: body(inside), leash, (inside.fileno(),), gone)
        inside.close()
        return control
