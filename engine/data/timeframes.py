"""Timeframes such as ``1d`` or ``5m``: how long they are, and whether bars keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
_DAY_NANOSECONDS = 86_400_000_000_000
_DAYS_BETWEEN = {"1d": (1, 4), "1w": (5, 9), "1mo": (26, 36)}
_SESSIONS = {"1d": 1.0, "1w": 5.0, "1mo": 21.0}


def is_intraday(timeframe: str) -> bool:
    """Whether a session holds several bars of it."""
    return timeframe[-1] in "mh"


def spans_days(timeframe: str) -> bool:
    """Whether one of its bars covers several sessions: a week or a month."""
    return timeframe in ("1w", "1mo")


def first_days(days: pd.DatetimeIndex, timeframe: str) -> pd.DatetimeIndex:
    """The Monday of each day's week, or the first of its month; naive midnights."""
    back = days.day_of_week if timeframe == "1w" else days.day - 1
    return days - pd.to_timedelta(back, unit="D")


def last_days(days: pd.DatetimeIndex, timeframe: str) -> pd.DatetimeIndex:
    """The Sunday of each day's week, or the last of its month; naive midnights."""
    ahead = 6 - days.day_of_week if timeframe == "1w" else days.days_in_month - days.day
    return days + pd.to_timedelta(ahead, unit="D")


def sessions_a_bar(timeframe: str) -> float:
    """Sessions that a bar of days, weeks or months covers."""
    return _SESSIONS[timeframe]


def duration(timeframe: str) -> pd.Timedelta:
    """How long an intraday bar lasts."""
    return pd.Timedelta(int(timeframe[:-1]), unit="min" if timeframe[-1] == "m" else "h")


def trading_seconds(timeframe: str) -> float:
    """Trading time from one bar to the next, seconds: a session has six and a half hours."""
    if is_intraday(timeframe):
        return float(duration(timeframe) / pd.Timedelta(seconds=1))
    return 6.5 * 3600.0 * sessions_a_bar(timeframe)


def session_ends(bars: Bars) -> Callable[[int], bool]:
    """Whether a session ends with the bar that ends at this time (UTC ns): always, unless bars are intraday."""
    if not is_intraday(bars.timeframe):
        return lambda time: True
    times = [pd.DatetimeIndex(frame.index).asi8 for frame in bars.frames.values()]
    return last_bars_of_sessions(pd.DatetimeIndex(np.concatenate(times), tz="UTC"))


def bar_starts(ends: pd.DatetimeIndex, timeframe: str) -> pd.DatetimeIndex:
    """The moment with which Alpaca stamps each bar: its start; of days and more, the New York midnight before it."""
    if is_intraday(timeframe):
        return ends - duration(timeframe)
    days = sessions_of(ends)
    if spans_days(timeframe):
        days = first_days(days, timeframe)
    return days.tz_localize(ZONE).tz_convert("UTC").as_unit("ns")


def bar_ends(starts: pd.DatetimeIndex, timeframe: str) -> pd.DatetimeIndex:
    """The moment at which each bar is complete, from the start that Alpaca stamps it with; undoes ``bar_starts``.

    Raises:
        DataError: a day on which the exchange did not open.
    """
    if is_intraday(timeframe):
        return starts + duration(timeframe)
    days = starts.tz_convert(ZONE).tz_localize(None).normalize()
    return session_closes(days) if timeframe == "1d" else last_session_closes(last_days(days, timeframe))


