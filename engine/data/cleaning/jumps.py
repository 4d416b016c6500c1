"""Moves overnight that stay and that look like a split or a spin-off for which the prices were not adjusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine.data.calendars import sessions_of
from engine.data.cleaning.spikes import Spikes
from engine.data.cleaning.stack import Stack

# The smallest usual split is 5:4; on its morning the price may have moved by as much besides.
_SMALLEST = np.log(5 / 4) - 0.02
_UNUSUAL = 8.0

# New shares for old ones.
_WHOLE = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)
_SPLITS = (*((n, 1) for n in _WHOLE), *((1, n) for n in _WHOLE), (5, 4), (4, 3), (3, 2), (5, 3), (5, 2), (7, 2))
_NEAR = 0.03


@dataclass(frozen=True, kw_only=True)
class Jump:
    """One move that stays.

    Attributes:
        bar: position of the first bar after it.
        size: absolute logarithm of the move, less what a known split or dividend explains.
        detail: a sentence with the prices and the nearest split.
    """

    bar: int
    size: float
    detail: str


def jumps(stack: Stack, spiked: Spikes) -> list[Jump]:
    """Opens far from the close before them, from which neither their own bar nor the next one comes back half way.

    Splits and dividends that the source tells of, and that its prices are not adjusted for, explain their part.
    """
    if len(stack.time) < 2:
        return []
    opened, close, usual = spiked.opens, spiked.closes, spiked.usual
    gap = np.zeros(len(opened))
    gap[1:] = (opened[1:] - close[:-1]) * stack.joined
    odd = spiked.size > 0.0
    far = np.flatnonzero((np.abs(gap) > _SMALLEST) & ~odd)
    far = far[~odd[far - 1]]
    found = []
    for bar in far.tolist():
        left = float(gap[bar]) - _explained(stack, bar)
        stays = [close[bar] - close[bar - 1]]
        if bar < len(stack.joined) and stack.joined[bar]:
            stays.append(close[bar + 1] - close[bar - 1])
        if abs(left) > max(_SMALLEST, _UNUSUAL * usual[bar]) and all(2.0 * move / gap[bar] > 1.0 for move in stays):
            found.append(Jump(bar=bar, size=abs(left), detail=_told(stack, bar)))
    return found


def _explained(stack: Stack, bar: int) -> float:
    """The logarithm of the move that known actions make on the morning of a bar, in prices not adjusted for them."""
    actions = stack.raw.actions.get(stack.symbols[int(stack.owner[bar])])
    if actions is None or actions.empty:
        return 0.0
    before, today = sessions_of(pd.DatetimeIndex(stack.time[bar - 1 : bar + 1], tz="UTC"))
    days = sessions_of(pd.DatetimeIndex(actions.index))
    due = actions[(days > before) & (days <= today)]
    total, price = 0.0, stack.values[3, bar - 1]
    for split, dividend in zip(due["split"], due["dividend"], strict=True):
        if stack.raw.adjustment in ("none", "dividend") and split > 0.0:
            total -= float(np.log(split))
        if stack.raw.adjustment in ("none", "split") and 0.0 < dividend < price:
            total += float(np.log1p(-dividend / price))
    return total


def _told(stack: Stack, bar: int) -> str:
    opened, before = stack.values[0, bar], stack.values[3, bar - 1]
    move = np.log(opened) - np.log(before)
    new, old = min(_SPLITS, key=lambda split: abs(np.log(split[1] / split[0]) - move))
    off = abs(move - np.log(old / new))
    near = (
        f"about a split of {new}:{old}, {off:.1%} off"
        if off < _NEAR
        else f"no usual split is near ({new}:{old} is {off:.0%} off): a spin-off, a special dividend or news"
    )
    with np.errstate(over="ignore"):
        times = np.exp(move)
    return f"it opens at {opened:g} after a close of {before:g}, {times:.3g} times as much; {near}"
