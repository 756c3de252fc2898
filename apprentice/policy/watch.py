"""Runs one command and takes its whole tree down with it: when asked to, when the command ends, and when the starter is gone.

A parent-death signal reaches a direct child only, and vLLM's server has grandchildren. This small process adopts every orphan of the
tree (Linux), looks at its own parent, kills what is left, and removes the shared memory that the tree used. Run by path with the
standard library alone, so that it starts at once.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

POLL_S = 0.2
LOOK_S = 5.0
"""Between two looks at the shared memory that the tree uses."""
GRACE_S = 5.0
"""Time between SIGTERM to the command and SIGKILL to its tree."""
ORPHAN_GRACE_S = 0.5
"""Time between the end of the command and SIGKILL to what is left of its tree."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(arguments: list[str]) -> int:
    """`watch.py <parent's process id> <command> …`; returns the command's exit code."""
    parent, command = int(arguments[0]), arguments[1:]
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: asked.append(received))
    child = subprocess.Popen(command, preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)).pid
    code, looked, shared = None, time.monotonic(), set()
    while code is None and not asked and os.getppid() == parent:
        time.sleep(POLL_S)
        code = _reap(child)
        if time.monotonic() - looked > LOOK_S:
            looked, shared = time.monotonic(), shared | _shared_memory()
    shared |= _shared_memory()
    if code is None:
        os.kill(child, signal.SIGTERM)
    code = _end_tree(child, code)
    for segment in filter(os.path.exists, shared):
        os.unlink(segment)
    return code


def _shared_memory() -> set[str]:
    """The POSIX shared memory that the tree has mapped; vLLM leaves its own behind, hundreds of MB a start."""
    segments = set()
    for process in _descendants(os.getpid()):
        try:
            with open(f"/proc/{process}/maps", encoding="utf-8", errors="replace") as file:
                segments |= {line.split()[-1] for line in file if " /dev/shm/psm_" in line and not line.endswith("(deleted)\n")}
        except OSError:
            continue
    return segments


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_tree(child: int, code: int | None) -> int:
    """Waits for the tree to end by itself, then kills it, until nothing is left of it."""
    deadline = time.monotonic() + (GRACE_S if code is None else ORPHAN_GRACE_S)
    while left := _descendants(os.getpid()):
        if time.monotonic() > deadline:
            for process in left:
                _kill(process)
        time.sleep(POLL_S / 4)
        ended = _reap(child)
        if ended is not None:
            code, deadline = ended, min(deadline, time.monotonic() + ORPHAN_GRACE_S)
    return code if code is not None else 0


def _reap(child: int) -> int | None:
    """Collects ended children, adopted ones too; the exit code of `child` where it was among them."""
    code = None
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if process == 0:
            return code
        if process == child:
            code = os.waitstatus_to_exitcode(status)


def _descendants(root: int) -> list[int]:
    """The living processes below `root`, from /proc (Linux; none elsewhere)."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit() and (parent := _parent(name)) is not None:
            children.setdefault(parent, []).append(int(name))
    found, open_ends = [], [root]
    while open_ends:
        below = children.get(open_ends.pop(), [])
        found += below
        open_ends += below
    return found


def _parent(process: str) -> int | None:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
