"""A backtrader feed that fills its lines from arrays at once, instead of row by row."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.cerebro.clock import to_days
from engine.data.aggregation import slower_frames
from engine.data.bars import Bars
from engine.errors import DataError

_TIMEFRAMES = {"m": bt.TimeFrame.Minutes, "h": bt.TimeFrame.Minutes, "d": bt.TimeFrame.Days, "w": bt.TimeFrame.Weeks}


def _timeframe(timeframe: str) -> tuple[int, int]:
    if timeframe == "1mo":
        return bt.TimeFrame.Months, 1
    count, unit = int(timeframe[:-1]), timeframe[-1]
    return _TIMEFRAMES[unit], count * 60 if unit == "h" else count


class ArrayFeed(bt.feed.DataBase):
    """One symbol's bars, stamped with their ends, for one run.

    Args (as backtrader parameters):
        dataname: canonical frame of the data room.
        name: the symbol.
        bars: timeframe such as ``1d`` or ``5m``.

    Attributes:
        slower: timeframe -> the feed of the same symbol's longer bars, where the run file asks for them.
        is_slower: whether this is such a feed: it is looked at, and not traded.
    """

    params = (("bars", "1d"),)
    is_slower = False
    _position = 0

    def __init__(self) -> None:
        super().__init__()
        self.p.timeframe, self.p.compression = _timeframe(self.p.bars)
        self.slower: dict[str, ArrayFeed] = {}
        frame: pd.DataFrame = self.p.dataname
        self._columns: dict[str, NDArray[np.float64]] = {
            "datetime": to_days(pd.DatetimeIndex(frame.index)),
            **{name: frame[name].to_numpy(dtype=np.float64) for name in ("open", "high", "low", "close", "volume")},
            "openinterest": np.zeros(len(frame)),
        }
        # The strategy reaches its feed: it must not find the whole frame there.
        self.p.dataname = self._dataname = self.p.name
        for name in self._columns:
            # Found at once in the instance, where backtrader would search two levels of attributes at each access.
            self.__dict__[name] = getattr(self.lines, name)

    def start(self) -> None:
        """Begin at the first bar."""
        super().start()
        self._position = 0
        if not self._columns:
            raise DataError(f"{self._name}: this feed has been run already and let go of its bars; build a new one")

    def preload(self) -> None:
        """Fill every line; an ``Engine`` does so itself, once its strategy is built and cannot look at the bars."""
        if not getattr(self._env, "fills_feeds", False):
            self.fill()

    def fill(self) -> None:
        """Fill every line from its array, at once; the arrays are let go."""
        if self._filters or self._tzinput or self.p.fromdate is not None or self.p.todate is not None:
            super().preload()
        else:
            for name, values in self._columns.items():
                line = getattr(self.lines, name)
                line.array = array.array("d", np.ascontiguousarray(values).tobytes())
            self.home()
        self._columns = {}

    def _load(self) -> bool:
        """One bar at a time, for runs without preloading and for feeds with filters."""
        if self._position >= len(self._columns.get("datetime", ())):
            return False
        for name, values in self._columns.items():
            getattr(self.lines, name)[0] = float(values[self._position])
        self._position += 1
        return True

    def __reduce__(self) -> Any:
        raise TypeError("a feed holds its bars in memory and is never pickled; build it anew from the data room")


class LiveFeed(ArrayFeed):
    """One symbol's bars as they come: ``dataname`` holds those that are known before the first decision.

    An ``Engine`` moves it; backtrader's own live loop, which asks each feed by itself, is not used.
    """

    def islive(self) -> bool:
        """Nothing is computed ahead of the bars."""
        return True

    def append(self, values: Sequence[float]) -> None:
        """Take a bar: float days of its end, open, high, low, close, volume."""
        for line, value in zip(self._appended, values, strict=False):
            line.array.append(value)
        self._openinterest.array.append(0.0)

    def fill(self) -> None:
        """Fill the lines with the known bars and stand before the first."""
        super().fill()
        names = ("datetime", "open", "high", "low", "close", "volume")
        self._appended = [getattr(self.lines, name) for name in names]
        self._openinterest = self.lines.openinterest
        self._moved = [*self._appended, self._openinterest]

    def step(self) -> None:
        """Move on to the next bar that is there."""
        for line in self._moved:
            line._idx += 1
            line.lencount += 1

    def forget(self, keep: int) -> None:
        """Let go of all but the last ``keep`` bars, so that a long run does not grow."""
        for line in self._moved:
            gone = line._idx + 1 - keep
            if gone > 0:
                del line.array[:gone]
                line._idx -= gone


def add_feeds(cerebro: bt.Cerebro, feed: type[ArrayFeed], bars: Bars, slower: Sequence[str] = ()) -> None:
    """Add a feed of each symbol's bars, and after all of them those of its longer bars, named as in ``AAPL@1d``.

    Args:
        slower: timeframes of the longer bars; what a strategy is shown of them, ``slower_frames`` says.
    """
    feeds = {symbol: feed(dataname=frame, name=symbol, bars=bars.timeframe) for symbol, frame in bars.frames.items()}  # type: ignore[call-arg]
    for own in feeds.values():
        cerebro.adddata(own)
    for timeframe in slower:
        for symbol, frame in slower_frames(bars, timeframe).items():
            own = feed(dataname=frame, name=f"{symbol}@{timeframe}", bars=timeframe)  # type: ignore[call-arg]
            own.is_slower = True
            feeds[symbol].slower[timeframe] = own
            cerebro.adddata(own)
