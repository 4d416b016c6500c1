"""Metrics of an equity curve: pure functions, each with its formula.

Conventions, for every timeframe:

- Ratios and return statistics are computed on *session-end* equity: the last bar of each UTC day, so that a minute
  strategy and a daily one are judged on the same scale and overnight moves count. A weekly run has one value a week.
- r[t] = equity[t] / equity[t-1] - 1, simple returns. The risk-free rate is 0.
- A ratio is annualised by sqrt(periods a year): 252 sessions, or 52 weeks.
- Drawdowns are measured on every bar. Losses are negative: a max_drawdown_pct of -12 is a fall of 12 %.
- What is undefined (no variation, no losses, no time) is None: never NaN, never a warning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from engine.data.calendars import sessions_of

Figures = dict[str, float | int | None]
Array = NDArray[np.float64]

SESSIONS_PER_YEAR = 252.0
PERIODS_PER_YEAR = {"1w": 52.0, "1mo": 12.0}
DAYS_PER_YEAR = 365.25
MINIMUM_DAYS_TO_ANNUALISE = 30  # growth over fewer days, raised to a year, is a figure without meaning
NORMAL_95 = 1.959963984540054
_NO_VARIATION = 1e-12  # a standard deviation below this is rounding, not risk


def periods_per_year(timeframe: str) -> float:
    """Session-end returns a year: 52 for weekly bars, 12 for monthly ones, 252 for all others."""
    return PERIODS_PER_YEAR.get(timeframe, SESSIONS_PER_YEAR)


def session_end(equity: pd.Series) -> pd.Series:
    """The first value, then the last one of each New York session; NaN left out.

    The first bar is kept as the base, so that the return of the first session of an intraday run is counted.
    """
    equity = equity.dropna()
    if equity.empty:
        return equity
    days = sessions_of(pd.DatetimeIndex(equity.index))
    last = np.append(days[1:] != days[:-1], True)
    last[0] = True
    return equity[last]


def session_returns(equity: pd.Series) -> pd.Series:
    """Simple returns of session-end equity, up to and including the one that takes it to zero or below."""
    levels = session_end(equity)
    values = levels.to_numpy(dtype=float)
    ruined = np.flatnonzero(values <= 0.0)
    stop = int(ruined[0]) + 1 if ruined.size else len(values)
    values = values[:stop]
    if len(values) < 2:
        return pd.Series(dtype=float, index=levels.index[:0])
    return pd.Series(values[1:] / values[:-1] - 1.0, index=levels.index[1:stop])


def performance(equity: pd.Series, *, periods_per_year: float = SESSIONS_PER_YEAR) -> Figures:
    """All figures that need nothing but an equity curve, whoever made it.

    Args:
        equity: account value by bar end (UTC), strictly increasing in time; NaN is left out.
        periods_per_year: session-end returns a year, see :func:`periods_per_year`.
    """
    equity = equity.dropna()
    values = equity.to_numpy(dtype=float)
    returns = session_returns(equity).to_numpy()
    drawdown = drawdowns(equity).to_numpy()
    episodes = drawdown_episodes(equity)
    deepest = float(drawdown.min()) if len(drawdown) else None
    cagr = annual_growth(equity)
    sharpe = sharpe_ratio(returns, periods_per_year)
    return finite(
        {
            "total_return_pct": (values[-1] / values[0] - 1.0) * 100 if len(values) else None,
            "cagr_pct": None if cagr is None else cagr * 100,
            "volatility_ann_pct": _sd(returns) * math.sqrt(periods_per_year) * 100,
            "sharpe_ratio": sharpe.value,
            "sharpe_low": sharpe.low,
            "sharpe_high": sharpe.high,
            "probabilistic_sharpe_ratio": probabilistic_sharpe_of(returns),
            "sortino_ratio": sortino_ratio(returns, periods_per_year),
            "calmar_ratio": _ratio(cagr, -deepest) if cagr is not None and deepest is not None else None,
            "omega_ratio": omega_ratio(returns),
            "max_drawdown_pct": None if deepest is None else deepest * 100,
            "average_drawdown_pct": (float(episodes["depth_pct"].mean()) if len(episodes) else 0.0)
            if len(values)
            else None,
            "max_drawdown_duration_days": (float(episodes["days"].max()) if len(episodes) else 0.0)
            if len(values)
            else None,
            "ulcer_index_pct": float(np.sqrt(np.mean(drawdown**2))) * 100 if len(drawdown) else None,
            "value_at_risk_95_pct": _quantile(returns, 0.05, scale=100),
            "expected_shortfall_95_pct": expected_shortfall(returns, scale=100),
            "tail_ratio": _ratio(_quantile(returns, 0.95), -(_quantile(returns, 0.05) or 0.0)),
            "skew": _moment(returns, 3),
            "excess_kurtosis": _minus(_moment(returns, 4), 3.0),
            "best_period_pct": float(returns.max()) * 100 if len(returns) else None,
            "worst_period_pct": float(returns.min()) * 100 if len(returns) else None,
            "final_equity": float(values[-1]) if len(values) else None,
            "peak_equity": float(values.max()) if len(values) else None,
            "periods": len(returns),
        }
    )


def relative(equity: pd.Series, benchmark: pd.Series, *, periods_per_year: float = SESSIONS_PER_YEAR) -> Figures:
    """The curve against a benchmark, on the sessions both have.

    With n periods a year: beta = cov(r, b) / var(b); alpha = (mean r - beta mean b) n; tracking error =
    sd(r - b) sqrt(n); information ratio = mean(r - b) / sd(r - b) sqrt(n).
    """
    # Bars that one of them lacks go first, so that both returns of a row span the same time.
    common = pd.DataFrame({"own": equity, "other": benchmark}).dropna()
    returns = [session_returns(common[name]) for name in ("own", "other")]
    both = pd.concat(returns, axis=1, join="inner").to_numpy(dtype=float)
    names = ("alpha_ann_pct", "beta", "correlation", "r2", "information_ratio", "tracking_error_ann_pct")
    if len(both) < 2:
        return dict.fromkeys(names)
    own, other = both[:, 0], both[:, 1]
    difference = own - other
    information = sharpe_ratio(difference, periods_per_year).value
    tracking = _sd(difference) * math.sqrt(periods_per_year) * 100
    beta = correlation = None
    if _sd(other) > _NO_VARIATION:
        covariance = np.cov(own, other, ddof=1)
        beta = float(covariance[0, 1] / covariance[1, 1])
        if _sd(own) > _NO_VARIATION:
            correlation = float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))
    alpha = None if beta is None else (float(own.mean()) - beta * float(other.mean())) * periods_per_year * 100
    r2 = None if correlation is None else correlation**2
    return finite(dict(zip(names, (alpha, beta, correlation, r2, information, tracking), strict=True)))


@dataclass(frozen=True, kw_only=True)
class Sharpe:
    """An annualised Sharpe ratio and its 95 % interval; all None where returns do not vary."""

    value: float | None
    low: float | None
    high: float | None


def sharpe_ratio(returns: Array, periods_per_year: float) -> Sharpe:
    """mean / sd (ddof 1) x sqrt(periods a year), with Lo's standard error for independent returns.

    Per period, se = sqrt((1 + SR^2 / 2) / T) (Lo 2002, "The Statistics of Sharpe Ratios"); the interval is
    SR +- 1.96 se, annualised like SR.
    """
    sd = _sd(returns)
    if not sd > _NO_VARIATION:
        return Sharpe(value=None, low=None, high=None)
    ratio = float(returns.mean()) / sd
    error = NORMAL_95 * sharpe_standard_error(ratio, len(returns))
    scale = math.sqrt(periods_per_year)
    return Sharpe(value=ratio * scale, low=(ratio - error) * scale, high=(ratio + error) * scale)


def sharpe_standard_error(ratio: float, periods: int) -> float:
    """Lo's standard error of a per-period Sharpe ratio over that many independent returns."""
    return math.sqrt((1.0 + ratio**2 / 2.0) / periods)


