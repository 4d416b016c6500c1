"""models.html: a ranking as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from engine.data import timeframes
from engine.report.catalogue import METRICS, NOTHING, Metric, metric
from engine.report.figures import (
    BENCHMARK,
    BUY_AND_HOLD,
    GAIN,
    RUNS,
    STRATEGY,
    Figure,
    escaped,
    line_trace,
    page_layout,
    thinning_notes,
    time_labels,
    values_of,
)
from engine.report.leaderboard import RESAMPLES, Entry, Leaderboard
from engine.report.page import render
from engine.report.ranking import Ranking, headline, mark
from engine.report.thinning import kept_rows

_CURVES = 8
_GROUPS = {"symbol": "By symbol", "year": "By year", "regime": "By volatility"}


def render_ranking(ranking: Ranking) -> str:
    """The page: one HTML document that opens from a file with no network. The same ranking gives the same text."""
    board = ranking.board
    return render(
        "ranking.html",
        charts={
            "accuracy": [("", accuracy_figure(board))],
            "equity": [("", equity_figure(board, timeframe=ranking.timeframe))],
            "speed": [("", speed_figure(ranking))],
        },
        title=ranking.name,
        badges=list(ranking.flags),
        facts=_facts(ranking),
        headline=headline(board),
        rows=[_row(place, entry, ranking) for place, entry in enumerate(board.entries, start=1)],
        held=_money(board.buy_and_hold, {}),
        several_seeds=any(len(entry.seeds) > 1 for entry in board.entries),
        rows_judged=f"{board.rows:,}",
        dates=f"{board.dates:,}",
        left_out=f"{board.left_out:,}",
        always_up=METRICS["win_rate_pct"].text(board.always_up_pct),
        resamples=f"{RESAMPLES:,}",
        groups=[_group(name, title, board.entries) for name, title in _GROUPS.items()],
        pairs=_pairs(board),
        folds=[_fold(number, fold) for number, fold in enumerate(ranking.folds, start=1)],
        hashes=sorted(ranking.hashes.items()),
        horizon=ranking.horizon,
        panel=len(ranking.symbols) > 1,
    )


def accuracy_figure(board: Leaderboard) -> Figure:
    """R2 against the zero forecast with its interval, kind by kind, the best on top."""
    entries = [entry for entry in reversed(board.entries) if entry.accuracy["r2_out_of_sample"] is not None]
    values = {
        entry.label: [
            100.0 * float(v) if v is not None else np.nan
            for v in (entry.accuracy["r2_out_of_sample"], entry.r2_low, entry.r2_high)
        ]
        for entry in entries
    }
    data: list[Figure] = []
    for name, colour, chosen in (
        ("Better than naive", GAIN, [e for e in entries if e.beats_naive]),
        ("Not better", STRATEGY, [e for e in entries if not e.beats_naive and not e.baseline]),
        ("Naive", BENCHMARK, [e for e in entries if e.baseline]),
    ):
        if not chosen:
            continue
        points = np.array([values[e.label] for e in chosen])
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": values_of(points[:, 0]),
                "y": [escaped(e.label) for e in chosen],
                "marker": {"color": colour, "size": 9},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": values_of(points[:, 2] - points[:, 0]),
                    "arrayminus": values_of(points[:, 0] - points[:, 1]),
                    "color": colour,
                    "thickness": 1.4,
                    "width": 4,
                },
                "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
            }
        )
    ends = np.array([v for label, own in values.items() for v in own if _drawn(label, board)])
    low, high = (float(np.nanmin(ends)), float(np.nanmax(ends))) if np.isfinite(ends).any() else (-1.0, 1.0)
    room = 0.06 * max(high - low, 0.1)
    layout = page_layout(height=120 + 26 * len(entries)) | {
        "hovermode": "closest",
        "xaxis": {
            "title": {"text": "R² out of sample against zero"},
            "ticksuffix": " %",
            "zeroline": True,
            "range": [min(low, 0.0) - room, max(high, 0.0) + room],
        },
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": [escaped(e.label) for e in entries]},
    }
    beyond = [label for label in values if not _drawn(label, board)]
    notes = [f"Far to the left, beyond the chart: {', '.join(beyond)}."] if beyond else []
    return {"data": data, "layout": layout, "notes": notes}


def _drawn(label: str, board: Leaderboard) -> bool:
    """Whether a kind is near enough to the others to be drawn on their scale."""
    known = {e.label: float(v) for e in board.entries if (v := e.accuracy["r2_out_of_sample"]) is not None}
    return known[label] > float(np.median(list(known.values()))) - 0.2


def equity_figure(board: Leaderboard, *, timeframe: str) -> Figure:
    """The strategy's equity with the most accurate kinds, folds one after the other, beside buy-and-hold."""
    intraday = timeframes.is_intraday(timeframe)
    shown = [entry for entry in board.entries if not entry.baseline][:_CURVES]
    curves = [(e.label, e.equity, RUNS[i % len(RUNS)], "solid") for i, e in enumerate(shown)]
    curves.append(("Buy and hold", board.held, BUY_AND_HOLD, "dot"))
    data: list[Figure] = []
    notes: list[str] = []
    for label, curve, colour, dash in curves:
        rows = kept_rows(curve.to_numpy(dtype=float))
        x = time_labels(pd.DatetimeIndex(curve.index)[rows], intraday=intraday)
        style = {"color": colour, "width": 1.6, "dash": dash}
        data.append(line_trace(x, curve.to_numpy()[rows] * 100, escaped(label), style) | {"hovertemplate": "%{y:.1f}"})
        notes = notes or thinning_notes(len(curve), len(rows))
    left_out = sum(not entry.baseline for entry in board.entries) - len(shown)
    if left_out:
        notes = [*notes, f"The {_CURVES} most accurate kinds are drawn; {left_out} more are in the table."]
    layout = page_layout(height=460) | {"xaxis": {"type": "date"}, "yaxis": {"title": {"text": "Equity, start = 100"}}}
    return {"data": data, "layout": layout, "notes": notes}


