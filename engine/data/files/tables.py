"""A CSV or Parquet file as arrays with canonical names, whatever its own columns are called."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from engine.data.bars import COLUMNS
from engine.data.files.columns import EXTRAS, recognised, shown
from engine.data.files.vendors import (
    PLAIN,
    YFINANCE,
    Layout,
    from_fixed_point,
    header_of_download,
    layout_of,
    without_header,
    written_numbers,
)
from engine.errors import ConfigError, DataError

SUFFIXES = (".csv", ".csv.gz", ".txt", ".txt.gz", ".tsv", ".tsv.gz", ".parquet", ".pq")

_LARGE = 100_000  # rows
_PARQUET = (".parquet", ".pq")
_PRICES = COLUMNS[:4]
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]
_SEPARATORS = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"\s*-?\d+,\d+\s*")
_SAMPLED_ROWS, _LONGEST_ROW = 50, 1 << 20
_LONGEST_NUMBER = 400  # as text; a float has at most so many digits, and longer ones cost time

# A column as float64, NaN where a value is missing or no number, and the text of those by position, if there are any.
_Numbers = tuple[np.ndarray, pd.Series | None]

# Text that repeats itself more often than bars ever do is no file of bars, and would fill the memory.
_GZIP_RATIO, _GZIP_FREE = 200, 1 << 28


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file's rows in its own order.

    Attributes:
        path: the file.
        layout: how its vendor writes.
        times: text, or datetimes; of a file with a column for the date and one for the time of day, both as text.
        symbols: None where the file has no column for the symbol.
        bars: float64 [columns, rows] in the order of ``COLUMNS``; NaN where a value is missing.
        extras: ``adjusted``, ``dividend``, ``split`` -> float64 [rows], those that the file has.
        text: column -> what stands in its place where it is no number, by position; the value is NaN there.
        rows: number of each row in the file: a CSV file's header is row 1, a Parquet file's first row is row 1.
    """

    path: Path
    layout: Layout
    times: pd.Series
    symbols: pd.Categorical | None
    bars: np.ndarray
    extras: Mapping[str, np.ndarray]
    text: Mapping[str, pd.Series]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def suffix_of(path: Path) -> str | None:
    """The one of ``SUFFIXES`` that a file's name ends in, if any; the longer of two."""
    name = path.name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=None)


def symbol_of(path: Path) -> str:
    """The symbol that a file of one symbol is named after: its name without ``.csv`` and the like."""
    return path.name[: -len(suffix_of(path) or "")] if suffix_of(path) else path.name


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> Table:
    """A file's rows.

    Args:
        path: a file with one of ``SUFFIXES``: text separated by commas, semicolons or tabs, or Parquet.
        columns: canonical name -> the file's name, for columns that are not recognised by themselves.

    Raises:
        DataError: the file cannot be read, or its columns cannot be told apart.
        ConfigError: ``columns`` names something that is not there.
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise ConfigError(f"data.path: {path} is not a CSV or Parquet file; expected one of {', '.join(SUFFIXES)}")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: it is no ordinary file; expected a CSV or Parquet file")
    try:
        return _read_parquet(path, columns) if suffix in _PARQUET else _read_text(path, columns)
    except FileNotFoundError:
        raise ConfigError(f"data.path: there is no file {path}; correct the path") from None
    except UnicodeError as error:
        reason = (
            f"{error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else _first_line(error)
        )
        raise DataError(f"{path}: not a text file in UTF-8 ({reason}); convert it") from None
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        reason = _first_line(error)
        raise DataError(f"{path}: the file could not be read ({reason}); check or replace it") from error


# --- text -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Dialect:
    separator: str
    decimal: str
    encoding: str


def _read_text(path: Path, columns: Mapping[str, str] | None) -> Table:
    dialect, sampled = _sampled(path)
    if not sampled:
        raise DataError(f"{path}: the file is empty; expected a header and one row a bar")
    layout, header, above = _headed(sampled, columns)
    positions = recognised(header, columns, layout, path)
    names = [f"#{position}" for position in range(len(header))]
    for name, position in positions.items():
        names[position] = name
    numeric = [name for name in positions if name in (*COLUMNS, *EXTRAS)]
    as_text = [name for name in positions if name not in numeric or layout.written]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=dialect.separator,
                decimal=dialect.decimal,
                header=0 if above == 1 else None,
                skiprows=above if above > 1 else 0,
                names=names,
                index_col=False,
                dtype=dict.fromkeys(as_text, str),
                keep_default_na=False,
                na_values=dict.fromkeys(numeric, _MISSING),
                skip_blank_lines=False,
                low_memory=False,
                encoding=dialect.encoding,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: the rows do not fit the header ({_first_line(error)}); correct the file") from None
    rows = np.arange(len(frame)) + above + 1
    blank = _blank(frame, list(positions))
    if blank.any():
        frame, rows = frame.loc[~blank], rows[~blank]
    values = ((name, _numbers(frame[name], layout)) for name in numeric)
    whole = all(pd.api.types.is_integer_dtype(frame[name].dtype) for name in _PRICES)
    times = frame["time"]
    if "date" in frame:
        times = frame["date"].astype(str) + " " + times.astype(str)
    symbols = pd.Categorical(frame["symbol"].where(frame["symbol"] != "")) if "symbol" in frame else None
    return _table(path, layout, times, symbols, values, rows, whole=whole)


def _headed(sampled: list[list[str]], columns: Mapping[str, str] | None) -> tuple[Layout, list[str], int]:
    """The layout, the columns' names, and how many rows stand above those of bars."""
    if columns is None and (bare := without_header(sampled)):
        return *bare, 0
    if columns is None and (header := header_of_download(sampled)):
        return YFINANCE if layout_of(header) is PLAIN else layout_of(header), header, 3
    return layout_of(sampled[0]), sampled[0], 1


