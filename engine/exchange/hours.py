"""Sessions of the New York Stock Exchange as Alpaca's clock and calendar tell of them, half days right."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache

import numpy as np
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
        days, opens, closes = (
            times.strftime(form).tolist()
            for times, form in ((self.days, "%Y-%m-%d"), (_local(self.opens), "%H:%M"), (_local(self.closes), "%H:%M"))
        )
        extended = {"session_open": "0400", "session_close": "2000"}
        return [
            {"date": day, "open": opened, "close": closed, "settlement_date": day, **extended}
            for day, opened, closed in zip(days, opens, closes, strict=True)
        ]


@lru_cache(maxsize=64)
def sessions_between(first: date, last: date) -> Sessions:
    """The sessions of the days from first to last, both included; there may be none."""
    every_day = pd.date_range(first, last, freq="D")
    closes = last_session_closes(every_day).unique() if len(every_day) else pd.DatetimeIndex([], tz="UTC")
    days = sessions_of(closes)
    inside = days >= pd.Timestamp(first)
    days, closes = days[inside], closes[inside]
    minutes = np.where(days >= _OPENS_AT_NINE_THIRTY, 570, 600)
    opens = (days + pd.to_timedelta(minutes, unit="min")).tz_localize(ZONE)
    return Sessions(days, opens.as_unit("ns").asi8.tolist(), closes.as_unit("ns").asi8.tolist())


def _local(times: list[int]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.array(times, dtype=np.int64), tz="UTC").tz_convert(ZONE)
