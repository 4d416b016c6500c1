"""Watchdogs by the clock on the wall: a mute feed halts and ends the run, a mute broker is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import backtrader as bt
import pandas as pd
import pytest

from engine.config import BrokerConfig, RiskConfig
from engine.credentials import Credentials
from engine.data.bars import Bars
from engine.data.timeframes import bar_starts, next_bar_end
from engine.errors import BrokerError
from engine.exchange.server import AccountSpec, ExchangeServer
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.desk import AlpacaDesk, TurnedDown
from engine.live.minutes import StreamedMinutes
from engine.live.rest import NoAnswer
from engine.live.run import LiveRun, Plan
from engine.live.sources import Arrived
from engine.live.wall_clock import MarketClock, SessionHours, Watch, wall_clock_source
from tests.live.rig import KEY, SECRET, Clock, ClockedInbox, FakeBroker, MemoryDesk, bar, config, row, utc
from tests.live.test_venue import MemoryLog

DAY = "2024-01-02"
SECOND = 1_000_000_000


class Asked:
    """Stands for a run: what it was told, and what was asked of its desk."""

    def __init__(self) -> None:
        self.halted = ""
        self.time = 0
        self.silent: list[float] = []
        self.open: list[bool] = []
        self.venue: Any = self
        self.desk: Any = self
        self.waiting = ["r1"]
        self.caught_up: list[list[str]] = []
        self.has_outgoing = self.is_left_open = False

    def check_feed(self, *, silent_seconds: float, is_open: bool) -> None:
        self.silent.append(silent_seconds)
        self.open.append(is_open)

    def catch_up(self, remote_ids: list[str]) -> None:
        self.caught_up.append(remote_ids)


class Scene:
    """A watch under a clock."""

    def __init__(self, now: str, speed: float = 1.0, *, stale_seconds: float | None = None) -> None:
        self.clock = Clock(utc(now))
        self.broker_says: bool | None = True
        self.asked = 0
        self.inbox = ClockedInbox(self.clock)
        self.inbox.last_bar = self.clock.monotonic
        self.run = Asked()
        self.watch = Watch(
            self.inbox,
            self.run,
            SessionHours(),
            self.clock.now,
            speed=speed,
            stale_seconds=stale_seconds,
            is_open=self.is_open,
            monotonic_ns=self.clock.monotonic_ns,
        )

    def is_open(self) -> bool:
        self.asked += 1
        if self.broker_says is None:
            raise NoAnswer("try again later")
        return self.broker_says

    def looks(self, seconds: int, overdue: float | None = None) -> None:
        for _ in range(seconds):
            self.clock.pass_by(SECOND)
            self.watch.look(overdue)


def test_silence_is_counted_from_the_last_bar() -> None:
    scene = Scene(f"{DAY} 11:00")
    scene.clock.pass_by(90 * SECOND)
    scene.watch.look()
    assert scene.run.silent == [90.0]


def test_the_night_is_no_silence() -> None:
    scene = Scene("2024-01-01 20:00")
    scene.watch.look()
    scene.clock.pass_by(utc(f"{DAY} 09:30:20") - scene.clock.utc)
    scene.watch.look()
    assert scene.run.silent == [20.0]  # since the opening


@pytest.mark.parametrize(
    "moment", ["2024-01-01 12:00", "2024-01-06 12:00", f"{DAY} 09:29:00", f"{DAY} 16:00", "2024-07-03 13:00"]
)
def test_nobody_expects_bars_of_a_closed_market(moment: str) -> None:
    scene = Scene(moment)
    scene.clock.pass_by(SECOND)
    scene.watch.look()
    assert scene.run.silent == []


def test_of_fetched_bars_only_one_that_is_due_is_missed() -> None:
    scene = Scene(f"{DAY} 11:00")
    scene.clock.pass_by(900 * SECOND)
    scene.watch.look(-100.0)
    scene.watch.look(40.0)
    assert scene.run.silent == [-100.0, 40.0]


def test_orders_of_which_nothing_was_heard_are_asked_for_now_and_then() -> None:
    scene = Scene(f"{DAY} 20:00")
    for _ in range(240):
        scene.clock.pass_by(SECOND // 2)
        scene.watch.look()
    assert scene.run.caught_up == [["r1"], ["r1"]]


def test_before_a_halt_the_brokers_clock_is_asked_and_not_earlier() -> None:
    scene = Scene(f"{DAY} 11:00", stale_seconds=300.0)
    scene.looks(300)
    assert (scene.asked, scene.run.open) == (0, [True] * 300)
    scene.looks(10)  # a run that has had no bar yet does not halt
    assert (scene.asked, scene.run.open) == (1, [True] * 310)


@pytest.mark.parametrize("overdue", [None, 4_000.0])
def test_an_unscheduled_closure_does_not_halt_and_silence_begins_anew_after_it(overdue: float | None) -> None:
    scene = Scene(f"{DAY} 11:00", stale_seconds=300.0)
    scene.broker_says = False
    scene.clock.pass_by(300 * SECOND)
    scene.looks(3_000, overdue)
    assert not [silent for silent, open in zip(scene.run.silent, scene.run.open, strict=True) if open and silent > 300]
    assert 9 <= scene.asked <= 11
    scene.broker_says = True
    scene.looks(100, overdue)
    assert max(scene.run.silent[-100:]) <= 300.0 or scene.run.open[-1]
    scene.looks(300, overdue)
    assert scene.run.open[-1]
    assert scene.run.silent[-1] > 300.0


def test_a_clock_that_does_not_answer_keeps_no_run_from_its_halt() -> None:
    scene = Scene(f"{DAY} 11:00", stale_seconds=300.0)
    scene.broker_says = None
    scene.looks(301)
    assert scene.run.open[-1]
    assert (scene.asked, scene.run.silent[-1]) == (1, 301.0)


def test_a_halted_run_asks_no_more() -> None:
    scene = Scene(f"{DAY} 11:00", stale_seconds=300.0)
    scene.run.halted = "risk.stale_seconds"
    scene.looks(400)
    assert scene.asked == 0


def test_only_a_halted_run_books_without_a_bar_once_and_at_each_piece_of_news() -> None:
    scene = Scene(f"{DAY} 11:00")
    assert not scene.watch.settles()
    scene.run.halted = "risk.stale_seconds"
    assert [scene.watch.settles() for _ in range(3)] == [True, False, False]
    scene.inbox.put_update({})
    assert scene.watch.settles()


def test_what_the_broker_has_not_answered_to_is_tried_again_every_few_seconds() -> None:
    scene = Scene(f"{DAY} 11:00")
    scene.run.has_outgoing = True
    tried = []
    for second in range(1, 21):
        scene.clock.pass_by(SECOND)
        if scene.watch.settles():
            tried.append(second)
    assert tried == [5, 10, 15, 20]
    scene.run.has_outgoing = False
    scene.clock.pass_by(60 * SECOND)
    assert not scene.watch.settles()


def test_what_a_halted_run_holds_and_nothing_closes_is_tried_again_every_minute() -> None:
    scene = Scene(f"{DAY} 11:00")
    scene.run.halted, scene.run.is_left_open = "risk.stale_seconds", True
    assert scene.watch.settles()
    tried = []
    for second in range(1, 181):
        scene.clock.pass_by(SECOND)
        if scene.watch.settles():
            tried.append(second)
    assert tried == [60, 120, 180]


def test_a_halt_on_a_mute_feed_whose_closing_is_turned_down_closes_all_the_same() -> None:
    feed = Feed(f"{DAY} 10:05")
    turned_down: list[str] = []

    def send(order: Any, legs: Any, client_id: str) -> Any:
        if order.side < 0 and len(turned_down) < 3:
            turned_down.append(client_id)
            raise TurnedDown("potential wash trade detected")
        return feed.send(order, legs, client_id)

    feed.desk.send = send  # type: ignore[method-assign]
    feed.run.run()
    assert len(turned_down) == 3
    assert feed.run.halted.startswith("risk.stale_seconds")
    assert [(fill.side, fill.quantity) for fill in feed.run.venue.ledger.fills] == [(1, 10.0), (-1, 10.0)]


def test_a_broker_that_says_nothing_of_orders_is_asked_another_time() -> None:
    scene = Scene(f"{DAY} 20:00")

    def mute(remote_ids: list[str]) -> None:
        scene.run.caught_up.append(remote_ids)
        raise NoAnswer("try again later")

    scene.run.catch_up = mute  # type: ignore[method-assign]
    scene.looks(180)
    assert len(scene.run.caught_up) == 3


# --- whether the time of a decision is over ------------------------------------------------------------------------


class Told:
    """An exchange's own calls."""

    def __init__(self, now: str, speed: float) -> None:
        self.time, self.speed, self.done, self.silent = utc(now), speed, False, False

    def status(self, *, patient: bool = True) -> dict[str, Any]:
        if self.silent:
            raise BrokerError("it does not answer")
        return {"time": self.time, "speed": self.speed, "mode": "clock", "done": self.done}


