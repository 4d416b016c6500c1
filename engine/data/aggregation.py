"""Longer bars made of shorter ones: one definition for history and for bars as they come.

A bar of 15 minutes, of an hour or of a day covers a part of one session, counted from its open and cut off at its
close, so that half days and changes of the clocks come out right; a week and a month end with their last session. It
holds what its shorter bars hold: no bar is invented where there are none, and none is known before it is over.

========= ==============================================
value     of the longer bar
========= ==============================================
open      of the first shorter bar
high      the largest
low       the smallest
close     of the last
volume    the sum
time      the end of its stretch, by the calendar
========= ==============================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.config import DataConfig
from engine.data.bars import COLUMNS, Bars
from engine.data.calendars import ZONE, last_session_closes, session_hours, sessions_of
from engine.data.timeframes import duration, first_days, is_intraday, last_days, next_bar_end, spans_days
from engine.errors import ConfigError, DataError

Row = tuple[float, float, float, float, float]

# By their last letters: minutes, hours, a day, a week, a month ("1mo").
_ORDER = "mhdwo"
# Shorter bars of these lengths lie whole in every longer one that is counted from the open.
_SESSION = pd.Timedelta(hours=6, minutes=30)
_MOST_SESSIONS = {"1d": 1, "1w": 5, "1mo": 23}
_HALF_HOUR = pd.Timedelta(minutes=30)


def check_timeframes(base: str, timeframe: str, *, key: str) -> None:
    """Check that bars of one timeframe can be made of another's.

    Raises:
        ConfigError: they cannot; names ``key``.
    """
    if is_intraday(base) and is_intraday(timeframe):
        short, long = duration(base), duration(timeframe)
        possible = long > short and long % short == pd.Timedelta(0) and _HALF_HOUR % short == pd.Timedelta(0)
    else:
        # Weeks do not lie whole in months.
        possible = _ORDER.index(base[-1]) < _ORDER.index(timeframe[-1]) and not (
            is_intraday(timeframe) or spans_days(base)
        )
    if not possible:
        raise ConfigError(
            f"{key}: bars of {timeframe} cannot be made of bars of {base}; expected a longer timeframe, and between "
            "minutes and hours a multiple of one that divides half an hour, as 15m of 1m or 5m"
        )


def most_bars(base: str, timeframe: str) -> int:
    """How many shorter bars a longer one holds at most."""
    if is_intraday(timeframe):
        return int(duration(timeframe) / duration(base))
    a_day = int(_SESSION / duration(base)) + 1 if is_intraday(base) else 1
    return a_day * _MOST_SESSIONS[timeframe]


def stretch_ends(ends: pd.DatetimeIndex, timeframe: str) -> NDArray[np.int64]:
    """End of the longer bar that each shorter one belongs to: [bars], UTC ns.

    Args:
        ends: ends of the shorter bars, UTC, in any order.
        timeframe: of the longer bars.

    Raises:
        DataError: a bar outside of the regular session.
    """
    if not len(ends):
        return np.empty(0, dtype=np.int64)
    times = ends.as_unit("ns").asi8
    days, day_of_bar = np.unique(sessions_of(ends).to_numpy(), return_inverse=True)
    sessions = pd.DatetimeIndex(days)
    opens, closes = (hours.as_unit("ns") for hours in session_hours(sessions))
    outside = np.asarray(opens.isna())[day_of_bar]
    outside |= (times <= opens.asi8[day_of_bar]) | (times > closes.asi8[day_of_bar])
    if outside.any():
        raise DataError(
            f"the bar that ends at {ends[int(np.argmax(outside))]:%Y-%m-%d %H:%M} UTC lies outside of New York's "
            "regular session, by which longer bars are made; set data.cleaning.off_session: drop"
        )
    if spans_days(timeframe):
        return np.asarray(last_session_closes(last_days(sessions, timeframe)).as_unit("ns").asi8[day_of_bar])
    if timeframe == "1d":
        return np.asarray(closes.asi8[day_of_bar])
    length = duration(timeframe).value
    opened = opens.asi8[day_of_bar]
    number = -(-(times - opened) // length)
    return np.asarray(np.minimum(opened + number * length, closes.asi8[day_of_bar]))


def next_stretch_end(after: int, timeframe: str) -> int:
    """End of the first stretch of an intraday timeframe, counted from the open, that ends after a moment (UTC ns)."""
    today = pd.Timestamp(after, tz="UTC").tz_convert(ZONE).tz_localize(None).normalize()
    opens, closes = session_hours(pd.date_range(today, periods=15, freq="D"))
    later = closes > pd.Timestamp(after, tz="UTC")
    opened, closed = int(opens[later][0].value), int(closes[later][0].value)
    length = duration(timeframe).value
    return min(opened + max(1, (after - opened) // length + 1) * length, closed)


def next_end(after: int, data: DataConfig) -> int:
    """When the first bar of a run file's timeframe is over that ends after a moment; both UTC ns."""
    if data.base is not None and is_intraday(data.timeframe):
        return next_stretch_end(after, data.timeframe)
    return next_bar_end(after, data.timeframe)


