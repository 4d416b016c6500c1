"""The maps of a data check: where bars are missing, by symbol and session, and by the time of day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from engine.data.calendars import ZONE, sessions_of
from engine.data.cleaning.checking import Checked, Coverage
from engine.report.data_words import counted
from engine.report.figures import Figure, escaped, page_layout

SYMBOLS_MAPPED = 50
_FEW_SYMBOLS = 25
_COLUMNS_MAPPED = 150
_SCALE = [[0.0, "rgba(31,131,201,0.16)"], [1e-6, "rgba(230,159,0,0.45)"], [0.3, "#e69f00"], [1.0, "#b03a00"]]


def coverage_figure(checked: Checked) -> Figure:
    """Which share of each symbol's bars is missing, session by session; blank before its first and after its last."""
    symbols, left_out = _mapped(checked)
    times = {symbol: pd.DatetimeIndex(checked.frames[symbol].index).asi8 for symbol in symbols}
    absent = missing_times(checked)
    everything = np.unique(np.concatenate([*times.values(), *(absent[s] for s in symbols)]))
    days = sessions_of(pd.DatetimeIndex(everything, tz="UTC"))
    sessions = days.unique()
    number = sessions.get_indexer(days)
    group = np.arange(len(sessions)) // -(-len(sessions) // _COLUMNS_MAPPED)
    column = group[number]
    rows = []
    for symbol in symbols:
        there, missing = (
            np.bincount(column[np.searchsorted(everything, own)], minlength=group[-1] + 1)
            for own in (times[symbol], absent[symbol])
        )
        rows.append(_shares(missing, there + missing))
    firsts = sessions[np.searchsorted(group, np.arange(group[-1] + 1))]
    size = int(np.bincount(group)[0])
    notes = [] if size == 1 else [f"Each column joins {size} sessions and is named by the first."]
    notes.extend([left_out] if left_out else [])
    return _map(rows, [f"{day:%Y-%m-%d}" for day in firsts], symbols, notes)


def clock_figure(checked: Checked) -> Figure:
    """Which share of each symbol's bars is missing in each half hour of New York's day; the last row is of all."""
    symbols, left_out = _mapped(checked)
    absent = missing_times(checked)
    halves = {
        symbol: (_half_hours(pd.DatetimeIndex(checked.frames[symbol].index).asi8), _half_hours(absent[symbol]))
        for symbol in checked.frames
    }
    seen = np.unique(np.concatenate([half for pair in halves.values() for half in pair]))
    counts = {
        symbol: tuple(np.bincount(np.searchsorted(seen, half), minlength=len(seen)) for half in pair)
        for symbol, pair in halves.items()
    }
    whole = [np.sum([pair[which] for pair in counts.values()], axis=0) for which in (0, 1)]
    rows = [_shares(counts[symbol][1], counts[symbol][0] + counts[symbol][1]) for symbol in symbols]
    rows.append(_shares(whole[1], whole[0] + whole[1]))
    notes = ["By the time at which the bar ends; each column is half an hour up to its name, in New York."]
    notes.extend([left_out] if left_out else [])
    labels = [f"{half // 2:02}:{half % 2 * 30:02}" for half in seen.tolist()]
    return _map(rows, labels, [*symbols, "all symbols"], notes)


def missing_times(checked: Checked) -> Mapping[str, np.ndarray]:
    """Symbol -> the ends of the bars that it lacks, UTC ns; those that all symbols lack are not among them."""
    found: dict[str, np.ndarray] = {symbol: np.empty(0, dtype=np.int64) for symbol in checked.frames}
    for finding in checked.quality.findings:
        if finding.kind == "gap" and finding.symbol in found:
            found[finding.symbol] = np.union1d(found[finding.symbol], finding.times)
    return found


def _mapped(checked: Checked) -> tuple[list[str], str]:
    """The symbols to draw, the one with the most missing bars first, and a sentence on the others."""
    known = [own for own in checked.coverage if own.bars]
    if len(known) > _FEW_SYMBOLS:
        odd = {f.symbol for f in checked.quality.findings if f.kind in ("late_start", "early_end")}
        known = [own for own in known if own.missing or own.symbol in odd] or known[:1]
    worst = sorted(known, key=lambda own: (-(own.missing_pct or 0.0), own.bars, own.symbol))
    return [own.symbol for own in worst[:SYMBOLS_MAPPED]], _not_drawn(checked, worst)


def _not_drawn(checked: Checked, worst: list[Coverage]) -> str:
    complete = sum(1 for own in checked.coverage if own.bars) - len(worst)
    more = len(worst) - SYMBOLS_MAPPED
    said = [f"{counted(more, 'symbol')} with fewer missing bars"] if more > 0 else []
    said += [f"{counted(complete, 'symbol')} that lack none"] if complete else []
    return f"Not drawn: {' and '.join(said)}." if said else ""


def _map(rows: Sequence[np.ndarray], columns: Sequence[str], symbols: Sequence[str], notes: list[str]) -> Figure:
    trace: Figure = {
        "type": "heatmap",
        "x": list(columns),
        "y": [escaped(symbol) for symbol in symbols],
        "z": [[round(v, 2) if np.isfinite(v) else None for v in row.tolist()] for row in rows],
        "zmin": 0.0,
        "zmax": 100.0,
        "colorscale": _SCALE,
        "xgap": 0 if len(columns) > 60 else 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": "%{y}, %{x}: %{z} % missing<extra></extra>",
        "colorbar": {"ticksuffix": " %", "thickness": 10, "outlinewidth": 0},
    }
    # Few enough for a phone.
    ticks = np.unique(np.linspace(0, len(columns) - 1, 3 if len(columns[0]) > 5 else 5).astype(int)).tolist()
    layout = page_layout(height=max(180, 90 + 16 * len(symbols))) | {
        "hovermode": "closest",
        "xaxis": {"type": "category", "tickvals": [columns[tick] for tick in ticks], "tickangle": 0},
        "yaxis": {"type": "category", "autorange": "reversed", "dtick": 1, "tickfont": {"size": 10}},
    }
    return {"data": [trace], "layout": layout, "notes": notes}


def _shares(missing: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Missing bars in per cent, NaN where none is expected."""
    return np.where(expected > 0, 100.0 * missing / np.maximum(expected, 1), np.nan)


def _half_hours(times: np.ndarray) -> np.ndarray:
    """The half hour of New York's day with which, or in which, each bar ends: 20 is the one that ends at 10:00."""
    local = pd.DatetimeIndex(times, tz="UTC").tz_convert(ZONE)
    minutes = np.asarray(local.hour * 60 + local.minute + (local.second > 0))
    return np.asarray(-(-minutes // 30))