def speed_figure(ranking: Ranking) -> Figure:
    """Accuracy against the latency of one forecast."""
    entries = [
        e
        for e in ranking.board.entries
        if e.accuracy["r2_out_of_sample"] is not None and _drawn(e.label, ranking.board)
    ]
    data = []
    for name, colour, chosen in (
        ("Kinds", STRATEGY, [e for e in entries if not e.baseline]),
        ("Naive", BENCHMARK, [e for e in entries if e.baseline]),
    ):
        if chosen:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "name": name,
                    "x": values_of([ranking.speeds[e.label].latency_p99_ms for e in chosen]),
                    "y": values_of([100.0 * float(e.accuracy["r2_out_of_sample"] or 0.0) for e in chosen]),
                    "text": [escaped(e.label) for e in chosen],
                    "textposition": "top center",
                    "textfont": {"size": 10},
                    "cliponaxis": False,
                    "marker": {"color": colour, "size": 9},
                    "hovertemplate": "%{text}: p99 %{x:.2f} ms, R² %{y:.2f} %<extra></extra>",
                }
            )
    layout = page_layout(height=420) | {
        "hovermode": "closest",
        "xaxis": {"type": "log", "title": {"text": "One forecast, p99, ms"}},
        "yaxis": {"title": {"text": "R² out of sample"}, "ticksuffix": " %"},
    }
    return {"data": data, "layout": layout, "notes": []}


def _facts(ranking: Ranking) -> list[tuple[str, str]]:
    symbols = ", ".join(ranking.symbols[:8])
    more = f" and {len(ranking.symbols) - 8} more" if len(ranking.symbols) > 8 else ""
    tests = [fold["test"] for fold in ranking.folds]
    seeds = max((entry.seeds for entry in ranking.board.entries), key=len)
    return [
        ("Tested on", f"{tests[0][0]} to {tests[-1][1]}"),
        ("Folds", str(len(ranking.folds))),
        ("Seeds", ", ".join(str(seed) for seed in seeds)),
        ("Symbols", symbols + more),
        ("Horizon", f"{ranking.horizon} bar{'s' * (ranking.horizon != 1)} of {ranking.timeframe}"),
        ("Strategy", ranking.strategy),
    ]