def aggregate(frame: pd.DataFrame, timeframe: str, *, until: int) -> pd.DataFrame:
    """One symbol's longer bars that are over at ``until``, in the form of ``Bars``' frames.

    Those of a shortened frame are the first ones of the whole frame's, to the bit.

    Args:
        frame: canonical frame of the shorter bars.
        timeframe: of the longer ones.
        until: how far the bars reach, UTC ns: what ends later is not over, whatever there is of it.

    Raises:
        DataError: a bar outside of the regular session.
    """
    ends = stretch_ends(pd.DatetimeIndex(frame.index), timeframe)
    begins = np.flatnonzero(np.diff(ends, prepend=-1))
    kept = int(np.searchsorted(ends[begins], until, side="right"))
    index = pd.DatetimeIndex(ends[begins[:kept]], dtype="datetime64[ns, UTC]", name="time")
    if not kept:
        return pd.DataFrame({name: np.empty(0) for name in COLUMNS}, index=index)
    over = int(begins[kept]) if kept < len(begins) else len(frame)
    opens, highs, lows, closes, volumes = (np.ascontiguousarray(frame[name].to_numpy()[:over]) for name in COLUMNS)
    starts = begins[:kept]
    values = (
        opens[starts],
        np.maximum.reduceat(highs, starts),
        np.minimum.reduceat(lows, starts),
        closes[np.append(starts[1:], over) - 1],
        np.add.reduceat(volumes, starts),
    )
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)), index=index)


def aggregated(bars: Bars, timeframe: str) -> Bars:
    """The bars in a longer timeframe, from the first one that is whole to the last one that is over.

    Of a universe, a symbol that is left with fewer than two bars is left out.

    Raises:
        DataError: a bar outside of the regular session, or a symbol that is left with fewer than two bars.
    """
    until = max(int(frame.index[-1].value) for frame in bars.frames.values())
    frames = made(bars.frames, bars.timeframe, timeframe, until=until)
    if bars.membership is not None:
        frames = {symbol: frame for symbol, frame in frames.items() if len(frame) > 1} or frames
    for symbol, frame in frames.items():
        if len(frame) < 2:
            raise DataError(
                f"{bars.source}, {symbol}: at least two bars are needed, and its bars of {bars.timeframe} make "
                f"{len(frame)} of {timeframe}; give a longer history"
            )
    return replace(bars, frames=frames, timeframe=timeframe)


def made(frames: Mapping[str, pd.DataFrame], base: str, timeframe: str, *, until: int) -> dict[str, pd.DataFrame]:
    """Each symbol's longer bars that are over at ``until`` (UTC ns).

    Where the bars of all symbols begin in the midst of a stretch, that one is left out: it would be another one if
    they had begun earlier. A symbol that is listed later begins with what there is of its first stretch.
    """
    longer = {symbol: aggregate(frame, timeframe, until=until) for symbol, frame in frames.items()}
    begins = [pd.DatetimeIndex(frame.index[:1]) for frame in frames.values() if len(frame)]
    if not begins:
        return longer
    first = min(begins, key=lambda own: own[0])
    if _is_whole(first, base, timeframe):
        return longer
    lost = pd.Timestamp(int(stretch_ends(first, timeframe)[0]), tz="UTC")
    return {symbol: frame[frame.index > lost] for symbol, frame in longer.items()}


def slower_frames(bars: Bars, timeframe: str) -> dict[str, pd.DataFrame]:
    """Longer bars of each symbol as a strategy that is called at the shorter ones comes to know them.

    Each is stamped with the first step (end of a bar of any symbol) at or after its end, which nearly always is its
    end. Where a symbol's next one is over by then too, only that one is shown. A first one that lacks its beginning is
    left out.

    Args:
        bars: the bars that are decided on. timeframe: of the longer ones.
    """
    steps = np.unique(
        np.concatenate([pd.DatetimeIndex(frame.index).as_unit("ns").asi8 for frame in bars.frames.values()])
    )
    return {symbol: _as_known(frame, bars.timeframe, timeframe, steps) for symbol, frame in bars.frames.items()}


