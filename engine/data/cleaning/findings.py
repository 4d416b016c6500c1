"""What cleaning found, in the forms in which it is kept and told: frames, counts, and cut to the bars that are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import pandas as pd

from engine.data.quality import EVERY_SYMBOL, KINDS, REPAIR_COLUMNS, Action, Finding, Kind, Quality, no_repairs

FINDING_COLUMNS = ("kind", "symbol", "time", "last", "count", "action", "size", "detail")

# Kinds of which nobody knows until a later bar: a spike is one because the price comes back.
HINDSIGHT: frozenset[Kind] = frozenset({"spike"})

# Kinds that are told beside other symbols' bars, so that the symbol's own first and last bar bound nothing.
_OUTSIDE: frozenset[Kind] = frozenset({"late_start", "early_end"})
_ACTIONS: tuple[Action, ...] = ("dropped", "repaired", "flagged")


def findings_frame(quality: Quality) -> pd.DataFrame:
    """One row a finding, in its order, with ``FINDING_COLUMNS``; times in UTC nanoseconds."""
    rows = [[getattr(finding, name) for name in FINDING_COLUMNS] for finding in quality.findings]
    frame = pd.DataFrame(rows, columns=list(FINDING_COLUMNS))
    kinds = {"count": "int64", "size": "float64", **dict.fromkeys(("time", "last"), "datetime64[ns, UTC]")}
    texts = dict.fromkeys(("kind", "symbol", "action", "detail"), "str")
    return frame.astype({**kinds, **texts})


def quality_from(findings: pd.DataFrame, repairs: pd.DataFrame) -> Quality:
    """The ``Quality`` whose ``findings_frame`` and repairs these are; which kinds were looked for is not in them."""
    return Quality(
        findings=tuple(
            Finding(
                kind=row.kind,
                symbol=row.symbol,
                time=row.time,
                last=row.last,
                count=int(row.count),
                action=row.action,
                size=float(row.size),
                detail=row.detail,
            )
            for row in cast(Any, findings[list(FINDING_COLUMNS)].itertuples(index=False))
        ),
        repairs=repairs[list(REPAIR_COLUMNS)],
    )


def within(quality: Quality, frames: Mapping[str, pd.DataFrame]) -> Quality:
    """What was found in the bars of these frames: of each symbol, from its first bar to its last.

    That a symbol starts late or ends early counts where another symbol has bars before that, or after it. ``detail``
    stays what it was for all bars.
    """
    spans = {symbol: (frame.index[0], frame.index[-1]) for symbol, frame in frames.items() if len(frame)}
    if not spans:
        return Quality(checked=quality.checked)
    everything = min(first for first, _ in spans.values()), max(last for _, last in spans.values())
    findings = []
    for finding in quality.findings:
        if finding.symbol not in spans and finding.symbol != EVERY_SYMBOL:
            continue
        span = spans.get(finding.symbol, everything)
        if finding.kind in _OUTSIDE:
            # One who was there before the bars begin is not late in them.
            inside = everything[0] < finding.time if finding.kind == "late_start" else finding.time < everything[1]
            findings.extend([finding] if inside and everything[0] <= finding.time <= everything[1] else [])
        else:
            findings.extend(_cut(finding, *span))
    repairs = quality.repairs
    if len(repairs):
        first, last = (repairs["symbol"].map({s: span[i] for s, span in spans.items()}) for i in (0, 1))
        # Symbols without bars have no span, and nothing lies within NaT.
        inside = (repairs["time"] >= pd.to_datetime(first, utc=True)) & (
            repairs["time"] <= pd.to_datetime(last, utc=True)
        )
        repairs = repairs[inside].reset_index(drop=True) if inside.any() else no_repairs()
    return replace(quality, findings=tuple(findings), repairs=repairs)


def _cut(finding: Finding, first: pd.Timestamp, last: pd.Timestamp) -> Iterator[Finding]:
    """The part of a finding from first to last, if there is any."""
    if first <= finding.time and finding.last <= last:
        yield finding
    elif len(finding.times):
        inside = finding.times[(finding.times >= first.value) & (finding.times <= last.value)]
        if len(inside):
            time, end = (pd.Timestamp(int(inside[at]), tz="UTC") for at in (0, -1))
            yield replace(finding, time=time, last=end, count=len(inside), times=inside)
    elif first <= finding.last and finding.time <= last:
        yield finding


def tallied(quality: Quality) -> dict[str, dict[str, int]]:
    """Kind -> how many bars and symbols it was found in, and how many bars were dropped, repaired, flagged.

    Kinds that were not found are left out; JSON-ready.
    """
    tally: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        own = [finding for finding in quality.findings if finding.kind == kind]
        if own:
            by_action: dict[str, int] = {
                action: sum(finding.count for finding in own if finding.action == action) for action in _ACTIONS
            }
            symbols = len({finding.symbol for finding in own})
            tally[kind] = {"bars": sum(by_action.values()), "symbols": symbols, **by_action}
    return tally


def changed_in_hindsight(quality: Quality) -> int:
    """Bars that were dropped or repaired for what a later bar told: live trading cannot do that."""
    return sum(f.count for f in quality.findings if f.kind in HINDSIGHT and f.action != "flagged")
