"""The charts of a data check: bars around a spot, and where bars are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS
from engine.data.calendars import ZONE, sessions_of
from engine.data.checking import Checked, Coverage
from engine.data.quality import EVERY_SYMBOL, Finding
from engine.report.data_words import at, counted, where, whose
from engine.report.figures import GAIN, LOSS, STRATEGY, Figure, escaped, page_layout, values_of

BARS_AROUND = 15
SYMBOLS_MAPPED = 50
_FEW_SYMBOLS = 25
_COLUMNS_MAPPED = 150
_WIDEST_HOLE = 8
_TICKS = 4
_MISSING = "rgba(213,94,0,0.18)"
_NAMED = "rgba(230,159,0,0.22)"
_SCALE = [[0.0, "rgba(31,131,201,0.16)"], [1e-6, "rgba(230,159,0,0.45)"], [0.3, "#e69f00"], [1.0, "#b03a00"]]


def spot_figure(checked: Checked, finding: Finding) -> Figure:
    """The bars around one finding as the source has them, by number and not by time, so that none hides another."""
    symbol = _drawn_symbol(checked, finding)
    bars = _in_order(checked.raw.frames[symbol])
    ends = pd.DatetimeIndex(bars.index).asi8
    focus = _focus(finding, ends)
    window = slice(
        max(0, np.searchsorted(ends, focus[0]) - BARS_AROUND), np.searchsorted(ends, focus[-1]) + BARS_AROUND
    )
    bars, ends = bars.iloc[window][: 4 * BARS_AROUND], ends[window][: 4 * BARS_AROUND]
    labels = [at(time, checked.raw.timeframe) for time in pd.DatetimeIndex(bars.index)]
    absent = finding.times if finding.kind == "gap" else np.empty(0, dtype=np.int64)
    holes = np.searchsorted(absent, ends[1:]) - np.searchsorted(absent, ends[:-1]) if len(ends) else absent
    x = np.concatenate([[0], np.cumsum(1 + np.minimum(holes, _WIDEST_HOLE))]) if len(ends) else np.empty(0)
    out = _left_out(ends, checked.frames.get(symbol))
    named = np.isin(ends, finding.times) if len(finding.times) else (ends >= focus[0]) & (ends <= focus[-1])
    data = [
        _candles(bars[~out], x[~out], _pick(labels, ~out), "Kept", "#9aa3af"),
        *([_candles(bars[out], x[out], _pick(labels, out), "Left out", LOSS)] if out.any() else []),
        *_odd_values(bars, x, named),
        *_repaired(checked, symbol, ends, x),
        _volumes(bars, x),
    ]
    shapes = [] if finding.kind == "gap" else [_band(*place, _NAMED) for place in _stretches(x, named)]
    notes = [f"{finding.detail[0].upper()}{finding.detail[1:]}."]
    annotations = []
    for left in np.flatnonzero(holes).tolist():
        shapes.append(_band(x[left] + 0.5, x[left + 1] - 0.5, _MISSING))
        if holes[left] == holes.max():
            annotations.append(_said(float(x[left] + x[left + 1]) / 2, f"{holes[left]:,} missing"))
    if finding.symbol == EVERY_SYMBOL:
        notes.append(f"Drawn on the bars of {escaped(symbol)}.")
    ticks = np.unique(np.linspace(0, len(x) - 1, _TICKS).astype(int)) if len(x) else np.empty(0, dtype=int)
    layout = page_layout(height=320) | {
        "hovermode": "closest",
        "xaxis": {
            "tickvals": x[ticks].tolist(),
            "ticktext": [labels[tick].removeprefix(f"{labels[0][:4]}-") for tick in ticks],
            "tickangle": 0,
            "title": {"text": " to ".join(dict.fromkeys([labels[0][:4], labels[-1][:4]])) if labels else ""},
            "rangeslider": {"visible": False},
            "anchor": "y2",
        },
        "yaxis": {"domain": [0.24, 1.0]},
        "yaxis2": {
            "domain": [0.0, 0.18],
            "rangemode": "tozero",
            "nticks": 3,
            "tickformat": ".2~s",
            "showticklabels": bool((bars["volume"] > 0.0).any()),
        },
        "shapes": shapes,
        "annotations": annotations,
    }
    return {"data": data, "layout": layout, "notes": notes}


def spot_label(checked: Checked, finding: Finding) -> str:
    """A finding in a list to pick from."""
    return f"{whose(finding)}, {where(finding, checked.raw.timeframe)}"


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


def _drawn_symbol(checked: Checked, finding: Finding) -> str:
    if finding.symbol in checked.raw.frames:
        return finding.symbol
    return max(checked.frames, key=lambda symbol: len(checked.frames[symbol]))


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """The source's bars by time; bars of one time stay in the source's order. What is no number is drawn as missing."""
    numbers = frame[list(COLUMNS)].apply(pd.to_numeric, errors="coerce").astype("float64")
    numbers.index = pd.DatetimeIndex(frame.index).as_unit("ns")
    ordered: pd.DataFrame = numbers.sort_index(kind="stable")
    return ordered


def _focus(finding: Finding, ends: np.ndarray) -> np.ndarray:
    """The first and the last moment to draw around: the longest hole of a gap, else the first bars of the finding."""
    times = finding.times if len(finding.times) else np.array([finding.time.value, finding.last.value])
    if finding.kind == "gap":
        hole = np.searchsorted(ends, times)
        places, counts = np.unique(hole, return_counts=True)
        times = times[hole == places[int(np.argmax(counts))]]
        return np.asarray(times[[0, -1]])
    near = times[np.searchsorted(ends, times) <= np.searchsorted(ends, times[0]) + 2 * BARS_AROUND]
    return np.asarray(near[[0, -1]])


def _left_out(ends: np.ndarray, frame: pd.DataFrame | None) -> np.ndarray:
    """Which of the source's bars cleaning leaves out: all but the last of each time, and what it has none of."""
    kept = np.empty(0, dtype=np.int64) if frame is None else pd.DatetimeIndex(frame.index).asi8
    again = np.append(ends[1:] == ends[:-1], [False]) if len(ends) else np.empty(0, dtype=bool)
    return np.asarray(~np.isin(ends, kept) | again)