def test_the_time_of_an_exchange_that_does_not_answer_stands_still() -> None:
    exchange = Told("2024-01-02 10:01", 1e9)
    clock = MarketClock(exchange)  # type: ignore[arg-type]
    clock.now()
    exchange.silent = True
    assert clock.now() == exchange.time


@pytest.mark.parametrize(
    ("timeframe", "decided", "now", "over"),
    [
        ("1m", "2024-01-02 10:01", "2024-01-02 10:01:59", False),
        ("1m", "2024-01-02 10:01", "2024-01-02 10:02:04", False),  # a little late is not too late
        ("1m", "2024-01-02 10:01", "2024-01-02 10:02:06", True),
        ("5m", "2024-01-02 10:05", "2024-01-02 10:09:00", False),
        ("5m", "2024-01-02 10:05", "2024-01-02 10:10:06", True),
        # The minute that follows the last of a session is the next session's first.
        ("1m", "2024-01-02 16:00", "2024-01-03 09:30:30", False),
        ("1m", "2024-01-02 16:00", "2024-01-03 09:31:06", True),
        ("1d", "2024-01-05 16:00", "2024-01-08 15:59:00", False),
        ("1d", "2024-01-05 16:00", "2024-01-08 16:00:06", True),
    ],
)
def test_the_time_of_a_decision_is_over_once_the_next_is_due(
    monkeypatch: pytest.MonkeyPatch, timeframe: str, decided: str, now: str, over: bool
) -> None:
    monkeypatch.setattr("engine.live.wall_clock.time.time_ns", lambda: utc(now))
    assert MarketClock(None).has_passed(next_bar_end(utc(decided), timeframe)) is over


