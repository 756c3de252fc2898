"""Memory: the peak of a process tree, and what happens to memory that is freed."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from apprentice.processes import memory
from apprentice.processes.memory import MemoryPeak


def test_the_peak_is_that_of_the_whole_tree_with_shared_pages_counted_once():
    held = "import os, time; x = bytearray(b'1') * 200_000_000; os.fork(); print('ready', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, start_new_session=True)
    peak, around, apart = MemoryPeak(process.pid), MemoryPeak(os.getpid()), MemoryPeak(os.getpid(), apart=process.pid)
    try:
        assert process.stdout.readline() and process.stdout.readline()
        for each in (peak, around, apart):
            each.look()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    peak.look()
    assert 190e6 < peak.bytes < 350e6  # 400 MB if shared pages counted twice
    assert around.bytes - apart.bytes == pytest.approx(peak.bytes, rel=0.2)


def test_shared_pages_are_measured_at_new_maxima_and_otherwise_seldom(monkeypatch: pytest.MonkeyPatch):
    resident, measured = [0], []

    class FakeProcess:
        def __init__(self, pid: int): ...

        def memory_info(self):
            return SimpleNamespace(rss=resident[0])

        def memory_full_info(self):
            measured.append(resident[0])
            return SimpleNamespace(pss=resident[0] // 2)

    monkeypatch.setattr(psutil, "Process", FakeProcess)
    monkeypatch.setattr(memory, "MEASURING_SHARE", 1e-9)
    with subprocess.Popen(["sleep", "600"]) as childless:
        peak = MemoryPeak(childless.pid)
        for resident[0] in (1000, 1001, 900, 2000, 1999, 2000, 3000):
            peak.look()
        childless.kill()
    assert measured == [1000, 2000, 3000] and peak.bytes == 1500


def test_a_process_that_has_ended_counts_as_nothing():
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    peak = MemoryPeak(ended.pid)
    peak.look()
    assert peak.bytes == 0


FREED = """
import re, resource, sys
from pathlib import Path
from apprentice.processes.memory import reuse_memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

if sys.argv[1] == "reuse":
    reuse_memory()
before = resident()
for _ in range(3):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"x" * 40_000_000)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults, resident() - before)
"""


def test_freed_memory_is_kept_and_reused_without_asking_the_kernel():
    def measure(how: str) -> tuple[int, int]:
        said = subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, text=True, check=True).stdout.split()
        return int(said[0]), int(said[1])

    faults, kept_kib = measure("reuse")
    assert faults < 3_000 and kept_kib > 30_000  # a fresh block takes about 10,000 faults
    assert measure("default")[1] < 20_000


SURPLUS = """
import resource
from pathlib import Path
from apprentice.processes import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

memory.reuse_memory()
memory.SURPLUS_BYTES = 50_000_000
start, fixed = resident(), memory.allocated()
blocks = [bytearray(b"x" * 10_000_000) for _ in range(12)]
needed = memory.allocated()
last = blocks.pop()  # the freed blocks lie below it
blocks.clear()
kept = resident()
memory.return_surplus(needed)
not_yet = resident()
memory.return_surplus(fixed + 10_000_000)
print(needed - fixed, kept - start, not_yet - start, resident() - start)
"""


def test_freed_memory_beyond_what_was_needed_goes_back():
    said = subprocess.run([sys.executable, "-c", SURPLUS], capture_output=True, text=True, check=True).stdout.split()
    needed, kept, not_yet, returned = map(int, said)
    assert 120e6 <= needed < 130e6 and kept > 100e6
    assert not_yet > 100e6 and returned < 50e6
