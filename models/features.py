"""Features: named, finite-memory, scale-free functions of bars.

A feature's value at a bar is a function of the last ``memory`` bars and of nothing else, *to the bit*: over the whole
history, over a history that ends at that bar, or over exactly those bars, the same float comes out. Streaming
accumulators (pandas' ``rolling``, cumulative sums) and numpy's own reductions depend on where they started and on the
shape they are given, so every window here is reduced by an explicit loop over its offsets, vectorised over the bars.

Prices and volumes enter as ratios, logarithms or standardised, so no feature changes when all prices of a window are
multiplied by one factor, as a later split does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from engine.errors import ConfigError
from models.decomposition import COMPONENTS, LONGEST, PERIODS, Component, Method, shortest, weights_of

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

_ZONE = "America/New_York"
_MILLISECOND = 1_000_000  # in nanoseconds
_SESSION_OPEN_MINUTE = 9 * 60 + 30
_SESSION_MINUTES = 390


@dataclass(frozen=True, eq=False)
class Columns:
    """The bars of one symbol as arrays of one length, oldest first.

    Attributes:
        times: int64 nanoseconds since 1970, UTC, strictly increasing: the moment at which a bar is complete.
        open, high, low, close, volume: contiguous float64.
    """

    times: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __post_init__(self) -> None:
        # Vector and scalar code paths of a logarithm may round differently: memory layout must never choose.
        for field in fields(self):
            dtype = np.int64 if field.name == "times" else np.float64
            object.__setattr__(self, field.name, np.ascontiguousarray(getattr(self, field.name), dtype=dtype))

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, part: slice) -> Columns:
        """The bars of a slice."""
        return Columns(*(getattr(self, field.name)[part] for field in fields(self)))

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Columns:
        """The arrays of a frame of ``engine.data.bars.Bars``."""
        index = pd.DatetimeIndex(frame.index).as_unit("ns")
        return cls(index.asi8, *(frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume")))


@dataclass(frozen=True)
class Feature:
    """A named function of the last ``memory`` bars.

    Attributes:
        name: as the run file gives it, such as ``log_return_5``.
        memory: bars needed, the decision bar included.
        reads: the columns it reads; empty for a calendar feature, which reads times.
        function: Columns of n >= memory bars -> float64 [n - memory + 1], the values from bar memory - 1 on.
    """

    name: str
    memory: int
    reads: frozenset[str]
    function: Callable[[Columns], Floats]


def parse_features(names: Sequence[str], *, close_only: bool) -> tuple[Feature, ...]:
    """The features of a run file, in its order.

    A windowed feature's name may end in its number of bars: ``volatility`` is ``volatility_20``.

    Args:
        names: such as ``["log_return", "volatility_60"]``.
        close_only: the bars have closes only, so open, high, low and volume say nothing.

    Raises:
        ConfigError: a name is unknown or given twice, its window is too short, or close-only bars lack its columns.
    """
    features = tuple(_parse(name) for name in names)
    seen: set[str] = set()
    for feature in features:
        if feature.name in seen:
            raise ConfigError(f"model.features: {feature.name} is given twice; remove one")
        seen.add(feature.name)
        lacking = sorted(feature.reads - {"close"})
        if close_only and lacking:
            raise ConfigError(
                f"model.features: {feature.name} needs {' and '.join(lacking)}, and these bars have closes only; "
                f"use {', '.join(_close_only_names())}"
            )
    return features


def max_memory(features: Sequence[Feature]) -> int:
    """Bars needed by the feature that looks back furthest."""
    return max(feature.memory for feature in features)


def compute(features: Sequence[Feature], columns: Columns) -> npt.NDArray[np.float32]:
    """The features' values, float32 [bars, features], one contiguous array.

    A row is NaN in a feature that has fewer than its ``memory`` bars there.
    """
    values = np.full((len(columns), len(features)), np.nan, dtype=np.float32)
    for position, feature in enumerate(features):
        if len(columns) >= feature.memory:
            values[feature.memory - 1 :, position] = feature.function(columns)
    return values


def _offsets(values: Floats, window: int) -> list[Floats]:
    """The window's bars, oldest first: element k holds, for each complete window, its k-th bar."""
    count = len(values) - window + 1
    return [values[k : k + count] for k in range(window)]


