"""Local ports and proxy settings."""

import os
import socket

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "::1")


def free_port() -> int:
    """Return a free TCP port of the loopback interface. Another process may take it before the caller binds it."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def bypass_proxies_on_loopback() -> None:
    """Make this process and its children reach servers on this machine without the user's proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        kept = [host for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join([*kept, *(host for host in LOOPBACK if host not in kept)])
