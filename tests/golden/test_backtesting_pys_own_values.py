"""backtesting.py's published result: its own SmaCross(10, 30) on its own prices of Google, 2004 to 2013.

Where the two agree: signals, next-open fills, prices, the value at each close. Where they cannot, and what follows:

- Its orders for "all the money" are sized when they fill, at the open; a backtrader strategy sizes them at the close
  before, when it decides. Here the sizes are taken from its trades.
- It reverses in one bar. Our broker, as Alpaca, refuses an order that crosses zero, and reverses a bar later; so the
  whole strategy is compared with backtrader's broker in our loop, and our broker on its long and on its short half.
- Its published figures close what is open at the end at the *open* of the last bar, which is over by then; we mark it
  at the last close. Every equity but the last is the same, and the last differs by that bar's move.

The package is AGPL: the test uses it where it is installed, and the product never imports it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from engine.cerebro.feed import ArrayFeed
from engine.cerebro.loop import Engine
from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.report.metrics import drawdowns
from engine.simulation.simulate import simulate

CASH = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Reference:
    """backtesting.py's run: its bars as ours, its figures, its trades and its equity at each close."""

    bars: pd.DataFrame
    figures: Mapping[str, Any]
    trades: pd.DataFrame
    equity: pd.Series

    @property
    def last_move(self) -> float:
        """What the position that is open at the end made between the open and the close of the last bar."""
        bar, trade = self.bars.iloc[-1], self.trades.iloc[-1]
        assert trade["ExitBar"] == len(self.bars) - 1
        return float(trade["Size"] * (bar["close"] - bar["open"]))

    @property
    def sizes(self) -> dict[int, float]:
        """Signed size of each entry, by the position of the bar that decided it."""
        return {int(trade.EntryBar) - 1: float(trade.Size) for trade in self.trades.itertuples()}


def reference(sides: str) -> Reference:
    """Run it for the long side, the short side, or ``both``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backtesting = pytest.importorskip("backtesting", reason="backtesting.py is not installed")
        from backtesting.lib import crossover
        from backtesting.test import GOOG, SMA

        class SmaCross(backtesting.Strategy):
            def init(self) -> None:
                self.fast = self.I(SMA, self.data.Close, 10)
                self.slow = self.I(SMA, self.data.Close, 30)

            def next(self) -> None:
                up, down = crossover(self.fast, self.slow), crossover(self.slow, self.fast)
                if up or down:
                    self.position.close()
                if up and sides != "short":
                    self.buy()
                if down and sides != "long":
                    self.sell()

        found = backtesting.Backtest(GOOG, SmaCross, cash=CASH, finalize_trades=True).run()
    bars = GOOG.rename(columns=str.lower).astype(float)
    ends = pd.DatetimeIndex(bars.index + pd.Timedelta(hours=21), tz="UTC").as_unit("ns").rename("time")
    return Reference(
        bars=bars.set_axis(ends), figures=found, trades=found["_trades"], equity=found["_equity_curve"]["Equity"]
    )


class SmaCross(bt.Strategy):
    """The same crosses; how much to enter with at a bar is given."""

    params = (("sizes", {}), ("values", None))

    def __init__(self) -> None:
        self.fast = bt.ind.SMA(self.data.close, period=10)
        self.slow = bt.ind.SMA(self.data.close, period=30)

        self.entries: list[tuple[float, float]] = []

    def notify_trade(self, trade: Any) -> None:
        if trade.justopened:
            self.entries.append((trade.size, trade.price))

    def prenext(self) -> None:
        self.p.values.append(self.broker.getvalue())

    def next(self) -> None:
        self.p.values.append(self.broker.getvalue())
        before, now = self.fast[-1] - self.slow[-1], self.fast[0] - self.slow[0]
        if before * now < 0.0:
            self.close()
            size = self.p.sizes.get(len(self) - 1, 0.0)
            if size * now > 0.0:
                self.buy(size=size) if size > 0.0 else self.sell(size=-size)


def worst_drawdown_pct(values: list[float]) -> float:
    """As our reports say it, with backtesting.py's sign."""
    return -100.0 * float(drawdowns(pd.Series(values)).abs().max())


def test_the_whole_strategy_with_backtraders_broker_in_our_loop() -> None:
    expected = reference("both")
    assert f"{expected.figures['Equity Final [$]']:,.2f}" == "51,422.99"
    assert expected.figures["# Trades"] == 66
    assert f"{expected.figures['Max. Drawdown [%]']:.2f}" == "-47.98"
    assert f"{expected.figures['Sharpe Ratio']:.4f}" == "0.5806"

    engine = Engine()
    engine.broker.setcash(CASH)
    engine.broker.set_checksubmit(False)  # it would price the entry at the close before, and drop some
    engine.adddata(ArrayFeed(dataname=expected.bars, name="GOOG", bars="1d"))
    values: list[float] = []
    engine.addstrategy(SmaCross, sizes=expected.sizes, values=values)
    engine.addanalyzer(bt.analyzers.TradeAnalyzer)
    strategy = engine.run()[0]
    assert engine.stock_reason == ""

    assert values[:-1] == pytest.approx(expected.equity.tolist()[:-1], rel=1e-12)
    assert f"{values[-1] - expected.last_move:,.2f}" == "51,422.99"
    assert f"{worst_drawdown_pct(values):.2f}" == "-47.98"
    assert strategy.analyzers[0].get_analysis().total.total == 66
    assert np.array(strategy.entries) == pytest.approx(expected.trades[["Size", "EntryPrice"]].to_numpy())


@pytest.mark.parametrize("side", ["long", "short"])
def test_each_half_with_our_broker(side: str) -> None:
    expected = reference(side)
    values: list[float] = []
    result = simulate(
        Bars(frames={"GOOG": expected.bars}, timeframe="1d", adjustment="none", source="backtesting.py"),
        SmaCross,
        {"sizes": expected.sizes, "values": values},
        broker=BrokerConfig(cash=CASH, short=True, borrow_rate_pct=0.0, margin_rate_pct=0.0),
        risk=RiskConfig(max_gross=2.0),
    )
    assert result.equity["equity"].tolist() == values
    moved = expected.last_move if side == "long" else 0.0  # the short side ends without a position
    assert values[:-1] == pytest.approx(expected.equity.tolist()[:-1], rel=1e-12)
    assert values[-1] - moved == pytest.approx(expected.equity.iloc[-1])
    assert len(result.trades) == len(expected.trades) == expected.figures["# Trades"] > 25
    assert worst_drawdown_pct(values) == pytest.approx(expected.figures["Max. Drawdown [%]"])
    ends = expected.bars.index
    for trade, theirs in zip(result.trades, expected.trades.itertuples(), strict=True):
        sign = 1.0 if trade.side == "long" else -1.0
        assert sign * trade.quantity == theirs.Size
        assert trade.entry_price == pytest.approx(theirs.EntryPrice)
        assert (trade.entry_time, trade.exit_time) == (ends[theirs.EntryBar].value, ends[theirs.ExitBar].value)
        if not trade.open:
            assert trade.exit_price == pytest.approx(theirs.ExitPrice)
            assert trade.pnl == pytest.approx(theirs.PnL)
