"""Trend, seasonal and remainder of the last bars, by STL and MSTL as statsmodels computes them, from these bars alone.

Without robustness iterations both are linear in their window (Cleveland et al. 1990; Bandara, Hyndman & Bergmeir 2021):
a component at the window's last bar is a fixed weighted sum of its log closes. The weights come from statsmodels, by
one impulse at each bar; they are computed once, and a feature is the weighted sum.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Method = Literal["stl", "mstl"]
Component = Literal["trend", "seasonal", "remainder"]

COMPONENTS: tuple[Component, ...] = get_args(Component)
PERIODS: dict[Method, tuple[int, ...]] = {"stl": (5,), "mstl": (5, 21)}
"""Bars of a season: of daily bars, a week and a month."""

LONGEST = 260
"""Bars of the longest window: the weights of MSTL take statsmodels seconds beyond it."""


def shortest(method: Method) -> int:
    """Bars of the shortest window: two seasons of the longest kind and one bar."""
    return 2 * max(PERIODS[method]) + 1


@lru_cache(maxsize=64)
def weights_of(method: Method, component: Component, window: int) -> Floats:
    """Weights of the window's one-bar log returns, oldest first, [window - 1]; their sum of products is the component.

    ``trend`` is the trend's change over the last bar, ``seasonal`` (of all seasons together) and ``remainder`` their
    values at it, all in log returns. None of them depends on the prices' level.
    """
    of_closes = _of_closes(method, window)[:, COMPONENTS.index(component)]
    # With x[k] = log(close[k] / first close), a sum of returns up to bar k, and weights that add up to zero.
    after: Floats = np.cumsum(of_closes[::-1])[::-1]
    return np.ascontiguousarray(after[1:])


@lru_cache(maxsize=16)
def _of_closes(method: Method, window: int) -> Floats:
    """The components' weights of the log closes, [window, 3]."""
    decompose = _decomposition(method, window)
    weights = np.empty((window, len(COMPONENTS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for bar, impulse in enumerate(np.eye(window)):
            found = decompose(impulse)
            seasonal = np.asarray(found.seasonal).reshape(window, -1)[-1].sum()
            weights[bar] = found.trend[-1] - found.trend[-2], seasonal, found.resid[-1]
    return weights


def cycles(window: int, period: int) -> int:
    """The seasons over which one is smoothed: all of the window, an odd number of at least seven."""
    return max(7, window // period // 2 * 2 + 1)


def _decomposition(method: Method, window: int) -> Callable[[Floats], Any]:
    """statsmodels' decomposition of a series of ``window`` values, without robustness iterations."""
    # It takes a second to import, which only those who ask for such a feature pay.
    from statsmodels.tsa.seasonal import MSTL, STL

    smoothing: Sequence[int] = [cycles(window, period) for period in PERIODS[method]]
    if method == "stl":
        return lambda series: STL(series, period=PERIODS["stl"][0], seasonal=smoothing[0], robust=False).fit()
    return lambda series: MSTL(series, periods=PERIODS["mstl"], windows=smoothing, stl_kwargs={"robust": False}).fit()
