"""What a paper run did, read back from its journal: the same records as a backtest's, finished or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS
from engine.errors import DataError
from engine.live.journal import Entry, Journal
from engine.trading.ledger import Ledger
from engine.trading.orders import BUY, SELL, SIDE_NAMES, Fill, Order, OrderStatus

_SIDES = {SIDE_NAMES[side]: side for side in (BUY, SELL)}


@dataclass(kw_only=True)
class Recorded:
    """The content of a journal.

    Attributes:
        symbols: in the order of the run.
        history: symbol -> (UTC ns, open, high, low, close, volume) of the bars before the first decision.
        steps: (UTC ns, whether it was decided on, symbol -> open, high, low, close, volume), in order.
        orders: in the sequence in which the strategy gave them, with their present status.
        ledger: the account after all fills and interest.
        forecasts: symbol -> {UTC ns: (forecast, lower, upper)}.
        latencies_ms: name -> milliseconds of each step.
        differences: between the broker's account and our ledger when they were last compared, in sentences.
        bundles: names of the bundles that the strategy forecast with at the start.
        models: the newer bundles that took over, as ``engine.paper_models.Change`` has them, in order.
        averaged: numbers of the orders whose fills were missed, and booked at the average that the broker told.
        accepted: differences that a person has said the broker is right about, in sentences. unexplained_cash: what was
            paid into the account or out of it then, account currency.
        halted: why a limit stopped trading, or empty.
        ended: how the run ended, or empty while it is going on or was cut off.
        counts: kind -> number of entries.
    """

    symbols: tuple[str, ...] = ()
    history: dict[str, list[list[float]]] = field(default_factory=dict)
    steps: list[tuple[int, bool, Mapping[str, list[float]]]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    ledger: Ledger
    forecasts: dict[str, dict[int, tuple[float, float, float]]] = field(default_factory=dict)
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    bundles: tuple[str, ...] = ()
    models: tuple[Mapping[str, Any], ...] = ()
    differences: tuple[str, ...] = ()
    averaged: set[int] = field(default_factory=set)
    accepted: tuple[str, ...] = ()
    unexplained_cash: float = 0.0
    halted: str = ""
    ended: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        """Whether a bar was decided on."""
        return any(decide for _, decide, _ in self.steps)

    @property
    def first_decision(self) -> int:
        """End of the first bar that was decided on, UTC ns; a DataError before there is one."""
        for time, decide, _ in self.steps:
            if decide:
                return time
        raise DataError("no bar has been decided on yet: there is nothing to report; wait for the first bar")

    def frames(self) -> dict[str, pd.DataFrame]:
        """Canonical frames of all bars, history included."""
        rows: dict[str, list[tuple[float, ...]]] = {
            symbol: [tuple(r) for r in self.history[symbol]] for symbol in self.symbols
        }
        for time, _, bars in self.steps:
            for symbol, values in bars.items():
                rows[symbol].append((time, *values))
        return {symbol: _frame(found) for symbol, found in rows.items()}

    def forecast_lines(self, symbol: str, times: pd.DatetimeIndex) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[bars, 3] forecast, lower, upper at each of the times; NaN where none was recorded."""
        found = self.forecasts.get(symbol, {})
        missing = (math.nan,) * 3
        return np.array([found.get(time, missing) for time in times.as_unit("ns").asi8.tolist()]).reshape(-1, 3)


def read_recorded(journal: Journal, *, cash: float) -> Recorded:
    """Everything that a journal holds.

    Args:
        cash: of the account at the start.

    Raises:
        DataError: the journal is damaged.
    """
    recorded = Recorded(ledger=Ledger(cash))
    by_number: dict[int, Order] = {}
    for entry in journal.entries():
        recorded.counts[entry.kind] = recorded.counts.get(entry.kind, 0) + 1
        try:
            _take(entry, recorded, by_number)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{journal.path}: entry {entry.number} ({entry.kind}) is damaged: {error}") from error
    recorded.symbols = tuple(recorded.history)
    return recorded


