"""The charts of a run, as plotly figures (plain dicts): data in, figure out, no colours of the page's theme.

Every function returns ``{"data": [...], "layout": {...}, "notes": [...]}``; a note says what the reader must know about
what is drawn, such as that points were left out. User strings are escaped: plotly reads a subset of HTML in labels.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from engine.report.metrics import drawdowns, session_end, session_returns
from engine.report.thinning import MAXIMUM_POINTS, kept_rows, wider_candles

Figure = dict[str, Any]

# Okabe and Ito's colour-blind-safe set, lightened where needed so that each reads on white and on near-black.
STRATEGY = "#1f83c9"
BUY_AND_HOLD = "#e69f00"
BENCHMARK = "#8b94a3"
GAIN = "#009e73"
LOSS = "#d55e00"
BAND = "rgba(31,131,201,0.16)"
RUNS = (STRATEGY, LOSS, GAIN, "#cc79a7", BUY_AND_HOLD, "#56b4e9", "#7f6fd1", BENCHMARK)
CURVES = {
    "equity": ("Strategy", STRATEGY),
    "buy_and_hold": ("Buy and hold", BUY_AND_HOLD),
    "benchmark": ("Benchmark", BENCHMARK),
}

ROLLING_FORECASTS = 63
_ALL_BARS_SHOWN = 750
_BARS_SHOWN_FIRST = 400


def equity_figure(equity: pd.DataFrame, *, intraday: bool) -> Figure:
    """Equity, drawdown and exposure under one time axis, beside buy-and-hold and the benchmark."""
    falls = {name: drawdowns(equity[name]) for name in CURVES}
    rows = kept_rows(equity["equity"].to_numpy(), equity["gross_exposure"].to_numpy())
    x = time_labels(equity.index[rows], intraday=intraday)
    data: list[Figure] = []
    for name, (label, colour) in CURVES.items():
        if not equity[name].notna().any():
            continue
        own = name == "equity"
        style = {"color": colour, "width": 2.2 if own else 1.5}
        data.append({**line_trace(x, equity[name].to_numpy()[rows], label, style), "legendgroup": name})
        fall = {
            **line_trace(x, falls[name].to_numpy()[rows] * 100, label, {**style, "width": 1.4 if own else 1}),
            "yaxis": "y2",
        }
        fall |= {"legendgroup": name, "showlegend": False, "hovertemplate": "%{y:.2f} %"}
        data.append(fall | ({"fill": "tozeroy", "fillcolor": BAND} if own else {}))
    exposure = line_trace(
        x,
        equity["gross_exposure"].to_numpy()[rows] * 100,
        "Gross exposure",
        {"color": STRATEGY, "width": 1, "shape": "hv"},
    )
    data.append(
        exposure
        | {"yaxis": "y3", "fill": "tozeroy", "fillcolor": BAND, "showlegend": False, "hovertemplate": "%{y:.1f} %"}
    )
    return {
        "data": data,
        "layout": {
            **page_layout(height=620),
            "xaxis": {**time_axis(equity.index, intraday=intraday), "anchor": "y3"},
            "yaxis": {"domain": [0.45, 1.0], "title": {"text": "Equity"}, "tickformat": ",.3~s"},
            "yaxis2": {"domain": [0.18, 0.40], "title": {"text": "Drawdown"}, "ticksuffix": " %"},
            "yaxis3": {
                "domain": [0.0, 0.13],
                "title": {"text": "Exposure"},
                "ticksuffix": " %",
                "rangemode": "tozero",
                "nticks": 4,
            },
        },
        "notes": thinning_notes(len(equity), len(rows)),
    }


def yearly_figure(equity: pd.DataFrame) -> Figure:
    """Return of each calendar year, the first and the last as far as they go."""
    data = []
    for name, (label, colour) in CURVES.items():
        yearly = calendar_returns(equity[name], "Y")
        if len(yearly):
            bar = {
                "type": "bar",
                "name": label,
                "x": [str(y) for y in yearly.index],
                "y": values_of(yearly.to_numpy() * 100),
            }
            data.append(bar | {"marker": {"color": colour}, "hovertemplate": "%{y:.2f} %"})
    layout = page_layout(height=300) | {
        "barmode": "group",
        "xaxis": {"type": "category"},
        "yaxis": {"ticksuffix": " %"},
    }
    return {"data": data, "layout": layout, "notes": ["The outermost bars hold what lies beyond them."]}


def distribution_figure(equity: pd.DataFrame) -> Figure:
    """How often session returns of each size occurred, strategy over buy-and-hold."""
    curves = {name: session_returns(equity[name]).to_numpy() * 100 for name in ("buy_and_hold", "equity")}
    everything = np.concatenate(list(curves.values()))
    data = []
    if len(everything):
        reach = max(float(np.quantile(np.abs(everything), 0.995)), 1e-6)
        edges = np.linspace(-reach, reach, 62)
        for name, returns in curves.items():
            if len(returns):
                label, colour = CURVES[name]
                share = np.histogram(np.clip(returns, -reach, reach), bins=edges)[0] / len(returns) * 100
                bar = {
                    "type": "bar",
                    "name": label,
                    "x": values_of((edges[1:] + edges[:-1]) / 2),
                    "y": values_of(share),
                }
                data.append(
                    bar | {"marker": {"color": colour, "opacity": 0.65}, "hovertemplate": "%{y:.1f} % of sessions"}
                )
    layout = page_layout(height=300) | {
        "barmode": "overlay",
        "bargap": 0.05,
        "xaxis": {"ticksuffix": " %", "title": {"text": "Session return"}},
        "yaxis": {"ticksuffix": " %"},
    }
    return {"data": data, "layout": layout, "notes": ["The outermost bars hold what lies beyond them."]}


def candles_figure(bars: pd.DataFrame, trades: pd.DataFrame, *, intraday: bool) -> Figure:
    """One symbol's bars with its entries and exits, each trade tied by a line coloured by its result."""
    shown, size = wider_candles(bars)
    x = time_labels(shown["time"], intraday=intraday)
    quiet: Figure = {"line": {"color": "#9aa3af", "width": 1}, "fillcolor": "rgba(0,0,0,0)"}
    candle: Figure = {
        "type": "candlestick",
        "name": "Price",
        "x": x,
        **{column: values_of(shown[column].to_numpy()) for column in ("open", "high", "low", "close")},
        "increasing": quiet,
        "decreasing": {"line": {"color": "#9aa3af", "width": 1}, "fillcolor": "#9aa3af"},
        "showlegend": False,
    }
    data = [candle, *_trade_lines(trades, intraday=intraday), *_trade_markers(trades, intraday=intraday)]
    breaks = _closed_hours(bars["time"], intraday=intraday)
    xaxis: Figure = {"type": "date", "rangeslider": {"visible": False}, "rangebreaks": breaks}
    yaxis: Figure = {"title": {"text": "Price"}}
    notes = []
    if size > 1:
        notes.append(f"{len(bars):,} bars are more than {MAXIMUM_POINTS:,}: each candle joins {size} of them.")
    if len(shown) > _ALL_BARS_SHOWN:
        first = shown.tail(_BARS_SHOWN_FIRST)
        margin = 0.05 * float(first["high"].max() - first["low"].min())
        xaxis["range"] = [x[-_BARS_SHOWN_FIRST], x[-1]]
        yaxis["range"] = values_of([first["low"].min() - margin, first["high"].max() + margin])
        notes.append(
            f"Opens on the last {_BARS_SHOWN_FIRST} candles; drag the axis or double-click the chart to see the others."
        )
    layout = page_layout(height=460) | {"hovermode": "closest", "xaxis": xaxis, "yaxis": yaxis}
    return {"data": data, "layout": layout, "notes": notes}


