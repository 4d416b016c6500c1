"""How good a forecast was, always beside forecasts that know nothing. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from engine.data.bars import Bars
from engine.data.cuts import decision_slice
from models.features import Columns, Floats
from models.windows import labels_of

if TYPE_CHECKING:
    from models.forecaster import Forecaster

FORECAST_COLUMNS = ("time", "symbol", "forecast", "lower", "upper", "realised", "last_return")


def score(
    realised: Floats,
    forecast: Floats,
    lower: Floats,
    upper: Floats,
    *,
    last_return: Floats,
    train_mean: float,
    train_naive_mae: float,
    nominal_coverage: float = 0.8,
) -> dict[str, float | None]:
    """Scores of a forecast, and of three naive ones on the same rows: zero, the last return, the training mean.

    All arrays are [n] log returns over the same horizon. A row with a NaN in any of them is left out of everything.
    A figure that is not defined (no rows, or division by zero) is None.

    Args:
        realised: what came, y.
        forecast: what was expected, f.
        lower, upper: ends of the interval.
        last_return: the return over the horizon that ends at the decision bar.
        train_mean: mean label of the training span.
        train_naive_mae: mean |label| of the training span: the MAE there of "the price stays where it is".
        nominal_coverage: share of the realised returns that the interval should hold.

    Returns:
        n: rows scored.
        mae: mean |y - f|. rmse: sqrt(mean (y - f)^2).
        mase: mae / train_naive_mae (Hyndman & Koehler 2006, at the horizon); below 1 is better than no change.
        hit_rate_pct: share of the rows with y != 0 on which f has the sign of y; f = 0 is never a hit.
        always_up_pct: share of the same rows with y > 0: the hit rate of always expecting a rise.
        r2_out_of_sample: 1 - sum (y - f)^2 / sum y^2, against the *zero* forecast (Gu, Kelly & Xiu 2020).
        coverage_pct: share of rows with lower <= y <= upper. nominal_coverage_pct: what it should be.
        mae_zero, rmse_zero, mae_last_return, rmse_last_return, mase_last_return, hit_rate_last_return_pct,
        r2_out_of_sample_last_return, and the same five for train_mean, plus mase_zero: the naive forecasts' figures.
    """
    table = np.column_stack([realised, forecast, lower, upper, last_return]).astype(np.float64)
    table = table[~np.isnan(table).any(axis=1)]
    y, f, low, high, last = (np.ascontiguousarray(column) for column in table.T)
    figures: dict[str, float | None] = {"n": len(y)}
    figures |= _errors(y, f, train_naive_mae, "")
    figures["always_up_pct"] = _percent(y[y != 0.0] > 0.0)
    figures["coverage_pct"] = _percent((low <= y) & (y <= high))
    figures["nominal_coverage_pct"] = 100.0 * nominal_coverage
    zero = _errors(y, np.zeros_like(y), train_naive_mae, "_zero")
    # Its R2 is 0 and its hit rate is 0 by definition: they would only mislead.
    figures |= {name: zero[name] for name in ("mae_zero", "rmse_zero", "mase_zero")}
    figures |= _errors(y, last, train_naive_mae, "_last_return")
    figures |= _errors(y, np.full_like(y, train_mean), train_naive_mae, "_train_mean")
    return figures


def _errors(y: Floats, f: Floats, naive_mae: float, suffix: str) -> dict[str, float | None]:
    error = y - f
    mae = _mean(np.abs(error))
    squares, total = float(np.sum(error**2)), float(np.sum(y**2))
    moved = y != 0.0
    return {
        f"mae{suffix}": mae,
        f"rmse{suffix}": None if len(y) == 0 else float(np.sqrt(squares / len(y))),
        f"mase{suffix}": None if mae is None or naive_mae <= 0.0 else mae / naive_mae,
        f"hit_rate{suffix}_pct": _percent(np.sign(f[moved]) == np.sign(y[moved])),
        f"r2_out_of_sample{suffix}": 1.0 - squares / total if total > 0.0 else None,
    }


def _mean(values: Floats) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _percent(hits: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float | None:
    return 100.0 * float(np.mean(hits)) if len(hits) else None


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
        ends at the decision bar, NaN in a symbol's first bars).
    """
    parts = []
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
        parts.append(part if bars.inside is None else part[bars.inside[symbol][decisions]])
    return pd.concat(parts, ignore_index=True)


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
