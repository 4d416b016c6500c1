"""A run that is cut off anywhere and goes on: the same orders, fills and decisions as one that nobody disturbed."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.errors import NextbarError
from engine.live.desk import Receipt
from engine.live.inbox import UpdateMessage
from engine.live.journal import Entry, plain
from engine.live.rest import NoAnswer
from engine.live.retrace import Differs, Present, Retrace
from engine.live.run import LiveRun, Plan
from engine.live.sources import Arrived
from engine.trading.orders import Order
from tests.live.rig import MemoryDesk, utc

START, MINUTE = utc("2024-01-02 10:00"), 60_000_000_000
BARS = 16


class Cut(BaseException):
    """The process is no more."""


class Trades(bt.Strategy):
    """In and out by a moving average, at times with a bracket, at times by a limit; sizes depend on what it was told.

    Whatever it is told differently shows in its next order.
    """

    def __init__(self) -> None:
        self.average = bt.ind.SMA(self.data.close, period=3)
        self.told = 0
        self.waiting: list[Any] = []

    def next(self) -> None:
        for order in self.waiting:
            if order.alive():
                self.cancel(order)
        self.waiting = []
        size = 10 + self.told
        above = self.data.close[0] > self.average[0]
        if self.position and not above:
            self.close()
        elif not self.position and above and len(self) % 2:
            self.buy(size=size)
        elif not self.position and above:
            close = self.data.close[0]
            entry = self.buy(size=size)
            stop = self.sell(size=size, exectype=bt.Order.Stop, price=close - 0.6, parent=entry)
            target = self.sell(size=size, exectype=bt.Order.Limit, price=close + 0.6, parent=entry)
            self.waiting = [stop, target]
        elif not self.position:
            self.waiting = [self.buy(size=size, exectype=bt.Order.Limit, price=self.data.close[0] - 0.3)]

    def notify_order(self, order: Any) -> None:
        self.told += order.status in (bt.Order.Completed, bt.Order.Canceled)


def prices() -> list[float]:
    return [float(p) for p in np.round(100.0 + np.cumsum(np.random.default_rng(5).normal(0.0, 0.5, BARS)), 2)]


@dataclasses.dataclass
class Placed:
    """An order as the broker keeps it."""

    remote: str
    side: int
    quantity: float
    type: str
    limit: float
    stop: float
    after: str = ""
    legs: list[str] = dataclasses.field(default_factory=list)

    def price(self, low: float, high: float, opening: float) -> float | None:
        """At which a bar fills it."""
        if self.type == "market":
            return opening
        if self.type == "limit":
            return self.limit if (low <= self.limit if self.side > 0 else high >= self.limit) else None
        return self.stop if (high >= self.stop if self.side > 0 else low <= self.stop) else None


class World(MemoryDesk):
    """A broker and its market in lock-step. It outlives the runs that trade there; what it has pushed does not.

    Attributes:
        shown: bars so far. posted: client ids of the orders that came in. came: these with their moments.
        compared: whether the run has compared its journal with the account; nothing may be sent before.
        quiet: of so many requests one is lost, and the answer to another one; 0: none.
    """

    def __init__(self, cut_at: int = -1, *, quiet: int = 0) -> None:
        super().__init__()
        self.cut_at = cut_at
        self.ticks = 0
        self.quiet = quiet
        self.requests = 0
        self.shown = 0
        self.held = 0.0
        self.posted: list[str] = []
        self.came: list[tuple[int, str]] = []
        self.placed: dict[str, Placed] = {}
        self.compared = True
        self.locked = False
        self.told: dict[str, float] = {}

    def tick(self) -> None:
        """A moment at which the process may end."""
        self.ticks += 1
        if self.ticks == self.cut_at:
            raise Cut

    def process_ends(self) -> None:
        self.updates.clear()
        self.compared = False

    def _fault(self) -> str:
        self.requests += 1
        if not self.quiet:
            return ""
        return {1: "lost", 2: "taken"}.get(self.requests % self.quiet, "")

    # --- as a desk

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        if self.locked:
            raise NoAnswer("the account has not been compared")
        assert self.compared, "something was sent before the account was compared with the journal"
        self.tick()
        before = len(self.sent)
        try:
            return super().send(order, legs, client_id)
        finally:
            if len(self.sent) > before:
                self.posted.append(client_id)
                self.came.append((self.ticks, client_id))
                self._place(order, legs)
            self.tick()

    def find(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt | None:
        """Asking changes nothing: also before the account was compared."""
        self.tick()
        try:
            return super().find(order, legs, client_id)
        finally:
            self.tick()

    def _place(self, order: Order, legs: Sequence[Order]) -> None:
        for own in (order, *legs):
            placed = Placed(f"r{own.id}", own.side, own.quantity, own.type, own.limit_price, own.stop_price)
            if own is not order:
                placed.after = f"r{order.id}"
                self.placed[placed.after].legs.append(placed.remote)
            self.placed[placed.remote] = placed

    def withdraw(self, remote_id: str) -> None:
        if self.locked:
            raise NoAnswer("the account has not been compared")
        assert self.compared, "something was cancelled before the account was compared with the journal"
        self.tick()
        fault = self._fault()
        if fault != "lost":
            self._cancel(remote_id)
        self.tick()
        if fault:
            raise NoAnswer("the broker says nothing")
        if not any(fields["order"]["id"] == remote_id for fields in self.updates):
            self.catch_up([remote_id])

    def _cancel(self, remote_id: str) -> None:
        placed = self.placed.pop(remote_id, None)
        if placed is not None:
            self.tell(remote_id, "canceled")
            for leg in placed.legs:
                self._cancel(leg)

    def take_updates(self) -> list[UpdateMessage]:
        return super().take_updates()

    # --- as a market

    def advance(self) -> None:
        """One bar: what it fills is pushed."""
        _, (opening, high, low, _, _) = self.bar(self.shown)
        self.shown += 1
        for placed in list(self.placed.values()):
            price = placed.price(low, high, opening)
            if placed.after or price is None or placed.remote not in self.placed:
                continue
            del self.placed[placed.remote]
            self.tell(placed.remote, "fill", placed.quantity, price)
            self.held += placed.side * placed.quantity
            for leg in placed.legs:
                if leg in self.placed:
                    self.placed[leg].after = ""
            others = [other for other in self.placed.values() if self._partners(other.remote, placed.remote)]
            for other in others:
                self._cancel(other.remote)

    def _partners(self, one: str, other: str) -> bool:
        pairs = ({leg.id for leg in legs} for _, legs, _ in self.sent if len(legs) > 1)
        return any({int(one[1:]), int(other[1:])} == pair for pair in pairs)

    def bar(self, number: int) -> tuple[int, tuple[float, ...]]:
        closes = [100.0, *prices()]
        before, close = closes[number], closes[number + 1]
        row = (before, max(before, close) + 0.1, min(before, close) - 0.1, close, 1000.0)
        return START + number * MINUTE, row


class Log:
    """A journal in memory: entries, and which of them were committed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.entries: list[Entry] = []
        self.committed = self.durable = 0

    def write(self, kind: str, /, **body: Any) -> None:
        self.world.tick()
        self.entries.append(Entry(len(self.entries) + 1, 0, kind, json.loads(json.dumps(plain(body)))))

    def commit(self, *, durable: bool = False) -> None:
        self.world.tick()
        self.committed = len(self.entries)
        self.durable = self.committed if durable else self.durable
        self.world.tick()

    def is_left(self, how: str) -> None:
        """What is found there after the cut."""
        left = {"process": self.committed, "power": self.durable, "entry": len(self.entries)}[how]
        del self.entries[left:]
        self.committed = self.durable = left