def test_an_exchange_that_runs_faster_is_given_the_same_seconds_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.live.wall_clock.time.monotonic_ns", lambda: 1)
    told: Any = Told(f"{DAY} 10:02:00", 60.0)
    clock = MarketClock(told)
    told.time = utc(f"{DAY} 10:06:59")
    assert not clock.has_passed(next_bar_end(utc(f"{DAY} 10:01"), "1m"))
    told.time = utc(f"{DAY} 10:07:04")
    assert clock.has_passed(next_bar_end(utc(f"{DAY} 10:01"), "1m"))


def test_an_exchange_whose_time_goes_on_at_once_tells_its_own_time() -> None:
    told: Any = Told(f"{DAY} 10:02:00", float("inf"))
    clock = MarketClock(told)
    assert clock.now() == utc(f"{DAY} 10:02:00")
    assert not clock.has_passed(next_bar_end(utc(f"{DAY} 10:01"), "1m"))
    told.time += SECOND
    assert clock.has_passed(next_bar_end(utc(f"{DAY} 10:01"), "1m"))


# --- the whole of it -----------------------------------------------------------------------------------------------


class Holds(bt.Strategy):
    """Buys at its first bar and holds."""

    def next(self) -> None:
        if not self.position and len(self) == 1:
            self.buy(size=10)


