"""How good a forecast was, always beside forecasts that know nothing. Pure functions on arrays."""

from __future__ import annotations

import numpy as np

from models.features import Floats


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
    figures |= errors_of(y, f, naive_mae=train_naive_mae)
    figures["always_up_pct"] = percent_of(y[y != 0.0] > 0.0)
    figures["coverage_pct"] = percent_of((low <= y) & (y <= high))
    figures["nominal_coverage_pct"] = 100.0 * nominal_coverage
    zero = errors_of(y, np.zeros_like(y), naive_mae=train_naive_mae, suffix="_zero")
    # Its R2 is 0 and its hit rate is 0 by definition: they would only mislead.
    figures |= {name: zero[name] for name in ("mae_zero", "rmse_zero", "mase_zero")}
    figures |= errors_of(y, last, naive_mae=train_naive_mae, suffix="_last_return")
    figures |= errors_of(y, np.full_like(y, train_mean), naive_mae=train_naive_mae, suffix="_train_mean")
    return figures


def errors_of(y: Floats, f: Floats, *, naive_mae: float, suffix: str = "") -> dict[str, float | None]:
    """mae, rmse, mase, hit_rate_pct and r2_out_of_sample as in ``score``, of rows that are all known."""
    error = y - f
    mae = _mean(np.abs(error))
    squares, total = float(np.sum(error**2)), float(np.sum(y**2))
    moved = y != 0.0
    return {
        f"mae{suffix}": mae,
        f"rmse{suffix}": None if len(y) == 0 else float(np.sqrt(squares / len(y))),
        f"mase{suffix}": None if mae is None or naive_mae <= 0.0 else mae / naive_mae,
        f"hit_rate{suffix}_pct": percent_of(np.sign(f[moved]) == np.sign(y[moved])),
        f"r2_out_of_sample{suffix}": 1.0 - squares / total if total > 0.0 else None,
    }


def _mean(values: Floats) -> float | None:
    return float(np.mean(values)) if len(values) else None


def percent_of(hits: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float | None:
    """The share that is true, in per cent; None of nothing."""
    return 100.0 * float(np.mean(hits)) if len(hits) else None
