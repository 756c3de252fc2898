"""Child processes that never outlive their parent: each runs under a small supervisor that ends its whole process tree.

`spawn` runs this file as a program, the supervisor. It adopts the orphans among its descendants
(PR_SET_CHILD_SUBREAPER), starts the command in a session of its own, and ends every descendant when the command ends,
on SIGTERM, or when its own parent is gone, even after SIGKILL. It polls for its parent instead of using the kernel's
parent-death signal, which reaches direct children only and is also sent when the thread that called `spawn` ends.

Linux only. The file uses nothing but the standard library and is run by its path, so that the supervisor starts in
milliseconds, needs about ten megabytes, and works before any package is installed. That is why it reads /proc itself
instead of using psutil.
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
"""How long a process tree may take to end after SIGTERM before it is killed, unless `spawn` is told otherwise."""
POLL_S = 0.1
SHARED_MEMORY_POLL_S = 5.0
"""Time between two looks at the shared memory that the process tree uses."""
SHARED_MEMORY = "/dev/shm"
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SIGNALLED = 128
"""A command that a signal ended has the exit code 128 plus the number of the signal, as in a shell."""
NOT_STARTED = 127


class Child:
    """A running command and its descendants."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the command's exit code (128 + signal if a signal ended it), or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command to end, at most `timeout` seconds, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it is still running.
        """
        return self._process.wait(timeout)

    def stop(self) -> int:
        """End the command and its descendants: SIGTERM, then SIGKILL for those that remain. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait()


def spawn(
    command: Sequence[str],
    *,
    log: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    grace_s: float = SHUTDOWN_TIMEOUT_S,
    shared_memory: str = "",
    stdin: int | None = None,
) -> Child:
    """Start `command` so that its whole process tree ends with the calling process, even after SIGKILL.

    Any thread may call this.

    Args:
        log: file to which standard output and error are appended; None inherits the terminal.
        env: variables that differ from this process's environment; None removes one.
        cwd: working folder; None is this process's.
        grace_s: how long the process tree may take to end after SIGTERM before it is killed.
        shared_memory: when the process tree has ended, the POSIX shared memory that it had mapped and whose name has
            this prefix is removed; empty removes none.
        stdin: descriptor of an open file for standard input; None is an empty one.
    """
    # -S skips `site` and -I ignores the caller's variables: the supervisor starts at once in any environment.
    supervisor = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), str(grace_s), shared_memory, *command]
    environment = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    if log is None:
        return Child(_start(supervisor, None, environment, cwd, stdin))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return Child(_start(supervisor, file, environment, cwd, stdin))


def _start(supervisor: list[str], output, environment: dict[str, str], cwd: Path | None, stdin: int | None) -> subprocess.Popen:
    return subprocess.Popen(
        supervisor,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        env=environment,
        cwd=cwd,
        start_new_session=True,
    )


def signal_of(code: int) -> int:
    """Return the signal that an exit code stands for, or 0 if it stands for none."""
    return -code if code < 0 else code - SIGNALLED if SIGNALLED < code < SIGNALLED + signal.NSIG else 0


def start_time(pid: int) -> str:
    """Identify a process by its boot and by the clock ticks from the boot to its start: process ids are reused.

    Both come from the kernel and do not change when the wall clock is set, unlike psutil's `create_time`. The result is
    empty if the process has ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{BOOT_ID.read_text().strip()}/{fields[19]}"


def descendants(root: int) -> list[int]:
    """Return the process ids of all descendants of `root`, the nearest first."""
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
        # The second field is the command's name in parentheses and may contain spaces.
        return int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return -1


class _Supervisor:
    """Runs one command and ends its whole process tree."""

    def __init__(self, parent: int, grace_s: float, shared_memory: str):
        self._parent, self._grace_s, self._shared_memory = parent, grace_s, shared_memory
        self._stop_requested = False
        self._segments: set[str] = set()
        self._looked = time.monotonic()

    def run(self, command: Sequence[str]) -> int:
        """Run `command` and return its exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            # If this supervisor is killed, the kernel kills the command.
            child = subprocess.Popen(command, start_new_session=True, preexec_fn=_die_with_parent)
        except OSError as error:
            print(f"{command[0]}: could not be started: {error.strerror}", file=sys.stderr)
            return NOT_STARTED
        code = None
        while code is None and not self._stop_requested and os.getppid() == self._parent:
            code = _reap(child.pid)
            if time.monotonic() - self._looked > SHARED_MEMORY_POLL_S:
                self._note_shared_memory()
        self._note_shared_memory()
        _end_descendants(self._grace_s)
        for segment in self._segments:
            Path(segment).unlink(missing_ok=True)
        return SIGNALLED + signal.SIGTERM if code is None else code

    def _note_shared_memory(self) -> None:
        """Record the shared memory in use: a process that has ended can no longer be asked."""
        self._looked = time.monotonic()
        if self._shared_memory:
            self._segments |= _mapped_files(os.getpid(), f"{SHARED_MEMORY}/{self._shared_memory}")

    def _on_signal(self, _number: int, _frame) -> None:
        self._stop_requested = True


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _reap(command_pid: int) -> int | None:
    """Reap descendants that have ended. Return the command's exit code if it has ended, else None after POLL_S."""
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


def _end_descendants(grace_s: float) -> None:
    """Send SIGTERM to every descendant, and SIGKILL to those that remain after `grace_s`."""
    deadline = time.monotonic() + grace_s
    _signal_all(signal.SIGTERM)
    while _reap_all() and time.monotonic() < deadline:
        time.sleep(0.05)
    while _reap_all():  # a process that forks while it is being killed leaves children for the next round
        _signal_all(signal.SIGKILL)
        time.sleep(0.02)


def _reap_all() -> bool:
    """Reap children that have ended and return whether any remain. Zombies are reaped once orphaned."""
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


def _mapped_files(root: int, prefix: str) -> set[str]:
    """Return the existing files whose path starts with `prefix` and that descendants of `root` have mapped."""
    files = set()
    for pid in descendants(root):
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        except OSError:
            continue
        files |= {line[line.index(prefix) :] for line in lines if f" {prefix}" in line and not line.endswith("(deleted)")}
    return files


if __name__ == "__main__":
    sys.exit(_Supervisor(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]).run(sys.argv[4:]))
