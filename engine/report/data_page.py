"""check.html: what is wrong or odd with a run file's bars, on one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from engine.data.cleaning.checking import Checked, Coverage, shared_gap
from engine.data.cleaning.findings import changed_in_hindsight
from engine.data.quality import KINDS, Finding, Kind
from engine.data.timeframes import is_intraday
from engine.report.data_figures import spot_figure, spot_label
from engine.report.data_maps import clock_figure, coverage_figure
from engine.report.data_words import (
    MEANINGS,
    at,
    choices,
    counted,
    example,
    kind_rows,
    listed,
    verdict,
    whose,
    worst_first,
)
from engine.report.page import Charts, render

SPOTS_DRAWN = 4
FINDINGS_LISTED = 120
SYMBOLS_LISTED = 120
CHANGES_LISTED = 60
ACTIONS_LISTED = 60

# What these are about is not on any bar: the map shows it.
_NOT_DRAWN: frozenset[Kind] = frozenset({"late_start", "early_end"})
_ADJUSTED = {
    "none": "not adjusted",
    "split": "adjusted for splits",
    "dividend": "adjusted for dividends",
    "all": "adjusted for splits and dividends",
}
_BADGES = {"synthetic": "SYNTHETIC", "survivor_biased": "SURVIVOR-BIASED", "close_only": "CLOSE-ONLY"}


def render_data_check(checked: Checked, *, name: str) -> str:
    """The page: one HTML document that opens from a file with no network. The same check gives the same text.

    Args:
        name: the run file's.
    """
    rows = kind_rows(checked)
    return render(
        "check.html",
        charts=_charts(checked),
        title=name,
        badges=[
            *(["REFUSED"] if checked.refusals else []),
            *(t for k, t in _BADGES.items() if getattr(checked.raw, k)),
        ],
        hindsight=bool(changed_in_hindsight(checked.quality)),
        facts=_facts(checked),
        verdict=verdict(checked),
        refusals=[refusal.sentence for refusal in checked.refusals],
        kinds=[
            {
                "kind": row.kind,
                "meaning": MEANINGS[row.kind],
                "symbols": f"{row.symbols:,}",
                "bars": f"{row.bars:,}",
                "done": row.done,
                "refused": row.refused,
                "worst": example(row.worst, checked.raw.timeframe),
            }
            for row in rows
        ],
        spots=[{"chart": _chart(row.kind), "kind": row.kind, "meaning": MEANINGS[row.kind]} for row in rows],
        intraday=is_intraday(checked.raw.timeframe),
        coverage=[_coverage_row(own, checked) for own in _by_missing(checked)[:SYMBOLS_LISTED]],
        symbols=len(checked.coverage),
        shared=shared_gap(checked.quality),
        calendar="gap" in checked.quality.checked,
        findings=[_finding_row(finding, checked) for finding in _worst_of_all(checked)[:FINDINGS_LISTED]],
        finding_count=len(checked.quality.findings),
        changes=_change_rows(checked.quality.repairs.head(CHANGES_LISTED), checked.raw.timeframe),
        change_count=len(checked.quality.repairs),
        actions=_action_rows(checked),
        adjustment=_adjustment(checked),
        policy=[
            {
                "kind": kind,
                "meaning": MEANINGS[kind],
                "policy": getattr(checked.policy, kind),
                "choices": ", ".join(choices(kind)),
                "looked_for": kind in checked.quality.checked or not checked.frames,
            }
            for kind in KINDS
        ],
    )


def _charts(checked: Checked) -> Charts:
    charts: dict[str, Any] = {}
    for row in kind_rows(checked):
        if row.kind not in _NOT_DRAWN:
            worst = worst_first(checked, row.kind)[:SPOTS_DRAWN]
            charts[_chart(row.kind)] = [(spot_label(checked, f), spot_figure(checked, f)) for f in worst]
    if checked.frames and "gap" in checked.quality.checked:
        charts["coverage"] = [("", coverage_figure(checked))]
        if is_intraday(checked.raw.timeframe):
            charts["clock"] = [("", clock_figure(checked))]
    return charts


def _chart(kind: Kind) -> str:
    return f"spots_{kind}"


def _facts(checked: Checked) -> list[tuple[str, str]]:
    raw = checked.raw
    known = [own for own in checked.coverage if own.first is not None and own.last is not None]
    period = ""
    if known:
        first = min(own.first for own in known if own.first is not None)
        last = max(own.last for own in known if own.last is not None)
        period = f"{at(first, raw.timeframe)} to {at(last, raw.timeframe)}"
        period += ", New York" if is_intraday(raw.timeframe) else ""
    facts = [
        ("Period", period),
        ("Symbols", f"{len(raw.frames):,}: {listed(list(raw.frames), most=6)}"),
        ("Bars in the source", f"{sum(len(frame) for frame in raw.frames.values()):,} of {raw.timeframe}"),
        ("Source", _source(checked)),
        ("Content hash of what is loaded", "" if checked.bars is None else checked.bars.content_hash[:16]),
    ]
    return [(label, text) for label, text in facts if text]


def _source(checked: Checked) -> str:
    names = sorted({Path(origin).name for origin in checked.raw.origins.values()})
    return f"{checked.raw.source}: {listed(names, most=3)}" if names else checked.raw.source


def _by_missing(checked: Checked) -> list[Coverage]:
    return sorted(checked.coverage, key=lambda own: (-(own.missing_pct or 0.0), -own.dropped, own.symbol))


def _coverage_row(own: Coverage, checked: Checked) -> dict[str, str]:
    share = own.missing_pct
    return {
        "symbol": own.symbol,
        "first": at(own.first, checked.raw.timeframe),
        "last": at(own.last, checked.raw.timeframe),
        "bars": f"{own.bars:,}",
        "expected": "–" if own.expected is None else f"{own.expected:,}",
        "missing": "–" if own.missing is None else f"{own.missing:,}",
        "missing_pct": "–" if share is None else f"{share:.2f} %",
        "dropped": f"{own.dropped:,}",
    }


def _worst_of_all(checked: Checked) -> list[Finding]:
    """By kind in the order of ``KINDS``, the worst of each first, an equal part of the list for each kind."""
    by_kind = [worst_first(checked, row.kind) for row in kind_rows(checked)]
    share = FINDINGS_LISTED // max(1, len(by_kind))
    return [finding for own in by_kind for finding in own[:share]]


def _finding_row(finding: Finding, checked: Checked) -> dict[str, str]:
    return {
        "kind": finding.kind,
        "symbol": whose(finding),
        "time": at(finding.time, checked.raw.timeframe),
        "bars": f"{finding.count:,}",
        "action": "REFUSED" if finding.kind in checked.refused else finding.action,
        "detail": finding.detail,
    }


def _change_rows(repairs: pd.DataFrame, timeframe: str) -> list[dict[str, str]]:
    rows = []
    for row in repairs.to_dict("records"):
        values = {key: "–" if pd.isna(row[key]) else f"{row[key]:.10g}" for key in ("before", "after")}
        time = at(pd.Timestamp(row["time"]), timeframe)
        rows.append({**{key: str(row[key]) for key in ("symbol", "column", "rule")}, "time": time, **values})
    return rows


def _action_rows(checked: Checked) -> list[dict[str, str]]:
    """Splits and dividends that the source tells, splits first in time."""
    rows = []
    for symbol, frame in checked.raw.actions.items():
        for time, split in frame["split"][frame["split"] != 1.0].items():
            rows.append({"symbol": symbol, "time": at(pd.Timestamp(str(time)), "1d"), "split": f"{split:g}:1"})
    return rows[:ACTIONS_LISTED]


def _adjustment(checked: Checked) -> str:
    source = checked.raw.adjustment
    told = f"The source's prices are {_ADJUSTED[source]}{', as far as it says' if source == 'none' else ''}."
    if checked.bars is not None and checked.bars.adjustment != source:
        told += f" Loading them makes them {_ADJUSTED[checked.bars.adjustment]} (data.adjustment)."
    actions = checked.raw.actions
    if not actions:
        return f"{told} The source names no split and no dividend."
    splits = sum(int((frame["split"] != 1.0).sum()) for frame in actions.values())
    dividends = sum(int((frame["dividend"] != 0.0).sum()) for frame in actions.values())
    named = f"{counted(splits, 'split')} and {counted(dividends, 'dividend')}"
    return f"{told} The source names {named}."
