"""Bars from CSV and Parquet files: one file, a long file with a symbol column, or a folder of either.

Columns are recognised by their usual names, in any case, or by the vendor's layout (see columns.py and vendors.py),
and times become bar ends in UTC (see times.py). Prices are taken as they are written; what the file says of splits,
dividends and adjusted closes goes beside them, and is used where the run file asks for it (see adjustment.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from engine.config import ALL, DataConfig
from engine.data.bars import COLUMNS
from engine.data.calendars import sessions_of
from engine.data.cleaning.session_fit import AMERICAN_ZONES
from engine.data.files.columns import SYMBOL_NAMES, shown
from engine.data.files.tables import SUFFIXES, Table, read_table, suffix_of, symbol_of
from engine.data.files.times import bar_ends, day_ends
from engine.data.files.vendors import Layout
from engine.data.raw import Raw
from engine.data.symbols import require_symbols
from engine.data.timeframes import is_intraday
from engine.errors import ConfigError, DataError

_BAR_COLUMNS = pd.Index(COLUMNS)
_SYMBOL = re.compile(r"[^\s,#?%]{1,32}")
_PARTITION = re.compile(r"(\w+)=(.+)")  # how Parquet data sets name a folder after what all of its rows have in common
_FACTORS = ("dividend", "split")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The rows of one symbol in one file; see ``Table``."""

    path: Path
    ends: pd.DatetimeIndex
    bars: np.ndarray
    extras: dict[str, np.ndarray]
    rows: np.ndarray
    layout: Layout


def read_files(data: DataConfig, folder: Path) -> Raw:
    """The whole history that ``data.path`` has of the asked-for symbols; other symbols are not looked at.

    Args:
        data: symbols, timeframe, path, columns, timezone, stamp, date_format and adjustment are used.
        folder: what a relative ``path`` is relative to.

    Raises:
        ConfigError: no path, or nothing there; an unknown symbol, column or zone; an adjustment that the file tells
            too little for.
        DataError: a file that cannot be read; names the file and the row.
    """
    if data.path is None:
        raise ConfigError(
            "data.path: required with source: files, and missing; name a CSV or Parquet file, or a folder"
        )
    path = folder / data.path
    parts = _of_folder(path, data) if path.is_dir() else _of_file(path, data, data.symbols)
    symbols = sorted(parts)
    adjustments = {part.layout.adjustment for symbol in symbols for part in parts[symbol]}
    if len(adjustments) > 1:
        raise DataError(
            f"{path}: some files are adjusted ({', '.join(sorted(adjustments))}) and others otherwise; read them in "
            "runs of their own, or leave some out"
        )
    joined = {symbol: _joined(parts[symbol]) for symbol in symbols}
    return Raw(
        frames={symbol: _frame(part) for symbol, part in joined.items()},
        timeframe=data.base or data.timeframe,
        adjustment=adjustments.pop(),
        source=data.source,
        rows={symbol: part.rows for symbol, part in joined.items() if len(parts[symbol]) == 1},
        origins={symbol: str(part.path) for symbol, part in joined.items()},
        actions={
            s: _actions(p, data.base or data.timeframe) for s, p in joined.items() if set(_FACTORS) & set(p.extras)
        },
        told=frozenset(_FACTORS).intersection(*(part.extras for part in joined.values())),
        adjusted_closes={
            s: pd.Series(p.extras["adjusted"], p.ends) for s, p in joined.items() if "adjusted" in p.extras
        },
        market=data.timezone is None or data.timezone in AMERICAN_ZONES,
        timezone=data.timezone,
        stamp=data.stamp or joined[symbols[0]].layout.stamp,
    )


def symbols_named_in(folder: Path) -> set[str]:
    """The symbols that the files of a folder are named after, if it holds one file a symbol."""
    return {symbol or symbol_of(path) for symbol, path in _files(folder)}


