"""Our ledger held against the broker's account: what is not explained, since when, and what a person says to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import BrokerError, NextbarError
from engine.live.rest import NoAnswer
from engine.trading.orders import QUANTITY_EPSILON, SIDE_NAMES, Order

if TYPE_CHECKING:
    from engine.live.connection import Connection
    from engine.live.journal import Journal
    from engine.live.run import LiveRun

_VERIFY_SECONDS = 60.0
_CENT = 0.01
# The broker books each execution in whole cents.
_ROUNDING = 0.005
# Quantities that sums of fractions may differ by from one look to the next.
_SAME_QUANTITY = 1e-6
# By which part average prices may differ.
_SAME_PRICE = 1e-4
# How often a broker that does not answer is asked again before a run goes on.
_ASKS, _ASK_SECONDS = 40, 0.5
# How often it is looked whether what was cancelled has ended.
_LOOKS = 6


class Holding(NamedTuple):
    """A position: signed quantity, and average entry price (account currency)."""

    quantity: float
    average_price: float


class Waiting(NamedTuple):
    """An order that is open at the broker: its symbol, and the id that its sender gave it."""

    symbol: str
    client_id: str


@dataclass(frozen=True)
class Account:
    """What the broker says: cash (account currency), positions by symbol, open orders by the broker's ids."""

    cash: float
    held: Mapping[str, Holding]
    orders: Mapping[str, Waiting]


@dataclass(frozen=True, kw_only=True)
class Books:
    """What we say.

    Attributes:
        cash: what the broker should have, account currency. costs: the part of the change in it that is commission and
            interest by our model, negative; the broker may not have charged it.
        held: positions of all symbols that are traded, also of those that are not held.
        orders: open orders by the broker's ids. ended: ids of orders that have ended by our books, and may not have at
            the broker. run: how the client order ids of this run begin. doubtful: those of orders that may be there.
    """

    cash: float
    costs: float
    held: Mapping[str, Holding]
    orders: Mapping[str, Order]
    ended: frozenset[str] = frozenset()
    run: str = ""
    doubtful: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Gap:
    """A difference between the broker's account and our books.

    Attributes:
        what: ``cash``, ``position``, ``price`` (the average), or ``order``.
        name: the position's symbol, or the order's id at the broker; empty for cash.
        sizes: the broker's figure less ours, signed; of cash twice, with our costs and without them.
        sentence: it in words.
    """

    what: str
    name: str
    sizes: tuple[float, ...]
    sentence: str

    @property
    def stops(self) -> bool:
        """Whether it stops trading: an average price alone does not, since brokers reckon it in several ways."""
        return self.what != "price"

    def is_same(self, other: Gap, tolerance: float) -> bool:
        """Whether both are one difference, seen twice; ``tolerance`` of cash, account currency."""
        within = tolerance if self.what == "cash" else _SAME_QUANTITY
        pairs = zip(self.sizes, other.sizes, strict=True)
        same = (self.what, self.name) == (other.what, other.name)
        return same and any(abs(ours - theirs) <= within for ours, theirs in pairs)


