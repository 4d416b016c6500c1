"""Whether intraday bars lie in the sessions as they are stamped, and which setting would put them there."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from engine.data.calendars import KNOWN_YEARS, ZONE, session_hours, sessions_of
from engine.data.cleaning.stack import Stack
from engine.data.timeframes import duration, in_session, is_intraday, spans_days
from engine.errors import DataError

# Zones in which files of American bars are written; in another one, bars are taken to be another market's.
AMERICAN_ZONES = (
    ZONE,
    "UTC",
    "Etc/UTC",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "US/Eastern",
    "US/Central",
    "US/Mountain",
    "US/Pacific",
)
_CANDIDATES = (ZONE, "UTC", "America/Chicago", "America/Denver", "America/Los_Angeles")

# Bars that begin before the open and end after the close fit no other zone, so that this much is never a coincidence.
_FITS = 0.98
_MISFITS = 0.95

# Trading before the open begins at 4:00, and after the close ends at 20:00.
_BEFORE_OPEN = pd.Timedelta(hours=5, minutes=30)
_AFTER_CLOSE = pd.Timedelta(hours=4)

# A share of sessions with a bar stamped at their very open: no trade can have made it there otherwise.
_OPENING = 0.2

# A share of sessions whose last bar ends after the close though none begins before the open.
_MOST = 0.5


def check_reach(stack: Stack) -> None:
    """Check that the exchange's calendar is known at all bars.

    Raises:
        DataError: one lies before or after it; names the first one.
    """
    first, last = KNOWN_YEARS
    bounds = [pd.Timestamp(f"{year}-01-02", tz="UTC").value for year in (first, last + 1)]
    far = (stack.time < bounds[0]) | (stack.time >= bounds[1])
    if far.any():
        raise DataError(
            f"{stack.place(int(np.argmax(far)))}: the exchange's calendar is known from {first} to {last}; correct the "
            "time"
        )


def outside(stack: Stack) -> np.ndarray:
    """Which bars lie out of the regular sessions: booleans ``[bars]``.

    An intraday bar does where it begins before the open or ends after the close; a day's where there was no session.
    Weeks never do.
    """
    if spans_days(stack.raw.timeframe) or not len(stack.time):
        return np.zeros(len(stack.time), dtype=bool)
    codes, ends = stack.distinct
    if is_intraday(stack.raw.timeframe):
        return np.asarray(~in_session(ends, stack.raw.timeframe)[codes])
    return np.asarray(session_hours(sessions_of(ends))[0].isna()[codes])


def check_stamps(stack: Stack, *, zone: bool) -> None:
    """Check that intraday bars are stamped with the moment at which they are complete, in the right zone.

    A bar stamped with its start would be seen before it happened; bars of another zone would be taken for trading
    before the open or after the close.

    Args:
        zone: whether bars out of the sessions are of any interest.

    Raises:
        DataError: another setting of ``data.stamp`` or ``data.timezone`` fits, and the present one does not.
    """
    if not is_intraday(stack.raw.timeframe) or not len(stack.time):
        return
    _, ends = stack.distinct
    if zone:
        _check_zone(stack, ends)
    if stack.raw.stamp is None:
        _check_start(stack, ends)
    if stack.raw.stamp == "start" and zone:
        _check_end(stack, ends)


def _check_zone(stack: Stack, ends: pd.DatetimeIndex) -> None:
    timeframe = stack.raw.timeframe
    present = float(in_session(ends, timeframe).mean())
    if present >= _MISFITS:
        return
    read = stack.raw.timezone or "UTC"
    wall = ends.tz_convert(read).tz_localize(None)
    for name in _CANDIDATES:
        if name == read:
            continue
        moments = wall.tz_localize(ZoneInfo(name), ambiguous="NaT", nonexistent="NaT").tz_convert("UTC")
        known = moments[~np.asarray(moments.isna())]
        shifts = {"end": known} if stack.raw.stamp else {"end": known, "start": known + duration(timeframe)}
        for stamp, shifted in shifts.items():
            fit = in_session(shifted, timeframe).sum() / len(ends)
            if fit >= _FITS:
                start = " and data.stamp: start" if stamp == "start" else ""
                offsets = "" if stack.raw.timezone else ", and write the times without their offset"
                raise DataError(
                    f"{_whose(stack)}: {1.0 - present:.0%} of the bars lie out of New York's sessions as they are "
                    f"({wall[0]:%Y-%m-%d %H:%M} in {read}), and nearly all lie in them if the zone is {name}; set "
                    f"data.timezone: {name}{start}{offsets}"
                )


def _check_start(stack: Stack, ends: pd.DatetimeIndex) -> None:
    """Refuse bars that begin with a session, or with the trading before it, and never reach its end."""
    first, last, opens, closes = _edges(ends)
    step = duration(stack.raw.timeframe)
    for left, right in ((opens, closes), (opens - _BEFORE_OPEN, closes + _AFTER_CLOSE)):
        at_start = np.asarray((first <= left) & (first > left - step) & (last < right))
        reaches = np.asarray(last >= right)
        early = np.asarray(first <= left - step)
        if at_start.mean() >= max(_OPENING, 4.0 * reaches.mean(), 4.0 * early.mean()):
            example = int(np.argmax(at_start))
            own = first[example].tz_convert(ZONE)
            raise DataError(
                f"{_whose(stack)}: the bars seem to be stamped with their start, since the first of {own:%Y-%m-%d} is "
                f"at {own:%H:%M} and next to none at the close, and would be seen before they happened; set "
                "data.stamp: start, or data.stamp: end if they are not"
            )


def _check_end(stack: Stack, ends: pd.DatetimeIndex) -> None:
    """Refuse bars that were moved from their start to their end, and now end a bar after the close."""
    first, last, opens, closes = _edges(ends)
    step = duration(stack.raw.timeframe)
    beyond = np.asarray((last > closes) & (last <= closes + step) & (first > opens + step))
    if beyond.mean() >= _MOST:
        raise DataError(
            f"{_whose(stack)}: with data.stamp: start the last bars of the sessions end after the close, and none with "
            "the first minutes after the open; they are stamped with their end: set data.stamp: end"
        )


def _edges(ends: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex, pd.DatetimeIndex, pd.DatetimeIndex]:
    """Of each day with bars the first and the last bar end, and the open and close of its session, NaT without one."""
    ends = ends.sort_values()
    days, day_of_bar = np.unique(sessions_of(ends).to_numpy(), return_inverse=True)
    opens, closes = session_hours(pd.DatetimeIndex(days))
    first = ends[np.searchsorted(day_of_bar, np.arange(len(days)))]
    last = ends[np.searchsorted(day_of_bar, np.arange(len(days)), side="right") - 1]
    return first, last, opens, closes


def _whose(stack: Stack) -> str:
    symbol = stack.symbols[int(stack.owner[0])]
    return stack.raw.origin(symbol)
