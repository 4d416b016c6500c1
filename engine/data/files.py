"""Bars from CSV and Parquet files: one file, a long file with a symbol column, or a folder of one file a symbol.

Columns are recognised by their usual names, in any case (see tables.py), and times become bar ends in UTC (see
times.py). Prices are taken as they are written and reported as unadjusted; an adjusted close beside the close is not
used, since it would fit neither the open, high and low nor the volume.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from engine.config import ALL, DataConfig
from engine.data.raw import Raw
from engine.data.session_fit import AMERICAN_ZONES
from engine.data.symbols import require_symbols
from engine.data.tables import SUFFIXES, read_table
from engine.data.times import bar_ends
from engine.errors import ConfigError, DataError


def read_files(data: DataConfig, folder: Path) -> Raw:
    """The whole history that ``data.path`` has of the asked-for symbols; other symbols are not looked at.

    Args:
        data: symbols, timeframe, path, columns, timezone and stamp are used.
        folder: what a relative ``path`` is relative to.

    Raises:
        ConfigError: no path, or nothing there; an unknown symbol, column or zone.
        DataError: anything wrong with the bars; names the file and the row.
    """
    if data.path is None:
        raise ConfigError(
            "data.path: required with source: files, and missing; name a CSV or Parquet file, or a folder"
        )
    path = folder / data.path
    tables = _tables_of_folder(path, data) if path.is_dir() else _tables_of_file(path, data)
    frames, rows, origins = {}, {}, {}
    for symbol in sorted(tables):
        origin, table = tables[symbol]
        bars = table.drop(columns=["time", "symbol"], errors="ignore")
        bars.index = bar_ends(table["time"], data, where=f"{origin}, {symbol}")
        frames[symbol], rows[symbol], origins[symbol] = bars, table.index.to_numpy(), str(origin)
    return Raw(
        frames=frames,
        timeframe=data.base or data.timeframe,
        adjustment="none",
        source=data.source,
        rows=rows,
        origins=origins,
        market=data.timezone is None or data.timezone in AMERICAN_ZONES,
        timezone=data.timezone,
        stamp=data.stamp,
    )


def _tables_of_file(path: Path, data: DataConfig) -> dict[str, tuple[Path, pd.DataFrame]]:
    """The rows of each symbol, in a file of one symbol or of many."""
    table = read_table(path, data.columns)
    wanted = data.symbols
    if "symbol" not in table:
        if wanted == (ALL,):
            return {path.stem: (path, table)}
        if len(data.symbols) > 1:
            raise ConfigError(
                f"data.symbols: {path.name} has no column for the symbol and so holds one, found "
                f"{len(data.symbols)} symbols; keep one, or name the column in data.columns.symbol"
            )
        return {data.symbols[0]: (path, table)}
    unnamed = table["symbol"].isna() | (table["symbol"].astype(str) == "")
    if unnamed.any():
        raise DataError(f"{path}, row {table.index[unnamed][0]}: the symbol is missing; add it or remove the row")
    table["symbol"] = table["symbol"].astype(str)
    if wanted == (ALL,):
        wanted = tuple(table["symbol"].unique())
    require_symbols(wanted, table["symbol"].unique(), where=path.name)
    asked = table[table["symbol"].isin(wanted)]
    return {str(symbol): (path, rows) for symbol, rows in asked.groupby("symbol", sort=False)}


def _tables_of_folder(folder: Path, data: DataConfig) -> dict[str, tuple[Path, pd.DataFrame]]:
    """The file of each symbol, named after it."""
    paths: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            paths.setdefault(path.stem, []).append(path)
    wanted = tuple(paths) if data.symbols == (ALL,) else data.symbols
    if not wanted:
        raise ConfigError(f"data.path: {folder} holds no {', '.join(SUFFIXES)} file; correct the path")
    require_symbols(wanted, paths, where=f"the folder {folder.name}")
    tables = {}
    for symbol in wanted:
        if len(paths[symbol]) > 1:
            names = " and ".join(path.name for path in paths[symbol])
            raise DataError(f"{folder}: {names} both name the symbol {symbol}; keep one of them")
        path = paths[symbol][0]
        tables[symbol] = _tables_of_file(path, data.model_copy(update={"symbols": (symbol,)}))[symbol]
    return tables