def _as_known(frame: pd.DataFrame, base: str, timeframe: str, steps: NDArray[np.int64]) -> pd.DataFrame:
    if not len(frame):
        return frame
    longer = aggregate(frame, timeframe, until=int(steps[-1]))
    if len(longer) and not _is_whole(pd.DatetimeIndex(frame.index[:1]), base, timeframe):
        longer = longer.iloc[1:]
    known = steps[np.searchsorted(steps, pd.DatetimeIndex(longer.index).as_unit("ns").asi8)]
    shown = np.append(known[1:] != known[:-1], True) if len(known) else np.empty(0, dtype=bool)
    index = pd.DatetimeIndex(known[shown], dtype="datetime64[ns, UTC]", name="time")
    return longer.loc[shown].set_axis(index, axis="index")


def _is_whole(first: pd.DatetimeIndex, base: str, timeframe: str) -> bool:
    """Whether the first bar of a history is the first one of its stretch."""
    end = int(first.as_unit("ns").asi8[0])
    opens, closes = (hours.as_unit("ns") for hours in session_hours(_days_until(first, timeframe)))
    known = ~np.asarray(opens.isna())
    opened, closed = int(opens.asi8[known][0]), int(closes.asi8[known][0])
    if is_intraday(timeframe):
        length = duration(timeframe).value
        opened += (end - 1 - opened) // length * length
    return end == (min(opened + duration(base).value, closed) if is_intraday(base) else closed)


def _days_until(first: pd.DatetimeIndex, timeframe: str) -> pd.DatetimeIndex:
    """The days of a bar's stretch up to its own; of a stretch within a session, that day."""
    day = sessions_of(first)
    return pd.date_range(first_days(day, timeframe)[0], day[0]) if spans_days(timeframe) else day


@dataclass
class _Stretch:
    """A longer bar that is under way: when it is over (UTC ns), what it holds, and whether it has its beginning."""

    end: int
    rows: list[Sequence[float]]
    whole: bool


class SlowerBars:
    """Longer bars as the shorter ones come: what ``slower_frames`` shows, one step after another.

    Args:
        history: the bars before the first step, which count.
        timeframes: of the longer bars.
    """

    def __init__(self, history: Bars, timeframes: Iterable[str]) -> None:
        self._base = history.timeframe
        self._timeframes = tuple(timeframes)
        self._under_way: dict[tuple[str, str], _Stretch] = {}
        last = max((int(frame.index[-1].value) for frame in history.frames.values() if len(frame)), default=0)
        for symbol, frame in history.frames.items():
            for timeframe in self._timeframes if len(frame) else ():
                self._begin(symbol, timeframe, frame, last)
        self._known = {symbol for symbol, frame in history.frames.items() if len(frame)}

    def _begin(self, symbol: str, timeframe: str, frame: pd.DataFrame, last: int) -> None:
        """What the history leaves under way."""
        times = pd.DatetimeIndex(frame.index)
        ends = stretch_ends(times, timeframe)
        rows = frame[ends > last]
        if len(rows):
            whole = len(rows) < len(frame) or _is_whole(times[:1], self._base, timeframe)
            values: list[Sequence[float]] = [*rows[list(COLUMNS)].to_numpy().tolist()]
            self._under_way[symbol, timeframe] = _Stretch(int(ends[-1]), values, whole)

    def take(self, time: int, bars: Mapping[str, Sequence[float]]) -> dict[tuple[str, str], Row]:
        """Take the bars of a step; the longer ones that are known with it, by symbol and timeframe.

        Args:
            time: the step's, UTC ns. bars: symbol -> open, high, low, close, volume.
        """
        known: dict[tuple[str, str], Row] = {}
        for symbol, row in bars.items():
            for timeframe in self._timeframes:
                stretch = self._under_way.get((symbol, timeframe))
                if stretch is None or stretch.end < time:
                    if stretch is not None and stretch.whole:
                        known[symbol, timeframe] = _summed(stretch.rows)
                    stretch = self._under_way[symbol, timeframe] = self._fresh(symbol, timeframe, time)
                stretch.rows.append(tuple(row))
            self._known.add(symbol)
        for key in [key for key, stretch in self._under_way.items() if stretch.end <= time]:
            stretch = self._under_way.pop(key)
            if stretch.whole:
                known[key] = _summed(stretch.rows)
        return known

    def _fresh(self, symbol: str, timeframe: str, time: int) -> _Stretch:
        end = pd.DatetimeIndex([time], tz="UTC")
        whole = symbol in self._known or _is_whole(end, self._base, timeframe)
        return _Stretch(int(stretch_ends(end, timeframe)[0]), [], whole)


def _summed(rows: Sequence[Sequence[float]]) -> Row:
    """As ``aggregate`` reduces them, to the bit."""
    volumes = np.array([row[4] for row in rows])
    return (
        rows[0][0],
        max(row[1] for row in rows),
        min(row[2] for row in rows),
        rows[-1][3],
        float(np.add.reduceat(volumes, [0])[0]),
    )
