"""report.html: one run on one page, from the verdict down to the hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml

from engine.data import timeframes
from engine.report import figures
from engine.report.catalogue import BASELINES, METRICS, SCORES, SECTIONS, baseline_key, best, metric
from engine.report.data_words import MEANINGS
from engine.report.metrics import Figures, drawdown_episodes
from engine.report.page import Charts, render
from engine.report.run import RUNNING, Run, plain
from engine.report.timeline import folds_figure
from engine.report.verdict import verdict

SYMBOLS_DRAWN = 24
TRADES_LISTED = 500
DRAWDOWNS_LISTED = 8
COLUMNS = {"strategy": "Strategy", "buy_and_hold": "Buy and hold", "benchmark": "Benchmark"}
FLAGS = {
    "in_sample": "IN-SAMPLE",
    "synthetic": "SYNTHETIC",
    "survivor_biased": "SURVIVOR-BIASED",
    "close_only": "CLOSE-ONLY",
    "hindsight": "CLEANED IN HINDSIGHT",
}


def render_report(run: Run) -> str:
    """The run's page: one HTML document that opens from a file with no network. The same run gives the same text."""
    return render(
        "report.html",
        charts=_charts(run),
        title=run.name,
        badges=badges(run.manifest),
        in_sample=bool(run.manifest.get("in_sample")),
        hindsight=bool(run.manifest.get("hindsight")),
        facts=_facts(run),
        verdict=verdict(run),
        cards=_cards(run),
        drawdowns=_drawdown_rows(run),
        months=_month_rows(run),
        trades=_trade_rows(run),
        trade_count=len(run.trades),
        scores=_score_rows(run.metrics.get("forecast", {})),
        baselines=list(BASELINES.values()),
        statuses=_statuses(run.orders),
        symbols_left_out=max(0, len(_symbols(run)) - SYMBOLS_DRAWN),
        symbols_drawn=SYMBOLS_DRAWN,
        sections=_sections(run),
        quality=_quality_rows(run.manifest),
        kept=[f"{name}.parquet" for name in ("findings", "repairs") if len(getattr(run, name))],
        provenance=_provenance(run.manifest),
        config=yaml.safe_dump(plain(run.config), sort_keys=False, allow_unicode=True),
    )


def badges(manifest: Mapping[str, Any]) -> list[str]:
    """What a reader must know before any figure."""
    found = [label for key, label in FLAGS.items() if manifest.get(key)]
    universe = manifest.get("universe") or {}
    if universe.get("without_bars"):
        found.append(f"SURVIVORSHIP: {universe['without_bars']} of {universe['members']} members {_absent(universe)}")
    if manifest.get("status") == "halted":
        found.insert(0, "HALTED")
    if manifest.get("kind") == "paper":
        found.insert(0, "PAPER, REPLAYED" if manifest.get("mode") == "replay" else "PAPER")
    if manifest.get("status") == RUNNING:
        found.insert(0, "NOT FINISHED")
    return found


def _absent(universe: Mapping[str, Any]) -> str:
    return "take no part" if universe.get("named") else "have no bars"


def moment(time: Any, *, intraday: bool) -> str:
    """A UTC time for a table: the date, or the minute on intraday runs."""
    return "" if pd.isna(time) else figures.time_labels([time], intraday=intraday)[0]


def is_intraday(run: Run) -> bool:
    """Whether a date alone does not name a bar."""
    return timeframes.is_intraday(run.timeframe)


def _symbols(run: Run) -> list[str]:
    """Every symbol, the most traded first, then by name."""
    counts = run.trades["symbol"].value_counts()
    return sorted(run.bars["symbol"].unique(), key=lambda s: (-int(counts.get(s, 0)), s))


def _charts(run: Run) -> Charts:
    intraday = is_intraday(run)
    charts = {
        "equity": [("", figures.equity_figure(run.equity, intraday=intraday))],
        "yearly": [("", figures.yearly_figure(run.equity))],
        "distribution": [("", figures.distribution_figure(run.equity))],
    }
    drawn = sorted(_symbols(run)[:SYMBOLS_DRAWN])
    if run.manifest.get("timeline"):
        charts["timeline"] = [("", folds_figure(run.manifest["timeline"]))]
    if drawn:
        charts["candles"] = [
            (s, figures.candles_figure(_of(run.bars, s), _of(run.trades, s), intraday=intraday)) for s in drawn
        ]
    if (~run.trades["open"]).any():
        charts["trade_returns"] = [("", figures.trade_returns_figure(run.trades, intraday=intraday))]
    forecast_symbols = [s for s in drawn if len(_of(run.forecasts, s))]
    if forecast_symbols:
        charts["forecasts"] = [
            (s, figures.forecast_figure(_of(run.forecasts, s), intraday=intraday)) for s in forecast_symbols
        ]
    return charts


