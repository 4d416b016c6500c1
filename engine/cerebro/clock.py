"""backtrader's clock is a float of days; ours is an integer of nanoseconds. Both ways."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# backtrader counts days from 0001-01-01 as day 1; the Unix epoch is this day.
EPOCH_DAY = 719_163.0
_MILLISECONDS_A_DAY = 86_400_000
_NANOSECONDS_A_MILLISECOND = 1_000_000


def to_days(times: pd.DatetimeIndex) -> NDArray[np.float64]:
    """Bar ends as backtrader's float days. Equal times give equal floats; the resolution is about 10 microseconds."""
    milliseconds = times.as_unit("ns").asi8 // _NANOSECONDS_A_MILLISECOND
    return EPOCH_DAY + milliseconds / _MILLISECONDS_A_DAY


def to_days_of(time: int) -> float:
    """One bar end, UTC nanoseconds, as ``to_days`` gives it."""
    return EPOCH_DAY + time // _NANOSECONDS_A_MILLISECOND / _MILLISECONDS_A_DAY


def to_nanoseconds(days: float) -> int:
    """A float of days as UTC nanoseconds, rounded to the millisecond, so that it gives back the bar's own time."""
    return round((days - EPOCH_DAY) * _MILLISECONDS_A_DAY) * _NANOSECONDS_A_MILLISECOND
