"""The walls around the agent's code: namespaces and an empty root once for all, then for each process an account, limits and a system-call filter.

`separate` and `empty_root` are called for the process that forks the interpreters; `lock` in each of them, last of all. What a machine does
not allow is a reason that they return, never passed over.
"""

import ctypes
import os
import platform
import resource
import shutil
import signal
import struct
import sys
import zoneinfo
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 16384, 1 << 18
MNT_DETACH = 2
SYS_PIVOT_ROOT, SYS_CAPSET = 155, 126
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
LAST_CAPABILITY = 63
CHANGE_ACCOUNT = 1 << 6 | 1 << 7
"""CAP_SETGID, CAP_SETUID."""
WORKPLACE = "/apprentice-agent-workplace"
"""Where the agent's code runs: AppWorld cuts the working folder out of what it prints, so its name must not occur by chance."""
ZONES = "/zoneinfo"
FIRST_UID, UIDS = 60000, 5000
"""Accounts of nobody; each interpreter has its own."""
SYSTEM_RESERVE_MB = 8
ARGUMENTS_BEGIN = 45
"""Place of the field `arg_start` (48 in proc(5)) in /proc/self/stat, counted from the one after the command's name."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Walls:
    """What holds the agent's code, and why what is missing is missing."""

    namespaces: bool
    """Own network, mounts, processes, IPC; an empty read-only root."""
    seccomp: bool
    own_account: bool
    """An account of its own; else the same account without any capability."""
    missing: tuple[str, ...]

    @property
    def full(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Limits:
    """Of one interpreter."""

    memory_mb: int
    """On top of what every interpreter begins with."""
    cpu_s: int


def _call(name: str, *arguments) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if value is None else value.encode() for value in (source, target, kind)]
    _call("mount", *encoded, ctypes.c_ulong(flags), None if data is None else data.encode())


def separate() -> str | None:
    """New namespaces for this process, and a new process namespace for its next child; the reason where the system does not allow it."""
    try:
        _call("unshare", NAMESPACES)
        return None
    except OSError:
        pass  # not allowed to do so directly
    try:
        _separate_as_user()
        return None
    except OSError as error:
        return str(error)


def may_change_account() -> bool:
    """Whether this process can give its children accounts of their own: never in a user namespace, which knows one account."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    accounts = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    return accounts >= FIRST_UID + UIDS and capabilities & CHANGE_ACCOUNT == CHANGE_ACCOUNT


def _separate_as_user() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER | NAMESPACES)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def empty_root(place: Path) -> str | None:
    """Makes an empty read-only root, time zones aside, and moves into it; the reason where that fails."""
    try:
        zones = _zones()
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
        _mount("tmpfs", str(place), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=8m,mode=755")
        for folder in ("old", WORKPLACE.strip("/"), ZONES.strip("/")):
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
        os.chdir(WORKPLACE)
        zoneinfo.reset_tzpath([ZONES])
        return None
    except OSError as error:
        return str(error)


def _zones() -> dict[str, bytes]:
    import tzdata

    folder = Path(tzdata.__file__).parent / "zoneinfo"
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def filter_reason() -> str | None:
    """Why there can be no system-call filter on this machine; None where there can."""
    if platform.machine() != "x86_64":
        return f"the system-call filter knows x86_64 only, this is {platform.machine()}"
    # With no program given, a kernel that has filters answers EFAULT.
    _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0)
    return None if ctypes.get_errno() == 14 else "the kernel has no system-call filters (seccomp)"


def lock(walls: Walls, limits: Limits, number: int) -> None:
    """Shuts this process in for good: limits, account `number`, no capability, the filter.

    Raises:
        OSError: a wall that `walls` promises could not be raised.
    """
    _limit(limits, walls)
    if walls.own_account:
        uid = FIRST_UID + number % UIDS
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    else:
        _drop_capabilities()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # changing the account had undone it
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if walls.seccomp:
        _install_filter(may_read=walls.namespaces)


def _limit(limits: Limits, walls: Walls) -> None:
    def at_most(kind: int, value: int) -> None:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))

    at_most(resource.RLIMIT_CPU, limits.cpu_s)
    at_most(resource.RLIMIT_AS, _virtual_bytes() + (limits.memory_mb << 20))
    at_most(resource.RLIMIT_FSIZE, 0)
    at_most(resource.RLIMIT_CORE, 0)
    at_most(resource.RLIMIT_NOFILE, 32)
    if walls.own_account or walls.namespaces:
        at_most(resource.RLIMIT_NPROC, 0)


_virtual = 0


def note_size() -> None:
    """Takes note of this process's virtual size, before it loses sight of /proc; children start with it."""
    global _virtual
    _virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def forget_start() -> None:
    """Erases what the kernel put on this process's stack at its start: arguments, environment and the program's path.

    Clearing `os.environ` leaves these strings in memory, and every child inherits them. Only for a process that has taken
    what it needs of its environment.
    """
    sys.argv[:], sys.orig_argv[:] = [""], []
    begin = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[ARGUMENTS_BEGIN])
    stack = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[stack]"))
    end = int(stack.split()[0].partition("-")[2], 16)
    ctypes.memset(begin, 0, end - begin)


