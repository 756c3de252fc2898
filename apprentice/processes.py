"""Child processes that never outlive their parent: each runs under a small supervisor that kills its whole tree.

`spawn` starts `python apprentice/processes.py …`, the supervisor. It adopts whatever its descendants orphan
(PR_SET_CHILD_SUBREAPER), starts the command in a session of its own, and ends every descendant when the command ends, on
SIGTERM, or when it sees its own parent gone: also after SIGKILL. It looks for its parent itself, because the kernel's
parent-death signal reaches a direct child only, and is also sent when the thread that called `spawn` ends.

Linux. Standard library only and run by path: it starts in milliseconds and holds about ten megabytes.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SHUTDOWN_TIMEOUT_S = 10.0
"""How long a tree may take to end after SIGTERM before it is killed, unless `spawn` is told otherwise."""
POLL_S = 0.1
LOOK_S = 5.0
"""Between two looks at the shared memory that a tree uses."""
SHARED_MEMORY = "/dev/shm"
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SHARING_CORES = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000"}
"""OpenMP's threads spin at barriers by default, which costs several times the work itself where other processes need the cores; threads that
sleep at once are woken hundreds of times a layer. These spin for under a millisecond."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of malloc.h."""
SURPLUS_BYTES = 3 * 2**29
"""Of freed memory that is kept: what lies between blocks of other sizes and fits nothing. With two thirds of it, memory would go back at nearly every update,
for a tenth of its time."""
NOTABLY = 1.005
"""By so much more memory is a new peak."""
ASKING = 0.01
"""Of the time."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FILES_KEPT, FILES_AN_EPISODE = 128, 2
"""Open files that a process needs for itself, and for each episode that it plays."""
FILES = 65536
"""Open files of a process: some programs close every number below their limit when they start another, so the limit stays below a million."""
SIGNALLED = 128
NOT_STARTED = 127


def without_chatter() -> None:
    """Keeps Transformers' progress bars, and what DeepSpeed has to say where there is no GPU, out of this process's output."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def use_cores_sparingly() -> None:
    """Sets `SHARING_CORES` for this process, before anything that computes is imported; what the user has set stays."""
    for name, value in SHARING_CORES.items():
        os.environ.setdefault(name, value)


def reuse_memory() -> None:
    """Makes glibc keep the memory that this process frees; else every large tensor's pages go back to the kernel, which zeroes and maps the next one's
    one by one: a tenth of an update."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)


def allocated() -> int:
    """Bytes that this process has from glibc and has not freed; 0 where glibc is too old to say (before 2.33)."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return 0
    libc.mallinfo2.restype = _MallInfo
    return libc.mallinfo2().uordblks


def return_surplus(needed: int) -> None:
    """Gives freed memory back to the kernel once this process holds more than `needed` bytes and SURPLUS_BYTES: among blocks of ever other sizes, much of
    what is kept is never used again. 0 keeps everything."""
    if not needed:
        return
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("RssAnon:")[2].split()[0]) * 1024
    if held > needed + SURPLUS_BYTES:
        ctypes.CDLL(None).malloc_trim(0)


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


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
        """Ends the command and everything it started: SIGTERM, then SIGKILL to what is left of it. Safe to call twice."""
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
    """Starts `command` so that its whole tree ends with the calling process, even after SIGKILL. Any thread may call it.

    Args:
        log: file to which standard output and error are appended; None inherits the terminal.
        env: variables that differ from this process's environment; None takes one away.
        cwd: working folder; None is this process's.
        grace_s: how long the tree may take to end after SIGTERM before it is killed.
        shared_memory: POSIX shared memory whose name begins so, and which the tree has mapped, is removed once the tree has
            ended; empty removes none.
        stdin: descriptor of an open file for its standard input; None is an empty one.
    """
    # Without `site` (-S) and the caller's variables (-I), so that it starts at once, whatever the environment.
    supervisor = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), str(grace_s), shared_memory, *command]
    environment = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    if log is None:
        return Child(_start(supervisor, None, environment, cwd, stdin), command)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return Child(_start(supervisor, file, environment, cwd, stdin), command)


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


