"""All that is wrong or odd with a source's bars at once, where loading them stops at the first fault it must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from engine.config import CleaningConfig, DataConfig
from engine.data.bars import Bars
from engine.data.cleaning.pipeline import clean
from engine.data.quality import EVERY_SYMBOL, KINDS, Kind, Quality
from engine.data.raw import Raw
from engine.data.sources import completed
from engine.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why loading the bars fails: one sentence, with the kind of fault or the symbol where it is about one."""

    sentence: str
    kind: Kind | None = None
    symbol: str | None = None


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many of the bars of a symbol that should be there are there.

    Attributes:
        first, last: UTC ends of its first and last bar once they are cleaned; None where it has none.
        bars: once they are cleaned.
        dropped: times whose bars were dropped, so that there is none left.
        missing: bars that the source lacks between its first and its last one; None where no calendar says so.
        expected: all three together, without bars out of the sessions; None where no calendar says so.
    """

    symbol: str
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    bars: int
    dropped: int
    missing: int | None
    expected: int | None

    @property
    def missing_pct(self) -> float | None:
        """Missing bars in per cent of the expected ones."""
        return None if self.missing is None or not self.expected else 100.0 * self.missing / self.expected


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found.

    Attributes:
        raw: the bars as the source has them.
        policy: the run file's.
        frames: the bars as cleaning leaves them, where what would be refused is dropped, repaired or flagged instead;
            without symbols of which nothing can be made.
        quality: what was found on the way.
        refusals: why loading them fails; empty where it does not.
        bars: what loading them gives; None where it fails.
        coverage: of each symbol of the source, sorted.
    """

    raw: Raw
    policy: CleaningConfig
    frames: Mapping[str, pd.DataFrame]
    quality: Quality
    refusals: tuple[Refusal, ...]
    bars: Bars | None
    coverage: tuple[Coverage, ...]

    @property
    def refused(self) -> frozenset[Kind]:
        """Kinds of faults for which loading fails."""
        return frozenset(refusal.kind for refusal in self.refusals if refusal.kind is not None)


def check_bars(raw: Raw, data: DataConfig) -> Checked:
    """Clean a source's bars as loading does, going on where loading stops.

    Args:
        raw: the bars of the run file's source.
        data: the run file's ``data`` section.
    """
    policy = data.cleaning
    lenient = tolerant(policy)
    usable, refusals = _usable(raw, lenient)
    frames, quality = clean(usable, lenient) if usable.frames else ({}, Quality())
    for kind in KINDS:
        if getattr(policy, kind) == "refuse" and kind in quality.counts():
            # Only cleaning knows whether it would: of an index, for one, no volume is expected.
            one = lenient.model_copy(update={kind: "refuse"})
            refusals.extend(_refusal(partial(clean, usable, one), kind=kind))
    bars = None
    if frames:
        made: list[Bars] = []
        refusals.extend(_refusal(lambda: made.append(completed(usable, frames, quality, data))))
        bars = made[0] if made and not refusals else None
    return Checked(
        raw=raw,
        policy=policy,
        frames=frames,
        quality=quality,
        refusals=tuple(refusals),
        bars=bars,
        coverage=tuple(_coverage(symbol, frames.get(symbol), quality) for symbol in raw.frames),
    )


def tolerant(policy: CleaningConfig) -> CleaningConfig:
    """The policy with the default in the place of ``refuse``; where that refuses too, ``drop``."""
    default = CleaningConfig()
    refused = [kind for kind in KINDS if getattr(policy, kind) == "refuse"]
    instead = {kind: getattr(default, kind) for kind in refused}
    return policy.model_copy(update={kind: "drop" if how == "refuse" else how for kind, how in instead.items()})


def _usable(raw: Raw, policy: CleaningConfig) -> tuple[Raw, list[Refusal]]:
    """The source without the symbols of which no bars can be made, and why not of each of them."""
    if not _refusal(partial(clean, raw, policy)):
        return raw, []
    refusals: list[Refusal] = []
    for symbol, frame in raw.frames.items():
        alone = replace(raw, frames={symbol: frame})
        refusals.extend(replace(refusal, symbol=symbol) for refusal in _refusal(partial(clean, alone, policy)))
    bad = {refusal.symbol for refusal in refusals}
    usable = replace(raw, frames={symbol: frame for symbol, frame in raw.frames.items() if symbol not in bad})
    together = _refusal(partial(clean, usable, policy)) if usable.frames else []
    return (replace(raw, frames={}) if together else usable), [*refusals, *together]


def _refusal(attempt: Callable[[], Any], *, kind: Kind | None = None) -> list[Refusal]:
    """What an attempt fails with."""
    try:
        attempt()
    except DataError as error:
        return [Refusal(sentence=str(error), kind=kind)]
    return []


def _coverage(symbol: str, frame: pd.DataFrame | None, quality: Quality) -> Coverage:
    if frame is None or frame.empty:
        return Coverage(symbol=symbol, first=None, last=None, bars=0, dropped=0, missing=None, expected=None)
    times = pd.DatetimeIndex(frame.index).asi8
    own = [finding for finding in quality.findings if finding.symbol == symbol]
    gone = [f.times for f in own if f.action == "dropped" and f.kind != "off_session"]
    dropped = len(np.setdiff1d(np.concatenate(gone), times)) if gone else 0
    missing = expected = None
    if "gap" in quality.checked:
        missing = sum(finding.count for finding in own if finding.kind == "gap")
        outside = sum(f.count for f in own if f.kind == "off_session" and f.action == "flagged")
        expected = len(times) - outside + dropped + missing
    return Coverage(
        symbol=symbol,
        first=pd.Timestamp(frame.index[0]),
        last=pd.Timestamp(frame.index[-1]),
        bars=len(times),
        dropped=dropped,
        missing=missing,
        expected=expected,
    )


def shared_gap(quality: Quality) -> int:
    """Bars that no symbol has though the exchange was open: the source's own holes, which no symbol's figure counts."""
    return sum(f.count for f in quality.findings if f.kind == "gap" and f.symbol == EVERY_SYMBOL)
