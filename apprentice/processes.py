"""Child processes that never outlive their parent: each runs under a small supervisor that kills its whole tree.

`spawn` starts `python apprentice/processes.py …`, the supervisor. It adopts whatever its descendants orphan
(PR_SET_CHILD_SUBREAPER), starts the command in a session of its own, and ends every descendant when the command ends, on
SIGTERM, or when it sees its own parent gone: also after SIGKILL. Standard library only: it starts in milliseconds and
holds a few megabytes.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SHUTDOWN_TIMEOUT_S = 10.0
"""How long a tree may take to end after SIGTERM before it is killed."""
POLL_S = 0.1
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIGNALLED = 128
NOT_STARTED = 127


class Child:
    """A running command and everything it started."""

    def __init__(self, process: subprocess.Popen, command: Sequence[str]):
        self._process, self.command = process, tuple(command)

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """The command's exit code (128 + signal where a signal ended it); None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the command to end, at most `timeout` seconds.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._process.wait(timeout)

    def stop(self) -> int:
        """Ends the command and everything it started: SIGTERM, then SIGKILL after SHUTDOWN_TIMEOUT_S. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait()


def spawn(command: Sequence[str], *, log: Path | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Child:
    """Starts `command` so that its whole tree ends with the calling process, even after SIGKILL.

    Args:
        log: file to which standard output and error are appended; None inherits the terminal.
        env: variables added to this process's environment.
        cwd: working folder; None is this process's.
    """
    supervisor = [sys.executable, "-I", str(Path(__file__).resolve()), str(os.getpid()), *command]
    if log is None:
        return Child(_start(supervisor, None, env, cwd), command)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return Child(_start(supervisor, file, env, cwd), command)


def _start(supervisor: list[str], output, env: Mapping[str, str] | None, cwd: Path | None) -> subprocess.Popen:
    return subprocess.Popen(
        supervisor,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )


class _Supervisor:
    """Runs one command and ends its whole tree; the body of the supervising process."""

    def __init__(self, parent: int):
        self._parent = parent
        self._told_to_stop = False

    def run(self, command: Sequence[str]) -> int:
        """Runs `command`; returns its exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            # Should this supervisor be killed, the kernel kills the command.
            child = subprocess.Popen(command, start_new_session=True, preexec_fn=_die_with_parent)
        except OSError as error:
            print(f"{command[0]}: could not be started: {error.strerror}", file=sys.stderr)
            return NOT_STARTED
        code = None
        while code is None and not self._told_to_stop and os.getppid() == self._parent:
            code = _reap(child.pid)
        _end_descendants()
        return SIGNALLED + signal.SIGTERM if code is None else code

    def _on_signal(self, _number: int, _frame) -> None:
        self._told_to_stop = True


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _reap(command_pid: int) -> int | None:
    """Collects ended descendants; the command's exit code once it is among them, else None after POLL_S."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return SIGNALLED + signal.SIGKILL
        if pid == command_pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else SIGNALLED - code
        if pid == 0:
            time.sleep(POLL_S)
            return None


def _end_descendants() -> None:
    """SIGTERM to every descendant, SIGKILL to those left after SHUTDOWN_TIMEOUT_S."""
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
    _signal_all(signal.SIGTERM)
    while _collect() and time.monotonic() < deadline:
        time.sleep(0.05)
    while _collect():  # whoever forks while being killed is met again in the next round
        _signal_all(signal.SIGKILL)
        time.sleep(0.02)


def _collect() -> bool:
    """Reaps what has ended; says whether any child is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _signal_all(number: int) -> None:
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def descendants(root: int) -> list[int]:
    """Process ids of everything below `root`, the nearest first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children.setdefault(_parent_of(entry), []).append(int(entry.name))
    found = list(children.get(root, []))
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def _parent_of(entry: Path) -> int:
    try:
        # The second field is the command's name in parentheses and may hold spaces.
        return int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return -1


if __name__ == "__main__":
    sys.exit(_Supervisor(int(sys.argv[1])).run(sys.argv[2:]))
