"""Yahoo as a source of history, through yfinance, which is an extra and imported when it is asked.

Yahoo's prices and dividends are adjusted for splits already, as of now, and not for dividends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from engine.config import DataConfig
from engine.data.bars import COLUMNS
from engine.data.cache.ranges import Fetched
from engine.data.cache.shelves import ACTIONS, empty_frame
from engine.data.calendars import ZONE, session_hours
from engine.data.timeframes import bar_ends, in_session, spans_days
from engine.errors import ConfigError, DataError

_INTERVALS = {
    "1m": "1m", "2m": "2m", "5m": "5m", "15m": "15m", "30m": "30m", "60m": "60m", "1h": "1h", "90m": "90m",
    "1d": "1d", "1w": "1wk", "1mo": "1mo",
}  # fmt: skip
_ITS_COLUMNS = ("Open", "High", "Low", "Close", "Volume")


class YahooHistory:
    """Bars of Yahoo's charts; a ``fetching.Source``."""

    name = "yahoo"
    variant = "split"
    adjustment = "split"
    words = "Yahoo"
    lasting = True
    most_symbols = 10

    def __init__(self, data: DataConfig) -> None:
        """No network, and no yfinance, is needed yet.

        Raises:
            ConfigError: a timeframe that Yahoo has not.
        """
        self.timeframe = data.base or data.timeframe
        if self.timeframe not in _INTERVALS:
            key = "data.timeframe" if data.base is None else "data.base"
            raise ConfigError(f"{key}: Yahoo has bars of {', '.join(_INTERVALS)}, found {self.timeframe}")

    def now(self) -> pd.Timestamp:
        """The present moment by the machine's clock."""
        return pd.Timestamp.now("UTC")

    def fetch(self, symbols: Sequence[str], first: date, last: date | None, *, now: pd.Timestamp) -> dict[str, Fetched]:
        """See ``fetching.Source``.

        Raises:
            ConfigError: yfinance is not installed.
            DataError: Yahoo was not reached, refused, or answered with what are no bars of New York.
        """
        return {symbol: self._fetch(symbol, first, last, now=now) for symbol in symbols}

    def _fetch(self, symbol: str, first: date, last: date | None, *, now: pd.Timestamp) -> Fetched:
        with _raising() as yfinance:
            from yfinance.exceptions import YFRateLimitError, YFTickerMissingError

            try:
                table = yfinance.Ticker(symbol).history(
                    interval=_INTERVALS[self.timeframe],
                    start=first.isoformat(),
                    end=None if last is None else (last + timedelta(days=1)).isoformat(),
                    auto_adjust=False,
                    actions=True,
                    keepna=True,
                )
            except YFTickerMissingError:
                return Fetched(frame=empty_frame(), actions=empty_frame(ACTIONS))
            except YFRateLimitError as error:
                raise DataError(
                    f"yahoo, {symbol}: Yahoo lets no more requests through for now; wait some minutes and try again: "
                    "what has been fetched is in the cache"
                ) from error
            except Exception as error:  # yfinance passes on whatever its parser and its HTTP library raise
                problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                raise DataError(
                    f"yahoo, {symbol}: the bars could not be fetched ({problem}); check the network, and try again"
                ) from error
        if not len(table):
            return Fetched(frame=empty_frame(), actions=empty_frame(ACTIONS))
        try:
            return _parsed(table, symbol, self.timeframe, now=now)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"yahoo, {symbol}: the answer holds what are no bars ({type(error).__name__}: {error}); update "
                "yfinance, or try again later"
            ) from error


@contextmanager
def _raising() -> Iterator[ModuleType]:
    """yfinance, which tells of failures for as long as this lasts, instead of giving an empty table."""
    try:
        import yfinance
    except ImportError as error:
        raise ConfigError(
            "data.source: yahoo needs the package yfinance, which is not installed; pip install 'nextbar[yahoo]'"
        ) from error
    debug = yfinance.config.debug
    before, debug.hide_exceptions = debug.hide_exceptions, False
    try:
        yield yfinance
    finally:
        debug.hide_exceptions = before


def _parsed(table: pd.DataFrame, symbol: str, timeframe: str, *, now: pd.Timestamp) -> Fetched:
    """Yahoo's table, whose times are starts in the exchange's zone: complete bars of the regular session."""
    index = pd.DatetimeIndex(table.index)
    if str(index.tz) != ZONE:
        raise DataError(
            f"yahoo, {symbol}: expected an exchange in New York, whose sessions nextbar knows, found one in the zone "
            f"{index.tz}; leave the symbol out, or bring its bars with source: files"
        )
    starts = index.tz_convert("UTC").as_unit("ns")
    ends = _ends(starts, timeframe)
    values = np.stack([table[name].to_numpy(dtype=np.float64) for name in _ITS_COLUMNS], axis=1)
    kept = in_session(ends, timeframe) & np.asarray(ends <= now)
    frame = pd.DataFrame(values[kept], index=ends[kept].rename("time"), columns=list(COLUMNS))
    return Fetched(frame=frame, actions=_actions(table, index))


def _ends(starts: pd.DatetimeIndex, timeframe: str) -> pd.DatetimeIndex:
    if spans_days(timeframe):
        return bar_ends(starts, timeframe)
    days = starts.tz_convert(ZONE).tz_localize(None).normalize()
    _, closes = session_hours(days)
    if timeframe == "1d":
        # A day without a session is one that cleaning has to hear of: its bar ends when another day's would.
        usual = (days + pd.Timedelta(hours=16)).tz_localize(ZONE).tz_convert("UTC")
        return pd.DatetimeIndex(np.where(closes.isna(), usual.as_unit("ns").asi8, closes.asi8), tz="UTC")
    ends = bar_ends(starts, timeframe)
    # Yahoo's hours begin at the open, and the last one ends with the session.
    cut = (starts < closes) & (ends > closes)
    return pd.DatetimeIndex(np.where(cut, closes.asi8, ends.asi8), tz="UTC")


def _actions(table: pd.DataFrame, index: pd.DatetimeIndex) -> pd.DataFrame:
    """Splits and dividends by the close of their session, as in ``Raw``."""
    told: dict[str, Any] = {"split": table["Stock Splits"].to_numpy(dtype=np.float64)}
    told["dividend"] = table["Dividends"].to_numpy(dtype=np.float64)
    rows = pd.DataFrame(told).fillna(0.0)
    rows["split"] = rows["split"].where(rows["split"] != 0.0, 1.0)
    some = ((rows["split"] != 1.0) | (rows["dividend"] != 0.0)).to_numpy()
    if not some.any():
        return empty_frame(ACTIONS)
    closes = _ends(index[some].tz_convert(ZONE).normalize().tz_convert("UTC"), "1d").rename("time")
    by_session = rows[some].set_axis(closes).groupby(level=0)
    return pd.DataFrame({"split": by_session["split"].prod(), "dividend": by_session["dividend"].sum()})
