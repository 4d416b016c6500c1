"""Timeframes such as ``1d`` or ``5m``: how long they are, and whether bars keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from engine.data.bars import Bars
from engine.data.calendars import (
    ZONE,
    last_bars_of_sessions,
    last_session_closes,
    session_closes,
    session_hours,
    sessions_of,
)
from engine.errors import DataError

# From here on a regular session holds at most one whole bar, and the one after it is cut short by the close.
_HALF_SESSION = pd.Timedelta(hours=4)
_DAYS_BETWEEN = {"1d": (1, 4), "1w": (5, 9)}


def is_intraday(timeframe: str) -> bool:
    """Whether a session holds several bars of it."""
    return timeframe[-1] in "mh"


def duration(timeframe: str) -> pd.Timedelta:
    """How long an intraday bar lasts."""
    return pd.Timedelta(int(timeframe[:-1]), unit="min" if timeframe[-1] == "m" else "h")


def trading_seconds(timeframe: str) -> float:
    """Trading time from one bar to the next, seconds: a session has six and a half hours."""
    if is_intraday(timeframe):
        return float(duration(timeframe) / pd.Timedelta(seconds=1))
    return 6.5 * 3600.0 * (5.0 if timeframe == "1w" else 1.0)


def session_ends(bars: Bars) -> Callable[[int], bool]:
    """Whether a session ends with the bar that ends at this time (UTC ns): always, unless bars are intraday."""
    if not is_intraday(bars.timeframe):
        return lambda time: True
    times = [pd.DatetimeIndex(frame.index).asi8 for frame in bars.frames.values()]
    return last_bars_of_sessions(pd.DatetimeIndex(np.concatenate(times), tz="UTC"))


def bar_starts(ends: pd.DatetimeIndex, timeframe: str) -> pd.DatetimeIndex:
    """The moment with which Alpaca stamps each bar: its start; for a day or a week, New York's midnight before it."""
    if is_intraday(timeframe):
        return ends - duration(timeframe)
    days = sessions_of(ends)
    if timeframe == "1w":
        days = days - pd.to_timedelta(days.day_of_week, unit="D")
    return days.tz_localize(ZONE).tz_convert("UTC").as_unit("ns")


def bar_ends(starts: pd.DatetimeIndex, timeframe: str) -> pd.DatetimeIndex:
    """The moment at which each bar is complete, from the start that Alpaca stamps it with; undoes ``bar_starts``.

    Raises:
        DataError: a day on which the exchange did not open.
    """
    if is_intraday(timeframe):
        return starts + duration(timeframe)
    days = starts.tz_convert(ZONE).tz_localize(None).normalize()
    return session_closes(days) if timeframe == "1d" else last_session_closes(days + pd.Timedelta(days=6))


def in_session(ends: pd.DatetimeIndex, timeframe: str) -> np.ndarray:
    """Whether each bar lies within the regular session of its day, from open to close: booleans, as long as ``ends``.

    Bars before the open, after the close and on days without a session do not, nor does one that begins before the
    open and reaches into the session (an hour's bar from 9:00). Days and weeks always do.
    """
    if not is_intraday(timeframe):
        return np.ones(len(ends), dtype=bool)
    days, day_of_bar = np.unique(sessions_of(ends).to_numpy(), return_inverse=True)
    opens, closes = session_hours(pd.DatetimeIndex(days))
    starts = ends - duration(timeframe)
    return np.asarray((starts >= opens[day_of_bar]) & (ends <= closes[day_of_bar]))


