"""Metrics of what was traded and what it cost, and the whole of a run's metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from engine.report.metrics import Figures, finite, performance, periods_per_year, relative, session_returns
from engine.report.run import Metrics


def run_metrics(
    *,
    equity: pd.DataFrame,
    orders: pd.DataFrame,
    fills: pd.DataFrame,
    trades: pd.DataFrame,
    timeframe: str,
    borrow_and_margin_paid: float = 0.0,
    forecast: Mapping[str, float | int | None] | None = None,
) -> Metrics:
    """``metrics.json`` of a run: the strategy, the two curves it is held against, and its forecast's scores.

    Frames as in :class:`engine.report.run.Run`. A curve that is absent or all NaN gives no figures.
    """
    per_year = periods_per_year(timeframe)
    curves = {
        name: performance(equity[name], periods_per_year=per_year)
        if name in equity.columns and equity[name].notna().any()
        else {}
        for name in ("benchmark", "buy_and_hold")
    }
    strategy = strategy_metrics(
        equity=equity,
        orders=orders,
        fills=fills,
        trades=trades,
        timeframe=timeframe,
        borrow_and_margin_paid=borrow_and_margin_paid,
    )
    return {"strategy": strategy, **curves, "forecast": finite(forecast or {})}


def strategy_metrics(
    *,
    equity: pd.DataFrame,
    orders: pd.DataFrame,
    fills: pd.DataFrame,
    trades: pd.DataFrame,
    timeframe: str,
    borrow_and_margin_paid: float = 0.0,
) -> Figures:
    """The strategy's figures: its curve, its exposure, against the benchmark, its trades, its costs.

    ``alpha_ann_pct``, ``beta`` and their like are against the run file's benchmark, and None where it names none;
    ``return_over_buy_and_hold_pct`` is the difference of the two total returns, in points.
    """
    per_year = periods_per_year(timeframe)
    own = performance(equity["equity"], periods_per_year=per_year)
    none = pd.Series(np.nan, index=equity.index)
    hold = equity.get("buy_and_hold", none).dropna()
    held = (float(hold.iloc[-1]) / float(hold.iloc[0]) - 1.0) * 100 if len(hold) else None
    total = own["total_return_pct"]
    exposure = equity["gross_exposure"].to_numpy(dtype=float)
    return {
        **own,
        **finite(
            {
                "return_over_buy_and_hold_pct": total - held if total is not None and held is not None else None,
                "exposure_pct": float(np.mean(exposure > 0.0)) * 100 if len(exposure) else None,
                "average_gross_exposure_pct": float(np.mean(exposure)) * 100 if len(exposure) else None,
            }
        ),
        **relative(equity["equity"], equity.get("benchmark", none), periods_per_year=per_year),
        **trade_figures(trades),
        **cost_figures(
            orders=orders,
            fills=fills,
            equity=equity["equity"],
            years=len(session_returns(equity["equity"])) / per_year,
            borrow_and_margin_paid=borrow_and_margin_paid,
        ),
    }


def trade_figures(trades: pd.DataFrame) -> Figures:
    """Figures of the closed trades; a trade with pnl 0 is neither a win nor a loss.

    profit_factor = sum of wins / sum of losses; payoff_ratio = average win / average loss; expectancy = mean pnl of a
    trade, in account currency; sqn = sqrt(n) mean(pnl) / sd(pnl) (Tharp's system quality number, ddof 1);
    kelly_fraction = W - (1 - W) / payoff_ratio with W the share of wins; streaks in the order of exits.
    """
    closed = trades[~trades["open"].astype(bool)].sort_values("exit_time", kind="stable")
    pnl = closed["pnl"].to_numpy(dtype=float)
    returns = closed["return_pct"].to_numpy(dtype=float)
    wins, losses = pnl[pnl > 0.0], -pnl[pnl < 0.0]
    count = len(pnl)
    share = len(wins) / count if count else None
    payoff = float(wins.mean() / losses.mean()) if len(wins) and len(losses) else None
    sd = float(pnl.std(ddof=1)) if count > 1 else 0.0
    return finite(
        {
            "trades": count,
            "open_trades": len(trades) - count,
            "win_rate_pct": None if share is None else share * 100,
            "best_trade_pct": float(returns.max()) if count else None,
            "worst_trade_pct": float(returns.min()) if count else None,
            "average_trade_pct": float(returns.mean()) if count else None,
            "profit_factor": float(wins.sum() / losses.sum()) if len(losses) else None,
            "payoff_ratio": payoff,
            "expectancy": float(pnl.mean()) if count else None,
            "sqn": math.sqrt(count) * float(pnl.mean()) / sd if sd > 0.0 else None,
            "kelly_fraction": share - (1.0 - share) / payoff if share is not None and payoff else None,
            "longest_win_streak": _longest(pnl > 0.0),
            "longest_loss_streak": _longest(pnl < 0.0),
            "average_trade_bars": float(closed["bars"].mean()) if count else None,
        }
    )


def cost_figures(
    *, orders: pd.DataFrame, fills: pd.DataFrame, equity: pd.Series, years: float, borrow_and_margin_paid: float = 0.0
) -> Figures:
    """What trading cost, in account currency, and how much was traded.

    turnover_ann = half of the value bought and sold, over the average equity, a year: 1 is one full exchange of the
    account a year. costs_pct = all costs over the starting equity.
    """
    value = float((fills["quantity"].abs() * fills["price"]).sum())
    commission, slippage = float(fills["commission"].sum()), float(fills["slippage"].sum())
    average = float(equity.mean()) if len(equity) else 0.0
    paid = commission + slippage + borrow_and_margin_paid
    return finite(
        {
            "commission_paid": commission,
            "slippage_paid": slippage,
            "borrow_and_margin_paid": float(borrow_and_margin_paid),
            "costs_pct": paid / float(equity.iloc[0]) * 100 if len(equity) and equity.iloc[0] > 0.0 else None,
            "turnover_ann": value / 2.0 / average / years if average > 0.0 and years > 0.0 else None,
            "orders": int((orders["status"] != "refused").sum()),
            "orders_refused": int((orders["status"] == "refused").sum()),
            "fills": len(fills),
        }
    )


def _longest(flags: np.ndarray) -> int:
    longest = current = 0
    for flag in flags:
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest
