"""Memory: the peak of a process tree, and how glibc's allocator treats freed memory in this process."""

import ctypes
import time
from collections.abc import Iterable

import psutil

from apprentice.processes.children import descendants

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3), from malloc.h."""
SURPLUS_BYTES = 3 * 2**29
"""Freed memory that is kept: gaps between blocks of other sizes, in which nothing fits. With two thirds of it, memory
would be returned after almost every update, at a tenth of its time."""
GROWTH = 1.005
"""A total resident size that exceeds the largest one by this factor is worth measuring exactly."""
MEASURING_SHARE = 0.01
"""Share of the wall time spent on exact measurements; one takes 12 to 30 ms per GiB."""


class MemoryPeak:
    """The peak memory of a process and its descendants. Pages that several of them share count once.

    The measure is the proportional set size (PSS), which the kernel takes long to compute. It is therefore read only
    when the sum of the resident sizes, which is cheap to read, reaches a new maximum, and otherwise for
    `MEASURING_SHARE` of the time.

    Args:
        root: id of the process.
        apart: id of a descendant that does not count, nor do its own descendants.
    """

    def __init__(self, root: int, apart: int | None = None):
        self._root, self._apart = root, apart
        self._largest, self._next = 0.0, 0.0
        self.bytes = 0

    def look(self) -> None:
        """Measure the processes now and update `bytes`."""
        excluded = {self._apart, *descendants(self._apart)} if self._apart else set()
        pids = {self._root, *descendants(self._root)} - excluded
        resident, began = _total(pids, "memory_info", "rss"), time.monotonic()
        if resident > GROWTH * self._largest or began >= self._next:
            self._largest = max(self._largest, resident)
            self.bytes = max(self.bytes, _total(pids, "memory_full_info", "pss"))
            self._next = time.monotonic() + (time.monotonic() - began) / MEASURING_SHARE


def _total(pids: Iterable[int], method: str, field: str) -> int:
    """Return the sum of a memory field, in bytes. Processes that have ended or belong to another user count as 0."""
    total = 0
    for pid in pids:
        try:
            total += getattr(getattr(psutil.Process(pid), method)(), field)
        except psutil.Error:
            continue
    return total


def reuse_memory() -> None:
    """Make glibc keep the memory that this process frees.

    Otherwise the pages of every large tensor go back to the kernel, which clears and maps those of the next tensor one
    by one. That takes a tenth of the time of an update.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)


def allocated() -> int:
    """Return the bytes that this process has allocated with glibc and not freed; 0 if glibc is older than 2.33."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return 0
    libc.mallinfo2.restype = _MallInfo
    return libc.mallinfo2().uordblks


def return_surplus(needed: int) -> None:
    """Return freed memory to the kernel if this process holds more than `needed` bytes plus SURPLUS_BYTES.

    When block sizes keep changing, much of the freed memory is never used again. If `needed` is 0, everything is kept.
    """
    if not needed:
        return
    with open("/proc/self/status") as status:
        held = int(status.read().partition("RssAnon:")[2].split()[0]) * 1024
    if held > needed + SURPLUS_BYTES:
        ctypes.CDLL(None).malloc_trim(0)


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]