def gaps(account: Account, books: Books, *, tolerance: float) -> list[Gap]:
    """Where the broker's account differs from our books; ``tolerance`` of cash, account currency."""
    found = []
    for symbol, ours in sorted(books.held.items()):
        theirs = account.held.get(symbol, Holding(0.0, 0.0))
        more = theirs.quantity - ours.quantity
        if abs(more) > QUANTITY_EPSILON:
            said = f"{symbol}: {ours.quantity:g} by our ledger, {theirs.quantity:g} at the broker"
            found.append(Gap("position", symbol, (more,), said))
        elif ours.quantity and abs(theirs.average_price - ours.average_price) > max(
            _CENT, _SAME_PRICE * ours.average_price
        ):
            said = (
                f"{symbol}: bought at {ours.average_price:.4f} on average by our ledger, at "
                f"{theirs.average_price:.4f} at the broker"
            )
            found.append(Gap("price", symbol, (theirs.average_price - ours.average_price,), said))
    sizes = (account.cash - books.cash, account.cash - (books.cash - books.costs))
    if min(map(abs, sizes)) > tolerance:
        said = f"cash should be {books.cash:.2f} by our ledger, and is {account.cash:.2f} at the broker"
        found.append(Gap("cash", "", sizes, said))
    for broker_id, order in sorted(books.orders.items(), key=lambda item: item[1].id):
        if broker_id not in account.orders:
            said = f"order {order.id} ({_shown(order)}) is open by our books, and not at the broker"
            found.append(Gap("order", broker_id, (-1.0,), said))
    for broker_id, waiting in sorted(account.orders.items()):
        known = broker_id in books.orders or broker_id in books.ended or waiting.client_id in books.doubtful
        if not known and _is_ours(waiting, books):
            said = (
                f"{waiting.symbol}: order {waiting.client_id} of this run is open at the broker, and not in our books"
            )
            found.append(Gap("order", broker_id, (1.0,), said))
    return found


def foreign(account: Account, books: Books) -> list[str]:
    """What is on the account and none of this run's business, in sentences."""
    return [
        *(f"{symbol} is held and not traded by this run" for symbol in sorted(account.held.keys() - books.held.keys())),
        *(
            f"{waiting.symbol}: order {waiting.client_id} is open and not of this run"
            for broker_id, waiting in sorted(account.orders.items())
            if not _is_ours(waiting, books) and broker_id not in books.orders and broker_id not in books.ended
        ),
    ]


def _is_ours(waiting: Waiting, books: Books) -> bool:
    return bool(books.run) and waiting.client_id.startswith(books.run)


def _shown(order: Order) -> str:
    return f"{SIDE_NAMES[order.side]} {order.quantity:g} {order.symbol}"


