"""Our own account: cash, positions, and what trading has cost so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.trading.costs import Costs, interest
from engine.trading.orders import QUANTITY_EPSILON, QUANTITY_PLACES, Fill


def position_after(quantity: float, average_price: float, signed: float, price: float) -> tuple[float, float]:
    """Quantity and average entry price after a fill of ``signed`` shares at ``price``.

    Adding to a position averages by quantity; reducing keeps the average; crossing zero starts again at ``price``.
    """
    after = quantity + signed
    if -QUANTITY_EPSILON < after < QUANTITY_EPSILON:
        return 0.0, 0.0
    if quantity == 0.0 or (quantity > 0.0) != (after > 0.0):
        return after, price
    if (signed > 0.0) == (quantity > 0.0):
        return after, (quantity * average_price + signed * price) / after
    return after, average_price


@dataclass(slots=True)
class Position:
    """Signed quantity (negative: short) and average entry price, without commission."""

    quantity: float = 0.0
    average_price: float = 0.0


@dataclass(slots=True)
class Ledger:
    """Cash, positions and costs. Cash may go below zero in a margin account; interest is charged for that.

    ``cash_history`` holds (time, cash) after each change, for the equity curve.
    """

    cash: float
    positions: dict[str, Position] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    interest_paid: float = 0.0
    cash_history: list[tuple[int, float]] = field(default_factory=list)

    def quantity(self, symbol: str) -> float:
        """Signed quantity held of a symbol."""
        position = self.positions.get(symbol)
        return 0.0 if position is None else position.quantity

    def apply(self, fill: Fill) -> None:
        """Book a fill: the position changes, cash pays price and commission."""
        position = self.positions.setdefault(fill.symbol, Position())
        quantity, average = position_after(position.quantity, position.average_price, fill.signed_quantity, fill.price)
        position.quantity, position.average_price = round(quantity, QUANTITY_PLACES), average
        self.cash -= fill.signed_quantity * fill.price + fill.commission
        self.fills.append(fill)
        self.cash_history.append((fill.time, self.cash))

    def charge_interest(self, time: int, days: float, prices: Mapping[str, float], costs: Costs) -> float:
        """Book the interest of the calendar days since the last session, on negative cash and on shorts at market."""
        due = interest(max(0.0, -self.cash), costs.margin_rate_pct, days)
        for symbol in sorted(self.positions):
            borrowed = -self.positions[symbol].quantity
            if borrowed > 0.0:
                due += interest(borrowed * prices[symbol], costs.borrow_rate_pct, days)
        if due:
            self.cash -= due
            self.interest_paid += due
            self.cash_history.append((time, self.cash))
        return due

    @property
    def borrows(self) -> bool:
        """Whether there is anything to charge interest for."""
        return self.cash < 0.0 or any(p.quantity < 0.0 for p in self.positions.values())

    def equity(self, prices: Mapping[str, float]) -> float:
        """Cash plus positions at the given prices, added in symbol order so that the last bit is always the same."""
        total = self.cash
        for symbol in sorted(self.positions):
            quantity = self.positions[symbol].quantity
            if quantity:
                total += quantity * prices[symbol]
        return total

    def gross(self, prices: Mapping[str, float]) -> float:
        """Sum of the absolute market values of the positions, in symbol order."""
        total = 0.0
        for symbol in sorted(self.positions):
            quantity = self.positions[symbol].quantity
            if quantity:
                total += abs(quantity) * prices[symbol]
        return total