def next_bar_end(after: int, timeframe: str) -> int:
    """When the first bar is complete that ends after a moment; both UTC ns.

    Intraday bars end on New York's clock, and with the session at its close.
    """
    moment = pd.Timestamp(after, tz="UTC")
    today = moment.tz_convert(ZONE).tz_localize(None).normalize()
    days = pd.date_range(today, periods=15, freq="D")  # longer than any closure since 1933
    if timeframe == "1w":
        mondays = days - pd.to_timedelta(days.day_of_week, unit="D")
        ends = last_session_closes(mondays.unique() + pd.Timedelta(days=6))
        return int(ends[ends > moment][0].value)
    opens, closes = session_hours(days)
    later = closes > moment
    opened, closed = opens[later][0], closes[later][0]
    if not is_intraday(timeframe):
        return int(closed.value)
    step = duration(timeframe)
    midnight = opened.tz_convert(ZONE).normalize()
    # The first whole bar begins at or after the open, as Alpaca's lie on the clock.
    first = midnight + -(-(opened - midnight) // step) * step
    passed = max(0, (moment - first) // step)
    return int(min(first + (passed + 1) * step, closed).value)


def check_alignment(times: Mapping[str, pd.DatetimeIndex], timeframe: str) -> None:
    """Check that bars of different symbols do not overlap without ending together.

    Between two bars that overlap, a decision at the end of the one would fill at the open of the other, which was
    before it. Daily bars of a session end together; intraday bars end on one grid, but for the last one of a session.

    Raises:
        DataError: they do not; names two symbols.
    """
    seen: dict[object, tuple[str, int]] = {}
    for symbol, own in times.items():
        for key, value, position in _grid(own, timeframe) if is_intraday(timeframe) else _ends(own):
            other, expected = seen.setdefault(key, (symbol, value))
            if value != expected:
                raise DataError(
                    f"bars overlap without ending together: {symbol} has one that ends at "
                    f"{own[position]:%Y-%m-%d %H:%M} UTC, off the bars of {other}; a decision between them would fill "
                    "in its own past, so use symbols of one market and one grid of bars"
                )


def _ends(own: pd.DatetimeIndex) -> list[tuple[object, int, int]]:
    """For each bar: its session, its end, its position."""
    return list(zip(sessions_of(own).asi8.tolist(), own.asi8.tolist(), range(len(own)), strict=True))


def _grid(own: pd.DatetimeIndex, timeframe: str) -> list[tuple[object, int, int]]:
    """The distinct offsets of bar ends on New York's clock, the last bar of each session left out."""
    days = sessions_of(own)
    inside = np.flatnonzero(np.append(days[1:] == days[:-1], False))
    local = own.tz_convert(ZONE)
    minutes = (local.hour * 60 + local.minute).to_numpy()[inside] % int(duration(timeframe) / pd.Timedelta(minutes=1))
    offsets, first = np.unique(minutes, return_index=True)
    return [("grid", int(offset), int(inside[at])) for offset, at in zip(offsets, first, strict=True)]


def check_spacing(times: pd.DatetimeIndex, timeframe: str, *, where: str) -> None:
    """Check that the bars are about as far apart as their timeframe says.

    Intraday bars fit when the commonest or the smallest distance inside a day is their timeframe: a thin symbol has
    more gaps than neighbours, and the last bar of a session may be cut short. Daily and weekly bars are judged by the
    commonest number of days from one to the next.

    Args:
        times: strictly increasing bar ends, UTC, at least two.
        timeframe: as the run file names it.
        where: file and symbol, named in errors.

    Raises:
        DataError: the distance is another one.
    """
    days = sessions_of(times)
    steps = (days[1:] - days[:-1]).days.to_numpy()
    within = (times[1:] - times[:-1])[steps == 0]
    if is_intraday(timeframe):
        wanted = duration(timeframe)
        common = _commonest(within.to_numpy())
        if len(common) == 0:
            raise DataError(f"{where}: data.timeframe is {timeframe}, but there is at most one bar a day; set it to 1d")
        fits = wanted == within.min() or wanted.to_timedelta64() in common
        fits = fits or (wanted >= _HALF_SESSION and bool((common <= wanted).any()))
        found = f"{pd.Timedelta(common[0]) / pd.Timedelta(minutes=1):g} minutes"
    else:
        if len(within):
            shared = days[int(np.argmax(steps == 0))]
            raise DataError(
                f"{where}: data.timeframe is {timeframe}, but there are several bars on {shared:%Y-%m-%d}; "
                "set it to their own timeframe"
            )
        low, high = _DAYS_BETWEEN[timeframe]
        common = _commonest(steps)
        fits = bool(((common >= low) & (common <= high)).any())
        found = f"{common[0]} days"
    if not fits:
        raise DataError(
            f"{where}: data.timeframe is {timeframe}, but the bars are mostly {found} apart; "
            "set it to their own timeframe"
        )


def _commonest(values: np.ndarray) -> np.ndarray:
    """The value that occurs most often, or several where they tie."""
    distinct, counts = np.unique(values, return_counts=True)
    return distinct[counts == counts.max()] if len(distinct) else distinct
