"""Folds: many cuts into train, validate and test over one stretch of data, none of which leaks.

Walk-forward folds look only ahead: each trains before it tests. Combinatorial purged folds (López de Prado 2018,
chapter 12) cut the stretch into parts and test on every choice of some of them, so that a strategy is judged on many
paths; there training bars also follow tested ones, and are kept clear of them on both sides.

``skfolio.model_selection.CombinatorialPurgedCV`` cuts the rows of *one* table, where n rows later is n rows later for
everybody. Symbols have bars of their own: a label of h bars may end later for a thin symbol than for the others, and it
is time that must not overlap. On one symbol both cut alike, which a test holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.config import FoldsConfig, TrainingConfig
from engine.data.calendars import sessions_of
from engine.data.cuts import session_bounds
from engine.errors import ConfigError, DataError

Span = tuple[date, date]
Times = Mapping[str, pd.DatetimeIndex]
Positions = NDArray[np.int64]
Nanoseconds = NDArray[np.int64]
Parts = Mapping[str, Mapping[str, Positions]]

MOST_FOLDS = 1000


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One cut: stretches of sessions, first and last included, each part's in the order of time and apart.

    Attributes:
        train, validate, test: walk-forward folds have at most one stretch of each, combinatorial ones no validate.
        forward: whether every part comes after the one before it, as in walk-forward folds.
    """

    train: tuple[Span, ...]
    validate: tuple[Span, ...]
    test: tuple[Span, ...]
    forward: bool

    def named(self) -> dict[str, tuple[Span, ...]]:
        """The parts that there are, by name."""
        parts = {"train": self.train, "validate": self.validate, "test": self.test}
        return {name: spans for name, spans in parts.items() if spans}


def sessions_between(times: Times, span: Span) -> tuple[date, ...]:
    """The New York sessions in which any symbol has a bar, from the span's first to its last, in order."""
    ends = np.unique(np.concatenate([np.empty(0, np.int64), *_nanoseconds(times).values()]))
    taken = ends[slice(*_positions(ends, span))]
    return tuple(day.date() for day in sessions_of(pd.DatetimeIndex(taken, tz="UTC")).unique())


def folds_of(config: FoldsConfig, sessions: tuple[date, ...]) -> tuple[Fold, ...]:
    """The folds of these sessions, in the order of time; what is left over at the end is in none.

    Raises:
        ConfigError: not even one fold fits; says how many sessions there are and are needed.
    """
    if config.kind == "combinatorial":
        return tuple(_combinatorial(config, sessions))
    return tuple(_walk_forward(config, sessions))


def training_of_fold(training: TrainingConfig, section: FoldsConfig | None, *, longest: int) -> TrainingConfig:
    """How one fold alone is trained: its embargo is what ``folds`` leaves out beyond the labels, or its own if longer.

    Args:
        longest: bars that the labels reach ahead. They end within their span as it is.

    Raises:
        ConfigError: ``folds.purge`` is shorter than the labels.
    """
    beyond = training.embargo
    if section is not None:
        purge = longest if section.purge is None else section.purge
        if purge < longest:
            raise ConfigError(
                f"folds.purge: labels reach {longest} bars ahead, expected at least as many, found {purge}; raise it, "
                "or remove it"
            )
        beyond = max(beyond, purge - longest + section.embargo)
    return training.model_copy(update={"walk_forward": False, "embargo": beyond})


def _walk_forward(config: FoldsConfig, sessions: tuple[date, ...]) -> Iterator[Fold]:
    train, validate, test = config.train or 0, config.validate_ or 0, config.test or 0
    needed = train + validate + test
    if needed > len(sessions):
        raise ConfigError(
            f"folds: one fold needs {needed:,} sessions (train {train:,}, validate {validate:,}, test {test:,}), and "
            f"the data have {_counted(sessions)}; shorten the folds, or use more bars"
        )
    for moved in range(0, len(sessions) - needed + 1, config.step or test):
        first = 0 if config.kind == "expanding" else moved
        yield Fold(
            train=((sessions[first], sessions[moved + train - 1]),),
            validate=((sessions[moved + train], sessions[moved + train + validate - 1]),) if validate else (),
            test=((sessions[moved + train + validate], sessions[moved + needed - 1]),),
            forward=True,
        )


