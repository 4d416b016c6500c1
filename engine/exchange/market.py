"""The bars as the exchange knows them: history, the steps that are still to come, and nothing ahead of its clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.data.bars import COLUMNS, Bars
from engine.data.calendars import session_number
from engine.data.timeframes import bar_ends, bar_starts, duration, is_intraday, session_ends, sessions_a_bar
from engine.errors import DataError
from engine.exchange.hours import Sessions, sessions_between

_NANOSECONDS_A_SESSION = 23_400_000_000_000  # 6.5 hours


class Step(NamedTuple):
    """The bars that complete at one moment; symbols sorted, rows of open, high, low, close, volume beside them.

    ``time`` and ``starts`` are UTC nanoseconds; the session is numbered in calendar days.
    """

    time: int
    session: int
    session_ends: bool
    symbols: list[str]
    starts: list[int]
    rows: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class Series:
    """All bars of one symbol: [bars] ends and starts in UTC nanoseconds, [bars, 5] open, high, low, close, volume."""

    ends: NDArray[np.int64]
    starts: NDArray[np.int64]
    values: NDArray[np.float64]

    def known(self, now: int) -> int:
        """Number of bars that are complete at ``now``."""
        return int(np.searchsorted(self.ends, now, side="right"))


class Market:
    """Bars in the shape that a replay needs, made once: a step costs microseconds, and no step makes it grow.

    Attributes:
        series: symbol -> all its bars, sorted by symbol. histories: the same, and the shorter bars where there are any,
            by the timeframe as Alpaca names it, in lower case.
        timeframe: as the run file names it; ``alpaca_timeframe`` as Alpaca does.
        opening: the clock before the first step: the end of the last bar of history, or the start of the first bar.
        opening_prices: last close of each symbol that has history.
        content_hash: of the bars.
    """

    def __init__(self, bars: Bars, start: pd.Timestamp, base: Bars | None = None) -> None:
        """Cut the bars at ``start``, the end of the first bar that is still to come.

        ``base``: shorter bars of the same symbols, which are told as history once they are complete.

        Raises:
            DataError: no bar is to come, or bars end where Alpaca's do not.
        """
        self.timeframe = bars.timeframe
        self.alpaca_timeframe = _alpaca_name(bars.timeframe)
        self.content_hash = bars.content_hash
        self.series: Mapping[str, Series] = {s: _series(s, bars.frames[s], bars.timeframe) for s in sorted(bars.frames)}
        self.histories: dict[str, Mapping[str, Series]] = {self.alpaca_timeframe.lower(): self.series}
        if base is not None:
            shorter = {s: _series(s, base.frames[s], base.timeframe) for s in self.series}
            self.histories[_alpaca_name(base.timeframe).lower()] = shorter
        self._symbols = list(self.series)
        self._session_ends = session_ends(bars)
        first = int(pd.Timestamp(start).as_unit("ns").value)
        coming = {s: int(np.searchsorted(series.ends, first)) for s, series in self.series.items()}
        parts = [(number, self.series[s], coming[s]) for number, s in enumerate(self._symbols)]
        ends = np.concatenate([series.ends[at:] for _, series, at in parts])
        if not len(ends):
            raise DataError(f"no symbol has a bar at or after {start}; start the exchange earlier")
        owners = np.concatenate([np.full(len(series.ends) - at, number) for number, series, at in parts])
        order = np.lexsort((owners, ends))
        self._owners = owners[order]
        self._starts = np.concatenate([series.starts[at:] for _, series, at in parts])[order]
        self._rows = np.concatenate([series.values[at:] for _, series, at in parts])[order]
        times, begins = np.unique(ends[order], return_index=True)
        self._times: list[int] = times.tolist()
        self._bounds: list[int] = [*begins.tolist(), len(ends)]
        self.opening_prices = {
            s: float(series.values[coming[s] - 1, 3]) for s, series in self.series.items() if coming[s]
        }
        history = [int(series.ends[coming[s] - 1]) for s, series in self.series.items() if coming[s]]
        self.opening = max(history) if history else int(self._starts[0])

    @cached_property
    def sessions(self) -> Sessions:
        """The sessions from before the first bar to after the last."""
        first, last = (pd.Timestamp(time, tz="UTC").date() for time in (self.opening, self._times[-1]))
        return sessions_between(first - timedelta(days=10), last + timedelta(days=20))

    def __len__(self) -> int:
        """Number of steps."""
        return len(self._times)

    def time(self, number: int) -> int:
        """Bar end of a step, UTC nanoseconds."""
        return self._times[number]

    def step(self, number: int) -> Step:
        """The bars of a step."""
        time, begin, end = self._times[number], self._bounds[number], self._bounds[number + 1]
        return Step(
            time,
            session_number(time),
            self._session_ends(time),
            [self._symbols[owner] for owner in self._owners[begin:end].tolist()],
            self._starts[begin:end].tolist(),
            self._rows[begin:end].tolist(),
        )

    def pause(self, number: int, now: int) -> int:
        """Simulated nanoseconds from ``now`` to a step, in trading time.

        Nights and days without trading are skipped: the first bar of a session comes after one bar's length, which is
        6.5 hours for a daily bar and five times that for a weekly one.
        """
        time = self._times[number]
        if is_intraday(self.timeframe):
            longest = duration(self.timeframe).value
            if session_number(time) == session_number(now):
                return time - now
        else:
            longest = int(_NANOSECONDS_A_SESSION * sessions_a_bar(self.timeframe))
        return min(time - now, longest)


def _series(symbol: str, frame: pd.DataFrame, timeframe: str) -> Series:
    ends = pd.DatetimeIndex(frame.index).as_unit("ns")
    starts = bar_starts(ends, timeframe)
    try:
        kept = bar_ends(starts, timeframe).equals(ends)
    except DataError as error:
        raise DataError(f"{symbol}: {_NOT_CARRIED} ({error})") from error
    if not kept:
        raise DataError(f"{symbol}: {_NOT_CARRIED}")
    return Series(
        ends=ends.asi8,
        starts=starts.as_unit("ns").asi8,
        values=np.ascontiguousarray(frame[list(COLUMNS)].to_numpy(dtype=np.float64)),
    )


_NOT_CARRIED = (
    "the bars' ends do not follow New York's sessions, so an exchange like Alpaca, which stamps bars with their start, "
    "cannot carry them; use bars that end with the sessions of the New York Stock Exchange"
)


def _alpaca_name(timeframe: str) -> str:
    """``5m`` -> ``5Min``, ``1h`` -> ``1Hour``, ``1d`` -> ``1Day``, ``1w`` -> ``1Week``, ``1mo`` -> ``1Month``."""
    if timeframe == "1mo":
        return "1Month"
    return timeframe[:-1] + {"m": "Min", "h": "Hour", "d": "Day", "w": "Week"}[timeframe[-1]]
