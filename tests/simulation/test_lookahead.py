"""What a strategy cannot see: bars to come, whichever way it asks. Each guard beside what backtrader does."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import backtrader as bt
import pandas as pd
import pytest
from stage import (
    LEAN,
    STOCK,
    Recorder,
    Scripted,
    array_feed,
    broker,
    days,
    fills,
    frame,
    pandas_feed,
    play,
    stock_broker,
    walk,
)

from engine.cerebro.loop import Engine
from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.errors import ConfigError, DataError, LookAheadError, StrategyError
from engine.simulation.simulate import simulate

COUNT = 12
LATE, EARLY = 10, 2


def rising(count: int = COUNT) -> pd.DataFrame:
    """Closes 1, 2, 3 ...: the price says which bar it is."""
    return frame([float(i + 1) for i in range(count)])


def ask(question: Callable[[Any], Any], *, at: int, loop: Any = LEAN) -> Any:
    """What a strategy gets at a bar for its question."""
    answers: list[Any] = []

    class Asks(bt.Strategy):
        lines = ("own",)

        def __init__(self) -> None:
            self.average = bt.ind.SMA(self.data, period=2)
            self.crossed = bt.ind.CrossOver(self.data.close, self.average)

        def prenext(self) -> None:
            self.next()

        def next(self) -> None:
            self.lines.own[0] = float(len(self))
            if len(self) == at:
                answers.append(question(self))

    play(loop, {"A": rising()}, Asks, stock_broker())
    return answers[0]


FUTURE = {
    "close[1]": lambda s: s.data.close[1],
    "close[2]": lambda s: s.data.close[2],
    "data[1]": lambda s: s.data[1],
    "open[1]": lambda s: s.data.open[1],
    "datas[0].lines.high[1]": lambda s: s.datas[0].lines.high[1],
    "data_close[1]": lambda s: s.data_close[1],
    "data.lines[0][1]": lambda s: s.data.lines[0][1],
    "indicator[1]": lambda s: s.average[1],
    "indicator line[1]": lambda s: s.average.lines.sma[1],
    "indicator on indicator[1]": lambda s: s.crossed[1],
    "get(ago=1)": lambda s: s.data.close.get(ago=1)[0],
    "get(ago=2, size=3)": lambda s: s.data.close.get(ago=2, size=3)[1],
    "indicator.get(ago=1)": lambda s: s.average.get(ago=1)[0],
    "array": lambda s: s.data.close.array[len(s)],
    "data.array": lambda s: s.data.array[len(s)],
    "indicator.array": lambda s: s.average.array[len(s)],
    "getzeroval": lambda s: s.data.close.getzeroval(len(s)),
    "datetime.datetime(1)": lambda s: s.data.datetime.datetime(1),
    "datetime.date(1)": lambda s: s.data.datetime.date(1),
    "datetime.time(1)": lambda s: s.data.datetime.time(1),
    "datetime.dt(1)": lambda s: s.data.datetime.dt(1),
    "datetime[1]": lambda s: s.data.datetime[1],
}


@pytest.mark.parametrize("way", FUTURE)
def test_tomorrow_cannot_be_read_where_backtrader_gives_it(way: str) -> None:
    assert ask(FUTURE[way], at=LATE, loop=STOCK) is not None
    with pytest.raises(IndexError):
        ask(FUTURE[way], at=LATE)


def test_the_error_says_what_was_asked_for() -> None:
    with pytest.raises(LookAheadError, match=r"line\[1\] was asked for: that is 1 bar\(s\) into the future"):
        ask(FUTURE["close[1]"], at=LATE)


WHOLE = {
    "array": lambda s: s.data.close.array,
    "getzero": lambda s: s.data.close.getzero(0, 10**6),
    "plot": lambda s: s.data.close.plot(0, 10**6),
    "plotrange": lambda s: s.data.close.plotrange(0, 10**6),
    "get(size)": lambda s: s.data.close.get(size=10**6),
    "iteration": lambda s: list(s.data.close),
    "indicator.array": lambda s: s.average.array,
}


@pytest.mark.parametrize("way", WHOLE)
def test_what_is_taken_as_a_whole_ends_at_the_present_bar(way: str) -> None:
    taken = list(ask(WHOLE[way], at=LATE))
    assert len(taken) <= LATE
    assert not any(value > LATE for value in taken)


def test_how_many_bars_there_will_be_is_not_known() -> None:
    assert ask(lambda s: s.data.buflen(), at=EARLY, loop=STOCK) == COUNT
    assert ask(lambda s: s.data.buflen(), at=EARLY) == EARLY


WRAPPED = {
    "close[-5]": lambda s: s.data.close[-5],
    "data[-5]": lambda s: s.data[-5],
    "indicator[-5]": lambda s: s.average[-5],
    "datetime.datetime(-5)": lambda s: s.data.datetime.datetime(-5),
    "datetime.date(-5)": lambda s: s.data.datetime.date(-5),
    "datetime.dt(-5)": lambda s: s.data.datetime.dt(-5),
}


@pytest.mark.parametrize("way", WRAPPED)
def test_before_the_first_bar_there_is_nothing_where_backtrader_wraps_to_the_end(way: str) -> None:
    assert ask(WRAPPED[way], at=EARLY, loop=STOCK) is not None
    with pytest.raises(LookAheadError, match=r"that is 4 bar\(s\) before the first"):
        ask(WRAPPED[way], at=EARLY)


def test_the_strategys_own_lines_do_not_wrap_either() -> None:
    assert ask(lambda s: s.own[-3], at=2, loop=STOCK) == 1.0  # there is no bar that is three bars back
    for question in (lambda s: s.own[-3], lambda s: s.datetime[-3], lambda s: s.lines.own.get(ago=1)):
        with pytest.raises(LookAheadError):
            ask(question, at=2)
    assert ask(lambda s: s.own[-1], at=2) == 1.0


def test_the_past_can_be_read_in_every_way() -> None:
    def question(s: Any) -> list[Any]:
        return [
            s.data.close[0], s.data.close[-3], s.data[-1], s.average[0], s.data.close.get(ago=-2, size=3).tolist(),
            s.data.close.array[-1], len(s.data), s.data.datetime.date(-9), s.data.datetime.datetime(0).hour,
            s.data.close.get(size=99).tolist()[0],
        ]  # fmt: skip

    expected = [10.0, 7.0, 9.0, 9.5, [6.0, 7.0, 8.0], 10.0, 10, days(1)[0].date(), 21, 1.0]
    assert ask(question, at=LATE) == expected


def test_bars_cannot_be_changed() -> None:
    def change(s: Any) -> None:
        s.data.close[0] = 7.0

    with pytest.raises(TypeError):
        ask(change, at=LATE)


# --- before the first bar --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["__init__", "start"])
@pytest.mark.parametrize("way", ["close[0]", "array"])
def test_a_strategy_has_no_bars_while_it_is_built_where_backtrader_shows_the_last(moment: str, way: str) -> None:
    looked: list[Any] = []

    def look(strategy: Any) -> None:
        close = strategy.data.close
        looked.append(close[0] if way == "close[0]" else max(close.array))

    class Peeks(bt.Strategy):
        if moment == "start":

            def start(self) -> None:
                look(self)
        else:

            def __init__(self) -> None:
                look(self)

    play(STOCK, {"A": rising()}, Peeks, stock_broker())
    assert looked == [COUNT]
    with pytest.raises((IndexError, ValueError)):
        play(LEAN, {"A": rising()}, Peeks, stock_broker())


def test_a_symbol_that_is_not_listed_yet_has_no_price_where_backtrader_shows_its_last() -> None:
    seen: list[float] = []

    class Looks(bt.Strategy):
        def prenext(self) -> None:
            if len(self) == 1:
                seen.append(self.datas[1].close[0])

    frames = {"A": rising(), "B": rising().iloc[5:]}
    play(STOCK, frames, Looks, stock_broker())
    assert seen == [COUNT]
    with pytest.raises(LookAheadError, match="before the first"):
        play(LEAN, frames, Looks, stock_broker())


def test_an_order_for_it_is_refused_in_a_sentence() -> None:
    frames = {"A": rising(), "B": rising().iloc[5:]}
    with pytest.raises(StrategyError, match="an order for B before its first bar has no price"):
        play(LEAN, frames, Scripted, broker(), script={2: lambda s: s.buy(s.datas[1], size=1)})


# --- indicators ------------------------------------------------------------------------------------------------------


class ReadsAhead(bt.Indicator):
    lines = ("value",)

    def next(self) -> None:
        self.lines.value[0] = self.data.close[1] if len(self) < COUNT else math.nan


class GetsAhead(bt.Indicator):
    lines = ("value",)

    def next(self) -> None:
        self.lines.value[0] = self.data.close.get(ago=1, size=1)[0] if len(self) < COUNT else math.nan


class WritesBack(bt.Indicator):
    """As the fractal of backtrader's contributions does: two bars later it is known what the bar was."""

    lines = ("value",)

    def next(self) -> None:
        if len(self) > 2:
            self.lines.value[-2] = self.data.close[0]


