"""A run once more from its journal: the same to the bit, and a planted difference is named with bar and values."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.errors import DataError, StrategyError
from engine.live.journal import Entry, Journal
from engine.live.recorded import read_recorded
from engine.live.retrace import Retrace
from engine.live.run import LiveRun, Plan
from engine.live.sources import Arrived
from engine.trading.orders import OrderStatus
from tests.live.rig import MemoryDesk, utc

DAY = "2024-01-02"
BARS = 40


class Switches(bt.Strategy):
    """In and out by a moving average, and now and then a limit that is cancelled again."""

    params = (("odd", None),)

    def __init__(self) -> None:
        self.average = bt.ind.SMA(self.data.close, period=3)
        self.waiting: Any = None

    def next(self) -> None:
        if self.waiting is not None and self.waiting.alive():
            self.cancel(self.waiting)
        if self.data.close[0] > self.average[0] and not self.position:
            self.buy(size=10 if len(self) != self.p.odd else 11)
        elif self.data.close[0] < self.average[0] and self.position:
            self.close()
        elif len(self) % 5 == 0 and not self.position:
            self.waiting = self.buy(size=1, exectype=bt.Order.Limit, price=1.0)


def prices() -> list[float]:
    return [float(p) for p in np.round(100.0 + np.cumsum(np.random.default_rng(3).normal(0.0, 0.5, BARS)), 2)]


class Market:
    """A source and a desk that fills at each bar's open.

    ``between`` is called with a bar's number after it, and may give a step without bars.
    """

    def __init__(self, desk: MemoryDesk, between: Callable[[int], Iterator[Arrived]] = lambda number: iter(())) -> None:
        self.desk = desk
        self.between = between

    def __iter__(self) -> Iterator[Arrived]:
        before = 100.0
        for number, close in enumerate(prices()):
            for order, _, _ in self.desk.sent:
                if order.alive and order.type == "market":
                    self.desk.tell(f"r{order.id}", "new")
                    self.desk.tell(f"r{order.id}", "partial_fill", 4.0, before)
                    self.desk.tell(f"r{order.id}", "fill", order.quantity - 4.0, before)
            self.desk.sent = [sent for sent in self.desk.sent if sent[0].type != "market"]
            row = (before, max(before, close), min(before, close), close, 1000.0)
            time = utc(f"{DAY} 10:00") + number * 60_000_000_000
            yield Arrived(time, {"A": row}, number != 20, 0)
            yield from self.between(number)
            before = close


def plan(**arguments: Any) -> Plan:
    times = pd.date_range(f"{DAY} 09:50", periods=9, freq="1min", tz="America/New_York").tz_convert("UTC").as_unit("ns")
    frame = pd.DataFrame(100.0, index=times.rename("time"), columns=["open", "high", "low", "close", "volume"])
    return Plan(
        run="20240102T000000Z-retrace",
        venue="test",
        strategy=Switches,
        arguments=arguments,
        history=Bars(frames={"A": frame}, timeframe="1m", adjustment="none", source="test"),
        broker=BrokerConfig(cash=100_000.0),
        risk=RiskConfig(),
    )


def run_into(path: Path) -> LiveRun:
    journal = Journal.open(path, {"id": "x", "run": "20240102T000000Z-retrace"})
    desk = MemoryDesk()
    run = LiveRun(plan(), source=Market(desk), desk=desk, log=journal)
    run.run()
    journal.write("end", how="completed", why="")
    journal.close()
    return run


Between = Callable[[LiveRun, MemoryDesk, int], Iterator[Arrived]]


def record(path: Path, planned: Plan, between: Between = lambda run, desk, number: iter(())) -> list[Entry]:
    """The journal of a run."""
    journal = Journal.open(path, {"id": "x"})
    desk = MemoryDesk()
    market = Market(desk, lambda number: between(run, desk, number))
    run = LiveRun(planned, source=market, desk=desk, log=journal)
    how = "completed"
    try:
        run.run()
    except StrategyError:
        how = "failed"
    journal.write("end", how=how, why="")
    journal.commit()
    entries = list(journal.entries())
    journal.close()
    return entries


@cache
def _recorded(folder: Path) -> tuple[Entry, ...]:
    run_into(folder / "journal.sqlite")
    journal = Journal.read_only(folder / "journal.sqlite")
    try:
        return tuple(journal.entries())
    finally:
        journal.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("retrace")


@pytest.fixture
def entries(folder: Path) -> list[Entry]:
    return [copy.deepcopy(entry) for entry in _recorded(folder)]


def retraced(entries: list[Entry], **arguments: Any) -> Retrace:
    retrace = Retrace(entries)
    retrace.run(plan(**arguments))
    return retrace


def find(entries: list[Entry], kind: str, number: int = 1) -> int:
    """Position of an entry of a kind."""
    return [position for position, entry in enumerate(entries) if entry.kind == kind][number]


def test_an_untouched_journal_is_the_same_to_the_bit(entries: list[Entry]) -> None:
    retrace = retraced(entries)
    assert retrace.difference is None
    assert retrace.steps == BARS
    assert retrace.compared["decision"] == BARS - 1  # one was only seen
    assert min(retrace.compared[kind] for kind in ("intent", "ack", "fill", "ended", "withdrawal")) > 0
    assert retrace.compared == {kind: sum(entry.kind == kind for entry in entries) for kind in retrace.compared}


def test_two_goes_give_the_same(entries: list[Entry]) -> None:
    assert retraced(entries).compared == retraced(entries).compared


Plant = Callable[[list[Entry]], None]


def _bar(entries: list[Entry]) -> None:
    entries[find(entries, "bars", 5)].body["bars"]["A"][3] += 5.0


def _order(entries: list[Entry]) -> None:
    entries[find(entries, "intent")].body["quantity"] = 9.0


def _fill_price(entries: list[Entry]) -> None:
    entries[find(entries, "fill")].body["price"] += 0.01


def _told_price(entries: list[Entry]) -> None:
    position = next(p for p, entry in enumerate(entries) if entry.kind == "update" and entry.body["event"] == "fill")
    entries[position].body["price"] += 0.01


def _equity(entries: list[Entry]) -> None:
    entries[find(entries, "decision", 7)].body["equity"] += 0.01


def _missing(entries: list[Entry]) -> None:
    del entries[find(entries, "fill")]


def _extra(entries: list[Entry]) -> None:
    position = find(entries, "fill")
    entries.insert(position, entries[position])


def _last_missing(entries: list[Entry]) -> None:
    del entries[find(entries, "decision", -1)]


def _after_the_end(entries: list[Entry]) -> None:
    entries.append(Entry(len(entries) + 1, 0, "fill", dict(entries[find(entries, "fill")].body)))


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (_bar, "what was done was 'withdrawal"),
        (_order, "intent: quantity was 9.0, and is 10.0 now"),
        (_fill_price, "fill: price"),
        (_told_price, "fill: price"),
        (_equity, "decision: equity"),
        (_missing, "what was done"),
        (_extra, "what was done was 'fill"),
        (_last_missing, "a decision was 'nothing'"),
        (_after_the_end, "the fill was"),
    ],
)
def test_a_planted_difference_is_named_with_its_bar_its_kind_and_both_values(
    entries: list[Entry], plant: Plant, what: str
) -> None:
    plant(entries)
    difference = retraced(entries).difference
    assert difference is not None
    sentence = difference.sentence()
    assert sentence.startswith("at the bar that ends 2024-01-02 15:")
    assert what in sentence.replace("and is nothing", "and is 'nothing'")
    assert difference.recorded != difference.found
    assert "\n" not in sentence


def test_the_first_of_several_differences_is_named(entries: list[Entry]) -> None:
    positions = [find(entries, "decision", number) for number in (3, 9, 20)]
    for position in positions:
        entries[position].body["cash"] += 1.0
    difference = retraced(entries).difference
    assert difference is not None
    assert difference.entry == entries[positions[0]].number
    assert difference.time == entries[positions[0]].body["time"]


def test_a_strategy_that_decides_otherwise_is_found_at_its_first_other_order(entries: list[Entry]) -> None:
    first = next(entry for entry in entries if entry.kind == "intent" and entry.body["quantity"] == 10.0)
    odd = sum(entry.kind == "decision" and entry.number < first.number for entry in entries) + 1
    difference = retraced(entries, odd=odd + 9).difference  # the history counts
    assert difference is not None
    assert (difference.what, difference.recorded, difference.found) == ("intent: quantity", 10.0, 11.0)


def test_features_and_forecasts_are_named_by_symbol_and_place() -> None:
    from engine.live.retrace import _first

    recorded = {"A": [1.0, 2.0, 3.0], "B": [1.0]}
    assert _first(recorded, {"A": [1.0, 2.0, 4.0], "B": [2.0]}) == (" of A [2]", 3.0, 4.0)
    assert _first(recorded, {"A": [1.0, 2.0, 3.0]}) == (" of B", [1.0], None)


@pytest.mark.parametrize("kind", ["bars", "intent", "ack", "fill", "decision", "update", "withdrawal"])
def test_a_journal_that_was_cut_off_is_compared_as_far_as_it_goes(entries: list[Entry], kind: str) -> None:
    cut = entries[: find(entries, kind, -1) + 1]
    retrace = retraced(cut)
    assert retrace.difference is None
    assert retrace.compared["decision"] > BARS // 4
    assert sum(retrace.compared.values()) >= sum(entry.kind in retrace.compared for entry in cut) - 1


def test_a_difference_before_the_cut_is_still_found(entries: list[Entry]) -> None:
    cut = entries[: find(entries, "decision", -3)]
    cut[find(cut, "fill", -1)].body["price"] += 1.0
    assert retraced(cut).difference is not None


def test_a_damaged_entry_is_one_sentence(entries: list[Entry]) -> None:
    del entries[find(entries, "update")].body["broker_id"]
    with pytest.raises(DataError, match=r"entry \d+ \(update\) is damaged"):
        Retrace(entries)


def test_a_run_that_failed_is_cut_off_where_it_failed(entries: list[Entry]) -> None:
    cut = entries[: find(entries, "intent", -1) + 1]
    for how, same in (("failed", True), ("completed", False)):
        ended = [*cut, Entry(cut[-1].number + 1, 0, "end", {"how": how, "why": ""})]
        assert (retraced(ended).difference is None) is same


class Raises(Switches):
    def next(self) -> None:
        super().next()
        if len(self) == 25:
            raise ValueError("no more")


def test_a_strategy_that_raised_raises_again_where_its_journal_ends(tmp_path: Path, entries: list[Entry]) -> None:
    planned = dataclasses.replace(plan(), strategy=Raises)
    failed = record(tmp_path / "journal.sqlite", planned)
    retrace = Retrace(failed)
    retrace.run(planned)
    assert retrace.difference is None
    assert BARS > retrace.compared["decision"] == sum(entry.kind == "decision" for entry in failed) > 10
    with pytest.raises(StrategyError):  # it did not the first time
        Retrace(entries).run(planned)


def test_other_bundles_are_named_before_the_first_bar(entries: list[Entry]) -> None:
    entries[find(entries, "bundles", 0)].body["names"] = ["yesterdays"]
    difference = retraced(entries).difference
    assert difference is not None
    assert difference.sentence().startswith("before the first bar (entry 2): bundles: names was ['yesterdays']")


# --- halts, pauses and news between bars ---------------------------------------------------------------------------

DRAWDOWN = RiskConfig(max_drawdown_halt=0.00005)


def _rewritten(entries: list[Entry], at: int) -> None:
    entries[at].body["reason"] = "risk.max_drawdown_halt: another"


def _on_the_wall_clock(entries: list[Entry], at: int) -> None:
    entries[at].body["reason"] = STALE


def _deleted(entries: list[Entry], at: int) -> None:
    del entries[at]


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (_rewritten, "halt: reason was 'risk.max_drawdown_halt: another'"),
        (_on_the_wall_clock, "halt: reason was 'risk.stale_seconds"),
        (_deleted, "and is 'halt {"),
    ],
)
def test_a_halt_by_the_bars_is_compared(tmp_path: Path, plant: Callable[[list[Entry], int], None], what: str) -> None:
    planned = dataclasses.replace(plan(), risk=DRAWDOWN)
    entries = record(tmp_path / "journal.sqlite", planned)
    retrace = Retrace(entries)
    retrace.run(planned)
    assert (retrace.difference, retrace.compared["halt"]) == (None, 1)
    plant(entries, find(entries, "halt", 0))
    retrace = Retrace(entries)
    retrace.run(planned)
    assert retrace.difference is not None
    assert what in retrace.difference.sentence()


STALE = "risk.stale_seconds: no bar for 90 seconds, the limit is 60"
PAUSE = "the account differs from our ledger: 3 A"


def _outside(run: LiveRun, desk: MemoryDesk, number: int) -> Iterator[Arrived]:
    """What a clock on the wall and a look at the account do between two bars."""
    if number == 12:
        run.pause("account", PAUSE)
    elif number == 18:
        run.pause("account", "")
    elif number > 24 and run.venue.ledger.quantity("A") and not run.halted:
        run.halt(STALE)
    yield from ()


def test_pauses_and_halts_on_the_wall_clock_happen_again_when_they_happened(tmp_path: Path) -> None:
    entries = record(tmp_path / "journal.sqlite", plan(), _outside)
    assert any(entry.kind == "intent" and entry.body["reason"] == PAUSE for entry in entries)
    halt = find(entries, "halt", 0)
    assert [entries[halt - 1].kind, entries[halt + 1].kind] == ["intent", "ack"]  # the position was closed
    retrace = retraced(entries)
    assert (retrace.difference, retrace.compared["halt"]) == (None, 1)
    _deleted(entries, halt)
    assert retraced(entries).difference is not None


def _news(run: LiveRun, desk: MemoryDesk, number: int) -> Iterator[Arrived]:
    """Between two bars the market orders are filled."""
    if number % 3 == 0:
        for order, _, _ in desk.sent:
            if order.alive and order.type == "market":
                desk.tell(f"r{order.id}", "fill", order.quantity, 100.0)
        desk.sent = []
        yield Arrived(utc(f"{DAY} 10:00") + number * 60_000_000_000 + 1_000_000, {}, False, 0)


@pytest.mark.parametrize("kind", ["settled", "bars"])
def test_news_between_bars_are_a_step_without_bars(tmp_path: Path, kind: str) -> None:
    entries = record(tmp_path / "journal.sqlite", plan(), _news)
    steps = {"settled": {}, "bars": {"bars": {}, "decide": False}}
    between = [p for p, e in enumerate(entries) if e.kind == "settled" or (e.kind == "bars" and not e.body["bars"])]
    assert len(between) >= BARS // 3
    for position in between:
        time = entries[position].body["time"]
        entries[position] = entries[position]._replace(kind=kind, body={"time": time, **steps[kind]})
    retrace = retraced(entries)
    assert (retrace.difference, retrace.steps) == (None, BARS)
    assert retrace.compared["fill"] == sum(entry.kind == "fill" for entry in entries) > 5
    entries[find(entries, "fill", 3)].body["price"] += 1.0
    assert retraced(entries).difference is not None


class Leaves(bt.Strategy):
    """Asks for something more when everything is over."""

    def next(self) -> None:
        self.buy(size=2)

    def stop(self) -> None:
        self.sell(size=1)


def test_the_last_news_come_after_what_the_strategy_asked_for_at_its_stop(tmp_path: Path) -> None:
    def news(run: LiveRun, desk: MemoryDesk, number: int) -> Iterator[Arrived]:
        if number == BARS - 1:
            for order, _, _ in desk.sent:
                if order.alive:
                    desk.tell(f"r{order.id}", "fill", order.quantity, 100.0)
        yield from ()

    planned = dataclasses.replace(plan(), strategy=Leaves)
    entries = record(tmp_path / "journal.sqlite", planned, news)
    retrace = Retrace(entries)
    retrace.run(planned)
    assert retrace.difference is None
    assert retrace.compared["fill"] == sum(entry.kind == "fill" for entry in entries)
    assert find(entries, "fill", -1) > find(entries, "intent", -1)  # the stop's order was asked for before


# --- what others do, and a broker that says nothing ----------------------------------------------------------------


def before_the_first_bar(path: Path, what: Callable[[LiveRun, Journal], None]) -> tuple[list[Entry], LiveRun]:
    """The journal of a run to which something happens before its first bar."""
    journal = Journal.open(path, {"id": "x"})
    desk = MemoryDesk()

    class Source:
        def __iter__(self) -> Iterator[Arrived]:
            what(run, journal)
            yield from Market(desk)

    run = LiveRun(plan(), source=Source(), desk=desk, log=journal)
    run.run()
    journal.write("end", how="completed", why="")
    journal.commit()
    entries = list(journal.entries())
    journal.close()
    return entries, run


def test_a_run_that_is_killed_before_its_first_bar_is_gone_through_again(tmp_path: Path) -> None:
    entries, run = before_the_first_bar(
        tmp_path / "journal.sqlite", lambda run, journal: run.halt("a person killed it", ends=True)
    )
    assert run.steps == 1
    assert find(entries, "halt", 0) < find(entries, "bars", 0)
    assert retraced(entries).difference is None


def test_trades_that_are_adopted_before_the_first_bar_are_gone_through_again(tmp_path: Path) -> None:
    trade = {"symbol": "A", "quantity": 5.0, "price": 99.0}

    def adopts(run: LiveRun, journal: Journal) -> None:
        journal.write("adopted", trades=[{**trade, "side": "buy"}])
        run.adopt([{**trade, "side": 1}])
        journal.commit()

    entries, run = before_the_first_bar(tmp_path / "journal.sqlite", adopts)
    assert any(entry.kind == "intent" and entry.body["side"] == "sell" for entry in entries)  # the five are seen
    assert retraced(entries).difference is None
    journal = Journal.read_only(tmp_path / "journal.sqlite")
    recorded = read_recorded(journal, cash=100_000.0)
    journal.close()
    assert recorded.ledger.cash == run.venue.ledger.cash
    assert [order.id for order in recorded.orders[:2]] == [-1, 1]


def test_pauses_before_the_first_bar_are_in_force_where_a_run_goes_on(tmp_path: Path) -> None:
    entries, _ = before_the_first_bar(tmp_path / "journal.sqlite", lambda run, journal: run.pause("person", "lunch"))
    retrace = Retrace(entries)
    live = LiveRun(plan(), source=retrace, desk=retrace, log=retrace, past=retrace)
    retrace.follow(live)
    live.run()
    assert (retrace.difference, live.paused) == (None, "lunch")


def _silent(run: LiveRun, desk: MemoryDesk, number: int) -> Iterator[Arrived]:
    """After some bars the broker says nothing to what is sent next; between two bars it is asked again."""
    if number % 4 == 1:
        desk.faults.extend(["taken" if number % 8 == 1 else "lost", *["lost"] * 6])
    if number % 3 == 0:
        yield Arrived(utc(f"{DAY} 10:00") + number * 60_000_000_000, {}, False, 0)


def test_what_was_deferred_is_deferred_again_where_it_was(tmp_path: Path) -> None:
    entries = record(tmp_path / "journal.sqlite", plan(), _silent)
    deferred = [entry.body for entry in entries if entry.kind == "deferred"]
    assert len(deferred) > 1
    assert any(entry.body["reason"] == "the broker says nothing" for entry in entries if entry.kind == "intent")
    retrace = retraced(entries)
    assert retrace.difference is None
    assert retrace.compared["ack"] == sum(entry.kind == "ack" for entry in entries)


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_a_cancel_that_was_deferred_is_deferred_again(tmp_path: Path, fault: str) -> None:
    class Cancels(bt.Strategy):
        def next(self) -> None:
            if len(self) % 2:
                self.waiting = self.buy(size=len(self), exectype=bt.Order.Limit, price=1.0)
            elif len(self) > 1:
                self.cancel(self.waiting)
                self.buy(size=1000 + len(self), exectype=bt.Order.Limit, price=1.0)

    def between(run: LiveRun, desk: MemoryDesk, number: int) -> Iterator[Arrived]:
        waiting = [order for order in run.venue.open_orders.values() if order.quantity < 1000]
        if number > 5 and waiting and not desk.faults:
            desk.faults.extend([fault, "lost"])
        if number % 5 == 0:
            yield Arrived(utc(f"{DAY} 10:00") + number * 60_000_000_000, {}, False, 0)

    planned = dataclasses.replace(plan(), strategy=Cancels)
    entries = record(tmp_path / "journal.sqlite", planned, between)
    assert sum(bool(entry.body["withdrawal"]) for entry in entries if entry.kind == "deferred") >= 1
    retrace = Retrace(entries)
    retrace.run(planned)
    assert retrace.difference is None
    assert retrace.compared["withdrawal"] == sum(entry.kind == "withdrawal" for entry in entries)


def test_a_deferred_entry_that_is_missing_makes_a_difference(tmp_path: Path) -> None:
    entries = record(tmp_path / "journal.sqlite", plan(), _silent)
    position = next(number for number, entry in enumerate(entries)
                    if entry.kind == "deferred" and entry.body["withdrawal"] is None)  # fmt: skip
    del entries[position]
    assert retraced(entries).difference is not None


def test_a_cancel_that_failed_in_a_halt_fails_again_and_is_tried_again(tmp_path: Path) -> None:
    class Limits(bt.Strategy):
        def next(self) -> None:
            self.buy(size=1, exectype=bt.Order.Limit, price=1.0)

    def between(run: LiveRun, desk: MemoryDesk, number: int) -> Iterator[Arrived]:
        if number == 3:
            desk.faults.extend(["lost", "", "lost"])
            run.halt("enough")
        yield from ()

    planned = dataclasses.replace(plan(), strategy=Limits)
    entries = record(tmp_path / "journal.sqlite", planned, between)
    assert [entry.body["withdrawal"] for entry in entries if entry.kind == "withdrawal_failed"] == ["r1", "r3"]
    cancelled = [entry.body["broker_id"] for entry in entries if entry.kind == "withdrawal"]
    assert cancelled == ["r1", "r2", "r3", "r4", "r1", "r3"]
    retrace = Retrace(entries)
    retrace.run(planned)
    assert (retrace.difference, retrace.compared["withdrawal"]) == (None, 6)


# --- the records ---------------------------------------------------------------------------------------------------


def test_the_records_are_the_runs_own(tmp_path: Path) -> None:
    run = run_into(tmp_path / "journal.sqlite")
    journal = Journal.read_only(tmp_path / "journal.sqlite")
    recorded = read_recorded(journal, cash=100_000.0)
    journal.close()
    ledger = run.venue.ledger
    assert recorded.ledger.cash == ledger.cash
    assert recorded.ledger.fills == ledger.fills
    assert recorded.ledger.cash_history == ledger.cash_history
    assert recorded.decided
    assert recorded.first_decision == utc(f"{DAY} 10:00")
    assert (recorded.symbols, recorded.ended, recorded.halted) == (("A",), "completed", "")
    assert len(recorded.frames()["A"]) == 9 + BARS
    statuses = {order.status for order in recorded.orders}
    assert statuses == {OrderStatus.FILLED, OrderStatus.CANCELED}
    assert len(recorded.orders) == run.sent
    assert recorded.counts["bars"] == BARS


def test_a_journal_without_a_decision_says_so(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.sqlite", {"id": "x"})
    journal.write("history", symbol="A", bars=[])
    journal.commit()
    recorded = read_recorded(journal, cash=1.0)
    assert not recorded.decided
    assert recorded.symbols == ("A",)
    with pytest.raises(DataError, match="no bar has been decided on yet"):
        _ = recorded.first_decision
    journal.close()


SPOILT = [
    ("fill", {"order": 99}),
    ("intent", {"order": 1}),
    ("ended", {"order": 1, "status": "filled"}),
    ("bars", {}),
    ("decision", {}),
    ("intent", {"order": 1, "symbol": "A", "side": "hold"}),
    ("interest", {"cash": 1.0}),
]


@pytest.mark.parametrize(("kind", "body"), SPOILT, ids=lambda value: json.dumps(value))
def test_a_record_that_cannot_be_is_one_sentence_that_names_the_entry(tmp_path: Path, kind: str, body: Any) -> None:
    journal = Journal.open(tmp_path / "journal.sqlite", {"id": "x"})
    journal.write("history", symbol="A", bars=[])
    journal.write(kind, **body)
    journal.commit()
    with pytest.raises(DataError, match=rf"entry 2 \({kind}\) is damaged"):
        read_recorded(journal, cash=1.0)
    journal.close()
