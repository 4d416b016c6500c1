"""The equity curve is the broker's own value, bar by bar and to the bit; and what must hold of every account."""

from __future__ import annotations

import random
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import days, frame, market, walk

from engine.cerebro.clock import to_nanoseconds
from engine.config import BrokerConfig, CommissionConfig, RiskConfig
from engine.data.bars import Bars
from engine.simulation.simulate import Simulation, simulate


class Gambler(bt.Strategy):
    """Trades at random, and writes the broker's value and cash down at each bar, before it does."""

    params = (("seed", 0), ("book", None), ("brackets", True))

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        self.p.book.append((to_nanoseconds(self.datetime[0]), self.broker.getvalue(), self.broker.getcash()))
        for data in self.datas:
            dice = random.Random(f"{self.p.seed} {data._name} {len(self)}")
            if not len(data) or data.datetime[0] != self.datetime[0] or dice.random() < 0.5:
                continue
            close, size = data.close[0], dice.randint(1, 40)
            held = self.getposition(data).size
            if held and dice.random() < 0.4:
                self.close(data)
            elif dice.random() < 0.3 and self.p.brackets:
                self.buy_bracket(data=data, size=size, price=close, stopprice=close * 0.97, limitprice=close * 1.04)
            elif dice.random() < 0.5:
                self.buy(data, size=size, valid=0 if dice.random() < 0.5 else None)
            else:
                self.sell(data, size=size, exectype=bt.Order.Limit, price=close * 1.01)


def bars_of(frames: dict[str, pd.DataFrame]) -> Bars:
    return Bars(frames=frames, timeframe="1d", adjustment="none", source="made up", synthetic=True)


def gamble(
    frames: dict[str, pd.DataFrame], *, seed: int, risk: RiskConfig | None = None, **section: Any
) -> tuple[Simulation, pd.DataFrame]:
    """A run, and what its strategy wrote down."""
    book: list[tuple[int, float, float]] = []
    result = simulate(
        bars_of(frames),
        Gambler,
        {"seed": seed, "book": book},
        broker=BrokerConfig(cash=10_000.0, **section),
        risk=risk or RiskConfig(max_gross=2.0),
    )
    times, values, cash = zip(*book, strict=True)
    index = pd.to_datetime(list(times), utc=True)
    return result, pd.DataFrame({"equity": values, "cash": cash}, index=index)


ACCOUNTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "costs": {"commission": CommissionConfig(bps=3.0, minimum=1.0), "slippage_bps": 5.0},
    "short and borrowing": {"short": True, "borrow_rate_pct": 12.0, "margin_rate_pct": 20.0, "slippage_bps": 5.0},
    "cash account": {"account": "cash", "commission": CommissionConfig(per_share=0.01)},
}


@pytest.mark.parametrize("account", ACCOUNTS)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), symbols=st.integers(1, 4))
def test_the_equity_curve_is_the_brokers_value_to_the_bit(account: str, seed: int, symbols: int) -> None:
    result, book = gamble(market(symbols, 50, seed=seed), seed=seed, **ACCOUNTS[account])
    assert result.equity.index.equals(book.index)
    assert result.equity["equity"].tolist() == book["equity"].tolist()
    assert result.equity["cash"].tolist() == book["cash"].tolist()


@pytest.mark.parametrize("account", ACCOUNTS)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), symbols=st.integers(1, 4))
def test_what_must_hold_of_every_run(account: str, seed: int, symbols: int) -> None:
    frames = market(symbols, 50, seed=seed)
    section = ACCOUNTS[account]
    result, _ = gamble(frames, seed=seed, **section)
    ledger, orders = result.ledger, {order.id: order for order in result.orders}
    assert [order.id for order in result.orders] == list(range(1, len(orders) + 1))

    cash = 10_000.0 - ledger.interest_paid
    for fill in ledger.fills:
        order, bar = orders[fill.order_id], frames[fill.symbol].loc[pd.Timestamp(fill.time, tz="UTC")]
        assert fill.time > fill.decided == order.decided
        assert bar["low"] <= fill.reference_price <= bar["high"]
        assert fill.side * (fill.price - fill.reference_price) >= 0.0
        if order.type == "limit":
            assert fill.side * (fill.price - order.limit_price) <= 0.0
        cash -= fill.signed_quantity * fill.price + fill.commission
    assert cash == pytest.approx(ledger.cash)

    for order in orders.values():
        filled = sum(fill.quantity for fill in ledger.fills if fill.order_id == order.id)
        asked = min(order.quantity, order.parent_filled)  # a leg closes what its entry was filled for
        assert filled == order.filled_quantity <= asked
        assert (order.status == "filled") == (filled == asked)
    for symbol, bars in frames.items():
        held = sum(fill.signed_quantity for fill in ledger.fills if fill.symbol == symbol)
        assert held == ledger.quantity(symbol)
        assert section.get("short") or held >= 0.0
        assert bars.index[-1] >= max((pd.Timestamp(f.time, tz="UTC") for f in ledger.fills if f.symbol == symbol),
                                     default=bars.index[-1])  # fmt: skip

    profit = sum(trade.pnl for trade in result.trades) - ledger.interest_paid
    assert result.equity["equity"].iloc[-1] == pytest.approx(10_000.0 + profit)
    if account == "cash account":
        assert result.equity["cash"].min() >= 0.0
    assert (result.equity["gross_exposure"] >= 0.0).all()


