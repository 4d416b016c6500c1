"""The charts of a data check: the bars around a spot, as the source has them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS
from engine.data.cleaning.checking import Checked
from engine.data.quality import EVERY_SYMBOL, Finding
from engine.report.data_words import at, where, whose
from engine.report.figures import GAIN, LOSS, STRATEGY, Figure, escaped, page_layout, values_of

BARS_AROUND = 15
_WIDEST_HOLE = 8
_TICKS = 4
_MISSING = "rgba(213,94,0,0.18)"
_NAMED = "rgba(230,159,0,0.22)"


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
