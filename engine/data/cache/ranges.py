"""Ranges of New York dates: which bars lie in one, what to ask for again at its edges, and how two go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd

from engine.data.cache.shelves import Series, empty_frame
from engine.data.calendars import ZONE, sessions_of
from engine.data.timeframes import first_days, is_intraday, last_days, spans_days

# Sessions that are fetched again at an edge, to see whether the history is still what it was.
OVERLAP_SESSIONS = 5

_DAY = timedelta(days=1)
_MOST_BARS_A_DAY = 960  # minutes, with early and late trading

# No history of intraday bars is older; pandas' nanosecond times are known from 1677 to 2262.
_INTRADAY_SINCE = date(1990, 1, 1)
_KNOWN = date(1700, 1, 1), date(2199, 12, 31)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """One symbol's bars and, where the source tells them, its splits and dividends; both as in ``Raw``."""

    frame: pd.DataFrame
    actions: pd.DataFrame | None = None


def complete(new: Fetched, now: pd.Timestamp) -> Fetched:
    """Without bars that end after the present moment."""
    whole = np.asarray(pd.DatetimeIndex(new.frame.index) <= now)
    return new if whole.all() else replace(new, frame=new.frame[whole])


def merged(
    series: Series | None,
    new: Fetched,
    asked: tuple[date, date],
    *,
    settled: date,
    timeframe: str,
    now: pd.Timestamp,
) -> Series | None:
    """The series with the new bars in the place of those of the same dates; None where settled ones have changed."""
    first, last = asked
    fetched = now.isoformat()
    if series is None:
        return Series(frame=new.frame, actions=new.actions, asked=(first, min(last, settled)), fetched=fetched)
    assert series.asked is not None  # what was fetched was asked for
    since, through = series.asked
    common = max(first, since), min(last, through)
    for old_part, new_part in ((series.frame, new.frame), (series.actions, new.actions)):
        if not _same(part(old_part, *common, timeframe), part(new_part, *common, timeframe)):
            return None

    def spliced(old: pd.DataFrame | None, new: pd.DataFrame | None) -> pd.DataFrame | None:
        before = part(old, date.min, first - _DAY, timeframe)
        # Later bars that had not settled are not kept beside newer ones.
        after = part(old, last + _DAY, through, timeframe)
        parts = [rows for rows in (before, new, after) if rows is not None and len(rows)]
        return pd.concat(parts) if len(parts) > 1 else parts[0] if parts else new

    frame = spliced(series.frame, new.frame)
    return Series(
        frame=empty_frame() if frame is None else frame,
        actions=spliced(series.actions, new.actions),
        asked=(min(first, since), max(through, min(last, settled))),
        fetched=fetched,
    )


def _same(old: pd.DataFrame | None, new: pd.DataFrame | None) -> bool:
    """Whether both have the same rows, to the bit; None is a frame without any."""
    if old is None or new is None or not len(old) or not len(new):
        return not (0 if old is None else len(old)) and not (0 if new is None else len(new))
    if not np.array_equal(pd.DatetimeIndex(old.index).asi8, pd.DatetimeIndex(new.index).asi8):
        return False
    return old.to_numpy().tobytes() == new[list(old.columns)].to_numpy().tobytes()


def years(first: date, last: date, timeframe: str) -> Iterator[tuple[date, date]]:
    """The range, of intraday bars cut by calendar years: each is a piece of the cache."""
    if is_intraday(timeframe) and first < _INTRADAY_SINCE <= last:
        yield first, _INTRADAY_SINCE - _DAY
        first = _INTRADAY_SINCE
    while is_intraday(timeframe) and first.year < last.year:
        yield first, date(first.year, 12, 31)
        first = date(first.year + 1, 1, 1)
    if first <= last:
        yield first, last


def edges(series: Series, timeframe: str) -> tuple[date, date] | None:
    """The last date of the overlap at a series' left edge and the first of that at its right; None without a bar."""
    assert series.asked is not None  # as above
    index = pd.DatetimeIndex(series.frame.index)
    first, through = series.asked
    settled = np.sort(index.asi8[inside(index, first, through, timeframe)])
    if not len(settled):
        return None
    at_most = OVERLAP_SESSIONS * _MOST_BARS_A_DAY
    head, tail = (
        sessions_of(pd.DatetimeIndex(times, tz="UTC")).unique() for times in (settled[:at_most], settled[-at_most:])
    )
    left = head[min(len(head), OVERLAP_SESSIONS) - 1].date()
    right = tail[-min(len(tail), OVERLAP_SESSIONS)].date()
    if spans_days(timeframe):
        right = first_days(pd.DatetimeIndex([right]), timeframe)[0].date()
    return left, right


def part(frame: pd.DataFrame | None, first: date, last: date | None, timeframe: str) -> pd.DataFrame | None:
    """The rows between the two dates; see ``inside``."""
    if frame is None:
        return None
    within = inside(pd.DatetimeIndex(frame.index), first, last, timeframe)
    return frame if within.all() else frame[within]


def inside(times: pd.DatetimeIndex, first: date, last: date | None, timeframe: str) -> np.ndarray:
    """Whether each bar begins on or after the first New York date and ends on or before the last one: booleans."""
    since, until = bounds(timeframe, first, last)
    within = np.ones(len(times), dtype=bool) if since is None else np.asarray(times.asi8 >= since)
    return within if until is None else within & (times.asi8 <= until)


def bounds(timeframe: str, first: date, last: date | None) -> tuple[int | None, int | None]:
    """The first and last moment (UTC ns) at which a bar of these dates can end; None for no bound."""
    if spans_days(timeframe) and first > _KNOWN[0]:
        began = first_days(pd.DatetimeIndex([first]), timeframe)[0].date()
        if began < first:  # that week or month does not begin on or after the date: the next one does
            first = last_days(pd.DatetimeIndex([first]), timeframe)[0].date() + _DAY
    # A session's bars end after its midnight and no later than the next one: see calendars.sessions_of.
    since = None if first <= _KNOWN[0] else _midnight(first) + 1
    return since, None if last is None or last >= _KNOWN[1] else _midnight(last + _DAY)


def _midnight(day: date) -> int:
    return int(pd.Timestamp(day, tz=ZONE).tz_convert("UTC").as_unit("ns").value)