def probabilistic_sharpe_ratio(
    ratio: float, *, periods: int, skew: float, kurtosis: float, threshold: float = 0.0
) -> float | None:
    """The probability that the true Sharpe ratio exceeds the threshold (Bailey and Lopez de Prado 2012).

    Phi((SR - SR*) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2)), all per period, with raw kurtosis g4 (normal: 3).
    None where the variance under the root is not positive.
    """
    variance = 1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    if periods < 2 or variance <= 0.0:
        return None
    return float(ndtr((ratio - threshold) * math.sqrt(periods - 1) / math.sqrt(variance)))


def probabilistic_sharpe_of(returns: Array) -> float | None:
    """The probability that the returns' true Sharpe ratio is above zero; None where they do not vary."""
    skew, kurtosis = _moment(returns, 3), _moment(returns, 4)
    if skew is None or kurtosis is None:
        return None
    return probabilistic_sharpe_ratio(
        float(returns.mean()) / _sd(returns), periods=len(returns), skew=skew, kurtosis=kurtosis
    )


def sortino_ratio(returns: Array, periods_per_year: float) -> float | None:
    """mean / sqrt(mean(min(r, 0)^2)) x sqrt(periods a year); None without a loss."""
    if len(returns) == 0:
        return None
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return _ratio(float(returns.mean()) * math.sqrt(periods_per_year), downside)


