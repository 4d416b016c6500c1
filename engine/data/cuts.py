"""Train, validate and test cuts, by the session of the decision bar; labels never reach over a cut."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import pandas as pd

from engine.data.bars import Bars
from engine.data.calendars import ZONE
from engine.data.cleaning.findings import within
from engine.errors import ConfigError, DataError


def decision_slice(times: pd.DatetimeIndex, span: tuple[date, date]) -> slice:
    """Positions of the bars whose New York session lies in the inclusive span; empty where there are none.

    Args:
        times: strictly increasing bar ends of one symbol, UTC.
        span: first and last session, both included.
    """
    after, until = session_bounds(span)
    start, stop = (int(times.searchsorted(moment, side="right")) for moment in (after, until))
    return slice(start, max(start, stop))


def session_bounds(span: tuple[date, date]) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The moments, UTC, after the first and until the second of which the bars of the inclusive span end."""
    # A session's bars end after its midnight and no later than the next one: see calendars.sessions_of.
    return _midnight(span[0]), _midnight(min(span[1], date.max - timedelta(days=1)) + timedelta(days=1))


def with_history(bars: Bars, span: tuple[date, date], *, warmup: int) -> tuple[Bars, pd.Timestamp, tuple[str, ...]]:
    """The bars of a span with up to ``warmup`` bars before it for each symbol, and nothing after it.

    Returns:
        The bars, the end of the first decision bar of any symbol, and the symbols that have no bar in the span and are
        left out.

    Raises:
        DataError: no symbol has a bar in the span.
    """
    frames, starts, absent = {}, [], []
    for symbol, frame in bars.frames.items():
        decisions = decision_slice(pd.DatetimeIndex(frame.index), span)
        if decisions.start == decisions.stop:
            absent.append(symbol)
            continue
        frames[symbol] = frame.iloc[max(0, decisions.start - warmup) : decisions.stop]
        starts.append(pd.Timestamp(frame.index[decisions.start]))
    if not frames:
        first = min(frame.index[0] for frame in bars.frames.values())
        last = max(frame.index[-1] for frame in bars.frames.values())
        raise DataError(
            f"no symbol has bars from {span[0]} to {span[1]}: the data run from {first:%Y-%m-%d} to "
            f"{last:%Y-%m-%d}; move the span"
        )
    used = replace(bars, frames=frames, quality=within(bars.quality, frames))
    return used, min(starts), tuple(absent)


def labelled_slice(times: pd.DatetimeIndex, span: tuple[date, date], *, horizon: int, embargo: int = 0) -> slice:
    """Decision bars of the span whose label ends inside it too, less the last ``embargo`` of them.

    The label of the bar at position t is the move from t to t + ``horizon``. Since no label leaves its span, the
    latest label end of one span lies before the earliest decision bar of the next, for all symbols together.
    Windows may reach back over the span's start.

    Args:
        times: strictly increasing bar ends of one symbol, UTC.
        span: first and last session of the decision bars, both included.
        horizon: bars from the decision to the end of its label, at least 1.
        embargo: bars left out at the end of the span besides, at least 0.

    Raises:
        ConfigError: a horizon below 1 or an embargo below 0.
    """
    if horizon < 1:
        raise ConfigError(f"model.horizon: at least 1 bar, found {horizon}")
    if embargo < 0:
        raise ConfigError(f"training.embargo: at least 0 bars, found {embargo}")
    decisions = decision_slice(times, span)
    return slice(decisions.start, max(decisions.start, decisions.stop - horizon - embargo))


def check_cuts(
    times: Mapping[str, pd.DatetimeIndex], parts: Mapping[str, Mapping[str, slice]], *, horizon: int
) -> None:
    """Check that every label of an earlier part ends before the first decision bar of each later part.

    It looks at the positions that are really used, whatever made them, so it also holds hand-made cuts.

    Args:
        times: symbol -> strictly increasing bar ends, UTC.
        parts: name of the part (``train``, ``validate``, ``test``, in the order of time) -> symbol -> positions of
            its decision bars, as ``labelled_slice`` gives them. A symbol may be missing or its slice empty.
        horizon: bars from a decision to the end of its label.

    Raises:
        DataError: a label reaches over a cut, or beyond the last bar; names the parts, the symbols and the times.
    """
    for earlier, later in itertools.combinations(parts, 2):
        ends = [
            (_label_end(times[symbol], taken, horizon, f"{earlier}, {symbol}"), symbol)
            for symbol, taken in parts[earlier].items()
            if taken.stop > taken.start
        ]
        starts = [
            (times[symbol][taken.start], symbol) for symbol, taken in parts[later].items() if taken.stop > taken.start
        ]
        if not ends or not starts:
            continue
        (end, labelled), (start, deciding) = max(ends), min(starts)
        if end >= start:
            raise DataError(
                f"the last label of {earlier} ({labelled}) ends at {end:%Y-%m-%d %H:%M} UTC, which must be before the "
                f"first decision bar of {later} ({deciding}) at {start:%Y-%m-%d %H:%M} UTC; move the spans apart"
            )


def _label_end(times: pd.DatetimeIndex, taken: slice, horizon: int, where: str) -> pd.Timestamp:
    position = taken.stop - 1 + horizon
    if position >= len(times):
        raise DataError(
            f"{where}: the label of the bar at {times[taken.stop - 1]:%Y-%m-%d %H:%M} UTC ends {horizon} bars later, "
            f"beyond the last bar at {times[-1]:%Y-%m-%d %H:%M} UTC; end the span earlier"
        )
    return pd.Timestamp(times[position])


def _midnight(day: date) -> pd.Timestamp:
    """The New York midnight that begins the day, in UTC; days beyond the reach of nanosecond times are moved to it."""
    return pd.Timestamp(min(max(day, date(1678, 1, 1)), date(2261, 12, 31)), tz=ZONE).tz_convert("UTC")