class _Supervisor:
    """Runs one command and ends its whole tree; the body of the supervising process."""

    def __init__(self, parent: int, grace_s: float, shared_memory: str):
        self._parent, self._grace_s, self._shared_memory = parent, grace_s, shared_memory
        self._told_to_stop = False
        self._segments: set[str] = set()
        self._looked = time.monotonic()

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
            if time.monotonic() - self._looked > LOOK_S:
                self._look()
        self._look()
        _end_descendants(self._grace_s)
        for segment in self._segments:
            Path(segment).unlink(missing_ok=True)
        return SIGNALLED + signal.SIGTERM if code is None else code

    def _look(self) -> None:
        """Takes note of the shared memory in use: what has ended can no longer be asked."""
        self._looked = time.monotonic()
        if self._shared_memory:
            self._segments |= mapped(os.getpid(), f"{SHARED_MEMORY}/{self._shared_memory}")

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


def _end_descendants(grace_s: float) -> None:
    """SIGTERM to every descendant, SIGKILL to those left after `grace_s`."""
    deadline = time.monotonic() + grace_s
    _signal_all(signal.SIGTERM)
    while _collect() and time.monotonic() < deadline:
        time.sleep(0.05)
    while _collect():  # whoever forks while being killed is met again in the next round
        _signal_all(signal.SIGKILL)
        time.sleep(0.02)


def _collect() -> bool:
    """Reaps what has ended; says whether any child is left. What its parent has not reaped (a zombie) is met once that parent ended."""
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


class MemoryPeak:
    """The most bytes that a process and everything below it have held; what several of them share counts once (proportional set size).

    The kernel takes twelve milliseconds a GiB to say what is shared. So it is asked where the processes' sizes together, which cost nothing, are larger
    than ever before, and else for a hundredth of the time.

    Args:
        root: id of the process.
        apart: id of a process below it that does not count, nor what is below that.
    """

    def __init__(self, root: int, apart: int | None = None):
        self._root, self._apart = root, apart
        self._largest, self._next = 0.0, 0.0
        self.bytes = 0

    def look(self) -> None:
        """Takes note of what they hold now."""
        foreign = {self._apart, *descendants(self._apart)} if self._apart else set()
        pids = {self._root, *descendants(self._root)} - foreign
        together, began = sum(_kibibytes(pid, "status", "VmRSS:") for pid in pids), time.monotonic()
        if together > NOTABLY * self._largest or began >= self._next:
            self._largest = max(self._largest, together)
            self.bytes = max(self.bytes, 1024 * sum(_kibibytes(pid, "smaps_rollup", "Pss:") for pid in pids))
            self._next = time.monotonic() + (time.monotonic() - began) / ASKING


def _kibibytes(pid: int, file: str, name: str) -> int:
    """A line of one of a process's files; 0 where it has ended."""
    try:
        found = Path(f"/proc/{pid}/{file}").read_text().partition(name)[2]
    except OSError:
        return 0
    return int(found.split()[0]) if found else 0


def mapped(root: int, prefix: str) -> set[str]:
    """Files whose path begins with `prefix` that processes below `root` have in memory and that still exist."""
    files = set()
    for pid in descendants(root):
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        except OSError:
            continue
        files |= {line[line.index(prefix) :] for line in lines if f" {prefix}" in line and not line.endswith("(deleted)")}
    return files


def birth(pid: int) -> str:
    """What tells a process from a later one with its id: the boot, and the clock ticks between the boot and its start. Empty where it has ended.

    Both are the kernel's, so that they stay what they are when the wall clock is set.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{BOOT_ID.read_text().strip()}/{fields[19]}"


def bypass_proxies_on_loopback() -> None:
    """Makes this process and its children reach servers on this machine directly, whatever proxy the user has configured."""
    for name in ("no_proxy", "NO_PROXY"):
        kept = [host for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join([*kept, *(host for host in LOOPBACK if host not in kept)])


def silence() -> None:
    """Sends what this process still prints to /dev/null: its terminal or the reader of its output has gone, and every further line would be an error."""
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)


def raise_file_limit() -> None:
    """Lets this process and its children open as many files as the system allows them, at most FILES."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def episodes_at_once() -> int:
    """How many episodes this process can play at a time with the files it may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = FILES if soft == resource.RLIM_INFINITY else soft
    return max(1, (files - FILES_KEPT) // FILES_AN_EPISODE)


def _parent_of(entry: Path) -> int:
    try:
        # The second field is the command's name in parentheses and may hold spaces.
        return int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return -1


if __name__ == "__main__":
    sys.exit(_Supervisor(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]).run(sys.argv[4:]))