def _mean(offsets: Sequence[Floats]) -> Floats:
    total = offsets[0].copy()
    for values in offsets[1:]:
        total += values
    return total / len(offsets)


def _mean_and_deviation(offsets: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Mean and population standard deviation, in two passes; [windows] each."""
    mean = _mean(offsets)
    squares = np.zeros_like(mean)
    for values in offsets:
        difference = values - mean
        squares += difference * difference
    return mean, np.sqrt(squares / len(offsets))


def _log_return(columns: Columns, window: int) -> Floats:
    """log(close[t] / close[t - window])."""
    return np.log(columns.close[window:] / columns.close[:-window])


def _range(columns: Columns, window: int) -> Floats:
    """log(high / low) of the bar."""
    return np.log(columns.high / columns.low)


def _gap(columns: Columns, window: int) -> Floats:
    """log(open[t] / close[t - 1])."""
    return np.log(columns.open[1:] / columns.close[:-1])


def _volatility(columns: Columns, window: int) -> Floats:
    """Standard deviation of the last ``window`` one-bar log returns (divided by window), per bar."""
    return _mean_and_deviation(_offsets(_log_return(columns, 1), window))[1]


def _volume_zscore(columns: Columns, window: int) -> Floats:
    """(x - its mean over the window) / its standard deviation with x = log1p(volume / its mean over the window).

    The share of the mean, unlike the number of shares, is what it was after a later split. 0 where the volume does not
    vary.
    """
    volumes = _offsets(columns.volume, window)
    usual = _mean(volumes)
    logs = [np.log1p(np.divide(v, usual, out=np.zeros_like(usual), where=usual > 0.0)) for v in volumes]
    # Relative to the window's last bar, so that equal volumes give differences of exactly zero.
    mean, deviation = _mean_and_deviation([values - logs[-1] for values in logs])
    return np.divide(-mean, deviation, out=np.zeros_like(mean), where=deviation > 0.0)


def _rsi(columns: Columns, window: int) -> Floats:
    """Cutler's RSI (simple averages) scaled to [-1, 1]: (gains - losses) / (gains + losses); 0 where nothing moved."""
    change = columns.close[1:] - columns.close[:-1]
    gains = _mean(_offsets(np.maximum(change, 0.0), window))
    losses = _mean(_offsets(np.maximum(-change, 0.0), window))
    moved = gains + losses
    return np.divide(gains - losses, moved, out=np.zeros_like(moved), where=moved > 0.0)


def _distance_from_mean(columns: Columns, window: int) -> Floats:
    """log(close / mean close of the window)."""
    ratio = columns.close[window - 1 :] / _mean(_offsets(columns.close, window))
    logs: Floats = np.log(ratio)
    return logs


def _weekday(columns: Columns, window: int) -> Floats:
    """0 on a Monday to 6 on a Sunday, of the bar's own New York session."""
    return _new_york(columns, before_end=True).day_of_week.to_numpy().astype(np.float64)


def _month(columns: Columns, window: int) -> Floats:
    """1 to 12, of the bar's own New York session."""
    return _new_york(columns, before_end=True).month.to_numpy().astype(np.float64)


def _time_of_session(columns: Columns, window: int) -> Floats:
    """Share of the regular New York session (9:30 to 16:00) that is over at the bar's end; 1 at 16:00."""
    local = _new_york(columns, before_end=False)
    minute: Floats = local.hour.to_numpy() * 60.0 + local.minute.to_numpy() + local.second.to_numpy() / 60.0
    return (minute - _SESSION_OPEN_MINUTE) / _SESSION_MINUTES


def _new_york(columns: Columns, *, before_end: bool) -> pd.DatetimeIndex:
    """New York wall clock at the bar's end, or just before it: a bar that ends at midnight belongs to the day it ends.

    Times are read to the millisecond, since backtrader's float days resolve no finer than ten microseconds.
    """
    nearest = (columns.times + _MILLISECOND // 2) // _MILLISECOND * _MILLISECOND
    nearest = nearest - _MILLISECOND if before_end else nearest
    return pd.DatetimeIndex(nearest.view("datetime64[ns]")).tz_localize("UTC").tz_convert(_ZONE)


def _decomposed(method: Method, component: Component) -> Callable[[Columns, int], Floats]:
    """A component of the decomposition of the window's log closes, at its last bar: a weighted sum of its returns."""

    def formula(columns: Columns, window: int) -> Floats:
        offsets = _offsets(_log_return(columns, 1), window - 1)
        total = np.zeros_like(offsets[0])
        for weight, returns in zip(weights_of(method, component, window).tolist(), offsets, strict=True):
            total += weight * returns
        return total

    return formula


@dataclass(frozen=True)
class _Kind:
    """A family of features: its formula, usual window, and how many bars a window of that length needs."""

    formula: Callable[[Columns, int], Floats]
    reads: frozenset[str]
    window: int | None = None  # None: the feature takes no window
    shortest: int = 1
    longest: int | None = None
    extra: int = 0  # bars before the window
    prepare: Callable[[int], object] | None = None  # what takes seconds once, before the first bar


_KINDS: dict[str, _Kind] = {
    "log_return": _Kind(_log_return, frozenset({"close"}), window=1, extra=1),
    "range": _Kind(_range, frozenset({"high", "low"})),
    "gap": _Kind(_gap, frozenset({"open", "close"}), extra=1),
    "volatility": _Kind(_volatility, frozenset({"close"}), window=20, shortest=2, extra=1),
    "volume_zscore": _Kind(_volume_zscore, frozenset({"volume"}), window=20, shortest=2),
    "rsi": _Kind(_rsi, frozenset({"close"}), window=14, extra=1),
    "distance_from_mean": _Kind(_distance_from_mean, frozenset({"close"}), window=20, shortest=2),
    "weekday": _Kind(_weekday, frozenset()),
    "month": _Kind(_month, frozenset()),
    "time_of_session": _Kind(_time_of_session, frozenset()),
    **{
        f"{method}_{component}": _Kind(
            _decomposed(method, component),
            frozenset({"close"}),
            window={"stl": 60, "mstl": 84}[method],
            shortest=shortest(method),
            longest=LONGEST,
            prepare=partial(weights_of, method, component),
        )
        for method in PERIODS
        for component in COMPONENTS
    },
}


def _parse(name: str) -> Feature:
    kind, window = _KINDS.get(name), None
    if kind is None and (parts := re.fullmatch(r"([a-z_]+)_([1-9][0-9]{0,5})", name)):
        kind, window = _KINDS.get(parts[1]), int(parts[2])
        if kind is not None and kind.window is None:
            raise ConfigError(f"model.features: {parts[1]} takes no number of bars, found {name}; write {parts[1]}")
    if kind is None:
        close = difflib.get_close_matches(re.sub(r"_?[0-9]+$", "", name), _KINDS, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(_KINDS)}"
        raise ConfigError(f"model.features: unknown feature {name!r}; {hint}")
    length = window or kind.window or 1
    if length < kind.shortest:
        raise ConfigError(f"model.features: {name} needs a window of at least {kind.shortest} bars, found {length}")
    if kind.longest is not None and length > kind.longest:
        raise ConfigError(f"model.features: {name} takes a window of at most {kind.longest} bars, found {length}")
    if kind.prepare is not None:
        kind.prepare(length)
    formula = kind.formula
    return Feature(name, length + kind.extra, kind.reads, lambda columns: formula(columns, length))


def _close_only_names() -> list[str]:
    return [name for name, kind in _KINDS.items() if kind.reads <= {"close"}]
