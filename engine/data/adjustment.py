"""Prices adjusted for splits and dividends, on request, from raw prices and what is told beside them.

Back adjustment as CRSP does it: the newest bars keep their prices, and those before an ex-date are multiplied by

    1 / split                                (new shares for an old one)
    1 - dividend / close before the ex-date  (cash a share, both in the prices' own units)

each for itself, and all of the later ones together. Volumes are divided by the same factors, so that price times volume
remains the money that changed hands. A dividend that goes ex together with a split is one a share held before it.

Where a file has an adjusted close alone, a bar's factor is its adjusted close / its close, for splits and dividends at
once.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pandas as pd

from engine.config import Adjustment
from engine.data.bars import COLUMNS
from engine.data.calendars import sessions_of
from engine.data.raw import Raw
from engine.errors import ConfigError, DataError

_DOES: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "split": frozenset({"split"}),
    "dividend": frozenset({"dividend"}),
    "all": frozenset({"split", "dividend"}),
}
_MOST_SHARES = 1_000_000.0  # that a split has ever made of one, or one of them
_MOST_PARTS = 10_000  # of a ratio such as 3:2 or 10000:9999
_EXACT = 2**53


def adjusted(
    raw: Raw, frames: Mapping[str, pd.DataFrame], asked: Adjustment | None
) -> tuple[dict[str, pd.DataFrame], str]:
    """The cleaned bars of a source with the adjustment that is asked for, and its name in ``Bars``.

    Factors of splits are products of exact ratios, rounded once; a split of two leaves every digit. Splits and
    dividends count on days without a bar too.

    Args:
        raw: what the source has; its actions or adjusted closes, and what it has been adjusted for already.
        frames: symbol -> canonical bars, cleaned.
        asked: ``raw``, ``split``, ``dividend`` or ``all``; None leaves the bars as the source has them.

    Raises:
        ConfigError: the source tells too little for it, or has done more than is asked for.
        DataError: a split or dividend that cannot be; names the symbol and the session.
    """
    wanted = "none" if asked == "raw" else asked or raw.adjustment
    if not _DOES[raw.adjustment] <= _DOES[wanted]:
        raise ConfigError(
            f"data.adjustment: the bars of {_origin(raw)} are adjusted already ({raw.adjustment}), found {asked}; "
            f"expected {' or '.join(name for name in _DOES if _DOES[raw.adjustment] <= _DOES[name])}"
        )
    steps = _DOES[wanted] - _DOES[raw.adjustment]
    if not steps:
        return dict(frames), wanted
    if not can_adjust(raw, asked):
        raise ConfigError(
            f"data.adjustment: {_origin(raw)} does not tell {' and '.join(f'{step}s' for step in sorted(steps))}, "
            f"found {asked}; expected one column for each, or for all an adjusted close, as data.columns may name them"
        )
    by_close = wanted == "all" and not steps <= raw.told
    return {
        symbol: _by_adjusted_close(raw, symbol, frame) if by_close else _by_actions(raw, symbol, frame, steps)
        for symbol, frame in frames.items()
    }, wanted


def can_adjust(raw: Raw, asked: Adjustment | None) -> bool:
    """Whether the source tells enough of each symbol for an adjustment that it has not got yet."""
    wanted = "none" if asked == "raw" else asked or raw.adjustment
    steps = _DOES[wanted] - _DOES[raw.adjustment]
    by_actions = steps <= raw.told and set(raw.frames) <= set(raw.actions)
    return not steps or by_actions or (wanted == "all" and set(raw.frames) <= set(raw.adjusted_closes))


def _origin(raw: Raw) -> str:
    return next(iter(raw.origins.values()), raw.source)


def _by_actions(raw: Raw, symbol: str, frame: pd.DataFrame, steps: frozenset[str]) -> pd.DataFrame:
    actions = raw.actions[symbol]
    sessions = sessions_of(pd.DatetimeIndex(frame.index)).asi8
    close = frame["close"].to_numpy()
    days = sessions_of(pd.DatetimeIndex(actions.index))
    before = np.searchsorted(sessions, days.asi8)  # bars that end in sessions before it
    numerator, denominator, cash = np.ones(len(frame)), np.ones(len(frame)), np.ones(len(frame))
    split, kept = Fraction(1), 1.0
    newest_first = np.argsort(days.asi8, kind="stable")[::-1].tolist()
    for position, row in enumerate(newest_first):
        bars = int(before[row])
        where = f"{raw.origin(symbol)}, {days[row]:%Y-%m-%d}"
        if bars == 0:
            continue
        if "split" in steps:
            split *= _ratio(float(actions["split"].iloc[row]), where)
        if "dividend" in steps:
            kept *= _kept(float(actions["dividend"].iloc[row]), float(close[bars - 1]), where)
        earlier = newest_first[position + 1 :]
        start = int(before[earlier[0]]) if earlier else 0
        # Bars from the action before this one on; those before that one get the next round's factors.
        rows = slice(start, bars)
        numerator[rows], denominator[rows] = _floats(split, where)
        cash[rows] = kept
    return _scaled(raw, symbol, frame, cash, numerator, denominator)


def _by_adjusted_close(raw: Raw, symbol: str, frame: pd.DataFrame) -> pd.DataFrame:
    told, close = raw.adjusted_closes[symbol], raw.frames[symbol]["close"]
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = pd.Series(told.to_numpy() / close.to_numpy(), index=told.index)
    usable = np.isfinite(factors.to_numpy()) & (factors.to_numpy() > 0.0)
    # Of several rows of one time the one that cleaning has kept: the last one with that close.
    kept = usable & (frame["close"].reindex(told.index).to_numpy() == close.to_numpy())
    own = factors[kept]
    own = own[~own.index.duplicated(keep="last")].reindex(frame.index)
    # A close that was repaired says nothing beside the adjusted one: the factor of the bar before it holds on.
    repaired = own.isna().to_numpy() & frame.index.isin(told.index[usable])
    found = np.where(repaired, own.ffill().bfill(), own).astype(np.float64)
    if np.isnan(found).any():
        time = frame.index[int(np.argmax(np.isnan(found)))]
        raise DataError(
            f"{raw.origin(symbol)}: the bar of {time:%Y-%m-%d %H:%M} UTC has no adjusted close above zero beside a "
            "close; add it, remove the row, or set data.adjustment: raw"
        )
    ones = np.ones(len(frame))
    return _scaled(raw, symbol, frame, found, ones, ones)


def _scaled(
    raw: Raw, symbol: str, frame: pd.DataFrame, factor: np.ndarray, numerator: np.ndarray, denominator: np.ndarray
) -> pd.DataFrame:
    """Prices times factor * numerator / denominator, volumes divided by it.

    Rounding is monotone: what was low <= open, close <= high remains so.
    """
    values = frame[list(COLUMNS)].to_numpy().T
    with np.errstate(all="ignore"):
        prices = values[:4] * factor * numerator / denominator
        volume = values[4] / factor * denominator / numerator
    if not (np.isfinite(prices) & (prices > 0.0)).all() or not np.isfinite(volume).all():
        raise DataError(
            f"{raw.origin(symbol)}: adjusted prices or volumes are beyond the reach of numbers; correct the splits and "
            "dividends, or set data.adjustment: raw"
        )
    return pd.DataFrame(np.vstack([prices, volume]).T, index=frame.index, columns=list(COLUMNS))


def _ratio(split: float, where: str) -> Fraction:
    """New shares for an old one as the ratio that it was announced as: 1.5 is 3:2, and 0.1 is 1:10."""
    if not 1.0 / _MOST_SHARES <= split <= _MOST_SHARES:
        raise DataError(f"{where}: a split into {split:g} shares cannot be; correct it, or set data.adjustment: raw")
    exact = Fraction(split)
    simple = exact.limit_denominator(_MOST_PARTS)
    return simple if abs(simple - exact) <= exact / 10**9 else exact


def _kept(dividend: float, close: float, where: str) -> float:
    """What remains of a price once the dividend is paid out of it."""
    if not 0.0 <= dividend < close:
        raise DataError(
            f"{where}: a dividend of {dividend:g} cannot be paid out of a close of {close:g}; correct it, or set "
            "data.adjustment: raw"
        )
    return 1.0 - dividend / close


def _floats(split: Fraction, where: str) -> tuple[float, float]:
    """The factor 1 / split as two floats to multiply by and to divide by, exact while they can be."""
    if max(split.numerator, split.denominator) <= _EXACT:
        return float(split.denominator), float(split.numerator)
    try:
        return float(1 / split), 1.0
    except OverflowError:
        raise DataError(f"{where}: all splits together are beyond the reach of numbers; correct them") from None
