"""A simulated venue: accepts orders, matches them against bars, and keeps the account.

The backtest's broker and the embedded exchange are both thin shells over this class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from engine.trading import matching
from engine.trading.costs import Costs
from engine.trading.ledger import Ledger
from engine.trading.orders import QUANTITY_EPSILON, QUANTITY_PLACES, Fill, Order, OrderStatus
from engine.trading.sizing import rounded_down

MARGIN_MULTIPLIER = 2.0


class Bar(NamedTuple):
    """The prices of one symbol's bar."""

    open: float
    high: float
    low: float
    close: float


class Event(NamedTuple):
    """What happened to an order; ``fill`` is None when its state changed without an execution."""

    order: Order
    fill: Fill | None


@dataclass(slots=True, kw_only=True)
class Venue:
    """Accepts, matches and books orders for one account.

    An accepted order is final: a later gap never turns it into a rejection and never spoils another order. What the
    account cannot pay at the fill price is cut off, with a reason, and the rest is filled.

    Attributes:
        prices: last close of each symbol, as a mapping that the owner keeps current.
        account: ``margin`` (gross exposure up to twice equity) or ``cash`` (buys only from free cash, without pending
            sales).
    """

    ledger: Ledger
    costs: Costs
    prices: Mapping[str, float]
    account: Literal["margin", "cash"] = "margin"
    fractional: bool = False
    short: bool = False
    open_orders: dict[int, Order] = field(default_factory=dict)
    _interest_session: int = -1

    # --- submission ------------------------------------------------------------------------------------------------

    def submit(self, order: Order) -> bool:
        """Accept the order, or reject it with a reason; cash and other orders are not touched either way."""
        reason = self._invalid(order)
        if not reason and order.parent is None:
            held = self.ledger.quantity(order.symbol)
            order.closing = held * order.side < 0.0
            reason = self._not_closable(order, held) if order.closing else self._not_affordable(order, held)
        if reason:
            order.status, order.reason = OrderStatus.REJECTED, reason
            return False
        if order.parent is not None:
            order.status, order.closing = OrderStatus.HELD, True
        self.open_orders[order.id] = order
        return True

    def _invalid(self, order: Order) -> str:
        quantity = order.quantity
        if not (math.isfinite(quantity) and quantity > 0.0):
            return f"quantity must be a positive number, found {quantity}"
        if not self.fractional and quantity != math.trunc(quantity):
            return f"whole shares only, found {quantity}; set broker.fractional to true for fractions"
        for name, needed in (("limit", order.type in ("limit", "stop_limit")), ("stop", "stop" in order.type)):
            price = order.limit_price if name == "limit" else order.stop_price
            if needed and not (math.isfinite(price) and price > 0.0):
                return f"a {order.type} order needs a positive {name} price, found {price}"
        parent = order.parent
        if parent is not None and parent.status is OrderStatus.REJECTED:
            return "its parent was rejected"
        return ""

    def _not_closable(self, order: Order, held: float) -> str:
        """An order against the position may close it, never cross zero: Alpaca refuses that too."""
        reserved: dict[int, float] = {}
        for other in self.open_orders.values():
            if other.symbol == order.symbol and other.side == order.side and other.status is OrderStatus.ACCEPTED:
                key = -other.group if other.group else other.id
                reserved[key] = max(reserved.get(key, 0.0), other.quantity - other.filled_quantity)
        if order.group:
            reserved.pop(-order.group, None)
        available = abs(held) - sum(reserved.values())
        if order.quantity > available + QUANTITY_EPSILON:
            return (
                f"insufficient quantity: {order.quantity:g} asked, {available:g} of {abs(held):g} not in open orders; "
                "close first, reverse on a later bar"
            )
        return ""

    def _not_affordable(self, order: Order, held: float) -> str:
        if order.side < 0 and not self.short:
            return f"short selling is off: {order.quantity:g} asked, {held:g} held; set broker.short to true"
        needed = self._cost(order)
        reserved = sum(
            self._cost(other)
            for other in self.open_orders.values()
            if not other.closing and other.status is OrderStatus.ACCEPTED
        )
        if self.account == "cash":
            free = self.ledger.cash - reserved
        else:
            free = MARGIN_MULTIPLIER * self.ledger.equity(self.prices) - self.ledger.gross(self.prices) - reserved
        if needed > free:
            return f"insufficient buying power: {needed:.2f} needed, {free:.2f} free"
        return ""

    def _cost(self, order: Order) -> float:
        """What the rest of an opening order will take, at its limit, its stop, or the last close."""
        quantity = order.quantity - order.filled_quantity
        if order.type in ("limit", "stop_limit"):
            price = order.limit_price
        else:
            reference = order.stop_price if order.type == "stop" else self.prices[order.symbol]
            price = matching.paid_price(reference, order.side, math.nan, self.costs.slippage_bps)
        return quantity * price + self.costs.commission(quantity, price)

    def cancel(self, order: Order, reason: str = "canceled by the strategy") -> list[Event]:
        """End a live order and the legs that wait for it; a dead one is left alone."""
        if not order.alive:
            return []
        return self._end(order, OrderStatus.CANCELED, reason)

    # --- matching --------------------------------------------------------------------------------------------------

    def on_bars(self, *, time: int, session: int, session_ends: bool, bars: Mapping[str, Bar]) -> list[Event]:
        """Take the bars that completed at ``time``: charge interest, expire, fill; what happened, in order.

        Args:
            time: bar end, UTC nanoseconds. Only orders decided before it can fill.
            session: number of the session, in calendar days (differences are days).
            session_ends: whether this is the last bar of its session; day orders end with it.
            bars: the new bar of each symbol that has one at this time.
        """
        events: list[Event] = []
        # What is known at the open: valuing by this bar's close would be a look ahead.
        opens = {s: bars[s].open if s in bars else self.prices[s] for s in {*self.ledger.positions, *bars}}
        if self._interest_session >= 0 and session > self._interest_session:
            self.ledger.charge_interest(time, session - self._interest_session, opens, self.costs)
        for order in list(self.open_orders.values()):
            if order.time_in_force == "day" and -1 < order.session < session and order.alive:
                events += self._end(order, OrderStatus.EXPIRED, "day order: its session ended")
        self._match_at_open(time, session, bars, opens, events)
        self._match_inside(time, session, bars, opens, events)
        if session_ends:
            for order in list(self.open_orders.values()):
                if order.time_in_force == "day" and order.session == session and order.alive:
                    events += self._end(order, OrderStatus.EXPIRED, "day order: its session ended")
        self._interest_session = session if self.ledger.borrows else -1
        return events

    def _live(self, time: int, session: int, bars: Mapping[str, Bar]) -> list[Order]:
        live = [
            order
            for order in self.open_orders.values()
            if order.status is OrderStatus.ACCEPTED and order.decided < time and order.symbol in bars
        ]
        for order in live:
            if order.session < 0:
                order.session = session
        return live

    def _match_at_open(
        self, time: int, session: int, bars: Mapping[str, Bar], opens: Mapping[str, float], events: list[Event]
    ) -> None:
        for order in self._live(time, session, bars):
            if not order.alive:
                continue
            open_ = bars[order.symbol].open
            kind = matching.TYPE_CODES[order.type]
            price = matching.price_at_open(
                kind, order.side, order.limit_price, order.stop_price, order.triggered, open_
            )
            if order.type == "stop_limit" and matching.triggers_at_open(order.side, order.stop_price, open_):
                order.triggered = True
            if not math.isnan(price):
                events += self._fill(order, price, time, opens)

    def _match_inside(
        self, time: int, session: int, bars: Mapping[str, Bar], opens: Mapping[str, float], events: list[Event]
    ) -> None:
        """Stops first, then limits. A leg woken inside this bar may be stopped in it, but not reach its target."""
        limits: list[Order] = []
        waiting = self._live(time, session, bars)
        seen = {order.id for order in waiting}
        while waiting:
            order = waiting.pop(0)
            if not order.alive:
                continue
            if order.type == "limit" or order.triggered:
                limits.append(order)
                continue
            bar = bars[order.symbol]
            kind = matching.TYPE_CODES[order.type]
            price = matching.price_of_stop(kind, order.side, order.limit_price, order.stop_price, bar.high, bar.low)
            order.triggered = order.type == "stop_limit" and matching.triggers_inside(
                order.side, order.stop_price, bar.high, bar.low
            )
            if not math.isnan(price):
                events += self._fill(order, price, time, opens)
                waiting += self._woken_stops(time, session, bars, seen)
        for order in limits:
            if not order.alive:
                continue
            bar = bars[order.symbol]
            price = matching.price_of_limit(order.side, order.limit_price, bar.high, bar.low)
            if math.isnan(price):
                continue
            events += self._fill(order, price, time, opens)
            for leg in self._woken_stops(time, session, bars, seen):
                price = matching.price_of_stop(
                    matching.TYPE_CODES[leg.type], leg.side, leg.limit_price, leg.stop_price, bar.high, bar.low
                )
                if not math.isnan(price):
                    events += self._fill(leg, price, time, opens)

    def _woken_stops(self, time: int, session: int, bars: Mapping[str, Bar], seen: set[int]) -> list[Order]:
        woken = [o for o in self._live(time, session, bars) if o.id not in seen]
        seen.update(o.id for o in woken)
        return [o for o in woken if o.type in ("stop", "stop_limit")]

    # --- booking ---------------------------------------------------------------------------------------------------

    def _fill(self, order: Order, reference: float, time: int, opens: Mapping[str, float]) -> list[Event]:
        price = matching.paid_price(reference, order.side, order.limit_price, self.costs.slippage_bps)
        wanted = order.quantity - order.filled_quantity
        quantity = self._fillable(order, wanted, price, opens)
        if quantity <= 0.0:
            reason = "nothing left to close" if order.closing else f"the account could not pay {price:.4f} a share"
            return self._end(order, OrderStatus.CANCELED, reason)
        fill = Fill(
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            quantity=quantity,
            price=price,
            reference_price=reference,
            commission=self.costs.commission(quantity, price),
            decided=order.decided,
            time=time,
        )
        self.ledger.apply(fill)
        order.filled_quantity = round(order.filled_quantity + quantity, QUANTITY_PLACES)
        complete = quantity >= wanted
        if complete:
            order.status = OrderStatus.FILLED
        else:
            order.status = OrderStatus.CANCELED
            order.reason = f"cut to {quantity:g} of {wanted:g}: " + (
                "the rest of the position was closed" if order.closing else "the account could not pay for the rest"
            )
        self.open_orders.pop(order.id, None)
        events = [Event(order, fill)]
        for other in list(self.open_orders.values()):
            if order.group and other.group == order.group and complete and other.alive:
                events += self._end(other, OrderStatus.CANCELED, f"order {order.id} of its group was filled")
            elif other.parent is order and other.status is OrderStatus.HELD:
                other.status, other.quantity = OrderStatus.ACCEPTED, order.filled_quantity
                events.append(Event(other, None))
        return events

    def _fillable(self, order: Order, wanted: float, price: float, opens: Mapping[str, float]) -> float:
        """The part of ``wanted`` that the position (closing) or the account (opening) allows at this price."""
        held = self.ledger.quantity(order.symbol)
        if order.closing:
            return min(wanted, abs(held)) if held * order.side < 0.0 else 0.0
        if self.account == "cash":
            if wanted * price + self.costs.commission(wanted, price) <= self.ledger.cash:
                return wanted
            unit = price * (1.0 + self.costs.commission_bps * 1e-4) + self.costs.commission_per_share
            budget = min(self.ledger.cash / unit, (self.ledger.cash - self.costs.commission_minimum) / price)
            return max(0.0, rounded_down(budget * (1.0 - 1e-12), self.fractional))
        room = MARGIN_MULTIPLIER * self.ledger.equity(opens) - self.ledger.gross(opens)
        if wanted * price <= room:
            return wanted
        return max(0.0, rounded_down(room / price, self.fractional))

    def _end(self, order: Order, status: OrderStatus, reason: str) -> list[Event]:
        order.status, order.reason = status, reason
        self.open_orders.pop(order.id, None)
        events = [Event(order, None)]
        for other in list(self.open_orders.values()):
            # Legs that wait for an entry which will not come, and partners whose group was dissolved by the strategy.
            orphan = other.parent is order and other.status is OrderStatus.HELD
            partner = order.group and other.group == order.group and status is OrderStatus.CANCELED
            if other.alive and (orphan or partner):
                events += self._end(other, OrderStatus.CANCELED, f"order {order.id} ended: {reason}")
        return events
