"""Many requests at a time, or one exchange of weights: never both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """A readers-writer lock for coroutines; a waiting writer goes before later readers."""

    def __init__(self):
        self._condition = asyncio.Condition()
        self._readers, self._writers_waiting, self._writing = 0, 0, False

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Together with others that share."""
        async with self._condition:
            await self._condition.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            await self._wake()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """After everyone who shares has left, and before the next comes in."""
        self._writers_waiting += 1
        try:
            async with self._condition:
                await self._condition.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
        finally:
            self._writers_waiting -= 1
            if not self._writing:
                await self._wake()
        try:
            yield
        finally:
            self._writing = False
            await self._wake()

    async def _wake(self) -> None:
        async with self._condition:
            self._condition.notify_all()
