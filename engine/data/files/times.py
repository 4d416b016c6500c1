"""From the times a file writes to the moments at which its bars are complete, in UTC."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from engine.config import DataConfig
from engine.data.calendars import ZONE, last_session_closes, session_hours
from engine.data.files.columns import shown
from engine.data.files.vendors import Layout
from engine.data.timeframes import duration, is_intraday, last_days, spans_days
from engine.errors import ConfigError, DataError

_DAY = pd.Timedelta(days=1)
_OFFSET = r"[T ]\d{2}.*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"
_NUMBERED = r"^(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})(?:$|[T ,]+(.*)$)"
_MONTH_BY_NAME = r"^[A-Za-z]{3} \d{1,2}, \d{4}$"
_COMPACT = r"^(\d{8})[T ](\d{1,6})$"

_FAR = "the time {time} is beyond the years 1679 to 2260; correct it"
_UNREAD = "the time '{time}' cannot be read; write it as 2024-01-31 or 2024-01-31T09:35:00-05:00"


@dataclass(frozen=True)
class Distinct:
    """A file's times, each once, and where the first bar of each stands: ``place`` of its position, for errors."""

    times: pd.Series
    first: np.ndarray
    place: Callable[[int], str]
    file: str

    def refuse(self, bad: np.ndarray, problem: str) -> None:
        """Raise for the first bad time; ``problem`` may name it as ``{time}``."""
        if bad.any():
            found = np.flatnonzero(bad)
            at = found[np.argmin(self.first[found])]
            problem = problem.replace("{time}", shown(self.times.iloc[at]))
            raise DataError(f"{self.place(int(self.first[at]))}: {problem}")


