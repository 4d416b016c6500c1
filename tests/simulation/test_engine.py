"""The engine around the loop: its start, its fallbacks, its errors, its feeds, and what it leaves behind."""

from __future__ import annotations

import gc
import io
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage import (
    LEAN,
    STOCK,
    STOCK_BAR_BY_BAR,
    STOCK_PANDAS,
    Loop,
    Recorder,
    Scripted,
    array_feed,
    assert_same,
    broker,
    days,
    fills,
    frame,
    market,
    pandas_feed,
    play,
    stock_broker,
    walk,
)

from engine.cerebro.clock import to_days, to_nanoseconds
from engine.cerebro.feed import ArrayFeed
from engine.cerebro.loop import Engine
from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.errors import ConfigError, DataError, LookAheadError, StrategyError
from engine.simulation.simulate import simulate

pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")

BROKERS = {"ours": broker, "backtrader's": stock_broker}


def bars_of(frames: dict[str, pd.DataFrame], timeframe: str = "1d") -> Bars:
    """Bars of the data room."""
    return Bars(frames=frames, timeframe=timeframe, adjustment="none", source="made up", synthetic=True)


def run(frames: dict[str, pd.DataFrame], strategy: type[bt.Strategy], arguments: Any = None, **more: Any) -> Any:
    """``simulate`` with defaults."""
    settings = {"broker": BrokerConfig(), "risk": RiskConfig(), **more}
    return simulate(bars_of(frames), strategy, arguments or {}, **settings)


class Crosses(bt.Strategy):
    """In the market while the close is above its average; before ``since`` (nanoseconds) it sleeps."""

    params = (("since", 0), ("period", 8))

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.averages = [bt.ind.SMA(data, period=self.p.period) for data in self.datas]

    def notify_order(self, order: Any) -> None:
        self.seen.append((order.getstatusname(), len(order.data), order.executed.price))

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        now = to_nanoseconds(self.datetime[0])
        if now < self.p.since:
            return
        self.seen.append((now, self.broker.getcash(), self.broker.getvalue()))
        for data, average in zip(self.datas, self.averages, strict=True):
            if not len(data):
                continue
            self.seen.append((len(data), average[0], average[1 - min(len(data), 3)]))
            wants, has = data.close[0] > average[0], bool(self.getposition(data))
            if wants and not has:
                self.buy(data, size=10)
            elif has and not wants:
                self.close(data)


# --- several symbols -------------------------------------------------------------------------------------------------


class Universe(Recorder):
    """Buys each symbol at its first bar, whenever that is."""

    def act(self) -> None:
        for data in self.datas:
            if len(data) == 1 and data.datetime[0] == self.datetime[0]:
                self.buy(data, size=1)


def test_a_late_listing_silences_next_but_not_prenext() -> None:
    times = days(10)
    frames = {"A": frame([100.0] * 10, times), "B": frame([50.0] * 4, times[6:])}
    played = play(LEAN, frames, Universe, broker())
    assert [row[0] for row in played.bars()] == ["prenext"] * 6 + ["nextstart"] + ["next"] * 3
    assert [(symbol, time) for symbol, _, _, time in fills(played)] == [("A", times[1].value), ("B", times[7].value)]


def test_a_symbol_that_ends_is_marked_at_its_last_close_and_fills_no_more() -> None:
    times = days(8)
    frames = {"A": frame([100.0] * 8, times), "B": frame([50.0, 50.0, 55.0, 60.0], times[:4])}
    steps = {1: lambda s: s.buy(s.datas[1], size=10), 6: lambda s: s.close(s.datas[1])}
    played = play(LEAN, frames, Scripted, broker(), script=steps)
    assert [row[5][1] for row in played.bars()][-3:] == [10_000.0 + 10 * (60.0 - 50.0)] * 3
    assert len(fills(played)) == 1
    assert played.orders[1].alive()