Between = Callable[[LiveRun, World, Log, int], None]


class Terms(NamedTuple):
    """What is run, and what happens between bars."""

    risk: RiskConfig = RiskConfig()
    ends_when_halted: bool = False
    between: Between = lambda run, world, log, number: None
    strategy: type[bt.Strategy] = Trades


def plan(terms: Terms) -> Plan:
    times = pd.date_range("2024-01-02 14:40", periods=9, freq="min", tz="UTC").as_unit("ns").rename("time")
    frame = pd.DataFrame(100.0, index=times, columns=["open", "high", "low", "close", "volume"])
    return Plan(
        run="run",
        venue="test",
        strategy=terms.strategy,
        arguments={},
        history=Bars(frames={"A": frame}, timeframe="1m", adjustment="none", source="test"),
        broker=BrokerConfig(cash=100_000.0),
        risk=terms.risk,
        ends_when_halted=terms.ends_when_halted,
    )


def session(world: World, log: Log, terms: Terms) -> LiveRun:
    """The run from where its journal ends to its end, or to the cut; as the paper use case puts it together."""
    world.locked = goes_on = bool(log.entries)
    world.compared = world.compared or not goes_on

    def nothing() -> Arrived:
        return Arrived(run.time, {}, False, 0)

    def seen() -> int:
        return (run.time - START) // MINUTE + 1 if run.time else 0

    def step() -> Iterator[Arrived]:
        number = seen()
        time, row = world.bar(number)
        yield Arrived(time, {"A": row}, True, 0)  # type: ignore[arg-type]

    def asked_again() -> Iterator[Arrived]:
        """Until the broker has said what it has."""
        for _ in range(20):
            if not run.venue.has_outgoing:
                return
            yield nothing()
        raise AssertionError("something waits for ever")

    def steps() -> Iterator[Arrived]:
        if goes_on:
            log.write("resumed")
            terms.between(run, world, log, seen())
            world.catch_up(run.venue.waiting)
            while seen() < world.shown:
                yield from step()
            if world.updates:
                yield nothing()
            if world.updates:  # of orders that turned out to be there
                yield nothing()
            assert run.venue.ledger.quantity("A") == world.held
            world.locked, world.compared = False, True
            if run.venue.has_outgoing:
                yield nothing()
            terms.between(run, world, log, seen())
        while world.shown < BARS:
            yield from asked_again()
            world.tick()
            world.advance()
            world.tick()
            yield from step()
            terms.between(run, world, log, seen())
        yield from asked_again()

    retrace = Retrace(list(log.entries), Present(steps=steps, desk=world, log=log))
    run = LiveRun(plan(terms), source=retrace, desk=retrace, log=retrace, past=retrace)
    retrace.follow(run)
    run.run()
    return run


