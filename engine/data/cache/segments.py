"""Segments: immutable Parquet files that hold the rows of many series, each named by the hash of its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from engine.data.bars import COLUMNS

Key = TypeVar("Key", bound=Hashable)

SUFFIX = ".parquet"
PARTIAL = ".partial"

# Rows of a segment, unless one series alone has more: enough for 500 symbols of five years of days.
MOST_ROWS = 1_000_000

# A frame of bars has so many columns; others follow them.
_FRAME_COLUMNS = len(COLUMNS)

# Rows of a row group: what is read at the least for one symbol.
_GROUP_ROWS = 1 << 16


class DamagedError(Exception):
    """A segment's bytes are not those that were written; the text says which segment's."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a series, or a year of it, lies: a segment and the rows in it."""

    segment: str
    start: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one series as they are stored: UTC nanoseconds, and the float64 values of each column."""

    symbol: str
    times: np.ndarray
    values: Sequence[np.ndarray]

    def digest(self) -> str:
        """SHA-256 of times and values, to the bit."""
        sha = hashlib.sha256(np.ascontiguousarray(self.times, dtype="<i8").data)
        for column in self.values:
            sha.update(np.ascontiguousarray(column, dtype="<f8").data)
        return sha.hexdigest()


def write_segment(folder: Path, columns: Sequence[str], parts: Sequence[Rows]) -> list[Place]:
    """Writes the parts into one new segment, on the disk when this returns, and tells where each of them lies.

    Raises:
        OSError: it could not be written.
    """
    partial = folder / f"segment.{os.getpid()}{PARTIAL}"
    schema = pa.schema(
        [("symbol", pa.dictionary(pa.int32(), pa.string())), ("time", pa.timestamp("ns", tz="UTC"))]
        + [(name, pa.float64()) for name in columns]
    )
    try:
        with open(partial, "wb") as file:
            # Times and prices hardly repeat: dictionaries would cost more than they save.
            options = {"compression": "lz4", "use_dictionary": ["symbol"], "write_statistics": False}
            with pq.ParquetWriter(file, schema, **options) as writer:
                for group in _grouped(parts):
                    writer.write_table(_table(group, schema), row_group_size=_GROUP_ROWS)
            file.flush()
            os.fsync(file.fileno())
        with open(partial, "rb") as file:
            name = hashlib.file_digest(file, "sha256").hexdigest() + SUFFIX
        os.replace(partial, folder / name)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync(folder)
    counts = [len(part.times) for part in parts]
    starts = np.cumsum([0, *counts])
    return [Place(segment=name, start=int(s), count=n) for s, n in zip(starts, counts, strict=False)]


def _grouped(parts: Sequence[Rows]) -> Iterator[list[Rows]]:
    """The parts, so many together that they fill a row group: only those are copied at a time."""
    group: list[Rows] = []
    total = 0
    for part in parts:
        if group and total + len(part.times) > _GROUP_ROWS:
            yield group
            group, total = [], 0
        group.append(part)
        total += len(part.times)
    if group:
        yield group


def _table(parts: Sequence[Rows], schema: pa.Schema) -> pa.Table:
    counts = [len(part.times) for part in parts]
    symbols = pa.DictionaryArray.from_arrays(
        np.repeat(np.arange(len(parts), dtype=np.int32), counts), pa.array([part.symbol for part in parts], pa.string())
    )
    times = pa.array(np.concatenate([part.times for part in parts])).view(pa.timestamp("ns", tz="UTC"))
    # A NaN stays the NaN that it was: Arrow makes nulls of them only when it is asked to.
    values = [pa.array(np.concatenate(column)) for column in zip(*(part.values for part in parts), strict=True)]
    return pa.Table.from_arrays([symbols, times, *values], schema=schema)


def write_durably(path: Path, data: bytes) -> None:
    """All of the file, on the disk, or none of it: whoever looks sees the old one or the new one.

    Raises:
        OSError: it could not be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Stored:
    """Rows that were read: a frame of the segment's first columns, and what stands beside it, by name."""

    frame: pd.DataFrame
    extra: dict[str, np.ndarray]


def read_segment(path: Path, places: Mapping[Key, Place]) -> dict[Key, Stored]:
    """What lies at some places of one segment, by the keys that they are given; views of one block.

    Raises:
        FileNotFoundError: it is not there any more.
        DamagedError: its bytes are not those that its name tells.
        OSError: it could not be read.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() + SUFFIX != path.name:
        raise DamagedError(path.name)
    file = pq.ParquetFile(pa.BufferReader(data))
    groups, bounds = _groups(file, places.values())
    columns = [name for name in file.schema_arrow.names if name not in ("symbol", "time")]
    total = sum(int(bounds[group + 1] - bounds[group]) for group in groups)
    times, block = np.empty(total, dtype=np.int64), np.empty((len(columns), total))
    filled = 0
    for group in groups:
        table = file.read_row_group(group, columns=["time", *columns])
        there = slice(filled, filled + table.num_rows)
        times[there] = table["time"].combine_chunks().view(pa.int64()).to_numpy()
        for position, name in enumerate(columns):
            block[position, there] = table[name].to_numpy()
        filled += table.num_rows
    del data, file
    index = pd.DatetimeIndex(times, tz="UTC", name="time", copy=False)
    first = columns[:_FRAME_COLUMNS]
    frame = pd.DataFrame(block[: len(first)].T, index=index, columns=first, copy=False)
    # Where each row group begins in what was read; those that were not read take no room.
    read = np.zeros(len(bounds), dtype=np.int64)
    for group in groups:
        read[group + 1] = bounds[group + 1] - bounds[group]
    skipped = bounds - np.cumsum(read)
    group_of = np.searchsorted(bounds, [place.start for place in places.values()], side="right") - 1
    starts = [place.start - int(skipped[group]) for place, group in zip(places.values(), group_of, strict=True)]
    extra = list(enumerate(columns))[_FRAME_COLUMNS:]
    found = {}
    for (key, place), start in zip(places.items(), starts, strict=True):
        rows = slice(start, start + place.count)
        found[key] = Stored(frame.iloc[rows], {name: block[position, rows] for position, name in extra})
    return found


def _groups(file: pq.ParquetFile, places: Collection[Place]) -> tuple[list[int], np.ndarray]:
    """The row groups that hold the places, and the first row of each row group and of what follows the last."""
    metadata = file.metadata
    bounds = np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])
    needed: set[int] = set()
    for place in places:
        first = int(np.searchsorted(bounds, place.start, side="right")) - 1
        last = int(np.searchsorted(bounds, place.start + place.count, side="left"))
        needed.update(range(first, last))
    return sorted(needed), bounds
