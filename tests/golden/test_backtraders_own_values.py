"""backtrader's published results: its own moving-average test, under its loop and ours, with its broker and ours.

The strategy is the one of backtrader's own test-suite: one share in the market while the close is above its 15-bar
average, and no new order while one is waiting. With the stock's own prices the account holds shares; in the
futures-like case a contract ties up a margin of 1,000, multiplies prices by 10 and costs 2.00, which only backtrader's
broker knows. None of the traps of that broker is met in either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from engine.cerebro.feed import ArrayFeed
from engine.cerebro.loop import Engine
from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.simulation.simulate import simulate

pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")

FILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "backtrader_datas" / "2006-day-001.txt"
CASH = 10_000.0
FUTURES = {"commission": 2.0, "mult": 10.0, "margin": 1_000.0}


class Cross(bt.Strategy):
    """One share while the close is above its average."""

    params = (("period", 15),)

    def __init__(self) -> None:
        self.waiting: Any = None
        self.bought: list[float] = []
        self.sold: list[float] = []
        self.cross = bt.ind.CrossOver(self.data.close, bt.ind.SMA(self.data, period=self.p.period))

    def notify_order(self, order: Any) -> None:
        if order.status in (order.Submitted, order.Accepted):
            return
        if order.status == order.Completed:
            (self.bought if order.isbuy() else self.sold).append(order.executed.price)
        self.waiting = None

    def next(self) -> None:
        if self.waiting:
            return
        if not self.position.size:
            if self.cross[0] > 0.0:
                self.waiting = self.buy(size=1)
        elif self.cross[0] < 0.0:
            self.waiting = self.close()


def published_bars() -> pd.DataFrame:
    """The bars of backtrader's own tests, from beside the checkout."""
    if not FILE.is_file():
        pytest.skip(f"backtrader's own bars are not at {FILE.name} in ../shared/data/backtrader_datas")
    bars = pd.read_csv(FILE, index_col="Date", parse_dates=True).rename(columns=str.lower)
    return stamped(bars[["open", "high", "low", "close", "volume"]].astype(float))


def made_bars() -> pd.DataFrame:
    """Bars from whole-number arithmetic alone: two triangle waves and a sawtooth of gaps, in quarters."""
    i = np.arange(400)
    wave = np.abs(i % 46 - 23) * 3.0 + np.abs(i % 14 - 7) * 2.0 + i * 37 % 11
    close = 3_500.0 + wave
    opening = np.concatenate([[3_500.0], close[:-1]]) + (i * 29 % 9 - 4) * 0.25
    high, low = np.maximum(opening, close) + i * 13 % 5 * 0.5, np.minimum(opening, close) - i * 17 % 7 * 0.5
    days = pd.bdate_range("2006-01-02", periods=len(i))
    frame = pd.DataFrame({"open": opening, "high": high, "low": low, "close": close, "volume": 1.0}, index=days)
    return stamped(frame)


def stamped(bars: pd.DataFrame) -> pd.DataFrame:
    """Days as bar ends."""
    return bars.set_axis(pd.DatetimeIndex(bars.index + pd.Timedelta(hours=21), tz="UTC").as_unit("ns").rename("time"))


def stock_feed(bars: pd.DataFrame) -> Any:
    naive = bars.set_axis(pd.DatetimeIndex(bars.index).tz_localize(None).as_unit("us"))
    return bt.feeds.PandasData(dataname=naive, name="A")


def our_feed(bars: pd.DataFrame) -> Any:
    return ArrayFeed(dataname=bars, name="A", bars="1d")


Loop = tuple[type[bt.Cerebro], Any, dict[str, bool]]
STOCK: Loop = (bt.Cerebro, stock_feed, {})
LOOPS: dict[str, Loop] = {
    "stock": STOCK,
    "stock, our feed": (bt.Cerebro, our_feed, {}),
    "stock, without runonce": (bt.Cerebro, stock_feed, {"runonce": False}),
    "stock, without preload": (bt.Cerebro, our_feed, {"preload": False}),
    "lean": (Engine, our_feed, {}),
    "lean, stock feed": (Engine, stock_feed, {}),
}
every_loop = pytest.mark.parametrize("loop", LOOPS)


