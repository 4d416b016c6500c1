"""A made-up minute market on real sessions, and an exchange that serves it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from engine.data.bars import Bars
from engine.data.calendars import session_hours


def minutes(symbols: Sequence[str], first: str, last: str, *, missing: float = 0.02) -> Bars:
    """One-minute random walks in cents on every session from ``first`` to ``last``; some minutes have no bar."""
    opens, closes = session_hours(pd.date_range(first, last, freq="D"))
    held = ~pd.isna(opens)
    ends = np.concatenate(
        [
            pd.date_range(start + pd.Timedelta(minutes=1), end, freq="min").as_unit("ns").asi8
            for start, end in zip(opens[held], closes[held], strict=True)
        ]
    )
    frames = {}
    for number, symbol in enumerate(sorted(symbols)):
        random = np.random.default_rng(100 + number)
        close = np.round(100.0 * np.exp(np.cumsum(random.normal(0.0, 0.0006, len(ends)))), 2)
        opening = np.concatenate([[100.0], close[:-1]])
        frame = pd.DataFrame(
            {
                "open": opening,
                "high": np.round(np.maximum(opening, close) + 0.02, 2),
                "low": np.round(np.minimum(opening, close) - 0.02, 2),
                "close": close,
                "volume": np.round(np.exp(random.normal(7.0, 0.5, len(ends)))),
            },
            index=pd.DatetimeIndex(ends, tz="UTC", name="time"),
        )
        frames[symbol] = frame[random.random(len(ends)) >= missing]
    return Bars(frames=frames, timeframe="1m", adjustment="all", source="made up", synthetic=True)
