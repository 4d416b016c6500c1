"""Frames of forecasts as ``forecast_frame`` makes them, of noise or with a known skill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def panel(*, seed: int, horizon: int, symbols: int, dates: int, skill: float = 0.0) -> pd.DataFrame:
    """Persistent forecasts of returns that symbols share half of; ``skill`` is the share of variance they explain."""
    random = np.random.default_rng(seed)
    total = dates + 2 * horizon
    noise = (random.normal(size=(total, 1)) + random.normal(size=(total, symbols))) * 0.01 / np.sqrt(2)
    level = np.zeros((total, symbols))
    shock = random.normal(size=(total, symbols)) + random.normal(size=(total, 1))
    for row in range(1, total):
        level[row] = 0.5 * level[row - 1] + shock[row]
    expected = level / level.std() * 0.01 * np.sqrt(skill)
    returns = noise * np.sqrt(1.0 - skill)
    returns[1:] += expected[:-1]
    path = np.vstack([np.zeros((1, symbols)), np.cumsum(returns, axis=0)])
    at = np.arange(horizon, horizon + dates)
    times = (pd.bdate_range("2015-01-01", periods=dates, tz="UTC") + pd.Timedelta(hours=21)).as_unit("ns")
    forecast = expected if skill else level / level.std() * 0.002
    parts = []
    for i in range(symbols):
        own = forecast[at - 1, i]
        parts.append(
            pd.DataFrame(
                {
                    "time": times,
                    "symbol": f"S{i}",
                    "forecast": own,
                    "lower": own - 0.0128,
                    "upper": own + 0.0128,
                    "realised": path[at + horizon, i] - path[at, i],
                    "last_return": path[at, i] - path[at - horizon, i],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def frame_of(*, dates: int, symbols: Sequence[str], seed: int) -> pd.DataFrame:
    """The same for symbols by name, at one bar ahead, with a row whose outcome is not known."""
    frame = panel(seed=seed, horizon=1, symbols=len(symbols), dates=dates)
    frame["symbol"] = frame["symbol"].map({f"S{i}": name for i, name in enumerate(symbols)})
    frame.loc[frame.index[-1], "realised"] = np.nan
    return frame
