"""The system-call filter of the sandbox.

It is a classic BPF program over `struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6]}`.
"""

import ctypes
import platform
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, EFAULT, ENOSYS, ENOENT = 1, 14, 38, 2
AUDIT_ARCH_X86_64 = 0xC000003E
X32_BIT = 0x40000000
PROT_EXEC = 4
OPEN_FOR_CHANGE = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE."""
ALLOWED = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "pause": 34,
    "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "exit": 60, "uname": 63, "getcwd": 79, "gettimeofday": 96,
    "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
    "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
    "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232,
    "epoll_ctl": 233, "pselect6": 270, "ppoll": 271, "epoll_pwait": 281, "getrandom": 318,
}  # fmt: skip
ALLOWED_READS = {"stat": 4, "lstat": 6, "access": 21, "getdents": 78, "readlink": 89, "getdents64": 217, "newfstatat": 262, "readlinkat": 267,
                 "faccessat": 269, "statx": 332, "faccessat2": 439}  # fmt: skip
MMAP, MPROTECT, SENDTO, RECVFROM, OPEN, OPENAT = 9, 10, 44, 45, 2, 257
SOCKET_FLAGS = 0x40 | 0x4000
"""MSG_DONTWAIT and MSG_NOSIGNAL. Python uses none; the others, above all MSG_OOB, reach rarely used parts of the kernel."""
CLONE3 = 435

_libc = ctypes.CDLL(None, use_errno=True)


def filter_reason() -> str | None:
    """Return why this machine cannot have a system-call filter; None if it can."""
    if platform.machine() != "x86_64":
        return f"the system-call filter supports x86_64 only, and this machine is {platform.machine()}"
    # Given no program, a kernel that supports filters answers EFAULT.
    _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0)
    return None if ctypes.get_errno() == EFAULT else "the kernel has no system-call filters (seccomp)"


def install_filter(may_read: bool) -> None:
    """Install the filter for this process, irrevocably.

    Args:
        may_read: whether the process may open files for reading and list folders.

    Raises:
        OSError: the kernel rejects the filter.
    """
    code = _program(may_read)
    block = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]

    program = Program(len(code), ctypes.cast(block, ctypes.c_void_p))
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _reject(error: int) -> int:
    return 0x00050000 | error


def _program(may_read: bool) -> list[tuple[int, int, int, int]]:
    """Return the program. It rejects every call that is not listed with EPERM.

    Above all, it rejects new processes, other programs, sockets, signals, tracing, and mounts.
    """
    allowed = sorted({**ALLOWED, **(ALLOWED_READS if may_read else {})}.values())
    code = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64), (RETURN, 0, 0, KILL)]
    code += [(LOAD, 0, 0, 0), (JUMP_AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, _reject(ENOSYS))]
    for number in allowed:
        code += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    # clone3's flags lie in memory, which a filter cannot read. ENOSYS makes the C library fall back to clone, which the
    # filter rejects.
    code += [(JUMP_EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, _reject(ENOSYS))]
    for number in (MMAP, MPROTECT):
        code += _unless_bits(number, 2, PROT_EXEC, _reject(EPERM))
    for number in (SENDTO, RECVFROM):
        code += _unless_bits(number, 3, ~SOCKET_FLAGS & 0xFFFFFFFF, _reject(EPERM))
    if may_read:
        code += _unless_bits(OPEN, 1, OPEN_FOR_CHANGE, _reject(EPERM)) + _unless_bits(OPENAT, 2, OPEN_FOR_CHANGE, _reject(EPERM))
    else:
        for number in (OPEN, OPENAT, *sorted(ALLOWED_READS.values())):
            code += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, _reject(ENOENT))]
    return [*code, (RETURN, 0, 0, _reject(EPERM))]


def _unless_bits(number: int, argument: int, bits: int, otherwise: int) -> list[tuple[int, int, int, int]]:
    """Allow call `number` unless its argument has one of `bits`.

    Only the low half of the argument is tested: arguments have 64 bits, these flags 32.
    """
    low = 16 + 8 * argument
    return [
        (JUMP_EQUAL, 0, 4, number),
        (LOAD, 0, 0, low),
        (JUMP_ANY_BIT, 0, 1, bits),
        (RETURN, 0, 0, otherwise),
        (RETURN, 0, 0, ALLOW),
    ]