def trade_returns_figure(trades: pd.DataFrame, *, intraday: bool) -> Figure:
    """The return of every closed trade at its exit."""
    closed = trades[~trades["open"]].sort_values("exit_time", kind="stable")
    rows = kept_rows(closed["return_pct"].to_numpy(dtype=float))
    drawn = closed.iloc[rows]
    data = []
    for label, colour, part in (
        ("Gain", GAIN, drawn[drawn["return_pct"] > 0]),
        ("Loss", LOSS, drawn[drawn["return_pct"] <= 0]),
    ):
        point: Figure = {
            "type": "scatter",
            "mode": "markers",
            "name": label,
            "x": time_labels(part["exit_time"], intraday=intraday),
        }
        point |= {"y": values_of(part["return_pct"].to_numpy()), "text": [escaped(s) for s in part["symbol"]]}
        symbol = "triangle-up" if label == "Gain" else "triangle-down"
        marker = {"color": colour, "size": 8, "opacity": 0.8, "symbol": symbol}
        data.append(point | {"marker": marker, "hovertemplate": "%{text} %{y:.2f} %<extra></extra>"})
    layout = page_layout(height=300) | {
        "hovermode": "closest",
        "xaxis": time_axis(closed["exit_time"], intraday=intraday),
        "yaxis": {"ticksuffix": " %"},
    }
    return {"data": data, "layout": layout, "notes": thinning_notes(len(closed), len(rows))}


