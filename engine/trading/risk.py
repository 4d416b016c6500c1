"""The risk gate: what it refuses at submission, and when it stops trading altogether."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

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
    """Limits on the bar clock; they act in backtest and paper alike. ``halted`` is the reason, or empty."""

    limits: RiskConfig
    peak: float
    halted: str = ""

    def refuses(
        self, order: Order, *, ledger: Ledger, prices: Mapping[str, float], open_orders: Collection[Order]
    ) -> str:
        """Why the order may not be sent, or an empty string.

        Orders that reduce a position always pass, and legs pass with their entry.
        """
        if order.parent is not None:
            return "its entry was refused" if order.parent.status is OrderStatus.REFUSED else ""
        held = ledger.quantity(order.symbol)
        if held * order.side < 0.0 and order.quantity < abs(held) + QUANTITY_EPSILON:
            return ""
        if self.halted:
            return f"trading is halted: {self.halted}"
        return self._over_limits(order, held, ledger, prices, open_orders)

    def _over_limits(
        self, order: Order, held: float, ledger: Ledger, prices: Mapping[str, float], open_orders: Collection[Order]
    ) -> str:
        equity = ledger.equity(prices)
        price = prices.get(order.symbol, math.nan)
        if not (math.isfinite(price) and price > 0.0):
            return f"{order.symbol} has no price yet; wait for its first bar"
        if equity <= 0.0:
            return f"there is no equity left to open a position with, found {equity:.2f}"
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
        return self.limits.max_drawdown_halt is not None and not self.halted

    def observe(self, equity: float, gross: float = 0.0) -> bool:
        """Take equity and gross exposure at a bar's close; true when this bar halts trading.

        Equity below ``MAINTENANCE`` of the gross exposure is a margin call, whatever the run file says.
        """
        limit = self.limits.max_drawdown_halt
        self.peak = max(self.peak, equity)
        if self.halted:
            return False
        if gross > 0.0 and equity < MAINTENANCE * gross:
            self.halted = f"margin call: equity {equity:.2f} is below {MAINTENANCE:.0%} of the exposure of {gross:.2f}"
            return True
        if limit is None or drawdown(equity, self.peak) <= limit:
            return False
        self.halted = (
            f"risk.max_drawdown_halt: drawdown {drawdown(equity, self.peak):.4f} of the peak {self.peak:.2f} "
            f"passed the limit {limit:g}"
        )
        return True
