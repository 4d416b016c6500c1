"""Fewer points for a page, without losing what a reader looks for: peaks, troughs, the first and the last."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MAXIMUM_POINTS = 10_000


def kept_rows(*columns: NDArray[np.float64], limit: int = MAXIMUM_POINTS) -> NDArray[np.intp]:
    """Row numbers to draw: all of them up to ``limit``, else the first, the last, and each bucket's extremes.

    Each column (equal lengths; NaN is skipped) keeps the smallest and the largest value of every bucket, so no spike
    and no drawdown disappears.
    """
    count = len(columns[0])
    if count <= limit:
        return np.arange(count)
    buckets = max(1, (limit - 2) // (2 * len(columns)))
    edges = np.linspace(0, count, buckets + 1).astype(int)
    kept = {0, count - 1}
    for column in columns:
        low = np.where(np.isnan(column), np.inf, column)
        high = np.where(np.isnan(column), -np.inf, column)
        for start, stop in itertools.pairwise(edges):
            kept.add(start + int(low[start:stop].argmin()))
            kept.add(start + int(high[start:stop].argmax()))
    return np.array(sorted(kept), dtype=np.intp)


def wider_candles(bars: pd.DataFrame, *, limit: int = MAXIMUM_POINTS) -> tuple[pd.DataFrame, int]:
    """The bars, joined n by n where there are more than ``limit``; returns them and n (1: as they are).

    A joined candle opens with its first bar, closes with its last, spans their highs and lows, and carries the last
    time.
    """
    if len(bars) <= limit:
        return bars, 1
    size = -(-len(bars) // limit)
    how = {"time": "last", "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    return bars.groupby(np.arange(len(bars)) // size).agg(how), size
