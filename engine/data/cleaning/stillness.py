"""Bars in which nothing happened: prices that stand still, and bars without volume."""

from __future__ import annotations

import numpy as np

from engine.data.cleaning.stack import Stack
from engine.data.timeframes import is_intraday

# As many bars in a row with the same four prices are stale; a thin symbol's minutes repeat themselves more often.
_STALE_DAYS = 5
_STALE_MINUTES = 10


def stale_after(timeframe: str) -> int:
    """How many bars in a row with the same open, high, low and close are taken to be stale."""
    return _STALE_MINUTES if is_intraday(timeframe) else _STALE_DAYS


def repeats(stack: Stack) -> np.ndarray:
    """``[bars]``: how many bars in a row, this one included, have had its four prices; 1 where they are new."""
    count = len(stack.time)
    new = np.ones(count, dtype=bool)
    closes = stack.values[3]
    same = np.flatnonzero((closes[1:] == closes[:-1]) & stack.joined)
    prices = stack.values[:3]
    new[same[(prices[:, same] == prices[:, same + 1]).all(axis=0)] + 1] = False
    since = np.maximum.accumulate(np.where(new, np.arange(count), 0))
    return np.asarray(np.arange(count) - since + 1)


def stale_stretches(stack: Stack) -> list[np.ndarray]:
    """The positions of the bars of each stretch in which the prices stand still for long enough."""
    run = repeats(stack)
    enough = stale_after(stack.raw.timeframe)
    ends = np.flatnonzero((run >= enough) & (np.append(run[1:], 1) == 1))
    return [np.arange(end - run[end] + 1, end + 1) for end in ends.tolist()]


def without_volume(stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Bars whose volume is zero beside others with one, and the symbols that never have any.

    Where no symbol ever has volume, as in a source of closes, there is nothing to be said.

    Returns:
        Booleans ``[bars]`` and ``[symbols]``.
    """
    zero = stack.values[4] == 0.0
    zeros, lengths = stack.per_symbol(zero), np.diff(stack.starts)
    never = zeros == lengths
    if never.all():
        return np.zeros_like(zero), np.zeros_like(never)
    return zero & ~never[stack.owner], never & (lengths > 0)


def after_volume(stack: Stack) -> np.ndarray:
    """Which bars come after one of their symbol that has volume: what can be said at the bar itself."""
    before = np.concatenate([[0], np.cumsum(stack.values[4] > 0.0)])
    return np.asarray(before[:-1] > before[stack.starts[:-1]][stack.owner])
