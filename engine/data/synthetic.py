"""A made-up minute market: random walks on real sessions, with the gaps that real minutes have.

The same bytes on every machine and with every version of numpy: only the raw output of PCG64, which numpy keeps stable
(its distributions it does not), and additions, multiplications and roundings, which IEEE 754 fixes to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import PCG64

from engine.data.calendars import ZONE, session_closes

# November 2023: the clocks change on the 5th, Thanksgiving is the 23rd, and the 24th closes at 13:00.
_FIRST_DAY, _LAST_DAY = "2023-11-01", "2023-11-29"
_HOLIDAYS = ("2023-11-23",)
_OPEN = pd.Timedelta(hours=9, minutes=30)
_TICKS_PER_MINUTE = 4


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """How one made-up symbol behaves.

    Attributes:
        seed: of its own generator, so that no symbol depends on which others are asked for.
        price: at the first minute.
        minute_volatility: standard deviation of a one-minute return.
        traded: share of the minutes in which it trades; the others have no bar.
        shares: typical volume of a minute at midday.
        listed: its first minute, counted from the start of the first session.
    """

    seed: int
    price: float
    minute_volatility: float
    traded: float
    shares: float
    listed: int = 0


# No real ticker holds an underscore.
_WALKS: Mapping[str, _Walk] = {
    "SYN_CALM": _Walk(seed=101, price=120.0, minute_volatility=0.0004, traded=0.998, shares=20_000.0),
    "SYN_LATE": _Walk(seed=102, price=24.0, minute_volatility=0.0012, traded=0.97, shares=6_000.0, listed=7 * 390 + 75),
    "SYN_THIN": _Walk(seed=103, price=41.0, minute_volatility=0.0006, traded=0.35, shares=300.0),
    "SYN_WILD": _Walk(seed=104, price=65.0, minute_volatility=0.0010, traded=0.99, shares=9_000.0),
}
SYNTHETIC_SYMBOLS = tuple(_WALKS)


def synthetic_minutes(symbols: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """One-minute bars of some of ``SYNTHETIC_SYMBOLS``: 20 sessions of November 2023, made up, the same every time.

    One symbol trades nearly every minute, one moves more, one is thin (two minutes of three have no bar), and one is
    listed in the middle of a session. Prices are random walks: there is nothing to be forecast in them.
    """
    minutes, session_starts, rush = _minutes()
    return {symbol: _bars(_WALKS[symbol], minutes, session_starts, rush) for symbol in symbols}


def _minutes() -> tuple[pd.DatetimeIndex, np.ndarray, np.ndarray]:
    """Every minute's end in UTC; whether it opens a session; how much busier than midday it is (1 to 3)."""
    dates = pd.bdate_range(_FIRST_DAY, _LAST_DAY).difference(pd.DatetimeIndex(_HOLIDAYS))
    opens = (dates + _OPEN).tz_localize(ZONE).tz_convert("UTC")
    lengths = (session_closes(dates) - opens) // pd.Timedelta(minutes=1)
    ends = [start + pd.to_timedelta(np.arange(1, n + 1), unit="min") for start, n in zip(opens, lengths, strict=True)]
    within = np.concatenate([(np.arange(n) + 0.5) / n for n in lengths])
    starts = np.concatenate([np.arange(n) == 0 for n in lengths])
    from_midday = 2.0 * within - 1.0
    return pd.DatetimeIndex(np.concatenate(ends), tz="UTC"), starts, 1.0 + 2.0 * from_midday * from_midday


def _bars(walk: _Walk, minutes: pd.DatetimeIndex, session_starts: np.ndarray, rush: np.ndarray) -> pd.DataFrame:
    source = PCG64(walk.seed)
    count = len(minutes)
    returns = _bell(source, count * _TICKS_PER_MINUTE).reshape(count, _TICKS_PER_MINUTE)
    returns *= walk.minute_volatility / np.sqrt(_TICKS_PER_MINUTE)
    # A night moves a price about as much as a hundred minutes do.
    returns[:, 0] += np.where(session_starts, _bell(source, count) * walk.minute_volatility * 10.0, 0.0)
    prices = np.round(walk.price * np.cumprod(1.0 + returns.ravel()), 2).reshape(count, _TICKS_PER_MINUTE)
    volume = np.floor(walk.shares * rush * (0.5 + _uniform(source, count)))
    frame = pd.DataFrame(
        {
            "open": prices[:, 0],
            "high": prices.max(axis=1),
            "low": prices.min(axis=1),
            "close": prices[:, -1],
            "volume": volume,
        },
        index=minutes,
    )
    has_bar = _uniform(source, count) < walk.traded
    has_bar[: walk.listed] = False
    return frame[has_bar]


def _uniform(source: PCG64, count: int) -> np.ndarray:
    """Numbers in [0, 1), 53 bits each."""
    return (source.random_raw(count) >> np.uint64(11)) * 2.0**-53


def _bell(source: PCG64, count: int) -> np.ndarray:
    """Sums of 12 uniform numbers less 6: mean 0, variance 1, and nearly normal without a logarithm."""
    total = np.zeros(count)
    for _ in range(12):
        total += _uniform(source, count)
    return total - 6.0
