"""A stream to one process of the engine, with the lifeline that keeps it alive."""

import asyncio
import json
import socket

from apprentice.usecases.assistant.environment.episode import WorldDied


class Link:
    """Sends messages to one process of the engine and receives its answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lifeline: socket.socket):
        self._reader, self._writer, self._lifeline = reader, writer, lifeline

    async def ask(self, message: dict, timeout_s: float) -> dict:
        """Send one message and wait for the answer to it.

        Raises:
            WorldDied: the process ended or did not answer in time.
        """
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            return await self.receive(timeout_s)
        except (ConnectionError, RuntimeError):
            raise WorldDied("its process ended") from None

    async def receive(self, timeout_s: float) -> dict:
        """Return the next message.

        Raises:
            WorldDied: the process ended or sent nothing in time.
        """
        try:
            line = await asyncio.wait_for(self._reader.readline(), timeout_s)
        except TimeoutError:
            raise WorldDied(f"time: no answer within {timeout_s:g} s") from None
        except (ConnectionError, ValueError):
            raise WorldDied("its process ended") from None
        if not line.endswith(b"\n"):
            raise WorldDied("its process ended")
        return json.loads(line)

    def close(self) -> None:
        """Close the stream and the lifeline, which kills the process; safe to call twice."""
        self._lifeline.close()
        self._writer.close()
