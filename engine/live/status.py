"""What a paper run is doing at this moment, for whoever watches: the terminal today, the page tomorrow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.trading.ledger import Position
from engine.trading.orders import SIDE_NAMES, Order


@dataclass(frozen=True, kw_only=True)
class Forecasted:
    """A forecast and what came of it.

    Attributes:
        made: end of the bar it was made at, UTC ns.
        forecast, lower, upper: log return over the next ``horizon`` bars.
        horizon: bars ahead.
        price: the close it was made at.
    """

    made: int
    forecast: float
    lower: float
    upper: float
    horizon: int
    price: float


@dataclass(frozen=True, kw_only=True)
class Held:
    """A position: signed quantity, average entry price, last close."""

    quantity: float
    average_price: float
    price: float


@dataclass(frozen=True, kw_only=True)
class OpenOrder:
    """An order that waits: number, symbol, side, quantity, type, and its prices in words."""

    number: int
    symbol: str
    side: str
    quantity: float
    type: str
    prices: str
    decided: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """A picture of the run after a step.

    Attributes:
        run: its folder's name.
        venue: where it trades: ``replay``, ``exchange`` or ``Alpaca paper``.
        step: steps that were decided on so far.
        time: end of the last bar, UTC ns; 0 before the first.
        closes: symbol -> last close.
        forecasts: symbol -> the newest forecast, about a bar that is not there yet.
        came: symbol -> (an earlier forecast whose bars have passed, the log return that came).
        positions, orders: what is held, what waits.
        equity, starting_equity, peak_equity: account currency. session_equity: at the end of the session before.
        cash: account currency.
        sent, filled, turned_down: orders so far.
        latencies_ms: of the last steps: ``decide`` (bar received to decision), ``send`` (to the broker's answer), and
            ``fill`` (sent to fill received; not in a replay, which fills when it is moved on).
        feed, broker: state of the connections in words.
        reconnects: times a connection was lost and made anew.
        halted: why a limit stopped trading, or empty. paused: why no position is opened at present, or empty.
        log: the last events in words.
    """

    run: str
    venue: str
    step: int
    time: int
    closes: Mapping[str, float]
    forecasts: Mapping[str, Forecasted]
    came: Mapping[str, tuple[Forecasted, float]]
    positions: Mapping[str, Held]
    orders: tuple[OpenOrder, ...]
    equity: float
    starting_equity: float
    peak_equity: float
    session_equity: float
    cash: float
    sent: int
    filled: int
    turned_down: int
    latencies_ms: Mapping[str, float]
    feed: str
    broker: str
    reconnects: int
    halted: str
    paused: str = ""
    log: tuple[str, ...] = field(default=())


class Followed:
    """Forecasts until their bars have passed, and then beside what came.

    Attributes:
        came: symbol -> (an earlier forecast whose bars have passed, the log return that came).
    """

    def __init__(self) -> None:
        self._pending: dict[str, deque[Forecasted]] = {}
        self.came: dict[str, tuple[Forecasted, float]] = {}

    @property
    def newest(self) -> dict[str, Forecasted]:
        """Symbol -> the newest forecast."""
        return {symbol: pending[-1] for symbol, pending in self._pending.items()}

    def take(self, symbol: str, horizon: int, values: Sequence[float], *, time: int, close: float) -> None:
        """Take a symbol's forecast, lower and upper, made at a bar's end (UTC ns) and its close."""
        pending = self._pending.setdefault(symbol, deque(maxlen=horizon + 1))
        if len(pending) >= horizon:
            earlier = pending[-horizon]
            self.came[symbol] = (earlier, math.log(close / earlier.price))
        forecast, lower, upper = values[:3]
        pending.append(Forecasted(made=time, forecast=forecast, lower=lower, upper=upper, horizon=horizon, price=close))


def held_of(positions: Mapping[str, Position], closes: Mapping[str, float]) -> dict[str, Held]:
    """What is held, by symbol."""
    return {
        symbol: Held(
            quantity=position.quantity,
            average_price=position.average_price,
            price=closes.get(symbol, math.nan),
        )
        for symbol, position in sorted(positions.items())
        if position.quantity
    }


def open_order(order: Order) -> OpenOrder:
    """An order that waits."""
    prices = [(f"limit {order.limit_price:g}", order.limit_price), (f"stop {order.stop_price:g}", order.stop_price)]
    return OpenOrder(
        number=order.id,
        symbol=order.symbol,
        side=SIDE_NAMES[order.side],
        quantity=order.remaining if math.isfinite(order.remaining) else order.quantity,
        type=order.type,
        prices=", ".join(text for text, price in prices if not math.isnan(price)),
        decided=order.decided,
    )
