"""Guards around backtrader's lines: what is not there yet cannot be read.

A preloaded line holds the whole history, and backtrader's own ``line[1]`` is tomorrow's value; an early ``line[-k]``
wraps around to the end of the history. While a strategy runs, the lines of its feeds and indicators are guarded
instead; while indicators compute themselves bar by bar, and on the strategy's own lines, reading is checked.
"""

from __future__ import annotations

import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import backtrader as bt

from engine.errors import LookAheadError


class _Present(int):
    """Index of the present bar. Adding to it is how backtrader's own methods reach other bars: there it is checked."""

    def __add__(self, ago: int) -> int:
        index = int(self) + ago
        if ago > 0 or index < 0:
            raise LookAheadError(_explanation(ago, index))
        return index


class _Guard:
    """Mixed into the class of a line for the length of a run.

    ``_cell`` holds the index of the present bar. The lines of one feed and its indicators share it, so that a step of
    the bar loop is one assignment.
    """

    _cell: list[int]
    _values: array.array[float]

    def __getitem__(self, ago: int) -> float:
        index = self._cell[0] + ago
        if ago > 0 or index < 0:
            raise LookAheadError(_explanation(ago, index))
        return self._values[index]

    def __len__(self) -> int:
        return self._cell[0] + 1

    def get(self, ago: int = 0, size: int = 1) -> array.array[float]:
        """The ``size`` values that end ``ago`` bars back (0: at the present bar); fewer where history is shorter."""
        if ago > 0:
            raise LookAheadError(_explanation(ago, self._cell[0] + ago))
        end = self._cell[0] + ago + 1
        return self._values[max(0, end - size) : max(0, end)]

    @property
    def idx(self) -> int:
        """Index of the present bar."""
        return _Present(self._cell[0])

    @property
    def _idx(self) -> int:
        return self._cell[0]

    @property
    def lencount(self) -> int:
        """How many bars there are so far."""
        return self._cell[0] + 1

    @property
    def array(self) -> memoryview:
        """The values up to the present bar, read-only: the rest of the buffer has not happened yet."""
        return memoryview(self._values)[: self._cell[0] + 1].toreadonly()


def _explanation(ago: int, index: int) -> str:
    if ago > 0:
        return f"line[{ago}] was asked for: that is {ago} bar(s) into the future; only [0], [-1], [-2] ... exist"
    return (
        f"line[{ago}] was asked for: that is {-index} bar(s) before the first; check len(data), or wait for more bars"
    )


class _Reader:
    """Mixed into the class of a line that still moves by itself: a bar that is not there cannot be read."""

    _idx: int
    array: Any

    def __getitem__(self, ago: int) -> Any:
        index = self._idx + ago
        if ago > 0 or index < 0:
            raise LookAheadError(_explanation(ago, index))
        return self.array[index]

    def get(self, ago: int = 0, size: int = 1) -> Any:
        """The ``size`` values that end ``ago`` bars back; fewer where history is shorter."""
        if ago > 0:
            raise LookAheadError(_explanation(ago, self._idx + ago))
        end = self._idx + ago + 1
        return self.array[max(0, end - size) : max(0, end)]


class _Writer(_Reader):
    """Also, only the present bar can be written: a value written into the past would have been known too early."""

    def __setitem__(self, ago: int, value: float) -> None:
        if ago:
            raise LookAheadError(
                f"an indicator wrote to line[{ago}]: at that bar the value could not be known yet; write to [0]"
            )
        super().__setitem__(ago, value)  # type: ignore[misc]


@cache
def _mixed(mixin: type, line_class: type) -> type:
    # Built by the line's own metaclass; backtrader's metaclasses register indicators by name, which lines are not.
    return type(line_class)(f"{mixin.__name__}{line_class.__name__}", (mixin, line_class), {})


def line_buffers(holders: Iterable[Any]) -> list[Any]:
    """Every line buffer of feeds and indicators, each once, in a stable order."""
    lines = (line for holder in holders for line in holder.lines if isinstance(line, bt.LineBuffer))
    return list({id(line): line for line in lines}.values())


@contextmanager
def checked(holders: Iterable[Any], *, computing: bool) -> Iterator[None]:
    """Check what is read from the lines, and, where indicators are ``computing``, what is written to them."""
    lines = [(line, line.__class__) for line in line_buffers(holders)]
    for line, line_class in lines:
        line.__class__ = _mixed(_Writer if computing else _Reader, line_class)
    try:
        yield
    finally:
        for line, line_class in lines:
            line.__class__ = line_class


@contextmanager
def guarded(holders: Iterable[Any], cell: list[int]) -> Iterator[None]:
    """Guard every line of a feed and its indicators inside the block; ``cell[0]`` is the index of their present bar."""
    lines = [(line, line.__class__) for line in line_buffers(holders)]
    for line, line_class in lines:
        state = line.__dict__
        line.__class__ = _mixed(_Guard, line_class)
        state["_values"] = state.pop("array")
        state["_cell"] = cell
        state.pop("_idx")
        state.pop("lencount")
    try:
        yield
    finally:
        for line, line_class in lines:
            state = line.__dict__
            line.__class__ = line_class
            state["array"] = state.pop("_values")
            state["_idx"] = state.pop("_cell")[0]
            state["lencount"] = state["_idx"] + 1