def _sampled(path: Path) -> tuple[_Dialect, list[list[str]]]:
    """How a text file is written, and its first rows."""
    packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if packed else path.open("rb") as binary:
        start = binary.read(2)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if packed:
        _require_plausible_size(path)
    with (
        gzip.open(path) if packed else path.open("rb") as binary,
        io.TextIOWrapper(cast(BinaryIO, binary), encoding=encoding, newline="") as file,
    ):
        lines = [line for line in (file.readline(_LONGEST_ROW) for _ in range(_SAMPLED_ROWS)) if line]
    if not lines or not "".join(lines).strip():
        return _Dialect(",", ".", encoding), []
    separator = max(_SEPARATORS, key=lambda candidate: len(next(csv.reader(lines[:1], delimiter=candidate), [])))
    rows = list(csv.reader(lines, delimiter=separator))
    comma = separator == ";" and any(_DECIMAL_COMMA.fullmatch(value) for row in rows[1:] for value in row)
    return _Dialect(separator, "," if comma else ".", encoding), rows


def _require_plausible_size(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 4))
        unpacked = int.from_bytes(file.read(4), "little")
    if unpacked > _GZIP_FREE and unpacked > size * _GZIP_RATIO:
        raise DataError(f"{path}: {size} bytes unpack to {unpacked}, more than bars ever do; check or replace it")


