"""What makes one bar impossible, whatever the bars around it are; validation and cleaning both ask here."""

from __future__ import annotations

import numpy as np

from engine.data.bars import COLUMNS

# Adjusted prices are products that were rounded one by one: a close may stand above its high by this share of it.
ROUNDING = 1e-6


def sound(values: np.ndarray) -> np.ndarray:
    """Which bars are possible: no value missing or infinite, 0 < low <= open, close <= high, and a volume >= 0.

    Args:
        values: float64 ``[5, bars]``, rows as ``COLUMNS``.

    Returns:
        Booleans ``[bars]``.
    """
    opened, high, low, close, volume = values
    result = (low > 0.0) & (low <= opened) & (low <= close) & (opened <= high) & (close <= high)
    result &= (high < np.inf) & (volume >= 0.0) & (volume < np.inf)
    return np.asarray(result)


def missing(values: np.ndarray) -> np.ndarray:
    """Which bars lack a value: booleans ``[bars]``."""
    return np.asarray(np.isnan(values).any(axis=0))


def contained(values: np.ndarray) -> np.ndarray:
    """Which bars have sound numbers, whose order alone may be wrong: positive, finite, a volume >= 0."""
    prices, volume = values[:4], values[4]
    return np.asarray((prices > 0.0).all(axis=0) & np.isfinite(values).all(axis=0) & (volume >= 0.0))


def widened(values: np.ndarray) -> np.ndarray:
    """The same bars with high and low moved so that they hold open and close."""
    prices = values[:4]
    return np.stack([values[0], prices.max(axis=0), prices.min(axis=0), values[3], values[4]])


def excess(values: np.ndarray) -> np.ndarray:
    """By which share of itself a high or low would have to move to hold open and close; 0 where it need not.

    Infinite where prices are not positive and finite, or the volume is negative or infinite.
    """
    fits = contained(values)
    result = np.full(values.shape[1], np.inf)
    some = values[:, fits]
    wide = widened(some)
    with np.errstate(over="ignore"):
        result[fits] = np.maximum(wide[1] / some[1], some[2] / wide[2]) - 1.0
    return result


def described(values: np.ndarray) -> str:
    """What is wrong with one bar, in words; of several faults the first.

    Args:
        values: float64 ``[5]``, as ``COLUMNS``; not ``sound``.
    """
    bar = dict(zip(COLUMNS, values.tolist(), strict=True))
    absent = [name for name, value in bar.items() if np.isnan(value)]
    if absent:
        return f"the {' and the '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
    for name, value in bar.items():
        if np.isinf(value):
            return f"the {name} is infinite"
        if name != "volume" and value <= 0.0:
            return f"the {name} must be above zero, found {value}"
    if bar["volume"] < 0.0:
        return f"the volume must not be negative, found {bar['volume']}"
    if bar["high"] < bar["low"]:
        return f"the high {bar['high']} is below the low {bar['low']}"
    name = "open" if not bar["low"] <= bar["open"] <= bar["high"] else "close"
    return f"the {name} {bar[name]} is outside of low {bar['low']} to high {bar['high']}"
