"""Bars that are not there: sessions and minutes without one, and symbols that start late or stop early."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine.data.calendars import ZONE, session_closes, session_hours, sessions_between, sessions_of
from engine.data.cleaning.stack import Stack
from engine.data.quality import EVERY_SYMBOL, Finding, Kind
from engine.data.timeframes import duration, is_intraday, last_days

# A stretch that no symbol has is the market's or the source's own when so many thin symbols would hardly ever miss it
# together by chance.
_BY_CHANCE = 1e-3

_WEEK_NANOSECONDS = 7 * 86_400_000_000_000
_FIRST_MONDAY = pd.Timestamp("1970-01-05").value


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The bars that there would be if none were missing, numbered in the order of time.

    Attributes:
        of_bar: ``[bars]``: the number of each bar; -1 for one that lies out of the sessions.
        ends: ``[slots]``: UTC end of each, nanoseconds.
        session: ``[slots]``: the number of the session, or week, that it belongs to.
    """

    of_bar: np.ndarray
    ends: np.ndarray
    session: np.ndarray


def gaps(stack: Stack) -> list[Finding]:
    """Bars that are missing between the first and the last one of each symbol, by the calendar of the exchange.

    Stretches that no symbol has, though by chance one should, are one finding of ``EVERY_SYMBOL``. Bars must be sorted.
    """
    if not len(stack.time):
        return []
    slots = _slots(stack)
    inside = stack.kept(slots.of_bar >= 0)
    slot = slots.of_bar[slots.of_bar >= 0]
    if not len(slot):
        return []
    filled = inside.starts[1:] > inside.starts[:-1]
    first = np.where(filled, slot[np.minimum(inside.starts[:-1], len(slot) - 1)], 0)
    last = np.where(filled, slot[np.maximum(inside.starts[1:] - 1, 0)], -1)
    steps = np.diff(slot) * inside.joined
    holes = np.flatnonzero(steps > 1)
    owners = inside.owner[holes]
    lengths = (steps[holes] - 1).astype(np.int64)
    missing = np.bincount(owners, weights=lengths, minlength=len(inside.symbols)).astype(np.int64)
    shared = _shared(slots, slot, first, last, missing)
    before = np.concatenate([[0], np.cumsum(shared)])
    own_lengths = lengths - (before[slot[holes + 1]] - before[slot[holes] + 1])
    found = [_told(slots, EVERY_SYMBOL, np.flatnonzero(shared), len(slots.ends))] if shared.any() else []
    for number in np.unique(owners[own_lengths > 0]).tolist():
        mine = holes[(owners == number) & (own_lengths > 0)]
        absent = np.concatenate([np.arange(slot[hole] + 1, slot[hole + 1]) for hole in mine])
        expected = int(last[number] - first[number] + 1 - shared[first[number] : last[number] + 1].sum())
        found.append(_told(slots, inside.symbols[number], absent[~shared[absent]], expected))
    return found


def late_and_early(stack: Stack) -> list[Finding]:
    """Symbols whose first session is after that of another symbol, and those whose last one is before another's."""
    filled = stack.starts[1:] > stack.starts[:-1]
    if filled.sum() < 2:
        return []
    times = stack.distinct[1].sort_values()
    days = pd.DatetimeIndex(sessions_of(times))
    sessions = days.unique()
    number = dict(zip(times.asi8.tolist(), sessions.get_indexer(days).tolist(), strict=True))
    unit = {"1w": "weeks", "1mo": "months"}.get(stack.raw.timeframe, "sessions")
    found = []
    for symbol, start, end in zip(stack.symbols, stack.starts[:-1], stack.starts[1:], strict=True):
        if start == end:
            continue
        first, last = int(stack.time[start]), int(stack.time[end - 1])
        late, early = number[first], len(sessions) - 1 - number[last]
        if late:
            detail = f"its first bar is of {_day(first)}, {late} {unit} after that of {_day(times.asi8[0])}"
            found.append(_edge("late_start", symbol, first, late, detail))
        if early:
            detail = f"its last bar is of {_day(last)}, {early} {unit} before that of {_day(times.asi8[-1])}"
            found.append(_edge("early_end", symbol, last, early, detail))
    return found


def _edge(kind: Kind, symbol: str, time: int, sessions: int, detail: str) -> Finding:
    at = pd.Timestamp(time, tz="UTC")
    return Finding(
        kind=kind,
        symbol=symbol,
        time=at,
        last=at,
        count=1,
        action="flagged",
        size=float(sessions),
        detail=detail,
        times=np.array([time], dtype=np.int64),
    )


def _day(time: int) -> str:
    return f"{pd.Timestamp(time, tz='UTC').tz_convert(ZONE):%Y-%m-%d}"


