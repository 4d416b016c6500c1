"""The sessions of the New York Stock Exchange: when each one closes, and which one a bar belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import exchange_calendars
import numpy as np
import pandas as pd

from engine.errors import DataError

EXCHANGE = "XNYS"
ZONE = "America/New_York"

_DAY_NANOSECONDS = 86_400_000_000_000
_NEW_YORK_NANOSECONDS = 5 * 3_600_000_000_000

# The exchange's calendar is known from here on, and pandas' nanosecond times end in 2262.
KNOWN_YEARS = (1885, 2199)

# Calendars are built in whole decades that hold at least these years, so that one build serves nearly every call.
_USUAL_YEARS = (1990, 2029)


def session_closes(dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """UTC close of the New York session of each date, half days right.

    Before October 1974 the exchange closed at 15:30; the calendar says 16:00, which is late and so never looks ahead.

    Args:
        dates: naive midnights, in any order.

    Raises:
        DataError: a date on which the exchange did not open; names the first one.
    """
    calendar = _calendar(dates)
    positions = calendar.sessions.get_indexer(dates)
    closed = positions < 0
    if closed.any():
        first, count = dates[closed][0], int(closed.sum())
        more = f" ({count - 1} more such dates follow)" if count > 1 else ""
        raise DataError(
            f"{first:%Y-%m-%d}: the New York Stock Exchange had no session on that {first:%A}{more}; "
            "remove the row, or correct its date"
        )
    return _closes(calendar, positions)


def session_hours(dates: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """UTC open and close of the New York session of each date, half days right; NaT where there is no session.

    Args:
        dates: naive midnights, in any order.
    """
    calendar = _calendar(dates)
    positions = calendar.sessions.get_indexer(dates)
    known = np.stack([calendar.opens_nanos, calendar.closes_nanos])
    opens, closes = np.where(positions < 0, pd.NaT.value, known[:, positions])
    return pd.DatetimeIndex(opens, tz="UTC"), pd.DatetimeIndex(closes, tz="UTC")


def sessions_between(first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex:
    """The dates on which the New York Stock Exchange opened, from one naive midnight to another, both included."""
    sessions = _calendar(pd.DatetimeIndex([first, last])).sessions
    return pd.DatetimeIndex(sessions[sessions.searchsorted(first) : sessions.searchsorted(last, side="right")])


def last_session_closes(dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """UTC close of the last New York session on or before each date: when a week that ends on that date is complete.

    Args:
        dates: naive midnights, in any order.
    """
    calendar = _calendar(dates - pd.Timedelta(days=14))  # the session before the first date may lie in another decade
    return _closes(calendar, calendar.sessions.get_indexer(dates, method="pad"))


def sessions_of(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """New York session date of each bar end, as naive midnights; no calendar is needed for it.

    A bar that ends at midnight belongs to the day that ends with it.

    Args:
        times: bar ends with a time zone, UTC by convention.
    """
    just_before = times - np.timedelta64(1, "ns")
    return just_before.tz_convert(ZONE).tz_localize(None).normalize()


def session_number(time: int) -> int:
    """Number of the New York calendar day in which a bar ends (UTC ns). Differences are calendar days.

    New York is five hours behind UTC, or four in summer; no session's bars end within an hour of that midnight.
    """
    return (time - _NEW_YORK_NANOSECONDS) // _DAY_NANOSECONDS


def last_bars_of_sessions(times: pd.DatetimeIndex) -> Callable[[int], bool]:
    """Says of an intraday bar end (UTC ns) whether the session ends with it, by the calendar of the times' sessions."""
    closes = session_closes(sessions_of(times).unique())
    return frozenset(closes.as_unit("ns").asi8.tolist()).__contains__


def _closes(calendar: exchange_calendars.ExchangeCalendar, positions: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(calendar.closes_nanos[positions], tz="UTC").as_unit("ns")


def _calendar(dates: pd.DatetimeIndex) -> exchange_calendars.ExchangeCalendar:
    """A calendar that covers the dates."""
    first, last = (dates.min().year, dates.max().year) if len(dates) else _USUAL_YEARS
    if first < KNOWN_YEARS[0] or last > KNOWN_YEARS[1]:
        far = dates.min() if first < KNOWN_YEARS[0] else dates.max()
        raise DataError(
            f"{far.year}-{far.month:02}-{far.day:02}: the exchange's calendar is known from {KNOWN_YEARS[0]} to "
            f"{KNOWN_YEARS[1]}; correct the date"
        )
    return _built_calendar(min(first - first % 10, _USUAL_YEARS[0]), max(last - last % 10 + 9, _USUAL_YEARS[1]))


@cache
def _built_calendar(first_year: int, last_year: int) -> exchange_calendars.ExchangeCalendar:
    """The calendar of whole years; its default range is only the last 20 years, hence the explicit one."""
    with warnings.catch_warnings():
        # exchange_calendars 4.13 builds its tables in a way that pandas 3.1 deprecates; the values are right.
        warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
        return exchange_calendars.get_calendar(EXCHANGE, start=f"{first_year}-01-01", end=f"{last_year}-12-31")
