"""The lean loop gives the stock loop's results: the same calls, values, notifications, fills, cash and value."""

from __future__ import annotations

import random
from typing import Any

import backtrader as bt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import (
    LEAN,
    STOCK,
    STOCK_BAR_BY_BAR,
    STOCK_PANDAS,
    STOCK_PANDAS_BAR_BY_BAR,
    Loop,
    Recorder,
    assert_same,
    broker,
    days,
    market,
    play,
    same,
    stock_broker,
    walk,
)

# backtrader's bar-by-bar loop asks for utcnow() at every bar.
pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")

BROKERS = {
    "ours": lambda: broker(commission={"bps": 2.0, "minimum": 0.5}, slippage_bps=3.0),
    "backtrader's": lambda: stock_broker(slip_perc=0.0003, slip_open=True),
}
PEERS = {
    "stock": STOCK,
    "PandasData": STOCK_PANDAS,
    "bar by bar": STOCK_BAR_BY_BAR,
    "PandasData bar by bar": STOCK_PANDAS_BAR_BY_BAR,
}
both_brokers = pytest.mark.parametrize("kind", BROKERS)


class Swing(bt.Indicator):
    """Nested, written with ``next``: distance of the close from the middle of two averages of different lengths."""

    lines = ("swing", "slow")
    params = (("fast", 3), ("slow", 7))

    def __init__(self) -> None:
        self.middle = (bt.ind.SMA(period=self.p.fast) + bt.ind.EMA(period=self.p.slow)) / 2.0

    def next(self) -> None:
        self.lines.swing[0] = self.data.close[0] - self.middle[0] if len(self) % 5 else self.lines.swing[-1]
        self.lines.slow[0] = max(self.data.get(size=4))


class Zoo(Recorder):
    """Indicators of all sorts on every symbol, and lines of its own; trades at random, but always the same way."""

    params = (("seed", 0), ("quiet", False))
    lines = ("mood",)

    def __init__(self) -> None:
        super().__init__()
        self.zoo: list[Any] = []
        self.orders: list[Any] = []
        for data in self.datas:
            average, rsi = bt.ind.SMA(data.close, period=5), bt.ind.RSI(data, period=4, safediv=True)
            self.zoo += [
                average,
                rsi,
                bt.ind.EMA(data, period=9),
                bt.ind.CrossOver(data.close, average),
                bt.ind.SMA(rsi, period=3),
                bt.ind.MACD(data, period_me1=3, period_me2=6, period_signal=2).signal,
                (data.high + data.low) / 2.0 - average(-2),
                bt.If(data.close > average, data.high, -data.low),
                bt.Max(data.open, average, 50.0),
                Swing(data).swing,
                Swing(data, fast=2).slow,
            ]

    def values(self) -> tuple[float, ...]:
        read: list[float] = []
        for data, zoo in zip(self.datas, self._of_symbols(), strict=True):
            if len(data):
                read += [float(line[0]) for line in zoo]
            if len(data) > 12:
                read += [float(line[-1]) for line in zoo] + list(data.close.get(ago=-1, size=3))
        self.lines.mood[0] = sum(read[:3])
        if len(self) > 1:
            read.append(self.lines.mood[-1])
        return tuple(read)

    def _of_symbols(self) -> list[list[Any]]:
        each = len(self.zoo) // len(self.datas)
        return [self.zoo[i * each : (i + 1) * each] for i in range(len(self.datas))]

    def act(self) -> None:
        for data in self.datas:
            dice = random.Random(f"{self.p.seed} {data._name} {len(self)}")
            if not self.p.quiet and len(data) > 1 and dice.random() < 0.4:
                self._trade(data, dice)

    def _trade(self, data: Any, dice: random.Random) -> None:
        close, size = data.close[0], dice.randint(1, 20)
        near = {side: round(close * (1.0 + side * dice.uniform(0.0, 0.03)), 2) for side in (-1, 1)}
        act = dice.choice(["market", "close", "limit", "stop", "stop limit", "bracket", "cancel", "pair", "target"])
        side, order = dice.choice([self.buy, self.sell]), bt.Order
        sign = 1 if side == self.buy else -1
        if act == "market":
            self.orders.append(side(data, size=size))
        elif act == "close":
            self.orders.append(self.close(data))
        elif act == "limit":
            self.orders.append(side(data, size=size, exectype=order.Limit, price=near[-sign]))
        elif act == "stop":
            self.orders.append(side(data, size=size, exectype=order.Stop, price=near[sign]))
        elif act == "stop limit":
            prices = {"price": near[sign], "plimit": round(near[sign] * (1.0 + sign * 0.01), 2)}
            self.orders.append(side(data, size=size, exectype=order.StopLimit, **prices))
        elif act == "bracket":
            bracket = self.buy_bracket if side == self.buy else self.sell_bracket
            prices = {"price": near[-sign], "stopprice": near[-sign] - sign, "limitprice": near[sign] + sign}
            self.orders += bracket(data=data, size=size, exectype=order.Limit, **prices)
        elif act == "pair":
            first = side(data, size=size, exectype=order.Limit, price=near[-sign])
            self.orders += [first, side(data, size=size, exectype=order.Stop, price=near[sign], oco=first)]
        elif act == "target":
            self.orders.append(self.order_target_percent(data, target=dice.choice([0.0, 0.1, 0.2])))
        elif self.orders:
            chosen = dice.choice(self.orders)
            if chosen is not None and chosen.alive():
                self.cancel(chosen)