def bar_ends(
    times: pd.Series, data: DataConfig, layout: Layout, *, place: Callable[[int], str], file: str
) -> pd.DatetimeIndex:
    """The UTC bar end of each of a file's times, in the file's order.

    Times with an offset are converted; times without one are read in ``data.timezone``. Dates (all of the times are
    midnights) name a session and become its New York close, or the midnight that ends the day where there was none;
    in another ``data.timezone`` they become the midnight that ends the day there. A week's date becomes the close of
    its last session. A stamp at the start moves an intraday bar by its timeframe, and says that a week is named by its
    first day. Each distinct time is read once, so that a file of many symbols costs as much as one of one symbol.

    Args:
        times: text or datetimes.
        data: timeframe (or base), timezone, stamp and date_format are used.
        layout: stamp, zone and writing of dates of the file's vendor, where ``data`` does not say otherwise.
        place: position -> file, symbol and row, for errors.
        file: named in errors that are about all of the times.

    Raises:
        DataError: a time that is missing or cannot be read; dates of which day and month cannot be told apart; times
            without a zone; dates where the timeframe is intraday; a local time that the clock change skips or repeats.
        ConfigError: an unknown zone; a ``date_format`` that is none.
    """
    zone = _zone(data.timezone or ZONE)
    if times.empty:
        return pd.DatetimeIndex([], dtype="datetime64[ns, UTC]", name="time")
    codes, values = pd.factorize(times, use_na_sentinel=True)
    if (codes < 0).any():
        raise DataError(f"{place(int(np.argmax(codes < 0)))}: the time is missing; add it")
    first = np.empty(len(values), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # of equal codes the last one assigned stays
    distinct = Distinct(pd.Series(values), first, place, file)
    ends = _ends(distinct, data, layout, zone).as_unit("ns")
    return pd.DatetimeIndex(ends.asi8[codes], dtype="datetime64[ns, UTC]", name="time")


def day_ends(dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """UTC close of the New York session of each date, or the New York midnight that ends it where there was none.

    Args:
        dates: naive midnights, in any order.
    """
    closes = session_hours(dates)[1].as_unit("ns")
    closed = np.asarray(closes.isna())
    if closed.any():
        midnights = (dates[closed] + _DAY).tz_localize(ZONE).tz_convert("UTC").as_unit("ns")
        moments = closes.asi8.copy()
        moments[closed] = midnights.asi8
        closes = pd.DatetimeIndex(moments, tz="UTC")
    return closes


def _ends(distinct: Distinct, data: DataConfig, layout: Layout, zone: ZoneInfo) -> pd.DatetimeIndex:
    timeframe = data.base or data.timeframe
    stamp = data.stamp or layout.stamp or "end"
    parsed = _parsed(distinct, data, layout)
    dates = _dates(parsed, zone)
    if is_intraday(timeframe):
        if dates is not None:
            raise DataError(
                f"{distinct.file}: data.{'base' if data.base else 'timeframe'} is {timeframe}, but the times are dates "
                "without a time of day; set it to 1d"
            )
        ends = _in_utc(parsed, data, layout, distinct)
        return ends + duration(timeframe) if stamp == "start" else ends
    if dates is None:
        moments = _in_utc(parsed, data, layout, distinct)
        if stamp != "start":
            return moments
        dates = moments.tz_convert(zone).tz_localize(None).normalize()
    if spans_days(timeframe) and stamp == "start":
        # Some weeks are named by their Sunday.
        dates = dates + 6 * _DAY if timeframe == "1w" else last_days(dates, timeframe)
    if zone.key != ZONE:
        return _localised(dates + _DAY, zone, distinct)
    try:
        return day_ends(dates) if timeframe == "1d" else last_session_closes(dates)
    except DataError as error:
        raise DataError(f"{distinct.file}: {error}") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigError(
            f"data.timezone: unknown zone {shown(name)!r}; expected a name such as {ZONE} or UTC"
        ) from None


def _parsed(distinct: Distinct, data: DataConfig, layout: Layout) -> pd.DatetimeIndex:
    """The times, in UTC where they have an offset and naive where they have none; never a mixture."""
    times = distinct.times
    if pd.api.types.is_datetime64_any_dtype(times.dtype):
        moments = pd.DatetimeIndex(times)
        distinct.refuse(_far(moments), _FAR)
        return moments if moments.tz is None else moments.tz_convert("UTC")
    if layout.epoch and (pd.api.types.is_integer_dtype(times.dtype) or times.astype(str).str.fullmatch(r"\d+").all()):
        numbers = pd.to_numeric(times, errors="coerce").astype("float64")
        distinct.refuse((numbers >= 2.0**63).to_numpy() | numbers.isna().to_numpy(), _FAR)
        moments = pd.DatetimeIndex(times.astype("int64"), tz="UTC")
        distinct.refuse(_far(moments), _FAR)
        return moments
    if data.date_format is None:
        # The usual case, told at a fraction of the cost.
        days = pd.DatetimeIndex(pd.to_datetime(times.astype(str), format="%Y-%m-%d", errors="coerce"))
        if not days.hasnans:
            distinct.refuse(_far(days), _FAR)
            return days
    text = times.astype(str).str.strip()
    missing = text.str.lower().isin(["", "nan", "nat", "none", "null"])
    distinct.refuse(missing.to_numpy(dtype=bool), "the time is missing; add it")
    if data.date_format is not None:
        return _by_format(text, data.date_format, distinct)
    text = _iso(text, layout, distinct)
    offset = text.str.contains(_OFFSET).to_numpy(dtype=bool)
    if offset.any():
        distinct.refuse(~offset, "the time '{time}' has no zone, unlike others of the file; give all an offset")
    moments = pd.DatetimeIndex(pd.to_datetime(text, format="ISO8601", utc=bool(offset.any()), errors="coerce"))
    distinct.refuse(np.asarray(moments.isna()), _UNREAD)
    distinct.refuse(_far(moments), _FAR)
    return moments


def _by_format(text: pd.Series, date_format: str, distinct: Distinct) -> pd.DatetimeIndex:
    try:
        offset = "%z" in date_format
        moments = pd.DatetimeIndex(pd.to_datetime(text, format=date_format, utc=offset, errors="coerce"))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"data.date_format: {shown(date_format)!r} is no format of dates ({shown(error)}); "
            "write it as %d/%m/%Y or %m/%d/%Y %H:%M"
        ) from None
    unread = f"the time '{{time}}' is not written as data.date_format says, {shown(date_format)}; correct one of them"
    distinct.refuse(np.asarray(moments.isna()), unread)
    distinct.refuse(_far(moments), _FAR)
    return moments


def _iso(text: pd.Series, layout: Layout, distinct: Distinct) -> pd.Series:
    """The times in ISO 8601 where all of them are written in one other known way; else as they are."""
    if _all_written(text, _COMPACT):
        parts = text.str.extract(_COMPACT)
        minutes = bool((parts[1].str.len() == 4).all())
        return parts[0] + "T" + (parts[1] if minutes else parts[1].str.zfill(6))  # 93500 where it was a number
    if _all_written(text, _MONTH_BY_NAME):
        return pd.to_datetime(text, format="%b %d, %Y", errors="coerce").dt.strftime("%Y-%m-%d").fillna(text)
    if not _all_written(text, _NUMBERED):
        return text
    parts = text.str.extract(_NUMBERED)
    one, two = parts[0].astype(int), parts[1].astype(int)
    first = layout.dates
    if first is None:
        day_first, month_first = bool((one > 12).any()), bool((two > 12).any())
        if day_first == month_first:
            known = "there are days above 12 in both places" if day_first else "no day is above 12"
            raise DataError(
                f"{distinct.file}: of dates such as {shown(text.iloc[0])}, day and month cannot be told apart, since "
                f"{known}; set data.date_format, as in '%d/%m/%Y' or '%m/%d/%Y' (in quotes)"
            )
        first = "day" if day_first else "month"
    month, day = (two, one) if first == "day" else (one, two)
    two_digits = "{:02d}".format
    dates = parts[2] + "-" + month.map(two_digits) + "-" + day.map(two_digits)
    clock = parts[3].fillna("").str.replace(r"^(\d):", r"0\1:", regex=True)
    return dates.where(clock == "", dates + "T" + clock)


def _all_written(text: pd.Series, pattern: str) -> bool:
    return re.match(pattern, text.iloc[0]) is not None and bool(text.str.match(pattern).all())


def _far(moments: pd.DatetimeIndex) -> np.ndarray:
    """Where a time is beyond the reach of nanoseconds, with a year to spare for zones and weeks."""
    return np.asarray((moments.year < 1679) | (moments.year > 2260))


def _dates(parsed: pd.DatetimeIndex, zone: ZoneInfo) -> pd.DatetimeIndex | None:
    """Naive midnights where every time is one, in its own clock, in the zone's or in UTC; else None."""
    clocks = [parsed] if parsed.tz is None else [parsed.tz_convert(zone).tz_localize(None), parsed.tz_localize(None)]
    return next((clock for clock in clocks if bool((clock == clock.normalize()).all())), None)


def _in_utc(parsed: pd.DatetimeIndex, data: DataConfig, layout: Layout, distinct: Distinct) -> pd.DatetimeIndex:
    if parsed.tz is not None:
        return parsed
    name = data.timezone or layout.zone
    if name is None:
        raise DataError(
            f"{distinct.file}: times without a zone, such as {shown(distinct.times.iloc[0])}; write them with their "
            f"offset, or set data.timezone, as in data.timezone: {ZONE}"
        )
    return _localised(parsed, _zone(name), distinct)


def _localised(naive: pd.DatetimeIndex, zone: ZoneInfo, distinct: Distinct) -> pd.DatetimeIndex:
    local = naive.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    problem = "the time {time} is skipped or repeated by the change of clocks in " + zone.key
    distinct.refuse(np.asarray(local.isna()), f"{problem}; write the times with their offset")
    return local.tz_convert("UTC")
