"""Bars: one canonical frame a symbol, and what is known about where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

import numpy as np
import pandas as pd

from engine.data.quality import Quality
from engine.data.raw import Raw
from engine.data.universe import Membership
from engine.errors import ConfigError

COLUMNS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A set of bars of one timeframe, at least one symbol.

    Attributes:
        frames: symbol -> frame with float64 columns open, high, low, close, volume and a strictly increasing
            ``DatetimeIndex`` named ``time``, UTC, nanoseconds: the moment at which the bar is *complete*.
            Symbols are sorted.
        timeframe: such as ``1d`` or ``5m``.
        adjustment: ``none``, ``split``, ``dividend`` or ``all`` (splits and dividends).
        source: as the run file names it, such as ``sample:tech``.
        close_only: the source has closes only: open, high and low repeat the close and volume is zero, so an
            order decided at a bar fills at the next close.
        synthetic: the prices are made up; every page says so.
        survivor_biased: the symbols were chosen because they survived; every page says so.
        quality: what cleaning found and changed on the way here.
        membership: who was a member of the run file's universe, and when; None where it names none. Symbols are traded
            and trained on while they are members.
    """

    frames: Mapping[str, pd.DataFrame]
    timeframe: str
    adjustment: str
    source: str
    close_only: bool = False
    synthetic: bool = False
    survivor_biased: bool = False
    quality: Quality = field(default_factory=Quality)
    membership: Membership | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols, sorted."""
        return tuple(self.frames)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over timeframe, symbols, times and prices; the source's name does not enter."""
        sha = hashlib.sha256(f"{self.timeframe}|{self.adjustment}|{self.close_only}".encode())
        for symbol, frame in self.frames.items():
            sha.update(f"|{symbol}|{len(frame)}|".encode())
            sha.update(pd.DatetimeIndex(frame.index).as_unit("ns").asi8.astype("<i8").tobytes())
            sha.update(np.ascontiguousarray(frame[list(COLUMNS)].to_numpy(dtype="<f8")).tobytes())
        return sha.hexdigest()

    def among(self, start: date, end: date) -> Bars:
        """The bars of those symbols that are members of the universe on some day from start to end.

        Raises:
            ConfigError: none of them is.
        """
        if self.membership is None:
            return self
        members = set(self.membership.between(start, end))
        frames = {symbol: frame for symbol, frame in self.frames.items() if symbol in members}
        if not frames:
            raise ConfigError(
                f"data.universe: none of the {len(self.frames)} symbols with bars is a member from {start} to {end}, "
                f"when it has {len(members)}; move the span, or correct the spells"
            )
        return replace(self, frames=frames)

    @cached_property
    def inside(self) -> Mapping[str, np.ndarray] | None:
        """Symbol -> whether it is a member at each of its bars, booleans [bars]; None where there is no universe."""
        if self.membership is None:
            return None
        frames = self.frames.items()
        return {symbol: self.membership.mask(symbol, pd.DatetimeIndex(frame.index)) for symbol, frame in frames}

    def first_members(self, start: pd.Timestamp) -> Bars:
        """The bars of the universe's members at the first bar, from start on, at which a symbol with bars is one.

        These bars themselves where there is no universe. What is returned knows no universe any more.
        """
        if self.membership is None:
            return self
        firsts = {}
        for symbol, frame in self.frames.items():
            later = pd.DatetimeIndex(frame.index[frame.index >= start])
            inside = later[self.membership.mask(symbol, later)]
            if len(inside):
                firsts[symbol] = inside[0]
        first = min(firsts.values(), default=start)
        members = self.membership.members_at(int(first.value))
        frames = {symbol: frame for symbol, frame in self.frames.items() if symbol in members}
        return replace(self, frames=frames or self.frames, membership=None)

    def between(self, start: pd.Timestamp | None = None, end: pd.Timestamp | None = None) -> Bars:
        """The bars with start <= time <= end; a symbol without any keeps an empty frame."""
        return replace(self, frames={s: f.loc[start:end] for s, f in self.frames.items()})


def bars_of(raw: Raw, frames: Mapping[str, pd.DataFrame], quality: Quality) -> Bars:
    """The bars that a source's became once they were cleaned."""
    return Bars(
        frames=frames,
        timeframe=raw.timeframe,
        adjustment=raw.adjustment,
        source=raw.source,
        close_only=raw.close_only,
        synthetic=raw.synthetic,
        survivor_biased=raw.survivor_biased,
        quality=quality,
        membership=raw.membership,
    )