class Done(NamedTuple):
    """What a run did, however it came to it."""

    intents: list[dict[str, Any]]
    fills: dict[tuple[Any, ...], float]
    decisions: dict[int, dict[str, Any]]
    ended: dict[int, tuple[Any, ...]]
    posted: list[str]
    held: float


def done(world: World, log: Log) -> Done:
    fills: dict[tuple[Any, ...], float] = defaultdict(float)
    for entry in log.entries:
        if entry.kind == "fill":
            fills[tuple(entry.body[key] for key in ("order", "side", "price", "decided", "time"))] += entry.body[
                "quantity"
            ]
    of_how = ("sent", "decide_ms", "send_ms")
    return Done(
        intents=[entry.body for entry in log.entries if entry.kind == "intent"],
        fills=dict(fills),
        decisions={
            entry.body["time"]: {key: value for key, value in entry.body.items() if key not in of_how}
            for entry in log.entries
            if entry.kind == "decision"
        },
        ended={
            entry.body["order"]: tuple(entry.body[key] for key in ("status", "reason", "filled_quantity"))
            for entry in log.entries
            if entry.kind == "ended"
        },
        posted=world.posted,
        held=world.held,
    )


def played(terms: Terms, how: str = "process", *cuts: int, quiet: int = 0) -> tuple[Done, World, Log]:
    """Run to the end, cut off at these moments, each counted from the one before."""
    world = World(quiet=quiet)
    log = Log(world)
    for cut in (*cuts, -1):
        world.ticks, world.cut_at = 0, cut
        try:
            session(world, log, terms)
            break
        except Cut:
            world.process_ends()
            log.is_left(how)
    return done(world, log), world, log


