"""The risk gate: what it refuses at submission, and when it stops trading altogether."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from engine.config import RiskConfig
from engine.trading.ledger import Ledger
from engine.trading.orders import QUANTITY_EPSILON, Order, OrderStatus

# Equity that a margin account must keep, as a fraction of its gross exposure; Regulation T's floor for brokers.
MAINTENANCE = 0.25

# Weights are exact to rounding: a position of 0.3 of equity passes a limit of 0.3.
_TOLERANCE = 1.0 + 1e-9


def drawdown(equity: float, peak: float) -> float:
    """Loss from the peak as a fraction of the peak, 0 or positive."""
    return max(0.0, 1.0 - equity / peak) if peak > 0.0 else 0.0


@dataclass(slots=True)
class RiskGate:
    """Limits on the bar clock; they act in backtest and paper alike.

    Attributes:
        limits: as the run file sets them; those on the wall clock are the live side's, which calls ``halt``.
        peak: highest equity so far; at the start, the starting cash.
        halted: the reason why trading has stopped, or empty.
        outside: why nothing may be opened in a symbol at a bar that ends at a time (UTC ns), or empty: it is no member
            of the run's universe then.
    """

    limits: RiskConfig
    peak: float
    halted: str = ""
    outside: Callable[[str, int], str] = lambda symbol, time: ""
    # The session of the last bar, equity at that bar, and equity at the end of the session before it.
    _session: int | None = field(default=None, init=False, repr=False)
    _equity: float = field(init=False, repr=False)
    _previous: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._equity = self._previous = self.peak

    def refuses(
        self, order: Order, *, ledger: Ledger, prices: Mapping[str, float], open_orders: Collection[Order]
    ) -> str:
        """Why the order may not be sent, or an empty string.

        Orders that reduce a position always pass, and legs pass with their entry, but for a limit or stop price that
        is out of the collar: no order is meant to have one.
        """
        leg = order.parent is not None
        if order.parent is not None and order.parent.status is OrderStatus.REFUSED:
            return "its entry was refused"
        held = ledger.quantity(order.symbol)
        reducing = held * order.side < 0.0 and order.quantity < abs(held) + QUANTITY_EPSILON
        if self.halted and not (leg or reducing):
            return f"trading is halted: {self.halted}"
        stray = self._out_of_collar(order, prices.get(order.symbol, math.nan))
        if stray or leg or reducing:
            return stray
        return self._over_limits(order, held, ledger, prices, open_orders)

    def _out_of_collar(self, order: Order, close: float) -> str:
        collar = self.limits.price_collar
        if collar is None:
            return ""
        for name, price in (("limit", order.limit_price), ("stop", order.stop_price)):
            if math.isnan(price):
                continue
            if not close > 0.0:
                return f"{order.symbol} has no price yet; wait for its first bar"
            if abs(price - close) > collar * close * _TOLERANCE:
                return (
                    f"risk.price_collar: the {name} price {price:.10g} of {order.symbol} is "
                    f"{abs(price / close - 1.0):.4f} from the last close {close:.10g}, the limit is {collar:g}"
                )
        return ""

    def _over_limits(
        self, order: Order, held: float, ledger: Ledger, prices: Mapping[str, float], open_orders: Collection[Order]
    ) -> str:
        allowed = self.limits.symbols
        if allowed is not None and order.symbol not in allowed:
            return f"risk.symbols: {order.symbol} is none of the {len(allowed)} symbols that may be opened"
        outside = self.outside(order.symbol, order.decided)
        if outside:
            return outside
        equity = ledger.equity(prices)
        price = prices.get(order.symbol, math.nan)
        if not (math.isfinite(price) and price > 0.0):
            return f"{order.symbol} has no price yet; wait for its first bar"
        if equity <= 0.0:
            return f"there is no equity left to open a position with, found {equity:.2f}"
        largest, notional = self.limits.max_order_notional, order.quantity * price
        if largest is not None and notional > largest * _TOLERANCE:
            return (
                f"risk.max_order_notional: an order of {notional:.2f} in {order.symbol} was asked for, "
                f"the limit is {largest:.2f}"
            )
        opening = [o for o in open_orders if o.parent is None and o.side * ledger.quantity(o.symbol) >= 0.0]
        pending = sum(o.remaining for o in opening if o.symbol == order.symbol)
        position = (abs(held + order.side * order.quantity) + pending) * price
        limit = self.limits.max_position
        if limit is not None and position > limit * equity * _TOLERANCE:
            return (
                f"risk.max_position: {order.symbol} would be {position / equity:.4f} of equity, the limit is {limit:g}"
            )
        pending_value = sum(o.remaining * prices[o.symbol] for o in opening)
        added = (abs(held + order.side * order.quantity) - abs(held)) * price
        # Market orders that close fill at the same open; a resting order that would close may never do so.
        freed = sum(o.remaining * prices[o.symbol] for o in open_orders if o.closing and o.type == "market")
        gross = ledger.gross(prices) + added + pending_value - freed
        if gross > self.limits.max_gross * equity * _TOLERANCE:
            return (
                f"risk.max_gross: gross exposure would be {gross / equity:.4f} of equity, "
                f"the limit is {self.limits.max_gross:g}"
            )
        return ""

    @property
    def watches_equity(self) -> bool:
        """Whether ``observe`` has anything to do."""
        watched = self.limits.max_drawdown_halt is not None or self.limits.max_daily_loss_halt is not None
        return watched and not self.halted

    def observe(self, equity: float, gross: float = 0.0, *, session: int = 0) -> bool:
        """Take equity and gross exposure at a bar's close; true when this bar halts trading.

        Equity below ``MAINTENANCE`` of the gross exposure is a margin call, whatever the run file says.

        Args:
            session: number of the bar's session. A day's loss is counted from equity at the last bar of the session
                before it, in the first session from the starting cash.
        """
        if session != self._session:
            self._session, self._previous = session, self._equity
        self._equity = equity
        self.peak = max(self.peak, equity)
        if gross > 0.0 and equity < MAINTENANCE * gross:
            return self.halt(
                f"margin call: equity {equity:.2f} is below {MAINTENANCE:.0%} of the exposure of {gross:.2f}"
            )
        limit = self.limits.max_drawdown_halt
        if limit is not None and drawdown(equity, self.peak) > limit:
            return self.halt(
                f"risk.max_drawdown_halt: drawdown {drawdown(equity, self.peak):.4f} of the peak {self.peak:.2f} "
                f"passed the limit {limit:g}"
            )
        daily = self.limits.max_daily_loss_halt
        if daily is not None and drawdown(equity, self._previous) > daily * _TOLERANCE:
            return self.halt(
                f"risk.max_daily_loss_halt: the session's loss {drawdown(equity, self._previous):.4f} of the "
                f"{self._previous:.2f} it began with passed the limit {daily:g}"
            )
        return False

    def halt(self, reason: str) -> bool:
        """Stop trading for that reason; true if it was not stopped yet. The first reason stays."""
        if self.halted:
            return False
        self.halted = reason
        return True
