"""How forecasts rank symbols, and where they are good: by symbol, by year, by volatility regime; what they repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from engine.data.bars import Bars
from engine.data.calendars import sessions_of
from models.evaluation.inference import hac_mean
from models.evaluation.scores import errors_of, percent_of
from models.features import Floats

MINIMUM_SYMBOLS = 3
REGIMES = ("calm", "middle", "wild")
_REGIME_WINDOW, _REGIME_HISTORY = 20, 250
_LAGS_TRIED = 5
_CHANCE = 3.0  # standard errors of a correlation


@dataclass(frozen=True, kw_only=True)
class Information:
    """Cross-sectional correlation of forecast and outcome, date by date.

    Attributes:
        mean: the information coefficient, IC. ratio: ICIR, its mean over its standard deviation, a date.
        t: of the mean, with HAC errors. p: two-sided.
        dates: with at least three symbols and some variation in both.
    """

    mean: float
    ratio: float
    t: float
    p: float
    dates: int


def information(frame: pd.DataFrame, *, horizon: int, ranks: bool = False) -> Information | None:
    """The IC of a frame of ``forecast_frame``, or with ``ranks`` the RankIC (Spearman).

    None for fewer than three symbols, or where forecasts never differ between symbols.
    """
    known = frame[["time", "symbol", "forecast", "realised"]].dropna()
    if known["symbol"].nunique() < MINIMUM_SYMBOLS:
        return None
    forecast, realised = (known.pivot(index="time", columns="symbol", values=n) for n in ("forecast", "realised"))
    if ranks:
        forecast, realised = forecast.rank(axis=1), realised.rank(axis=1)
    series = _correlations(forecast.to_numpy(dtype=np.float64), realised.to_numpy(dtype=np.float64))
    mean = hac_mean(series, horizon=horizon)
    if mean is None:
        return None
    return Information(
        mean=mean.value, ratio=mean.value / float(series.std(ddof=1)), t=mean.t, p=mean.p, dates=len(series)
    )


def _correlations(left: Floats, right: Floats) -> Floats:
    """Of each row, over its finite columns; rows with too few of them or without variation are left out."""
    with np.errstate(all="ignore"):
        count = np.isfinite(left).sum(axis=1, keepdims=True)
        own, other = (part - np.nansum(part, axis=1, keepdims=True) / count for part in (left, right))
        scale = np.sqrt(np.nansum(own**2, axis=1) * np.nansum(other**2, axis=1))
        # Equal forecasts differ by their rounding alone.
        size = np.sqrt(np.nansum(left**2, axis=1) * np.nansum(right**2, axis=1))
        varied = (count[:, 0] >= MINIMUM_SYMBOLS) & (scale > 1e-10 * size)
        found: Floats = (np.nansum(own * other, axis=1) / scale)[varied]
    return found


def regimes(frame: pd.DataFrame, bars: Bars) -> pd.Series:
    """The volatility regime at each row's decision bar, from no later bar.

    The standard deviation of the last 20 log returns, among its own last 250 values: ``calm`` in the lowest third,
    ``wild`` in the highest, ``middle`` between them; empty in a symbol's first 270 bars. The index is the frame's.
    """
    found = pd.Series("", index=frame.index, dtype=object)
    for symbol, rows in frame.groupby("symbol", sort=False).groups.items():
        own = bars.frames[str(symbol)]
        places = pd.DatetimeIndex(own.index).get_indexer(pd.DatetimeIndex(frame.loc[rows, "time"]))
        found.loc[rows] = _regimes(own["close"].to_numpy(dtype=np.float64))[places]
    return found


def _regimes(close: Floats) -> np.ndarray:
    words = np.full(len(close), "", dtype=object)
    if len(close) < _REGIME_WINDOW + _REGIME_HISTORY:
        return words
    returns = np.diff(np.log(close))
    volatility = sliding_window_view(returns, _REGIME_WINDOW).std(axis=1)
    history = sliding_window_view(volatility, _REGIME_HISTORY)
    rank = (history < history[:, -1:]).mean(axis=1)
    first = len(close) - len(rank)
    words[first:] = np.array(REGIMES, dtype=object)[np.minimum((3.0 * rank).astype(int), 2)]
    return words


def years(frame: pd.DataFrame) -> pd.Series:
    """The year of each row's session, as text."""
    return pd.Series([str(day.year) for day in sessions_of(pd.DatetimeIndex(frame["time"]))], index=frame.index)


def by_group(frame: pd.DataFrame, groups: pd.Series) -> dict[str, Mapping[str, float | None]]:
    """Group -> n, mae, rmse, r2_out_of_sample, hit_rate_pct, always_up_pct and coverage_pct of its rows, in order.

    Rows without a group, without a forecast or without an outcome are left out.
    """
    known = frame[["forecast", "lower", "upper", "realised"]].dropna()
    figures: dict[str, Mapping[str, float | None]] = {}
    for name, part in known.groupby(groups.loc[known.index], sort=True):
        if name == "":
            continue
        y, f, low, high = (part[c].to_numpy(dtype=np.float64) for c in ("realised", "forecast", "lower", "upper"))
        own = errors_of(y, f, naive_mae=0.0)
        figures[str(name)] = {
            "n": len(y),
            **{key: own[key] for key in ("mae", "rmse", "r2_out_of_sample", "hit_rate_pct")},
            "always_up_pct": percent_of(y[y != 0.0] > 0.0),
            "coverage_pct": percent_of((low <= y) & (y <= high)),
        }
    return figures


def echo_lag(frame: pd.DataFrame, *, horizon: int) -> int | None:
    """The shift k >= 0 at which forecasts resemble outcomes most: argmax corr(forecast[t + k], realised[t]).

    At ``horizon`` the forecast is most like what had just happened when it was made: like yesterday. 0 is what a
    forecast should have. Pooled over symbols; None where nothing varies, or no correlation is above 3 / sqrt(dates),
    which chance explains.
    """
    best: tuple[float, int] | None = None
    parts = [
        (part["forecast"].to_numpy(dtype=np.float64), part["realised"].to_numpy(dtype=np.float64))
        for _, part in frame.groupby("symbol", sort=False)
    ]
    for shift in range(horizon + _LAGS_TRIED + 1):
        pairs = [(f[shift:], y[: len(y) - shift]) for f, y in parts if len(y) > shift]
        if not pairs:
            break
        left, right = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
        kept = np.isfinite(left) & np.isfinite(right)
        if np.count_nonzero(kept) < MINIMUM_SYMBOLS:
            continue
        left, right = left[kept] - left[kept].mean(), right[kept] - right[kept].mean()
        scale = float(np.sqrt(np.sum(left**2) * np.sum(right**2)))
        if scale <= 1e-14:  # of log returns: rounding
            continue
        correlation = float(np.sum(left * right)) / scale
        if best is None or correlation > best[0]:
            best = correlation, shift
    known = frame["time"][frame["forecast"].notna() & frame["realised"].notna()].nunique()
    return None if best is None or best[0] <= _CHANCE / np.sqrt(known) else best[1]
