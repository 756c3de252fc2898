"""The address of a policy server, and who can connect to it.

vLLM does not authenticate the endpoints that take new weights or call worker methods: whoever reaches them can change
the policy and write files as the user. A Unix socket in a folder that only the user can enter excludes other users as
well as web pages. A TCP port excludes neither, so every route of a server on a port requires a random key.
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
"""Environment variable that gives a server on a TCP port its key; every local user could read it on a command line."""
KEY_BYTES = 32
LONGEST_SOCKET_PATH = 107
"""Bytes for a path in Linux's `struct sockaddr_un`, without the terminating zero."""


@dataclass(frozen=True)
class Endpoint:
    """The address of one policy server."""

    port: int | None = None
    """TCP port on the loopback interface; None if the server listens on a Unix socket."""
    socket: str = ""
    """Path of the Unix socket; empty if the server listens on a TCP port."""
    key: str = field(default="", repr=False)
    """Key that every request to a TCP port must present."""

    @property
    def name(self) -> str:
        """The address for messages and file names, without the key."""
        return "socket" if self.port is None else f"port {self.port}"

    @property
    def suggested_port(self) -> int:
        """A TCP port to suggest to a user who needs a second server."""
        return self.port + 1 if self.port else FIRST_PORT

    def remove_socket(self) -> None:
        """Remove the socket's file after the server has ended."""
        if self.socket:
            Path(self.socket).unlink(missing_ok=True)

    def client(self, *, timeout: httpx.Timeout | float, limits: httpx.Limits | None = None) -> httpx.AsyncClient:
        """Create an asynchronous client, which ignores proxy variables because the server is on this machine."""
        transport = httpx.AsyncHTTPTransport(uds=self.socket or None, limits=limits or httpx.Limits())
        return httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=timeout, transport=transport, trust_env=False)

    def get(self, path: str, timeout_s: float) -> httpx.Response:
        """Make one blocking GET request.

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
    """Create the address of a server that is about to start.

    Args:
        port: a TCP port; 0 chooses a free one, None uses a Unix socket.
        owner: file that records the server; each such file has its own socket.

    Raises:
        ApprenticeError: the port is taken, or other users can enter the folder of sockets.
    """
    if port is None:
        endpoint = Endpoint(socket=str(socket_path(owner)))
        endpoint.remove_socket()  # a killed server leaves its socket behind
        return endpoint
    port = port or free_port()
    if _taken(port):
        raise ApprenticeError(
            f"port {port} is taken by another program", where="policy.port", todo=f"free it, or set policy.port={port + 1} (0 chooses a free port)"
        )
    return Endpoint(port=port, key=secrets.token_urlsafe(KEY_BYTES))


def socket_path(owner: Path) -> Path:
    """Return the path of the socket of the server that `owner` records, in a folder that only this user can enter.

    The folder is in the system's temporary folder, because the path of a project may exceed the limit for a socket.

    Raises:
        ApprenticeError: the folder belongs to another user, other users can enter it, or the path is too long.
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
