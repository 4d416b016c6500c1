"""Segments: immutable Parquet files that hold the rows of many series, each named by the hash of its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Hashable, Mapping, Sequence
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
    """Rows of one series as they are stored: UTC nanoseconds, and float64 values ``[columns, rows]``."""

    symbol: str
    times: np.ndarray
    values: np.ndarray

    def digest(self) -> str:
        """SHA-256 of times and values, to the bit."""
        sha = hashlib.sha256(np.ascontiguousarray(self.times, dtype="<i8").data)
        sha.update(np.ascontiguousarray(self.values, dtype="<f8").data)
        return sha.hexdigest()


def write_segment(folder: Path, columns: Sequence[str], parts: Sequence[Rows]) -> list[Place]:
    """Writes the parts into one new segment, on the disk when this returns, and tells where each of them lies.

    Raises:
        OSError: it could not be written.
    """
    counts = [len(part.times) for part in parts]
    symbols = pa.DictionaryArray.from_arrays(
        np.repeat(np.arange(len(parts), dtype=np.int32), counts), [part.symbol for part in parts]
    )
    times = pa.array(np.concatenate([part.times for part in parts])).view(pa.timestamp("ns", tz="UTC"))
    values = [np.concatenate([part.values[i] for part in parts]) for i in range(len(columns))]
    # A NaN stays the NaN that it was: Arrow makes nulls of them only when it is asked to.
    table = pa.table({"symbol": symbols, "time": times, **dict(zip(columns, map(pa.array, values), strict=True))})
    sink = pa.BufferOutputStream()
    # Times and prices hardly repeat: dictionaries would cost more than they save.
    pq.write_table(
        table, sink, row_group_size=_GROUP_ROWS, compression="lz4", use_dictionary=["symbol"], write_statistics=False
    )
    data = sink.getvalue()
    name = hashlib.sha256(data).hexdigest() + SUFFIX
    write_durably(folder / name, data)
    starts = np.cumsum([0, *counts])
    return [Place(segment=name, start=int(s), count=n) for s, n in zip(starts, counts, strict=False)]


def write_durably(path: Path, data: bytes | memoryview | pa.Buffer) -> None:
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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
    table = file.read_row_groups(groups, columns=["time", *columns])
    del data
    times = table["time"].combine_chunks().view(pa.int64()).to_numpy()
    block = np.empty((len(columns), table.num_rows))
    for position, name in enumerate(columns):
        filled = 0
        for chunk in table[name].chunks:
            block[position, filled : filled + len(chunk)] = chunk.to_numpy()
            filled += len(chunk)
    del table
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
