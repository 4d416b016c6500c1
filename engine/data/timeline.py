"""What lies where in time: the bars that there are, the spans, and the folds with what is left out of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.calendars import sessions_of
from engine.data.folds import Fold, Parts, Span, folds_of, rows_of, sessions_between


def timeline(config: RunConfig, bars: Bars, *, horizon: int) -> dict[str, Any]:
    """For the drawing of spans and folds, JSON-ready; days are written as 2004-09-01.

    Args:
        bars: all that the run file's source has.
        horizon: bars from a decision to the end of its label; 0 without a model.

    Returns:
        months: [first day of the month, symbols that have a bar in it], in order; of a universe [first day, members
            that have a bar in it while they are members, members].
        spans: name -> its first and last session.
        folds: of each fold part -> its stretches, [first, last] each: ``train``, ``validate``, ``test`` and what of the
            first two is ``purged`` and ``embargoed``.

    Raises:
        ConfigError: the folds do not fit the data.
        DataError: one of them leaks.
    """
    spans = {name: _written(span) for name, span in config.spans.named().items() if span is not None}
    days = _sessions(bars)
    return {"months": _months(bars, days), "spans": spans, "folds": _folds(config, bars, days, horizon)}


def _sessions(bars: Bars) -> dict[str, np.ndarray]:
    """Symbol -> the session of each of its bars, datetime64[D]; asked for all symbols at once."""
    ends = [pd.DatetimeIndex(frame.index).as_unit("ns").asi8 for frame in bars.frames.values()]
    days = sessions_of(pd.DatetimeIndex(np.concatenate(ends), tz="UTC")).to_numpy().astype("datetime64[D]")
    stops = np.cumsum([len(own) for own in ends])[:-1]
    return dict(zip(bars.frames, np.split(days, stops), strict=True))


def _months(bars: Bars, sessions: Mapping[str, np.ndarray]) -> list[list[Any]]:
    found = []
    for symbol, days in sessions.items():
        inside = slice(None) if bars.inside is None else bars.inside[symbol]
        found.append(np.unique(days[inside].astype("datetime64[M]")))
    months, counts = np.unique(np.concatenate(found), return_counts=True)
    rows = []
    for month, count in zip(months.astype("datetime64[D]").tolist(), counts.tolist(), strict=True):
        row = [str(month), count]
        if bars.membership is not None:
            row.append(len(bars.membership.between(month, _last_day(month))))
        rows.append(row)
    return rows


def _last_day(month: date) -> date:
    return (pd.Timestamp(month) + pd.offsets.MonthEnd(0)).date()


def _folds(
    config: RunConfig, bars: Bars, days: Mapping[str, np.ndarray], horizon: int
) -> list[dict[str, list[list[str]]]]:
    section = config.folds
    if section is None:
        return []
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in bars.frames.items()}
    sessions = sessions_between(times, config.spans.extent)
    purge = horizon if section.purge is None else section.purge
    drawn = []
    for fold in folds_of(section, sessions):
        rows = rows_of(fold, times, horizon=horizon, purge=purge, embargo=section.embargo)
        bare = rows_of(fold, times, horizon=horizon, purge=purge) if section.embargo else rows
        left, kept = _used(rows, days), _used(bare, days)
        lost = [day for day in sessions if _within(day, (*fold.train, *fold.validate)) and day not in left]
        embargoed = [day for day in lost if day in kept]
        purged = [day for day in lost if day not in kept]
        order = {day: position for position, day in enumerate(sessions)}
        drawn.append(_parts(fold) | {"purged": _runs(purged, order), "embargoed": _runs(embargoed, order)})
    return drawn


def _used(rows: Parts, days: Mapping[str, np.ndarray]) -> set[date]:
    """The sessions of training and validation bars that are left."""
    parts = [days[symbol][taken] for name in rows if name != "test" for symbol, taken in rows[name].items()]
    return set(np.unique(np.concatenate(parts)).tolist())


def _within(day: date, spans: Iterable[Span]) -> bool:
    return any(first <= day <= last for first, last in spans)


def _parts(fold: Fold) -> dict[str, list[list[str]]]:
    return {name: [_written(span) for span in spans] for name, spans in fold.named().items()}


def _runs(days: list[date], order: Mapping[date, int]) -> list[list[str]]:
    """Stretches of sessions that follow one another."""
    runs: list[list[date]] = []
    for day in days:
        if runs and order[runs[-1][-1]] == order[day] - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return [_written((run[0], run[-1])) for run in runs]


def _written(span: Span) -> list[str]:
    return [str(span[0]), str(span[1])]
