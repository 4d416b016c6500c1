"""Scores of intervals and quantiles, and whether an interval holds as much as it promises."""

from __future__ import annotations

import numpy as np

from models.evaluation.inference import mean_over_dates
from models.features import Floats


def pinball(realised: Floats, quantile: Floats, *, level: float) -> Floats:
    """The loss that the true quantile of that level makes least: max(q (y - f), (q - 1) (y - f)), one a row.

    Lower is better; Koenker & Bassett 1978.
    """
    error = realised - quantile
    return np.maximum(level * error, (level - 1.0) * error)


def interval_score(realised: Floats, lower: Floats, upper: Floats, *, alpha: float) -> Floats:
    """Width, and 2 / alpha for each unit by which it is missed, one a row; ``alpha`` is the share it may miss.

    Lower is better; Gneiting & Raftery 2007, equation 43.
    """
    below, above = np.maximum(lower - realised, 0.0), np.maximum(realised - upper, 0.0)
    return (upper - lower) + 2.0 / alpha * (below + above)


def crps_of_quantiles(realised: Floats, forecast: Floats, lower: Floats, upper: Floats, *, alpha: float) -> Floats:
    """The continuous ranked probability score from three quantiles: twice their mean pinball loss, one a row.

    The forecast stands for the median, the ends of the interval for the alpha / 2 and 1 - alpha / 2 quantiles. Of a
    point forecast, which has an interval from its errors, this takes the centre for the median. Lower is better.

    It is ``scoringrules.crps_quantile``, without its seconds of imports: a test holds them together.
    """
    losses = pinball(realised, lower, level=alpha / 2), pinball(realised, forecast, level=0.5)
    return 2.0 / 3.0 * (losses[0] + losses[1] + pinball(realised, upper, level=1.0 - alpha / 2))


def kupiec(held: np.ndarray[tuple[int], np.dtype[np.bool_]], *, nominal: float) -> float | None:
    """p of Kupiec's test (1995): that independent intervals of that coverage are missed as often as these were.

    LR = -2 ln [(1 - p)^(n - x) p^x / ((1 - x/n)^(n - x) (x/n)^x)] with x misses of n and p = 1 - nominal, chi-squared
    with one degree of freedom. None without rows.
    """
    from scipy.special import xlogy
    from scipy.stats import chi2

    n = len(held)
    if n == 0:
        return None
    missed, expected = n - int(np.count_nonzero(held)), 1.0 - nominal
    rate = missed / n
    likelihood = xlogy(n - missed, 1.0 - expected) + xlogy(missed, expected)
    observed = xlogy(n - missed, 1.0 - rate) + xlogy(missed, rate)
    return float(chi2.sf(max(0.0, -2.0 * float(likelihood - observed)), 1))


def coverage_p(
    held: np.ndarray[tuple[int], np.dtype[np.bool_]], dates: np.ndarray, *, nominal: float, horizon: int
) -> float | None:
    """p of the coverage being the nominal one: Kupiec's where every row has a date of its own and labels are apart.

    Else the rows are not independent, and it is a test of the dates' mean coverage with HAC errors.
    """
    if horizon == 1 and len(np.unique(dates)) == len(dates):
        return kupiec(held, nominal=nominal)
    found = mean_over_dates(held.astype(np.float64) - nominal, dates, horizon=horizon)
    return None if found is None else found.p
