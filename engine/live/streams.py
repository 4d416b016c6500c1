"""The SDK's two streams, each in a thread of its own, with what the SDK keeps to itself made known.

The SDK reconnects by itself and tells nobody; it repeats a refused login for ever. Here a lost connection is an event,
and a refusal ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any

from alpaca.data.enums import DataFeed
from alpaca.data.live import StockDataStream
from alpaca.trading.stream import TradingStream

from engine.credentials import Credentials
from engine.errors import BrokerError
from engine.live.inbox import Inbox

# The SDK logs every failure with its traceback; what matters of it reaches the inbox.
logging.getLogger("alpaca").addHandler(logging.NullHandler())
logging.getLogger("alpaca").propagate = False

BARS, TRADES = "bars", "trades"
_JOIN_SECONDS = 6.0


class _Announced:
    """Mixed into a stream of the SDK: says when it is connected, lost or refused."""

    stream_name = ""
    inbox: Inbox
    _up = False

    async def _start_ws(self) -> None:
        try:
            await super()._start_ws()  # type: ignore[misc]
        except ValueError as error:
            self.inbox.fail(_refusal(self.stream_name, str(error)))
            raise
        except OSError as error:
            self.inbox.put_event(self.stream_name, "lost", f"{type(error).__name__}: {error}")
            raise

    def announce(self) -> None:
        """The stream is connected, and what was asked for will come."""
        self._up = True
        self.inbox.put_event(self.stream_name, "connected")

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
            self.inbox.fail(_refusal(self.stream_name, str(msg.get("msg"))))


class UpdateStream(_Announced, TradingStream):
    """Trade updates into the inbox."""

    stream_name = TRADES

    async def _dispatch(self, msg: dict[str, Any]) -> None:
        stream = msg.get("stream")
        if stream == "trade_updates":
            self.inbox.put_update(msg["data"])
        elif stream == "listening":
            self.announce()


def _refusal(stream: str, said: str) -> BrokerError:
    if "connection limit" in said:
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
        silent_seconds: float | None,
    ) -> None:
        """``symbols`` whose minute bars are wanted; none: no market data stream is opened.

        ``silent_seconds``: how long bars may fail to come before the connection is taken for dead and made anew.
        """
        self._threads: list[tuple[threading.Thread, Any]] = []
        keys = (credentials.key, credentials.secret)
        trades = UpdateStream(*keys, paper=True, raw_data=True, url_override=credentials.trading_stream_url)  # type: ignore[arg-type]
        trades.subscribe_trade_updates(_nothing)
        self._streams: list[Any] = [trades]
        if symbols:
            bars = BarStream(
                *keys,
                raw_data=True,
                feed=DataFeed(feed),
                data_timeout=silent_seconds,
                url_override=credentials.data_stream(feed),
            )
            bars.subscribe_bars(_nothing, *symbols)
            bars.subscribe_updated_bars(_nothing, *symbols)
            self._streams.append(bars)
        for stream in self._streams:
            stream.inbox = inbox

    @property
    def names(self) -> list[str]:
        """The streams that are opened."""
        return [stream.stream_name for stream in self._streams]

    def start(self) -> None:
        """Open them; ``connected`` events say when they are ready."""
        for stream in self._streams:
            thread = threading.Thread(target=_run, args=(stream,), name=f"nextbar-{stream.stream_name}", daemon=True)
            thread.start()
            self._threads.append((thread, stream))

    def stop(self) -> None:
        """Close them and wait for their threads."""
        for thread, stream in self._threads:
            loop = stream._loop
            if thread.is_alive() and loop is not None:
                # stop() alone waits for the receive that is under way, up to five seconds.
                with contextlib.suppress(RuntimeError):
                    asyncio.run_coroutine_threadsafe(_end(stream), loop)
        for thread, _ in self._threads:
            thread.join(_JOIN_SECONDS)
        self._threads.clear()


async def _nothing(message: Any) -> None:
    """Stands for a handler: the streams hand everything to the inbox themselves."""


async def _end(stream: Any) -> None:
    await stream.stop_ws()
    await stream.close()


def _run(stream: Any) -> None:
    with contextlib.suppress(Exception):
        asyncio.run(stream._run_forever())
