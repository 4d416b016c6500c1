"""The bars that a fit could see, described so that a later change of them is noticed and named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date, datetime

import numpy as np
import pandas as pd

from engine.config import Spans
from engine.data.bars import COLUMNS, Bars
from engine.data.cuts import decision_slice
from engine.sections import Section


class TrainingBars(Section):
    """The bars of one symbol that a fit could see: from its first window's first bar to its last label's end."""

    bars: int
    first: datetime | None
    last: datetime | None
    sha256: str


def training_bars(bars: Bars, spans: Spans, *, memory: int) -> dict[str, TrainingBars]:
    """Symbol -> the bars that a fit on these spans can see; later and much earlier bars do not enter."""
    return seen_bars(bars, (spans.get("train")[0], spans.get("validate")[1]), memory=memory)


def seen_bars(bars: Bars, span: tuple[date, date], *, memory: int) -> dict[str, TrainingBars]:
    """``training_bars`` of fits whose decision bars lie in the sessions of the span, first and last included."""
    described = {}
    for symbol, frame in bars.frames.items():
        decisions = decision_slice(pd.DatetimeIndex(frame.index), span)
        seen = frame.iloc[max(0, decisions.start - memory + 1) : decisions.stop]
        sha = hashlib.sha256(pd.DatetimeIndex(seen.index).as_unit("ns").asi8.astype("<i8").tobytes())
        sha.update(np.ascontiguousarray(seen[list(COLUMNS)].to_numpy(dtype="<f8")).tobytes())
        ends = (seen.index[0].to_pydatetime(), seen.index[-1].to_pydatetime()) if len(seen) else (None, None)
        described[symbol] = TrainingBars(bars=len(seen), first=ends[0], last=ends[1], sha256=sha.hexdigest())
    return described


def changes(before: Mapping[str, TrainingBars], now: Mapping[str, TrainingBars]) -> list[str]:
    """How the bars of the symbols that both have differ, one sentence a symbol; empty where they are the same."""
    remarks = []
    for symbol, was in before.items():
        found = now.get(symbol)
        if found is None or found.sha256 == was.sha256:
            continue
        if (found.bars, found.first, found.last) == (was.bars, was.first, was.last):
            how = f"its {was.bars} bars have other prices or volumes"
        else:
            how = f"{was.bars} bars then ({_period(was)}), {found.bars} now ({_period(found)})"
        remarks.append(f"the training bars of {symbol} have changed since the bundle was trained: {how}")
    return remarks


def _period(seen: TrainingBars) -> str:
    return f"{seen.first:%Y-%m-%d} to {seen.last:%Y-%m-%d}" if seen.first and seen.last else "no bars"
