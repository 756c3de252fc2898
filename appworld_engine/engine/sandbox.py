"""The sandbox around the agent's code.

Namespaces and an empty root isolate the process that forks the interpreters; it calls `enter_namespaces` and
`enter_empty_root`. Each interpreter then calls `lock_down` as its last step before it serves: it applies an account of
its own, limits, and a system-call filter. If a machine does not allow a layer, the reason is returned; no layer is
skipped silently.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import zoneinfo
from dataclasses import dataclass
from pathlib import Path

from engine.limits import limit_to
from engine.seccomp import install_filter

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 16384, 1 << 18
MNT_DETACH = 2
SYS_PIVOT_ROOT, SYS_CAPSET = 155, 126
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
CAPABILITY_VERSION_3 = 0x20080522
LAST_CAPABILITY = 63
CHANGE_ACCOUNT = 1 << 6 | 1 << 7
"""CAP_SETGID and CAP_SETUID."""
WORKING_FOLDER = "/apprentice-agent-workplace"
"""Where the agent's code runs. AppWorld removes this name from what a block prints, so it must not occur by chance."""
ZONES = "/zoneinfo"
FIRST_UID, UIDS = 60000, 5000
"""Range of unused accounts; each interpreter has its own."""
SYSTEM_RESERVE_MB = 8
ARGUMENTS_BEGIN = 45
"""Index of `arg_start` (field 48 in proc(5)) in /proc/self/stat, counted from the field after the command's name."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Isolation:
    """The layers that isolate the agent's code, and for each missing layer the reason."""

    namespaces: bool
    """Own network, mounts, processes, and IPC, and an empty read-only root."""
    seccomp: bool
    own_account: bool
    """An account of its own; otherwise the same account without any capability."""
    missing: tuple[str, ...]

    @property
    def full(self) -> bool:
        """Whether no layer is missing."""
        return not self.missing


@dataclass(frozen=True)
class InterpreterLimits:
    """The limits of one interpreter."""

    memory_mb: int
    """MiB beyond what every interpreter has at its start."""
    cpu_s: int


def _call(name: str, *arguments) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if value is None else value.encode() for value in (source, target, kind)]
    _call("mount", *encoded, ctypes.c_ulong(flags), None if data is None else data.encode())


def enter_namespaces() -> str | None:
    """Move this process into new namespaces, and its next child into a new process namespace.

    Returns:
        The reason if the system does not allow it, else None.
    """
    try:
        _call("unshare", NAMESPACES)
        return None
    except OSError:
        pass  # not allowed without a user namespace
    try:
        _enter_user_namespace()
        return None
    except OSError as error:
        return str(error)


def can_change_account() -> bool:
    """Return whether this process can give its children accounts of their own.

    It never can in a user namespace, which has only one account.
    """
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    accounts = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    return accounts >= FIRST_UID + UIDS and capabilities & CHANGE_ACCOUNT == CHANGE_ACCOUNT


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER | NAMESPACES)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def enter_empty_root(place: Path) -> str | None:
    """Mount a read-only root on `place` that holds nothing but time zones, and move into it.

    Returns:
        The reason if that fails, else None.
    """
    try:
        zones = _zones()
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
        _mount("tmpfs", str(place), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=8m,mode=755")
        for folder in ("old", WORKING_FOLDER.strip("/"), ZONES.strip("/")):
            (place / folder).mkdir()
        for name, data in zones.items():
            file = place / ZONES.strip("/") / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        os.chdir(place)
        if _libc.syscall(SYS_PIVOT_ROOT, b".", b"old") != 0:
            raise OSError(ctypes.get_errno(), "pivot_root: " + os.strerror(ctypes.get_errno()))
        os.chdir("/")
        _call("umount2", b"/old", MNT_DETACH)
        os.rmdir("/old")
        _mount("none", "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        os.chdir(WORKING_FOLDER)
        zoneinfo.reset_tzpath([ZONES])
        return None
    except OSError as error:
        return str(error)


def _zones() -> dict[str, bytes]:
    import tzdata

    folder = Path(tzdata.__file__).parent / "zoneinfo"
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lock_down(isolation: Isolation, limits: InterpreterLimits, number: int) -> None:
    """Restrict this process irrevocably: limits, account `number`, no capabilities, and the system-call filter.

    Raises:
        OSError: a layer that `isolation` promises cannot be applied.
    """
    _limit(limits, isolation)
    if isolation.own_account:
        uid = FIRST_UID + number % UIDS
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    else:
        _drop_capabilities()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # changing the account has reset it
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if isolation.seccomp:
        install_filter(may_read=isolation.namespaces)


def _limit(limits: InterpreterLimits, isolation: Isolation) -> None:
    limit_to(resource.RLIMIT_CPU, limits.cpu_s)
    limit_to(resource.RLIMIT_AS, _virtual + (SYSTEM_RESERVE_MB + limits.memory_mb << 20))
    limit_to(resource.RLIMIT_FSIZE, 0)
    limit_to(resource.RLIMIT_CORE, 0)
    limit_to(resource.RLIMIT_NOFILE, 32)
    if isolation.own_account or isolation.namespaces:
        limit_to(resource.RLIMIT_NPROC, 0)


_virtual = 0


def record_virtual_size() -> None:
    """Record this process's virtual size, with which its children start, before /proc becomes invisible."""
    global _virtual
    _virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def erase_start_strings() -> None:
    """Erase what the kernel put on this process's stack at its start: arguments, environment, and the program's path.

    Clearing `os.environ` leaves these strings in memory, and every child inherits them. Call this only in a process
    that has already taken what it needs from its environment.
    """
    sys.argv[:], sys.orig_argv[:] = [""], []
    begin = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[ARGUMENTS_BEGIN])
    stack = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[stack]"))
    end = int(stack.split()[0].partition("-")[2], 16)
    ctypes.memset(begin, 0, end - begin)


def _drop_capabilities() -> None:
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, nothing = struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    if _libc.syscall(SYS_CAPSET, header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
