"""Close what a run has at its broker: cancel its orders, close its positions, and leave alone what is not its own.

It may be done again at any time, also after it was cut off: no position is closed twice. A closing order has a client
id of its own, under which it is looked for before it is sent; while one is open, no other is sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.live.account_picture import (
    Picture,
    Told,
    client_id_of,
    is_covered,
    sentence_of,
    strange_positions,
    told,
    wish,
)
from engine.live.account_rest import AccountRest, Order, TurnedDown, filled, is_open
from engine.live.claims import Claims
from engine.trading.orders import QUANTITY_EPSILON, QUANTITY_PLACES

_ROUNDS = 4
_POLL_SECONDS = 0.2
_MOST_CLOSINGS = 1000


class Notes(Protocol):
    """Where it is written what is done."""

    def intend(self, closings: Sequence[Told]) -> None:
        """These are about to be sent."""

    def done(self, closings: Sequence[Told]) -> None:
        """These are at the broker."""


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Seconds that are waited.

    Attributes:
        cancel: for cancelled orders to end.
        fill, fill_when_closed: for closing orders to fill, in a session and out of it.
        again: before what the broker did not take is tried again.
    """

    cancel: float = 15.0
    fill: float = 10.0
    fill_when_closed: float = 1.0
    again: float = 1.0


