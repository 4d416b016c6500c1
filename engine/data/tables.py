"""A CSV or Parquet file as a table with canonical column names, whatever its own are called."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from engine.data.bars import COLUMNS
from engine.errors import ConfigError, DataError

SUFFIXES = (".csv", ".txt", ".parquet")

# Lower-case names by which a column is known; the first that a file has wins among the names of a symbol.
_TIME_NAMES = ("time", "timestamp", "datetime", "date")
_SYMBOL_NAMES = ("symbol", "ticker", "name")
_INDEX_NAMES = ("__index_level_0__", "")  # how pandas writes an index without a name
_MAPPABLE = ("time", "date", *COLUMNS, "symbol")
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The file's table: ``time``, the columns of bars that it has, and ``symbol`` where it has one.

    Args:
        path: a ``.csv``, ``.txt`` (comma-separated) or ``.parquet`` file.
        columns: canonical name -> the file's name, for columns that are not recognised by themselves.

    Returns:
        Values as the file has them, not yet checked; CSV times and symbols are text. The index is the number of the
        row in the file: a CSV file's header is row 1, a Parquet file's first row is row 1.

    Raises:
        DataError: the file cannot be read, or its columns cannot be told apart.
        ConfigError: ``columns`` names something that is not there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"data.path: {path} is not a CSV or Parquet file; expected one of {', '.join(SUFFIXES)}")
    try:
        table = _read_parquet(path, columns) if path.suffix.lower() == ".parquet" else _read_csv(path, columns)
    except FileNotFoundError:
        raise ConfigError(f"data.path: there is no file {path}; correct the path") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start}); convert it"
        ) from None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: the file could not be read ({_first_line(error)}); check or replace it") from error
    if "date" in table:
        table["time"] = table.pop("date").astype(str) + " " + table["time"].astype(str)
    return table


def _read_csv(path: Path, columns: Mapping[str, str] | None) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), None)
    if header is None:
        raise DataError(f"{path}: the file is empty; expected a header and one row a bar")
    positions = _recognised(header, columns, path)
    names = [f"#{position}" for position in range(len(header))]
    for name, position in positions.items():
        names[position] = name
    numeric = [name for name in positions if name in COLUMNS]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                header=0,
                names=names,
                index_col=False,
                dtype={name: str for name in positions if name not in numeric},
                keep_default_na=False,
                na_values=dict.fromkeys(numeric, _MISSING),
                skip_blank_lines=False,
                low_memory=False,
                encoding="utf-8-sig",
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(f"{path}: the rows do not fit the header ({_first_line(error)}); correct the file") from None
    table.index += 2
    blank = (table.isna() | (table == "")).all(axis=1)  # a line with nothing in it is no row, but it counts
    return table.loc[~blank, list(positions)]


def _read_parquet(path: Path, columns: Mapping[str, str] | None) -> pd.DataFrame:
    with pyarrow.parquet.ParquetFile(path) as file:
        found = file.schema_arrow.names
        positions = _recognised(found, columns, path)
        table = file.read(columns=[found[position] for position in positions.values()])
    # Without pandas' own metadata a stored index is a column like any other.
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    frame = frame[[found[position] for position in positions.values()]].set_axis(list(positions), axis="columns")
    frame.index += 1
    return frame


def _recognised(found: Sequence[str], columns: Mapping[str, str] | None, path: Path) -> dict[str, int]:
    """Canonical name -> position in the file, for each column that is known or mapped."""
    positions: dict[str, int] = {}
    for name, theirs in (columns or {}).items():
        if name not in _MAPPABLE:
            raise ConfigError(f"data.columns.{name}: unknown column; expected one of {', '.join(_MAPPABLE)}")
        if theirs not in found:
            raise ConfigError(f"data.columns.{name}: {path.name} has no column {theirs!r}; it has {', '.join(found)}")
        if found.count(theirs) > 1:
            raise DataError(f"{path}: {found.count(theirs)} columns are called {theirs!r}; rename all but one")
        positions[name] = found.index(theirs)
    mapped = set(positions.values())
    known: dict[str, list[int]] = {}
    for position, theirs in enumerate(found):
        if position not in mapped:
            known.setdefault(theirs.strip().lower(), []).append(position)

    def take(name: str, aliases: Sequence[str]) -> None:
        candidates = [position for alias in aliases for position in known.get(alias, [])]
        if len(candidates) > 1:
            raise DataError(
                f"{path}: {' and '.join(repr(found[c]) for c in candidates)} may all be the {name}; "
                f"say which in data.columns.{name}"
            )
        if candidates:
            positions[name] = candidates[0]

    for name in COLUMNS:
        if name not in positions:
            take(name, (name,))
    if "time" not in positions and "date" in positions:
        positions["time"] = positions.pop("date")
    elif "time" not in positions:
        if set(known) & set(_TIME_NAMES) == {"date", "time"}:
            take("date", ("date",))
            take("time", ("time",))
        else:
            take("time", _TIME_NAMES if set(known) & set(_TIME_NAMES) else _INDEX_NAMES)
    if "time" not in positions:
        raise DataError(
            f"{path}: no column for the time; expected one of {', '.join(_TIME_NAMES)}, found {', '.join(found)}; "
            "name it in data.columns.time"
        )
    missing = [name for name in COLUMNS if name not in positions]
    if missing:
        raise DataError(
            f"{path}: no column for {', '.join(missing)}; found {', '.join(found)}; add it, or name it in data.columns"
        )
    if "symbol" not in positions:
        take("symbol", [alias for alias in _SYMBOL_NAMES if alias in known][:1])
    return positions


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