def forecast_figure(forecasts: pd.DataFrame, *, intraday: bool) -> Figure:
    """One symbol's forecast with its interval over what was realised, and its rolling hit rate beside always-up's."""
    lower, upper, realised = (forecasts[c].to_numpy(dtype=float) * 100 for c in ("lower", "upper", "realised"))
    rows = kept_rows(realised)
    x = time_labels(forecasts["time"].iloc[rows], intraday=intraday)
    edge: Figure = {"width": 0, "color": STRATEGY}
    data: list[Figure] = [
        {**line_trace(x, lower[rows], "Lower", edge), "showlegend": False, "hovertemplate": "%{y:.3f} %"},
        {**line_trace(x, upper[rows], "Upper", edge), "fill": "tonexty", "fillcolor": BAND, "showlegend": False},
        {
            **line_trace(x, realised[rows], "Realised", {"color": BENCHMARK, "width": 1}),
            "mode": "markers",
            "marker": {"color": BENCHMARK, "size": 4},
        },
        line_trace(
            x, forecasts["forecast"].to_numpy(dtype=float)[rows] * 100, "Forecast", {"color": STRATEGY, "width": 1.6}
        ),
    ]
    for trace in data:
        trace["hovertemplate"] = "%{y:.3f} %"
    known = forecasts.dropna(subset=["realised", "forecast"])
    known = known[known["realised"] != 0.0]
    right = (np.sign(known["forecast"]) == np.sign(known["realised"])).astype(float)
    up = (known["realised"] > 0).astype(float)
    for values, label, colour in ((right, "Hit rate", STRATEGY), (up, "Hit rate of always up", BUY_AND_HOLD)):
        rate = values.rolling(ROLLING_FORECASTS).mean().to_numpy() * 100
        kept = kept_rows(rate)
        trace = line_trace(
            time_labels(known["time"].iloc[kept], intraday=intraday), rate[kept], label, {"color": colour, "width": 1.4}
        )
        data.append(trace | {"yaxis": "y2", "hovertemplate": "%{y:.1f} %", "showlegend": colour != STRATEGY})
    shapes: list[Figure] = [_horizontal(50.0, "y2")]
    seen = forecasts.loc[forecasts["in_sample"], "time"]
    notes = thinning_notes(len(forecasts), len(rows))
    if len(seen):
        span = time_labels(pd.DatetimeIndex([seen.min(), seen.max()]), intraday=intraday)
        area = {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": span[0],
            "x1": span[1],
            "y0": 0,
            "y1": 1,
            "layer": "below",
        }
        shapes.append(area | {"fillcolor": "rgba(213,94,0,0.12)", "line": {"width": 0}})
        notes.append("The shaded bars are in-sample: the model was trained or chosen on them.")
    layout = page_layout(height=480) | {
        "xaxis": {**time_axis(forecasts["time"], intraday=intraday), "anchor": "y2"},
        "yaxis": {"domain": [0.36, 1.0], "ticksuffix": " %", "title": {"text": "Log return"}},
        "yaxis2": {"domain": [0.0, 0.28], "ticksuffix": " %", "title": {"text": f"Hit rate, {ROLLING_FORECASTS} bars"}},
        "shapes": shapes,
    }
    return {"data": data, "layout": layout, "notes": notes}


def calendar_returns(equity: pd.Series, unit: str) -> pd.Series:
    """Return of each calendar period (``M`` or ``Y``) of session-end equity, as a fraction, by its period."""
    levels = session_end(equity)
    if len(levels) < 2:
        return pd.Series(dtype=float)
    last = levels.groupby(pd.DatetimeIndex(levels.index).tz_localize(None).to_period(unit)).last()
    before = last.shift(1)
    before.iloc[0] = levels.iloc[0]
    return last / before - 1.0


def time_labels(times: Any, *, intraday: bool) -> list[str]:
    """Times as plotly reads them: the date for daily bars, else the UTC minute, or second where one has it."""
    index = pd.DatetimeIndex(times)
    if not intraday:
        return list(index.strftime("%Y-%m-%d"))
    return list(index.strftime("%Y-%m-%d %H:%M:%S" if (index.second != 0).any() else "%Y-%m-%d %H:%M"))