def omega_ratio(returns: Array) -> float | None:
    """Sum of gains over sum of losses, threshold 0; None without a loss."""
    return _ratio(float(np.maximum(returns, 0.0).sum()), float(np.maximum(-returns, 0.0).sum()))


def expected_shortfall(returns: Array, *, scale: float = 1.0) -> float | None:
    """Mean of the returns at or below their 5 % quantile, times ``scale``."""
    limit = _quantile(returns, 0.05)
    return None if limit is None else float(returns[returns <= limit].mean()) * scale


def annual_growth(equity: pd.Series) -> float | None:
    """(last / first)^(365.25 / calendar days) - 1; None below 30 days, -1 where the equity was lost."""
    equity = equity.dropna()
    if len(equity) < 2:
        return None
    days = (equity.index[-1] - equity.index[0]) / pd.Timedelta(days=1)
    if days < MINIMUM_DAYS_TO_ANNUALISE:
        return None
    growth = float(equity.iloc[-1] / equity.iloc[0])
    return growth ** (DAYS_PER_YEAR / days) - 1.0 if growth > 0.0 else -1.0


def drawdowns(equity: pd.Series) -> pd.Series:
    """equity / highest equity so far - 1, as a fraction: 0 at a peak, negative below it."""
    return equity / equity.cummax() - 1.0


def drawdown_episodes(equity: pd.Series) -> pd.DataFrame:
    """Each fall from a peak until the peak is reached again, deepest first.

    Columns: peak, trough, recovery (times; NaT while it lasts), depth_pct (negative), days (calendar days from the peak
    to the recovery, or to the end).
    """
    equity = equity.dropna()
    below = (drawdowns(equity) < 0.0).to_numpy()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], below, [False])).astype(np.int8)))
    times, values = equity.index, equity.to_numpy(dtype=float)
    rows = []
    for start, stop in edges.reshape(-1, 2):
        peak = start - 1
        trough = start + int(values[start:stop].argmin())
        recovered = stop < len(values)
        end = times[stop] if recovered else times[-1]
        rows.append(
            {
                "peak": times[peak],
                "trough": times[trough],
                "recovery": times[stop] if recovered else pd.NaT,
                "depth_pct": (values[trough] / values[peak] - 1.0) * 100,
                "days": (end - times[peak]) / pd.Timedelta(days=1),
            }
        )
    frame = pd.DataFrame(rows, columns=["peak", "trough", "recovery", "depth_pct", "days"])
    return frame.sort_values("depth_pct", kind="stable", ignore_index=True)


def finite(figures: Mapping[str, float | int | None]) -> Figures:
    """The figures as Python numbers, with None for what is not finite."""
    return {
        name: value if value is None or isinstance(value, int) else (float(value) if math.isfinite(value) else None)
        for name, value in figures.items()
    }


def _sd(returns: Array) -> float:
    return float(returns.std(ddof=1)) if len(returns) > 1 else math.nan


def _ratio(numerator: float | None, denominator: float) -> float | None:
    return numerator / denominator if numerator is not None and denominator > _NO_VARIATION else None


def _minus(value: float | None, amount: float) -> float | None:
    return None if value is None else value - amount


def _quantile(returns: Array, level: float, *, scale: float = 1.0) -> float | None:
    return float(np.quantile(returns, level)) * scale if len(returns) else None


def _moment(returns: Array, order: int) -> float | None:
    """Standardised central moment, biased (divided by T): skew for 3, raw kurtosis for 4."""
    if not _sd(returns) > _NO_VARIATION:
        return None
    centred = returns - returns.mean()
    return float(np.mean(centred**order) / np.mean(centred**2) ** (order / 2))
