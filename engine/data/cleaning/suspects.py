"""Bars that are possible, but may not be real: stale ones, spikes, jumps, and bars without volume."""

from __future__ import annotations

import numpy as np

from engine.config import CleaningConfig
from engine.data.cleaning.jumps import jumps
from engine.data.cleaning.record import Record, Telling
from engine.data.cleaning.spikes import spikes, told, without_spikes
from engine.data.cleaning.stack import Stack
from engine.data.cleaning.stillness import after_volume, repeats, stale_after, stale_stretches, without_volume
from engine.data.quality import Action, Kind
from engine.errors import DataError


def shaped(stack: Stack, policy: CleaningConfig, record: Record) -> Stack:
    """The bars after what the policy says of suspects; all of them are flagged unless it says otherwise.

    What is left is looked at again until nothing is found that is to be dropped or repaired, since a bar that goes
    makes neighbours of others. A spike that is repaired and is one again is dropped, so that this comes to an end.

    Raises:
        DataError: there is one whose policy is ``refuse``.
    """
    repaired: set[tuple[int, int]] = set()
    while True:
        before = len(record.changes)
        stack = _still(stack, policy, record)
        stack = _dropped_spikes(stack, policy, record, repaired)
        if len(record.changes) == before:
            break
    _flagged(stack, policy, record)
    return stack


def _still(stack: Stack, policy: CleaningConfig, record: Record) -> Stack:
    """Without bars whose prices stand still, from the bar on at which they have done so for too long, or the volume."""
    if policy.zero_volume == "drop" and not stack.raw.close_only:
        mask = (stack.values[4] == 0.0) & after_volume(stack)
        record.found("zero_volume", stack, mask, "dropped", tell=_counted("without volume"))
        stack = record.dropped(stack, mask, "zero_volume: drop")
    if policy.stale == "drop":
        enough = stale_after(stack.raw.timeframe)
        mask = repeats(stack) >= enough
        record.found("stale", stack, mask, "dropped", tell=_counted(f"after {enough - 1} with the same four prices"))
        stack = record.dropped(stack, mask, "stale: drop")
    return stack


def _counted(what: str) -> Telling:
    return lambda bars: (f"{len(bars)} {'bar' if len(bars) == 1 else 'bars'} {what}", float(len(bars)))


def _dropped_spikes(stack: Stack, policy: CleaningConfig, record: Record, repaired: set[tuple[int, int]]) -> Stack:
    """Without spikes, where they are to be dropped or repaired; ``repaired`` remembers which bars were."""
    if policy.spike not in ("drop", "repair"):
        return stack
    found = spikes(stack)
    mask = found.size > 0.0
    again = np.zeros_like(mask)
    for bar in np.flatnonzero(mask).tolist():
        own = (int(stack.owner[bar]), int(stack.position[bar]))
        again[bar] = policy.spike == "drop" or own in repaired
        repaired.add(own)
        detail, size = told(stack, found, bar), float(found.size[bar])
        action: Action = "dropped" if again[bar] else "repaired"
        record.tell("spike", stack, np.array([bar]), action, detail=detail, size=size)
    bars = np.flatnonzero(mask & ~again)
    record.changed(stack, bars, without_spikes(stack, found, bars), "spike: repair")
    return record.dropped(stack, again, f"spike: {policy.spike}")


def _flagged(stack: Stack, policy: CleaningConfig, record: Record) -> None:
    """Say what is left, and refuse what is to be refused."""
    for bars in stale_stretches(stack):
        prices = f"the four prices stand still at {stack.values[3, bars[0]]:g} for {len(bars)} bars"
        _say("stale", stack, bars, policy.stale, record, detail=prices, size=float(len(bars)))
    found = spikes(stack)
    for bar in np.flatnonzero(found.size > 0.0).tolist():
        detail, size = told(stack, found, bar), float(found.size[bar])
        _say("spike", stack, np.array([bar]), policy.spike, record, detail=detail, size=size)
    for jump in jumps(stack, found):
        _say("jump", stack, np.array([jump.bar]), policy.jump, record, detail=jump.detail, size=jump.size)
    if stack.raw.close_only:
        return
    mask, never = without_volume(stack)
    for number in np.flatnonzero(stack.per_symbol(mask)).tolist():
        bars = np.arange(stack.starts[number], stack.starts[number + 1])
        bars = bars[mask[bars]]
        detail = f"{len(bars)} {'bar' if len(bars) == 1 else 'bars'} without volume"
        _say("zero_volume", stack, bars, policy.zero_volume, record, detail=detail, size=float(len(bars)))
    for number in np.flatnonzero(never).tolist():
        bars = np.arange(stack.starts[number], stack.starts[number + 1])
        detail = f"none of its {len(bars)} bars has volume, as of an index"
        _say("zero_volume", stack, bars, "flag", record, detail=detail, size=float(len(bars)))


def _say(kind: Kind, stack: Stack, bars: np.ndarray, policy: str, record: Record, *, detail: str, size: float) -> None:
    """One finding, or the refusal that the policy asks for."""
    if policy == "refuse":
        raise DataError(f"{stack.place(int(bars[0]))}: {detail}; correct the file, or set data.cleaning.{kind}: flag")
    record.tell(kind, stack, bars, "flagged", detail=detail, size=size)
