"""Our picture of the account at the broker: the venue of ``engine.trading``, filled by trade updates, not by matching.

What the strategy asks for is checked at once by the same rules as in a backtest, so that it gets the same answer; it
leaves the house once the strategy has decided, a bracket as one order. The broker's updates are booked at the next
step, in the order in which they came. The consequences of a fill (legs that wake, partners that end) are drawn here
as in a backtest, and what the broker says of them confirms it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Any, NamedTuple, Protocol

from engine.errors import BrokerError
from engine.live.desk import ENDED, LATE, Again, CutOff, Desk, OnHold, Receipt, TurnedDown
from engine.live.inbox import UpdateMessage
from engine.live.rest import NoAnswer
from engine.trading.orders import QUANTITY_EPSILON, QUANTITY_PLACES, SIDE_NAMES, Fill, Order, OrderStatus
from engine.trading.venue import Bar, Event, Venue

_KEPT_LATENCIES = 10_000
# The journal holds every fill; the ledger's lists only go on growing.
_KEPT_FILLS = 10_000


class Log(Protocol):
    """The part of a journal that the venue writes."""

    def write(self, kind: str, /, **body: Any) -> None:
        """Append an entry."""

    def commit(self, *, durable: bool = False) -> None:
        """Make the entries part of the journal."""


class _Withdrawal(NamedTuple):
    """An order that the strategy has cancelled after it was sent."""

    order: Order


@dataclass(slots=True, kw_only=True)
class LiveVenue(Venue):
    """An account at the broker.

    Attributes:
        desk: the way to the broker.
        log: where intents, answers, updates and fills are written.
        run: short name of the run, for client order ids.
        may_open: why this order, which opens a position, may not be sent now, or empty: limits on the wall clock.
        may_close: why this order, which closes one, may not: the broker is known to hold less than it closes.
        is_late: whether an order's time has passed: one that opens a position is not sent any more then.
        deferred: why orders wait that were to be sent, or empty.
        exits_first: whether exits of other symbols go ahead of what the broker does not answer to; what is sent comes
            in another sequence then.
        clock: monotonic ns, as the messages' times of receipt.
        commission_paid: by our cost model, of all fills.
        fill_latencies: from the sending of an order to the receipt of its fill, ns, the last ones.
    """

    desk: Desk
    log: Log
    run: str
    may_open: Callable[[Order], str] = lambda order: ""
    may_close: Callable[[Order], str] = lambda order: ""
    is_late: Callable[[Order], bool] = lambda order: False
    deferred: str = ""
    exits_first: bool = False
    clock: Callable[[], int] = monotonic_ns
    news: Sequence[object] = ("the broker may have told something",)
    commission_paid: float = 0.0
    fill_latencies: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT_LATENCIES))
    _outbox: list[Order | _Withdrawal] = field(default_factory=list)
    _remote: dict[str, Order] = field(default_factory=dict)
    _ids: dict[int, str] = field(default_factory=dict)
    _sent: dict[int, int] = field(default_factory=dict)
    _paid: dict[int, float] = field(default_factory=dict)
    _before: dict[int, float] = field(default_factory=dict)
    _told: list[Event] = field(default_factory=list)
    # Orders that the broker may have, although it has not said so.
    _doubtful: set[int] = field(default_factory=set)
    # Number of the last order that the strategy has not given.
    _foreign: int = 0

    # --- what the strategy asks ------------------------------------------------------------------------------------

    def submit(self, order: Order) -> bool:
        """Accept the order as a backtest would, to be sent after the decision; or reject it with a reason."""
        if order.group > 0:
            order.status = OrderStatus.REJECTED
            order.reason = "pairs of orders that cancel one another (oco) are not sent to Alpaca; use a bracket"
            return False
        held = self.ledger.quantity(order.symbol)
        reason = ""
        if order.parent is None:
            reason = self.may_open(order) if held * order.side >= 0.0 else self.may_close(order)
        if reason:
            order.status, order.reason = OrderStatus.REFUSED, reason
            return False
        if not Venue.submit(self, order):
            return False
        self._outbox.append(order)
        return True

    def cancel(self, order: Order, reason: str = "canceled by the strategy") -> list[Event]:
        """End a live order here and now; the broker is told after the decision.

        Where the broker fills it all the same, the fill is booked when it comes.
        """
        working = [other for other in self.open_orders.values() if other.status is OrderStatus.ACCEPTED]
        events = Venue.cancel(self, order, reason)
        unsent = [other for other in self._outbox if isinstance(other, Order) and not other.alive]
        if unsent:
            # One that the broker may have stays: it is looked for, and cancelled where it is found.
            gone = [other for other in unsent if other.id not in self._doubtful]
            self._outbox = [action for action in self._outbox if action not in gone]
        # A partner that ends with it holds shares at the broker until its own end is confirmed.
        ended = [
            event.order
            for event in events
            if event.order not in unsent and (event.order is order or event.order in working)
        ]
        self._outbox += [_Withdrawal(other) for other in ended]
        return events

    @property
    def unsent(self) -> int:
        """Orders that were decided on and have not been sent yet."""
        return sum(isinstance(action, Order) for action in self._outbox)

    @property
    def has_outgoing(self) -> bool:
        """Whether an order or a withdrawal waits to be sent."""
        return bool(self._outbox)

    # --- what leaves the house -------------------------------------------------------------------------------------

    def flush(self, time: int, *, insist: bool = False) -> int:
        """Send what was decided, in the order in which it was; the number of orders sent.

        Every order stands in the journal, on the disk, before it is sent. After a withdrawal the broker's news are
        booked (at ``time``, UTC ns) before anything else goes out: where a fill was quicker, nothing is closed twice.
        Where the broker does not answer, the rest is deferred to the next time: an order is then looked for before it
        is sent, and one that opens a position is sent in its own time only.

        Args:
            insist: go on where a withdrawal fails, because what follows closes positions; it is tried again next time.
        """
        self.deferred = ""
        if not self._outbox:
            return 0
        actions, self._outbox = self._outbox, []
        bundles: dict[int, list[Order]] = {}
        for action in actions:
            if isinstance(action, Order) and action.parent is not None:
                bundles.setdefault(action.parent.id, []).append(action)
        for action in actions:
            if isinstance(action, _Withdrawal):
                self.log.write("withdrawal", order=action.order.id, broker_id=self._ids.get(action.order.id))
        self.log.commit(durable=True)
        sent = 0
        # All that may be there already is looked for, before anything else goes out.
        for action in actions:
            if isinstance(action, Order) and action.id in self._doubtful and action.parent is None:
                try:
                    sent += self._found(action, bundles.get(action.id, []))
                except NoAnswer as error:
                    return sent + self._deferred(actions, error, bundles, time, insist=insist, finding=action)
        for position, action in enumerate(actions):
            try:
                sent += self._out(action, bundles, time, insist=insist)
            except NoAnswer as error:
                return sent + self._deferred(actions[position:], error, bundles, time, insist=insist)
        self.log.commit()
        return sent

    def _out(self, action: Order | _Withdrawal, bundles: Mapping[int, list[Order]], time: int, *, insist: bool) -> bool:
        """Send an order that is still wanted, or withdraw one; whether an order went out."""
        if isinstance(action, _Withdrawal):
            self._withdraw(action.order, time, insist=insist)
            return False
        wanted = action.parent is None and self._still_wanted(action)
        return wanted and self._send(action, bundles.get(action.id, []))

    def _deferred(
        self,
        actions: Sequence[Order | _Withdrawal],
        error: NoAnswer,
        bundles: Mapping[int, list[Order]],
        time: int,
        *,
        insist: bool,
        finding: Order | None = None,
    ) -> int:
        """Keep what could not be sent; exits of other symbols may go ahead, how many did.

        A second one without an answer, and the broker is taken to be out of reach.
        """
        sent = 0
        stuck = {(finding or _order_of(actions[0])).symbol}
        ahead = self._defer(actions, error, finding=None if finding is None else finding.id)
        for action in actions if ahead else ():
            order = _order_of(action)
            exits = isinstance(action, _Withdrawal) or (order.closing and order.parent is None)
            if order.symbol in stuck or not exits or order.id in self._doubtful or action not in self._outbox:
                continue
            self._outbox.remove(action)
            try:
                sent += self._out(action, bundles, time, insist=insist)
            except NoAnswer as again:
                self._defer([action], again)
                break
        self.log.commit()
        return sent

    def _found(self, order: Order, legs: list[Order]) -> bool:
        """Look for an order that the broker may have; whether it does. What it does not have is not doubtful any more.

        One that opens a position and whose time is over is given up then.
        """
        receipt = self.desk.find(order, legs, self.client_id(order))
        if receipt is not None:
            if order.alive:
                self._overtaken(order)  # it is cancelled where it is
            self._acknowledge(order, legs, receipt)
            # What was told of it before we knew that it is ours was left alone.
            with suppress(NoAnswer):
                self.desk.catch_up([receipt.id, *receipt.legs])
            return True
        self._doubtful -= {order.id, *(leg.id for leg in legs)}
        if order.alive and not order.closing and self.is_late(order):
            self._turn_down(order, LATE)
        return False

    def _still_wanted(self, order: Order) -> bool:
        """Whether an order is to be sent: alive, not overtaken, and not known to be there."""
        return order.alive and order.id not in self._ids and not self._overtaken(order)

    def _defer(self, actions: Sequence[Order | _Withdrawal], error: NoAnswer, *, finding: int | None = None) -> bool:
        """Keep for the next time what could not be sent; whether the first of it has reached the broker is not known.

        Of a run that was cut off there, it is known of none. Whether exits of other symbols go ahead.
        """
        first = actions[0]
        order, remote = (first, None) if isinstance(first, Order) else (first.order, self._ids.get(first.order.id))
        if isinstance(error, Again):
            cut_off, ahead = error.cut_off, error.ahead
        else:
            cut_off = isinstance(error, CutOff)
            ahead = self.exits_first and not isinstance(error, CutOff | OnHold)
        self.log.write(
            "deferred",
            order=order.id,
            withdrawal=remote,
            finding=finding,
            cut_off=cut_off,
            ahead=ahead,
            reason=str(error),
        )
        self.deferred = str(error)
        kept = [action for action in actions if isinstance(action, _Withdrawal) or action.id not in self._ids]
        self._outbox += kept  # after the withdrawals that have failed: they hold what a close needs
        orders = [action for action in kept if isinstance(action, Order)]
        if not cut_off:
            orders = [other for other in orders if finding is None and order in (other, other.parent)]
        self._doubtful |= {other.id for other in orders}
        return ahead

    def _withdraw(self, order: Order, time: int, *, insist: bool) -> None:
        if order.id not in self._ids:
            return
        try:
            self.desk.withdraw(self._ids[order.id])
        except NoAnswer as error:
            if not insist:
                raise
            self.log.write("withdrawal_failed", order=order.id, withdrawal=self._ids[order.id], reason=str(error))
            self._outbox.append(_Withdrawal(order))
        self.log.write("taken", time=time)
        self._told += self._take_all(time, {})

    def _overtaken(self, order: Order) -> bool:
        """Whether an order that closes has less to close than when it was decided; it ends here."""
        left = abs(self.ledger.quantity(order.symbol)) if self.ledger.quantity(order.symbol) * order.side < 0.0 else 0.0
        if not order.closing or order.quantity <= left + QUANTITY_EPSILON:
            return False
        self._told += self._end(order, OrderStatus.CANCELED, f"overtaken by a fill: {left:g} were left to close")
        return True

    def _send(self, order: Order, legs: list[Order]) -> bool:
        try:
            receipt = self.desk.send(order, legs, self.client_id(order))
        except TurnedDown as error:
            self._turn_down(order, str(error))
            return False
        self._acknowledge(order, legs, receipt)
        return True

    def _turn_down(self, order: Order, reason: str) -> None:
        self.log.write("turned_down", order=order.id, reason=reason)
        self._told += self._end(order, OrderStatus.REJECTED, f"turned down by the broker: {reason}")

    def _acknowledge(self, order: Order, legs: list[Order], receipt: Receipt) -> None:
        self._doubtful -= {order.id, *(leg.id for leg in legs)}
        self._sent[order.id] = self.clock()
        self._learn(order, legs, receipt)
        self.log.write("ack", order=order.id, broker_id=receipt.id, legs=list(receipt.legs))
        # What was cancelled while it was doubtful; without its entry a leg ends by itself.
        gone = [leg for leg in legs if not leg.alive] if order.alive else [order]
        self._outbox += [_Withdrawal(other) for other in gone]

    def _learn(self, order: Order, legs: list[Order], receipt: Receipt) -> None:
        for own, remote in zip((order, *legs), (receipt.id, *receipt.legs), strict=True):
            self._remote[remote] = own
            self._ids[own.id] = remote

    def client_id(self, order: Order) -> str:
        """The order's id for the broker: run, decision bar, symbol and number; unique, and the same on a second try."""
        moment = datetime.fromtimestamp(order.decided // 1_000_000_000, tz=UTC)
        return f"{self.run}-{moment:%Y%m%dT%H%M%S}-{order.symbol}-{order.id}"

    @property
    def at_broker(self) -> dict[str, Order]:
        """The orders that are open at the broker by our books, by its ids."""
        return {remote: order for remote, order in self._remote.items() if order.alive}

    @property
    def doubtful_ids(self) -> frozenset[str]:
        """Client ids of orders that the broker may have, although it has not said so."""
        outgoing = (action for action in self._outbox if isinstance(action, Order))
        return frozenset(self.client_id(order) for order in outgoing if order.id in self._doubtful)

    @property
    def waiting(self) -> list[str]:
        """The broker's ids of the orders whose end it has not told yet."""
        return list(self._remote)

    def take_over(self, closings: Sequence[Mapping[str, Any]]) -> list[Order]:
        """Take for ours the orders by which `nextbar kill` has closed positions in this run's name.

        Args:
            closings: of each ``broker_id``, ``symbol``, ``side`` (1 or -1), ``quantity`` and ``decided`` (UTC ns).
        """
        orders = []
        for closing in closings:
            self._foreign -= 1
            order = Order(
                id=self._foreign,
                symbol=closing["symbol"],
                side=closing["side"],
                quantity=closing["quantity"],
                decided=closing["decided"],
                closing=True,
            )
            self.open_orders[order.id] = order
            self._learn(order, [], Receipt(closing["broker_id"], ()))
            orders.append(order)
        return orders

    def adopt(self, trades: Sequence[Mapping[str, Any]], *, decided: int, time: int) -> None:
        """Book what somebody else has traded on the account: a person has said that the broker is right.

        Args:
            trades: of each ``symbol``, ``side`` (1 or -1), ``quantity`` and ``price``.
            decided, time: UTC ns, of the last bar and of the booking.
        """
        for trade in trades:
            self._foreign -= 1
            fill = Fill(
                order_id=self._foreign,
                symbol=trade["symbol"],
                side=trade["side"],
                quantity=trade["quantity"],
                price=trade["price"],
                reference_price=trade["price"],
                commission=0.0,
                decided=decided,
                time=time,
            )
            self.ledger.apply(fill)
            self.log.write("fill", **fill_fields(fill))

    def _forget(self, order: Order) -> None:
        """Let go of an order of which nothing more comes."""
        self._sent.pop(order.id, None)
        self._paid.pop(order.id, None)
        self._before.pop(order.id, None)
        self._remote.pop(self._ids.pop(order.id, ""), None)

    # --- what the broker tells -------------------------------------------------------------------------------------

    def on_bars(self, *, time: int, session: int, session_ends: bool, bars: Mapping[str, Bar]) -> list[Event]:
        """Charge interest, then book what the broker has told since the last step; ``time`` is when it is booked."""
        paid = self.ledger.interest_paid
        self._accrue(time, session, bars)
        if self.ledger.interest_paid != paid:
            self.log.write("interest", time=time, paid=self.ledger.interest_paid, cash=self.ledger.cash)
        events, self._told = self._told, []
        return events + self._take_all(time, bars)

    def _take_all(self, time: int, bars: Mapping[str, Bar]) -> list[Event]:
        return [event for message in self.desk.take_updates() for event in self._take(message, time, bars)]

    def _take(self, message: UpdateMessage, time: int, bars: Mapping[str, Bar]) -> list[Event]:
        fields = message.fields
        remote = fields["order"]
        order = self._remote.get(str(remote.get("id")))
        event = str(fields["event"])
        execution = str(fields.get("execution_id") or "")
        self.log.write(
            "update",
            event=event,
            order=None if order is None else order.id,
            broker_id=str(remote.get("id")),
            client_id=remote.get("client_order_id"),
            symbol=remote.get("symbol"),
            execution=execution,
            quantity=_number(fields.get("qty")),
            price=_number(fields.get("price")),
            filled_quantity=_number(remote.get("filled_qty")),
            average_price=_number(remote.get("filled_avg_price")),
            reference_price=_number(fields.get("reference_price")),
            replaced_by=remote.get("replaced_by"),
            at=fields.get("timestamp"),
            received=message.received,
        )
        if order is None:
            return []  # somebody else's order on this account, or an old piece of news: seen, and left alone
        events: list[Event] = []
        # Whatever happened to it: the cumulative quantity tells of fills that were missed, and what was booked already
        # is not booked again.
        known = order.filled_quantity - self._before.get(order.id, 0.0)
        quantity = round(float(remote.get("filled_qty") or 0.0) - known, QUANTITY_PLACES)
        if quantity > QUANTITY_EPSILON:
            events += self._filled(order, quantity, fields, time, bars, last=event == "fill", received=message.received)
        if event == "replaced" and remote.get("replaced_by"):
            self._follow(order, str(remote["id"]), str(remote["replaced_by"]))
        elif event in ENDED:
            if order.alive:
                events += self._ended(order, event)
            self._forget(order)
        return events

    def _follow(self, order: Order, old: str, new: str) -> None:
        """Somebody has changed the order at the broker: it goes on under another id, and counts its fills anew."""
        self._remote.pop(old, None)
        self._remote[new], self._ids[order.id] = order, new
        self._before[order.id] = order.filled_quantity
        self._paid.pop(order.id, None)

    def _ended(self, order: Order, event: str) -> list[Event]:
        if event == "fill":  # its last piece was told of before
            order.status = OrderStatus.FILLED
        elif order.filled_quantity > 0.0:
            order.status, order.reason = OrderStatus.CANCELED, "the broker filled it in part and ended it"
        elif event == "expired":
            return self._end(order, OrderStatus.EXPIRED, "day order: its session ended")
        elif event == "rejected":
            return self._end(order, OrderStatus.REJECTED, "rejected by the broker")
        else:
            return self._end(order, OrderStatus.CANCELED, f"{event} by the broker")
        events = [Event(order, None)]
        self._conclude(order, events)
        return events

    def _filled(
        self,
        order: Order,
        quantity: float,
        fields: Mapping[str, Any],
        time: int,
        bars: Mapping[str, Bar],
        *,
        last: bool,
        received: int,
    ) -> list[Event]:
        """Book what is new of the cumulative quantity."""
        remote = fields["order"]
        told, average = _number(fields.get("qty")), _number(remote.get("filled_avg_price"))
        price = _number(fields.get("price"))
        if told is not None and price is not None and abs(told - quantity) <= QUANTITY_EPSILON:
            quantity = told
        elif average is not None:
            # Fills were missed: what they cost together is in the average.
            price = (average * float(remote["filled_qty"]) - self._paid.get(order.id, 0.0)) / quantity
        if price is None or not price > 0.0:
            raise BrokerError(
                f"the broker filled {quantity:g} of order {self._ids[order.id]} and does not say at what price; look "
                "at the account"
            )
        fill = Fill(
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            quantity=quantity,
            price=price,
            reference_price=_reference(order, fields, bars.get(order.symbol), price),
            commission=self.costs.commission(quantity, price),
            decided=order.decided,
            time=time,
        )
        self._book(order, fill)
        self._paid[order.id] = self._paid.get(order.id, 0.0) + quantity * price
        self.commission_paid += fill.commission
        for kept in (self.ledger.fills, self.ledger.cash_history):
            if len(kept) > 2 * _KEPT_FILLS:
                del kept[:_KEPT_FILLS]
        # What was missed and asked for may be several executions: their average is known, not each price.
        self.log.write("fill", **fill_fields(fill), averaged=not fields.get("execution_id"))
        if order.id in self._sent:
            self.fill_latencies.append(received - self._sent[order.id])
        if not order.alive:
            self._take_late(order)
            return [Event(order, fill)]
        events = [Event(order, fill)]
        if last:
            order.status = OrderStatus.FILLED
            self._conclude(order, events)
        return events

    def _take_late(self, order: Order) -> None:
        """The strategy had cancelled it, and the broker was quicker: the position is what counts.

        The legs were cancelled with it, and are alive at the broker: they would hold the position back.
        """
        self._outbox += [_Withdrawal(leg) for leg in self._remote.values() if leg.parent is order]


def _order_of(action: Order | _Withdrawal) -> Order:
    return action if isinstance(action, Order) else action.order


def order_fields(order: Order, client_id: str) -> dict[str, Any]:
    """An order as an intent in the journal."""
    return {
        "order": order.id,
        "client_id": client_id,
        "decided": order.decided,
        "symbol": order.symbol,
        "side": SIDE_NAMES[order.side],
        "quantity": order.quantity,
        "type": order.type,
        "limit_price": order.limit_price,
        "stop_price": order.stop_price,
        "time_in_force": order.time_in_force,
        "parent": None if order.parent is None else order.parent.id,
        "status": order.status.value,
        "reason": order.reason,
    }


def fill_fields(fill: Fill) -> dict[str, Any]:
    """A fill as it is booked, for the journal."""
    return {
        "order": fill.order_id,
        "symbol": fill.symbol,
        "side": SIDE_NAMES[fill.side],
        "quantity": fill.quantity,
        "price": fill.price,
        "reference_price": fill.reference_price,
        "commission": fill.commission,
        "decided": fill.decided,
        "time": fill.time,
    }


def _reference(order: Order, fields: Mapping[str, Any], bar: Bar | None, price: float) -> float:
    """The price before slippage: the exchange on this machine tells it. Else a market order's is the bar's open.

    What a stop or a limit had to expect is not known; its price is taken as it is.
    """
    told = _number(fields.get("reference_price"))
    if told is not None:
        return told
    return bar.open if order.type == "market" and bar is not None else price


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
