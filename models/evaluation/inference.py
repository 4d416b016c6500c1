"""Tests of forecasts: what chance explains. Dates are the sample, since symbols of one date move together.

statsmodels is imported where it is needed. What is not defined is None: too few dates, or nothing that varies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.features import Floats

MINIMUM_DATES = 3
_NO_VARIATION = 1e-14  # relative to the largest value: a deviation below it is rounding


@dataclass(frozen=True, kw_only=True)
class Test:
    """A statistic and its p; ``p`` is two-sided, ``p_better`` one-sided for a statistic below zero."""

    __test__ = False  # no test of pytest's

    statistic: float
    p: float
    p_better: float


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over dates with its HAC standard error, t and two-sided p."""

    value: float
    error: float
    t: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Regression:
    """realised = intercept + slope forecast; ``p`` of intercept 0 and slope 1 together, ``slope_p`` of slope 0."""

    intercept: float
    slope: float
    p: float
    slope_t: float
    slope_p: float
    r2: float


def hac_lags(dates: int, horizon: int) -> int:
    """Lags of a HAC error: 4 (T / 100)^(2/9) (Newey & West 1994), or twice the overlap of h-bar labels if more."""
    usual = math.floor(4.0 * math.pow(dates / 100.0, 2.0 / 9.0))
    return min(max(usual, 2 * (horizon - 1)), max(0, dates - 2))


def by_date(values: Floats, dates: np.ndarray) -> Floats:
    """The mean of the values of each date, in the order of time."""
    _, places, counts = np.unique(dates, return_inverse=True, return_counts=True)
    return np.bincount(places, weights=values, minlength=len(counts)) / counts


def mean_over_dates(values: Floats, dates: np.ndarray, *, horizon: int) -> Mean | None:
    """The mean of the dates' means, tested against zero with HAC errors."""
    return hac_mean(by_date(np.asarray(values, dtype=np.float64), dates), horizon=horizon)


def hac_mean(series: Floats, *, horizon: int) -> Mean | None:
    """The mean of a series in time, tested against zero with HAC errors (Newey & West 1987)."""
    if len(series) < MINIMUM_DATES or _constant(series):
        return None
    from statsmodels.regression.linear_model import OLS

    lags = hac_lags(len(series), horizon)
    fitted = OLS(series, np.ones(len(series))).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": True}, use_t=True
    )
    value, error = float(fitted.params[0]), float(fitted.bse[0])
    return Mean(value=value, error=error, t=float(fitted.tvalues[0]), p=float(fitted.pvalues[0]))


def diebold_mariano(own: Floats, other: Floats, dates: np.ndarray, *, horizon: int) -> Test | None:
    """Whether two forecasts lose alike: the test of Diebold & Mariano (1995) as Harvey, Leybourne & Newbold have it.

    dbar / sqrt(V / T) sqrt[(T + 1 - 2h + h (h - 1) / T) / T] with V of h - 1 lags, Student's t with T - 1 degrees of
    freedom. Of several symbols, d is the mean difference of the losses of each date.

    Args:
        own, other: losses, one a row; a statistic below zero says that ``own`` loses less.
        dates: the row's decision bar, anything that can be ordered.
        horizon: bars ahead.

    Returns:
        None where the losses do not differ, or for too few dates at that horizon.
    """
    difference = by_date(own - other, dates)
    count = len(difference)
    if count < max(MINIMUM_DATES, 2 * horizon) or _constant(difference):
        return None
    from scipy.stats import t as student
    from statsmodels.tsa.stattools import diebold_mariano_test

    nothing = np.zeros(count)
    found = diebold_mariano_test(
        nothing,
        difference,
        nothing,
        criterion=lambda _, loss: loss,
        lags=horizon - 1,
        harvey_adj=True,
        horizon=horizon,
    )
    statistic = float(found.statistic)
    if not math.isfinite(statistic):
        return None
    return Test(statistic=statistic, p=float(found.pvalue), p_better=float(student.cdf(statistic, count - 1)))