def run(loop: Loop, bars: pd.DataFrame, contract: dict[str, float] | None = None, period: int = 15) -> Any:
    """Play it with backtrader's own broker."""
    kind, feed, settings = loop
    cerebro = kind(stdstats=False, **settings)
    cerebro.broker.setcash(CASH)
    if contract:
        cerebro.broker.setcommission(**contract)
    cerebro.adddata(feed(bars))
    cerebro.addstrategy(Cross, period=period)
    for analyzer in (bt.analyzers.SQN, bt.analyzers.TradeAnalyzer, bt.analyzers.DrawDown):
        cerebro.addanalyzer(analyzer, _name=analyzer.__name__)
    strategy = cerebro.run()[0]
    if kind is Engine:
        assert cerebro.stock_reason == ""
    return strategy


def outcome(strategy: Any) -> tuple[Any, ...]:
    """Value and cash at the end, prices of all fills, and what the analyzers say."""
    analyses = [str(analyzer.get_analysis()) for analyzer in strategy.analyzers]
    return (strategy.broker.getvalue(), strategy.broker.getcash(), strategy.bought, strategy.sold, *analyses)


def ours(bars: pd.DataFrame, period: int = 15) -> Any:
    """Play it with our broker."""
    used = Bars(frames={"A": bars}, timeframe="1d", adjustment="none", source="golden")
    return simulate(used, Cross, {"period": period}, broker=BrokerConfig(cash=CASH), risk=RiskConfig())


# --- on backtrader's own bars ----------------------------------------------------------------------------------------


@every_loop
def test_shares(loop: str) -> None:
    strategy = run(LOOPS[loop], published_bars())
    assert f"{strategy.broker.getvalue():.2f}" == "10284.10"
    assert f"{strategy.broker.getcash():.2f}" == "6164.16"


@every_loop
def test_futures(loop: str) -> None:
    strategy = run(LOOPS[loop], published_bars(), FUTURES)
    assert f"{strategy.broker.getvalue():.2f}" == "12795.00"
    assert f"{strategy.broker.getcash():.2f}" == "11795.00"
    found = strategy.analyzers.SQN.get_analysis()
    assert f"{found.sqn:.5f}" == "0.91255"
    assert found.trades == 11


def test_shares_with_our_broker() -> None:
    result, reference = ours(published_bars()), run(STOCK, published_bars())
    assert f"{result.equity['equity'].iloc[-1]:.2f}" == "10284.10"
    assert f"{result.ledger.cash:.2f}" == "6164.16"
    assert sum(not trade.open for trade in result.trades) == 11
    assert [fill.price for fill in result.ledger.fills if fill.side > 0] == reference.bought
    assert [fill.price for fill in result.ledger.fills if fill.side < 0] == reference.sold


# --- on made bars ----------------------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("contract", [None, FUTURES], ids=["shares", "futures"])
@pytest.mark.parametrize("period", [5, 15, 40])
def test_every_loop_gives_the_stock_loops_result_on_made_bars(
    loop: str, contract: dict[str, float] | None, period: int
) -> None:
    reference = run(STOCK, made_bars(), contract, period)
    assert len(reference.bought) > 5
    assert outcome(run(LOOPS[loop], made_bars(), contract, period)) == outcome(reference)


@pytest.mark.parametrize("period", [5, 15, 40])
def test_our_broker_gives_backtraders_result_on_made_bars(period: int) -> None:
    result, reference = ours(made_bars(), period), run(STOCK, made_bars(), None, period)
    assert result.equity["equity"].iloc[-1] == reference.broker.getvalue()
    assert result.ledger.cash == reference.broker.getcash()
    assert [fill.price for fill in result.ledger.fills if fill.side > 0] == reference.bought
    assert [fill.price for fill in result.ledger.fills if fill.side < 0] == reference.sold


def test_made_bars_give_what_they_always_gave() -> None:
    """Quarters add without rounding, so these figures are exact anywhere."""
    shares, futures = run(STOCK, made_bars()), run(STOCK, made_bars(), FUTURES)
    assert (shares.broker.getvalue(), shares.broker.getcash()) == (10_260.75, 6_735.75)
    assert (futures.broker.getvalue(), futures.broker.getcash()) == (12_561.5, 11_561.5)
    assert shares.analyzers.SQN.get_analysis().trades == 11
