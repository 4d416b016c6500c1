"""Prices that jump and come back with the next bar, measured against the symbol's own usual moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.data.moves import usual_moves
from engine.data.stack import Stack
from engine.data.timeframes import is_intraday

# A whole bar apart from both of its neighbours, in usual moves. The closes alone of calm stocks do so in every crash,
# so that where a bar has no range it takes more.
_APART_DAYS = 3.0
_APART_MINUTES = 6.0
_APART_FLAT = 10.0

# A high or a low that its own bar and both neighbours are far from. Real ones of a few seconds are common.
_WICK = 10.0


@dataclass(frozen=True, kw_only=True)
class Spikes:
    """How far each bar is a spike.

    Attributes:
        size: ``[bars]``: how many usual moves the bar, its high or its low stands apart; 0 where it is no spike.
        apart: ``[bars]``: whether it is the whole bar.
        ceiling, floor: ``[bars]``: what its neighbours, and what is sound of itself, reach up and down to.
    """

    size: np.ndarray
    apart: np.ndarray
    ceiling: np.ndarray
    floor: np.ndarray


def spikes(stack: Stack) -> Spikes:
    """Which bars are spikes; each is judged by the bar before it and the one after it, so the last one never is.

    A bar is apart where it lies wholly above, or wholly below, both neighbours. A wick is a high, or a low, beyond both
    neighbours and beyond the lower, or higher, one of its own open and close, one of which may belong to it.
    """
    count = len(stack.time)
    size, apart = np.zeros(count), np.zeros(count, dtype=bool)
    ceiling, floor = np.full(count, np.inf), np.zeros(count)
    inner = np.flatnonzero(stack.joined[:-1] & stack.joined[1:]) + 1 if count > 2 else np.empty(0, dtype=np.int64)
    if not len(inner):
        return Spikes(size=size, apart=apart, ceiling=ceiling, floor=floor)
    opened, high, low, close, _ = stack.values
    around_high = np.maximum(high[inner - 1], high[inner + 1])
    around_low = np.minimum(low[inner - 1], low[inner + 1])
    top = np.maximum(np.minimum(opened, close)[inner], around_high)
    bottom = np.minimum(np.maximum(opened, close)[inner], around_low)
    usual = usual_moves(stack)[inner]
    island = np.maximum(_ratio(low[inner], around_high), _ratio(around_low, high[inner])) / usual
    wick = np.maximum(_ratio(high[inner], top), _ratio(bottom, low[inner])) / usual
    enough = np.full(len(inner), _APART_MINUTES if is_intraday(stack.raw.timeframe) else _APART_DAYS)
    enough[high[inner] == low[inner]] = _APART_FLAT
    apart[inner] = island > enough
    size[inner] = np.where(island > enough, island, np.where(wick > _WICK, wick, 0.0))
    ceiling[inner], floor[inner] = top, bottom
    return Spikes(size=size, apart=apart, ceiling=ceiling, floor=floor)


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


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """By how much, as a logarithm, prices are above others."""
    return np.asarray(np.log(above) - np.log(below))
