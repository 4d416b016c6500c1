"""A simulated venue: accepts orders, matches them against bars, and keeps the account.

The backtest's broker and the embedded exchange are both thin shells over this class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from engine.trading import matching
from engine.trading.costs import BPS, Costs
from engine.trading.ledger import Ledger
from engine.trading.orders import QUANTITY_EPSILON, QUANTITY_PLACES, SIDE_NAMES, Fill, Order, OrderStatus
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


class _Step(NamedTuple):
    """What one call of ``on_bars`` works on; ``opens`` values every position at what is known at the open."""

    time: int
    bars: Mapping[str, Bar]
    opens: Mapping[str, float]
    events: list[Event]


@dataclass(slots=True, kw_only=True)
class Venue:
    """Accepts, matches and books orders for one account.

    An accepted order is final: a later gap never turns it into a rejection and never spoils another order. What the
    account cannot pay at the fill price is cut off, with a reason, and the rest is filled.

    Attributes:
        prices: last close of each symbol, as a mapping that the owner keeps current.
        news: what a venue elsewhere has told and ``on_bars`` has still to take in; a simulated one has none.
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
    news: Sequence[object] = ()
    _interest_session: int = -1

    # --- submission ------------------------------------------------------------------------------------------------

    def submit(self, order: Order) -> bool:
        """Accept the order, or reject it with a reason; cash and other orders are not touched either way.

        A fractional quantity is kept to nine decimal places.
        """
        if self.fractional:
            order.quantity = round(order.quantity, QUANTITY_PLACES)
        reason = self._invalid(order)
        if not reason and order.parent is None:
            held = self.ledger.quantity(order.symbol)
            order.closing = held * order.side < 0.0
            reason = self._not_closable(order, held) if order.closing else self._not_affordable(order, held)
        if reason:
            order.status, order.reason = OrderStatus.REJECTED, reason
            return False
        self.open_orders[order.id] = order
        if order.parent is not None:
            order.status, order.closing = OrderStatus.HELD, True
            self._put_behind(order.parent)
        return True

    def _put_behind(self, parent: Order) -> None:
        """Orders are matched in their sequence, and a bracket is one order: its legs follow it, the stop first."""
        followed: dict[int, Order] = {}
        for order in self.open_orders.values():
            if order.parent is not parent:
                followed[order.id] = order
            if order is parent:
                legs = [other for other in self.open_orders.values() if other.parent is parent]
                followed.update((other.id, other) for other in sorted(legs, key=lambda other: other.type == "limit"))
        self.open_orders = followed

    def _invalid(self, order: Order) -> str:
        quantity = order.quantity
        if not (math.isfinite(quantity) and quantity > 0.0):
            return f"quantity must be a positive number, found {quantity}"
        if not self.fractional and quantity != math.trunc(quantity):
            return f"whole shares only, found {quantity}; set broker.fractional to true for fractions"
        if quantity != math.trunc(quantity) and (order.type, order.time_in_force) != ("market", "day"):
            return f"fractions of a share are market day orders only, found a {order.type} {order.time_in_force} order"
        for name, needed in (("limit", order.type in ("limit", "stop_limit")), ("stop", "stop" in order.type)):
            price = order.limit_price if name == "limit" else order.stop_price
            if needed and not (math.isfinite(price) and price > 0.0):
                return f"a {order.type} order needs a positive {name} price, found {price}"
            if not needed and not math.isnan(price):
                return f"a {order.type} order takes no {name} price, found {price}"
        return self._invalid_leg(order, order.parent) if order.parent is not None else ""

    def _invalid_leg(self, order: Order, parent: Order) -> str:
        """A leg is what Alpaca takes as part of its entry's own order, and nothing else."""
        if not parent.alive:
            return f"its parent was {parent.status}"
        if order.symbol != parent.symbol or order.side != -parent.side:
            expected = f"{SIDE_NAMES[-parent.side]} of {parent.symbol}"
            return f"a leg closes its parent: expected a {expected}, found a {SIDE_NAMES[order.side]} of {order.symbol}"
        if order.decided != parent.decided:
            return "a leg is given with its entry, on the same bar; protect a position with an order of its own"
        if order.quantity != parent.quantity:
            return f"a leg closes its whole entry: expected {parent.quantity:g}, found {order.quantity:g}"
        if order.type == "market":
            return "a leg is a limit, stop or stop_limit order, found a market order"
        if order.time_in_force != parent.time_in_force:
            return (
                f"a leg lives as long as its entry may: expected {parent.time_in_force}, found {order.time_in_force}; "
                "give both the same valid"
            )
        legs = [other for other in self.open_orders.values() if other.parent is parent]
        if any((other.type == "limit") == (order.type == "limit") for other in legs):
            return "an entry has at most one target (limit) and one stop"
        for other in legs:
            target, stop = (order, other) if order.type == "limit" else (other, order)
            if parent.side * (target.limit_price - stop.stop_price) <= 0.0:
                return (
                    f"the target lies beyond the stop, in the direction of the entry: found {target.limit_price:g} "
                    f"and {stop.stop_price:g}"
                )
        return ""

    def _not_closable(self, order: Order, held: float) -> str:
        """An order against the position may close it, never cross zero: Alpaca refuses that too."""
        reserved: dict[tuple[str, int], float] = {}
        for other in self.open_orders.values():
            if other.symbol == order.symbol and other.side == order.side and other.status is OrderStatus.ACCEPTED:
                # Only one order of a group will fill.
                key = ("group", other.group) if other.group else ("order", other.id)
                reserved[key] = max(reserved.get(key, 0.0), other.remaining)
        reserved.pop(("group", order.group), None)
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
        price = self.prices.get(order.symbol, math.nan)
        if not (math.isfinite(price) and price > 0.0):
            return f"{order.symbol} has no price yet; wait for its first bar"
        needed = self._cost(order)
        reserved = sum(self._cost(other) for other in self.open_orders.values() if not other.closing)
        if self.account == "cash":
            free = self.ledger.cash - reserved
        else:
            free = MARGIN_MULTIPLIER * self.ledger.equity(self.prices) - self.ledger.gross(self.prices) - reserved
        if needed > free:
            return f"insufficient buying power: {needed:.2f} needed, {free:.2f} free"
        return ""

    def _cost(self, order: Order) -> float:
        """Free cash or buying power that the rest of an opening order takes, at its limit, its stop, or the last close.

        A short sale with a limit takes at least the last close: a limit below the market sells at the market.
        """
        quantity = order.remaining
        last = self.prices[order.symbol]
        if order.type in ("limit", "stop_limit"):
            price = order.limit_price if order.side > 0 else max(order.limit_price, last)
        else:
            reference = order.stop_price if order.type == "stop" else last
            price = matching.paid_price(reference, order.side, math.nan, self.costs.slippage_bps)
        return self._charge(quantity, price)

    def _charge(self, quantity: float, price: float) -> float:
        """Free cash or buying power that opening ``quantity`` at ``price`` takes."""
        return quantity * price + self._leverage * self.costs.commission(quantity, price)

    @property
    def _leverage(self) -> float:
        """Buying power by equity; a commission lowers equity, and so takes this much of it."""
        return 1.0 if self.account == "cash" else MARGIN_MULTIPLIER

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
        opens = self._accrue(time, session, bars)
        for order in list(self.open_orders.values()):
            if order.time_in_force == "day" and -1 < order.session < session and order.alive:
                events += self._end(order, OrderStatus.EXPIRED, "day order: its session ended")
        step = _Step(time, bars, opens, events)
        self._begin_days(time, session)
        self._match_at_open(step)
        self._match_inside(step)
        self._begin_days(time, session)
        if session_ends:
            for order in list(self.open_orders.values()):
                if order.time_in_force == "day" and order.session == session and order.alive:
                    events += self._end(order, OrderStatus.EXPIRED, "day order: its session ended")
        return events

    def _accrue(self, time: int, session: int, bars: Mapping[str, Bar]) -> Mapping[str, float]:
        """Charge the interest of the days since the last session; the prices it is charged at.

        They are what is known at the open: valuing by this bar's close would be a look ahead.
        """
        opens = {s: bars[s].open if s in bars else self.prices[s] for s in {*self.ledger.positions, *bars}}
        if self._interest_session >= 0 and session > self._interest_session:
            self.ledger.charge_interest(time, session - self._interest_session, opens, self.costs)
        self._interest_session = session
        return opens

    def _begin_days(self, time: int, session: int) -> None:
        """An order's day is the first session that has a bar, of any symbol, after its decision or its waking."""
        for order in self.open_orders.values():
            if order.session < 0 and order.status is OrderStatus.ACCEPTED and order.decided < time:
                order.session = session

    def _live(self, step: _Step) -> list[Order]:
        return [
            order
            for order in self.open_orders.values()
            if order.status is OrderStatus.ACCEPTED and order.decided < step.time and order.symbol in step.bars
        ]

    def _match_at_open(self, step: _Step) -> None:
        for order in self._live(step):
            self._match_at(order, step.bars[order.symbol].open, step)

    def _match_at(self, order: Order, price_now: float, step: _Step) -> None:
        """Match at a moment whose price is known, with the legs that this wakes: the open, or a fill inside the bar."""
        if not order.alive:
            return  # an order before it, of its group or on its position, has ended it
        price = matching.price_at_open(
            matching.TYPE_CODES[order.type],
            order.side,
            order.limit_price,
            order.stop_price,
            order.triggered,
            price_now,
        )
        if order.type == "stop_limit" and matching.triggers_at_open(order.side, order.stop_price, price_now):
            order.triggered = True
        if not math.isnan(price):
            for leg in self._fill(order, price, step):
                self._match_at(leg, price_now, step)

    def _match_inside(self, step: _Step) -> None:
        """Stops first, then limits."""
        live = self._live(step)
        limits = [order for order in live if order.type == "limit" or order.triggered]
        for order in live:
            if order.alive and order not in limits:
                self._match_stop(order, step)
        for order in limits:
            if order.alive:
                bar = step.bars[order.symbol]
                self._fill_inside(
                    order, matching.price_of_limit(order.side, order.limit_price, bar.high, bar.low), step
                )

    def _match_stop(self, order: Order, step: _Step) -> None:
        bar = step.bars[order.symbol]
        order.triggered = order.type == "stop_limit" and matching.triggers_inside(
            order.side, order.stop_price, bar.high, bar.low
        )
        kind = matching.TYPE_CODES[order.type]
        price = matching.price_of_stop(kind, order.side, order.limit_price, order.stop_price, bar.high, bar.low)
        self._fill_inside(order, price, step)

    def _fill_inside(self, order: Order, price: float, step: _Step) -> None:
        """Fill inside the bar, unless the price is NaN.

        The legs that this wakes begin at the fill's price. In the rest of the bar they may be stopped, but not reach a
        target: the range does not tell what came after the fill, so the worse is assumed.
        """
        if math.isnan(price):
            return
        for leg in self._fill(order, price, step):
            self._match_at(leg, price, step)
            if leg.alive and leg.type != "limit" and not leg.triggered:
                self._match_stop(leg, step)

    # --- booking ---------------------------------------------------------------------------------------------------

    def _fill(self, order: Order, reference: float, step: _Step) -> list[Order]:
        """Book what can be filled of the order, and end it; the legs that this wakes."""
        price = matching.paid_price(reference, order.side, order.limit_price, self.costs.slippage_bps)
        wanted = order.remaining
        quantity, shortfall = self._fillable(order, wanted, price, step.opens)
        if quantity <= 0.0:
            step.events.extend(self._end(order, OrderStatus.CANCELED, shortfall))
            return []
        fill = Fill(
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            quantity=quantity,
            price=price,
            reference_price=reference,
            commission=self.costs.commission(quantity, price),
            decided=order.decided,
            time=step.time,
        )
        self._book(order, fill)
        if quantity > wanted - QUANTITY_EPSILON:
            order.status = OrderStatus.FILLED
        else:
            order.status = OrderStatus.CANCELED
            order.reason = f"cut to {quantity:g} of {wanted:g}: {shortfall}"
        step.events.append(Event(order, fill))
        return self._conclude(order, step.events)

    def _book(self, order: Order, fill: Fill) -> None:
        """Book a fill in the ledger and on its order."""
        self.ledger.apply(fill)
        order.filled_quantity = round(order.filled_quantity + fill.quantity, QUANTITY_PLACES)

    def _conclude(self, order: Order, events: list[Event]) -> list[Order]:
        """What follows from the end of an order that was filled, in part or whole; the legs that this wakes."""
        self.open_orders.pop(order.id, None)
        woken: list[Order] = []
        for other in list(self.open_orders.values()):
            if other.parent is order and other.status is OrderStatus.HELD:
                other.status, other.parent_filled = OrderStatus.ACCEPTED, order.filled_quantity
                events.append(Event(other, None))
                woken.append(other)
            elif order.group and other.group == order.group and other.alive:
                # Cut or complete, this order is over, and the position is what its partner was there to make or close.
                events.extend(self._end(other, OrderStatus.CANCELED, f"order {order.id} of its group was filled"))
        return woken

    def _fillable(self, order: Order, wanted: float, price: float, opens: Mapping[str, float]) -> tuple[float, str]:
        """The part of ``wanted`` that the position or the account allows at this price, and why it is not all."""
        held = self.ledger.quantity(order.symbol)
        if order.closing and held * order.side >= 0.0:
            return 0.0, "nothing left to close"
        if held * order.side < 0.0:
            # Also an opening order whose symbol has been bought or sold the other way since: no order crosses zero.
            quantity = min(wanted, abs(held))
            if self.account == "cash" and self.ledger.cash + quantity * price < self.costs.commission(quantity, price):
                return 0.0, "the proceeds and the cash would not pay the commission"
            return quantity, f"{abs(held):g} were left to close"
        if self.account == "cash":
            free = self.ledger.cash
        else:
            marks = {**opens, order.symbol: price}
            free = MARGIN_MULTIPLIER * self.ledger.equity(marks) - self.ledger.gross(marks)
        shortfall = f"the account could not pay for more at {price:.4f} a share"
        if self._charge(wanted, price) <= free:
            return wanted, ""
        unit = price + self._leverage * (price * self.costs.commission_bps * BPS + self.costs.commission_per_share)
        budget = min(free / unit, (free - self._leverage * self.costs.commission_minimum) / price)
        # The division may be wrong in its last bit, either way: aim over it, then step down if that was too much.
        quantity = rounded_down(budget * (1.0 + 1e-12), self.fractional)
        if self._charge(quantity, price) > free:
            quantity = rounded_down(quantity * (1.0 - 1e-12), self.fractional)
        return max(0.0, quantity), shortfall

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