def test_an_order_waits_for_a_missing_bar() -> None:
    times = days(6)
    frames = {"A": frame([100.0] * 6, times), "B": frame([50.0, 51.0, 52.0], times[[0, 3, 5]])}
    played = play(LEAN, frames, Scripted, broker(), script={1: lambda s: s.buy(s.datas[1], size=1)})
    assert fills(played) == [("B", 1.0, 51.0, times[3].value)]


def test_each_distinct_time_is_one_step_however_close() -> None:
    """Float days resolve some ten microseconds; ours are rounded to milliseconds on the way, so equal stays equal."""
    times = days(50)
    later = pd.DatetimeIndex(times + pd.Timedelta(milliseconds=1)).rename("time")
    same = play(LEAN, {"A": walk(times, seed=1), "B": walk(times, seed=2)}, Recorder, broker())
    apart = play(LEAN, {"A": walk(times, seed=1), "B": walk(later, seed=2)}, Recorder, broker())
    assert (len(same), len(apart)) == (50, 100)


# --- the start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("symbols", [1, 3])
def test_a_late_start_is_a_stock_run_whose_strategy_sleeps_until_then(kind: str, symbols: int) -> None:
    frames = market(symbols, 80, seed=4)
    since = frames["A"].index[30]
    start = float(to_days(pd.DatetimeIndex([since]))[0])
    lean = play(LEAN, frames, Crosses, BROKERS[kind](), start=start)
    stock = play(STOCK, frames, Crosses, BROKERS[kind](), since=since.value)
    assert len(lean) == 50
    assert_same(lean.seen, stock.seen)
    assert_same(fills(lean), fills(stock))
    assert len(fills(lean)) > 5


