"""Promise 1 for every shipped strategy: the future changes no earlier order, fill or equity, in either loop."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import Trace, assert_causal, assert_future_unseen, assert_same
from subjects import (
    daily_bars,
    fills_in,
    load,
    of_strategy,
    of_strategy_on_stock_loop,
    one_symbol,
    orders_in,
    shipped_strategies,
    tiny_forecaster,
)

from models.forecaster import Forecaster

# The longest memory of a shipped strategy with its default parameters: SmaCross's slow average.
WARMUP = 50
KINDS = shipped_strategies()
SESSIONS = daily_bars(of_sessions=True)
STOCK_RUNS = {
    "arrays at once": {},
    "preloaded, bar by bar": {"runonce": False},
    "bar by bar": {"runonce": False, "preload": False},
}


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return tiny_forecaster()


@pytest.mark.parametrize("bars", [SESSIONS, one_symbol(SESSIONS)], ids=["three symbols", "one symbol"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_future_changes_no_earlier_order_or_fill(kind: str, bars, forecaster: Forecaster):
    subject = of_strategy(lambda: load(kind, forecaster))
    trace = subject(bars)
    assert orders_in(trace), "a strategy that never trades would pass without a test"
    assert fills_in(trace)
    assert_causal(subject, bars, warmup=WARMUP)
    assert_future_unseen(subject, bars, trace, cuts=some_decisions(trace), seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_bar_changes_no_order_that_a_cash_account_cuts(kind: str, forecaster: Forecaster):
    """An order that the account cannot pay in full at the next open was given in full all the same."""
    subject = of_strategy(lambda: load(kind, forecaster), account="cash", short=False)
    trace = subject(SESSIONS)
    assert orders_in(trace)
    assert_future_unseen(subject, SESSIONS, trace, cuts=some_decisions(trace), seed=3)


def some_decisions(trace: Trace) -> list[int]:
    """Some bars with orders: what was decided there may least of all depend on the next bar, which fills it."""
    decided = sorted({time for time, *_ in orders_in(trace)})
    return decided[:: max(1, len(decided) // 5)]


@pytest.mark.parametrize("run", STOCK_RUNS)
@pytest.mark.parametrize("bars", [SESSIONS, one_symbol(SESSIONS)], ids=["three symbols", "one symbol"])
@pytest.mark.parametrize("kind", KINDS)
def test_backtraders_own_loop_gives_the_same_orders_and_fills(kind: str, bars, run: str, forecaster: Forecaster):
    lean = of_strategy(lambda: load(kind, forecaster))
    stock = of_strategy_on_stock_loop(lambda: load(kind, forecaster), **STOCK_RUNS[run])
    assert_same(lean(bars), stock(bars), check=f"the stock loop, {run}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_fill_comes_after_the_bar_that_decided_it(kind: str, forecaster: Forecaster):
    trace = of_strategy(lambda: load(kind, forecaster))(SESSIONS)
    decided = {number: time for time, number, *_ in orders_in(trace)}
    assert all(decided[number] < time for time, number, *_ in fills_in(trace))


@pytest.mark.parametrize("factor", [0.5, 4.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_split_of_all_prices_changes_no_decision(kind: str, factor: float, forecaster: Forecaster):
    """Quantities follow the price; which symbol is bought or sold at which bar does not."""
    bars = SESSIONS
    split = {
        symbol: frame.assign(**{name: frame[name] * factor for name in ("open", "high", "low", "close")})
        for symbol, frame in bars.frames.items()
    }
    subject = of_strategy(lambda: load(kind, forecaster))
    before, after = (
        [(time, symbol, side) for time, _, symbol, side, *_ in orders_in(subject(each))]
        for each in (bars, replace(bars, frames=split))
    )
    assert after == before
