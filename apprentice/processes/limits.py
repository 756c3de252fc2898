"""Operating-system limits and threading defaults of this process and its children."""

import os
import resource

SHARING_CORES = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000"}
"""OpenMP's threads spin at barriers by default, which costs several times the work itself when other processes need the
cores. Threads that sleep at once are woken hundreds of times per layer. With these values they spin for less than a
millisecond."""
MAX_OPEN_FILES = 65536
"""Some programs close every descriptor below the limit when they start another program, so it stays below a million."""
RESERVED_FILES, FILES_PER_EPISODE = 128, 2
"""Open files that a process needs for itself, and for each episode that runs in it."""


def use_cores_sparingly() -> None:
    """Set the variables of `SHARING_CORES` that the user has not set. Call this before importing what uses OpenMP."""
    for name, value in SHARING_CORES.items():
        os.environ.setdefault(name, value)


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the hard limit allows, at most `MAX_OPEN_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def max_concurrent_episodes() -> int:
    """Return how many episodes this process can run at the same time with the files that it may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
    return max(1, (files - RESERVED_FILES) // FILES_PER_EPISODE)
