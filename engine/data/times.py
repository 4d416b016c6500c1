"""From the times a file writes to the moments at which its bars are complete, in UTC."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from engine.config import DataConfig
from engine.data.calendars import ZONE, last_session_closes, session_closes
from engine.data.timeframes import duration, is_intraday
from engine.errors import ConfigError, DataError

_DAY = pd.Timedelta(days=1)
_OFFSET = r"[T ]\d{2}.*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"

_FAR = "the time {time} is beyond the years 1679 to 2260; correct it"


def bar_ends(times: pd.Series, data: DataConfig, *, where: str) -> pd.DatetimeIndex:
    """The UTC bar end of each of a file's times, in the file's order.

    Times with an offset are converted; times without one are read in ``data.timezone``. Dates (all of the times are
    midnights) name a session and become its New York close, or, in another ``data.timezone``, the midnight that ends
    the day there; a week's date becomes the close of its last session. ``data.stamp: start`` moves an intraday bar
    by its timeframe, and says that a week is named by its first day.

    Args:
        times: of one symbol, text in ISO 8601 or datetimes, indexed by the row of the file.
        data: timeframe, timezone and stamp are used.
        where: file and symbol, named in errors.

    Raises:
        DataError: a time that is missing or cannot be read; times without a zone; dates where the timeframe is
            intraday; a date without a session; a local time that the clock change skips or repeats.
        ConfigError: an unknown zone.
    """
    zone = _zone(data.timezone or ZONE)
    if times.empty:
        return pd.DatetimeIndex([], dtype="datetime64[ns, UTC]")
    parsed = _parsed(times, where)
    dates = _dates(parsed, zone)
    if is_intraday(data.timeframe):
        if dates is not None:
            raise DataError(
                f"{where}: data.timeframe is {data.timeframe}, but the times are dates without a time of day; "
                "set it to 1d"
            )
        ends = _in_utc(parsed, data, zone, times, where)
        return ends + duration(data.timeframe) if data.stamp == "start" else ends
    if dates is None:
        moments = _in_utc(parsed, data, zone, times, where)
        if data.stamp != "start":
            return moments
        dates = moments.tz_convert(zone).tz_localize(None).normalize()
    if data.timeframe == "1w" and data.stamp == "start":
        dates = dates + 6 * _DAY
    if zone.key != ZONE:
        return _localised(dates + _DAY, zone, times, where)
    try:
        return session_closes(dates) if data.timeframe == "1d" else last_session_closes(dates)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigError(f"data.timezone: unknown zone {name!r}; expected a name such as {ZONE} or UTC") from None


def _parsed(times: pd.Series, where: str) -> pd.DatetimeIndex:
    """The times, in UTC where they have an offset and naive where they have none; never a mixture."""
    if pd.api.types.is_datetime64_any_dtype(times.dtype):
        moments = pd.DatetimeIndex(times)
        _refuse(np.asarray(moments.isna()), times, where, "the time is missing; add it")
        _refuse(_far(moments), times, where, _FAR)
        return moments if moments.tz is None else moments.tz_convert("UTC")
    text = times.astype(str).str.strip()
    missing = times.isna() | text.str.lower().isin(["", "nan", "nat", "none", "null"])
    _refuse(missing.to_numpy(), times, where, "the time is missing; add it")
    offset = text.str.contains(_OFFSET).to_numpy(dtype=bool)
    if offset.any():
        _refuse(~offset, times, where, "the time '{time}' has no zone, unlike others of the file; give all an offset")
    moments = pd.DatetimeIndex(pd.to_datetime(text, format="ISO8601", utc=bool(offset.any()), errors="coerce"))
    unread = "the time '{time}' cannot be read; write it as 2024-01-31 or 2024-01-31T09:35:00-05:00"
    _refuse(np.asarray(moments.isna()), times, where, unread)
    _refuse(_far(moments), times, where, _FAR)
    return moments


def _far(moments: pd.DatetimeIndex) -> np.ndarray:
    """Where a time is beyond the reach of nanoseconds, with a year to spare for zones and weeks."""
    return np.asarray((moments.year < 1679) | (moments.year > 2260))


def _dates(parsed: pd.DatetimeIndex, zone: ZoneInfo) -> pd.DatetimeIndex | None:
    """Naive midnights where every time is one, in its own clock, in the zone's or in UTC; else None."""
    clocks = [parsed] if parsed.tz is None else [parsed.tz_convert(zone).tz_localize(None), parsed.tz_localize(None)]
    return next((clock for clock in clocks if bool((clock == clock.normalize()).all())), None)


def _in_utc(
    parsed: pd.DatetimeIndex, data: DataConfig, zone: ZoneInfo, times: pd.Series, where: str
) -> pd.DatetimeIndex:
    if parsed.tz is not None:
        return parsed
    if data.timezone is None:
        raise DataError(
            f"{where}: times without a zone, such as {times.iloc[0]}; write them with their offset, or set "
            f"data.timezone, as in data.timezone: {ZONE}"
        )
    return _localised(parsed, zone, times, where)


def _localised(naive: pd.DatetimeIndex, zone: ZoneInfo, times: pd.Series, where: str) -> pd.DatetimeIndex:
    local = naive.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    problem = "the time {time} is skipped or repeated by the change of clocks in " + zone.key
    _refuse(np.asarray(local.isna()), times, where, f"{problem}; write the times with their offset")
    return local.tz_convert("UTC")


def _refuse(bad: np.ndarray, times: pd.Series, where: str, problem: str) -> None:
    """Raise for the first bad time, naming its row; ``problem`` may name it as ``{time}``."""
    if bad.any():
        position = int(np.argmax(bad))
        found = problem.format(time=times.iloc[position])
        raise DataError(f"{where}, row {times.index[position]}: {found}")