def _candles(bars: pd.DataFrame, x: np.ndarray, labels: list[str], name: str, colour: str) -> Figure:
    return {
        "type": "candlestick",
        "name": name,
        "x": x.tolist(),
        **{column: values_of(bars[column].to_numpy()) for column in COLUMNS[:4]},
        "text": labels,
        "hoverinfo": "text+y+name",
        "increasing": {"line": {"color": colour, "width": 1}, "fillcolor": "rgba(0,0,0,0)"},
        "decreasing": {"line": {"color": colour, "width": 1}, "fillcolor": colour},
        "showlegend": name != "Kept",
    }


def _stretches(x: np.ndarray, named: np.ndarray) -> list[tuple[float, float]]:
    """Where bars are named, in as few pieces as they make."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], named, [False]]).astype(np.int8)))
    return [(x[first] - 0.45, x[end - 1] + 0.45) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _odd_values(bars: pd.DataFrame, x: np.ndarray, named: np.ndarray) -> list[Figure]:
    """The prices of bars that no candle can show: some of theirs are missing, or beyond their own high and low."""
    prices = bars[list(COLUMNS[:4])].to_numpy()
    _, high, low, _ = prices.T
    sound = ((prices <= high[:, None]) & (prices >= low[:, None])).all(axis=1)
    row, column = np.nonzero((named & ~sound)[:, None] & np.isfinite(prices))
    if not len(row):
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "Its values",
            "x": x[row].tolist(),
            "y": values_of(prices[row, column]),
            "text": [COLUMNS[number] for number in column.tolist()],
            "marker": {"color": LOSS, "symbol": "line-ew-open", "size": 11, "line": {"width": 2}},
            "hovertemplate": "%{text} %{y}<extra></extra>",
        }
    ]


def _repaired(checked: Checked, symbol: str, ends: np.ndarray, x: np.ndarray) -> list[Figure]:
    """What values of drawn bars were repaired to."""
    repairs = checked.quality.repairs
    own = repairs[(repairs["symbol"] == symbol) & repairs["after"].notna() & (repairs["column"] != "volume")]
    times = pd.DatetimeIndex(own["time"]).asi8
    own, times = own[np.isin(times, ends)], times[np.isin(times, ends)]
    if own.empty:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "Repaired to",
            "x": x[np.searchsorted(ends, times)].tolist(),
            "y": values_of(own["after"].to_numpy()),
            "text": [escaped(column) for column in own["column"]],
            "marker": {"color": GAIN, "symbol": "diamond", "size": 7},
            "hovertemplate": "%{text} repaired to %{y}<extra></extra>",
        }
    ]


def _volumes(bars: pd.DataFrame, x: np.ndarray) -> Figure:
    return {
        "type": "bar",
        "name": "Volume",
        "x": x.tolist(),
        "y": values_of(bars["volume"].to_numpy()),
        "yaxis": "y2",
        "marker": {"color": STRATEGY, "opacity": 0.5},
        "showlegend": False,
        "hovertemplate": "volume %{y:,.0f}<extra></extra>",
    }


def _band(start: float, end: float, colour: str) -> Figure:
    area = {"type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1, "layer": "below"}
    return area | {"fillcolor": colour, "line": {"width": 0}}


def _said(place: float, text: str) -> Figure:
    return {"x": place, "y": 1, "xref": "x", "yref": "paper", "text": text, "showarrow": False, "yanchor": "bottom"}


def _pick(labels: list[str], mask: np.ndarray) -> list[str]:
    return [label for label, kept in zip(labels, mask.tolist(), strict=True) if kept]