def _row(place: int, entry: Entry, ranking: Ranking) -> dict[str, Any]:
    own, spread, speed = entry.accuracy, entry.accuracy_spread, ranking.speeds[entry.label]
    r2 = "r2_out_of_sample"
    interval = NOTHING
    if entry.r2_low is not None and entry.r2_high is not None:
        interval = f"{_percent(entry.r2_low)} to {_percent(entry.r2_high)}"
    return {
        "place": place,
        "label": entry.label,
        "kind": ranking.kinds[entry.label],
        "mark": mark(entry),
        "naive": entry.baseline,
        "better": entry.beats_naive,
        "r2": _percent(own[r2]),
        "interval": interval,
        "spread": NOTHING if spread[r2] is None else f"± {_percent(spread[r2], sign=False)}",
        "mae": metric("mae").text(own["mae"]),
        "mase": _number(own["mase"], 3),
        "crps": metric("mae").text(own["crps"]),
        "hit": _number(own["hit_rate_pct"], 1),
        "coverage": _number(own["coverage_pct"], 1),
        "dm_zero_p": _number(entry.dm_zero_p, 3),
        "holm_p": _number(entry.holm_p, 3),
        "dm_best_p": _number(entry.dm_best_p, 3),
        "pt_p": _number(own["pt_p"], 3),
        "mz_slope": _number(own["mz_slope"], 2),
        "mz_p": _number(own["mz_p"], 3),
        "mz_slope_p": _number(own["mz_slope_p"], 3),
        "rank_ic": _number(own["rank_ic"], 3),
        "rank_ic_t": _number(own["rank_ic_t"], 2),
        "coverage_p": _number(own["coverage_p"], 3),
        "interval_score": metric("mae").text(own["interval_score"]),
        "money": _money(entry.strategy, entry.strategy_spread),
        "parameters": f"{ranking.parameters[entry.label]:,}",
        "memory": f"{ranking.memory[entry.label]:,}",
        "seconds": _number(speed.training_seconds, 1),
        "p50": _number(speed.latency_p50_ms, 2),
        "p99": _number(speed.latency_p99_ms, 2),
        "rate": _number(speed.forecasts_per_second, 0),
    }


def _money(figures: Mapping[str, float | int | None], spread: Mapping[str, float | int | None]) -> list[str]:
    """Return, its spread over seeds, Sharpe ratio, its interval, drawdown and turnover, as text."""
    low, high = figures.get("sharpe_low"), figures.get("sharpe_high")
    varied = spread.get("total_return_pct")
    return [
        _text(METRICS["total_return_pct"], figures),
        NOTHING if varied is None else f"± {_number(varied, 1)}",
        _text(METRICS["sharpe_ratio"], figures),
        NOTHING if low is None or high is None else f"{_number(low, 2)} to {_number(high, 2)}",
        _text(METRICS["max_drawdown_pct"], figures),
        _text(METRICS["turnover_ann"], figures),
    ]


def _text(shown: Metric, figures: Mapping[str, float | int | None]) -> str:
    return shown.text(figures.get(shown.key))


def _group(name: str, title: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """R2 of each kind in each group, with the rows of the group."""
    columns = list(dict.fromkeys(key for entry in entries for key in entry.groups[name]))
    if name == "regime":
        columns = [regime for regime in ("calm", "middle", "wild") if regime in columns]
    counts = {key: figures.get("n") for entry in entries for key, figures in entry.groups[name].items()}
    return {
        "title": title,
        "columns": [{"name": key, "n": _number(counts[key], 0)} for key in columns],
        "rows": [
            {
                "label": entry.label,
                "naive": entry.baseline,
                "cells": [_percent(entry.groups[name].get(key, {}).get("r2_out_of_sample")) for key in columns],
            }
            for entry in entries
        ],
    }


def _pairs(board: Leaderboard) -> dict[str, Any]:
    labels = [entry.label for entry in board.entries]
    rows = []
    for one in labels:
        cells = []
        for other in labels:
            found = board.pairs[one].get(other) if one != other else None
            cells.append(
                {
                    "text": "" if one == other else NOTHING if found is None else _number(found[1], 3),
                    "clear": found is not None and found[1] < 0.05 and found[0] < 0.0,
                }
            )
        rows.append({"label": one, "cells": cells})
    return {"labels": labels, "rows": rows}


def _fold(number: int, fold: Mapping[str, tuple[str, str]]) -> list[str]:
    return [str(number), *(f"{fold[name][0]} to {fold[name][1]}" for name in ("train", "validate", "test"))]


def _percent(value: float | int | None, *, sign: bool = True) -> str:
    if value is None:
        return NOTHING
    text = f"{value * 100:{'+' if sign else ''},.2f}"
    return ("0.00" if float(text.replace(",", "")) == 0.0 else text.replace("-", "−")) + " %"


def _number(value: float | int | None, places: int) -> str:
    return NOTHING if value is None else f"{value:,.{places}f}".replace("-", "−")