def thinning_notes(total: int, drawn: int) -> list[str]:
    """The sentence that says points were left out; nothing where none were."""
    if drawn == total:
        return []
    return [
        f"{total:,} points are more than {MAXIMUM_POINTS:,}: {drawn:,} are drawn, each stretch's extremes among them."
    ]


def escaped(text: str) -> str:
    """User text for a plotly label."""
    return html.escape(str(text))


def _trade_markers(trades: pd.DataFrame, *, intraday: bool) -> list[Figure]:
    if trades.empty:
        return []
    long = trades["side"] == "long"
    closed = trades[~trades["open"]]
    gained = closed["pnl"] > 0
    entry = {
        **_markers(trades["entry_time"], trades["entry_price"], "Entry", intraday=intraday),
        "marker": _marker(STRATEGY, ["triangle-up" if is_long else "triangle-down" for is_long in long]),
        "text": [f"{side} {quantity:,.6g}" for side, quantity in zip(trades["side"], trades["quantity"], strict=True)],
        "hovertemplate": "entry, %{text} at %{y:,.2f}<extra></extra>",
    }
    marks = [entry]
    for label, colour, part in (
        ("Exit with a gain", GAIN, closed[gained]),
        ("Exit with a loss", LOSS, closed[~gained]),
    ):
        symbols = ["triangle-down" if side == "long" else "triangle-up" for side in part["side"]]
        marks.append(
            {
                **_markers(part["exit_time"], part["exit_price"], label, intraday=intraday),
                "marker": _marker(colour, symbols),
                "text": [f"{value:+.2f} %" for value in part["return_pct"]],
                "hovertemplate": "exit at %{y:,.2f}, %{text}<extra></extra>",
            }
        )
    return marks


def _trade_lines(trades: pd.DataFrame, *, intraday: bool) -> list[Figure]:
    lines = []
    closed = trades[~trades["open"]]
    for colour, part in ((GAIN, closed[closed["pnl"] > 0]), (LOSS, closed[closed["pnl"] <= 0])):
        starts, ends = (time_labels(part[c], intraday=intraday) for c in ("entry_time", "exit_time"))
        x = [v for a, b in zip(starts, ends, strict=True) for v in (a, b, None)]
        y = [v for a, b in zip(part["entry_price"], part["exit_price"], strict=True) for v in (a, b, None)]
        line = {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "line": {"color": colour, "width": 1.4, "dash": "dot"},
        }
        lines.append(line | {"showlegend": False, "hoverinfo": "skip"})
    return lines


def _markers(times: pd.Series, prices: pd.Series, name: str, *, intraday: bool) -> Figure:
    x = time_labels(times, intraday=intraday)
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": values_of(prices.to_numpy())}


def _marker(colour: str, symbols: list[str]) -> Figure:
    return {"color": colour, "size": 10, "symbol": symbols, "line": {"color": "rgba(255,255,255,0.9)", "width": 1}}


def time_axis(times: Any, *, intraday: bool) -> Figure:
    """A date axis; on intraday runs, without the hours in which nothing trades."""
    return {"type": "date", "rangebreaks": _closed_hours(times, intraday=intraday) if intraday else []}


def _closed_hours(times: Any, *, intraday: bool) -> list[Figure]:
    """The stretches without trading, so that candles stand side by side: weekends, and nights between sessions."""
    index = pd.DatetimeIndex(times)
    breaks: list[Figure] = []
    if len(index) and (index.day_of_week < 5).all():
        breaks.append({"bounds": ["sat", "mon"]})
        if intraday:
            hours = index.hour + index.minute / 60
            first, last = float(np.floor(hours.min() * 2) / 2 - 0.5), float(np.ceil(hours.max() * 2) / 2 + 0.5)
            if last - first < 23:
                breaks.append({"bounds": [last, max(first, 0.0)], "pattern": "hour"})
    return breaks


def line_trace(x: list[str], y: ArrayLike, name: str, style: Figure) -> Figure:
    """A line over times; ``style`` is plotly's ``line``."""
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": values_of(y), "line": style}


def _horizontal(level: float, axis: str) -> Figure:
    line = {"color": BENCHMARK, "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": axis, "y0": level, "y1": level, "line": line}


def values_of(values: ArrayLike) -> list[float | None]:
    """Seven significant digits are finer than a pixel and half the page; None leaves a gap."""
    return [float(f"{v:.7g}") if np.isfinite(v) else None for v in np.asarray(values, dtype=float)]


def page_layout(*, height: int) -> Figure:
    """What all charts share."""
    return {
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 36, "b": 36},
        "hovermode": "x unified",
        "dragmode": "zoom",
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
    }
