"""Sessions of the New York Stock Exchange as Alpaca's clock and calendar tell of them, half days right."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache

import pandas as pd

from engine.data.calendars import ZONE, last_session_closes, sessions_of

FIRST, LAST = date(1970, 1, 1), date(2029, 12, 31)
_OPENS_AT_NINE_THIRTY = pd.Timestamp("1985-09-30")  # 10:00 before


@dataclass(frozen=True)
class Sessions:
    """Consecutive sessions; ``opens`` and ``closes`` in UTC nanoseconds."""

    days: pd.DatetimeIndex
    opens: list[int]
    closes: list[int]

    def is_open(self, now: int) -> bool:
        """Whether a session has begun and not ended; at its close it has ended."""
        at = bisect_right(self.opens, now) - 1
        return at >= 0 and now < self.closes[at]

    def next_open(self, now: int) -> int:
        """The first open after ``now``."""
        return self.opens[bisect_right(self.opens, now)]

    def next_close(self, now: int) -> int:
        """The first close after ``now``."""
        return self.closes[bisect_right(self.closes, now)]

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """Alpaca's calendar: naive New York times."""
        return [
            {
                "date": f"{day:%Y-%m-%d}",
                "open": f"{_local(opened):%H:%M}",
                "close": f"{_local(closed):%H:%M}",
                "session_open": "0400",
                "session_close": "2000",
                "settlement_date": f"{day:%Y-%m-%d}",
            }
            for day, opened, closed in zip(self.days, self.opens, self.closes, strict=True)
        ]


@lru_cache(maxsize=8)
def sessions_between(first: date, last: date) -> Sessions:
    """The sessions of the days from first to last, both included; there may be none."""
    every_day = pd.date_range(first, last, freq="D")
    closes = last_session_closes(every_day).unique() if len(every_day) else pd.DatetimeIndex([], tz="UTC")
    days = sessions_of(closes)
    inside = days >= pd.Timestamp(first)
    days, closes = days[inside], closes[inside]
    from_midnight = [pd.Timedelta(minutes=570 if day >= _OPENS_AT_NINE_THIRTY else 600) for day in days]
    opens = [(day + time).tz_localize(ZONE).value for day, time in zip(days, from_midnight, strict=True)]
    return Sessions(days, opens, closes.as_unit("ns").asi8.tolist())


def _local(time: int) -> pd.Timestamp:
    return pd.Timestamp(time, tz="UTC").tz_convert(ZONE)