class Wraps(bt.Indicator):
    lines = ("value",)

    def next(self) -> None:
        self.lines.value[0] = self.data.close[-4] if len(self) > 5 else self.data.close[-6]


LEAKS = {
    "an indicator that reads [1]": (ReadsAhead, 11.0),
    "an indicator that gets ago=1": (GetsAhead, 11.0),
    "an indicator that writes [-2]": (WritesBack, 12.0),
    "a line(1)": (lambda data: data.close(1), 11.0),
    "arithmetic with a line(1)": (lambda data: data.close(1) - 0.0, 11.0),
    "an average of a line(1)": (lambda data: bt.ind.SMA(data.close(1), period=1), 11.0),
}


def read_at(made: Any, bar: int, loop: Any) -> float:
    """Value of an indicator at a bar."""
    read: list[float] = []

    class Reads(bt.Strategy):
        def __init__(self) -> None:
            self.made = made(self.data)

        def prenext(self) -> None:
            self.next()

        def next(self) -> None:
            if len(self) == bar:
                read.append(self.made[0])

    play(loop, {"A": rising()}, Reads, stock_broker())
    return read[0]


@pytest.mark.parametrize("leak", LEAKS)
def test_an_indicator_cannot_look_ahead_where_backtraders_does(leak: str) -> None:
    made, tomorrows = LEAKS[leak]
    assert read_at(made, LATE, STOCK) == tomorrows
    with pytest.raises(LookAheadError):
        read_at(made, LATE, LEAN)