def _slots(stack: Stack) -> Slots:
    codes, ends = stack.distinct
    days = sessions_of(ends)
    if stack.raw.timeframe == "1w":
        week = (days.asi8 - _FIRST_MONDAY) // _WEEK_NANOSECONDS
        weeks = np.arange(week.min(), week.max() + 1)
        fridays = _FIRST_MONDAY + weeks * _WEEK_NANOSECONDS + pd.Timedelta(days=4, hours=21).value
        return Slots(of_bar=(week - week.min())[codes], ends=fridays, session=np.arange(len(weeks)))
    if stack.raw.timeframe == "1mo":
        month = np.asarray(days.year * 12 + days.month - 1)
        months = np.arange(month.min(), month.max() + 1)
        firsts = pd.DatetimeIndex([pd.Timestamp(year=number // 12, month=number % 12 + 1, day=1) for number in months])
        ends = last_days(firsts, "1mo") + pd.Timedelta(hours=21)
        return Slots(of_bar=(month - month.min())[codes], ends=ends.as_unit("ns").asi8, session=np.arange(len(months)))
    sessions = sessions_between(days.min(), days.max())
    number = sessions.get_indexer(days)
    if not len(sessions):
        return Slots(of_bar=np.full(len(stack.time), -1), ends=np.empty(0), session=np.empty(0, dtype=np.int64))
    if not is_intraday(stack.raw.timeframe):
        closes = session_closes(sessions).asi8
        return Slots(of_bar=number[codes], ends=closes, session=np.arange(len(sessions)))
    return _intraday_slots(stack.raw.timeframe, codes, ends, sessions, number)


def _intraday_slots(
    timeframe: str, codes: np.ndarray, ends: pd.DatetimeIndex, sessions: pd.DatetimeIndex, number: np.ndarray
) -> Slots:
    """Bars follow each other from the open, or from the first whole hour after it, to the close."""
    step = duration(timeframe).value
    opens, closes = (moments.as_unit("ns").asi8 for moments in session_hours(sessions))
    known = number >= 0
    passed = ends.asi8 - opens[number]
    inside = known & (passed > 0) & (ends.asi8 <= closes[number])
    whole = inside & (ends.asi8 < closes[number])
    phases, counts = np.unique(passed[whole] % step, return_counts=True)
    phase = int(phases[np.argmax(counts)]) if len(phases) else 0
    per_session = np.maximum(-(-(closes - opens - phase) // step), 1)
    start = np.concatenate([[0], np.cumsum(per_session)])
    within = np.clip(-(-(passed - phase) // step) - 1, 0, per_session[number] - 1)
    slot = np.where(inside, start[number] + within, -1)
    session = np.repeat(np.arange(len(sessions)), per_session)
    index = np.arange(start[-1]) - start[session]
    slot_ends = np.minimum(opens[session] + phase + (index + 1) * step, closes[session])
    return Slots(of_bar=slot[codes], ends=slot_ends, session=session)


def _shared(slots: Slots, slot: np.ndarray, first: np.ndarray, last: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """``[slots]``: those that no symbol has, in stretches that chance does not explain."""
    result = np.zeros(len(slots.ends), dtype=bool)
    present = np.zeros(len(slots.ends), dtype=bool)
    present[slot] = True
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.log(missing / (last - first + 1))
    for start, end in _stretches(~present):
        active = (first < start) & (last >= end)
        chance = np.log(len(slots.ends)) + (end - start) * rate[active].sum()
        if active.sum() >= 2 and chance < np.log(_BY_CHANCE):
            result[start:end] = True
    return result


def _stretches(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and end, the latter not included, of each stretch of the mask."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _told(slots: Slots, symbol: str, absent: np.ndarray, expected: int) -> Finding:
    """The finding of one symbol's missing slots, which are in the order of time."""
    runs = np.split(absent, np.flatnonzero(np.diff(absent) > 1) + 1)
    longest = max(runs, key=len)
    first, last = (pd.Timestamp(int(slots.ends[run]), tz="UTC") for run in (longest[0], longest[-1]))
    sessions, held = np.unique(slots.session[absent], return_counts=True)
    sizes = np.bincount(slots.session, minlength=int(sessions.max()) + 1)[sessions]
    whole = int((held == sizes).sum())
    bars = "bar is" if len(absent) == 1 else "bars are"
    detail = f"{len(absent)} of {expected} {bars} missing"
    if sizes.max() > 1 and whole:
        detail += f", {whole} whole session{'s' if whole > 1 else ''} among them"
    if len(longest) > 1:
        detail += f"; the longest hole has {len(longest)}, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    if symbol == EVERY_SYMBOL:
        detail += "; no symbol has them: the market stood still, or the source has a hole"
    return Finding(
        kind="gap",
        symbol=symbol,
        time=pd.Timestamp(int(slots.ends[absent[0]]), tz="UTC"),
        last=pd.Timestamp(int(slots.ends[absent[-1]]), tz="UTC"),
        count=len(absent),
        action="flagged",
        size=float(len(longest)),
        detail=detail,
        times=np.asarray(slots.ends[absent], dtype=np.int64),
    )
