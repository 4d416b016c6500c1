"""Bars that come one at a time give what the same bars give at once: decisions, orders, fills and lines, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from stage import Recorder, assert_same, broker, fills, market

from engine.cerebro.clock import to_days
from engine.cerebro.feed import ArrayFeed, LiveFeed
from engine.cerebro.loop import Engine, LiveLines, LiveStep, descendants
from engine.errors import LookAheadError

PRICES = ["open", "high", "low", "close", "volume"]


def live_steps(frames: Mapping[str, pd.DataFrame], start: pd.Timestamp) -> Iterator[LiveStep]:
    """The bars from ``start`` on as steps."""
    times = sorted({time for frame in frames.values() for time in frame.index if time >= start})
    for time in times:
        end = float(to_days(pd.DatetimeIndex([time]))[0])
        yield LiveStep(
            end,
            {
                position: (end, *frame.loc[time, PRICES].tolist())
                for position, frame in enumerate(frames.values())
                if time in frame.index
            },
        )


def at_once(frames: Mapping[str, pd.DataFrame], strategy: type[bt.Strategy], start: pd.Timestamp, **given: Any) -> Any:
    engine = Engine(start=float(to_days(pd.DatetimeIndex([start]))[0]))
    engine.setbroker(broker(commission={"bps": 2.0}, slippage_bps=3.0, short=True))
    for symbol, frame in frames.items():
        engine.adddata(ArrayFeed(dataname=frame, name=symbol, bars="1d"))
    engine.addstrategy(strategy, **given)
    return engine.run()[0]


def one_by_one(
    frames: Mapping[str, pd.DataFrame], strategy: type[bt.Strategy], start: pd.Timestamp, **given: Any
) -> Any:
    engine = Engine(source=lambda: live_steps(frames, start))
    engine.setbroker(broker(commission={"bps": 2.0}, slippage_bps=3.0, short=True))
    for symbol, frame in frames.items():
        engine.adddata(LiveFeed(dataname=frame[frame.index < start], name=symbol, bars="1d"))
    engine.addstrategy(strategy, **given)
    return engine.run()[0]


class Busy(Recorder):
    """Indicators of several kinds, among them recursive and combined ones, and every type of order."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = [
            [
                bt.ind.SMA(d.close, period=5),
                bt.ind.EMA(d.close, period=7),
                bt.ind.RSI(d, period=6, safediv=True),
                bt.ind.ATR(d, period=4),
                bt.ind.MACD(d, period_me1=3, period_me2=8, period_signal=4),
                d.close - bt.ind.Highest(d.high, period=6),
                bt.ind.CrossOver(bt.ind.SMA(d.close, period=3), bt.ind.SMA(d.close, period=9)),
            ]
            for d in self.datas
        ]

    def values(self) -> tuple[float, ...]:
        return tuple(float(i[0]) for d, own in zip(self.datas, self.chosen, strict=True) if len(d) for i in own)

    def act(self) -> None:
        for data, own in zip(self.datas, self.chosen, strict=True):
            if not len(data) or data.datetime[0] < self.datetime[0]:
                continue
            price, turn = data.close[0], len(data) % 11
            if not self.getposition(data):
                if turn == 0:
                    entry = self.buy(data, size=3, exectype=bt.Order.Limit, price=price * 0.99)
                    self.sell(data, size=3, exectype=bt.Order.Stop, price=price * 0.95, parent=entry)
                    self.sell(data, size=3, exectype=bt.Order.Limit, price=price * 1.05, parent=entry)
                elif turn == 4 and own[6][0] >= 0:
                    self.buy(data, size=2)
                elif turn == 7:
                    self.sell(data, size=1, exectype=bt.Order.Stop, price=price * 0.98, valid=0)
            elif turn == 9:
                self.close(data)


@pytest.mark.parametrize("symbols", [1, 4])
@pytest.mark.parametrize("warmup", [0, 3, 40])
def test_bars_one_by_one_are_bars_at_once(symbols: int, warmup: int) -> None:
    frames = market(symbols, 160, seed=3 * symbols + warmup)
    start = frames["A"].index[warmup]
    whole, live = at_once(frames, Busy, start), one_by_one(frames, Busy, start)
    assert len(fills(whole)) > 10
    assert_same(live.seen, whole.seen)
    assert fills(live) == fills(whole)
    for own, other in zip(descendants(live), descendants(whole), strict=True):
        for line, expected in zip(own.lines, other.lines, strict=True):
            np.testing.assert_array_equal(np.array(line.array), np.array(expected.array))


class Peeks(bt.Strategy):
    params = (("ago", 1),)

    def next(self) -> None:
        self.seen = self.data.close[self.p.ago]


@pytest.mark.parametrize("ago", [1, -3])
def test_live_lines_hold_no_bar_but_those_that_were(ago: int) -> None:
    frames = market(1, 5, seed=1)
    with pytest.raises(LookAheadError):
        one_by_one(frames, Peeks, frames["A"].index[1], ago=ago)


def test_a_long_run_keeps_only_the_last_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveLines, "KEPT", 30)
    monkeypatch.setattr(LiveLines, "GATHERED", 10)
    frames = market(2, 200, seed=5)
    start = frames["A"].index[20]
    live, whole = one_by_one(frames, Busy, start), at_once(frames, Busy, start)
    assert_same(live.seen, whole.seen)
    held = [line for holder in [*live.datas, *descendants(live), live] for line in holder.lines]
    assert max(len(line.array) for line in held) <= 40
    assert len(live.datas[0]) == len(frames["A"])
