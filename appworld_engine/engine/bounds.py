"""What a process that serves one episode may use, and that it is the first to end where a machine runs out of memory."""

import resource
from dataclasses import dataclass
from pathlib import Path

EPISODE_OOM_SCORE = 1000
"""The kernel ends such a process before any other."""
MEMORY, LOADED = 192 << 20, 6
"""Bytes for what an episode changes, of which 900 notes take 12 MiB; and those for each byte of a database that is loaded once more."""


@dataclass(frozen=True)
class Bounds:
    """The limits of a process that works with what an agent wrote: a world or a judge."""

    memory: int
    """Bytes of address space, beyond what the process begins with."""
    file: int
    """Bytes of its largest file."""
    cpu_s: int | None = None
    """Seconds of processor time; None where somebody watches the clock."""

    def take(self) -> None:
        """Limits this process for good."""
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = {resource.RLIMIT_AS: size + self.memory, resource.RLIMIT_FSIZE: self.file, resource.RLIMIT_CORE: 0}
        if self.cpu_s is not None:
            limits[resource.RLIMIT_CPU] = self.cpu_s
        for kind, value in limits.items():
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
        offer_to_oom_killer(EPISODE_OOM_SCORE)


def room(data: Path) -> int:
    """Bytes of memory that a world or a judge may take: for what an episode changes, and for all databases of a data root."""
    return MEMORY + LOADED * sum(file.stat().st_size for file in (data / "base_dbs").glob("*.db"))


def offer_to_oom_killer(score: int) -> None:
    """Tells the kernel how soon to end this process, and what it forks, when memory runs out; never sooner than it is told already."""
    file = Path("/proc/self/oom_score_adj")
    if int(file.read_text()) < score:
        file.write_text(str(score))