class Verifier:
    """Compares now and then; no position is opened once a difference is seen twice, until books and account agree.

    A difference of one look may be a fill that is on its way.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        account_cash: float,
        ledger_cash: float,
        agreed: str = "",
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Compare an account with a ledger.

        Args:
            account_cash, ledger_cash: what the account had, and the ledger began with, when the run began.
            agreed: when they were last known to agree, in words.
        """
        self._connection = connection
        self._account_cash = account_cash
        self._ledger_cash = ledger_cash
        self._agreed = agreed
        self._monotonic = monotonic
        self._clock = clock
        self._next = monotonic() + _VERIFY_SECONDS
        self._before: Sequence[Gap] = ()
        self._wrong: set[tuple[str, str]] = set()
        self._since: dict[tuple[str, str], str] = {}
        self._reason = ""
        self._executions = 0
        self._newest: Any = None
        self._foreign: set[str] = set()

    def soon(self) -> None:
        """Compare at the next occasion: a connection was lost."""
        self._next = self._monotonic()

    def look(self, run: LiveRun, journal: Journal) -> None:
        """Compare, if it is time to."""
        if self._monotonic() < self._next or self._has_news(run):
            return
        self._next = self._monotonic() + _VERIFY_SECONDS
        tolerance = self._tolerance()
        try:
            found = self._compared(run, journal)
        except NoAnswer as error:
            run.events.append(str(error))
            return
        # What the executions in between may have been rounded by is no other difference.
        within = _CENT + self._tolerance() - tolerance
        stopping = [gap for gap in found if gap.stops]
        lasting = [gap for gap in stopping if any(gap.is_same(before, within) for before in self._before)]
        self._before = stopping
        wrong = lasting or (stopping if self._reason else [])
        names = {(gap.what, gap.name) for gap in wrong}
        if names != self._wrong:
            # Said again only where another thing is wrong: the sums in it move on with every fill.
            self._wrong = names
            said = "; ".join(self._told(gap) for gap in wrong)
            self._reason = f"the account differs from our ledger: {said}" if wrong else ""
        run.pause("account", self._reason)
        # What a person has closed by hand must not be closed again: that would open a position the other way.
        ours = run.venue.ledger.quantity
        run.hold_back({gap.name: ours(gap.name) + gap.sizes[0] for gap in wrong if gap.what == "position"})

    def _has_news(self, run: LiveRun) -> bool:
        """Whether the broker has told of our orders what is booked with the next bar: they differ until then."""
        ours = frozenset(run.venue.waiting)
        inbox = self._connection.inbox
        return inbox.wait(lambda: inbox.find_update(lambda fields: str(fields["order"]["id"]) in ours), 0.0)

    def differences(self, run: LiveRun, journal: Journal) -> list[Gap]:
        """What of the account is not as the journal says, and stops trading; it insists on an answer.

        Raises:
            NoAnswer: the broker says nothing, for long.
        """
        return [gap for gap in self._patiently(lambda: self._compared(run, journal)) if gap.stops]

    def reconcile(self, run: LiveRun, journal: Journal, wrong: Sequence[Gap], *, accept: bool) -> None:
        """Before a run goes on: nothing is sent unless the account is what the journal says, or a person accepts it.

        Args:
            wrong: what differs.
            accept: the broker is right: what it holds is booked, what it has no more is given up, and what it has of
                this run and nobody knows of is cancelled.

        Raises:
            BrokerError: they differ; names what, with both figures. A ``NoAnswer`` where the broker says nothing.
        """
        if wrong and accept:
            self._accept(run, journal, wrong)
            for look in range(_LOOKS):
                if look:  # a cancel may take a moment
                    self._connection.inbox.wait(lambda: False, _ASK_SECONDS)
                # What is not there any more is an order of ours until its end is booked.
                wrong = [gap for gap in self.differences(run, journal) if gap.name not in run.venue.at_broker]
                if not any(gap.what == "order" for gap in wrong):
                    break
        if wrong:
            raise BrokerError(
                "nothing was sent, because the account is not what the journal says: "
                f"{'; '.join(self._told(gap) for gap in wrong)}; put it right at the broker and start again, or start "
                "again with --accept-broker, which books what the broker says"
            )
        run.pause("account", "")
        run.hold_back({})

    def _accept(self, run: LiveRun, journal: Journal, wrong: Sequence[Gap]) -> None:
        account = self._patiently(self._connection.holdings)
        trades = []
        for symbol in sorted(gap.name for gap in wrong if gap.what == "position"):
            position = run.venue.ledger.positions.get(symbol)
            ours = Holding(0.0, 0.0) if position is None else Holding(position.quantity, position.average_price)
            trades.append(_trade(symbol, ours, account.held.get(symbol, Holding(0.0, 0.0)), run.close(symbol)))
        said = [self._told(gap) for gap in wrong]
        if trades:
            journal.write("adopted", trades=[{**trade, "side": SIDE_NAMES[trade["side"]]} for trade in trades])
            run.adopt(trades)
        for gap in wrong:
            if gap.what == "order" and gap.sizes[0] < 0.0:
                order = run.venue.at_broker[gap.name]
                filled = str(order.filled_quantity)
                gone = {"id": gap.name, "symbol": order.symbol, "filled_qty": filled}
                self._connection.inbox.put_update({"event": "canceled", "order": gone})
            elif gap.what == "order":
                with suppress(BrokerError):  # it ends with another one, or does not: that is looked at afterwards
                    self._connection.asked("an order", partial(self._connection.trading.cancel_order_by_id, gap.name))
        # What the trades above do not explain was paid in or out.
        books = self._books(run)
        # An exchange on this machine charges our costs, and Alpaca's paper account none.
        unexplained = account.cash - (books.cash if self._connection.local else books.cash - books.costs)
        if abs(unexplained) <= self._tolerance():
            unexplained = 0.0
        self._account_cash += unexplained
        journal.write("accepted", differences=said, unexplained_cash=unexplained)
        journal.commit(durable=True)
        run.events.append(f"accepted as the broker has it: {'; '.join(said)}")

    def at_the_end(self, run: LiveRun, journal: Journal, *, strict: bool) -> list[str]:
        """Compare once more; the differences in words, for the run's remarks.

        Raises:
            NextbarError: ``strict``, and there is a difference: in a replay it is a defect.
            NoAnswer: ``strict``, and the broker does not answer.
        """
        try:
            looked = self._patiently(lambda: self._compared(run, journal)) if strict else self._compared(run, journal)
            found = [gap.sentence for gap in looked]
        except NoAnswer as error:
            if strict:
                raise
            found = [f"the account was not compared: {error}"]
            journal.write("account", differences=found)
        if found and strict:
            raise NextbarError(f"our ledger and the exchange differ: {'; '.join(found)}; please report")
        run.events.extend(found)
        return found

    def _compared(self, run: LiveRun, journal: Journal) -> list[Gap]:
        account = self._connection.holdings()
        books = self._books(run)
        found = gaps(account, books, tolerance=self._tolerance())
        now = f"{self._clock():%Y-%m-%d %H:%M:%S} UTC"
        seen = {(gap.what, gap.name) for gap in found}
        self._since = {key: self._since.get(key, self._agreed or now) for key in seen}
        if not found:
            self._agreed = now
        strange = [sentence for sentence in foreign(account, books) if sentence not in self._foreign]
        self._foreign.update(strange)
        run.events.extend(f"left alone: {sentence}" for sentence in strange)
        more = {"foreign": strange} if strange else {}
        journal.write("account", differences=[self._told(gap) for gap in found], **more)
        return found

    def _told(self, gap: Gap) -> str:
        since = self._since.get((gap.what, gap.name), "")
        return (
            f"{gap.sentence} (they agreed at {since})"
            if since == self._agreed and since
            else gap.sentence + (f" (since {since})" if since else "")
        )

    def _books(self, run: LiveRun) -> Books:
        venue = run.venue
        ledger = venue.ledger
        self._count(ledger.fills)
        costs = venue.commission_paid + ledger.interest_paid
        nothing = dict.fromkeys(self._connection.symbols, Holding(0.0, 0.0))
        return Books(
            cash=self._account_cash + ledger.cash - self._ledger_cash,
            costs=-costs,
            held=nothing | {s: Holding(p.quantity, p.average_price) for s, p in ledger.positions.items()},
            orders=venue.at_broker,
            ended=frozenset(venue.waiting),
            run=f"{venue.run}-",
            doubtful=venue.doubtful_ids,
        )

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        for _ in range(_ASKS):
            with suppress(NoAnswer):
                return ask()
            self._connection.inbox.wait(lambda: False, _ASK_SECONDS)
            if self._connection.inbox.stopped:
                break
        return ask()

    def _tolerance(self) -> float:
        return max(_CENT, _ROUNDING * self._executions)

    def _count(self, fills: Sequence[Any]) -> None:
        """Executions so far; the ledger lets go of old ones now and then."""
        for fill in reversed(fills):
            if fill is self._newest:
                break
            self._executions += 1
        self._newest = fills[-1] if fills else None


def _trade(symbol: str, ours: Holding, theirs: Holding, close: float) -> dict[str, Any]:
    """The trade that makes our position theirs, at the price that gives their average where it adds to the position."""
    more = theirs.quantity - ours.quantity
    price = close
    if theirs.quantity * more > 0.0:
        kept = ours.quantity if ours.quantity * theirs.quantity > 0.0 else 0.0
        added = theirs.quantity - kept
        implied = (theirs.quantity * theirs.average_price - kept * ours.average_price) / added
        price = implied if implied > 0.0 else close
    return {"symbol": symbol, "side": 1 if more > 0.0 else -1, "quantity": abs(more), "price": price}
