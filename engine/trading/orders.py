"""Orders, fills, and the states an order passes through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

BUY = 1
SELL = -1
SIDE_NAMES = {BUY: "buy", SELL: "sell"}

OrderType = Literal["market", "limit", "stop", "stop_limit"]
TimeInForce = Literal["day", "gtc"]

QUANTITY_PLACES = 9
# Below half of the last place a quantity is nothing.
QUANTITY_EPSILON = 0.5 * 10.0**-QUANTITY_PLACES


def on_tick(price: float) -> float:
    """The nearest price that an order may name: whole cents from a dollar on, hundredths of a cent below."""
    return round(price, 2 if price >= 1.0 else 4)


class OrderStatus(StrEnum):
    """Life of an order: held (a leg that waits for its parent) -> accepted -> one of the ends.

    A refused order was stopped by our own risk gate and never reached the venue; a rejected one was sent and turned
    down.
    """

    HELD = "held"
    ACCEPTED = "accepted"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    REFUSED = "refused"


@dataclass(slots=True, kw_only=True, eq=False)
class Order:
    """An order for one symbol.

    Attributes:
        id: position in the sequence of submissions, from 1.
        side: ``BUY`` (+1) or ``SELL`` (-1); quantity is positive.
        limit_price, stop_price: NaN where the type has none.
        decided: end of the decision bar, UTC nanoseconds. Nothing matches at or before it.
        parent: the entry whose fill wakes this leg of a bracket.
        parent_filled: quantity of the entry that was filled, which is all that a leg has to close (infinite before, and
            without a parent).
        closing: it reduces the position that was held when it was accepted, and never crosses zero.
        group: orders of one group cancel one another once one of them is filled in full (0: none).
        session: the first session that has a bar, of any symbol, after the decision (for a leg, after its waking); a
            day order ends with it (-1 before).
        triggered: a stop-limit whose stop price has been reached.
        reason: why it was rejected, canceled or cut.
    """

    id: int
    symbol: str
    side: int
    quantity: float
    type: OrderType = "market"
    limit_price: float = math.nan
    stop_price: float = math.nan
    time_in_force: TimeInForce = "gtc"
    decided: int = 0
    parent: Order | None = None
    parent_filled: float = math.inf
    closing: bool = False
    group: int = 0
    status: OrderStatus = OrderStatus.ACCEPTED
    filled_quantity: float = 0.0
    session: int = -1
    triggered: bool = False
    reason: str = ""

    @property
    def remaining(self) -> float:
        """Quantity that can still fill. ``quantity`` itself stays as it was decided."""
        return min(self.quantity, self.parent_filled) - self.filled_quantity

    @property
    def alive(self) -> bool:
        """Whether it can still fill."""
        return self.status in (OrderStatus.ACCEPTED, OrderStatus.HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One execution. ``reference_price`` is the price before slippage; commission is in account currency."""

    order_id: int
    symbol: str
    side: int
    quantity: float
    price: float
    reference_price: float
    commission: float
    decided: int
    time: int

    @property
    def signed_quantity(self) -> float:
        """Quantity with the sign of the side."""
        return self.side * self.quantity

    @property
    def slippage(self) -> float:
        """What the slippage cost, in account currency."""
        return self.side * (self.price - self.reference_price) * self.quantity