class Feed:
    """A stream that falls silent in the session, and a broker that goes on filling."""

    def __init__(self, until: str) -> None:
        self.clock = Clock(utc(f"{DAY} 10:00"))
        self.inbox = ClockedInbox(self.clock)
        self.log = MemoryLog()
        self.desk = MemoryDesk()
        self.plain_send = self.desk.send
        self.desk.send = self.send  # type: ignore[method-assign]
        for end in pd.date_range(f"{DAY} 10:01", until, freq="1min"):
            fields = bar("A", str(end))
            self.clock.at(utc(str(end)) + SECOND, lambda fields=fields: self.inbox.put_bar(fields))
        frame = pd.DataFrame(
            columns=["open", "high", "low", "close", "volume"],
            dtype=float,
            index=pd.DatetimeIndex([], tz="UTC", name="time"),
        )
        self.run = LiveRun(
            Plan(
                run="run",
                venue="test",
                strategy=Holds,
                arguments={},
                history=Bars(frames={"A": frame}, timeframe="1m", adjustment="none", source="test"),
                broker=BrokerConfig(cash=10_000.0),
                risk=RiskConfig(stale_seconds=120.0),
                ends_when_halted=True,
            ),
            source=self,
            desk=self.desk,
            log=self.log,
        )

    def send(self, order: Any, legs: Any, client_id: str, **doubt: bool) -> Any:
        receipt = self.plain_send(order, legs, client_id, **doubt)

        def fill() -> None:
            self.desk.tell(receipt.id, "fill", order.quantity, 100.0)
            (fields,) = self.desk.updates[-1:]
            self.inbox.put_update(fields)

        self.clock.at(self.clock.utc + 2 * SECOND, fill)
        return receipt

    def __iter__(self) -> Iterator[Arrived]:
        hours = SessionHours()
        watch = Watch(self.inbox, self.run, hours, self.clock.now, monotonic_ns=self.clock.monotonic_ns)
        return iter(
            StreamedMinutes(
                self.inbox,
                symbols=["A"],
                rows=lambda start, end: {},
                last=utc(f"{DAY} 10:00"),
                now=self.clock.now,
                grace_seconds=3.0,
                in_session=hours.holds_minute,
                noted=self.log.write,
                on_idle=watch.look,
                settles=watch.settles,
                monotonic_ns=self.clock.monotonic_ns,
            )
        )


def test_a_feed_that_falls_silent_halts_the_run_closes_its_position_and_ends_it() -> None:
    feed = Feed(f"{DAY} 10:05")
    feed.run.run()
    assert feed.run.halted.startswith("risk.stale_seconds: no bar for 12")
    assert [(fill.side, fill.quantity) for fill in feed.run.venue.ledger.fills] == [(1, 10.0), (-1, 10.0)]
    assert utc(f"{DAY} 10:07:00") < feed.clock.utc < utc(f"{DAY} 10:08:00")
    assert feed.log.of("settled")
    assert feed.log.of("ended")[-1]["status"] == "filled"


@pytest.mark.parametrize(("timeframe", "grace"), [("5m", 5), ("1h", 5), ("1d", 60)])
def test_symbols_without_a_bar_are_waited_for_for_seconds_within_a_day_and_a_minute_after_it(
    timeframe: str, grace: int
) -> None:
    with FakeBroker() as fake, Connection(fake.credentials(), config(timeframe=timeframe), streamed=False) as made:
        history = of_minutes(5, 4)
        made_for = wall_clock_source(made, config(timeframe=timeframe), MarketClock(None), control=None)
        source: Any = made_for(Asked(), MemoryLog(), history, lambda: None)
        assert source._grace == grace * SECOND
        assert source._seen["A"] > source._last == source._seen["B"]


def test_at_alpaca_a_mute_stream_is_watched_and_each_symbols_last_bar_is_known() -> None:
    with FakeBroker() as fake, Connection(fake.credentials(), config(), streamed=True) as made:
        made_for = wall_clock_source(made, config(), MarketClock(None), control=None)
        source: Any = made_for(Asked(), MemoryLog(), of_minutes(1, 4), lambda: None)
        assert source._mute.renew == made.renew_bars
        assert source._known["A"] > source._released == source._known["B"]


