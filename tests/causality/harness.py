"""The generic causality test: what is known at a bar comes from that bar and earlier ones, to the bit.

A *subject* is anything that maps bars to outputs: a feature, a network, an indicator, a strategy. It returns a *trace*:
for each bar end, whatever came out there. The checks run a subject on bars that share a past and differ in what the
subject must not see, and name the first bar at which two traces differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from engine.data.bars import Bars

# Bar end (UTC nanoseconds) -> plain values: floats, integers, strings. Compared by their repr, which is exact for
# floats, tells 0.0 from -0.0, and takes one NaN for another.
Trace = Mapping[int, tuple[object, ...]]
Subject = Callable[[Bars], Trace]

# From the last digits to prices that have nothing to do with the old ones.
_SEVERITIES = (1e-6, 0.02, 1.0)


def assert_causal(subject: Subject, bars: Bars, *, warmup: int = 1, memory: int | None = None, seed: int = 7) -> None:
    """All checks of one subject: the future perturbed, the future cut off and, with ``memory``, the distant past too.

    Args:
        subject: what is tested.
        bars: at least two bars beyond the warm-up.
        warmup: bars that every symbol must have before the bars may be cut off.
        memory: bars that an output depends on, if the subject declares it.
        seed: of the perturbations and of the bars at which they begin.
    """
    whole = subject(bars)
    cuts = cut_times(bars, warmup=warmup, seed=seed)
    assert_future_unseen(subject, bars, whole, cuts=[times_of(bars)[0], *cuts], seed=seed)
    assert_prefix_kept(subject, bars, whole, cuts=cuts)
    if memory is not None:
        assert_finite_memory(subject, bars, whole, memory=memory, cuts=[*cuts, times_of(bars)[-1]], seed=seed)


def assert_future_unseen(subject: Subject, bars: Bars, whole: Trace, *, cuts: Sequence[int], seed: int) -> None:
    """Changing the bars after a cut, however little or much, changes nothing at or before it."""
    random = np.random.default_rng(seed)
    for cut in cuts:
        for severity in _SEVERITIES:
            changed = {
                symbol: _perturbed(frame, np.asarray(frame.index > _stamp(cut)), random, severity)
                for symbol, frame in bars.frames.items()
            }
            found = subject(replace(bars, frames=changed))
            assert_same(whole, found, until=cut, check=f"later bars perturbed ({severity:g})")


def assert_prefix_kept(subject: Subject, bars: Bars, whole: Trace, *, cuts: Sequence[int]) -> None:
    """The bars up to a cut give what all bars gave up to it."""
    for cut in cuts:
        assert_same(whole, subject(bars.between(None, _stamp(cut))), until=cut, check="later bars cut off")


def assert_finite_memory(
    subject: Subject, bars: Bars, whole: Trace, *, memory: int, cuts: Sequence[int], seed: int
) -> None:
    """The last ``memory`` bars of each symbol give what all bars gave at a cut, whatever the earlier ones were."""
    random = np.random.default_rng(seed)
    for cut in cuts:
        known = {symbol: frame.loc[: _stamp(cut)] for symbol, frame in bars.frames.items()}
        last = {symbol: frame.iloc[-memory:] for symbol, frame in known.items()}
        assert_same(whole, subject(replace(bars, frames=last)), at=cut, check=f"all but the last {memory} bars cut off")
        changed = {
            symbol: _perturbed(frame, np.arange(len(frame)) < len(frame) - memory, random, 1.0)
            for symbol, frame in known.items()
        }
        found = subject(replace(bars, frames=changed))
        assert_same(whole, found, at=cut, check=f"bars before the last {memory} perturbed")


def assert_same(expected: Trace, found: Trace, *, check: str, until: int | None = None, at: int | None = None) -> None:
    """Two traces agree to the bit: at all bars, up to a bar, or at one bar. Names the first bar where they do not."""
    times = sorted(expected.keys() | found.keys())
    for number, time in enumerate(times, start=1):
        if (until is not None and time > until) or (at is not None and time != at):
            continue
        before, after = repr(expected.get(time)), repr(found.get(time))
        if before != after:
            raise AssertionError(f"{check}: first differs at bar {number} ({_stamp(time)}): {before} became {after}")


def cut_times(bars: Bars, *, warmup: int, seed: int, count: int = 3) -> list[int]:
    """Bar ends to cut at: the first where every symbol has its warm-up, some in between, and the last but one."""
    ready = max(frame.index[warmup - 1] for frame in bars.frames.values())
    usable = [time for time in times_of(bars)[:-1] if time >= pd.Timestamp(ready).value]
    between = np.random.default_rng(seed).choice(usable[1:-1], size=min(count, len(usable) - 2), replace=False)
    return [usable[0], *sorted(int(time) for time in between), usable[-1]]


def times_of(bars: Bars) -> list[int]:
    """The distinct bar ends of all symbols, in order."""
    ends = [pd.DatetimeIndex(frame.index).as_unit("ns").asi8 for frame in bars.frames.values()]
    return [int(time) for time in np.unique(np.concatenate(ends))]


def _perturbed(frame: pd.DataFrame, rows: np.ndarray, random: np.random.Generator, severity: float) -> pd.DataFrame:
    """The frame with other prices and volumes in the rows, still valid bars."""
    count = len(frame)
    factors = np.exp(severity * random.normal(size=(4, count)))
    opening = frame["open"].to_numpy() * factors[0]
    close = frame["close"].to_numpy() * factors[1]
    values = {
        "open": opening,
        "high": np.maximum(opening, close) * np.maximum(1.0, factors[2]),
        "low": np.minimum(opening, close) * np.minimum(1.0, factors[3]),
        "close": close,
        "volume": np.round(frame["volume"].to_numpy() * np.exp(severity * random.normal(size=count))) + 1.0,
    }
    changed = pd.DataFrame(values, index=frame.index)
    return pd.DataFrame(np.where(rows[:, None], changed, frame), index=frame.index, columns=frame.columns)


def _stamp(time: int) -> pd.Timestamp:
    return pd.Timestamp(time, tz="UTC")