def _of_folder(folder: Path, data: DataConfig) -> dict[str, list[_Part]]:
    """The parts of each symbol: in the file named after it, or in all files, if they have a column for the symbol."""
    named: dict[str, list[Path]] = {}
    partitioned = set()
    for symbol, path in _files(folder):
        named.setdefault(symbol or symbol_of(path), []).append(path)
        partitioned.update([symbol] if symbol else [])
    if not named:
        raise ConfigError(f"data.path: {folder} holds no {', '.join(SUFFIXES)} file; correct the path")
    spelled = {symbol.casefold(): symbol for symbol in named}
    found = {symbol: symbol if symbol in named else spelled.get(symbol.casefold()) for symbol in data.symbols}
    first = next(iter(named.values()))[0]
    if data.symbols == (ALL,):
        found = {} if not partitioned and read_table(first, data.columns).symbols is not None else {s: s for s in named}
    elif None in found.values() and read_table(first, data.columns).symbols is None:
        require_symbols(data.symbols, named, where=f"the folder {shown(folder.name)}")
    if not found or None in found.values():
        return _of_long_files([path for paths in named.values() for path in paths], data, folder)
    parts: dict[str, list[_Part]] = {}
    for symbol, name in found.items():
        paths = named[str(name)]
        if len(paths) > 1 and name not in partitioned:
            names = " and ".join(shown(path.name) for path in paths)
            raise DataError(f"{folder}: {names} both name the symbol {shown(symbol)}; keep one of them")
        parts[symbol] = [part for path in paths for part in _of_file(path, data, (symbol,))[symbol]]
    return parts


def _files(folder: Path, symbol: str | None = None) -> Iterator[tuple[str | None, Path]]:
    """The files of a folder, in the order of their names, with the symbol where a folder is named after it."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: the folder could not be read ({error.strerror}); check it") from None
    for entry in entries:
        if entry.is_dir():
            if partition := _PARTITION.fullmatch(entry.name):
                inner = partition[2] if partition[1].lower() in SYMBOL_NAMES else symbol
                yield from _files(entry, inner)
        elif suffix_of(entry) and not entry.name.startswith((".", "_")):
            yield symbol, entry


def _of_long_files(paths: Sequence[Path], data: DataConfig, folder: Path) -> dict[str, list[_Part]]:
    parts: dict[str, list[_Part]] = {}
    for path in paths:
        table = read_table(path, data.columns)
        if table.symbols is None:
            raise DataError(
                f"{path}: no column for the symbol, unlike other files of the folder; add it, or name it in "
                "data.columns.symbol"
            )
        there = set(table.symbols.categories)
        asked = data.symbols if data.symbols == (ALL,) else tuple(s for s in data.symbols if s in there)
        for symbol, part in _split(table, data, asked).items():
            parts.setdefault(symbol, []).append(part)
    if data.symbols != (ALL,):
        require_symbols(data.symbols, parts, where=f"the folder {shown(folder.name)}")
    if not parts:
        raise DataError(f"{folder}: its files have no rows; expected one a bar")
    return parts


def _of_file(path: Path, data: DataConfig, asked: tuple[str, ...]) -> dict[str, list[_Part]]:
    """The rows of each symbol, in a file of one symbol or of many."""
    table = read_table(path, data.columns)
    if table.symbols is None:
        if len(asked) > 1:
            raise ConfigError(
                f"data.symbols: {shown(path.name)} has no column for the symbol and so holds one, found "
                f"{len(asked)} symbols; keep one, or name the column in data.columns.symbol"
            )
        symbol = symbol_of(path) if asked == (ALL,) else asked[0]
        _refuse_text(table, np.ones(len(table), dtype=bool), lambda position: symbol)
        return {symbol: [_part(table, _ends(table, data, lambda position: symbol), slice(None))]}
    if asked != (ALL,):
        require_symbols(asked, table.symbols.categories, where=shown(path.name))
    parts = {symbol: [part] for symbol, part in _split(table, data, asked).items()}
    if not parts:
        raise DataError(f"{path}: the file has no rows; expected one a bar")
    return parts


def _split(table: Table, data: DataConfig, asked: tuple[str, ...]) -> dict[str, _Part]:
    """The rows of each of the symbols asked for; without a copy where the file has them one symbol after the other."""
    if table.symbols is None or not len(table):
        return {}
    codes = table.symbols.codes
    names = list(table.symbols.categories)
    unnamed = (codes < 0) | np.isin(codes, [code for code, name in enumerate(names) if not str(name).strip()])
    if unnamed.any():
        row = table.rows[int(np.argmax(unnamed))]
        raise DataError(f"{table.path}, row {row}: the symbol is missing; add it or remove the row")
    if asked == (ALL,):
        for code, name in enumerate(names):
            readable = _SYMBOL.fullmatch(str(name)) and str(name).isprintable()
            if not readable and (codes == code).any():
                row = table.rows[int(np.argmax(codes == code))]
                raise DataError(
                    f"{table.path}, row {row}: {shown(name)!r} is no symbol; expected at most 32 letters, no space "
                    "and none of , # ? %"
                )
    wanted = set(asked)
    kept = np.isin(codes, [code for code, name in enumerate(names) if asked == (ALL,) or name in wanted])
    _refuse_text(table, kept, lambda position: str(names[codes[position]]))
    if not kept.all():
        table, codes = _taken(table, np.flatnonzero(kept)), codes[kept]
    if (np.diff(codes) < 0).any():
        order = np.argsort(codes, kind="stable")
        table, codes = _taken(table, order), codes[order]
    ends = _ends(table, data, lambda position: str(names[codes[position]]))
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    stops = [*starts[1:].tolist(), len(codes)]
    return {
        str(names[codes[start]]): _part(table, ends, slice(start, stop))
        for start, stop in zip(starts.tolist(), stops, strict=True)
    }


def _taken(table: Table, positions: np.ndarray) -> Table:
    """Some of a file's rows, or all of them in another order."""
    return replace(
        table,
        times=table.times.iloc[positions],
        bars=table.bars[:, positions],
        extras={name: values[positions] for name, values in table.extras.items()},
        rows=table.rows[positions],
    )


