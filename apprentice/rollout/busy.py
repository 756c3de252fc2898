"""How long something had work, where many have work for it at the same time."""

import time


class BusyTime:
    """Seconds of wall clock in which at least one `with` block over it was open."""

    def __init__(self):
        self._open, self._since, self._total = 0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._total + (time.monotonic() - self._since if self._open else 0.0)

    def __enter__(self) -> None:
        if not self._open:
            self._since = time.monotonic()
        self._open += 1

    def __exit__(self, *raised: object) -> None:
        self._open -= 1
        if not self._open:
            self._total += time.monotonic() - self._since
