"""What waits to be sent on one connection: nobody who reads slowly, or not at all, holds up the exchange."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

# A client that is this far behind is cut off. A bar takes about 100 bytes, so that is half a million of them.
MOST_BYTES_WAITING = 48 * 1024 * 1024


class Outlet:
    """Messages for one connection, sent in their order by its own task, several to a frame where it says so.

    Attributes:
        symbols: channel -> whose bars a data connection is sent (``*``: everyone's).
        abort: ends the connection at once, as if a cable had been pulled.
        overflow: set when the client was too slow; what waited is dropped, and the connection must end.
    """

    def __init__(
        self, frame: Callable[[list[bytes]], bytes], *, abort: Callable[[], None], messages_a_frame: int = 1
    ) -> None:
        self.symbols: dict[str, set[str]] = {"bars": set(), "updatedBars": set(), "dailyBars": set()}
        self.overflow = asyncio.Event()
        self.abort: Callable[[], None] = abort
        self._frame = frame
        self._messages_a_frame = messages_a_frame
        self._waiting: deque[bytes] = deque()
        self._bytes_waiting = 0
        self._wake = asyncio.Event()
        self._is_cut = False

    def cut(self) -> None:
        """End the connection abruptly: what waits, and what is pushed from now on, goes nowhere."""
        self._is_cut = True
        self._waiting.clear()
        self.abort()

    def wants(self, channel: str, symbol: str) -> bool:
        """Whether the client has subscribed to a symbol of a channel."""
        subscribed = self.symbols[channel]
        return symbol in subscribed or "*" in subscribed

    def push(self, message: bytes) -> bool:
        """Leave a message to be sent; never waits. False when the client is cut off already."""
        if self.overflow.is_set():
            return False
        if self._is_cut:
            return True
        self._waiting.append(message)
        self._bytes_waiting += len(message)
        if self._bytes_waiting > MOST_BYTES_WAITING:
            self.overflow.set()
            self._waiting.clear()
        self._wake.set()
        return True

    async def send_all(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what is pushed, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await send(self._frame(self._take()))

    def _take(self) -> list[bytes]:
        several = [self._waiting.popleft() for _ in range(min(self._messages_a_frame, len(self._waiting)))]
        self._bytes_waiting -= sum(map(len, several))
        return several
