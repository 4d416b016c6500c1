"""Bars for tests of cleaning: a calm random walk on real sessions, to be spoilt by the test."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.config import CleaningConfig
from engine.data.bars import COLUMNS
from engine.data.calendars import session_closes, session_hours, sessions_between
from engine.data.cleaning.pipeline import clean
from engine.data.quality import Finding, Quality
from engine.data.raw import Raw

Frames = dict[str, pd.DataFrame]


def days(count: int = 120, *, start: str = "2023-01-03", seed: int = 1) -> pd.DataFrame:
    """Daily bars of consecutive sessions: moves of about one per cent."""
    sessions = sessions_between(pd.Timestamp(start), pd.Timestamp(start) + pd.Timedelta(days=2 * count + 10))[:count]
    return _walk(session_closes(sessions).rename("time"), 0.01, seed)


def minutes(*dates: str, seed: int = 1, step: int = 1) -> pd.DataFrame:
    """All bars of the sessions of some dates, stamped with their ends."""
    ends = []
    for opened, closed in zip(*session_hours(pd.DatetimeIndex(dates)), strict=True):
        ends += list(pd.date_range(opened, closed, freq=f"{step}min", inclusive="right"))
    return _walk(pd.DatetimeIndex(ends).as_unit("ns").rename("time"), 0.0005, seed)


def _walk(time: pd.DatetimeIndex, move: float, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    close = np.round(100.0 * np.exp(np.cumsum(random.normal(0.0, move, len(time)))), 4)
    opened = np.round(np.append(100.0, close[:-1]) * np.exp(random.normal(0.0, move / 4, len(time))), 4)
    spread = np.exp(np.abs(random.normal(0.0, move / 2, len(time))))
    values = {
        "open": opened,
        "high": np.maximum(opened, close) * spread,
        "low": np.minimum(opened, close) / spread,
        "close": close,
        "volume": random.integers(1_000, 2_000, len(time)).astype(float),
    }
    return pd.DataFrame(values, index=time)[list(COLUMNS)]


def changed(frame: pd.DataFrame, bar: int, **values: float) -> pd.DataFrame:
    """The frame with some values of one bar replaced."""
    result = frame.copy()
    for column, value in values.items():
        result.iloc[bar, COLUMNS.index(column)] = value
    return result


def without(frame: pd.DataFrame, *bars: int) -> pd.DataFrame:
    return frame.drop(frame.index[list(bars)])


def cleaned(frames: Frames | pd.DataFrame, timeframe: str = "1d", *, raw: dict | None = None, **policy: str):
    """Clean frames, or the frame of ACME; gives frames and quality."""
    if isinstance(frames, pd.DataFrame):
        frames = {"ACME": frames}
    made = Raw(frames=frames, timeframe=timeframe, adjustment="none", source="files", **(raw or {}))
    return clean(made, CleaningConfig(**policy))


def found(quality: Quality, kind: str) -> list[Finding]:
    return [finding for finding in quality.findings if finding.kind == kind]
