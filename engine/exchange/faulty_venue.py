"""A venue that turns down what it had accepted, and fills orders in two parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.exchange.faults import ArmedFaults
from engine.trading import matching
from engine.trading.orders import Fill, Order, OrderStatus
from engine.trading.venue import Bar, Event, Venue, _Step

_SMALLEST_SPLIT = 2.0


@dataclass(kw_only=True)
class FaultyVenue(Venue):
    """The venue of an account whose exchange makes faults. All of it follows from the schedule and the orders."""

    faults: ArmedFaults
    _filled_in_part: dict[int, int] = field(default_factory=dict)

    def on_bars(self, *, time: int, session: int, session_ends: bool, bars: Mapping[str, Bar]) -> list[Event]:
        """As ever, after an order that came since the last step may have been rejected."""
        events: list[Event] = []
        for order in list(self.open_orders.values()):
            came_since = order.session < 0 and order.parent is None and order.status is OrderStatus.ACCEPTED
            if came_since and self.faults.take("reject", by=self.faults.position - 1):
                events += self._end(order, OrderStatus.REJECTED, "rejected by the exchange")
        return events + super().on_bars(time=time, session=session, session_ends=session_ends, bars=bars)

    def _fill(self, order: Order, reference: float, step: _Step) -> list[Order]:
        if self._filled_in_part.get(order.id) == step.time:
            return []  # the rest is for the next bar
        price = matching.paid_price(reference, order.side, order.limit_price, self.costs.slippage_bps)
        quantity, _ = self._fillable(order, order.remaining, price, step.opens)
        kind = self.faults.take("partial", "partial-cancel") if quantity >= _SMALLEST_SPLIT else ""
        if not kind:
            return super()._fill(order, reference, step)
        half = float(math.floor(quantity / 2.0))
        fill = Fill(
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            quantity=half,
            price=price,
            reference_price=reference,
            commission=self.costs.commission(half, price),
            decided=order.decided,
            time=step.time,
        )
        self._book(order, fill)
        step.events.append(Event(order, fill))
        if kind == "partial":
            self._filled_in_part[order.id] = step.time
            return []
        order.status, order.reason = OrderStatus.CANCELED, f"the exchange filled {half:g} and canceled the rest"
        return self._conclude(order, step.events)
