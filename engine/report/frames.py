"""The columns of a run's frames: one list a frame, so that what is written is what is read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from engine.errors import DataError

Kind = Literal["time", "text", "number", "count", "flag"]

EQUITY: Mapping[str, Kind] = {
    "equity": "number",
    "cash": "number",
    "gross_exposure": "number",
    "buy_and_hold": "number",
    "benchmark": "number",
}
ORDERS: Mapping[str, Kind] = {
    "order_id": "count",
    "time": "time",
    "symbol": "text",
    "side": "text",
    "quantity": "number",
    "type": "text",
    "limit_price": "number",
    "stop_price": "number",
    "time_in_force": "text",
    "status": "text",
    "filled_quantity": "number",
    "reason": "text",
}
FILLS: Mapping[str, Kind] = {
    "order_id": "count",
    "decision_time": "time",
    "time": "time",
    "symbol": "text",
    "side": "text",
    "quantity": "number",
    "price": "number",
    "commission": "number",
    "slippage": "number",
}
TRADES: Mapping[str, Kind] = {
    "symbol": "text",
    "side": "text",
    "entry_time": "time",
    "exit_time": "time",
    "quantity": "number",
    "entry_price": "number",
    "exit_price": "number",
    "pnl": "number",
    "return_pct": "number",
    "commission": "number",
    "bars": "count",
    "open": "flag",
}
FORECASTS: Mapping[str, Kind] = {
    "time": "time",
    "symbol": "text",
    "forecast": "number",
    "lower": "number",
    "upper": "number",
    "realised": "number",
    "last_return": "number",
    "in_sample": "flag",
}
FINDINGS: Mapping[str, Kind] = {
    "kind": "text",
    "symbol": "text",
    "time": "time",
    "last": "time",
    "count": "count",
    "action": "text",
    "size": "number",
    "detail": "text",
}
REPAIRS: Mapping[str, Kind] = {
    "time": "time",
    "symbol": "text",
    "column": "text",
    "before": "number",
    "after": "number",
    "rule": "text",
}
BARS: Mapping[str, Kind] = {
    "time": "time",
    "symbol": "text",
    "open": "number",
    "high": "number",
    "low": "number",
    "close": "number",
    "volume": "number",
}

_MAY_BE_ABSENT = frozenset({"buy_and_hold", "benchmark", "reason", "in_sample"})


def typed(frame: pd.DataFrame, columns: Mapping[str, Kind], *, name: str) -> pd.DataFrame:
    """The frame with exactly these columns, in this order and of these types, and a plain row number as index.

    An empty frame may come without columns; a curve that does not exist, a reason, or the in-sample mark may be
    left out and becomes NaN, the empty text, or false. Columns beyond the list are dropped.

    Raises:
        DataError: a column is missing, or holds what its type cannot be.
    """
    missing = [c for c in columns if c not in frame.columns and c not in _MAY_BE_ABSENT]
    if missing and len(frame):
        raise DataError(f"{name}: expected the columns {', '.join(columns)}; {', '.join(missing)} missing")
    result = {}
    for column, kind in columns.items():
        values = frame[column] if column in frame.columns else pd.Series([None] * len(frame), dtype=object)
        try:
            result[column] = _typed_column(values.reset_index(drop=True), kind)
        except (ValueError, TypeError) as error:
            raise DataError(f"{name}.{column}: expected a column of {kind} values, found {error}") from error
    return pd.DataFrame(result, columns=list(columns))


def typed_equity(frame: pd.DataFrame) -> pd.DataFrame:
    """The equity curves with their ``time`` index, UTC, strictly increasing.

    Raises:
        DataError: as :func:`typed`, or the times are not increasing.
    """
    index = pd.DatetimeIndex(frame.index, name="time")
    if index.tz is None:
        raise DataError("equity: times are UTC-aware, found times without a zone")
    if not (index.is_monotonic_increasing and index.is_unique):
        raise DataError("equity: times must increase strictly, found unsorted or repeated times")
    return typed(frame, EQUITY, name="equity").set_index(index.tz_convert("UTC").as_unit("ns"))


def _typed_column(values: pd.Series, kind: Kind) -> pd.Series:
    if kind == "time":
        return pd.Series(pd.to_datetime(values, utc=True).dt.as_unit("ns"))
    if kind == "text":
        return values.astype(object).where(values.notna(), "").astype("str")
    if kind == "count":
        return values.astype("int64")
    return values.astype("bool") if kind == "flag" else values.astype("float64")