def _virtual_bytes() -> int:
    return _virtual + (SYSTEM_RESERVE_MB << 20)


def _drop_capabilities() -> None:
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, nothing = struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    if _libc.syscall(SYS_CAPSET, header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def remove_scratch(place: Path) -> None:
    """Removes the folder the root was mounted on."""
    shutil.rmtree(place, ignore_errors=True)


# --- the filter: a classic BPF program over struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6]} ---

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, ENOENT = 1, 38, 2
AUDIT_ARCH_X86_64 = 0xC000003E
X32_BIT = 0x40000000
PROT_EXEC = 4
OPEN_FOR_CHANGE = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE."""


def _refuse(error: int) -> int:
    return 0x00050000 | error


MAY = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "pause": 34,
    "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "exit": 60, "uname": 63, "getcwd": 79, "gettimeofday": 96,
    "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
    "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
    "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232,
    "epoll_ctl": 233, "pselect6": 270, "ppoll": 271, "epoll_pwait": 281, "getrandom": 318,
}  # fmt: skip
MAY_READ = {"stat": 4, "lstat": 6, "access": 21, "getdents": 78, "readlink": 89, "getdents64": 217, "newfstatat": 262, "readlinkat": 267,
            "faccessat": 269, "statx": 332, "faccessat2": 439}  # fmt: skip
MMAP, MPROTECT, SENDTO, RECVFROM, OPEN, OPENAT = 9, 10, 44, 45, 2, 257
SOCKET_FLAGS = 0x40 | 0x4000
"""MSG_DONTWAIT and MSG_NOSIGNAL. Python uses none; the others, above all MSG_OOB, lead into rarely used parts of the kernel."""
CLONE3 = 435


def _install_filter(may_read: bool) -> None:
    code = _program(may_read)
    block = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]

    program = Program(len(code), ctypes.cast(block, ctypes.c_void_p))
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _program(may_read: bool) -> list[tuple[int, int, int, int]]:
    """Everything that is not named is refused with EPERM: above all new processes, other programs, sockets, signals, tracing, mounts."""
    allowed = sorted({**MAY, **(MAY_READ if may_read else {})}.values())
    code = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64), (RETURN, 0, 0, KILL)]
    code += [(LOAD, 0, 0, 0), (JUMP_AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, _refuse(ENOSYS))]
    for number in allowed:
        code += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    # clone3's flags lie in memory, out of a filter's sight: "not there" makes the C library fall back to clone, which is refused.
    code += [(JUMP_EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, _refuse(ENOSYS))]
    for number in (MMAP, MPROTECT):
        code += _unless_bits(number, 2, PROT_EXEC, _refuse(EPERM))
    for number in (SENDTO, RECVFROM):
        code += _unless_bits(number, 3, ~SOCKET_FLAGS & 0xFFFFFFFF, _refuse(EPERM))
    if may_read:
        code += _unless_bits(OPEN, 1, OPEN_FOR_CHANGE, _refuse(EPERM)) + _unless_bits(OPENAT, 2, OPEN_FOR_CHANGE, _refuse(EPERM))
    else:
        for number in (OPEN, OPENAT, *sorted(MAY_READ.values())):
            code += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, _refuse(ENOENT))]
    return [*code, (RETURN, 0, 0, _refuse(EPERM))]


def _unless_bits(number: int, argument: int, bits: int, otherwise: int) -> list[tuple[int, int, int, int]]:
    """Allows call `number` unless its argument (low half: arguments are 64 bits wide, these flags 32) has one of `bits`."""
    low = 16 + 8 * argument
    return [
        (JUMP_EQUAL, 0, 4, number),
        (LOAD, 0, 0, low),
        (JUMP_ANY_BIT, 0, 1, bits),
        (RETURN, 0, 0, otherwise),
        (RETURN, 0, 0, ALLOW),
    ]