def is_retraced(log: Log, terms: Terms) -> None:
    """What a twin finds."""
    retrace = Retrace(log.entries)
    retrace.run(plan(terms))
    assert retrace.difference is None, retrace.difference.sentence()
    for kind in ("intent", "fill", "decision", "ended", "ack"):
        assert retrace.compared.get(kind, 0) == sum(entry.kind == kind for entry in log.entries)


def test_the_run_that_is_disturbed_below_does_a_bit_of_everything() -> None:
    found, world, log = played(Terms())
    kinds = {entry.kind for entry in log.entries}
    assert kinds >= {"intent", "ack", "fill", "withdrawal", "taken", "ended", "decision"}
    assert len(found.decisions) == BARS
    assert {body["type"] for body in found.intents} == {"market", "limit", "stop"}
    assert any(status == "canceled" for status, _, _ in found.ended.values())
    assert world.held == sum((1 if side == "buy" else -1) * quantity for (_, side, *_), quantity in found.fills.items())
    is_retraced(log, Terms())


def last_tick(terms: Terms, quiet: int) -> int:
    _, world, _ = played(terms, quiet=quiet)
    return world.ticks


# --- cut off once, anywhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quiet", "every"), [(0, 1), (4, 3)])
def test_a_run_that_goes_on_does_what_an_undisturbed_one_does(quiet: int, every: int) -> None:
    wanted, _, _ = played(Terms())
    for cut in range(1, last_tick(Terms(), quiet) + 1, every):
        found, _, log = played(Terms(), "process", cut, quiet=quiet)
        assert found == wanted, cut
        is_retraced(log, Terms())


def test_a_broker_that_says_nothing_now_and_then_changes_nothing() -> None:
    for quiet in (4, 5, 7):  # where two of three get lost, looking and sending never both succeed
        found, _, log = played(Terms(), quiet=quiet)
        assert found == played(Terms())[0]
        assert "deferred" in {entry.kind for entry in log.entries}
        is_retraced(log, Terms())


def test_a_run_that_is_cut_off_again_and_again_does_the_same() -> None:
    wanted, _, _ = played(Terms())
    for cut in range(5, last_tick(Terms(), 0), 23):
        for again in (1, 2, 3, 4, 6, 9, 14, 22):
            found, _, log = played(Terms(), "process", cut, again, again, again)
            assert found == wanted, (cut, again)
            is_retraced(log, Terms())


def test_a_journal_that_ends_in_the_midst_of_a_transaction_still_gives_each_order_once() -> None:
    """As where a person interrupts a step. What was not booked then is booked later, and may change decisions."""
    for cut in range(1, last_tick(Terms(), 0) + 1):
        found, world, _ = played(Terms(), "entry", cut)
        assert len(set(found.posted)) == len(found.posted)
        decided = {body["client_id"] for body in found.intents if body["parent"] is None}
        assert set(found.posted) <= decided
        assert len(found.decisions) == BARS
        booked = sum((1 if side == "buy" else -1) * quantity for (_, side, *_), quantity in found.fills.items())
        assert booked == world.held, cut