class Flattening:
    """The closing of one run's orders and positions.

    Attributes:
        canceled: orders that were cancelled. closing: the closing orders, also those of earlier kills.
        problems: what could not be done, one sentence each.
        over: no order fills any more.
    """

    def __init__(
        self,
        broker: AccountRest,
        claims: Claims,
        notes: Notes,
        *,
        advance: Callable[[], bool] | None = None,
        over: bool = False,
        waits: Waits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            advance: moves on a clock that does not move by itself; False at its end.
            over: that clock is at its end, and no order fills any more.
        """
        self._broker, self._claims, self._notes = broker, claims, notes
        self._advance, self.over = advance, over
        self._waits = waits or Waits()
        self._monotonic, self._sleep = monotonic, sleep
        self._ours: set[str] = set(claims.waiting)
        self._final: dict[str, Order] = {}
        self._canceled: dict[str, Told] = {}
        self._closing: dict[str, Told] = {}
        self._problems: dict[str, str] = {}
        self._held: dict[str, float] = {}

    @property
    def canceled(self) -> tuple[Told, ...]:
        """Orders that were cancelled."""
        return tuple(self._canceled.values())

    @property
    def closing(self) -> tuple[Told, ...]:
        """Closing orders, also those of earlier kills."""
        return tuple(self._closing.values())

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be done, one sentence each."""
        return tuple(self._problems.values())

    def run(self) -> None:
        """Cancel and close, until nothing is left that can be.

        Raises:
            NoAnswer, BrokerError: see ``AccountRest``; what was done so far is done, and may be gone on with.
        """
        for number in range(_ROUNDS):
            if number and self._problems:
                self._sleep(self._waits.again)
            self._problems.clear()
            self._cancel()
            sent = self._close()
            self._settle()
            if not sent and not self._problems:
                return

    # --- cancelling ------------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        """Cancel all of the run's orders but those that close positions for a kill, and wait until they are gone."""
        asked: set[str] = set()
        seen: set[str] = set()
        deadline = self._monotonic() + self._waits.cancel
        while orders := [order for order in self._own_orders() if not self._is_closing(order)]:
            seen.update(str(order["id"]) for order in orders)
            entries = {client_id_of(order) for order in orders}
            # A leg ends with its entry; where it does not, it is seen again without it.
            fresh = [
                str(order["id"])
                for order in orders
                if str(order["id"]) not in asked and order.get("parent_client_id") not in entries
            ]
            if not fresh:
                if self._monotonic() >= deadline:
                    left = ", ".join(f"{order['symbol']} ({client_id_of(order)})" for order in orders)
                    self._problems["cancel"] = f"the broker has not ended these orders yet, which are cancelled: {left}"
                    break
                self._sleep(_POLL_SECONDS)
            for broker_id in fresh:
                asked.add(broker_id)
                self._broker.cancel(broker_id)
        for broker_id in sorted(seen):
            order = self._looked_up(broker_id)
            if order is not None and order["status"] == "canceled":  # and not filled meanwhile
                self._canceled[broker_id] = told(order)

    def _is_closing(self, order: Order) -> bool:
        return self._claims.is_closing(client_id_of(order))

    def _own_orders(self) -> list[Order]:
        return [order for order in self._broker.open_orders() if self._is_own(order)]

    def _is_own(self, order: Order) -> bool:
        names = (client_id_of(order), str(order.get("parent_client_id", "")))
        ids = (str(order["id"]), str(order.get("parent_id", "")))
        return any(map(self._claims.is_ours, names)) or not self._ours.isdisjoint(ids)

    # --- closing ---------------------------------------------------------------------------------------------------

    def _close(self) -> bool:
        """Send what closes the run's positions; whether anything was sent."""
        wanted = []
        for symbol, quantity in self._own_held().items():
            earlier = self._closings_of(symbol)
            if not self.over and not any(map(is_open, earlier)):
                client_id = self._claims.closing_id(symbol, len(earlier) + 1)
                wanted.append((client_id, symbol, quantity))
        if not wanted:
            return False
        self._notes.intend([wish(*order) for order in wanted])
        made: list[Told] = []
        try:
            for client_id, symbol, quantity in wanted:
                try:
                    made.append(told(self._broker.close(client_id, symbol, quantity)))
                except TurnedDown as error:
                    self._problems[symbol] = f"{symbol}: the broker does not take the order that closes it: {error}"
        finally:
            self._take(made)
        return bool(made)

    def _take(self, closings: Sequence[Told]) -> None:
        """Closing orders that are at the broker: from now on they are ours, and stand in the journal."""
        for closing in closings:
            self._closing[closing.broker_id] = closing
            self._ours.add(closing.broker_id)
            self._claims.intended.pop(closing.client_id, None)
            if closing.broker_id not in self._claims.booked:
                self._claims.waiting.setdefault(closing.broker_id, 0.0)
        if closings:
            self._notes.done(closings)

    def _closings_of(self, symbol: str) -> list[Order]:
        """The closing orders of a symbol that the broker knows, in order."""
        found: list[Order] = []
        for number in range(1, _MOST_CLOSINGS):
            order = self._broker.by_client_id(self._claims.closing_id(symbol, number))
            if order is None:
                break
            found.append(order)
            self._closing[str(order["id"])] = told(order)
        return found

    def _settle(self) -> None:
        """Wait until the closing orders have ended, as long as they can."""
        opens = self._broker.is_open()[0]
        deadline = self._monotonic() + (self._waits.fill if opens else self._waits.fill_when_closed)
        while any(self._is_closing(order) for order in self._own_orders()):
            if self._advance is not None:
                if not self._advance():
                    self.over = True
                    return
            elif self._monotonic() >= deadline:
                return
            else:
                self._sleep(_POLL_SECONDS)

    # --- what is the run's own -------------------------------------------------------------------------------------

    def _own_held(self) -> dict[str, float]:
        """Symbol -> signed quantity that the account holds and the run's orders explain."""
        held = self._broker.held()
        explained = self._explained({symbol for symbol, quantity in held.items() if quantity})
        own = {}
        for symbol, quantity in sorted(explained.items()):
            there = held.get(symbol, 0.0)
            if quantity * there > 0.0:
                size = round(min(abs(quantity), abs(there)), QUANTITY_PLACES)
                if size > QUANTITY_EPSILON:
                    own[symbol] = size if there > 0.0 else -size
        self._held = held
        return own

    def _explained(self, held: set[str]) -> dict[str, float]:
        """Symbol -> signed quantity of all that was filled of the run's orders, booked in the journal or not yet."""
        claims = self._claims
        explained = dict(claims.held)
        counted = set(claims.booked)

        def count(order: Order, booked: float = 0.0) -> None:
            broker_id, symbol = str(order["id"]), str(order["symbol"])
            if broker_id not in counted:
                counted.add(broker_id)
                quantity = filled(order)
                explained[symbol] = explained.get(symbol, 0.0) + quantity - (booked if quantity >= 0.0 else -booked)
            if not is_open(order):
                self._final[broker_id] = order

        if not claims.known:
            for listed in self._broker.every_order():
                if self._is_own(listed):
                    self._ours.add(str(listed["id"]))
                    count(listed)
            return explained
        queue = dict(claims.waiting)
        while queue:
            broker_id, booked = queue.popitem()
            order = self._looked_up(broker_id)
            if order is None:
                continue
            count(order, booked)
            if order.get("replaced_by"):
                # Somebody has changed it at the broker: it goes on under another id, and counts its fills anew.
                self._ours.add(str(order["replaced_by"]))
                queue.setdefault(str(order["replaced_by"]), claims.waiting.get(str(order["replaced_by"]), 0.0))
        for client_id in sorted(claims.unanswered):
            found = self._broker.by_client_id(client_id)
            for part in (found, *(found.get("legs") or [])) if found is not None else ():
                self._ours.add(str(part["id"]))
                count(part)
        self._count_closings(held, count)
        return explained

    def _looked_up(self, broker_id: str) -> Order | None:
        """An order as it is; one that has ended is asked for once."""
        return self._final.get(broker_id) or self._broker.order(broker_id)

    def _count_closings(self, held: set[str], count: Callable[[Order], None]) -> None:
        """Closing orders of kills, also of one that was cut off before it could write that they were sent."""
        intended = {str(body["symbol"]) for body in self._claims.intended.values()}
        found = []
        for symbol in sorted((held & (self._claims.symbols | self._claims.held.keys())) | intended):
            for order in self._closings_of(symbol):
                count(order)
                if client_id_of(order) in self._claims.intended:
                    found.append(told(order))
        self._take(found)

    # --- the account as it is --------------------------------------------------------------------------------------

    def picture(self) -> Picture:
        """Ask how the account is now."""
        own = self._own_held()
        for broker_id in self._closing:
            closing = self._looked_up(broker_id)
            if closing is not None:
                self._closing[broker_id] = told(closing)
        orders = self._broker.open_orders()
        ours = tuple(told(order) for order in orders if self._is_own(order))
        account = self._broker.account()
        is_open_now, next_open = self._broker.is_open()
        return Picture(
            cash=float(account["cash"]),
            equity=float(account["equity"]),
            held=own,
            open_orders=ours,
            left_alone=(
                *strange_positions(self._held, own),
                *(sentence_of(told(order)) for order in orders if not self._is_own(order)),
            ),
            covered=not self.over and all(is_covered(symbol, quantity, ours) for symbol, quantity in own.items()),
            closed_until="" if is_open_now else next_open,
        )
