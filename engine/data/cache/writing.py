"""Writing to a shelf of the cache: one process at a time, and each step whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS
from engine.data.cache.manifest import Entry, Manifest, Piece
from engine.data.cache.segments import (
    MOST_ROWS,
    PARTIAL,
    SUFFIX,
    DamagedError,
    Place,
    Rows,
    read_segment,
    write_segment,
)
from engine.data.cache.shelves import ACTIONS, LOCK, Series, Shelf, stored
from engine.data.timeframes import is_intraday

# So many segments of less than so many rows are put together with the next ones that are written.
_MOST_SMALL = 32
_SMALL_ROWS = MOST_ROWS // 20


@contextmanager
def writing(shelf: Shelf, on_wait: Callable[[], None] = lambda: None) -> Iterator[Writer]:
    """The right to write to a shelf, which one process has at a time; files that nothing refers to are removed.

    Args:
        on_wait: called where another process has it, before waiting for that to end.

    Raises:
        StorageError: the folder cannot be written to.
    """
    lock = _locked(shelf, on_wait)
    try:
        writer = Writer(shelf)
        writer.tidy()
        yield writer
    finally:
        os.close(lock)


def _locked(shelf: Shelf, on_wait: Callable[[], None]) -> int:
    """The lock of a shelf, held; of one that was removed while it was waited for, the new one's."""
    while True:
        with stored(shelf.folder, "written"):
            shelf.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(shelf.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            with stored(shelf.folder, "locked"):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_wait()
                    fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(shelf.folder / LOCK)):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


class Writer:
    """Writes to a shelf; given by ``writing``. What a call has written stays, whatever happens after it."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def put(self, series: Mapping[str, Series], *, about: Mapping[str, Any], alone: bool = False) -> dict[str, Entry]:
        """Puts these series in the place of what was there of their symbols; other symbols stay as they are.

        Args:
            about: what all series of the shelf have in common: it replaces what was there.
            alone: other symbols go.

        Returns:
            What the manifest says of them now.

        Raises:
            StorageError: it could not be written; what was there before is there still.
        """
        before = self.shelf.manifest()
        stock = _Stock(self.shelf, before, keep=lambda symbol: not alone and symbol not in series)
        drafts = {symbol: stock.draft(symbol, one) for symbol, one in series.items()}
        stock.carry()
        with stored(self.shelf.folder, "written"):
            stock.write()
            entries = {s: stock.settled(e) for s, e in {**({} if alone else before.entries), **drafts}.items()}
            after = Manifest(about=dict(about), entries=dict(sorted(entries.items())))
            sizes = {segment: stock.sizes[segment] for segment in sorted(after.segments())}
            replace(after, sizes=sizes).write(self.shelf.folder)
        self.tidy()
        return {symbol: entries[symbol] for symbol in series}

    def tidy(self) -> None:
        """Removes segments that nothing refers to, and what killed writers left half-written."""
        with stored(self.shelf.folder, "written"):
            used = self.shelf.manifest().segments()
            for path in self.shelf.folder.iterdir():
                if path.name.endswith(PARTIAL) or (path.suffix == SUFFIX and path.name not in used):
                    path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the shelf."""
        with stored(self.shelf.folder, "removed"):
            shutil.rmtree(self.shelf.folder)


