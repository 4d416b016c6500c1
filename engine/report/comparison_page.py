"""compare.html: a comparison as one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from engine.report.catalogue import METRICS, NOTHING
from engine.report.comparison import RESAMPLES, Comparison, Interval
from engine.report.figures import (
    BENCHMARK,
    RUNS,
    Figure,
    escaped,
    line_trace,
    page_layout,
    thinning_notes,
    time_axis,
    time_labels,
)
from engine.report.metrics import drawdowns, periods_per_year, session_end, session_returns
from engine.report.page import render
from engine.report.run import Run
from engine.report.tear_sheet import badges, is_intraday, moment
from engine.report.thinning import kept_rows

ROLLING_SESSIONS = 126


def render_comparison(comparison: Comparison, runs: Sequence[Run], *, links: Sequence[str]) -> str:
    """The page; ``links`` are the runs' reports, relative to where the page will lie."""
    return render(
        "comparison.html",
        charts={
            "curves": [("", curves_figure(comparison, runs))],
            "rolling": [("", rolling_sharpe_figure(comparison, runs))],
        },
        title=" · ".join(comparison.labels),
        runs=_run_rows(comparison, runs, links),
        mixed=any(comparison.unlike),
        baseline=comparison.labels[comparison.baseline],
        headline=headline(comparison),
        columns=[*comparison.labels, *(title for title, _ in comparison.passive)],
        run_count=len(runs),
        sections=_sections(comparison),
        differences=_difference_rows(comparison),
        resamples=RESAMPLES,
        configs=[(key, [_shown(v) for v in values]) for key, values in comparison.configs.items()],
    )


def headline(comparison: Comparison) -> list[str]:
    """What the figures say in plain words: who beat buy-and-hold, and whether any difference is more than noise."""
    count = len(comparison.labels)
    excess = next((row.values[:count] for row in comparison.rows if row.key == "return_over_buy_and_hold_pct"), ())
    known = [(label, v) for label, v in zip(comparison.labels, excess, strict=False) if v is not None]
    winners = [label for label, v in known if v > 0]
    sentences = []
    if known:
        sentences.append(
            f"Above buy-and-hold after costs: {', '.join(winners)}."
            if winners
            else "No run beat buy-and-hold after costs."
        )
    baseline = comparison.labels[comparison.baseline]
    alike = [
        (label, gap.sharpe_ratio)
        for label, gap, unlike in zip(comparison.labels, comparison.differences, comparison.unlike, strict=True)
        if not unlike and gap is not None and gap.sharpe_ratio is not None
    ]
    clear = [label for label, interval in alike if not interval.low <= 0.0 <= interval.high]
    if clear:
        sentences.append(f"By more than chance explains, another Sharpe ratio than {baseline}: {', '.join(clear)}.")
    elif alike:
        sentences.append(f"No difference in Sharpe ratio to {baseline} can be told from chance.")
    return sentences


def curves_figure(comparison: Comparison, runs: Sequence[Run]) -> Figure:
    """Equity rebased to 100 at each run's start, buy-and-hold dotted, and the drawdowns below."""
    data: list[Figure] = []
    notes: list[str] = []
    intraday = any(is_intraday(run) for run in runs)
    times = pd.concat([run.equity.index.to_series() for run in runs])
    curves = [
        (label, run.equity["equity"], colour(i), "solid")
        for i, (label, run) in enumerate(zip(comparison.labels, runs, strict=True))
    ]
    curves += [
        (f"Buy and hold{suffix}", curve, BENCHMARK, "dot") for suffix, curve in _passive_curves(comparison, runs)
    ]
    for label, curve, tint, dash in curves:
        curve = curve.dropna()
        if curve.empty:
            continue
        rows = kept_rows(curve.to_numpy(dtype=float))
        x = time_labels(curve.index[rows], intraday=intraday)
        style = {"color": tint, "width": 2 if dash == "solid" else 1.4, "dash": dash}
        rebased = (curve / curve.iloc[0] * 100).to_numpy()[rows]
        name = escaped(label)
        data.append(line_trace(x, rebased, name, style) | {"legendgroup": name, "hovertemplate": "%{y:.1f}"})
        fall = line_trace(x, drawdowns(curve).to_numpy()[rows] * 100, name, style | {"width": 1.2})
        data.append(fall | {"yaxis": "y2", "legendgroup": name, "showlegend": False, "hovertemplate": "%{y:.2f} %"})
        notes = notes or thinning_notes(len(curve), len(rows))
    layout = page_layout(height=560) | {
        "xaxis": {**time_axis(times, intraday=intraday), "anchor": "y2"},
        "yaxis": {"domain": [0.36, 1.0], "title": {"text": "Equity, start = 100"}},
        "yaxis2": {"domain": [0.0, 0.30], "title": {"text": "Drawdown"}, "ticksuffix": " %"},
    }
    return {"data": data, "layout": layout, "notes": notes}


