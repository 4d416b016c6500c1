"""The SDK's two streams, each in a thread of its own, with what the SDK keeps to itself made known.

The SDK reconnects by itself and tells nobody; it repeats a refused login for ever. Here a lost connection is an event,
and a refusal ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from functools import partial
from typing import Any
from weakref import WeakSet

from alpaca.data.enums import DataFeed
from alpaca.data.live import StockDataStream
from alpaca.trading.stream import TradingStream
from websockets.legacy.client import WebSocketClientProtocol

from engine.credentials import Credentials
from engine.errors import BrokerError
from engine.live.desk import is_update
from engine.live.inbox import Inbox

# The libraries log every failure with its traceback; what matters of it reaches the inbox.
for name in ("alpaca", "websockets.client"):
    logging.getLogger(name).addHandler(logging.NullHandler())
    logging.getLogger(name).propagate = False

BARS, TRADES = "bars", "trades"

_LIMIT = "connection limit exceeded"
# What no second try mends. Everything else (a time-out, an error of the server) the SDK tries again.
_FINAL = (_LIMIT, "auth failed", "failed to authenticate", "not authenticated", "insufficient subscription",
          "symbol limit exceeded", "v2 not enabled")  # fmt: skip
# A connection that was lost may still be counted for a while: the SDK's pauses between so many tries make a minute.
_TRIES_AFTER_LOSS = 6
_CLOSE_SECONDS, _CANCEL_SECONDS = 0.5, 0.1
_JOIN_SECONDS = 2.0
_MOST_BYTES_A_FRAME = 64 * 1024 * 1024


class _Connection(WebSocketClientProtocol):
    """The library's connection; it is known from the first moment on, so that it can always be closed."""

    def __init__(self, *args: Any, connections: WeakSet[Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        connections.add(self)


class _Announced:
    """Mixed into a stream of the SDK: says when it is connected, lost or refused."""

    stream_name = ""
    inbox: Inbox
    connections: WeakSet[Any]
    _ws: Any
    _up = _was_up = False
    _refusals = 0

    async def _start_ws(self) -> None:
        try:
            await super()._start_ws()  # type: ignore[misc]
        except ValueError as error:
            self.refused(str(error))
            raise
        except Exception as error:
            self.inbox.put_event(self.stream_name, "lost", f"{type(error).__name__}: {error}"[:200])
            raise

    def announce(self) -> None:
        """The stream is connected, and what was asked for will come."""
        self._up = self._was_up = True
        self._refusals = 0
        self.inbox.put_event(self.stream_name, "connected")

    def refused(self, said: str) -> None:
        """The server says no: for good, or (its own fault, or it has not noticed yet that we were lost) for now."""
        self._refusals += 1
        passing = _LIMIT in said and self._was_up and self._refusals < _TRIES_AFTER_LOSS
        if passing or not any(text in said for text in _FINAL):
            self.inbox.put_event(self.stream_name, "error", said[:200])
        else:
            self.inbox.fail(_refusal(self.stream_name, said[:200]))

    async def hang_up(self) -> None:
        """Close the socket, if it is open; the SDK notices, and connects anew."""
        if self._up:
            with contextlib.suppress(Exception):
                await self._ws.close()

    async def close(self) -> None:
        """Close the connection, for a stop or before the next try."""
        if self._up:
            self._up = False
            self.inbox.put_event(self.stream_name, "lost")
        with contextlib.suppress(Exception):
            await super().close()  # type: ignore[misc]


class BarStream(_Announced, StockDataStream):
    """Minute bars, and revisions of them, into the inbox."""

    stream_name = BARS

    async def _dispatch(self, msg: dict[str, Any]) -> None:
        kind = msg.get("T")
        if kind == "b":
            self.inbox.put_bar(msg)
        elif kind == "u":
            self.inbox.put_bar(msg, revised=True)
        elif kind == "subscription":
            self.announce()
        elif kind == "error":
            self.refused(str(msg.get("msg")))


class UpdateStream(_Announced, TradingStream):
    """Trade updates into the inbox."""

    stream_name = TRADES

    async def _dispatch(self, msg: dict[str, Any]) -> None:
        stream, data = msg.get("stream"), msg.get("data")
        if stream == "trade_updates":
            if isinstance(data, dict) and is_update(data):
                self.inbox.put_update(data)
            else:
                self.inbox.put_event(TRADES, "error", "a trade update that cannot be read was left out")
        elif stream == "listening":
            self.announce()


def _refusal(stream: str, said: str) -> BrokerError:
    if _LIMIT in said:
        return BrokerError(
            f"the {stream} stream was refused: {said} (406); another process is connected with this account, and "
            "Alpaca allows one: stop it, or use another paper account"
        )
    return BrokerError(
        f"the {stream} stream was refused: {said}; check the keys, and that the plan includes the feed of data.feed"
    )


class Streams:
    """Both streams, running."""

    def __init__(
        self,
        credentials: Credentials,
        inbox: Inbox,
        *,
        symbols: tuple[str, ...],
        feed: str,
    ) -> None:
        """``symbols`` whose minute bars are wanted; none: no market data stream is opened."""
        self._threads: list[_Thread] = []
        # A socket that answers no ping is dead; a big frame is no reason to close one; a mute peer holds up no stop.
        settings = {
            "ping_interval": 10,
            "ping_timeout": 180 if credentials.local else 30,
            "max_queue": 1024,
            "max_size": _MOST_BYTES_A_FRAME,
            "close_timeout": _CLOSE_SECONDS,
        }
        keys = (credentials.key, credentials.secret)
        trades = UpdateStream(*keys, paper=True, raw_data=True, url_override=credentials.trading_stream_url)  # type: ignore[arg-type]
        trades.subscribe_trade_updates(_nothing)
        self._streams: list[Any] = [trades]
        if symbols:
            bars = BarStream(
                *keys,
                raw_data=True,
                feed=DataFeed(feed),
                url_override=credentials.data_stream(feed),
            )
            bars.subscribe_bars(_nothing, *symbols)
            bars.subscribe_updated_bars(_nothing, *symbols)
            self._streams.append(bars)
        for stream in self._streams:
            stream.inbox = inbox
            stream.connections = WeakSet()
            stream._websocket_params = {
                **settings,
                "create_protocol": partial(_Connection, connections=stream.connections),
            }

    @property
    def names(self) -> list[str]:
        """The streams that are opened."""
        return [stream.stream_name for stream in self._streams]

    def start(self) -> None:
        """Open them; ``connected`` events say when they are ready."""
        self._threads = [_Thread(stream) for stream in self._streams]

    def renew(self, name: str) -> None:
        """Have a stream's connection made anew: it is open, and says nothing."""
        for thread in self._threads:
            if thread.stream_name == name:
                thread.hang_up()

    def stop(self) -> None:
        """Close them and wait for their threads."""
        for thread in self._threads:
            thread.leave()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        self._threads.clear()


class _Thread(threading.Thread):
    """Runs a stream; unlike the SDK's own way it can be left at any point, also while nobody answers."""

    def __init__(self, stream: Any) -> None:
        super().__init__(name=f"nextbar-{stream.stream_name}", daemon=True)
        self._stream = stream
        self._loop = asyncio.new_event_loop()
        self._left = asyncio.Event()
        self._hanging_up: asyncio.Task[None] | None = None
        self.start()

    @property
    def stream_name(self) -> str:
        """The stream's name."""
        return str(self._stream.stream_name)

    def hang_up(self) -> None:
        """Close its socket, from another thread."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._begin_to_hang_up)

    def _begin_to_hang_up(self) -> None:
        self._hanging_up = self._loop.create_task(self._stream.hang_up())

    def leave(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._left.set)

    def run(self) -> None:
        """Receive until told to leave."""
        try:
            self._loop.run_until_complete(self._receive())
        finally:
            self._loop.close()

    async def _receive(self) -> None:
        receiving = asyncio.ensure_future(self._stream._run_forever())
        leaving = asyncio.ensure_future(self._left.wait())
        await asyncio.wait({receiving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not leaving.done():
            name = self._stream.stream_name
            self._stream.inbox.fail(BrokerError(f"the {name} stream ended by itself; start the run again"))
        await self._stream.stop_ws()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._stream.close(), 2.0 * _CLOSE_SECONDS)
        # The receiving itself, and what the library does beside it; where it is closing, it overhears one cancellation.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
            for connection in list(self._stream.connections):
                if connection.transport is not None:
                    connection.transport.abort()  # one that was cut off in the middle of its handshake


async def _nothing(message: Any) -> None:
    """Stands for a handler: the streams hand everything to the inbox themselves."""