class _Stock:
    """The parts that one ``put`` has to write, and where each of them came to lie."""

    def __init__(self, shelf: Shelf, before: Manifest, *, keep: Callable[[str], bool]) -> None:
        self._shelf = shelf
        self._before = before
        self._kept = {symbol: entry for symbol, entry in before.entries.items() if keep(symbol)}
        self._parts: dict[tuple[str, ...], list[tuple[Place, Rows]]] = {}
        self._moved: dict[Place, Place] = {}
        self.sizes = dict(before.sizes)

    def draft(self, symbol: str, series: Series) -> Entry:
        """The entry of a series, whose new parts do not lie anywhere yet."""
        columns = (*COLUMNS, *series.extra)
        extra = [np.asarray(values, dtype=np.float64) for values in series.extra.values()]
        old = self._before.entries.get(symbol)
        known = {p.sha256: p for p in old.pieces if p.place.segment in self._shelf.sound} if old else {}
        pieces = []
        for rows in _pieces(symbol, series.frame, extra, yearly=is_intraday(self._shelf.timeframe)):
            digest = rows.digest()
            pieces.append(known.get(digest) or self._new(rows, columns, digest))
        actions = None
        if series.actions is not None and len(series.actions):
            rows = _rows(symbol, series.actions, ACTIONS)
            actions = self._new(rows, ACTIONS, rows.digest())
        times = pd.DatetimeIndex(series.frame.index)
        return Entry(
            asked=series.asked,
            fetched=series.fetched,
            rows=len(times),
            first=times.min().isoformat() if len(times) else None,
            last=times.max().isoformat() if len(times) else None,
            sha256=hashlib.sha256("|".join(piece.sha256 for piece in pieces).encode()).hexdigest(),
            pieces=tuple(pieces),
            actions=actions,
            tells_actions=series.actions is not None,
            origin=series.origin,
        )

    def _new(self, rows: Rows, columns: tuple[str, ...], digest: str) -> Piece:
        parts = self._parts.setdefault(columns, [])
        draft = Place(segment=" ".join(columns), start=len(parts), count=len(rows.times))
        parts.append((draft, rows))
        return Piece(place=draft, first=int(rows.times.min()), last=int(rows.times.max()), sha256=digest)

    def carry(self) -> None:
        """Takes along what is left in segments that are mostly out of use, and in small ones where there are many."""
        live: dict[str, int] = {}
        for entry in self._kept.values():
            for place in entry.places():
                live[place.segment] = live.get(place.segment, 0) + place.count
        small = {segment for segment, count in live.items() if count < _SMALL_ROWS}
        taken = {segment for segment, count in live.items() if 2 * count < self._before.sizes[segment]}
        taken |= small if len(small) > _MOST_SMALL else set()
        wanted: dict[str, dict[tuple[str, Place], Place]] = {segment: {} for segment in taken}
        for symbol, entry in self._kept.items():
            for place in entry.places():
                if place.segment in wanted:
                    wanted[place.segment][symbol, place] = place
        for segment, places in wanted.items():
            try:
                frames = read_segment(self._shelf.folder / segment, places)
            except (DamagedError, OSError):
                continue  # it stays where it is, and whoever reads it hears of it
            for (symbol, place), found in frames.items():
                columns = (*map(str, found.frame.columns), *found.extra)
                rows = _rows(symbol, found.frame, columns[: found.frame.shape[1]], list(found.extra.values()))
                self._moved[place] = self._new(rows, columns, "").place

    def write(self) -> None:
        """Writes all parts, those of one kind together, in as few segments as their size allows."""
        for columns, parts in self._parts.items():
            for batch in _batches(parts):
                places = write_segment(self._shelf.folder, columns, [rows for _, rows in batch])
                self._shelf.sound.add(places[0].segment)
                self.sizes[places[0].segment] = sum(place.count for place in places)
                self._moved.update({draft: place for (draft, _), place in zip(batch, places, strict=True)})

    def settled(self, entry: Entry) -> Entry:
        """The entry with its parts where they lie now."""
        actions = entry.actions and self._settled(entry.actions)
        return replace(entry, pieces=tuple(map(self._settled, entry.pieces)), actions=actions)

    def _settled(self, piece: Piece) -> Piece:
        place = piece.place
        while place in self._moved:
            place = self._moved[place]
        return piece if place is piece.place else replace(piece, place=place)


def _rows(symbol: str, frame: pd.DataFrame, columns: Sequence[str], more: Sequence[np.ndarray] = ()) -> Rows:
    # Nearly always they are the frame's own, in order: to choose them anew would copy every frame.
    chosen = frame if tuple(frame.columns) == tuple(columns) else frame[list(columns)]
    values = chosen.to_numpy(dtype=np.float64).T
    times = pd.DatetimeIndex(frame.index).as_unit("ns").asi8
    return Rows(symbol=symbol, times=times, values=[*values, *more])


def _pieces(symbol: str, frame: pd.DataFrame, more: Sequence[np.ndarray], *, yearly: bool) -> Iterator[Rows]:
    """The series in one piece, or, where it is ``yearly`` and in order, in one for each calendar year (UTC)."""
    whole = _rows(symbol, frame, COLUMNS, more)
    cuts = np.empty(0, dtype=np.int64)
    if yearly and len(whole.times) and (np.diff(whole.times) >= 0).all():
        years = np.asarray(pd.DatetimeIndex(frame.index).year)
        cuts = np.flatnonzero(np.diff(years)) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(whole.times)], strict=True):
        if stop > start:
            yield Rows(symbol=symbol, times=whole.times[start:stop], values=[v[start:stop] for v in whole.values])


def _batches(parts: Sequence[tuple[Place, Rows]]) -> Iterator[list[tuple[Place, Rows]]]:
    """The parts, cut where a segment would have more rows than it should."""
    batch: list[tuple[Place, Rows]] = []
    total = 0
    for part in parts:
        if batch and total + part[0].count > MOST_ROWS:
            yield batch
            batch, total = [], 0
        batch.append(part)
        total += part[0].count
    if batch:
        yield batch
