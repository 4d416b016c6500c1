"""Seeded bars to measure on: random walks, in which there is nothing to be forecast."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.data.bars import Bars


def random_walk(count: int, *, seed: int, frequency: str, volatility: float = 0.001) -> pd.DataFrame:
    """A canonical frame of ``count`` bars, one ``frequency`` apart from 2000 on, starting near 100."""
    random = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, volatility, count)))
    opening = np.concatenate([[100.0], close[:-1]]) * np.exp(random.normal(0.0, volatility / 3.0, count))
    high = np.maximum(opening, close) * np.exp(np.abs(random.normal(0.0, volatility / 2.0, count)))
    low = np.minimum(opening, close) * np.exp(-np.abs(random.normal(0.0, volatility / 2.0, count)))
    volume = np.round(np.exp(random.normal(9.0, 0.5, count)))
    times = pd.date_range("2000-01-03 21:00", periods=count, freq=frequency, tz="UTC", name="time", unit="ns")
    return pd.DataFrame({"open": opening, "high": high, "low": low, "close": close, "volume": volume}, index=times)


def one_minute_bars(count: int, *, seed: int = 11) -> pd.DataFrame:
    """One symbol's one-minute bars."""
    return random_walk(count, seed=seed, frequency="1min")


def several_one_minute_bars(count: int, *, symbols: int, seed: int = 21) -> dict[str, pd.DataFrame]:
    """One-minute bars of several symbols, ``count`` each; one minute in fifty has no bar, as in real markets."""
    frames = {}
    for number in range(symbols):
        frame = one_minute_bars(count + count // 40, seed=seed + number)
        has_bar = np.random.default_rng(seed + 100 + number).random(len(frame)) >= 0.02
        has_bar[0] = True
        frames[f"S{number}"] = frame[has_bar].iloc[:count]
    return frames


def daily_bars(count: int, *, seed: int = 31) -> Bars:
    """One symbol's bars of working days."""
    frame = random_walk(count, seed=seed, frequency="B", volatility=0.01)
    return Bars(frames={"WALK": frame}, timeframe="1d", adjustment="none", source="benchmark", synthetic=True)