def _combinatorial(config: FoldsConfig, sessions: tuple[date, ...]) -> Iterator[Fold]:
    parts, tested = config.parts or 0, config.test_parts or 0
    count = math.comb(parts, tested)
    if count > MOST_FOLDS:
        raise ConfigError(
            f"folds.parts: {tested} of {parts} parts make {count:,} folds, expected {MOST_FOLDS:,} at most; use fewer "
            "parts"
        )
    size = len(sessions) // parts
    if not size:
        raise ConfigError(
            f"folds.parts: {parts} parts need {parts} sessions, and the data have {_counted(sessions)}; use fewer "
            "parts, or more bars"
        )
    # The last part takes what does not divide.
    starts = [part * size for part in range(parts)]
    stops = [*starts[1:], len(sessions)]
    for chosen in itertools.combinations(range(parts), tested):
        kept = [part for part in range(parts) if part not in chosen]
        spans = (
            tuple((sessions[starts[run[0]]], sessions[stops[run[-1]] - 1]) for run in _neighbours(list(numbers)))
            for numbers in (kept, chosen)
        )
        train, test = spans
        yield Fold(train=train, validate=(), test=test, forward=False)


def rows_of(
    fold: Fold,
    times: Times,
    *,
    horizon: int,
    purge: int,
    embargo: int = 0,
    inside: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Parts:
    """Each part's decision bars: part -> symbol -> their positions in the symbol's own bars, in order.

    Bars without a label are in no part. Of training (and validation) bars those are left out whose reach, ``purge``
    bars ahead, is not over before the first bar of a later part; in walk-forward folds ``embargo`` bars more. In
    combinatorial folds also those after a tested stretch that are not past the reach of its last bars, of any symbol,
    and the next ``embargo`` bars.

    Args:
        times: symbol -> strictly increasing bar ends, UTC, nanoseconds.
        horizon: bars from a decision to the end of its label; 0 where there are no labels.
        purge, embargo: bars, counted in each symbol's own.
        inside: symbol -> whether each of its bars may be taken, see ``Bars.inside``; all of them, if None.

    Raises:
        DataError: the fold leaks, see ``check_fold``: a ``purge`` below the horizon does.
    """
    named, ends = fold.named(), _nanoseconds(times)
    rows = {
        name: {symbol: _labelled(own, spans, horizon) for symbol, own in ends.items()} for name, spans in named.items()
    }
    clock = np.unique(np.concatenate(list(ends.values())))
    for earlier, later in itertools.combinations(named, 2):
        for span in named[later]:
            first, last = _reach(ends, span, purge)
            for symbol, own in ends.items():
                taken = rows[earlier][symbol]
                clear = own[_clipped(taken + purge + (embargo if fold.forward else 0), own)] < first
                if not fold.forward:
                    clear |= _before(own, taken, embargo, clock) > last
                rows[earlier][symbol] = taken[clear]
    if inside is not None:
        rows = {n: {s: taken[inside[s][taken]] for s, taken in parts.items()} for n, parts in rows.items()}
    check_fold(times, rows, horizon=horizon, embargo=0 if fold.forward else embargo, forward=fold.forward)
    return rows


def check_fold(times: Times, parts: Parts, *, horizon: int, embargo: int = 0, forward: bool) -> None:
    """Check that no label of a training or validation bar tells of what a later part is tested on.

    It looks at the positions that are really used, whatever made them. In a walk-forward fold every label of an earlier
    part must end before the first decision bar of each later one. In a combinatorial fold the stretch from a decision
    to the end of its label must not meet that of any tested bar, nor begin within ``embargo`` bars after it, for all
    symbols together.

    Args:
        parts: part, in the order of time (``train``, ``validate``, ``test``) -> symbol -> positions.

    Raises:
        DataError: it leaks; names the parts, the symbols and the times.
    """
    known = _nanoseconds(times)
    clock = np.unique(np.concatenate(list(known.values())))
    for earlier, later in itertools.combinations(parts, 2):
        tested = _stretches(known, parts[later], horizon, later)
        if not len(tested.starts):
            continue
        order = np.argsort(tested.starts, kind="stable")
        starts, ends = tested.starts[order], np.maximum.accumulate(tested.ends[order])
        for symbol, taken in parts[earlier].items():
            if not len(taken):
                continue
            own = known[symbol]
            decided, done = _before(own, taken, embargo, clock), _label_ends(own, taken, horizon, earlier, symbol)
            # Of the tested stretches that begin before this one is over, the one that lasts longest.
            before = np.searchsorted(starts, done, side="right")
            meets = before > 0
            if not forward:
                meets &= ends[np.maximum(before - 1, 0)] >= decided
            if meets.any():
                at = int(np.argmax(meets))
                raise DataError(
                    _leak(earlier, later, symbol, (own[taken[at]], done[at]), (starts[0], ends[before[at] - 1]))
                )


def _before(own: Nanoseconds, taken: Positions, bars: int, clock: Nanoseconds) -> Nanoseconds:
    """The ends, UTC ns, of the bars so many before those that are taken; before a symbol's first, of all symbols'."""
    there = own[_clipped(taken - bars, own)]
    missing = np.maximum(bars - taken, 0)
    earlier = clock[np.maximum(np.searchsorted(clock, own[:1]) - missing, 0)] if len(own) else there
    return np.where(missing > 0, earlier, there)


@dataclass(frozen=True)
class _Stretches:
    """From decisions to the ends of their labels, UTC ns, of all symbols."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def _stretches(ends: Mapping[str, Nanoseconds], part: Mapping[str, Positions], horizon: int, name: str) -> _Stretches:
    starts = [ends[symbol][taken] for symbol, taken in part.items()]
    overs = [_label_ends(ends[symbol], taken, horizon, name, symbol) for symbol, taken in part.items()]
    nothing = np.empty(0, dtype=np.int64)
    return _Stretches(np.concatenate([nothing, *starts]), np.concatenate([nothing, *overs]))


def _label_ends(own: Nanoseconds, taken: Positions, horizon: int, part: str, symbol: str) -> Nanoseconds:
    if len(taken) and taken[-1] + horizon >= len(own):
        raise DataError(
            f"{part}, {symbol}: the label of the bar at {_written(own[taken[-1]])} ends {horizon} bars later, beyond "
            f"the last bar at {_written(own[-1])}; end the fold earlier"
        )
    return own[taken + horizon]


def _leak(earlier: str, later: str, symbol: str, label: tuple[int, int], tested: tuple[int, int]) -> str:
    return (
        f"a fold leaks: the label of {earlier} ({symbol}) decided at {_written(label[0])} ends at {_written(label[1])} "
        f"and meets {later}, whose bars are decided on from {_written(tested[0])} and known at {_written(tested[1])}; "
        "set folds.purge to the model's horizon or more, or move the parts apart"
    )


def _written(time: int) -> str:
    return f"{pd.Timestamp(int(time), tz='UTC'):%Y-%m-%d %H:%M} UTC"


def _nanoseconds(times: Times) -> dict[str, Nanoseconds]:
    return {symbol: np.asarray(own.as_unit("ns").asi8) for symbol, own in times.items()}


def _positions(own: Nanoseconds, span: Span) -> tuple[int, int]:
    """As ``cuts.decision_slice``, many times as quick: folds ask for each symbol's many times over."""
    start, stop = np.searchsorted(own, _bounds(span), side="right")
    return int(start), max(int(start), int(stop))


@cache
def _bounds(span: Span) -> tuple[int, int]:
    after, until = session_bounds(span)
    return after.as_unit("ns").value, until.as_unit("ns").value


def _labelled(own: Nanoseconds, spans: tuple[Span, ...], horizon: int) -> Positions:
    """Positions in the spans whose label is known."""
    parts = [np.arange(*_positions(own, span)) for span in spans]
    positions = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    return positions[positions + horizon < len(own)]


def _reach(ends: Mapping[str, Nanoseconds], span: Span, purge: int) -> tuple[int, int]:
    """The first bar of a stretch, of any symbol, and the last one that is within the purge of its last bars."""
    firsts, lasts = [], []
    for own in ends.values():
        start, stop = _positions(own, span)
        if stop > start:
            firsts.append(int(own[start]))
            lasts.append(int(own[min(stop - 1 + purge, len(own) - 1)]))
    # Sessions are those in which somebody has a bar; without any there is nothing to keep clear of.
    return min(firsts, default=np.iinfo(np.int64).max), max(lasts, default=np.iinfo(np.int64).min)


def _clipped(positions: Positions, own: Nanoseconds) -> Positions:
    return np.clip(positions, 0, max(0, len(own) - 1))


def _neighbours(numbers: list[int]) -> list[list[int]]:
    """Runs of numbers that follow one another."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _counted(sessions: tuple[date, ...]) -> str:
    if not sessions:
        return "none within the spans"
    return f"{len(sessions):,} from {sessions[0]} to {sessions[-1]}, which is where the spans lie"