def _refuse_text(table: Table, kept: np.ndarray, symbol: Callable[[int], str]) -> None:
    """Raise for the first row asked for with text in the place of a number."""
    found = [
        (at, name, text)
        for name, texts in table.text.items()
        for at, text in zip(texts.index.to_numpy().tolist(), texts, strict=True)
        if kept[at]
    ]
    if found:
        at, name, text = min(found, key=lambda item: item[0])
        raise DataError(
            f"{table.path}, {shown(symbol(at))}, row {table.rows[at]}: the {name} is not a number, found "
            f"'{shown(text)}'; correct or remove the row"
        )


def _ends(table: Table, data: DataConfig, symbol: Callable[[int], str]) -> pd.DatetimeIndex:
    return bar_ends(
        table.times,
        data,
        table.layout,
        place=lambda position: f"{table.path}, {shown(symbol(position))}, row {table.rows[position]}",
        file=f"{table.path}, {shown(symbol(0))}",
    )


def _part(table: Table, ends: pd.DatetimeIndex, rows: slice) -> _Part:
    step = 1
    if table.layout.newest_first:
        own = ends[rows].asi8
        step = -1 if len(own) > 1 and bool((np.diff(own) <= 0).all()) else 1
    return _Part(
        path=table.path,
        ends=ends[rows][::step],
        bars=table.bars[:, rows][:, ::step],
        extras={name: values[rows][::step] for name, values in table.extras.items()},
        rows=table.rows[rows][::step],
        layout=table.layout,
    )


def _joined(parts: Sequence[_Part]) -> _Part:
    """The rows that a symbol has in several files, one file after the other."""
    if len(parts) == 1:
        return parts[0]
    shared = set.intersection(*(set(part.extras) for part in parts))
    return _Part(
        path=parts[0].path.parent,
        ends=pd.DatetimeIndex(np.concatenate([part.ends.asi8 for part in parts]), tz="UTC", name="time"),
        bars=np.concatenate([part.bars for part in parts], axis=1),
        extras={name: np.concatenate([part.extras[name] for part in parts]) for name in sorted(shared)},
        rows=np.concatenate([part.rows for part in parts]),
        layout=parts[0].layout,
    )


def _frame(part: _Part) -> pd.DataFrame:
    """The bars as a frame, a view of the file's arrays."""
    return pd.DataFrame(part.bars.T, columns=_BAR_COLUMNS, index=part.ends, copy=False)


def _actions(part: _Part, timeframe: str) -> pd.DataFrame:
    """The splits and dividends of a symbol; see ``Raw``. Their rows count even where the bar beside them does not."""
    none = np.full(len(part.rows), np.nan)
    split, dividend = part.extras.get("split", none), part.extras.get("dividend", none)
    split = np.where(np.isnan(split) | (split == 0.0), 1.0, split)
    dividend = np.where(np.isnan(dividend), 0.0, dividend)
    told = (split != 1.0) | (dividend != 0.0)
    ends = part.ends[told]
    times = day_ends(sessions_of(ends)) if is_intraday(timeframe) else ends
    found = pd.DataFrame({"split": split[told], "dividend": dividend[told]}, index=times.rename("time"))
    return found[~found.reset_index().duplicated().to_numpy()].sort_index(kind="stable")
