"""The sessions of the New York Stock Exchange: when each one closes, and which one a bar belongs to."""

from __future__ import annotations

from functools import cache

import exchange_calendars
import numpy as np
import pandas as pd

from engine.errors import DataError

EXCHANGE = "XNYS"
ZONE = "America/New_York"

# The calendar is built in whole decades around these years, so that one build serves nearly every call.
_USUAL_YEARS = (1990, 2029)


def session_closes(dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """UTC close of the New York session of each date, half days right.

    Args:
        dates: naive midnights, in any order.

    Raises:
        DataError: a date on which the exchange did not open; names the first one.
    """
    if len(dates) == 0:
        return pd.DatetimeIndex([], dtype="datetime64[ns, UTC]")
    calendar = _calendar(_decade(dates.min().year), _decade(dates.max().year) + 9)
    positions = calendar.sessions.get_indexer(dates)
    if (positions < 0).any():
        strangers = dates[positions < 0]
        more = f" (nor on {len(strangers) - 1} other dates of the data)" if len(strangers) > 1 else ""
        raise DataError(
            f"{strangers[0]:%Y-%m-%d}: the New York Stock Exchange had no session on that {strangers[0]:%A}{more}; "
            "remove the row, or correct its date"
        )
    return pd.DatetimeIndex(calendar.closes.to_numpy()[positions], tz="UTC").as_unit("ns")


def sessions_of(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """New York session date of each bar end, as naive midnights; no calendar is needed for it.

    A bar that ends at midnight belongs to the day that ends with it.

    Args:
        times: bar ends with a time zone, UTC by convention.
    """
    just_before = times - np.timedelta64(1, "ns")
    return just_before.tz_convert(ZONE).tz_localize(None).normalize()


def _decade(year: int) -> int:
    return year - year % 10


def _calendar(first_year: int, last_year: int) -> exchange_calendars.ExchangeCalendar:
    return _built_calendar(min(first_year, _USUAL_YEARS[0]), max(last_year, _USUAL_YEARS[1]))


@cache
def _built_calendar(first_year: int, last_year: int) -> exchange_calendars.ExchangeCalendar:
    """The calendar of whole years; its default range is only the last 20 years, hence the explicit one."""
    return exchange_calendars.get_calendar(EXCHANGE, start=f"{first_year}-01-01", end=f"{last_year}-12-31")
