"""The drawing of what lies where in time: bars, spans and folds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from engine.report.figures import BENCHMARK, BUY_AND_HOLD, GAIN, LOSS, STRATEGY, Figure, page_layout

# Part -> its name in the legend and its colour, in the order in which they are drawn: what is left out lies on top.
PARTS = {
    "train": ("Train", STRATEGY),
    "validate": ("Validate", BUY_AND_HOLD),
    "test": ("Test", GAIN),
    "purged": ("Purged", LOSS),
    "embargoed": ("Embargoed", "#cc79a7"),
}
LEFT_OUT = ("purged", "embargoed")
FOLDS_DRAWN = 40
SPANS_ROW = "Spans"
_ROW_HEIGHT, _BARS_HEIGHT, _FRAME_HEIGHT = 22, 90, 110


def folds_figure(timeline: Mapping[str, Any]) -> Figure:
    """Spans and folds as strips under how many symbols have bars; what is purged and embargoed is marked on them.

    Args:
        timeline: as ``engine.data.timeline.timeline`` gives it, and a run's manifest keeps it.
    """
    folds = timeline["folds"]
    drawn = folds[:FOLDS_DRAWN]
    rows = [
        (SPANS_ROW, {name: [span] for name, span in timeline["spans"].items()}),
        *((f"Fold {number}", parts) for number, parts in enumerate(drawn, start=1)),
    ]
    strips = [_strips(part, rows) for part in PARTS]
    height = _FRAME_HEIGHT + _BARS_HEIGHT + _ROW_HEIGHT * (len(rows) + 1)
    below = 1.0 - (_BARS_HEIGHT + 24) / (height - 72)
    layout = page_layout(height=height) | {
        "hovermode": "closest",
        "xaxis": {"type": "date", "anchor": "y"},
        "yaxis": {
            "domain": [0.0, below],
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [name for name, _ in reversed(rows)],
            "range": [-0.6, len(rows) - 0.4],
            "fixedrange": True,
        },
        "yaxis2": {
            "domain": [1.0 - _BARS_HEIGHT / (height - 72), 1.0],
            "title": {"text": "Symbols"},
            "rangemode": "tozero",
            "nticks": 3,
            "fixedrange": True,
        },
    }
    notes = ["Symbols that have bars in each month, above what they are used for."]
    if any(fold[part] for fold in drawn for part in LEFT_OUT):
        notes.append("Purged bars have labels that reach into another part; embargoed ones lie next to them.")
    if len(folds) > len(drawn):
        notes.append(f"The first {len(drawn)} of {len(folds):,} folds are drawn.")
    return {"data": [*_symbols(timeline["months"]), *(s for s in strips if s["x"])], "layout": layout, "notes": notes}


def _strips(part: str, rows: list[tuple[str, Mapping[str, Any]]]) -> Figure:
    """One part in all rows: a thick line from the first day to the day after the last, with a gap after it."""
    name, colour = PARTS[part]
    x: list[str | None] = []
    y: list[str | None] = []
    text: list[str | None] = []
    for row, parts in rows:
        for first, last in parts.get(part, []):
            after = str(date.fromisoformat(last) + timedelta(days=1))
            x += [first, after, None]
            y += [row, row, None]
            text += [*[f"{name}, {first} to {last}"] * 2, None]
    strip: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "text": text,
        "line": {"color": colour, "width": 12},
        "hovertemplate": "%{text}<extra>%{y}</extra>",
    }
    if part in LEFT_OUT:
        # A few bars among years are thinner than a pixel.
        mark = {"symbol": "line-ns-open", "size": 16, "color": colour, "line": {"width": 2}}
        strip |= {"mode": "lines+markers", "marker": mark}
    return strip


def _symbols(months: list[list[Any]]) -> list[Figure]:
    """How many symbols have bars in each month, and of a universe how many members it has."""
    lines = [("With bars", 1, STRATEGY)]
    if months and len(months[0]) > 2:
        lines.insert(0, ("Members", 2, BENCHMARK))
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": [row[0] for row in months],
            "y": [row[column] for row in months],
            "yaxis": "y2",
            "line": {"color": colour, "width": 1.4, "shape": "hv"},
            "hovertemplate": f"%{{y}} {name.lower()}<extra></extra>",
        }
        for name, column, colour in lines
    ]