def test_gross_exposure_by_hand() -> None:
    frames = {"A": frame([100.0, 100.0, 110.0]), "B": frame([50.0, 50.0, 40.0])}

    class Pair(bt.Strategy):
        def next(self) -> None:
            if len(self) == 1:
                self.buy(self.datas[0], size=20)
                self.sell(self.datas[1], size=40)

    broker = BrokerConfig(cash=10_000.0, short=True, borrow_rate_pct=0.0)
    equity = simulate(bars_of(frames), Pair, {}, broker=broker, risk=RiskConfig()).equity
    assert equity["equity"].tolist() == [10_000.0, 10_000.0, 10_600.0]
    assert equity["cash"].tolist() == [10_000.0] * 3
    assert equity["gross_exposure"].tolist() == [0.0, 0.4, pytest.approx((20 * 110 + 40 * 40) / 10_600)]


def test_interest_over_a_weekend_is_in_the_curve() -> None:
    """Short 100 at 100 on Thursday; a day's interest on Friday and three days' on Monday, each at that day's open."""
    times = pd.DatetimeIndex([f"2020-01-{day:02d} 21:00" for day in (8, 9, 10, 13)], tz="UTC", name="time").as_unit(
        "ns"
    )  # Wednesday to Friday, Monday

    class Shorts(bt.Strategy):
        def next(self) -> None:
            if len(self) == 1:
                self.sell(size=100)

    broker = BrokerConfig(cash=10_000.0, short=True, borrow_rate_pct=36.5)
    result = simulate(
        bars_of({"A": frame([100.0, 100.0, 101.0, 102.0], times)}), Shorts, {}, broker=broker, risk=RiskConfig()
    )
    friday, monday = 100 * 101.0 * 0.001, 3 * 100 * 102.0 * 0.001
    assert result.ledger.interest_paid == pytest.approx(friday + monday)
    assert result.equity["cash"].to_numpy() == pytest.approx(
        [10_000.0, 20_000.0, 20_000.0 - friday, 20_000.0 - friday - monday]
    )


# --- halts -----------------------------------------------------------------------------------------------------------


class Holder(bt.Strategy):
    """Buys whenever it holds nothing, and keeps an entry far below."""

    params = (("said", None),)

    def notify_order(self, order: Any) -> None:
        self.p.said.append((len(self), order.data._name, order.getstatusname(), order.info.get("reason", "")))

    def next(self) -> None:
        for data in self.datas:
            if not self.getposition(data):
                self.buy(data, size=40)
                self.buy(data, size=1, exectype=bt.Order.Limit, price=10.0)


