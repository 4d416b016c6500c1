"""What can be said of a frame of forecasts in one go: its scores' significance, and what about it is suspicious."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from models.evaluation.inference import diebold_mariano, mincer_zarnowitz, pesaran_timmermann
from models.evaluation.information import echo_lag, information
from models.evaluation.intervals import coverage_p, crps_of_quantiles, interval_score, pinball
from models.features import Floats

IMPLAUSIBLE = {"rank_ic": 0.10, "hit_rate_pct": 56.0, "sharpe_ratio": 3.0}
"""Above these, daily forecasts of returns are more likely wrong than good; all but the Sharpe ratio for one bar ahead.

A hit rate has to be as far above that of always the same sign as this is above 50: what mostly rises is easily hit.
"""
MINIMUM_ROWS = 250


def judge(frame: pd.DataFrame, *, horizon: int, nominal_coverage: float = 0.8) -> dict[str, float | None]:
    """Tests and further scores of a frame made by ``forecast_frame``; what is not defined is None.

    Rows without a forecast or an outcome are left out. Dates are the sample: of several symbols, tests are of what a
    date gives, with HAC errors where labels overlap.

    Returns:
        crps, pinball_lower, pinball_upper, interval_score: means over the rows, in log returns; lower is better.
        coverage_p: of the nominal coverage, see ``intervals.coverage_p``.
        dm_zero: statistic of Diebold & Mariano on squared errors against the zero forecast, below zero is better;
            dm_zero_p: one-sided, that chance is as much better.
        pt, pt_p: of Pesaran & Timmermann, one-sided.
        mz_intercept, mz_slope, mz_p (intercept 0 and slope 1), mz_slope_p (slope 0): of Mincer & Zarnowitz.
        ic, icir, ic_t, rank_ic, rank_icir, rank_ic_t: see ``information``; of three symbols or more.
        echo_lag: see ``information.echo_lag``.
    """
    known = frame.dropna(subset=["realised", "forecast", "lower", "upper"])
    y, f, low, high = (known[name].to_numpy(dtype=np.float64) for name in ("realised", "forecast", "lower", "upper"))
    dates = pd.DatetimeIndex(known["time"]).asi8
    alpha = 1.0 - nominal_coverage
    figures: dict[str, float | None] = {
        "crps": _mean(crps_of_quantiles(y, f, low, high, alpha=alpha)),
        "pinball_lower": _mean(pinball(y, low, level=alpha / 2)),
        "pinball_upper": _mean(pinball(y, high, level=1.0 - alpha / 2)),
        "interval_score": _mean(interval_score(y, low, high, alpha=alpha)),
        "coverage_p": coverage_p((low <= y) & (y <= high), dates, nominal=nominal_coverage, horizon=horizon),
    }
    against_zero = diebold_mariano((y - f) ** 2, y**2, dates, horizon=horizon)
    signs = pesaran_timmermann(y, f, dates, horizon=horizon)
    line = mincer_zarnowitz(y, f, dates, horizon=horizon)
    figures |= {
        "dm_zero": None if against_zero is None else against_zero.statistic,
        "dm_zero_p": None if against_zero is None else against_zero.p_better,
        "pt": None if signs is None else signs.statistic,
        "pt_p": None if signs is None else signs.p,
        "mz_intercept": None if line is None else line.intercept,
        "mz_slope": None if line is None else line.slope,
        "mz_p": None if line is None else line.p,
        "mz_slope_p": None if line is None else line.slope_p,
    }
    for name, ranks in (("ic", False), ("rank_ic", True)):
        found = information(known, horizon=horizon, ranks=ranks)
        figures[name] = None if found is None else found.mean
        figures[f"{name}ir"] = None if found is None else found.ratio
        figures[f"{name}_t"] = None if found is None else found.t
    figures["echo_lag"] = echo_lag(frame, horizon=horizon)
    return figures


def repeats_yesterday(figures: Mapping[str, float | None], *, horizon: int) -> bool:
    """Whether a forecast resembles what had just happened most, and is no better than no change.

    No better: its error is not below the zero forecast's on the same rows, or MASE is 1 or more.

    Args:
        figures: of ``score`` and ``judge`` together.
    """
    mae, zero, mase = (figures.get(key) for key in ("mae", "mae_zero", "mase"))
    useless = (mae is not None and zero is not None and mae >= zero) or (mase is not None and mase >= 1.0)
    return figures.get("echo_lag") == horizon and useless


def alarms(figures: Mapping[str, float | None], *, horizon: int) -> list[str]:
    """What about a forecast's figures asks for a second look, one sentence each.

    Args:
        figures: of ``score`` and ``judge`` together, and ``sharpe_ratio`` after costs where there is one.
        horizon: bars ahead.
    """
    found = []
    if repeats_yesterday(figures, horizon=horizon):
        found.append(
            "only repeats yesterday: its forecasts are most like the last return, and no better than no change"
        )
    if (figures.get("n") or 0) >= MINIMUM_ROWS:
        words = {"rank_ic": "RankIC", "hit_rate_pct": "hit rate", "sharpe_ratio": "Sharpe ratio after costs"}
        up = figures.get("always_up_pct")
        one_sign = 50.0 if up is None else max(up, 100.0 - up)
        for key, limit in IMPLAUSIBLE.items():
            if horizon > 1 and key != "sharpe_ratio":
                continue  # over many bars they are larger by nature
            value = figures.get(key)
            if key == "hit_rate_pct":
                limit += one_sign - 50.0
            if value is not None and value > limit:
                found.append(
                    f"implausible: a {words[key]} of {value:.2f} is above {limit:.4g}; look for a leak before "
                    "trusting it"
                )
    return found


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None
