"""What cleaning found, in the forms in which it is kept and told: frames, counts, and cut to the bars that are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pandas as pd

from engine.data.quality import KINDS, REPAIR_COLUMNS, Action, Finding, Kind, Quality, no_repairs

FINDING_COLUMNS = ("kind", "symbol", "time", "last", "count", "action", "size", "detail")

# Kinds of which nobody knows until a later bar: a spike is one because the price comes back.
HINDSIGHT: frozenset[Kind] = frozenset({"spike"})

# Kinds that are about bars before a symbol's first, or after its last.
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

    That a symbol starts late or ends early counts where another symbol has bars at that time. A finding that lies
    partly inside counts as a whole.
    """
    spans = {symbol: (frame.index[0], frame.index[-1]) for symbol, frame in frames.items() if len(frame)}
    if not spans:
        return Quality(checked=quality.checked)
    everything = min(first for first, _ in spans.values()), max(last for _, last in spans.values())

    def counts(finding: Finding) -> bool:
        if finding.symbol not in spans:
            return False
        first, last = everything if finding.kind in _OUTSIDE else spans[finding.symbol]
        return bool(first <= finding.last and finding.time <= last)

    repairs = quality.repairs
    if len(repairs):
        first, last = (repairs["symbol"].map({s: span[i] for s, span in spans.items()}) for i in (0, 1))
        # Symbols without bars have no span, and nothing lies within NaT.
        inside = (repairs["time"] >= pd.to_datetime(first, utc=True)) & (
            repairs["time"] <= pd.to_datetime(last, utc=True)
        )
        repairs = repairs[inside].reset_index(drop=True) if inside.any() else no_repairs()
    return Quality(
        findings=tuple(finding for finding in quality.findings if counts(finding)),
        repairs=repairs,
        checked=quality.checked,
    )


def tallied(quality: Quality) -> dict[str, dict[str, int]]:
    """Kind -> how many bars and symbols it was found in, and how many bars were dropped, repaired, flagged.

    Kinds that were not found are left out; JSON-ready.
    """
    tally: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        own = [finding for finding in quality.findings if finding.kind == kind]
        if own:
            by_action = {
                action: sum(finding.count for finding in own if finding.action == action) for action in _ACTIONS
            }
            symbols = len({finding.symbol for finding in own})
            tally[kind] = {"bars": sum(by_action.values()), "symbols": symbols, **by_action}
    return tally


def changed_in_hindsight(quality: Quality) -> int:
    """Bars that were dropped or repaired for what a later bar told: live trading cannot do that."""
    return sum(f.count for f in quality.findings if f.kind in HINDSIGHT and f.action != "flagged")