def test_a_halt_flattens_at_the_next_bar_and_refuses_what_comes_after() -> None:
    """A falls by half on bar 4, which takes a fifth of the equity. All is sold at the open of bar 5."""
    fall = [100.0, 100.0, 100.0, 50.0, (60.0, 61.0, 59.0, 60.0), 60.0, 60.0]
    said: list[Any] = []
    result = simulate(
        bars_of({"A": frame(fall), "B": frame([100.0] * 7)}),
        Holder,
        {"said": said},
        broker=BrokerConfig(cash=10_000.0),
        risk=RiskConfig(max_drawdown_halt=0.15),
    )
    assert "drawdown 0.2000 of the peak 10000.00 passed the limit 0.15" in result.halted
    times = days(7)
    made = [(fill.symbol, fill.signed_quantity, fill.price, fill.time) for fill in result.ledger.fills]
    assert made == [
        ("A", 40.0, 100.0, times[1].value),
        ("B", 40.0, 100.0, times[1].value),
        ("A", -40.0, 60.0, times[4].value),
        ("B", -40.0, 100.0, times[4].value),
    ]
    limits = [order for order in result.orders if order.type == "limit" and order.decided == times[0].value]
    assert {order.status for order in limits} == {"canceled"}
    assert all(order.reason.startswith("risk.max_drawdown_halt") for order in limits)
    later = [order for order in result.orders if order.decided >= times[4].value]
    assert later
    assert {order.status for order in later} == {"refused"}
    assert all(order.reason.startswith("trading is halted") for order in later)
    assert result.equity["equity"].iloc[-3:].tolist() == [8_400.0] * 3
    assert result.equity["gross_exposure"].iloc[-3:].tolist() == [0.0] * 3
    assert ("A", "Canceled") in [row[1:3] for row in said if row[0] == 3]


def test_a_halt_sells_what_it_holds_of_a_symbol_without_a_bar_when_that_has_one() -> None:
    times = days(7)
    frames = {
        "A": frame([100.0, 100.0, 100.0, 40.0, 40.0, 40.0, 40.0], times),
        "B": frame([100.0, 100.0, 100.0, 90.0], times[[0, 1, 2, 6]]),
    }
    result = simulate(
        bars_of(frames), Holder, {"said": []},
        broker=BrokerConfig(cash=10_000.0), risk=RiskConfig(max_drawdown_halt=0.15),
    )  # fmt: skip
    exits = [(fill.symbol, fill.price, fill.time) for fill in result.ledger.fills if fill.side < 0]
    assert exits == [("A", 40.0, times[4].value), ("B", 90.0, times[6].value)]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_after_a_halt_positions_only_shrink(seed: int) -> None:
    frames = {name: walk(days(60), seed=seed + i, volatility=0.05) for i, name in enumerate("ABC")}
    risk = RiskConfig(max_gross=2.0, max_drawdown_halt=0.05)
    result, book = gamble(frames, seed=seed, risk=risk, short=True)
    if not result.halted:
        return
    equity = book["equity"].to_numpy()
    drawdowns = 1.0 - equity / np.maximum.accumulate(np.maximum(equity, 10_000.0))
    halt = book.index[int(np.argmax(drawdowns > 0.05))].value
    held: dict[str, float] = {}
    for fill in result.ledger.fills:
        before = held.get(fill.symbol, 0.0)
        held[fill.symbol] = before + fill.signed_quantity
        if fill.time > halt:
            assert abs(held[fill.symbol]) <= abs(before)
    if halt < book.index[-1].value:  # at the last bar there is no next one to sell at
        assert not any(held.values())


def test_a_short_that_the_market_runs_away_from_ends_in_a_margin_call() -> None:
    """100,000 in cash and 1,000 shares short at 100: at 165 the equity of 35,000 is below a quarter of 165,000."""

    class Short(bt.Strategy):
        def next(self) -> None:
            if len(self) == 1:
                self.sell(size=1_000)

    closes = [100.0, 100.0, 140.0, 155.0, 165.0, 170.0, 300.0, 500.0]
    result = simulate(
        bars_of({"A": frame(closes)}),
        Short,
        {},
        broker=BrokerConfig(short=True, borrow_rate_pct=0.0),
        risk=RiskConfig(max_gross=2.0),
    )
    assert "margin call: equity 35000.00" in result.halted
    assert [(fill.signed_quantity, fill.price) for fill in result.ledger.fills] == [(-1_000.0, 100.0), (1_000.0, 170.0)]
    assert result.equity["equity"].iloc[-1] == 30_000.0


def test_a_strategy_cannot_cancel_the_orders_of_a_halt() -> None:
    class Stubborn(bt.Strategy):
        def next(self) -> None:
            if len(self) == 1:
                self.buy(size=500)

        def notify_order(self, order: Any) -> None:
            if order.issell() and order.alive():
                self.cancel(order)

    result = simulate(
        bars_of({"A": frame([100.0, 100.0, 100.0, 60.0, 60.0, 60.0])}),
        Stubborn,
        {},
        broker=BrokerConfig(),
        risk=RiskConfig(max_drawdown_halt=0.1),
    )
    assert result.halted
    assert result.ledger.quantity("A") == 0.0
