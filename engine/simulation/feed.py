"""A backtrader feed that fills its lines from arrays at once, instead of row by row."""

from __future__ import annotations

import array
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.simulation.clock import to_days

_TIMEFRAMES = {"m": bt.TimeFrame.Minutes, "h": bt.TimeFrame.Minutes, "d": bt.TimeFrame.Days, "w": bt.TimeFrame.Weeks}


def _timeframe(timeframe: str) -> tuple[int, int]:
    count, unit = int(timeframe[:-1]), timeframe[-1]
    return _TIMEFRAMES[unit], count * 60 if unit == "h" else count


class ArrayFeed(bt.feed.DataBase):
    """One symbol's bars, stamped with their ends.

    Args (as backtrader parameters):
        dataname: canonical frame of the data room.
        name: the symbol.
        bars: timeframe such as ``1d`` or ``5m``.
    """

    params = (("bars", "1d"),)

    def __init__(self) -> None:
        super().__init__()
        self.p.timeframe, self.p.compression = _timeframe(self.p.bars)
        frame: pd.DataFrame = self.p.dataname
        self._columns: dict[str, NDArray[np.float64]] = {
            "datetime": to_days(pd.DatetimeIndex(frame.index)),
            **{name: frame[name].to_numpy(dtype=np.float64) for name in ("open", "high", "low", "close", "volume")},
            "openinterest": np.zeros(len(frame)),
        }
        # The strategy reaches its feed: it must not find the whole frame there.
        self.p.dataname = self.p.name
        for name in self._columns:
            # Found at once in the instance, where backtrader would search two levels of attributes at each access.
            self.__dict__[name] = getattr(self.lines, name)

    def preload(self) -> None:
        """Fill every line from its array, once; the arrays are let go."""
        for name, values in self._columns.items():
            line = getattr(self.lines, name)
            line.array = array.array("d", np.ascontiguousarray(values).tobytes())
        self._columns = {}
        self.home()

    def _load(self) -> bool:
        """One bar at a time, for runs without preloading."""
        position = len(self) - 1
        if position >= len(self._columns["datetime"]):
            return False
        for name, values in self._columns.items():
            getattr(self.lines, name)[0] = float(values[position])
        return True

    def __reduce__(self) -> Any:
        raise TypeError("a feed holds its bars in memory and is never pickled; build it anew from the data room")
