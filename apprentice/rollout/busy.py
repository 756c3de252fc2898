"""The busy time of a resource that many coroutines use at the same time."""

import time


class BusyTime:
    """Seconds of wall-clock time in which at least one `with` block of this object was open."""

    def __init__(self):
        self._open, self._since, self._total = 0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        """Busy seconds so far, including open blocks."""
        return self._total + (time.monotonic() - self._since if self._open else 0.0)

    def __enter__(self) -> None:
        if not self._open:
            self._since = time.monotonic()
        self._open += 1

    def __exit__(self, *raised: object) -> None:
        self._open -= 1
        if not self._open:
            self._total += time.monotonic() - self._since
