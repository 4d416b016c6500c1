"""An order as the exchange lists it: the venue's order with ids, dates and a status in Alpaca's words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from engine.exchange.wire import asset_id, moment, number
from engine.trading.orders import QUANTITY_PLACES, SIDE_NAMES, Fill, Order

# Statuses from which an order may still fill.
OPEN = ("pending_new", "accepted", "new", "held", "partially_filled")


@dataclass(slots=True, eq=False, kw_only=True)
class Listed:
    """One order. Dates are UTC nanoseconds of simulated time, None where it did not happen.

    Attributes:
        filled_quantity: of all its fills so far; ``filled_price`` is their average, weighted by quantity.
        reference_price: the last fill's price before slippage.
    """

    order: Order
    id: str
    client_order_id: str
    order_class: str
    submitted: int
    updated: int
    status: str
    parent: Listed | None = None
    legs: list[Listed] = field(default_factory=list)
    filled_quantity: float = 0.0
    filled_price: float | None = None
    reference_price: float | None = None
    filled: int | None = None
    canceled: int | None = None
    expired: int | None = None
    failed: int | None = None
    replaced: int | None = None
    replaced_by: str | None = None
    replaces: str | None = None

    @property
    def open(self) -> bool:
        """Whether it may still fill."""
        return self.status in OPEN

    @property
    def quantity(self) -> float:
        """Quantity asked, or what is left of it for a leg whose entry was cut."""
        return min(self.order.quantity, self.order.parent_filled)

    @property
    def stands_behind(self) -> bool:
        """Whether Alpaca calls it held even when it is awake: the stop beside a target, which the target stands for."""
        return self.parent is not None and len(self.parent.legs) > 1 and self.order.type != "limit"

    def add(self, fill: Fill) -> None:
        """Take in one more fill."""
        before, price = self.filled_quantity, self.filled_price
        after = round(before + fill.quantity, QUANTITY_PLACES)
        self.filled_price = fill.price if price is None else (before * price + fill.quantity * fill.price) / after
        self.filled_quantity, self.reference_price = after, fill.reference_price

    def to_json(self, *, nested: bool = False, status: str | None = None) -> dict[str, Any]:
        """The order in Alpaca's fields.

        Args:
            nested: with the legs of a bracket.
            status: in place of its own: what an order was a moment ago.
        """
        order = self.order
        return {
            "id": self.id,
            "client_order_id": self.client_order_id,
            "created_at": moment(self.submitted),
            "updated_at": moment(self.updated),
            "submitted_at": moment(self.submitted),
            "filled_at": _when(self.filled),
            "expired_at": _when(self.expired),
            "expires_at": None,
            "canceled_at": _when(self.canceled),
            "failed_at": _when(self.failed),
            "replaced_at": _when(self.replaced),
            "replaced_by": self.replaced_by,
            "replaces": self.replaces,
            "asset_id": asset_id(order.symbol),
            "symbol": order.symbol,
            "asset_class": "us_equity",
            "notional": None,
            "qty": number(self.quantity),
            "filled_qty": number(self.filled_quantity),
            "filled_avg_price": None if self.filled_price is None else number(self.filled_price),
            # Ours alone: Alpaca does not know a price before slippage.
            "reference_price": None if self.reference_price is None else number(self.reference_price),
            "order_class": self.order_class,
            "order_type": order.type,
            "type": order.type,
            "side": SIDE_NAMES[order.side],
            "time_in_force": order.time_in_force,
            "limit_price": _price(order.limit_price),
            "stop_price": _price(order.stop_price),
            "status": status or self.status,
            "extended_hours": False,
            "legs": [leg.to_json() for leg in self.legs] if nested and self.legs else None,
            "trail_percent": None,
            "trail_price": None,
            "hwm": None,
            "position_intent": None,
            "source": None,
            "subtag": None,
        }


def _when(time: int | None) -> str | None:
    return None if time is None else moment(time)


def _price(price: float) -> str | None:
    return None if math.isnan(price) else number(price)