def test_indicators_are_warm_at_the_start_and_the_first_call_is_nextstart() -> None:
    """Strategies buy in ``nextstart``: history must not swallow it."""
    frames = {"A": walk(days(40), seed=1)}
    start = float(to_days(pd.DatetimeIndex(frames["A"].index[20:21]))[0])

    class Starts(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.average = bt.ind.SMA(period=5)

        def values(self) -> tuple[float, ...]:
            return (self.average[0], self.average[-3], len(self.data), len(self))

    played = play(LEAN, frames, Starts, broker(), start=start)
    closes = frames["A"]["close"]
    assert [row[0] for row in played.bars()] == ["nextstart"] + ["next"] * 19
    assert played.bars()[0][-1][2:] == (21, 1)
    assert played.bars()[0][-1][0] == pytest.approx(closes.iloc[16:21].mean())
    assert played.bars()[0][-1][1] == pytest.approx(closes.iloc[13:18].mean())


def test_a_start_between_bars_begins_at_the_next_and_history_is_guarded() -> None:
    frames = {"A": walk(days(20), seed=1)}
    after = frames["A"].index[9] + pd.Timedelta(hours=1)
    result = run(frames, Crosses, start=after)
    assert result.equity.index[0] == frames["A"].index[10]
    assert len(result.equity) == 10

    class Peeks(bt.Strategy):
        def next(self) -> None:
            assert self.data.close[-10] == frames["A"]["close"].iloc[0]
            self.data.close[-11]

    with pytest.raises(LookAheadError, match=r"bar 1 \(.*before the first"):
        run(frames, Peeks, start=after)


def test_too_little_history_is_a_sentence_where_backtrader_runs_out_of_its_array() -> None:
    frames = {"A": walk(days(30), seed=1), "B": walk(days(5), seed=2)}
    with pytest.raises(IndexError):
        play(STOCK, frames, Crosses, broker())
    with pytest.raises(DataError, match="B: SMA needs 8 bars, and there are 5"):
        run(frames, Waiting)
    with pytest.raises(DataError, match="B: SMA needs 8 bars, and there are 5"):
        run({"B": frames["B"]}, Crosses)


class Waiting(bt.Strategy):
    def __init__(self) -> None:
        self.averages = [bt.ind.SMA(data, period=8) for data in self.datas]


def test_a_short_symbol_is_nan_where_the_strategy_does_not_wait_for_it() -> None:
    """A strategy with a ``prenext`` decides on the others, and the short symbol's indicators never have a value."""

    seen: list[tuple[float, float]] = []

    class Eager(Waiting):
        def prenext(self) -> None:
            seen.append((self.averages[0][0], self.averages[1][0]))

    frames = {"A": walk(days(30), seed=1), "B": walk(days(5), seed=2)}
    run(frames, Eager)
    assert len(seen) == 30
    assert np.isfinite([average for average, _ in seen[7:]]).all()
    assert np.isnan([average for _, average in seen]).all()


def test_nothing_to_decide_on_is_a_sentence() -> None:
    frames = {"A": walk(days(30), seed=1)}
    with pytest.raises(DataError, match="no symbol has a bar at or after"):
        run(frames, Crosses, start=frames["A"].index[-1] + pd.Timedelta(days=1))
    with pytest.raises(DataError, match="B: there are no bars"):
        run({**frames, "B": frames["A"].iloc[:0]}, Crosses)


# --- the stock loop, where it is needed ------------------------------------------------------------------------------


class Timed(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.add_timer(when=bt.timer.SESSION_START)

    def notify_timer(self, timer: Any, when: Any, *args: Any, **kwargs: Any) -> None:
        self.seen.append(("timer", len(self)))


def weekly(cerebro: bt.Cerebro) -> None:
    cerebro.resampledata(cerebro.datas[0], timeframe=bt.TimeFrame.Weeks)


FALLBACKS: dict[str, tuple[Any, Any, str]] = {
    "timer": (Timed, lambda cerebro: None, "timers"),
    "writer": (Recorder, lambda cerebro: cerebro.addwriter(bt.WriterFile, out=io.StringIO()), "writers"),
    "observer": (Recorder, lambda cerebro: cerebro.addobserver(bt.observers.DrawDown), "observers"),
    "two strategies": (Recorder, lambda cerebro: cerebro.addstrategy(Recorder), "2 strategies"),
    "resampled": (Recorder, weekly, "a resampled feed"),
    "clone": (Recorder, lambda cerebro: cerebro.adddata(cerebro.datas[0].clone()), "resampled or replayed feeds"),
}


@pytest.mark.parametrize("why", FALLBACKS)
def test_what_the_lean_loop_does_not_cover_runs_in_the_stock_loop(why: str) -> None:
    strategy, prepare, reason = FALLBACKS[why]
    frames = {"A": walk(days(30), seed=1)}
    lean, stock = (play(loop, frames, strategy, broker(), prepare=prepare) for loop in (LEAN, STOCK))
    assert reason in lean.cerebro.stock_reason
    assert len(lean.bars()) >= 30
    assert_same(lean.seen, stock.seen)


def test_a_coupler_and_bar_by_bar_indicators_run_in_the_stock_loop_too() -> None:
    class Heikin(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.heikin = bt.ind.HeikinAshi(self.data)

        def values(self) -> tuple[float, ...]:
            return (self.heikin.ha_open[0],)

    class Coupled(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.coupled = self.data.close()

    frames = {"A": walk(days(30), seed=1)}
    for strategy in (Heikin, Coupled):
        lean, stock = (play(loop, frames, strategy, broker()) for loop in (LEAN, STOCK))
        assert lean.cerebro.stock_reason
        assert_same(lean.seen, stock.seen)


@pytest.mark.parametrize("off", [["preload"], ["runonce"], ["preload", "runonce"]], ids=" and ".join)
def test_switching_preload_or_runonce_off_asks_for_the_stock_loop(off: list[str]) -> None:
    frames = {"A": walk(days(30), seed=1)}
    loop = Loop(cerebro=Engine, settings=dict.fromkeys(off, False))
    played = play(loop, frames, Crosses, broker())
    assert "without preload or runonce" in played.cerebro.stock_reason
    assert_same(played.seen, play(LEAN, frames, Crosses, broker()).seen)
    with pytest.raises(ConfigError, match="cannot begin after a warm-up"):
        play(loop, frames, Crosses, broker(), start=1.0)


# --- the feed --------------------------------------------------------------------------------------------------------


def test_filters_and_dates_of_a_feed_are_kept_to() -> None:
    bars = walk(days(30), seed=1)

    def no_mondays(data: Any, *args: Any) -> bool:
        monday = data.datetime.date(0).weekday() == 0
        if monday:
            data.backwards()
        return bool(monday)

    def played(loop: Loop, kind: Any) -> Any:
        def make(*_: Any) -> Any:
            feed = kind(bars, "A")
            feed.p.fromdate, feed.p.todate = bars.index.tz_localize(None)[[3, 25]].to_pydatetime()
            feed.addfilter(no_mondays)
            return feed

        return play(Loop(cerebro=loop.cerebro, feed=make, settings=loop.settings), {"A": bars}, Recorder, broker())

    lean, pandas_, bar_by_bar = (
        played(loop, kind) for loop, kind in ((LEAN, array_feed), (STOCK, pandas_feed), (STOCK_BAR_BY_BAR, array_feed))
    )
    assert 10 < len(lean) < 23
    assert_same(lean.seen, pandas_.seen)
    assert_same(lean.seen, bar_by_bar.seen)


def test_a_resampled_feed_of_ours_gives_weeks() -> None:
    bars = walk(days(30), seed=1)

    def weeks(kind: Any, cerebro: Any) -> Any:
        cerebro.setbroker(broker())
        cerebro.resampledata(kind(bars, "A"), timeframe=bt.TimeFrame.Weeks)
        cerebro.addstrategy(Recorder)
        return cerebro.run()[0]

    ours, theirs = weeks(array_feed, Engine()), weeks(pandas_feed, bt.Cerebro(stdstats=False))
    assert len(ours.bars()) == 6
    assert [row[3] for row in ours.bars()] == [row[3] for row in theirs.bars()]


@pytest.mark.parametrize(
    ("timeframe", "expected"),
    [("1d", (bt.TimeFrame.Days, 1)), ("5m", (bt.TimeFrame.Minutes, 5)), ("2h", (bt.TimeFrame.Minutes, 120))],
)
def test_a_feed_says_its_timeframe(timeframe: str, expected: tuple[int, int]) -> None:
    feed = ArrayFeed(dataname=walk(days(3), seed=1), name="A", bars=timeframe)
    assert (feed._timeframe, feed._compression) == expected


@given(milliseconds=st.integers(0, 4_000_000_000_000))
def test_the_clock_goes_both_ways(milliseconds: int) -> None:
    times = pd.DatetimeIndex([milliseconds * 1_000_000], tz="UTC")
    (day,) = to_days(times)
    assert to_nanoseconds(float(day)) == milliseconds * 1_000_000


@given(milliseconds=st.integers(0, 4_000_000_000_000))
def test_the_clock_is_backtraders(milliseconds: int) -> None:
    moment = pd.Timestamp(milliseconds, unit="ms")
    (day,) = to_days(pd.DatetimeIndex([moment], tz="UTC"))
    assert day == pytest.approx(bt.date2num(moment.to_pydatetime()), abs=1e-9)


# --- errors, and what is left behind ---------------------------------------------------------------------------------


class Raises(bt.Strategy):
    params = (("at", 500), ("where", "next"))

    def next(self) -> None:
        if len(self) == self.p.at and self.p.where == "next":
            raise ValueError("no such luck")

    def stop(self) -> None:
        if self.p.where == "stop":
            raise ValueError("no such luck")


def test_a_strategy_that_raises_at_bar_500_is_named_with_the_bar() -> None:
    frames = {"A": walk(days(600), seed=1, volatility=0.001)}
    date = frames["A"].index[499]
    with pytest.raises(StrategyError, match=rf"ValueError at bar 500 \({date:%Y-%m-%d} 21:00 UTC\): no such luck"):
        run(frames, Raises)
    with pytest.raises(StrategyError, match=r"bar 100 \("):
        run(frames, Raises, {"at": 100}, start=frames["A"].index[50])


def test_a_strategy_that_raises_before_or_after_the_bars_is_named_too() -> None:
    frames = {"A": walk(days(20), seed=1)}

    class Unborn(bt.Strategy):
        def __init__(self) -> None:
            raise KeyError("threshold")

    with pytest.raises(StrategyError, match="Unborn raised KeyError at the start, before the first bar"):
        run(frames, Unborn)
    with pytest.raises(StrategyError, match=r"Raises raised ValueError at bar 20 \("):
        run(frames, Raises, {"where": "stop"})


@pytest.mark.parametrize("raises", [False, True])
def test_guards_are_gone_after_the_run(raises: bool) -> None:
    bars = walk(days(30), seed=1)
    built: list[Any] = []

    class Keeps(bt.Strategy):
        lines = ("own",)

        def __init__(self) -> None:
            self.average = bt.ind.SMA(period=3)
            built.append(self)

        def next(self) -> None:
            if raises and len(self) == 20:
                raise ValueError("stop here")

    try:
        play(LEAN, {"A": bars}, Keeps, broker())
    except ValueError:
        assert raises
    present = 19 if raises else 29
    (strategy,) = built
    lines = [strategy.data.close, strategy.average.lines[0], strategy.lines.own, strategy.data.datetime]
    assert {type(line) for line in lines} == {bt.linebuffer.LineBuffer}
    assert list(strategy.data.close.array) == bars["close"].tolist()
    assert len(strategy.average.array) == 30
    assert strategy.data.close.idx == present
    assert len(strategy.data) == present + 1
    assert strategy.data.close[0] == bars["close"].iloc[present]
    assert gc.isenabled()


def test_after_the_run_the_strategy_reads_its_last_bar_in_stop() -> None:
    bars = walk(days(30), seed=1)

    class Ends(bt.Strategy):
        def __init__(self) -> None:
            self.average = bt.ind.SMA(period=3)

        def stop(self) -> None:
            self.last = (self.data.close[0], self.average[0], self.average[-1], len(self.data), len(self))

    lean, stock = (play(loop, {"A": bars}, Ends, broker()).last for loop in (LEAN, STOCK_PANDAS))
    assert lean == stock


@pytest.mark.parametrize("kind", BROKERS)
def test_runstop_stops_at_the_same_bar(kind: str) -> None:
    class Stops(Recorder):
        def act(self) -> None:
            self.buy(size=1)
            if len(self) == 10:
                self.cerebro.runstop()

    lean, stock = (play(loop, market(2, 30, seed=2), Stops, BROKERS[kind]()) for loop in (LEAN, STOCK))
    assert len(lean) == 10
    assert_same(lean.seen, stock.seen)


def test_progress_is_told_every_thousand_steps() -> None:
    told: list[tuple[int, int]] = []
    times = pd.date_range("2020-01-06", periods=2_500, freq="min", tz="UTC").as_unit("ns").rename("time")
    frames = {"A": walk(times, seed=1, volatility=0.0001)}
    run(frames, bt.Strategy, on_progress=lambda done, count: told.append((done, count)))
    assert told == [(1_000, 2_500), (2_000, 2_500)]


def test_the_same_run_twice_gives_the_same_bits() -> None:
    frames = market(3, 60, seed=8)
    first, second = (run(frames, Crosses, broker=BrokerConfig(slippage_bps=2.0)) for _ in range(2))
    assert first.ledger.fills == second.ledger.fills
    assert np.array_equal(first.equity.to_numpy(), second.equity.to_numpy())
