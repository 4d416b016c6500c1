"""What a frame of bars must be before it enters the program. Nothing is mended here: a bad frame is an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS
from engine.data.cleaning.bar_faults import described, sound
from engine.errors import DataError

PRICES = COLUMNS[:4]

_CANONICAL = pd.DatetimeTZDtype("ns", "UTC")


def validated(
    frame: pd.DataFrame, *, symbol: str, origin: str, rows: Sequence[int] | np.ndarray | None = None
) -> pd.DataFrame:
    """The frame in canonical form: float64 columns ``COLUMNS``, a UTC nanosecond index named ``time``.

    Other columns are left out; no value is changed and no row is dropped.

    Args:
        frame: one symbol's bars, indexed by bar end, with a time zone.
        symbol: named in errors.
        origin: the file or sample that the frame comes from, named in errors.
        rows: the row of the file that each bar stands in, for errors; where there is no file, the time is named.

    Raises:
        DataError: fewer than two bars; missing or repeated columns; times that are missing, without a zone, unsorted
            or repeated; values that are missing, not numbers or infinite; prices that are zero or negative; a
            negative volume; a high below the low; an open or close outside of them. Names the first such row.
    """
    where = f"{origin}, {symbol}"
    rows = [] if rows is None else rows
    check_columns(frame, where)
    check_enough(len(frame), where)
    time = utc_times(frame.index, where, rows)
    _check_increasing(time, where, rows)
    values = numbers(frame, time, where, rows)
    bad = ~sound(values)
    if bad.any():
        position = int(np.argmax(bad))
        fault = described(values[:, position])
        raise DataError(f"{place(where, rows, position, time)}: {fault}; correct or remove the row")
    # Without the frequency that pandas may have inferred, which would make equal bars differ.
    index = pd.DatetimeIndex(time.asi8, dtype=_CANONICAL, name="time")
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)), index=index, dtype=np.float64)


def check_columns(frame: pd.DataFrame, where: str) -> None:
    """Check that a frame has each of ``COLUMNS`` once.

    Raises:
        DataError: one is missing, or there more than once.
    """
    columns = list(frame.columns)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{where}: no column for {', '.join(missing)}; found {', '.join(map(str, columns)) or 'no columns'}; "
            "add it, or name it in data.columns"
        )
    repeated = [name for name in COLUMNS if columns.count(name) > 1]
    if repeated:
        raise DataError(
            f"{where}: more than one column for {', '.join(repeated)}; keep one, or name it in data.columns"
        )


def check_enough(count: int, where: str, *, dropped: int = 0) -> None:
    """Check that there are bars to go from one to the next.

    Raises:
        DataError: fewer than two are there, or left of those that were there before some were dropped.
    """
    if count < 2:
        after = f" after {dropped} were dropped" if dropped else ""
        raise DataError(f"{where}: at least two bars are needed, found {count}{after}; give a longer history")


def utc_times(index: pd.Index, where: str, rows: Sequence[int] | np.ndarray) -> pd.DatetimeIndex:
    """The index in UTC nanoseconds, in its own order.

    Raises:
        DataError: it holds no times, or times that are missing, without a zone, or beyond the reach of nanoseconds.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise DataError(f"{where}: the bars must be indexed by time, found {index.dtype}")
    if index.dtype == _CANONICAL and not (len(index) and index.asi8.min() == pd.NaT.value):
        return index
    if index.tz is None:
        raise DataError(f"{where}: times without a zone; write them with their offset, or set data.timezone")
    absent = np.asarray(index.isna())
    if absent.any():
        raise DataError(f"{place(where, rows, int(np.argmax(absent)), None)}: the time is missing; add it")
    try:
        time = index.tz_convert("UTC").as_unit("ns")
    except (pd.errors.OutOfBoundsDatetime, OverflowError):
        raise DataError(
            f"{where}: a time is beyond the years 1678 to 2261, found {index.min()} to {index.max()}; correct it"
        ) from None
    return time


def numbers(frame: pd.DataFrame, time: pd.DatetimeIndex, where: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """The values of ``COLUMNS`` as float64 ``[5, bars]``, NaN where one is missing.

    Raises:
        DataError: a value that is no number.
    """
    values = np.empty((len(COLUMNS), len(frame)))
    for row, name in zip(values, COLUMNS, strict=True):
        row[:] = _numbers(frame[name])
        is_text = np.isnan(row) & frame[name].notna().to_numpy()
        if is_text.any():
            position = int(np.argmax(is_text))
            raise DataError(
                f"{place(where, rows, position, time)}: the {name} is not a number, found "
                f"'{frame[name].iloc[position]}'; correct or remove the row"
            )
    return values


def _check_increasing(time: pd.DatetimeIndex, where: str, rows: Sequence[int] | np.ndarray) -> None:
    steps = np.diff(time.asi8)
    if (steps <= 0).any():
        position = int(np.argmax(steps <= 0)) + 1
        problem = "the same time as the bar before it" if steps[position - 1] == 0 else "earlier than the bar before it"
        raise DataError(f"{place(where, rows, position, time)}: {problem}; sort the bars by time, one bar a time")


def _numbers(column: pd.Series) -> np.ndarray:
    """The column as float64, NaN where a value is missing or is no number."""
    if pd.api.types.is_bool_dtype(column.dtype) or not (
        pd.api.types.is_numeric_dtype(column.dtype)
        or pd.api.types.is_object_dtype(column.dtype)
        or pd.api.types.is_string_dtype(column.dtype)
    ):
        return np.full(len(column), np.nan)
    if pd.api.types.is_complex_dtype(column.dtype):
        return np.full(len(column), np.nan)
    numbers = pd.to_numeric(column, errors="coerce")
    return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan))


def place(where: str, rows: Sequence[int] | np.ndarray, position: int, time: pd.DatetimeIndex | None) -> str:
    """Which bar: by its row where there is a file, and by its time where it has one."""
    row = f", row {rows[position]}" if len(rows) else f", bar {position + 1}"
    return f"{where}{row}" if time is None else f"{where}{row} ({time[position]:%Y-%m-%d %H:%M} UTC)"
