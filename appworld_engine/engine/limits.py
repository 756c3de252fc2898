"""Resource limits of a process that serves one episode, and its priority for the out-of-memory killer."""

import resource
from dataclasses import dataclass
from pathlib import Path

EPISODE_OOM_SCORE = 1000
"""The kernel kills a process with this score before any other."""
EPISODE_MEMORY = 192 << 20
"""Bytes for what an episode changes; 900 notes take 12 MiB."""
MEMORY_PER_DATABASE_BYTE = 6
"""Bytes allowed for each byte of the data root's databases, for loading them once more."""


@dataclass(frozen=True)
class ProcessLimits:
    """The limits of a process that handles what an agent wrote: a world or a judge."""

    memory: int
    """Bytes of address space beyond what the process has at its start."""
    file: int
    """Bytes of the largest file that the process may write."""
    cpu_s: int | None = None
    """Seconds of processor time; None if another process watches the time."""

    def apply(self) -> None:
        """Limit this process irrevocably."""
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = {resource.RLIMIT_AS: size + self.memory, resource.RLIMIT_FSIZE: self.file, resource.RLIMIT_CORE: 0}
        if self.cpu_s is not None:
            limits[resource.RLIMIT_CPU] = self.cpu_s
        for kind, value in limits.items():
            limit_to(kind, value)
        raise_oom_score(EPISODE_OOM_SCORE)


def limit_to(kind: int, value: int) -> None:
    """Set the soft and the hard limit of a resource to `value`, or to the current hard limit if that is lower."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def memory_allowance(data: Path) -> int:
    """Return the bytes that a world or a judge may add: for an episode's changes and all databases of a data root."""
    return EPISODE_MEMORY + MEMORY_PER_DATABASE_BYTE * sum(file.stat().st_size for file in (data / "base_dbs").glob("*.db"))


def raise_oom_score(score: int) -> None:
    """Make the kernel kill this process and its forks earlier when memory runs out; a higher score is kept."""
    file = Path("/proc/self/oom_score_adj")
    if int(file.read_text()) < score:
        file.write_text(str(score))
