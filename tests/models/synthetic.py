"""Synthetic bars and tiny models: quick to fit, and the same on every machine."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.data.bars import Bars


def make_frame(count: int = 120, *, seed: int = 0, start: str = "2020-01-02", returns: np.ndarray | None = None):
    """Daily bars of a random walk, or of the given log returns; bar ends at 21:00 UTC on weekdays."""
    random = np.random.default_rng(seed)
    moves = random.normal(0.0, 0.01, count) if returns is None else returns
    close = 100.0 * np.exp(np.cumsum(moves))
    opening = np.concatenate([[100.0], close[:-1]]) * np.exp(random.normal(0.0, 0.003, len(moves)))
    high = np.maximum(opening, close) * np.exp(np.abs(random.normal(0.0, 0.004, len(moves))))
    low = np.minimum(opening, close) * np.exp(-np.abs(random.normal(0.0, 0.004, len(moves))))
    volume = np.round(np.exp(random.normal(12.0, 0.5, len(moves))))
    days = pd.bdate_range(start, periods=len(moves))
    index = pd.DatetimeIndex(days + pd.Timedelta(hours=21), tz="UTC", name="time").as_unit("ns")
    return pd.DataFrame(
        {"open": opening, "high": high, "low": low, "close": close, "volume": volume}, index=index, dtype=float
    )


def make_bars(symbols: dict[str, pd.DataFrame] | None = None, *, close_only: bool = False) -> Bars:
    """A set of bars: two symbols of unequal length unless told otherwise."""
    frames = symbols or {"AAA": make_frame(160, seed=1), "BBB": make_frame(130, seed=2, start="2020-02-13")}
    return Bars(
        frames=dict(sorted(frames.items())),
        timeframe="1d",
        adjustment="none",
        source="synthetic",
        close_only=close_only,
        synthetic=True,
    )