def rolling_sharpe_figure(comparison: Comparison, runs: Sequence[Run]) -> Figure:
    """Annualised Sharpe ratio over the last 126 session returns, or a third of them where there are fewer."""
    data = []
    windows = []
    for i, (label, run) in enumerate(zip(comparison.labels, runs, strict=True)):
        returns = session_returns(run.equity["equity"])
        window = min(ROLLING_SESSIONS, max(2, len(returns) // 3))
        rolling = returns.rolling(window)
        deviation = rolling.std()
        sharpe = rolling.mean() / deviation.where(deviation > 1e-12) * np.sqrt(periods_per_year(run.timeframe))
        rows = kept_rows(sharpe.to_numpy(dtype=float)) if len(sharpe) else np.arange(0)
        x = time_labels(pd.DatetimeIndex(sharpe.index)[rows], intraday=False)
        style = {"color": colour(i), "width": 1.6}
        data.append(line_trace(x, sharpe.to_numpy()[rows], escaped(label), style) | {"hovertemplate": "%{y:.2f}"})
        windows.append(window)
    layout = page_layout(height=340) | {"xaxis": {"type": "date"}, "yaxis": {"title": {"text": "Sharpe ratio"}}}
    spans = ", ".join(str(w) for w in dict.fromkeys(windows))
    return {"data": data, "layout": layout, "notes": [f"Over the last {spans} session returns, annualised."]}


def colour(position: int) -> str:
    """A run's colour on every chart and table of the page."""
    return RUNS[position % len(RUNS)]


def _passive_curves(comparison: Comparison, runs: Sequence[Run]) -> list[tuple[str, pd.Series]]:
    distinct: list[tuple[str, pd.Series]] = []
    for label, run in zip(comparison.labels, runs, strict=True):
        curve = session_end(run.equity["buy_and_hold"])
        if len(curve) and not any(curve.equals(other) for _, other in distinct):
            distinct.append((label, curve))
    return [(f" ({label})" if len(distinct) > 1 else "", curve) for label, curve in distinct]


def _run_rows(comparison: Comparison, runs: Sequence[Run], links: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for i, (run, link) in enumerate(zip(runs, links, strict=True)):
        intraday = is_intraday(run)
        ends = (
            [moment(t, intraday=intraday) for t in (run.equity.index[0], run.equity.index[-1])]
            if len(run.equity)
            else ["", ""]
        )
        rows.append(
            {
                "label": comparison.labels[i],
                "link": link,
                "colour": colour(i),
                "strategy": str((run.config.get("strategy") or {}).get("kind", "")),
                "period": f"{ends[0]} to {ends[1]}",
                "badges": badges(run.manifest),
                "unlike": comparison.unlike[i],
                "baseline": i == comparison.baseline,
            }
        )
    return rows


def _sections(comparison: Comparison) -> list[dict[str, Any]]:
    sections: dict[str, list[dict[str, Any]]] = {}
    for row in comparison.rows:
        metric = METRICS[row.key]
        cells = [{"text": metric.text(v), "best": i in row.best} for i, v in enumerate(row.values)]
        sections.setdefault(row.section, []).append({"label": metric.label, "cells": cells})
    return [{"title": title, "rows": rows} for title, rows in sections.items()]


def _difference_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "colour": colour(i),
            "sessions": f"{gap.sessions:,}",
            "daily": _interval(gap.daily_return_bps),
            "sharpe": _interval(gap.sharpe_ratio),
        }
        for i, (label, gap) in enumerate(zip(comparison.labels, comparison.differences, strict=True))
        if gap is not None
    ]


def _interval(interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {"text": NOTHING, "range": "too few common sessions, or no variation", "beyond_chance": False}
    value, low, high = (f"{v:+.2f}".replace("-", "−") for v in (interval.value, interval.low, interval.high))
    return {"text": value, "range": f"{low} to {high}", "beyond_chance": not interval.low <= 0.0 <= interval.high}


def _shown(value: Any) -> str:
    if value is None:
        return NOTHING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
