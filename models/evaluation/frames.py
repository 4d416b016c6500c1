"""The forecasts of a span beside what came, as one frame, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from engine.data.bars import Bars
from engine.data.cuts import decision_slice
from models.evaluation.scores import score
from models.excess import ends_after, excess_of
from models.features import Columns, Floats
from models.windows import labels_of

if TYPE_CHECKING:
    from models.forecaster import Forecaster

FORECAST_COLUMNS = ("time", "symbol", "forecast", "lower", "upper", "realised", "last_return")


def forecast_frame(
    bars: Bars, forecaster: Forecaster, span: tuple[date, date], *, known: Mapping[str, Floats] | None = None
) -> pd.DataFrame:
    """The forecasts at every decision bar of a span, beside what came; of a universe, while symbols are members.

    Windows reach back before the span; realised returns do not reach beyond it, so the last ``horizon`` decision bars
    of each symbol have none.

    Args:
        known: symbol -> [bars, 3], forecasts that the forecaster has made of these very bars already.

    Returns:
        A frame ordered by symbol and time with the columns time (UTC, end of the decision bar), symbol, and in log
        returns over the forecaster's horizon: forecast, lower, upper (NaN where the symbol has fewer than ``memory``
        bars), realised (NaN where it is not known within the span), last_return (the return over the horizon that
        ends at the decision bar, NaN in a symbol's first bars). Where the model forecasts excesses both are those over
        the symbols of the frame.
    """
    parts, stretches = [], []
    for symbol, frame in bars.frames.items():
        decisions = decision_slice(pd.DatetimeIndex(frame.index), span)
        # Nothing before the first window, nothing after the span: the forecasts are the same to the bit.
        first = max(0, decisions.start - max(forecaster.memory - 1, forecaster.horizon))
        columns = Columns.of(frame.iloc[first : decisions.stop])
        taken = slice(decisions.start - first, None)
        labels = labels_of(columns.close, forecaster.horizon).astype(np.float64)
        last = np.full(len(labels), np.nan)
        last[forecaster.horizon :] = labels[: -forecaster.horizon]
        made = None if known is None else known.get(symbol)
        forecasts = forecaster.forecast(columns)[taken] if made is None else made[decisions]
        part = pd.DataFrame(
            {
                "time": frame.index[decisions],
                "symbol": symbol,
                "forecast": forecasts[:, 0],
                "lower": forecasts[:, 1],
                "upper": forecasts[:, 2],
                "realised": labels[taken],
                "last_return": last[taken],
            }
        )
        ends = ends_after(columns.times, forecaster.horizon)
        starts = np.concatenate([np.full(forecaster.horizon, -1), columns.times])[: len(ends)]
        stretch = pd.DataFrame({"start": starts[taken], "end": ends[taken]}, index=part.index)
        inside = slice(None) if bars.inside is None else bars.inside[symbol][decisions]
        parts.append(part[inside])
        stretches.append(stretch[inside])
    frame = pd.concat(parts, ignore_index=True)
    if forecaster.bundle.record.model.target == "excess":
        _compare(frame, pd.concat(stretches, ignore_index=True))
    return frame


def _compare(frame: pd.DataFrame, stretches: pd.DataFrame) -> None:
    """Make excesses of what came of a decision, until ``end``, and of what had come, since ``start`` (UTC ns)."""
    times = pd.DatetimeIndex(frame["time"]).as_unit("ns").asi8
    start, end = (stretches[name].to_numpy(dtype=np.int64) for name in ("start", "end"))
    everyone = np.ones(len(frame), dtype=bool)
    for column, since, until in (("realised", times, end), ("last_return", start, times)):
        frame[column] = excess_of(frame[column].to_numpy(dtype=np.float64), since, until, everyone)


def score_frame(frame: pd.DataFrame, *, train_mean: float, train_naive_mae: float) -> Mapping[str, float | None]:
    """``score`` of a frame made by ``forecast_frame``, pooled over its symbols."""
    realised, forecast, lower, upper, last = (
        frame[name].to_numpy(dtype=np.float64) for name in ("realised", "forecast", "lower", "upper", "last_return")
    )
    return score(
        realised,
        forecast,
        lower,
        upper,
        last_return=last,
        train_mean=train_mean,
        train_naive_mae=train_naive_mae,
    )