def test_an_indicator_does_not_wrap_to_the_end() -> None:
    assert read_at(Wraps, 3, STOCK) == 9.0
    with pytest.raises(LookAheadError, match="before the first"):
        read_at(Wraps, 3, LEAN)


def test_symbols_of_different_times_are_not_paired_by_position() -> None:
    """Computed at once, backtrader subtracts bar 1 of B (day 6) from bar 1 of A (day 1): B's future."""
    seen: list[float] = []

    class Spread(bt.Strategy):
        def __init__(self) -> None:
            self.spread = self.datas[1].close - self.datas[0].close

        def prenext(self) -> None:
            seen.append(self.spread[0])

    frames = {"A": rising(6), "B": rising().iloc[5:-1]}
    play(STOCK, frames, Spread, stock_broker())
    assert seen[0] == 6.0 - 1.0
    with pytest.raises(StrategyError, match=r"combines A and B, whose bars do not end at the same times"):
        play(LEAN, frames, Spread, stock_broker())


def test_symbols_of_equal_times_are_combined() -> None:
    class Spread(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.spread = bt.ind.SMA(self.datas[1].close - self.datas[0].close, period=2)

        def values(self) -> tuple[float, ...]:
            return (self.spread[0],)

    frames = {"A": walk(days(9), seed=1), "B": walk(days(9), seed=2)}
    lean, stock = (play(loop, frames, Spread, stock_broker()) for loop in (LEAN, STOCK))
    assert [row[-1] for row in lean.bars()[1:]] == [row[-1] for row in stock.bars()[1:]]


def test_parts_of_an_indicator_follow_their_own_symbol() -> None:
    """A part on the second feed must not be read at the position of the first."""
    read: list[float] = []

    class Two(bt.Indicator):
        lines = ("value",)
        params = (("other", None),)

        def __init__(self) -> None:
            self.part = bt.ind.SMA(self.p.other, period=1)
            self.lines.value = self.data.close + 0.0

    class Reads(bt.Strategy):
        def __init__(self) -> None:
            self.two = Two(self.datas[0], other=self.datas[1])

        def prenext(self) -> None:
            self.next()

        def next(self) -> None:
            if len(self.datas[1]):
                read.append(self.two.part[0] - self.datas[1].close[0])

    play(LEAN, {"A": rising(), "B": rising().iloc[5:]}, Reads, stock_broker())
    assert read == [0.0] * 7


# --- other ways to the future ----------------------------------------------------------------------------------------


def test_the_frame_is_not_at_hand_through_the_feed() -> None:
    def whole(holder: Any) -> list[str]:
        return [name for name, value in vars(holder).items() if isinstance(value, pd.DataFrame)]

    def found(s: Any) -> list[Any]:
        params = [value for value in s.data.p._getkwargs().values() if isinstance(value, pd.DataFrame)]
        return [*whole(s.data), *params, *[v for v in getattr(s.data, "_columns", {}).values() if len(v) > LATE]]

    assert ask(found, at=LATE) == []
    assert ask(lambda s: s.data.p.dataname, at=LATE) == "A"
    feed = pandas_feed(rising(), "A")
    assert "_dataname" in whole(feed)
    assert isinstance(feed.p.dataname, pd.DataFrame)


@pytest.mark.parametrize("copies", [pickle.dumps, copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_feed_is_not_copied_with_its_bars(copies: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="holds its bars in memory and is never pickled"):
        copies(array_feed(rising(), "A"))


def test_a_feed_runs_once_instead_of_running_empty() -> None:
    engine = Engine()
    engine.adddata(array_feed(rising(), "A"))
    engine.addstrategy(Recorder)
    assert len(engine.run()[0].bars()) == COUNT
    with pytest.raises(DataError, match="this feed has been run already"):
        engine.run()


class Opener(bt.Strategy):
    """Buys before a bar that will rise."""

    def next_open(self) -> None:
        if self.data.close[0] > self.data.open[0]:
            self.buy(size=1)


def test_cheat_on_open_is_refused_where_backtrader_knows_the_close_at_the_open() -> None:
    frames = {"A": frame([(10.0, 11.0, 9.0, 9.5), (10.0, 12.0, 9.0, 11.0), (10.0, 11.0, 9.0, 9.0)])}
    cerebro = bt.Cerebro(stdstats=False, cheat_on_open=True)
    cerebro.setbroker(stock_broker(coo=True))
    cerebro.adddata(array_feed(frames["A"], "A"))
    cerebro.addstrategy(Opener)
    strategy = cerebro.run()[0]
    assert [price for _, _, price, _ in fills(strategy)] == [10.0]  # at the open of the one bar that closes higher
    engine = Engine(cheat_on_open=True)
    engine.adddata(array_feed(frames["A"], "A"))
    engine.addstrategy(Opener)
    with pytest.raises(ConfigError, match="cheat_on_open=True"):
        engine.run()


def test_a_strategy_cannot_switch_cheating_on() -> None:
    class Cheats(Opener):
        def __init__(self) -> None:
            self.cerebro.p.cheat_on_open = True

    assert fills(play(LEAN, {"A": rising()}, Cheats, broker())) == []

    class ClosesNow(bt.Strategy):
        def start(self) -> None:
            self.broker.set_coc(True)

    with pytest.raises(AttributeError, match="set_coc"):
        play(LEAN, {"A": rising()}, ClosesNow, broker())


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda s: s.add_timer(when=bt.timer.SESSION_START), "timers"),
        (lambda s: bt.ind.HeikinAshi(s.data), "without preload or runonce, as an indicator"),
        (lambda s: s.datas[0].close(), "does not follow one feed"),
    ],
    ids=["timer", "bar by bar", "coupler"],
)
def test_a_reported_run_never_falls_back_to_a_loop_without_guards(made: Any, reason: str) -> None:
    class Needs(bt.Strategy):
        def __init__(self) -> None:
            made(self)

        def next(self) -> None:
            raise AssertionError("decided without guards")

    bars = Bars(frames={"A": walk(days(30), seed=1)}, timeframe="1d", adjustment="none", source="made up")
    for start in (None, bars.frames["A"].index[9]):
        with pytest.raises(ConfigError, match=reason):
            simulate(bars, Needs, {}, broker=BrokerConfig(), risk=RiskConfig(), start=start)
