"""Where a policy server listens and who may talk to it.

vLLM's endpoints that take new weights or call worker methods have no lock of their own: whoever reaches them can change the policy and write files as
the user. A Unix socket in a folder that only the user can enter keeps out other users and web pages alike. A TCP port keeps out neither, so every route
of a server on one asks for a random key.
"""

import hashlib
import os
import secrets
import socket
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from apprentice.errors import ApprenticeError
from apprentice.processes.network import free_port

HOST = "127.0.0.1"
FIRST_PORT = 8111
KEY_VARIABLE = "APPRENTICE_POLICY_KEY"
"""Environment variable through which a server on a TCP port receives its key; command lines are visible to every local user."""
KEY_BYTES = 32
LONGEST_SOCKET_PATH = 107
"""Bytes that `struct sockaddr_un` of Linux has for a path, without its final zero."""


@dataclass(frozen=True)
class Endpoint:
    """Address of one policy server."""

    port: int | None = None
    """TCP port on the loopback interface; None where the server listens on a Unix socket."""
    socket: str = ""
    """Path of the Unix socket; empty where the server listens on a TCP port."""
    key: str = field(default="", repr=False)
    """What every request to a TCP port must present."""

    @property
    def name(self) -> str:
        """The address for messages and file names; without the key."""
        return "socket" if self.port is None else f"port {self.port}"

    @property
    def another_port(self) -> int:
        """A TCP port to propose to somebody who needs a server beside this one."""
        return self.port + 1 if self.port else FIRST_PORT

    def clear(self) -> None:
        """Removes the socket's file, once the server has ended."""
        if self.socket:
            Path(self.socket).unlink(missing_ok=True)

    def client(self, *, timeout: httpx.Timeout | float, limits: httpx.Limits | None = None) -> httpx.AsyncClient:
        """An asynchronous client of this server. Proxies of the environment are ignored: the server is on this machine."""
        transport = httpx.AsyncHTTPTransport(uds=self.socket or None, limits=limits or httpx.Limits())
        return httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=timeout, transport=transport, trust_env=False)

    def get(self, path: str, timeout_s: float) -> httpx.Response:
        """One blocking GET request.

        Raises:
            httpx.TransportError: the server does not answer.
        """
        transport = httpx.HTTPTransport(uds=self.socket or None)
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=timeout_s, transport=transport, trust_env=False) as client:
            return client.get(path)

    @property
    def _url(self) -> str:
        return "http://localhost" if self.port is None else f"http://{HOST}:{self.port}"

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def new_endpoint(port: int | None, owner: Path) -> Endpoint:
    """An address for a server that is about to start.

    Args:
        port: a TCP port; 0 takes a free one, None a Unix socket.
        owner: file that records the server; each such file has a socket of its own.

    Raises:
        ApprenticeError: the port is taken, or the folder of sockets is not this user's alone.
    """
    if port is None:
        endpoint = Endpoint(socket=str(socket_path(owner)))
        endpoint.clear()  # left by a server that was killed
        return endpoint
    port = port or free_port()
    if _taken(port):
        raise ApprenticeError(
            f"port {port} is taken by another program", where="policy.port", todo=f"free it, or take another: policy.port={port + 1} (0 finds a free one)"
        )
    return Endpoint(port=port, key=secrets.token_urlsafe(KEY_BYTES))


def socket_path(owner: Path) -> Path:
    """Path of the socket of the server that `owner` records, in a folder that only this user can enter. The folder lies under the
    system's temporary folder, because a project's own path may be longer than a socket's may be.

    Raises:
        ApprenticeError: the folder belongs to somebody else or is open to others, or the path is too long.
    """
    folder = Path(tempfile.gettempdir()) / f"apprentice-{os.getuid()}"
    folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ApprenticeError("must be a folder that only you can enter", where=folder, todo=f"remove it, or run `chmod 700 {folder}`, or set TMPDIR")
    path = folder / f"{hashlib.sha256(os.fsencode(owner.resolve())).hexdigest()[:16]}.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ApprenticeError("is too long for the path of a Unix socket", where=path, todo="set TMPDIR to a shorter path, such as /tmp")
    return path


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