class Several(bt.Strategy):
    """Gives several orders at once, of all kinds, and takes back those that were not filled."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.told = 0

    def next(self) -> None:
        close, size = self.data.close[0], 10 + self.told
        for order in self.waiting:
            if order.alive():
                self.cancel(order)
        if self.position:
            self.close()
        self.waiting = [self.buy(size=size, exectype=bt.Order.Limit, price=close - 0.2)]
        entry = self.buy(size=size)
        self.sell(size=size, exectype=bt.Order.Stop, price=close - 0.6, parent=entry)
        self.waiting.append(self.buy(size=1, exectype=bt.Order.Limit, price=close - 5.0))

    def notify_order(self, order: Any) -> None:
        self.told += order.status in (bt.Order.Completed, bt.Order.Canceled)


SEVERAL = Terms(strategy=Several)


@pytest.mark.parametrize("how", ["process", "power", "entry"])
def test_orders_that_may_be_there_are_there_once_however_often_it_ends_while_they_are_looked_for(how: str) -> None:
    """The first end leaves several doubtful orders; the second one comes at each moment of looking for and sending."""
    wanted, undisturbed, _ = played(SEVERAL)
    bar = f"{pd.Timestamp(START + 5 * MINUTE, tz='UTC'):%Y%m%dT%H%M}"
    moments = [tick for tick, client_id in undisturbed.came if bar in client_id]
    assert len(moments) >= 3
    looked = False
    for cut in range(moments[0] - 1, moments[-1] + 3, 1 if how == "process" else 2):
        # Each first end meets every third of the second ones, and its neighbours the others.
        for again in range(1 + cut % 3, 40, 3):
            found, world, log = played(SEVERAL, how, cut, again)
            looked = looked or sum(what == "find" for what, _ in world.asked) > len(moments)
            assert sorted(found.posted) == sorted(set(found.posted)), (cut, again)
            booked = sum((1 if side == "buy" else -1) * quantity for (_, side, *_), quantity in found.fills.items())
            assert booked == world.held, (cut, again)
            assert len(found.decisions) == BARS
            if how == "process":
                assert found == wanted, (cut, again)
                is_retraced(log, SEVERAL)
    assert looked


@pytest.mark.parametrize("quiet", [7, 9])
def test_several_orders_of_which_nobody_says_a_word_are_there_once(quiet: int) -> None:
    found, world, log = played(SEVERAL, quiet=quiet)
    assert len(set(found.posted)) == len(found.posted)
    assert any(entry.body["finding"] for entry in log.entries if entry.kind == "deferred")
    assert world.held == sum((1 if side == "buy" else -1) * quantity for (_, side, *_), quantity in found.fills.items())
    is_retraced(log, SEVERAL)


class Farewell(Trades):
    """Sells at its stop what it holds."""

    def stop(self) -> None:
        if self.position:
            self.close()


class TakesBack(Trades):
    """Cancels at its stop what waits."""

    def next(self) -> None:
        super().next()
        if self.data.close[0] == prices()[-1]:
            self.waiting.append(self.buy(size=3, exectype=bt.Order.Limit, price=1.0))

    def stop(self) -> None:
        for order in self.waiting:
            if order.alive():
                self.cancel(order)


@pytest.mark.parametrize(("strategy", "kind"), [(Farewell, "intent"), (TakesBack, "withdrawal")])
def test_a_run_whose_strategy_gave_orders_at_its_stop_cannot_go_on(strategy: type[bt.Strategy], kind: str) -> None:
    terms = Terms(strategy=strategy)
    _, world, log = played(terms)
    stopping = next(entry.number for entry in log.entries if entry.kind == "stopping")
    farewell = next(entry.number for entry in log.entries if entry.number > stopping and entry.kind == kind)
    is_retraced(log, terms)  # a twin goes through it
    asked, entries = len(world.asked), len(log.entries)
    for left in range(farewell, entries + 1):
        kept = Log(world)
        kept.entries = log.entries[:left]
        with pytest.raises(NextbarError, match=rf"in its stop\(\), .*\(entry {farewell}\).*nextbar kill"):
            session(world, kept, terms)
        assert (len(world.asked), len(kept.entries)) == (asked, left)


def test_a_run_that_was_stopped_without_a_word_goes_on_and_its_next_stop_counts() -> None:
    """What follows ``resumed`` was not given in a stop()."""
    _, world, log = played(Terms())
    assert [entry.kind for entry in log.entries].count("stopping") == 1
    session(world, log, Terms())
    assert [entry.kind for entry in log.entries].count("stopping") == 2
    last = log.entries[-1]
    intent = next(entry for entry in log.entries if entry.kind == "intent")
    after = [*log.entries, Entry(last.number + 1, 0, "resumed", {}), intent._replace(number=last.number + 2)]
    present = Present(steps=lambda: iter(()), desk=world, log=log)
    Retrace(after, present)
    with pytest.raises(NextbarError, match=f"entry {last.number + 1}"):
        Retrace([*log.entries, intent._replace(number=last.number + 1)], present)


# --- halts, kills, and what others do ------------------------------------------------------------------------------

DRAWDOWN = Terms(risk=RiskConfig(max_drawdown_halt=0.00005), ends_when_halted=True)


def pauses(run: LiveRun, world: World, log: Log, number: int) -> None:
    """A person pauses the run, and lifts the pause."""
    run.pause("person", "lunch" if 3 <= number < 9 else "")


def halts(run: LiveRun, world: World, log: Log, number: int) -> None:
    """A halt from outside, while something is held."""
    if number >= 5 and not run.halted and run.venue.ledger.quantity("A"):
        run.halt("risk.stale_seconds: no bar for 90 seconds, the limit is 60", ends=True)


def kills(run: LiveRun, world: World, log: Log, number: int) -> None:
    """`nextbar kill` closes the position in the run's name, and says so in its journal."""
    killed = any(entry.kind == "killed" for entry in log.entries)
    if number < 5 or not (run.venue.ledger.quantity("A") or killed):
        return
    if not killed:
        if "k1" not in world.placed and ("k1" not in world.told):
            for remote in list(world.placed):
                world._cancel(remote)
            world.placed["k1"] = Placed("k1", -1, world.held, "market", 0.0, 0.0)
            world.told["k1"] = world.held
        closing = {"broker_id": "k1", "symbol": "A", "side": "sell", "quantity": world.told["k1"], "decided": run.time}
        log.write("killed", closings=[closing])
        log.commit(durable=True)
        run.take_over([{**closing, "side": -1}])
    if not run.halted:
        run.halt("killed by a person", ends=True)