@pytest.mark.parametrize("minutes", [1, 5])
def test_a_run_that_goes_on_does_not_go_back_for_bars_that_its_steps_have_passed_by(minutes: int) -> None:
    bars = of_minutes(minutes, 4)
    last = int(bars.frames["A"].index[-1].value)
    starts = bar_starts(pd.DatetimeIndex(bars.frames["A"].index), bars.timeframe)
    rules = config(timeframe=bars.timeframe)
    with FakeBroker() as fake, Connection(fake.credentials(), rules, streamed=minutes == 1) as made:
        stamped = [row(str(start)) for start in starts]
        fake.answers["/v2/stocks/bars"] = {"bars": {"A": stamped, "B": stamped}, "next_page_token": None}
        run = Asked()
        run.time = last
        source: Any = wall_clock_source(made, rules, MarketClock(None), control=None)(
            run, MemoryLog(), bars, lambda: None
        )
        now = last + 100 * SECOND
        source._now = lambda: now
        missed = source._missed(now) if minutes == 1 else source._fetched(last, now)
        assert list(missed) == []


# --- an exchange that keeps a time of its own ----------------------------------------------------------------------


def of_minutes(minutes: int, count: int) -> Bars:
    """Bars of a morning."""
    times = pd.date_range(f"{DAY} 09:30", periods=count + 1, freq=f"{minutes}min", tz="America/New_York")[1:]
    index = times.tz_convert("UTC").as_unit("ns").rename("time")
    frame = pd.DataFrame(100.0, index=index, columns=["open", "high", "low", "close", "volume"])
    return Bars(frames={"A": frame, "B": frame[::2]}, timeframe=f"{minutes}m", adjustment="none", source="test")


@pytest.mark.parametrize(("minutes", "speed"), [(1, 600.0), (5, 1000.0)])
def test_bars_of_an_exchange_that_does_not_wait_are_all_seen_and_decided_on(minutes: int, speed: float) -> None:
    bars = of_minutes(minutes, 12)
    start = bars.frames["A"].index[2]
    terms = BrokerConfig(cash=10_000.0)
    rules = config(symbols=["A", "B"], timeframe=bars.timeframe, broker=terms.model_dump())
    log = MemoryLog()
    with ExchangeServer(
        bars=bars, start=start, accounts=[AccountSpec(key=KEY, secret=SECRET, broker=terms)], speed=speed
    ) as exchange:
        credentials = Credentials(
            key=KEY,
            secret=SECRET,
            trading_url=exchange.url,
            data_url=exchange.url,
            trading_stream_url=f"{exchange.url.replace('http:', 'ws:', 1)}/stream",
        )
        with Connection(credentials, rules, streamed=minutes == 1) as connection:
            control = Control(credentials)
            history = bars.between(end=start - pd.Timedelta(minutes=1))
            source = wall_clock_source(connection, rules, MarketClock(control), control=control)

            class Steps:
                def __iter__(self) -> Iterator[Arrived]:
                    for step in source(run, log, history, lambda: None):
                        yield step
                        # The exchange's time stands still at its last bar, which never has time to settle.
                        if step.time >= int(bars.frames["A"].index[-2].value):
                            connection.inbox.stop()

            run = LiveRun(
                Plan(
                    run="run",
                    venue="test",
                    strategy=Holds,
                    arguments={},
                    history=history,
                    broker=terms,
                    risk=RiskConfig(),
                ),
                source=Steps(),
                desk=AlpacaDesk(connection.trading, connection.inbox),
                log=log,
                connections=connection.states,
            )
            connection.open()
            run.run()
            assert run.status().feed == ("connected" if minutes == 1 else "polled")
            control.close()
    steps = log.of("bars")
    times = [step["time"] for step in steps]
    wanted = [int(time.value) for time in bars.frames["A"].index[2:]]
    assert times == wanted[: len(times)]
    assert len(times) >= len(wanted) - 1
    # A machine that is busy may be late for a minute of a tenth of a second.
    assert sum(step["decide"] for step in steps) >= len(steps) - 3
