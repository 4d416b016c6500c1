"""Every formula against a value worked out by hand or published."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_run import sample_run
from skfolio.measures import probabilistic_sharpe_ratio as reference_psr

from engine.report.catalogue import METRICS
from engine.report.metrics import (
    annual_growth,
    drawdown_episodes,
    expected_shortfall,
    omega_ratio,
    performance,
    periods_per_year,
    probabilistic_sharpe_ratio,
    relative,
    session_end,
    session_returns,
    sharpe_ratio,
    sharpe_standard_error,
    sortino_ratio,
)
from engine.report.trade_metrics import cost_figures, run_metrics, trade_figures


def curve(values: list[float], *, start: str = "2024-01-01 21:00", freq: str = "D") -> pd.Series:
    return pd.Series(values, index=pd.date_range(start, periods=len(values), freq=freq, tz="UTC"), dtype=float)


def test_sharpe_by_hand() -> None:
    # mean .01, sd (ddof 1) sqrt((.0001 + .0001) / 2) = .01: one a period.
    sharpe = sharpe_ratio(np.array([0.0, 0.01, 0.02]), 252.0)
    assert sharpe.value == pytest.approx(math.sqrt(252))
    half = 1.959963984540054 * math.sqrt(1.5 / 3) * math.sqrt(252)
    assert (sharpe.low, sharpe.high) == (pytest.approx(sharpe.value - half), pytest.approx(sharpe.value + half))


def test_lo_standard_error_reference() -> None:
    assert sharpe_standard_error(0.5, 60) == pytest.approx(0.13693, abs=5e-6)


def test_probabilistic_sharpe_reference() -> None:
    value = probabilistic_sharpe_ratio(0.458, periods=24, skew=-2.448, kurtosis=10.164)
    assert value == pytest.approx(0.9134, abs=5e-5)


def test_probabilistic_sharpe_agrees_with_skfolio() -> None:
    returns = np.random.default_rng(3).standard_t(5, 300) * 0.01 + 0.0005
    own = performance(curve(list(np.cumprod(np.r_[1.0, 1.0 + returns]))))["probabilistic_sharpe_ratio"]
    assert own == pytest.approx(float(reference_psr(returns)), rel=1e-6)


def test_sortino_omega_and_shortfall_by_hand() -> None:
    returns = np.array([0.03, -0.01, 0.02, -0.02])
    # mean .005; downside sqrt((.0001 + .0004) / 4)
    assert sortino_ratio(returns, 4.0) == pytest.approx(0.005 / math.sqrt(0.000125) * 2)
    assert omega_ratio(returns) == pytest.approx(0.05 / 0.03)
    # the 5 % quantile lies between the two lowest, so only the lowest is at or below it
    assert expected_shortfall(returns) == pytest.approx(-0.02)


def test_growth_doubles_in_a_year() -> None:
    equity = pd.Series([100.0, 200.0], index=pd.to_datetime(["2023-01-01", "2024-01-01"], utc=True))
    assert annual_growth(equity) == pytest.approx(2 ** (365.25 / 365) - 1)


def test_growth_over_a_few_days_is_not_annualised() -> None:
    assert annual_growth(curve([100, 110, 120])) is None


def test_drawdowns_by_hand() -> None:
    equity = curve([100, 120, 90, 108, 120, 114, 126, 125])
    episodes = drawdown_episodes(equity)
    assert episodes["depth_pct"].tolist() == pytest.approx([-25.0, -5.0, -100 / 126])
    assert episodes["days"].tolist() == [3.0, 2.0, 1.0]
    assert episodes["recovery"].isna().tolist() == [False, False, True]
    figures = performance(equity)
    assert figures["max_drawdown_pct"] == pytest.approx(-25.0)
    assert figures["average_drawdown_pct"] == pytest.approx(-(25 + 5 + 100 / 126) / 3)
    assert figures["max_drawdown_duration_days"] == 3.0
    squares = 25.0**2 + 10.0**2 + 5.0**2 + (100 / 126) ** 2
    assert figures["ulcer_index_pct"] == pytest.approx(math.sqrt(squares / 8))
    assert figures["total_return_pct"] == pytest.approx(25.0)
    assert (figures["best_period_pct"], figures["worst_period_pct"]) == (pytest.approx(20.0), pytest.approx(-25.0))
    assert (figures["final_equity"], figures["peak_equity"], figures["periods"]) == (125.0, 126.0, 7)


def test_minute_bars_are_judged_by_session_and_their_drawdown_by_bar() -> None:
    equity = curve([100, 80, 110, 121], start="2024-01-02 20:00", freq="30min")
    equity = pd.concat([equity, curve([130, 121], start="2024-01-03 15:00", freq="30min")])
    assert session_end(equity).tolist() == [100, 121, 121]
    assert session_returns(equity).tolist() == pytest.approx([0.21, 0.0])
    assert performance(equity)["max_drawdown_pct"] == pytest.approx(-20.0)


def test_annualisation_by_timeframe() -> None:
    assert [periods_per_year(t) for t in ("1d", "5m", "1h", "1w")] == [252, 252, 252, 52]


def test_against_the_benchmark_by_hand() -> None:
    benchmark = curve([100, 110, 99, 108.9])  # +10 %, -10 %, +10 %
    returns = 0.001 + 0.5 * np.array([0.1, -0.1, 0.1])
    figures = relative(curve(list(100 * np.cumprod(np.r_[1, 1 + returns]))), benchmark, periods_per_year=252)
    assert figures["beta"] == pytest.approx(0.5)
    assert figures["alpha_ann_pct"] == pytest.approx(25.2)
    assert figures["correlation"] == pytest.approx(1.0)
    gaps = returns - np.array([0.1, -0.1, 0.1])
    assert figures["tracking_error_ann_pct"] == pytest.approx(gaps.std(ddof=1) * math.sqrt(252) * 100)
    assert figures["information_ratio"] == pytest.approx(gaps.mean() / gaps.std(ddof=1) * math.sqrt(252))


def test_without_benchmark_nothing_is_relative() -> None:
    figures = relative(curve([1, 2, 3]), pd.Series(np.nan, index=curve([1, 2, 3]).index))
    assert set(figures.values()) == {None}


@pytest.mark.parametrize("values", [[100.0] * 40, [100.0], []])
def test_a_curve_without_movement_has_no_ratios(values: list[float]) -> None:
    figures = performance(curve(values))
    for key in ("sharpe_ratio", "sharpe_low", "sortino_ratio", "calmar_ratio", "omega_ratio", "tail_ratio", "skew"):
        assert figures[key] is None


def test_steady_growth_has_no_sharpe_ratio() -> None:
    assert performance(curve(list(100 * 1.001 ** np.arange(50))))["sharpe_ratio"] is None


def test_ruin_ends_the_returns() -> None:
    figures = performance(curve([100.0] * 40 + [50.0, -10.0, 5.0]))
    assert figures["periods"] == 41
    assert figures["worst_period_pct"] == pytest.approx(-120.0)
    assert all(v is None or math.isfinite(v) for v in figures.values())


@given(st.lists(st.floats(1.0, 1e6), max_size=60))
def test_figures_are_finite_or_none(values: list[float]) -> None:
    figures = performance(curve(values))
    assert all(v is None or math.isfinite(v) for v in figures.values())


@given(st.lists(st.floats(1.0, 1e4), min_size=2, max_size=60), st.floats(0.5, 100.0))
def test_the_size_of_the_account_changes_no_ratio(values: list[float], scale: float) -> None:
    one, other = performance(curve(values)), performance(curve([v * scale for v in values]))
    for key in ("total_return_pct", "max_drawdown_pct", "value_at_risk_95_pct"):
        assert one[key] == pytest.approx(other[key], rel=1e-6, abs=1e-6)


def trades_of(pnl: list[float], open_: list[bool] | None = None) -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=len(pnl), tz="UTC")
    return pd.DataFrame(
        {
            "exit_time": times,
            "pnl": pnl,
            "return_pct": [p / 10 for p in pnl],
            "bars": 4,
            "open": open_ or [False] * len(pnl),
        }
    )


def test_trades_by_hand() -> None:
    figures = trade_figures(trades_of([10, 20, -10, 30, -20, -6, 99], [False] * 6 + [True]))
    pnl = np.array([10, 20, -10, 30, -20, -6])
    assert (figures["trades"], figures["open_trades"]) == (6, 1)
    assert figures["win_rate_pct"] == pytest.approx(50.0)
    assert (figures["best_trade_pct"], figures["worst_trade_pct"]) == (3.0, -2.0)
    assert figures["average_trade_pct"] == pytest.approx(0.4)
    assert figures["profit_factor"] == pytest.approx(60 / 36)
    assert figures["payoff_ratio"] == pytest.approx(20 / 12)
    assert figures["expectancy"] == pytest.approx(4.0)
    assert figures["sqn"] == pytest.approx(math.sqrt(6) * 4.0 / pnl.std(ddof=1))
    assert figures["kelly_fraction"] == pytest.approx(0.5 - 0.5 / (20 / 12))
    assert (figures["longest_win_streak"], figures["longest_loss_streak"]) == (2, 2)
    assert figures["average_trade_bars"] == 4.0


def test_no_trades_no_figures() -> None:
    figures = trade_figures(trades_of([]))
    assert (figures["trades"], figures["longest_win_streak"]) == (0, 0)
    assert figures["win_rate_pct"] is figures["profit_factor"] is figures["sqn"] is None


def test_costs_by_hand() -> None:
    fills = pd.DataFrame(
        {"quantity": [10.0, 10.0], "price": [100.0, 110.0], "commission": [1.0, 1.5], "slippage": [0.5, 0.5]}
    )
    orders = pd.DataFrame({"status": ["filled", "refused", "filled"]})
    figures = cost_figures(
        orders=orders, fills=fills, equity=curve([1000, 1100]), years=0.5, borrow_and_margin_paid=2.0
    )
    assert (figures["commission_paid"], figures["slippage_paid"], figures["borrow_and_margin_paid"]) == (2.5, 1.0, 2.0)
    assert figures["costs_pct"] == pytest.approx(0.55)
    assert figures["turnover_ann"] == pytest.approx(2100 / 2 / 1050 / 0.5)
    assert (figures["orders"], figures["orders_refused"], figures["fills"]) == (2, 1, 2)


def test_a_run_has_every_metric_named_and_described() -> None:
    run = sample_run()
    assert set(run.metrics) == {"strategy", "benchmark", "buy_and_hold", "forecast"}
    assert set(run.metrics["strategy"]) == set(METRICS)
    assert set(run.metrics["buy_and_hold"]) <= set(METRICS)
    excess = run.metrics["strategy"]["total_return_pct"] - run.metrics["buy_and_hold"]["total_return_pct"]  # type: ignore[operator]
    assert run.metrics["strategy"]["return_over_buy_and_hold_pct"] == pytest.approx(excess)


def test_a_run_that_did_nothing_has_metrics() -> None:
    run = sample_run(benchmark=False)
    nothing = run.equity.assign(equity=1000.0, cash=1000.0, gross_exposure=0.0)
    metrics = run_metrics(
        equity=nothing, orders=run.orders[:0], fills=run.fills[:0], trades=run.trades[:0], timeframe="1d"
    )
    assert metrics["benchmark"] == {}
    assert metrics["forecast"] == {}
    assert (metrics["strategy"]["turnover_ann"], metrics["strategy"]["exposure_pct"]) == (0.0, 0.0)