def _blank(frame: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Lines with nothing in them: they are no rows, but they count."""
    empty = frame["time"].isin(["", None]).to_numpy(dtype=bool, copy=True)
    if empty.any():
        suspects = frame.loc[empty, names]
        empty[empty] = (suspects.isna() | (suspects == "")).all(axis=1).to_numpy(dtype=bool)
    return empty


# --- Parquet ----------------------------------------------------------------------------------------------------------


_TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_TIME_TYPES = (
    *_TEXT_TYPES,
    pa.types.is_date,
    pa.types.is_timestamp,
    pa.types.is_time,
    pa.types.is_integer,
    pa.types.is_null,
)


def _read_parquet(path: Path, columns: Mapping[str, str] | None) -> Table:
    with pyarrow.parquet.ParquetFile(path) as file:
        found = file.schema_arrow.names
        layout = layout_of(found)
        positions = recognised(found, columns, layout, path)
        wanted = [found[position] for position in positions.values()]
        distinct = len(set(found)) == len(found)
        large = distinct and file.metadata.num_rows > _LARGE
        table = None if large else file.read(columns=wanted if distinct else None)

        def column(name: str) -> Any:
            """Of a large file one at a time: the memory that it takes is that of its bars, not twice as much."""
            theirs = found[positions[name]]
            if table is None:
                return file.read(columns=[theirs]).column(0)
            return table.column(theirs if distinct else positions[name])

        times = _arrow_times(column("time"), path)
        if "date" in positions:
            times = _arrow_times(column("date"), path).astype(str) + " " + times.astype(str)
        return _table(
            path,
            layout,
            times,
            _arrow_symbols(column("symbol")) if "symbol" in positions else None,
            (
                (name, _arrow_numbers(column(name), name, layout, path))
                for name in positions
                if name in (*COLUMNS, *EXTRAS)
            ),
            np.arange(1, file.metadata.num_rows + 1),
            whole=all(pa.types.is_integer(file.schema_arrow.field(positions[name]).type) for name in _PRICES),
        )


def _arrow_numbers(column: Any, name: str, layout: Layout, path: Path) -> _Numbers:
    column = _decoded(column)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return column.cast(pa.float64(), safe=False).to_numpy(), None
    if any(known(kind) for known in _TEXT_TYPES):
        text = pd.Series(column.to_pandas())
        return _numbers(text.where(~text.isin(_MISSING)), layout)
    raise DataError(f"{path}: the column {name} holds {shown(kind)}, expected numbers; convert it")


def _decoded(column: Any) -> Any:
    """The column without a dictionary of its values, its text known to be in UTF-8."""
    column.validate(full=True)
    kind = column.type
    if not pa.types.is_dictionary(kind):
        return column
    return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], type=kind.value_type)


def _arrow_times(column: Any, path: Path) -> pd.Series:
    column = _decoded(column)
    kind = column.type
    if not any(known(kind) for known in _TIME_TYPES):
        raise DataError(f"{path}: the column of times holds {shown(kind)}, expected times or text; convert it")
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms"))
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))  # the same moments, whatever their zone is called
    return pd.Series(column.to_pandas(timestamp_as_object=False))


def _arrow_symbols(column: Any) -> pd.Categorical:
    column.validate(full=True)
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    symbols = pd.Categorical(column.unify_dictionaries().to_pandas()).remove_unused_categories()
    return symbols.rename_categories(str)


# --- both -------------------------------------------------------------------------------------------------------------


def _table(
    path: Path,
    layout: Layout,
    times: pd.Series,
    symbols: pd.Categorical | None,
    values: Iterable[tuple[str, _Numbers]],
    rows: np.ndarray,
    *,
    whole: bool,
) -> Table:
    bars, extras, text = np.empty((len(COLUMNS), len(rows))), {}, {}
    for name, (numbers, unread) in values:
        if name in COLUMNS:
            bars[COLUMNS.index(name)] = numbers
        else:
            extras[name] = numbers
        if unread is not None:
            text[name] = unread
    if layout.fixed_point and whole:
        bars[: len(_PRICES)] = from_fixed_point(bars[: len(_PRICES)])
    return Table(
        path=path,
        layout=layout,
        times=times,
        symbols=symbols,
        bars=bars,
        extras=extras,
        text=text,
        rows=rows,
    )


def _numbers(column: pd.Series, layout: Layout) -> _Numbers:
    if column.dtype == np.float64 or column.dtype == np.int64:
        return column.to_numpy(dtype=np.float64), None
    absent = column.isna().to_numpy(dtype=bool, copy=True)
    if pd.api.types.is_bool_dtype(column.dtype):
        numbers = np.full(len(column), np.nan)
    elif pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), None
    elif layout.written:
        numbers = written_numbers(column)
        absent |= column.isin(["-", "--"]).to_numpy(dtype=bool)
    else:
        short = column.where(column.astype(str).str.len() <= _LONGEST_NUMBER)
        numbers = pd.to_numeric(short, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(np.isnan(numbers) & ~absent)
    return numbers, pd.Series(column.to_numpy()[bad], index=bad) if len(bad) else None


def _first_line(error: BaseException) -> str:
    lines = (str(error) or type(error).__name__).strip().splitlines()
    return shown(lines[0] if lines else type(error).__name__, 160)
