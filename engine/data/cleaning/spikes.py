"""Prices that jump and come back with the next bar, measured against the symbol's own usual moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.data.cleaning.moves import usual_moves
from engine.data.cleaning.stack import Stack
from engine.data.timeframes import is_intraday

# A whole bar apart from both of its neighbours, in usual moves. The closes alone of calm stocks do so in every crash,
# so that where a bar has no range it takes more.
_APART_DAYS = 2.5
_APART_MINUTES = 6.0
_APART_FLAT = 10.0

# A bar that opens so far from the close before it and is left as far with the next open, though ranges may touch.
_BACK = 8.0

# A high or a low that its own bar and both neighbours are far from. Real ones of a few seconds are common.
_WICK = 15.0


@dataclass(frozen=True, kw_only=True)
class Spikes:
    """How far each bar is a spike, and what that was measured with.

    Attributes:
        size: ``[bars]``: how many usual moves the bar, its high or its low stands apart; 0 where it is no spike.
        apart: ``[bars]``: whether it is the whole bar.
        ceiling, floor: ``[bars]``: what its neighbours, and what is sound of itself, reach up and down to.
        opens, closes: ``[bars]``: logarithms of opens and closes.
        usual: ``[bars]``: see ``usual_moves``.
    """

    size: np.ndarray
    apart: np.ndarray
    ceiling: np.ndarray
    floor: np.ndarray
    opens: np.ndarray
    closes: np.ndarray
    usual: np.ndarray


def spikes(stack: Stack) -> Spikes:
    """Which bars are spikes; each is judged by the bar before it and the one after it, so the last one never is.

    A bar is apart where it lies wholly above, or wholly below, both neighbours, or where it opens far from the close
    before it and the next bar opens as far back. A wick is a high, or a low, beyond both neighbours and beyond the
    lower, or higher, one of its own open and close, one of which may belong to it.
    """
    count = len(stack.time)
    opens, closes = np.log(stack.values[0]), np.log(stack.values[3])
    usual = usual_moves(stack, closes)
    size, apart = np.zeros(count), np.zeros(count, dtype=bool)
    ceiling, floor = np.full(count, np.inf), np.zeros(count)
    at = _candidates(stack, opens, closes, usual)
    before, (opened, high, low, close), after = (np.log(stack.values[:4, at + step]) for step in (-1, 0, 1))
    around_high, around_low = np.maximum(before[1], after[1]), np.minimum(before[2], after[2])
    into, out = opened - before[3], after[0] - close
    back = np.where(into * out < 0.0, np.minimum(np.abs(into), np.abs(out)), 0.0) / usual[at]
    island = np.maximum(low - around_high, around_low - high) / usual[at]
    wick_up = high - np.maximum(np.minimum(opened, close), around_high)
    wick_down = np.minimum(np.maximum(opened, close), around_low) - low
    wick = np.maximum(wick_up, wick_down) / usual[at]
    enough = np.where(high == low, _APART_FLAT, _enough(stack))
    apart[at] = (island > enough) | (back > np.maximum(enough, _BACK))
    size[at] = np.where(apart[at], np.maximum(island, back), np.where(wick > _WICK, wick, 0.0))
    opened, high, low, close, _ = stack.values
    ceiling[at] = np.maximum(np.minimum(opened, close)[at], np.maximum(high[at - 1], high[at + 1]))
    floor[at] = np.minimum(np.maximum(opened, close)[at], np.minimum(low[at - 1], low[at + 1]))
    return Spikes(size=size, apart=apart, ceiling=ceiling, floor=floor, opens=opens, closes=closes, usual=usual)


def _candidates(stack: Stack, opens: np.ndarray, closes: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Positions of the few bars between two others that can be spikes at all, so that only they are looked at."""
    if len(stack.time) < 3:
        return np.empty(0, dtype=np.int64)
    unit = usual[1:-1]
    moved = np.abs(np.diff(closes))
    gaps = np.abs(opens[1:] - closes[:-1])
    least = min(_enough(stack), _APART_FLAT) * unit
    may = (moved[:-1] > least) & (moved[1:] > least)
    with np.errstate(over="ignore"):
        may |= np.log(stack.values[1, 1:-1] / stack.values[2, 1:-1]) > _WICK * unit
    may |= (gaps[:-1] > _BACK * unit) & (gaps[1:] > _BACK * unit)
    return np.flatnonzero(may & stack.joined[:-1] & stack.joined[1:]) + 1


def _enough(stack: Stack) -> float:
    return _APART_MINUTES if is_intraday(stack.raw.timeframe) else _APART_DAYS


def without_spikes(stack: Stack, found: Spikes, bars: np.ndarray) -> np.ndarray:
    """What the values ``[5, bars]`` of spikes are repaired to.

    A bar that is apart stands still at the close before it; a wick is cut to what its neighbours reach. Volumes stay.
    """
    values = stack.values[:, bars].copy()
    before = stack.values[3, np.maximum(bars - 1, 0)]
    clipped = np.clip(values[:4], found.floor[bars], found.ceiling[bars])
    values[:4] = np.where(found.apart[bars], before, clipped)
    return values


def told(stack: Stack, found: Spikes, bar: int) -> str:
    """A sentence on one spike, with the prices around it."""
    _, high, low, _, _ = stack.values
    above = np.log(high[bar]) - np.log(found.ceiling[bar])
    if found.apart[bar]:
        what = f"its prices, {low[bar]:g} to {high[bar]:g}, are apart from"
    elif above > np.log(found.floor[bar]) - np.log(low[bar]):
        what = f"its high of {high[bar]:g} is far above"
    else:
        what = f"its low of {low[bar]:g} is far below"
    return (
        f"{what} {low[bar - 1]:g} to {high[bar - 1]:g} before and {low[bar + 1]:g} to {high[bar + 1]:g} after, by "
        f"{found.size[bar]:.1f} usual moves"
    )