def _take(entry: Entry, recorded: Recorded, orders: dict[int, Order]) -> None:
    body = entry.body
    match entry.kind:
        case "history":
            recorded.history[body["symbol"]] = body["bars"]
        case "bars":
            strangers = sorted(body["bars"].keys() - recorded.history.keys())
            if strangers:
                raise ValueError(f"a bar of {strangers[0]}, of which there is no history")
            recorded.steps.append((body["time"], body["decide"], body["bars"]))
        case "intent":
            order = order_of(body, orders)
            orders[order.id] = order
            recorded.orders.append(order)
        case "fill":
            fill = fill_of(body)
            recorded.ledger.apply(fill)
            if body.get("averaged"):
                recorded.averaged.add(fill.order_id)
            orders[fill.order_id].filled_quantity += fill.quantity
        case "interest":
            recorded.ledger.cash, recorded.ledger.interest_paid = body["cash"], body["paid"]
            recorded.ledger.cash_history.append((body["time"], body["cash"]))
        case "ended":
            order = orders[body["order"]]
            order.status, order.reason = OrderStatus(body["status"]), body["reason"]
            order.filled_quantity = body["filled_quantity"]
        case "forecast":
            for symbol, values in body["lines"].items():
                forecast, lower, upper = (math.nan if value is None else value for value in values[:3])
                recorded.forecasts.setdefault(symbol, {})[body["time"]] = (forecast, lower, upper)
        case "decision":
            for name in ("decide_ms", "send_ms"):
                if body[name] is not None:
                    recorded.latencies_ms.setdefault(name, []).append(body[name])
        case "bundles":
            recorded.bundles = tuple(body["names"])
        case "model":
            recorded.models += (body,)
        case "account":
            recorded.differences = tuple(body["differences"])
        case "killed" | "adopted":
            _take_foreign(body, recorded, orders)
        case "halt":
            recorded.halted = body["reason"]
        case "end":
            recorded.ended = body["how"]
        case "resumed":
            recorded.ended = ""
        case "accepted":
            recorded.unexplained_cash += body["unexplained_cash"]
            recorded.accepted += tuple(body["differences"])


def _take_foreign(body: Mapping[str, Any], recorded: Recorded, orders: dict[int, Order]) -> None:
    """Orders in the run's name that its strategy has not given; they have negative numbers."""
    for given in (*body.get("closings", ()), *body.get("trades", ())):
        order = Order(
            id=min([0, *orders]) - 1,
            symbol=given["symbol"],
            side=_SIDES[given["side"]],
            quantity=given["quantity"],
            decided=recorded.steps[-1][0] if recorded.steps else 0,
            closing=True,
        )
        if "price" in given:
            order.status = OrderStatus.FILLED
        orders[order.id] = order
        recorded.orders.append(order)


def closings_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The orders of a ``killed`` entry, as ``LiveVenue.take_over`` wants them."""
    return [{**closing, "side": _SIDES[closing["side"]]} for closing in body["closings"]]


def trades_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trades of an ``adopted`` entry, as ``LiveVenue.adopt`` wants them."""
    return [{**trade, "side": _SIDES[trade["side"]]} for trade in body["trades"]]


def order_of(body: Mapping[str, Any], orders: Mapping[int, Order]) -> Order:
    """The order of an intent."""
    return Order(
        id=body["order"],
        symbol=body["symbol"],
        side=_SIDES[body["side"]],
        quantity=_price(body["quantity"]),
        type=body["type"],
        limit_price=_price(body["limit_price"]),
        stop_price=_price(body["stop_price"]),
        time_in_force=body["time_in_force"],
        decided=body["decided"],
        parent=None if body["parent"] is None else orders[body["parent"]],
        status=OrderStatus(body["status"]),
        reason=body["reason"],
    )


def fill_of(body: Mapping[str, Any]) -> Fill:
    """The fill of an entry."""
    return Fill(
        order_id=body["order"],
        symbol=body["symbol"],
        side=_SIDES[body["side"]],
        quantity=body["quantity"],
        price=body["price"],
        reference_price=body["reference_price"],
        commission=body["commission"],
        decided=body["decided"],
        time=body["time"],
    )


def _price(value: float | None) -> float:
    return math.nan if value is None else value


def _frame(rows: list[tuple[float, ...]]) -> pd.DataFrame:
    index = pd.DatetimeIndex([int(row[0]) for row in rows], dtype="datetime64[ns, UTC]", name="time")
    values = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), len(COLUMNS))
    return pd.DataFrame(values, columns=list(COLUMNS), index=index)