def in_session(ends: pd.DatetimeIndex, timeframe: str) -> np.ndarray:
    """Whether each bar lies within the regular session of its day, from open to close: booleans, as long as ``ends``.

    Bars before the open, after the close and on days without a session do not, nor does one that begins before the
    open and reaches into the session (an hour's bar from 9:00). Days and longer ones always do.
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
    if spans_days(timeframe):
        first = first_days(days[:1], timeframe)[0]
        firsts = pd.date_range(first, periods=3, freq="7D" if timeframe == "1w" else "MS")
        ends = last_session_closes(last_days(firsts, timeframe))
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


@dataclass(frozen=True)
class _Joined:
    """Bar ends of several symbols, one symbol after the other, and what New York's clock says of each.

    ``sessions`` are in nanoseconds; ``inside`` is true where the next bar is of the same symbol and session. Distinct
    ends are looked at once, since symbols share most of theirs.
    """

    symbols: tuple[str, ...]
    number: np.ndarray  # of the symbol
    ends: np.ndarray
    sessions: np.ndarray
    inside: np.ndarray
    minutes: np.ndarray  # since midnight

    @classmethod
    def of(cls, times: Mapping[str, pd.DatetimeIndex]) -> _Joined:
        ends = np.concatenate([own.asi8 for own in times.values()])
        number = np.repeat(np.arange(len(times)), [len(own) for own in times.values()])
        codes, distinct = pd.factorize(ends)
        moments = pd.DatetimeIndex(distinct, tz="UTC")
        local = moments.tz_convert(ZONE)
        sessions = sessions_of(moments).as_unit("ns").asi8[codes]
        inside = np.append((number[1:] == number[:-1]) & (sessions[1:] == sessions[:-1]), False)
        minutes = (local.hour * 60 + local.minute).to_numpy()[codes]
        return cls(tuple(times), number, ends, sessions, inside, minutes)


def check_alignment(times: Mapping[str, pd.DatetimeIndex], timeframe: str) -> None:
    """Check that bars of different symbols do not overlap without ending together.

    Between two bars that overlap, a decision at the end of the one would fill at the open of the other, which was
    before it. Daily bars of a session end together; intraday bars end on one grid, but for the last one of a session.

    Raises:
        DataError: they do not; names two symbols.
    """
    if not times:
        return
    joined = _Joined.of(times)
    if is_intraday(timeframe):
        looked_at = np.flatnonzero(joined.inside)
        value = joined.minutes[looked_at] % int(duration(timeframe) / pd.Timedelta(minutes=1))
        first = np.zeros(len(looked_at), dtype=np.int64)
    else:
        looked_at, value = np.arange(len(joined.ends)), joined.ends
        codes, distinct = pd.factorize(joined.sessions)
        # The first bar of each session: of equal codes the last one assigned stays.
        of_session = np.empty(len(distinct), dtype=np.int64)
        of_session[codes[::-1]] = looked_at[::-1]
        first = of_session[codes]
    off = value != value[first]
    if off.any():
        at = int(np.argmax(off))
        symbol, other = (joined.symbols[joined.number[looked_at[i]]] for i in (at, first[at]))
        raise DataError(
            f"bars overlap without ending together: {symbol} has one that ends at "
            f"{pd.Timestamp(joined.ends[looked_at[at]]):%Y-%m-%d %H:%M} UTC, off the bars of {other}; a decision "
            "between them would fill in its own past, so use symbols of one market and one grid of bars"
        )


def check_spacings(
    times: Mapping[str, pd.DatetimeIndex], timeframe: str, *, where: Callable[[str], str], key: str = "data.timeframe"
) -> None:
    """``check_spacing`` of several symbols: those that clearly fit are told at once, the others one by one.

    Args:
        times: symbol -> strictly increasing bar ends, UTC.
        timeframe: as the run file names it.
        where: symbol -> file and symbol, named in errors.
        key: what says so in the run file.
    """
    joined = _Joined.of(times) if times else None
    if joined is None:
        return
    count = len(joined.symbols)
    if is_intraday(timeframe):
        within = np.flatnonzero(joined.inside)
        shortest = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(shortest, joined.number[within], joined.ends[within + 1] - joined.ends[within])
        fits = shortest == duration(timeframe).value
    else:
        own = np.flatnonzero(joined.number[1:] == joined.number[:-1])
        steps = (joined.sessions[own + 1] - joined.sessions[own]) // _DAY_NANOSECONDS
        low, high = _DAYS_BETWEEN[timeframe]
        # Steps beyond the longest that fits count as one, which can only make the others look too many.
        counts = np.bincount(
            joined.number[own] * (high + 2) + np.minimum(steps, high + 1), minlength=count * (high + 2)
        )
        by_symbol = counts.reshape(count, high + 2)
        others = np.delete(by_symbol, slice(low, high + 1), axis=1)
        fits = (by_symbol[:, 0] == 0) & (by_symbol[:, low : high + 1].max(axis=1) >= np.maximum(others.max(axis=1), 1))
    for position in np.flatnonzero(~fits).tolist():
        symbol = joined.symbols[position]
        check_spacing(times[symbol], timeframe, where=where(symbol), key=key)


def check_spacing(times: pd.DatetimeIndex, timeframe: str, *, where: str, key: str = "data.timeframe") -> None:
    """Check that the bars are about as far apart as their timeframe says.

    Intraday bars fit when the commonest or the smallest distance inside a day is their timeframe: a thin symbol has
    more gaps than neighbours, and the last bar of a session may be cut short. Daily and weekly bars are judged by the
    commonest number of days from one to the next.

    Args:
        times: strictly increasing bar ends, UTC, at least two.
        timeframe: as the run file names it.
        where: file and symbol, named in errors. key: what says so in the run file.

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
            raise DataError(f"{where}: {key} is {timeframe}, but there is at most one bar a day; set it to 1d")
        fits = wanted == within.min() or wanted.to_timedelta64() in common
        fits = fits or (wanted >= _HALF_SESSION and bool((common <= wanted).any()))
        found = f"{pd.Timedelta(common[0]) / pd.Timedelta(minutes=1):g} minutes"
    else:
        if len(within):
            shared = days[int(np.argmax(steps == 0))]
            raise DataError(
                f"{where}: {key} is {timeframe}, but there are several bars on {shared:%Y-%m-%d}; "
                "set it to their own timeframe"
            )
        low, high = _DAYS_BETWEEN[timeframe]
        common = _commonest(steps)
        fits = bool(((common >= low) & (common <= high)).any())
        found = "a day" if common[0] == 1 else f"{common[0]} days"
    if not fits:
        raise DataError(
            f"{where}: {key} is {timeframe}, but the bars are mostly {found} apart; set it to their own timeframe"
        )


def _commonest(values: np.ndarray) -> np.ndarray:
    """The value that occurs most often, or several where they tie."""
    distinct, counts = np.unique(values, return_counts=True)
    return distinct[counts == counts.max()] if len(distinct) else distinct
