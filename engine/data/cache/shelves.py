"""The cache: raw bars as their source gave them, before cleaning, so that a policy can change without fetching again.

A **shelf** is a folder for one source, variant (feed and adjustment; of files, what they hold and how they are read)
and timeframe. It holds a manifest, segments of many series each, and a lock. One process writes to a shelf at a time;
readers need no lock, since segments never change and the manifest is replaced in one step. A process that dies leaves
the manifest that was there before, and files that no manifest lists, which the next writer removes. Hashes are looked
at whenever something is read: a damaged series counts as absent, and is fetched again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS
from engine.data.cache.manifest import Entry, Manifest, read_manifest
from engine.data.cache.places import CACHE
from engine.data.cache.segments import SUFFIX, DamagedError, Place, Stored, read_segment
from engine.errors import StorageError

ACTIONS = ("split", "dividend")

LOCK = "lock"
_TRIES = 5

_log = logging.getLogger("nextbar.cache")


@dataclass(frozen=True, kw_only=True)
class Series:
    """The bars of one symbol as their source gave them.

    Attributes:
        frame, actions, origin: as in ``Raw``; None where there is none.
        extra: what stands beside each bar, as long as the frame, float64, by name: the row of its file, for one.
        asked: first and last New York date whose bars were asked for and have settled; None for what was imported.
        fetched: when, UTC, in ISO 8601.
    """

    frame: pd.DataFrame
    asked: tuple[date, date] | None
    fetched: str
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    actions: pd.DataFrame | None = None
    origin: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A folder of the cache; it need not be there yet.

    Attributes:
        source, variant, timeframe: what its bars are, and the names of its folder and the two above it.
        sound: segments whose bytes this process has seen to be what they were.
    """

    root: Path
    source: str
    variant: str
    timeframe: str
    sound: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.root / self.source / self.variant / self.timeframe

    def manifest(self) -> Manifest:
        """What is there.

        Raises:
            StorageError: it could not be read.
        """
        with stored(self.folder, "read"):
            return read_manifest(self.folder)

    def read(self, symbols: Collection[str], since: int | None = None, until: int | None = None) -> dict[str, Series]:
        """The series of those symbols that are there and sound, in the order of the symbols.

        Args:
            since, until: UTC ns; pieces without a bar between them are left out, so that of many years of minutes
                only those are read that are asked for. None for all.

        Raises:
            StorageError: a file could not be read.
        """
        for _ in range(_TRIES):
            entries = self.manifest().entries
            asked = {s: _between(entries[s], since, until) for s in symbols if s in entries}
            try:
                return self._read(asked)
            except FileNotFoundError:
                continue  # a writer has replaced it since: look again
        _log.warning("%s: segments that its manifest lists are missing; their bars count as absent", self.folder)
        there = {path.name for path in self.folder.glob(f"*{SUFFIX}")}
        return self._read({s: e for s, e in asked.items() if all(place.segment in there for place in e.places())})

    def _read(self, entries: Mapping[str, Entry]) -> dict[str, Series]:
        wanted: dict[str, dict[tuple[str, int], Place]] = {}
        for symbol, entry in entries.items():
            for number, place in enumerate(entry.places()):
                wanted.setdefault(place.segment, {})[symbol, number] = place
        frames: dict[tuple[str, int], Stored] = {}
        damaged: set[str] = set()
        for segment, places in wanted.items():
            try:
                with stored(self.folder, "read"):
                    frames.update(read_segment(self.folder / segment, places))
                self.sound.add(segment)
            except DamagedError:
                lost = sorted({symbol for symbol, _ in places})
                damaged.update(lost)
                _log.warning("%s is damaged; the bars of %s count as absent", self.folder / segment, ", ".join(lost))
        return {s: _series(s, e, frames) for s, e in entries.items() if s not in damaged}


def shelves(root: Path) -> list[Shelf]:
    """The shelves that are there, sorted."""
    found = sorted(path.parent for path in root.glob(f"*/*/*/{LOCK}"))
    return [Shelf(root=root, source=p.parent.parent.name, variant=p.parent.name, timeframe=p.name) for p in found]


@contextmanager
def stored(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if what == "read" and isinstance(error, FileNotFoundError):
            raise  # a writer may have replaced it
        raise StorageError(
            f"{folder}: the cache could not be {what} ({error.strerror or type(error).__name__}); make the folder "
            f"writable and the disk large enough, or name another folder in {CACHE}"
        ) from error


def _between(entry: Entry, since: int | None, until: int | None) -> Entry:
    """The entry without the pieces that lie wholly before or after the two moments."""
    if since is None and until is None:
        return entry
    pieces = tuple(
        piece
        for piece in entry.pieces
        if (since is None or piece.last >= since) and (until is None or piece.first <= until)
    )
    return replace(entry, pieces=pieces)


def _series(symbol: str, entry: Entry, frames: Mapping[tuple[str, int], Stored]) -> Series:
    parts = [frames[symbol, number] for number in range(len(entry.pieces))]
    if len(parts) == 1:
        frame, extra = parts[0].frame, parts[0].extra
    else:
        frame = pd.concat([part.frame for part in parts]) if parts else empty_frame()
        extra = {
            name: np.concatenate([part.extra[name] for part in parts]) for name in (parts[0].extra if parts else ())
        }
    actions = None
    if entry.actions is not None:
        actions = frames[symbol, len(entry.pieces)].frame
    elif entry.tells_actions:
        actions = empty_frame(ACTIONS)
    return Series(
        frame=frame,
        asked=entry.asked,
        fetched=entry.fetched,
        extra=extra,
        actions=actions,
        origin=entry.origin,
    )


def empty_frame(columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """A frame without a row, of the kind that ``Raw`` has."""
    index = pd.DatetimeIndex(np.empty(0, dtype=np.int64), tz="UTC", name="time")
    return pd.DataFrame(np.empty((0, len(columns))), index=index, columns=list(columns))