def analyzed(cerebro: bt.Cerebro) -> None:
    for analyzer in (
        bt.analyzers.TimeReturn,
        bt.analyzers.TradeAnalyzer,
        bt.analyzers.DrawDown,
        bt.analyzers.Transactions,
        bt.analyzers.SQN,
        bt.analyzers.PeriodStats,
    ):
        cerebro.addanalyzer(analyzer)


def analyses(strategy: Any) -> list[Any]:
    """What the analyzers found, with times of feeds in whole milliseconds."""
    return [_plain(analyzer.get_analysis()) for analyzer in strategy.analyzers]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return [(str(key)[:19], _plain(inner)) for key, inner in value.items()]
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def both(loop: Loop, frames: Any, strategy: Any, kind: str, **more: Any) -> None:
    """Play on the lean loop and on another one, and compare all there is."""
    lean = play(LEAN, frames, strategy, BROKERS[kind](), **more)
    peer = play(loop, frames, strategy, BROKERS[kind](), **more)
    assert lean.cerebro.stock_reason == ""
    assert_same(lean.seen, peer.seen)
    assert len(lean) == len(peer)
    assert same(analyses(lean), analyses(peer))


@both_brokers
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), symbols=st.integers(1, 4), quick=st.booleans(), peer=st.sampled_from([*PEERS]))
def test_lean_and_stock_loop_agree_on_everything(kind: str, seed: int, symbols: int, quick: bool, peer: str) -> None:
    both(PEERS[peer], market(symbols, 60, seed=seed), Zoo, kind, seed=seed, quicknotify=quick)


@both_brokers
def test_with_analyzers(kind: str) -> None:
    both(STOCK_PANDAS, market(3, 90, seed=5), Zoo, kind, seed=5, prepare=analyzed)


@both_brokers
def test_the_random_strategy_trades_enough_to_mean_something(kind: str) -> None:
    played = play(LEAN, market(3, 90, seed=5), Zoo, BROKERS[kind](), seed=5)
    statuses = {row[1] for row in played.heard()}
    assert {"Accepted", "Completed", "Canceled"} <= statuses
    assert len(played.heard("trade")) > 10
    assert {row[0] for row in played.bars()} == {"prenext", "nextstart", "next"}


class Signalled(bt.SignalStrategy):
    """Writes down what a signal strategy hears."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def notify_order(self, order: Any) -> None:
        self.seen.append((len(self), order.getstatusname(), order.size, order.executed.price))

    def notify_trade(self, trade: Any) -> None:
        self.seen.append((len(self), trade.size, trade.pnl))

    def _next_custom(self) -> None:
        self.seen.append((len(self), self.position.size, self.broker.getvalue()))


class Lean(bt.Indicator):
    """Above or below the average."""

    lines = ("lean",)

    def __init__(self) -> None:
        self.lines.lean = self.data.close - bt.ind.SMA(period=5)


@both_brokers
@pytest.mark.parametrize("signal", [bt.SIGNAL_LONGSHORT, bt.SIGNAL_LONG, bt.SIGNAL_SHORT])
def test_a_signal_strategy_agrees_and_trades(kind: str, signal: int) -> None:
    def prepare(cerebro: bt.Cerebro) -> None:
        cerebro.signal_strategy(Signalled)
        cerebro.add_signal(signal, Lean)

    frames = {"A": walk(days(80), seed=3)}
    lean, stock = (play(loop, frames, None, BROKERS[kind](), prepare=prepare) for loop in (LEAN, STOCK))
    assert lean.cerebro.stock_reason == ""
    assert_same(lean.seen, stock.seen)
    assert sum(row[1] == "Completed" for row in lean.seen if len(row) == 4) > 5


def shipped_indicators() -> list[Any]:
    """Every indicator of backtrader that needs nothing but a feed, once a name."""
    found = {kind.__name__: kind for kind in vars(bt.indicators).values() if isinstance(kind, type)}
    kinds = [kind for kind in found.values() if issubclass(kind, bt.Indicator) and not kind.aliased]
    return [kind for kind in kinds if _stands_alone(kind)]


def _stands_alone(kind: Any) -> bool:
    class Probe(bt.Strategy):
        def __init__(self) -> None:
            kind(self.data)

    try:
        play(STOCK, {"A": ALONE}, Probe, stock_broker())
    except Exception:
        return False
    return True


ALONE = walk(days(120), seed=1)


class Reads(Recorder):
    """Reads all lines of one indicator."""

    params = (("kind", None),)

    def __init__(self) -> None:
        super().__init__()
        self.indicator = self.p.kind(self.data)

    def values(self) -> tuple[float, ...]:
        return tuple(float(line[0]) for line in self.indicator.lines)


def test_every_indicator_that_backtrader_ships_agrees() -> None:
    """Except those that look ahead, which are refused, and those that ask for another loop, which get it."""
    others = {}
    compared = 0
    for kind in shipped_indicators():
        stock = play(STOCK, {"A": ALONE}, Reads, stock_broker(), kind=kind)
        try:
            lean = play(LEAN, {"A": ALONE}, Reads, stock_broker(), kind=kind)
        except LookupError as error:
            others[kind.__name__] = str(error)[:8]
            continue
        assert_same(lean.seen, stock.seen)
        if lean.cerebro.stock_reason:
            others[kind.__name__] = lean.cerebro.stock_reason.split(" ", 1)[1][:26]
        compared += 1
    assert compared > 90
    assert others == {
        "Ichimoku": "line(26)",
        "HeikinAshi": "by bar, without preload or",
        "haDelta": "by bar, without preload or",
        "PivotPoint": "does not follow one feed",
        "FibonacciPivotPoint": "does not follow one feed",
        "DemarkPivotPoint": "does not follow one feed",
    }
