"""What a source gives: bars as they are there, before anything has looked at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from engine.data.universe import Membership


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Bars of one timeframe as a source has them, with nothing mended and nothing left out.

    Attributes:
        frames: symbol -> frame with float64 columns open, high, low, close, volume, NaN where a value is missing, and a
            ``DatetimeIndex`` named ``time`` in UTC nanoseconds: the moment at which the bar is complete, in the
            source's own order, which may be wrong and may repeat itself. Symbols are sorted.
        rows: symbol -> the row of its file that each bar stands in; absent where there is no file.
        origins: symbol -> where its bars come from, in words: a file, or the source's name.
        actions: symbol -> splits and dividends: frame indexed by ``time``, the UTC close of the session on whose
            morning they take effect, with float64 columns ``split`` (new shares for an old one, 1 where there was
            none) and ``dividend`` (cash a share, in the prices' own units, 0 where there was none). Absent where the
            source tells none.
        told: which of ``split`` and ``dividend`` the actions tell; of another one they say nothing.
        adjusted_closes: symbol -> closes adjusted for splits and dividends, by bar end as in its frame, NaN where one
            is missing. Absent where the source tells none.
        timeframe, adjustment, source, close_only, synthetic, survivor_biased: see ``Bars``.
        membership: see ``Bars``.
        market: whether the bars are those of the New York Stock Exchange's sessions, by whose calendar they can be
            checked.
        timezone: the zone that times without one were read in; None where there were none.
        stamp: what the run file, or the vendor, says that intraday bars are stamped with; None where neither does.
    """

    frames: Mapping[str, pd.DataFrame]
    timeframe: str
    adjustment: str
    source: str
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    actions: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    told: frozenset[str] = frozenset({"split", "dividend"})
    adjusted_closes: Mapping[str, pd.Series] = field(default_factory=dict)
    close_only: bool = False
    synthetic: bool = False
    survivor_biased: bool = False
    membership: Membership | None = None
    market: bool = True
    timezone: str | None = None
    stamp: Literal["start", "end"] | None = None

    def origin(self, symbol: str) -> str:
        """Where a symbol's bars come from, for errors: the file and the symbol."""
        return f"{self.origins.get(symbol, self.source)}, {symbol}"
