"""The bars of all symbols in one array, symbol after symbol, so that few numpy calls look at all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS
from engine.data.raw import Raw
from engine.data.validation import check_columns, numbers, place, utc_times


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Bars of all symbols, one symbol's after another's.

    Attributes:
        raw: where they come from.
        starts: ``[symbols + 1]``: a symbol's bars are those from its start to the next one's.
        time: ``[bars]``, int64 UTC nanoseconds: bar ends.
        values: float64 ``[5, bars]``, rows as ``COLUMNS``.
        position: ``[bars]``: which bar of its symbol's frame in ``raw`` it is.
    """

    raw: Raw
    starts: np.ndarray
    time: np.ndarray
    values: np.ndarray
    position: np.ndarray

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The symbols, in the order of their bars."""
        return tuple(self.raw.frames)

    @cached_property
    def owner(self) -> np.ndarray:
        """``[bars]``: the number of the symbol whose bar it is."""
        return np.repeat(np.arange(len(self.symbols), dtype=np.int32), np.diff(self.starts))

    @cached_property
    def distinct(self) -> tuple[np.ndarray, pd.DatetimeIndex]:
        """``[bars]``: which of the distinct bar ends each bar has; and those, in the order in which they come."""
        codes, ends = pd.factorize(self.time)
        return codes, pd.DatetimeIndex(ends, dtype="datetime64[ns, UTC]")

    @cached_property
    def joined(self) -> np.ndarray:
        """``[bars - 1]``: whether the bar and the next one are of one symbol."""
        result = np.ones(max(len(self.time) - 1, 0), dtype=bool)
        inner = self.starts[1:-1]
        result[inner[(inner > 0) & (inner < len(self.time))] - 1] = False
        return result

    def kept(self, keep: np.ndarray) -> Stack:
        """Without the bars that are not to be kept."""
        if keep.all():
            return self
        bars = np.flatnonzero(keep)
        return replace(
            self,
            starts=np.searchsorted(bars, self.starts),
            time=self.time[bars],
            values=np.take(self.values, bars, axis=1),
            position=self.position[bars],
        )

    def ordered(self, order: np.ndarray) -> Stack:
        """The same bars in another order within their symbols."""
        return replace(self, time=self.time[order], values=self.values[:, order], position=self.position[order])

    def per_symbol(self, mask: np.ndarray) -> np.ndarray:
        """``[symbols]``: how many bars of each symbol the mask holds."""
        before = np.concatenate([[0], np.cumsum(mask)])
        return np.asarray(np.diff(before[self.starts]))

    def at(self, bar: int) -> pd.Timestamp:
        """UTC end of a bar."""
        return pd.Timestamp(int(self.time[bar]), tz="UTC")

    def place(self, bar: int) -> str:
        """Which bar it is, for errors: file, symbol, row and time."""
        symbol = self.symbols[int(self.owner[bar])]
        rows = self.raw.rows.get(symbol)
        position = int(self.position[bar])
        where = place(self.raw.origin(symbol), [] if rows is None else rows, position, None)
        return f"{where} ({self.at(bar):%Y-%m-%d %H:%M} UTC)"

    def frames(self) -> dict[str, pd.DataFrame]:
        """One canonical frame a symbol, as ``Bars`` holds them: parts of this stack, which is not to be used after."""
        result = {}
        index = pd.DatetimeIndex(self.time, dtype="datetime64[ns, UTC]", name="time", copy=True)
        columns = pd.Index(COLUMNS)
        for symbol, start, end in zip(self.symbols, self.starts[:-1], self.starts[1:], strict=True):
            values = self.values[:, start:end]
            result[symbol] = pd.DataFrame(values.T, index=index[start:end], columns=columns, copy=False)
        return result


def stacked(raw: Raw) -> Stack:
    """All bars of a source, as they are there.

    Raises:
        DataError: a frame without the columns or times of bars, or with values that are no numbers.
    """
    lengths = [len(frame) for frame in raw.frames.values()]
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    time = np.empty(starts[-1], dtype=np.int64)
    position = np.empty(starts[-1], dtype=np.int32)
    values = np.empty((len(COLUMNS), starts[-1]))
    for (symbol, frame), start, end in zip(raw.frames.items(), starts[:-1], starts[1:], strict=True):
        where = raw.origin(symbol)
        rows: Sequence[int] | np.ndarray = raw.rows.get(symbol, [])
        check_columns(frame, where)
        times = utc_times(frame.index, where, rows)
        time[start:end] = times.asi8
        position[start:end] = np.arange(end - start, dtype=np.int32)
        table = frame.to_numpy() if tuple(frame.columns) == COLUMNS else None
        if table is not None and table.dtype == np.float64:
            values[:, start:end] = table.T
        else:
            values[:, start:end] = numbers(frame, times, where, rows)
    return Stack(raw=raw, starts=starts, time=time, values=values, position=position)