def pesaran_timmermann(realised: Floats, forecast: Floats, dates: np.ndarray, *, horizon: int) -> Test | None:
    """Whether the signs of forecast and outcome have to do with one another (Pesaran & Timmermann 1992).

    ``p`` is one-sided: that chance hits as often. Where labels overlap or symbols share dates, the test is that of the
    slope of the outcome's sign on the forecast's, with Driscoll & Kraay errors, which for independent rows it equals
    in large samples. A statistic above zero is better, so ``p_better`` is ``p``.

    Returns:
        None where the forecasts, or the outcomes, all have one sign.
    """
    rose, expected = realised > 0.0, forecast > 0.0
    if len(rose) < MINIMUM_DATES or rose.all() or not rose.any() or expected.all() or not expected.any():
        return None
    from scipy.stats import norm

    if horizon == 1 and len(np.unique(dates)) == len(dates):
        from statsmodels.stats.diagnostic import pesaran_timmermann as independent

        statistic = float(independent(realised, forecast, alternative="larger").statistic)
    else:
        fitted = _regress(rose.astype(np.float64), expected.astype(np.float64), dates, horizon=horizon)
        if fitted is None:
            return None
        statistic = fitted.slope_t
    p = float(norm.sf(statistic))
    return Test(statistic=statistic, p=p, p_better=p)


def mincer_zarnowitz(realised: Floats, forecast: Floats, dates: np.ndarray, *, horizon: int) -> Regression | None:
    """The regression of what came on the forecast (Mincer & Zarnowitz 1969), with HAC errors (Driscoll & Kraay 1998).

    An honest forecast has intercept 0 and slope 1; a slope of 0 says that it knows nothing, between 0 and 1 that it
    is too bold. None for a constant forecast.
    """
    fitted = _regress(realised, forecast, dates, horizon=horizon)
    if fitted is None:
        return None
    from scipy.stats import f as fisher
    from scipy.stats import t as student

    away = fitted.coefficients - np.array([0.0, 1.0])
    joint = float(away @ np.linalg.solve(fitted.covariance, away)) / 2.0
    return Regression(
        intercept=float(fitted.coefficients[0]),
        slope=float(fitted.coefficients[1]),
        p=float(fisher.sf(joint, 2, fitted.freedom)),
        slope_t=fitted.slope_t,
        slope_p=float(2.0 * student.sf(abs(fitted.slope_t), fitted.freedom)),
        r2=fitted.r2,
    )


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm 1979): the chance of any false one among them stays below the level.

    The i-th smallest of m is multiplied by m - i + 1, and none may fall below a smaller one's. None stays None, and
    counts as one of the m.
    """
    order = sorted((i for i, value in enumerate(values) if value is not None), key=lambda i: values[i] or 0.0)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * (values[place] or 0.0)))
        corrected[place] = highest
    return corrected


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """Intercept and slope, their covariance, and the degrees of freedom that the dates leave."""

    coefficients: Floats
    covariance: Floats
    freedom: int
    r2: float

    @property
    def slope_t(self) -> float:
        return float(self.coefficients[1] / math.sqrt(self.covariance[1, 1]))


def _regress(left: Floats, right: Floats, dates: np.ndarray, *, horizon: int) -> _Fitted | None:
    """OLS of left on a constant and right, Driscoll & Kraay errors over dates; None where nothing varies."""
    moments, places = np.unique(dates, return_inverse=True)
    if len(moments) < MINIMUM_DATES or _constant(right) or _constant(left):
        return None
    from statsmodels.regression.linear_model import OLS

    # Unit spread, so that the size of the returns does not decide what counts as singular.
    scale = float(right.std())
    fitted = OLS(left, np.column_stack([np.ones(len(right)), right / scale])).fit(
        cov_type="hac-groupsum",
        cov_kwds={
            "time": places,
            "maxlags": hac_lags(len(moments), horizon),
            "use_correction": "hac",
            # statsmodels 0.15 leaves no degrees of freedom here; p values are taken with those of the dates.
            "df_correction": False,
        },
    )
    units = np.array([1.0, scale])
    covariance = np.asarray(fitted.cov_params()) / np.outer(units, units)
    if not np.isfinite(covariance).all() or not (np.diag(covariance) > 0.0).all():
        return None
    return _Fitted(
        coefficients=np.asarray(fitted.params) / units,
        covariance=covariance,
        freedom=len(moments) - 2,
        r2=float(fitted.rsquared),
    )


def _constant(values: Floats) -> bool:
    spread = float(values.max() - values.min())
    return spread <= _NO_VARIATION * max(1e-300, float(np.abs(values).max()))
