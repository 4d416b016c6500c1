"""Bars that lack values or contradict themselves: completed or mended from what they are, or left out."""

from __future__ import annotations

import numpy as np

from engine.data.bars import COLUMNS
from engine.data.cleaning.bar_faults import ROUNDING, described, excess, missing, sound, widened
from engine.data.cleaning.record import Record
from engine.data.cleaning.stack import Stack
from engine.errors import DataError


def without_missing(stack: Stack, policy: str, record: Record) -> Stack:
    """Without bars that lack a value; where the close is known, ``repair`` completes them from their own values.

    Raises:
        DataError: there is one, and the policy is ``refuse``.
    """
    mask = ~sound(stack.values)
    if not mask.any():
        return stack
    mask &= missing(stack.values)
    if policy == "refuse" and mask.any():
        raise DataError(_refused(stack, mask, "missing_value"))

    def tell(bars: np.ndarray) -> tuple[str, float]:
        absent = [name for name, row in zip(COLUMNS, np.isnan(stack.values[:, bars]), strict=True) if row.any()]
        what = f"{len(bars)} {'bar' if len(bars) == 1 else 'bars'} without {', '.join(absent)}"
        return what, float(len(bars))

    if policy == "repair":
        known = mask & (stack.values[3] > 0.0) & np.isfinite(stack.values[3])
        record.found("missing_value", stack, known, "repaired", tell=tell)
        bars = np.flatnonzero(known)
        record.changed(stack, bars, _completed(stack.values[:, bars]), "missing_value: repair")
        mask &= ~known
    record.found("missing_value", stack, mask, "dropped", tell=tell)
    return record.dropped(stack, mask, f"missing_value: {policy}")


def without_impossible(stack: Stack, policy: str, record: Record) -> Stack:
    """Without bars that cannot be; no value of any bar may be missing.

    A high or low that holds open and close but for rounding is moved to hold them, unless the policy is ``refuse``;
    ``repair`` does so however far it has to be moved.

    Raises:
        DataError: there is one, and the policy is ``refuse``.
    """
    mask = ~sound(stack.values)
    if not mask.any():
        return stack
    if policy == "refuse":
        raise DataError(_refused(stack, mask, "impossible"))
    bars = np.flatnonzero(mask)
    far = np.zeros(len(mask))
    far[bars] = excess(stack.values[:, bars])

    def tell(own: np.ndarray) -> tuple[str, float]:
        worst = own[int(np.argmax(far[own]))]
        sentence = f"{described(stack.values[:, worst])} at {stack.at(worst):%Y-%m-%d %H:%M} UTC"
        return (sentence if len(own) == 1 else f"{len(own)} bars; of the worst one {sentence}"), float(far[own].max())

    rounded = mask & (far <= ROUNDING)
    wide = mask & ~rounded & np.isfinite(far) if policy == "repair" else np.zeros_like(mask)
    lost = mask & ~rounded & ~wide
    record.found("impossible", stack, rounded | wide, "repaired", tell=tell)
    record.found("impossible", stack, lost, "dropped", tell=tell)
    for some, rule in ((rounded, "impossible: rounding"), (wide, "impossible: repair")):
        bars = np.flatnonzero(some)
        record.changed(stack, bars, widened(stack.values[:, bars]), rule)
    return record.dropped(stack, lost, f"impossible: {policy}")


def _completed(values: np.ndarray) -> np.ndarray:
    """Bars ``[5, bars]`` whose close is known, with the rest filled from what is known of the same bar."""
    opened, _, _, close, volume = values
    opened = np.where(np.isnan(opened), close, opened)
    prices = np.stack([opened, values[1], values[2], close])
    high = np.where(np.isnan(values[1]), np.nanmax(prices, axis=0), values[1])
    low = np.where(np.isnan(values[2]), np.nanmin(prices, axis=0), values[2])
    return np.stack([opened, high, low, close, np.where(np.isnan(volume), 0.0, volume)])


def _refused(stack: Stack, mask: np.ndarray, kind: str) -> str:
    bar = int(np.argmax(mask))
    return (
        f"{stack.place(bar)}: {described(stack.values[:, bar])}; correct or remove the row, or set "
        f"data.cleaning.{kind}: drop"
    )