def _of(frame: pd.DataFrame, symbol: str) -> pd.DataFrame:
    return frame[frame["symbol"] == symbol]


def _facts(run: Run) -> list[tuple[str, str]]:
    intraday = is_intraday(run)
    symbols = [str(s) for s in run.manifest.get("symbols", [])]
    listed = ", ".join(symbols[:8]) + (f" and {len(symbols) - 8} more" if len(symbols) > 8 else "")
    strategy = run.config.get("strategy", {}).get("kind", "")
    model = run.config.get("model") or {}
    period = ""
    if len(run.equity):
        first, last = (moment(t, intraday=intraday) for t in (run.equity.index[0], run.equity.index[-1]))
        period = f"{first} to {last}" + (" UTC" if intraday else "")
    pairs = [
        ("Period", period),
        ("Symbols", listed),
        ("Bars", f"{run.timeframe}, {run.config.get('data', {}).get('source', '')}"),
        ("Strategy", str(strategy)),
        ("Model", str(model.get("kind") or model.get("bundle") or "none")),
        (
            "Starting equity",
            METRICS["final_equity"].text(float(run.equity["equity"].iloc[0])) if len(run.equity) else "",
        ),
    ]
    return [(label, text) for label, text in pairs if text]


def _columns(run: Run) -> dict[str, str]:
    return {key: label for key, label in COLUMNS.items() if run.metrics.get(key)}


def _cards(run: Run) -> list[dict[str, Any]]:
    """The eight figures a reader looks for first, each beside what it must be held against."""
    metrics = run.metrics
    own, scores = metrics.get("strategy", {}), metrics.get("forecast", {})
    passive = [(label, metrics[key]) for key, label in _columns(run).items() if key != "strategy"]

    def card(key: str, figures: Figures, others: list[tuple[str, str, Figures]], detail: str = "") -> dict[str, Any]:
        shown = metric(key)
        pairs = [(label, metric(k).text(f.get(k))) for label, k, f in others]
        return {"label": shown.label, "value": shown.text(figures.get(key)), "detail": detail, "others": pairs}

    def compared(key: str, detail: str = "") -> dict[str, Any]:
        return card(key, own, [(label, key, figures) for label, figures in passive], detail)

    interval = ""
    if own.get("sharpe_low") is not None:
        low, high = (METRICS[k].text(own.get(k)) for k in ("sharpe_low", "sharpe_high"))
        interval = f"95 % interval {low} to {high}"
    cards = [
        compared("total_return_pct", "after costs"),
        compared("cagr_pct"),
        compared("sharpe_ratio", interval),
        compared("max_drawdown_pct"),
        compared("volatility_ann_pct"),
        card("trades", own, [("Win rate", "win_rate_pct", own), ("Orders", "orders", own)]),
        card("costs_pct", own, [("Commission", "commission_paid", own), ("Slippage", "slippage_paid", own)]),
    ]
    if scores.get("mae") is not None:
        others = [("Zero forecast", "mae_zero"), ("Last return", "mae_last_return")]
        cards.append(card("mae", scores, [(label, key, scores) for label, key in others], "of the forecast"))
    else:
        cards.append(card("exposure_pct", own, [("Average gross", "average_gross_exposure_pct", own)]))
    return cards


def _drawdown_rows(run: Run) -> list[dict[str, str]]:
    intraday = is_intraday(run)
    episodes = drawdown_episodes(run.equity["equity"])
    seen = episodes[episodes["depth_pct"] <= -0.005].head(DRAWDOWNS_LISTED)
    return [
        {
            "depth": METRICS["max_drawdown_pct"].text(row.depth_pct),
            "peak": moment(row.peak, intraday=intraday),
            "trough": moment(row.trough, intraday=intraday),
            "recovery": moment(row.recovery, intraday=intraday) or "not yet",
            "days": METRICS["max_drawdown_duration_days"].text(row.days),
        }
        for row in _tuples(seen)
    ]


