"""Forks child processes, each with a lifeline: a socket whose other end another process holds.

When the holder closes its end, the child is killed. The holder reads from the lifeline how the child ended. Children
are signalled through pidfds, and none is signalled after it was reaped, so a reused pid never receives a signal.
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
"""Descriptors 0, 1 and 2 are standard input, output, and error."""


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def close_all_but(*descriptors: int) -> None:
    """Close every open file except `descriptors` and standard input, output, and error."""
    low = FIRST_FREE
    for descriptor in sorted(descriptors):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 20)


class ForkServer:
    """Serves one control socket and looks after the children that it forks.

    It is single-threaded, so forking is always safe.
    """

    def __init__(self, control: socket.socket, on_message: Callable[..., None]):
        """Serve `control`.

        Args:
            on_message: called with each message that arrives on the control socket and the sockets sent with it.
        """
        self._control, self._on_message = control, on_message
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._lifelines: dict[int, tuple[socket.socket, int]] = {}
        self._processes: dict[int, tuple[int, socket.socket, Callable[[], None] | None]] = {}
        self._open = True

    def fork(self, body: Callable[[], None], lifeline: socket.socket, keep: tuple[int, ...], on_end: Callable[[], None] | None = None) -> None:
        """Run `body` in a child that keeps only the descriptors `keep`. `body` never returns into the caller's code."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._in_child(body, keep, parent)
        process = os.pidfd_open(pid)
        self._lifelines[lifeline.fileno()] = (lifeline, process)
        self._processes[process] = (pid, lifeline, on_end)
        self._poll.register(process, select.POLLIN)
        self._poll.register(lifeline, select.POLLIN)

    def _in_child(self, body: Callable[[], None], keep: tuple[int, ...], parent: int) -> None:
        code = 1
        try:
            die_with_parent()
            if os.getppid() == parent:
                close_all_but(*keep)
                gc.enable()
                body()
                code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def run(self, *, linger: bool = True) -> None:
        """Serve until the control socket is closed and, with `linger`, the last child has ended."""
        while self._open or (linger and self._processes):
            for descriptor, _ in self._poll.poll():
                if self._open and descriptor == self._control.fileno():
                    self._receive()
                elif descriptor in self._processes:
                    self._reap(descriptor)
                elif descriptor in self._lifelines:
                    self._kill(descriptor)

    def _receive(self) -> None:
        if (received := receive_message(self._control)) is None:
            self._open = False
            self._poll.unregister(self._control)
        else:
            message, sockets = received
            self._on_message(message, *sockets)

    def _kill(self, descriptor: int) -> None:
        lifeline, process = self._lifelines.pop(descriptor)
        self._poll.unregister(descriptor)
        signal.pidfd_send_signal(process, signal.SIGKILL)

    def _reap(self, process: int) -> None:
        pid, lifeline, on_end = self._processes.pop(process)
        self._poll.unregister(process)
        os.close(process)
        _, status = os.waitpid(pid, 0)
        if self._lifelines.pop(lifeline.fileno(), None):
            self._poll.unregister(lifeline)
        try:
            lifeline.send(str(os.waitstatus_to_exitcode(status)).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the holder has closed its end
        lifeline.close()
        if on_end:
            on_end()


class ForkServerPool:
    """Children that are fork servers themselves, one per key; beyond `limit`, the least recently used one retires."""

    def __init__(self, server: ForkServer, limit: int):
        self._server, self._limit = server, limit
        self._ready: OrderedDict[str, socket.socket] = OrderedDict()
        self._lifelines: dict[socket.socket, socket.socket] = {}

    def send(self, key: str, body: Callable[[socket.socket], None], message: dict, descriptors: tuple[int, ...]) -> None:
        """Send a message to the child of `key`; a missing child is forked and runs `body` with its control socket."""
        try:
            send_message(self.start(key, body), message, descriptors)
        except OSError:  # the child has just ended
            self._ready.pop(key, None)
            send_message(self.start(key, body), message, descriptors)

    def start(self, key: str, body: Callable[[socket.socket], None]) -> socket.socket:
        """Return the control socket of the child of `key`; a missing child is forked."""
        if key not in self._ready:
            self._ready[key] = self._fork(key, body)
            if len(self._ready) > self._limit:
                self._ready.popitem(last=False)[1].close()  # the child ends once its own last child has ended
        self._ready.move_to_end(key)
        return self._ready[key]

    def _fork(self, key: str, body: Callable[[socket.socket], None]) -> socket.socket:
        control, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lifelines[control], lifeline = socket.socketpair()

        def forget() -> None:
            del self._lifelines[control]
            if self._ready.get(key) is control:
                del self._ready[key]

        self._server.fork(lambda: body(inside), lifeline, (inside.fileno(),), forget)
        inside.close()
        return control
