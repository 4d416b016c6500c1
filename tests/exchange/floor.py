"""A trading floor for tests: bars by hand, an exchange over them, and a client that speaks plain HTTP and frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgpack
import pandas as pd
import requests
from websockets.sync.client import ClientConnection, connect

from engine.config import BrokerConfig, CommissionConfig
from engine.data.bars import Bars
from engine.data.calendars import session_closes
from engine.exchange.server import AccountSpec, ExchangeServer

KEY, SECRET = "key", "secret-word"
SECONDS = 5.0

Prices = tuple[float, float, float, float]


def flat(price: float) -> Prices:
    """A bar that does not move."""
    return (price, price, price, price)


def minutes(
    prices: Mapping[str, Sequence[Prices | None]], *, first: str = "2024-01-02 09:31", volume: float = 1000.0
) -> Bars:
    """Minute bars one after another from ``first`` (New York, the end of the first); None leaves one out."""
    start = pd.Timestamp(first, tz="America/New_York").tz_convert("UTC")
    return _bars(
        {
            symbol: [(start + pd.Timedelta(minutes=n), bar) for n, bar in enumerate(rows) if bar is not None]
            for symbol, rows in prices.items()
        },
        "1m",
        volume,
    )


def days(prices: Mapping[str, Sequence[Prices]], *, dates: Sequence[str]) -> Bars:
    """Daily bars of the sessions of the dates."""
    closes = session_closes(pd.DatetimeIndex(dates))
    return _bars({s: list(zip(closes, rows, strict=True)) for s, rows in prices.items()}, "1d", 1000.0)


def _bars(rows: Mapping[str, list[tuple[pd.Timestamp, Prices]]], timeframe: str, volume: float) -> Bars:
    frames = {}
    for symbol, bars in sorted(rows.items()):
        index = pd.DatetimeIndex([time for time, _ in bars]).as_unit("ns").rename("time")
        frame = pd.DataFrame([bar for _, bar in bars], columns=["open", "high", "low", "close"], index=index)
        frames[symbol] = frame.astype("float64").assign(volume=volume)
    return Bars(frames=frames, timeframe=timeframe, adjustment="none", source="test")


def broker(**terms: Any) -> BrokerConfig:
    """An account of 10,000 without costs, unless told otherwise."""
    return BrokerConfig(**{"cash": 10_000.0, "commission": CommissionConfig(), **terms})


class Floor:
    """An exchange whose first bar is history, and a client of it. Use it as a context manager."""

    def __init__(
        self, bars: Bars, *, start: pd.Timestamp | None = None, terms: BrokerConfig | None = None, **more: Any
    ) -> None:
        times = sorted({time for frame in bars.frames.values() for time in frame.index})
        spec = AccountSpec(key=KEY, secret=SECRET, broker=terms or broker())
        self.exchange = ExchangeServer(bars=bars, start=start or times[1], accounts=[spec], **more)
        self.http = requests.Session()
        self.http.headers.update({"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET})
        self._sockets = ExitStack()

    def __enter__(self) -> Floor:
        self.exchange.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()
        self.http.close()
        self.exchange.stop()

    # --- REST ------------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request, whatever comes of it."""
        return self.http.request(method, self.exchange.url + path, timeout=SECONDS, **more)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET that must succeed."""
        answer = self.ask("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def advance(self, steps: int = 1) -> dict[str, Any]:
        """Move the clock; the last answer."""
        for _ in range(steps):
            answer = self.ask("POST", "/nextbar/advance")
            assert answer.status_code == 200, answer.text
        moved: dict[str, Any] = answer.json()
        return moved

    def order(self, side: str = "buy", qty: Any = 10, **more: Any) -> dict[str, Any]:
        """Submit an order that must be accepted; a market day order of X unless told otherwise."""
        answer = self.try_order(side, qty, **more)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def try_order(self, side: str = "buy", qty: Any = 10, **more: Any) -> requests.Response:
        """Submit an order, whatever comes of it."""
        body = {"symbol": "X", "qty": qty, "side": side, "type": "market", "time_in_force": "day", **more}
        return self.ask("POST", "/v2/orders", json={name: value for name, value in body.items() if value is not None})

    def look(self, order: Mapping[str, Any], **query: Any) -> dict[str, Any]:
        """The order as it is now."""
        found: dict[str, Any] = self.get(f"/v2/orders/{order['id']}", **query)
        return found

    # --- sockets ---------------------------------------------------------------------------------------------------

    def socket(self, path: str) -> ClientConnection:
        """An open connection."""
        url = self.exchange.url.replace("http", "ws") + path
        headers = {"Content-Type": "application/msgpack"}
        return self._sockets.enter_context(
            connect(url, additional_headers=headers, open_timeout=SECONDS, max_queue=None)
        )

    def data(self, **subscriptions: list[str]) -> ClientConnection:
        """A data connection that is authenticated and subscribed."""
        made = self.socket("/v2/iex")
        assert frame(made) == [{"T": "success", "msg": "connected"}]
        tell(made, action="auth", key=KEY, secret=SECRET)
        assert frame(made) == [{"T": "success", "msg": "authenticated"}]
        if subscriptions:
            tell(made, action="subscribe", **subscriptions)
            assert frame(made)[0]["T"] == "subscription"
        return made

    def updates(self) -> ClientConnection:
        """A trading connection that listens."""
        made = self.socket("/stream")
        made.send(json.dumps({"action": "authenticate", "data": {"key_id": KEY, "secret_key": SECRET}}))
        assert update(made)["data"]["status"] == "authorized"
        made.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        assert update(made) == {"stream": "listening", "data": {"streams": ["trade_updates"]}}
        return made


def tell(socket: ClientConnection, **message: Any) -> None:
    """Send a msgpack message."""
    socket.send(msgpack.packb(message))


def frame(socket: ClientConnection) -> Any:
    """The next msgpack frame, which must be binary."""
    received = socket.recv(timeout=SECONDS)
    assert isinstance(received, bytes)
    return msgpack.unpackb(received)


def update(socket: ClientConnection) -> dict[str, Any]:
    """The next JSON message, which must come in a binary frame."""
    received = socket.recv(timeout=SECONDS)
    assert isinstance(received, bytes)
    message: dict[str, Any] = json.loads(received)
    return message


def events(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """The data of the next trade updates."""
    return [update(socket)["data"] for _ in range(count)]