def adopts(run: LiveRun, world: World, log: Log, number: int) -> None:
    """Somebody has sold two shares by hand, and a person accepts that."""
    if number < 5 or number < world.shown or any(entry.kind == "adopted" for entry in log.entries):
        return
    if "by hand" not in world.told and world.held > 2.0:
        world.told["by hand"] = 2.0
        world.held -= 2.0
    if run.venue.ledger.quantity("A") != world.held:
        trade = {"symbol": "A", "side": "sell", "quantity": 2.0, "price": 99.0}
        log.write("adopted", trades=[trade])
        run.adopt([{**trade, "side": -1}])
        log.write("accepted", differences=[], unexplained_cash=0.0)
        log.commit(durable=True)


OUTSIDE = {"drawdown": DRAWDOWN, "pause": Terms(between=pauses), "halt": Terms(between=halts),
           "kill": Terms(between=kills), "adopt": Terms(between=adopts)}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_happens_from_outside_is_gone_through_again_where_it_happened(name: str) -> None:
    terms = OUTSIDE[name]
    found, world, log = played(terms)
    kinds = [entry.kind for entry in log.entries]
    assert {"drawdown": "halt", "pause": "pause", "halt": "halt", "kill": "killed", "adopt": "adopted"}[name] in kinds
    if name in ("drawdown", "halt", "kill"):
        assert world.held == 0.0
        assert 0 < len(found.decisions) < BARS
    if name == "pause":
        assert any(body["reason"] == "lunch" for body in found.intents)
    if name in ("kill", "adopt"):
        assert any(order < 0 for order, *_ in found.fills)
    is_retraced(log, terms)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_run_that_is_cut_off_around_it_goes_on_to_the_same_end(name: str) -> None:
    terms = OUTSIDE[name]
    wanted, undisturbed, _ = played(terms)
    for cut in range(1, undisturbed.ticks + 1, 2 if name in ("pause", "adopt") else 1):
        found, world, log = played(terms, "process", cut)
        assert found == wanted, cut
        assert world.held == undisturbed.held
        is_retraced(log, terms)


def test_a_run_that_would_do_otherwise_sends_nothing() -> None:
    world = World(cut_at=150)
    log = Log(world)
    with pytest.raises(Cut):
        session(world, log, Terms())
    log.is_left("process")
    position = next(number for number, entry in enumerate(log.entries) if entry.kind == "fill")
    log.entries[position].body["price"] += 1.0
    world.cut_at, asked, entries = -1, len(world.asked), len(log.entries)
    with pytest.raises(Differs, match="fill: price was"):
        session(world, log, Terms())
    assert (len(world.asked), len(log.entries)) == (asked, entries)
