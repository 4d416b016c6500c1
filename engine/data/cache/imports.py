"""Files in the cache: ``nextbar data fetch`` keeps what was read from them, while they and their reader are the same.

The key is a hash of the files' contents, of the settings that say how to read them, and of the code that reads them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.config import ALL, DataConfig
from engine.data.cache.manifest import Entry
from engine.data.cache.shelves import Series, Shelf, shelves
from engine.data.cache.writing import writing
from engine.data.files.reading import read_files
from engine.data.files.tables import suffix_of
from engine.data.raw import Raw
from engine.errors import DataError
from engine.sections import digest, dump

SOURCE = "files"

# Settings that change nothing of what is read. All others are part of the key.
_UNREAD = ("symbols", "universe", "cleaning", "benchmark", "slower", "warmup_bars")
_BY_SYMBOL = ("frames", "rows", "origins", "actions", "adjusted_closes")
_PARTITION = re.compile(r"\w+=.+")


def read_imported(data: DataConfig, folder: Path, cache: Path) -> Raw | None:
    """What ``read_files`` would read, from the cache; None where it is not there, or the files have changed since.

    Raises:
        StorageError: the cache cannot be read.
    """
    if data.path is None or not (cache / SOURCE).is_dir():
        return None
    key = _key(data, folder)
    if key is None:
        return None
    shelf = _shelf(data, cache, key)
    manifest = shelf.manifest()
    everything = data.symbols == (ALL,)
    symbols = sorted(manifest.entries if everything else data.symbols)
    if not symbols or not set(symbols) <= set(manifest.entries) or (everything and not manifest.about["all"]):
        return None
    found = shelf.read(symbols)
    return _raw(found, manifest.about) if len(found) == len(symbols) else None


def import_files(data: DataConfig, folder: Path, cache: Path, *, fetched: str) -> tuple[Shelf, dict[str, Entry], bool]:
    """Reads the files, and keeps what they hold in the cache; what they held when they were others is removed.

    Args:
        fetched: the present moment, UTC, in ISO 8601.

    Returns:
        The shelf, what it holds of the symbols, and whether it was there already.

    Raises:
        ConfigError, DataError: as ``read_files``.
        StorageError: the cache cannot be written.
    """
    key = _key(data, folder)
    known = read_imported(data, folder, cache)
    if key is not None and known is not None:
        shelf = _shelf(data, cache, key)
        entries = shelf.manifest().entries
        return shelf, {symbol: entries[symbol] for symbol in known.frames}, True
    raw = read_files(data, folder)
    if key is None or key != _key(data, folder):
        raise DataError(f"{folder / (data.path or '')}: it changed while it was read; try again once it is complete")
    shelf = _shelf(data, cache, key)
    about = {**_common(raw), **key, "all": data.symbols == (ALL,), "path": _path(data, folder)}
    with writing(shelf) as writer:
        entries = writer.put(_series(raw, fetched), about=about, alone=True)
    for other in shelves(cache):
        if other.source == SOURCE and other.folder != shelf.folder:
            told = other.manifest().about
            if told.get("path") == about["path"] and (told["files"], told["code"]) != (key["files"], key["code"]):
                with writing(other) as writer:
                    writer.remove()
    return shelf, entries, False


def _shelf(data: DataConfig, cache: Path, key: Mapping[str, str]) -> Shelf:
    return Shelf(root=cache, source=SOURCE, variant=digest(key)[:16], timeframe=data.base or data.timeframe)


def _path(data: DataConfig, folder: Path) -> str:
    return str((folder / (data.path or "")).absolute())


def _key(data: DataConfig, folder: Path) -> dict[str, str] | None:
    """Hashes of the files, of the settings and of the reader; None where a file cannot be read."""
    path = folder / (data.path or "")
    files = hashlib.sha256()
    there = [*_files(path)] if path.is_dir() else [path]
    if not all(file.is_file() and suffix_of(file) for file in there):
        return None  # a pipe or a device has no end
    try:
        for file in there:
            files.update(f"{file.relative_to(path)}\n{_sha256(file)}\n".encode())
    except OSError:
        return None
    settings = {name: value for name, value in dump(data).items() if name not in _UNREAD}
    return {"files": files.hexdigest(), "settings": digest(settings), "code": _code()}


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder that may be read, in the order of their names."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if _PARTITION.fullmatch(entry.name):
                yield from _files(entry)
        elif suffix_of(entry):
            yield entry


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _code() -> str:
    """Of the room in which files are read: another version of nextbar may read them otherwise."""
    sha = hashlib.sha256()
    room = Path(__file__).parent.parent
    for path in sorted([*room.glob("*.py"), *(room / "files").glob("*.py")]):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def _common(raw: Raw) -> dict[str, Any]:
    """What all symbols have in common, as JSON can keep it."""
    values = {f.name: getattr(raw, f.name) for f in fields(Raw) if f.name not in _BY_SYMBOL}
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}


def _series(raw: Raw, fetched: str) -> dict[str, Series]:
    series = {}
    for symbol, frame in raw.frames.items():
        extra = {"row": raw.rows[symbol].astype(np.float64)} if symbol in raw.rows else {}
        if symbol in raw.adjusted_closes:
            extra["adjusted_close"] = raw.adjusted_closes[symbol].to_numpy(dtype=np.float64)
        series[symbol] = Series(
            frame=frame,
            asked=None,
            fetched=fetched,
            extra=extra,
            actions=raw.actions.get(symbol),
            origin=raw.origins.get(symbol),
        )
    return series


def _raw(found: Mapping[str, Series], about: Mapping[str, Any]) -> Raw:
    known = {f.name for f in fields(Raw)}
    common: dict[str, Any] = {
        name: frozenset(v) if isinstance(v, list) else v for name, v in about.items() if name in known
    }
    return Raw(
        frames={symbol: series.frame for symbol, series in found.items()},
        rows={s: one.extra["row"].astype(np.int64) for s, one in found.items() if "row" in one.extra},
        origins={symbol: series.origin for symbol, series in found.items() if series.origin is not None},
        actions={symbol: series.actions for symbol, series in found.items() if series.actions is not None},
        adjusted_closes={
            symbol: pd.Series(series.extra["adjusted_close"], series.frame.index)
            for symbol, series in found.items()
            if "adjusted_close" in series.extra
        },
        **common,
    )
