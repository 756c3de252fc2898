"""Sends JSON over sockets: one value per line with limits and deadlines, or one per datagram with descriptors."""

import json
import socket
import time

LINE_LIMIT = 64 << 20
"""Default limit of a line that is read, in bytes."""
MESSAGE_LIMIT = 1 << 16
CHUNK = 1 << 16


class Closed(Exception):
    """The other side has closed the connection."""


class Late(Exception):
    """No complete message arrived before the deadline."""


class Malformed(Exception):
    """A line is not JSON, or too long."""


def clock() -> float:
    """Return the seconds of a monotonic clock that AppWorld does not freeze."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Lines:
    """Sends and receives JSON lines over a connected stream socket."""

    def __init__(self, connection: socket.socket, limit: int = LINE_LIMIT):
        self._connection, self._limit = connection, limit
        self._pending = bytearray()

    def send(self, value: object, deadline: float | None = None) -> None:
        """Send one value.

        Args:
            deadline: a time on `clock`; None waits forever.

        Raises:
            Closed, Late
        """
        data = memoryview(json.dumps(value).encode() + b"\n")
        try:
            while data:
                self._wait(deadline)
                data = data[self._connection.send(data) :]
        except TimeoutError:
            raise Late from None
        except OSError:
            raise Closed from None

    def receive(self, deadline: float | None = None) -> object:
        """Return the next value.

        Raises:
            Closed, Late, Malformed
        """
        searched = 0
        while (end := self._pending.find(b"\n", searched)) < 0:
            searched = len(self._pending)
            if searched > self._limit:
                raise Malformed("a line is too long")
            self._pending += self._chunk(deadline)
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Malformed(str(error)) from None

    def _chunk(self, deadline: float | None) -> bytes:
        try:
            self._wait(deadline)
            chunk = self._connection.recv(CHUNK)
        except TimeoutError:
            raise Late from None
        except OSError:
            raise Closed from None
        if not chunk:
            raise Closed
        return chunk

    def _wait(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - clock()
        if left is not None and left <= 0:
            raise TimeoutError
        if left is not None or self._connection.gettimeout() is not None:  # interpreters may not make the system call behind it
            self._connection.settimeout(left)


def send_message(control: socket.socket, message: dict, descriptors: tuple[int, ...] = ()) -> None:
    """Send one datagram with open files."""
    socket.send_fds(control, [json.dumps(message).encode()], list(descriptors))


def receive_message(control: socket.socket) -> tuple[dict, list[socket.socket]] | None:
    """Return one datagram and the sockets sent with it; None if the other side has closed the connection."""
    data, descriptors, _, _ = socket.recv_fds(control, MESSAGE_LIMIT, 8)
    return (json.loads(data), [socket.socket(fileno=descriptor) for descriptor in descriptors]) if data else None
