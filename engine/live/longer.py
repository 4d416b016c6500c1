"""Longer bars made of the broker's shorter ones, by the code that makes them of a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from engine.data.aggregation import aggregate
from engine.data.bars import COLUMNS
from engine.data.calendars import session_hours, sessions_of
from engine.data.timeframes import bar_ends, bar_starts, duration, in_session, is_intraday
from engine.errors import DataError
from engine.live.sources import checked_row_of, start_of

Fields = Mapping[str, Any]

_KEYS = ("o", "h", "l", "c", "v")


def longer_rows(
    rows: Mapping[str, Sequence[Fields]], *, base: str, timeframe: str, start: datetime, end: datetime
) -> dict[str, list[Fields]]:
    """Alpaca's rows of shorter bars as its rows of longer ones; those that may lack their beginning are left out.

    Args:
        rows: symbol -> bars that start in [start, end], in the order of time.
        base, timeframe: of the shorter and of the longer bars.

    Raises:
        KeyError, TypeError, ValueError: rows that are no bars, or of a day on which the exchange did not open.
    """
    until = _until(pd.Timestamp(end), base)
    longer: dict[str, list[Fields]] = {}
    for symbol, own in rows.items():
        frame = _frame(own, base)
        made = aggregate(frame, timeframe, until=until) if len(frame) else frame
        starts = bar_starts(pd.DatetimeIndex(made.index), timeframe)
        bars = zip(starts, made.to_numpy().tolist(), strict=True)
        longer[symbol] = [
            {"t": stamp.isoformat(), **dict(zip(_KEYS, values, strict=True))}
            for stamp, values in bars
            if stamp >= start
        ]
    return longer


def _until(end: pd.Timestamp, base: str) -> int:
    """When the bar is over that begins then, UTC ns."""
    if is_intraday(base):
        return int((end + duration(base)).value)
    _, closes = session_hours(sessions_of(pd.DatetimeIndex([end])))
    return int(end.value if pd.isna(closes[0]) else closes[0].value)


def _frame(rows: Sequence[Fields], base: str) -> pd.DataFrame:
    """The rows' bars of the regular session, by their ends, each once."""
    starts = pd.DatetimeIndex([start_of(row) for row in rows], dtype="datetime64[ns, UTC]")
    values = [checked_row_of(row) for row in rows]
    try:
        ends = bar_ends(starts, base)
    except DataError as error:
        raise ValueError(str(error)) from error
    frame = pd.DataFrame(values, index=ends, columns=list(COLUMNS), dtype=float)[in_session(ends, base)]
    return frame[~frame.index.duplicated(keep="last")].sort_index()
