"""Returns in which what can be forecast is known: planted signals, and noise in which there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from engine.data.bars import Bars

Floats = npt.NDArray[np.float64]
SCALE = 0.01  # standard deviation of the innovations, as of daily returns


@dataclass(frozen=True, eq=False)
class Planted:
    """A series of log returns and what was known of each before it came.

    Attributes:
        returns: [bars].
        mean: the expected return of each bar, given those before it, [bars]: the best forecast there is.
        deviation: the standard deviation of each bar's return, given those before it, [bars].
    """

    returns: Floats
    mean: Floats
    deviation: Floats

    def bars(self) -> Bars:
        """One symbol's bars of working days; all prices of a bar are its close."""
        close = 100.0 * np.exp(np.cumsum(self.returns))
        times = pd.date_range("1950-01-02 21:00", periods=len(close), freq="B", tz="UTC", name="time", unit="ns")
        columns = dict.fromkeys(("open", "high", "low", "close"), close) | {"volume": np.full(len(close), 1e6)}
        frame = pd.DataFrame(columns, index=times)
        return Bars(frames={"SIGNAL": frame}, timeframe="1d", adjustment="none", source="planted", synthetic=True)


def autoregression(count: int, *, seed: int, coefficient: float = 0.5) -> Planted:
    """AR(1): r[t] = c r[t-1] + e. A share c squared of the variance can be forecast (R2)."""
    return _recursion(count, seed, mean=lambda last: coefficient * last)


def reversal(count: int, *, seed: int, threshold: float = 1.5, strength: float = 0.7) -> Planted:
    """After a move of ``threshold`` deviations of e or more the sign turns: r[t] = -s r[t-1] + e; else r[t] = e.

    With the defaults R2 is about 0.35, of which the best line finds two thirds.
    """
    return _recursion(count, seed, mean=lambda last: -strength * last if abs(last) >= threshold * SCALE else 0.0)


def volatility_only(count: int, *, seed: int, reaction: float = 0.3, persistence: float = 0.6) -> Planted:
    """GARCH(1,1), Bollerslev 1986: v[t] = w + a r[t-1]^2 + b v[t-1]. Only how wide an interval must be is known."""
    variance_level = SCALE**2 * (1.0 - reaction - persistence)
    noise = np.random.default_rng(seed).normal(0.0, 1.0, count)
    returns, deviation = np.empty(count), np.empty(count)
    variance = SCALE**2
    for at in range(count):
        deviation[at] = np.sqrt(variance)
        returns[at] = deviation[at] * noise[at]
        variance = variance_level + reaction * returns[at] ** 2 + persistence * variance
    return Planted(returns, np.zeros(count), deviation)


def white_noise(count: int, *, seed: int) -> Planted:
    """Independent normal returns: there is nothing to be known."""
    returns = np.random.default_rng(seed).normal(0.0, SCALE, count)
    return Planted(returns, np.zeros(count), np.full(count, SCALE))


def _recursion(count: int, seed: int, *, mean: Callable[[float], float]) -> Planted:
    noise = np.random.default_rng(seed).normal(0.0, SCALE, count)
    returns, expected, last = np.empty(count), np.empty(count), 0.0
    for at in range(count):
        expected[at] = mean(last)
        returns[at] = last = expected[at] + noise[at]
    return Planted(returns, expected, np.full(count, SCALE))
