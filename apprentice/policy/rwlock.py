"""A readers-writer lock for coroutines: many requests at a time, or one exchange of weights, but never both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class RWLock:
    """Shared by any number of readers, or held by one writer. A waiting writer goes before readers that come later."""

    def __init__(self):
        self._condition = asyncio.Condition()
        self._readers, self._writers_waiting, self._writing = 0, 0, False

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Hold the lock together with other readers."""
        async with self._condition:
            await self._condition.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            await self._notify()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Hold the lock alone, after every current reader has released it."""
        self._writers_waiting += 1
        try:
            async with self._condition:
                await self._condition.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
        finally:
            self._writers_waiting -= 1
            if not self._writing:
                await self._notify()
        try:
            yield
        finally:
            self._writing = False
            await self._notify()

    async def _notify(self) -> None:
        async with self._condition:
            self._condition.notify_all()
