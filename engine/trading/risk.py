"""The risk gate: what it refuses at submission, and when it stops trading altogether."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from engine.config import RiskConfig
from engine.trading.ledger import Ledger
from engine.trading.orders import QUANTITY_EPSILON, Order

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
    refused: int = field(default=0, init=False)

    def refuses(
        self, order: Order, *, ledger: Ledger, prices: Mapping[str, float], open_orders: Collection[Order]
    ) -> str:
        """Why the order may not be sent, or an empty string. Orders that reduce a position, and legs, always pass."""
        held = ledger.quantity(order.symbol)
        reduces = held * order.side < 0.0 and order.quantity < abs(held) + QUANTITY_EPSILON
        if reduces or order.parent is not None:
            return ""
        reason = self.halted and f"trading is halted: {self.halted}"
        if not reason:
            reason = self._over_limits(order, held, ledger, prices, open_orders)
        if reason:
            self.refused += 1
        return reason

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

    def observe(self, equity: float) -> bool:
        """Take the equity at a bar's close; true when this bar halts trading."""
        limit = self.limits.max_drawdown_halt
        self.peak = max(self.peak, equity)
        if limit is None or self.halted or drawdown(equity, self.peak) <= limit:
            return False
        self.halted = (
            f"risk.max_drawdown_halt: drawdown {drawdown(equity, self.peak):.4f} of the peak {self.peak:.2f} "
            f"passed the limit {limit:g}"
        )
        return True
