"""One account at the exchange: its venue, its orders by every name they have, and what it is told about them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.config import BrokerConfig
from engine.exchange.faults import ArmedFaults
from engine.exchange.faulty_venue import FaultyVenue
from engine.exchange.listed import Listed
from engine.exchange.refusals import Refusal, duplicate, forbidden, invalid, not_found
from engine.exchange.tickets import Leg, Ticket, Transfer, read_changes, read_client_id, read_quantity
from engine.exchange.wire import identity, moment, number
from engine.trading.costs import Costs
from engine.trading.ledger import Ledger, Position, position_after
from engine.trading.orders import BUY, QUANTITY_PLACES, SELL, Fill, Order, OrderStatus
from engine.trading.sizing import rounded_down
from engine.trading.venue import Event, Venue

# Key and secret of the one account of `nextbar exchange` and of a replay: they guard nothing beyond this machine.
PRACTICE = ("practice", "practice")


@dataclass(frozen=True, kw_only=True)
class AccountSpec:
    """Keys and terms of an account; the secret is in no repr."""

    key: str
    secret: str = field(repr=False)
    broker: BrokerConfig


class Account:
    """The account's orders and positions. Every method that changes something takes the simulated time, in UTC ns.

    Attributes:
        listed: every order by its id, in the sequence in which they came.
        tell: takes a trade update, its execution id and the bytes of its JSON; None while no trading stream listens.
        days: (time, equity) at the end of each session gone by.
    """

    def __init__(self, spec: AccountSpec, prices: Mapping[str, float], faults: ArmedFaults | None = None) -> None:
        self.spec = spec
        broker = spec.broker
        terms: dict[str, Any] = {
            "ledger": Ledger(cash=broker.cash),
            "costs": Costs.of(broker),
            "prices": prices,
            "account": broker.account,
            "fractional": broker.fractional,
            "short": broker.short,
        }
        self.venue = Venue(**terms) if faults is None else FaultyVenue(**terms, faults=faults)
        self.id = identity("account", spec.key)
        self.listed: dict[str, Listed] = {}
        self.tell: Callable[[str, bytes], None] | None = None
        self.days: list[tuple[int, float]] = []
        self._by_client_id: dict[str, Listed] = {}
        self._by_number: dict[int, Listed] = {}
        self._held: dict[str, float] = {}
        self._stamped = (-1, 0)

    # --- looking up ------------------------------------------------------------------------------------------------

    def find(self, order_id: str) -> Listed:
        """The order of an id; a Refusal when there is none."""
        listed = self.listed.get(order_id.lower())
        if listed is None:
            raise not_found(f"order not found for {order_id}")
        return listed

    def find_client_id(self, client_order_id: str) -> Listed:
        """The order of a client's own id; a Refusal when there is none."""
        listed = self._by_client_id.get(client_order_id)
        if listed is None:
            raise not_found(f"order not found for client_order_id {client_order_id}")
        return listed

    def open_orders(self) -> list[Listed]:
        """The orders that may still fill, in the sequence in which they came."""
        return [self._by_number[order_number] for order_number in self.venue.open_orders]

    # --- what a client may do --------------------------------------------------------------------------------------

    def submit(self, ticket: Ticket, time: int) -> Listed:
        """Accept an order with its legs, stop before target as backtrader's ``buy_bracket`` sends them.

        Raises:
            Refusal: the id was used before, or the venue turns the order down; nothing has changed then.
        """
        if ticket.client_order_id in self._by_client_id:
            raise duplicate()
        entry = self._order(ticket, time)
        if not self.venue.submit(entry):
            raise _refusal(entry, self.venue)
        listed = self._list(entry, ticket.order_class, ticket.client_order_id, time)
        for leg in (ticket.stop, ticket.target):
            if leg is not None:
                self._add_leg(listed, leg, time)
        listed.legs.sort(key=lambda leg: leg.order.type != "limit")  # Alpaca names the target first
        self._announce(listed, time)
        return listed

    def cancel(self, listed: Listed, time: int) -> None:
        """End an open order, the legs that wait for it, and its partner in a bracket.

        Raises:
            Refusal: it has ended already.
        """
        if not listed.open:
            raise invalid(f'order is already in "{listed.status}" state')
        self.report(self.venue.cancel(listed.order), time)

    def replace(self, listed: Listed, changes: Mapping[str, Any], time: int) -> Listed:
        """Put a new order, with a new id, in the place of an open one; it keeps its legs and its partner.

        Raises:
            Refusal: nothing would change, or the new order is turned down; the old one stands then.
        """
        if not listed.open:
            raise invalid(f'order is already in "{listed.status}" state and cannot be replaced')
        old = listed.order
        if listed.filled_quantity and listed.legs:
            raise invalid("an entry that is filled in part cannot be replaced: its legs are of its first size")
        client_order_id = read_client_id(changes)
        if client_order_id in self._by_client_id:
            raise duplicate()
        # What was filled stays with the old id: the new order is for the rest.
        asked = read_changes(old, old.remaining, changes, fractional=self.spec.broker.fractional)
        new = replace(
            old,
            id=len(self._by_number) + 1,
            quantity=asked.quantity,
            limit_price=asked.limit_price,
            stop_price=asked.stop_price,
            time_in_force=asked.time_in_force,
            decided=time,
            parent=old.parent if old.status is OrderStatus.HELD else None,
            parent_filled=math.inf,
            filled_quantity=0.0,
            status=OrderStatus.ACCEPTED,
            session=-1,
            triggered=False,
        )
        before = dict(self.venue.open_orders)
        del self.venue.open_orders[old.id]
        if not self.venue.submit(new):
            self.venue.open_orders.clear()
            self.venue.open_orders.update(before)
            raise _refusal(new, self.venue)
        old.status, old.reason = OrderStatus.CANCELED, "replaced"
        for leg in listed.legs:
            leg.order.parent, leg.order.quantity = new, new.quantity
        made = self._list(new, listed.order_class, client_order_id, time)
        made.replaces, made.parent, made.legs = listed.id, listed.parent, listed.legs
        for leg in made.legs:
            leg.parent = made
        if listed.parent is not None:
            listed.parent.legs[listed.parent.legs.index(listed)] = made
        listed.legs = []
        listed.status, listed.replaced, listed.replaced_by = "replaced", self._stamp(listed, time), made.id
        self._tell("replaced", listed)
        if new.status is OrderStatus.HELD or made.stands_behind:
            made.status = "held"
        else:
            self._announce(made, time)
        return made

    def close(self, symbol: str, time: int, *, quantity: Any = None, percentage: Any = None) -> Listed:
        """Sell what is held, or buy back what is short, at the next bar: all of it, a number of shares, or per cent.

        Raises:
            Refusal: nothing is held, or open orders hold it.
        """
        held = self.venue.ledger.quantity(symbol)
        if not held:
            raise not_found(f"position does not exist: {symbol}")
        if quantity is not None:
            wanted = read_quantity(quantity)
        elif percentage is not None:
            share = read_quantity(percentage, "percentage")
            if share > 100.0:
                raise invalid(f"percentage must be between 0 and 100, found {percentage}")
            wanted = (
                rounded_down(abs(held) * share / 100.0, self.spec.broker.fractional) if share < 100.0 else abs(held)
            )
        else:
            wanted = abs(held)
        if wanted <= 0.0:
            raise invalid(f"percentage {percentage} of {number(abs(held))} shares is less than one share")
        ticket = Ticket(
            symbol=symbol,
            side=SELL if held > 0.0 else BUY,
            quantity=wanted,
            type="market",
            time_in_force="day",
            limit_price=math.nan,
            stop_price=math.nan,
            order_class="simple",
            client_order_id="",
        )
        return self.submit(ticket, time)

    # --- what the venue says ---------------------------------------------------------------------------------------

    def report(self, events: list[Event], time: int) -> None:
        """Bring the list of orders up to date with what happened, in that order, and tell of it."""
        last = {event.order.id: position for position, event in enumerate(events)}
        for position, (order, fill) in enumerate(events):
            listed = self._by_number[order.id]
            # An order that also ends later in this bar carries its end already.
            goes_on = order.status is OrderStatus.ACCEPTED or last[order.id] != position
            if fill is not None:
                self._fill(listed, fill, goes_on=goes_on)
            elif goes_on:  # a leg wakes
                listed.status = "held" if listed.stands_behind else "new"
                self._stamp(listed, time)
                if listed.status == "new":
                    self._tell("new", listed)
            elif order.status is OrderStatus.EXPIRED:
                listed.status, listed.expired = "expired", self._stamp(listed, time)
                self._tell("expired", listed)
            elif order.status is OrderStatus.REJECTED:
                listed.status, listed.failed = "rejected", self._stamp(listed, time)
                self._tell("rejected", listed)
            else:
                self._canceled(listed, time)

    def _fill(self, listed: Listed, fill: Fill, *, goes_on: bool) -> None:
        listed.add(fill)
        held = self._held[fill.symbol] = round(self._held.get(fill.symbol, 0.0) + fill.signed_quantity, QUANTITY_PLACES)
        time = self._stamp(listed, fill.time)
        if listed.order.status is OrderStatus.FILLED:
            listed.status, listed.filled = "filled", time
            self._tell("fill", listed, fill=fill, held=held)
            return
        listed.status = "partially_filled"
        self._tell("partial_fill", listed, fill=fill, held=held)
        if not goes_on:
            self._canceled(listed, fill.time)

    def _canceled(self, listed: Listed, time: int) -> None:
        listed.status, listed.canceled = "canceled", self._stamp(listed, time)
        self._tell("canceled", listed)

    # --- from outside ----------------------------------------------------------------------------------------------

    def transfer(self, moved: Transfer, time: int) -> float:
        """Book shares in or out without an order, at a price and without commission; the quantity held then.

        Nothing is told of it: who trades the account finds a position that none of its orders explains.

        Raises:
            Refusal: the account could not hold that.
        """
        ledger = self.venue.ledger
        held = ledger.positions.get(moved.symbol, Position())
        quantity, average = position_after(held.quantity, held.average_price, moved.quantity, moved.price)
        quantity = round(quantity, QUANTITY_PLACES)
        if not self.spec.broker.fractional and moved.quantity != math.trunc(moved.quantity):
            raise invalid(f"qty must be a whole number of shares, found {number(moved.quantity)}")
        if quantity < 0.0 and not self.venue.short:
            raise invalid(f"short selling is off: {number(held.quantity)} held, {number(-moved.quantity)} taken out")
        ledger.positions[moved.symbol] = Position(quantity, average)
        ledger.cash -= moved.quantity * moved.price
        ledger.cash_history.append((time, ledger.cash))
        self._held[moved.symbol] = quantity
        return quantity

    # --- making orders ---------------------------------------------------------------------------------------------

    def _order(self, ticket: Ticket, time: int) -> Order:
        return Order(
            id=len(self._by_number) + 1,
            symbol=ticket.symbol,
            side=ticket.side,
            quantity=ticket.quantity,
            type=ticket.type,
            limit_price=ticket.limit_price,
            stop_price=ticket.stop_price,
            time_in_force=ticket.time_in_force,
            decided=time,
        )

    def _add_leg(self, entry: Listed, leg: Leg, time: int) -> None:
        order = Order(
            id=len(self._by_number) + 1,
            symbol=entry.order.symbol,
            side=-entry.order.side,
            quantity=entry.order.quantity,
            type=leg.type,
            limit_price=leg.limit_price,
            stop_price=leg.stop_price,
            time_in_force=entry.order.time_in_force,
            decided=time,
            parent=entry.order,
            # Negative, as in the backtest's broker: the two exits cancel one another, and the entry is not of them.
            group=-entry.order.id,
        )
        self.venue.submit(order)
        listed = self._list(order, entry.order_class, "", time)
        listed.status, listed.parent = "held", entry
        entry.legs.append(listed)

    def _list(self, order: Order, order_class: str, client_order_id: str, time: int) -> Listed:
        listed = Listed(
            order=order,
            id=identity("order", self.spec.key, order.id),
            client_order_id=client_order_id or identity("client", self.spec.key, order.id),
            order_class=order_class,
            submitted=time,
            updated=time,
            status="new",
        )
        self.listed[listed.id] = self._by_client_id[listed.client_order_id] = self._by_number[order.id] = listed
        return listed

    def _stamp(self, listed: Listed, time: int) -> int:
        """Mark a change of the order with a time that no other change of the account has; the time.

        It is the simulated moment and, for each change after the moment's first, a nanosecond more: what a client
        missed can be put in order by it.
        """
        moment_of_last, count = self._stamped
        count = count + 1 if time == moment_of_last else 0
        self._stamped = (time, count)
        listed.updated = time + count
        return listed.updated

    def _announce(self, listed: Listed, time: int) -> None:
        self._stamp(listed, time)
        self._tell("pending_new", listed, status="pending_new")
        self._stamp(listed, time)
        self._tell("new", listed)

    def _tell(
        self,
        event: str,
        listed: Listed,
        *,
        fill: Fill | None = None,
        held: float | None = None,
        status: str | None = None,
    ) -> None:
        if self.tell is None:
            return
        execution = identity("execution", listed.id, event, listed.updated)
        data: dict[str, Any] = {
            "event": event,
            "timestamp": moment(listed.updated),
            "execution_id": execution,
            "order": listed.to_json(status=status),
        }
        if fill is not None and held is not None:
            data |= {
                "price": number(fill.price),
                "qty": number(fill.quantity),
                "position_qty": number(held),
                # Ours alone: Alpaca does not know a price before slippage.
                "reference_price": number(fill.reference_price),
            }
        self.tell(execution, json.dumps({"stream": "trade_updates", "data": data}).encode())


def _refusal(order: Order, venue: Venue) -> Refusal:
    """What Alpaca answers where our venue rejects; ``reason`` is the venue's own word."""
    reason = order.reason
    if reason.startswith("insufficient buying power"):
        return forbidden(reason, reason=reason)
    if reason.startswith("insufficient quantity"):
        held = abs(venue.ledger.quantity(order.symbol))
        message = f"insufficient qty available for order (requested: {number(order.quantity)}): {reason}"
        return forbidden(message, reason=reason, symbol=order.symbol, existing_qty=number(held))
    if reason.startswith("short selling is off"):
        return forbidden(f"account is not allowed to short: {reason}", reason=reason)
    return invalid(reason)
