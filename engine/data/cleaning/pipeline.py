"""From what a source has to bars that can be trusted, with every change written down."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.config import CleaningConfig
from engine.data.bars import COLUMNS
from engine.data.cleaning.bar_faults import described, missing, sound
from engine.data.cleaning.faulty_bars import without_impossible, without_missing
from engine.data.cleaning.gaps import gaps, late_and_early
from engine.data.cleaning.record import Record
from engine.data.cleaning.session_fit import check_reach, check_stamps, outside
from engine.data.cleaning.stack import Stack, stacked
from engine.data.cleaning.suspects import shaped
from engine.data.quality import KINDS, Action, Finding, Kind, Quality
from engine.data.raw import Raw
from engine.data.timeframes import is_intraday, spans_days
from engine.data.validation import check_enough
from engine.errors import DataError

__all__ = ["clean"]

# More of a symbol's bars than this, and than a few, are not faults of single bars: the file is read wrongly.
_UNREASONABLE = 0.05
_FEW = 5

# Trading before the open and after the close is at most some sixty per cent of a day's bars.
_ANOTHER_MARKET = 2 / 3
_CLOSED_DAYS = 0.05


def clean(raw: Raw, policy: CleaningConfig) -> tuple[dict[str, pd.DataFrame], Quality]:
    """Canonical frames (see ``Bars``) of a source's bars, and what was found and changed.

    Cleaning what is clean changes nothing. What is done to a bar depends on it and on the bars before it alone, except
    for spikes, which are known by the bar after them: dropping or repairing them looks one bar ahead.

    Args:
        policy: what to do with each kind of fault.

    Raises:
        DataError: a fault whose policy is ``refuse``, or bars that no policy can make canonical: fewer than two of a
            symbol, times stamped with their start or in another zone, columns that must be mixed up.
    """
    record = Record()
    stack = _sorted(stacked(raw), policy, record)
    if raw.market:
        check_reach(stack)
        check_stamps(stack, zone=policy.off_session != "flag")
        stack = _in_session(stack, policy, record)
        _told(gaps(stack), stack, policy.gap, record)
    edges = late_and_early(stack)
    _told(edges, stack, policy.late_start, record, kind="late_start")
    _told(edges, stack, policy.early_end, record, kind="early_end")
    _check_share(stack, policy)
    stack = without_missing(stack, policy.missing_value, record)
    stack = without_impossible(stack, policy.impossible, record)
    stack = _one_a_time(stack, policy, record)
    stack = shaped(stack, policy, record)
    for symbol, left in zip(stack.symbols, np.diff(stack.starts).tolist(), strict=True):
        check_enough(left, raw.origin(symbol), dropped=len(raw.frames[symbol]) - left)
    return stack.frames(), record.quality(_checked(raw))


def _checked(raw: Raw) -> tuple[Kind, ...]:
    unknown: set[Kind] = set()
    if not raw.market:
        unknown |= {"off_session", "gap"}
    if spans_days(raw.timeframe):
        unknown.add("off_session")
    if raw.close_only:
        unknown.add("zero_volume")
    if len(raw.frames) < 2:
        unknown |= {"late_start", "early_end"}
    return tuple(kind for kind in KINDS if kind not in unknown)


def _sorted(stack: Stack, policy: CleaningConfig, record: Record) -> Stack:
    back = np.zeros(len(stack.time), dtype=bool)
    back[1:] = (np.diff(stack.time) < 0) & stack.joined
    if not back.any():
        return stack
    if policy.disorder == "refuse":
        raise DataError(
            f"{stack.place(int(np.argmax(back)))}: earlier than the bar before it; sort the bars by time, or set "
            "data.cleaning.disorder: repair"
        )

    def tell(bars: np.ndarray) -> tuple[str, float]:
        count = int(np.diff(stack.starts)[stack.owner[bars[0]]])
        whole = len(bars) == count - 1
        detail = "the newest bar came first" if whole else f"{len(bars)} of {count} bars came after a later one"
        return f"{detail}; sorted by time", float(len(bars))

    record.found("disorder", stack, back, "repaired", tell=tell)
    return stack.ordered(np.lexsort((stack.time, stack.owner)))


def _in_session(stack: Stack, policy: CleaningConfig, record: Record) -> Stack:
    mask = outside(stack)
    if not mask.any():
        return stack
    intraday = is_intraday(stack.raw.timeframe)
    what = "out of the regular session" if intraday else "of a day without a session"
    if policy.off_session == "refuse":
        raise DataError(
            f"{stack.place(int(np.argmax(mask)))}: a bar {what}; remove it, or set data.cleaning.off_session: drop"
        )
    if policy.off_session == "drop":
        limit = _ANOTHER_MARKET if intraday else _CLOSED_DAYS
        counts = stack.per_symbol(mask)
        for symbol, count, all_ in zip(stack.symbols, counts.tolist(), np.diff(stack.starts).tolist(), strict=True):
            if count > max(_FEW, limit * all_):
                raise DataError(
                    f"{stack.raw.origin(symbol)}: {count} of {all_} bars are {what} of the New York Stock Exchange, as "
                    "another market's are; correct data.timezone if it is not, or set data.cleaning.off_session: flag "
                    "to keep them"
                )

    def tell(bars: np.ndarray) -> tuple[str, float]:
        return f"{len(bars)} {'bar' if len(bars) == 1 else 'bars'} {what}", float(len(bars))

    action: Action = "dropped" if policy.off_session == "drop" else "flagged"
    record.found("off_session", stack, mask, action, tell=tell)
    return record.dropped(stack, mask, "off_session: drop") if action == "dropped" else stack


def _told(found: list[Finding], stack: Stack, policy: str, record: Record, *, kind: Kind = "gap") -> None:
    """Keep findings of bars that are there or not, of which nothing can be changed."""
    found = [finding for finding in found if finding.kind == kind]
    if found and policy == "refuse":
        first = found[0]
        where = stack.raw.origin(first.symbol) if first.symbol in stack.raw.frames else stack.raw.source
        raise DataError(
            f"{where}: {first.detail} (from {first.time:%Y-%m-%d %H:%M} UTC); complete the bars, or set "
            f"data.cleaning.{kind}: flag"
        )
    record.findings.extend(found)


def _check_share(stack: Stack, policy: CleaningConfig) -> None:
    """Refuse to drop so many bars that it must be the reading, not the bars, that is at fault."""
    good = sound(stack.values)
    if good.all():
        return
    lost = ~good
    absent = missing(stack.values)
    if policy.missing_value == "repair":
        lost &= ~(absent & (stack.values[3] > 0.0))
    if policy.impossible == "repair":
        lost &= absent | ~(np.isfinite(stack.values).all(axis=0) & (stack.values[:4] > 0.0).all(axis=0))
    counts = stack.per_symbol(lost)
    for number, (count, all_) in enumerate(zip(counts.tolist(), np.diff(stack.starts).tolist(), strict=True)):
        if count > max(_FEW, _UNREASONABLE * all_):
            start, end = stack.starts[number], stack.starts[number + 1]
            bar = int(start + np.argmax(lost[start:end]))
            raise DataError(
                f"{stack.place(bar)}: {described(stack.values[:, bar])}, and {count} of {all_} bars cannot be bars; "
                "the columns are probably mixed up: correct data.columns, or the file"
            )


def _one_a_time(stack: Stack, policy: CleaningConfig, record: Record) -> Stack:
    """Of several bars of one time the last one in the order of the source."""
    again = (np.diff(stack.time) == 0) & stack.joined
    if not again.any():
        return stack
    group = np.concatenate([[0], np.cumsum(~again)])
    last = np.append(np.flatnonzero(~again), len(stack.time) - 1)[group]
    earlier = last != np.arange(len(stack.time))
    same = (stack.values == stack.values[:, last]).all(axis=0)
    duplicate, conflict = earlier & same, earlier & ~same
    for kind, mask, how in (("duplicate", duplicate, policy.duplicate), ("conflict", conflict, policy.conflict)):
        if mask.any() and how == "refuse":
            bar = int(np.argmax(mask))
            raise DataError(_repeated(stack, bar, int(last[bar]), kind))

    def tell_duplicate(bars: np.ndarray) -> tuple[str, float]:
        return f"{len(bars)} {'bar is' if len(bars) == 1 else 'bars are'} there more than once", float(len(bars))

    def tell_conflict(bars: np.ndarray) -> tuple[str, float]:
        apart = np.abs(np.log(stack.values[3, bars]) - np.log(stack.values[3, last[bars]]))
        worst = bars[int(np.argmax(apart))]
        closes = f"{stack.values[3, worst]:g} and {stack.values[3, last[worst]]:g}"
        detail = f"{len(bars)} {'time has' if len(bars) == 1 else 'times have'} bars that differ, such as closes of "
        return f"{detail}{closes} at {stack.at(worst):%Y-%m-%d %H:%M} UTC; the last one is kept", float(apart.max())

    record.found("duplicate", stack, duplicate, "dropped", tell=tell_duplicate)
    record.found("conflict", stack, conflict, "dropped", tell=tell_conflict)
    kept = record.dropped(stack, duplicate, "duplicate: drop")
    return record.dropped(kept, conflict[~duplicate], "conflict: drop")


def _repeated(stack: Stack, bar: int, last: int, kind: str) -> str:
    """The sentence on two bars of one time."""
    rows = stack.raw.rows.get(stack.symbols[int(stack.owner[bar])])
    first, second = int(stack.position[bar]), int(stack.position[last])
    there = f"bar {first + 1}" if rows is None else f"row {rows[first]}"
    beside = f"{stack.place(last)}: the same time as {there}" if second > first else f"{stack.place(last)}: twice"
    if kind == "duplicate":
        return f"{beside}, with the same values; remove one, or set data.cleaning.duplicate: drop"
    column = int(np.argmax(stack.values[:, bar] != stack.values[:, last]))
    values = f"{COLUMNS[column]} {stack.values[column, bar]:g} and {stack.values[column, last]:g}"
    return (
        f"{beside}, with other values ({values}); remove one, or set data.cleaning.conflict: drop, which keeps the last"
    )