def _month_rows(run: Run) -> list[dict[str, Any]]:
    """One row a year: twelve months and the year, each with how strongly its cell is tinted (-1 to 1)."""
    monthly = figures.calendar_returns(run.equity["equity"], "M")
    yearly = figures.calendar_returns(run.equity["equity"], "Y")
    strongest = float(monthly.abs().max()) if len(monthly) else 0.0
    known = {(p.year, p.month): float(v) for p, v in monthly.items()}  # type: ignore[attr-defined]
    rows = []
    for period, total in yearly.items():
        year = period.year  # type: ignore[attr-defined]
        cells = []
        for month in range(1, 13):
            value = known.get((year, month))
            if value is None:
                cells.append({"text": "", "tint": 0.0})
            else:
                cells.append({"text": _points(value), "tint": round(value / strongest, 3) if strongest else 0.0})
        rows.append({"year": year, "cells": cells, "total": _points(float(total))})
    return rows


def _points(fraction: float) -> str:
    text = f"{fraction * 100:+.1f}"
    return "0.0" if float(text) == 0.0 else text.replace("-", "−")


def _trade_rows(run: Run) -> list[dict[str, str]]:
    intraday = is_intraday(run)
    money = METRICS["expectancy"]
    return [
        {
            "symbol": row.symbol,
            "side": row.side,
            "entry": moment(row.entry_time, intraday=intraday),
            "exit": moment(row.exit_time, intraday=intraday) or "open",
            "quantity": f"{row.quantity:,.6g}",
            "entry_price": money.text(row.entry_price),
            "exit_price": money.text(row.exit_price),
            "pnl": money.text(row.pnl),
            "return": METRICS["average_trade_pct"].text(row.return_pct),
            "bars": str(row.bars),
        }
        for row in _tuples(run.trades.tail(TRADES_LISTED))
    ]


def _tuples(frame: pd.DataFrame) -> Any:
    return frame.itertuples(index=False)


def _score_rows(scores: Mapping[str, float | int | None]) -> list[dict[str, Any]]:
    rows = []
    for score in SCORES:
        keys = [score.key, *(baseline_key(score.key, name) for name in BASELINES)]
        values = [scores.get(key) for key in keys]
        if any(value is not None for value in values):
            winners = best(score.key, values)
            cells = [
                {"text": score.text(v) if v is not None else "", "best": i in winners} for i, v in enumerate(values)
            ]
            rows.append({"label": score.label, "cells": cells})
    return rows


def _statuses(orders: pd.DataFrame) -> list[tuple[str, str]]:
    counts = orders["status"].value_counts()
    return [(str(status), f"{int(count):,}") for status, count in counts.items()]


def _sections(run: Run) -> list[dict[str, Any]]:
    """The metrics by section, each section with the columns that know any of them."""
    sections = []
    for title, listed in SECTIONS.items():
        columns = {
            key: label
            for key, label in _columns(run).items()
            if any(run.metrics[key].get(shown.key) is not None for shown in listed)
        }
        known = [shown for shown in listed if any(shown.key in run.metrics[key] for key in columns)]
        rows = [
            {
                "label": shown.label,
                "cells": [
                    shown.text(run.metrics[k][shown.key]) if shown.key in run.metrics[k] else "" for k in columns
                ],
            }
            for shown in known
        ]
        if rows:
            sections.append({"title": title, "columns": list(columns.values()), "rows": rows})
    return sections


def _quality_rows(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """What cleaning found in the run's bars, by kind."""
    return [
        {
            "kind": kind,
            "meaning": MEANINGS.get(kind, ""),
            **{key: f"{int(counts.get(key, 0)):,}" for key in ("symbols", "dropped", "repaired", "flagged")},
        }
        for kind, counts in manifest.get("quality", {}).items()
    ]


def _provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The manifest, flat, without what is not there and what the page's head already says."""
    shown = {"name", "symbols", "timeline", *FLAGS}
    rows: list[tuple[str, str]] = []
    for key, value in plain(manifest).items():
        if key in shown or value is None:
            continue
        if isinstance(value, dict):
            rows.extend((f"{key}.{inner}", _flat(v)) for inner, v in value.items() if v is not None)
        else:
            rows.append((key, _flat(value)))
    return rows


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
