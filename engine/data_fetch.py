"""The use cases behind ``nextbar data fetch`` and ``nextbar data list``: bars into the cache, and what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.data.cache.fetching import refresh, shelf_of
from engine.data.cache.imports import import_files
from engine.data.cache.manifest import Entry
from engine.data.cache.places import cache_folder
from engine.data.cache.shelves import Shelf, shelves
from engine.data.sources import asked_for, network_source
from engine.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class FetchedSymbol:
    """What a fetch did for one symbol.

    Attributes:
        rows, first, last: the bars that the cache has now, and the ends of the first and last one, UTC.
        before: bars that were there.
        fetched: bars that were read from the source, those that were looked at again included.
        changed: the source's history had changed, and was fetched anew.
        sha256: over the bars; the same bars have the same one, however often they were fetched.
    """

    rows: int
    first: str | None
    last: str | None
    before: int
    fetched: int
    changed: bool
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """A fetch that has ended.

    Attributes:
        folder: where the bars lie.
        symbols: what was done for each.
        missing: symbols of which the source has less than two bars.
    """

    folder: Path
    source: str
    timeframe: str
    symbols: Mapping[str, FetchedSymbol]
    missing: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Over all symbols and their bars."""
        lines = [f"{symbol} {done.sha256}\n" for symbol, done in sorted(self.symbols.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def exit_code(self) -> int:
        """That of a ``DataError`` where bars are missing, else 0."""
        return DataError.exit_code if self.missing else 0

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON-ready object."""
        return {
            "status": "incomplete" if self.missing else "ok",
            "folder": str(self.folder),
            "source": self.source,
            "timeframe": self.timeframe,
            "sha256": self.sha256,
            "missing": list(self.missing),
            "symbols": {symbol: asdict(done) for symbol, done in self.symbols.items()},
        }


def fetch_data(
    config: RunConfig,
    *,
    root: Path = Path(),
    now: datetime,
    on_progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> FetchReport:
    """Brings the cache up to date with the bars that the run file needs, and looks at its newest ones again.

    Args:
        root: the folder that holds ``cache/``.
        now: the moment that is written beside bars of files; sources on the network have their own clock.
        on_progress: called with how many symbols are done, of how many.
        on_wait: called when another process fetches the same bars, whose end is waited for.

    Raises:
        ConfigError: the run file cannot be used, or names a source that needs no fetching.
        DataError: files are malformed; a source on the network answers with what are no bars.
        BrokerError: Alpaca refused, failed or was not reached. What was complete before is in the cache.
        StorageError: the cache cannot be written.
    """
    cache = cache_folder(root)
    data, _ = asked_for(config.data, config.folder, within=config.spans.extent)
    source = network_source(data, config.folder)
    if data.source == "files":
        shelf, entries, there = import_files(data, config.folder, cache, fetched=now.isoformat())
        done = {
            symbol: _told(entry, before=entry.rows if there else 0, fetched=0 if there else entry.rows)
            for symbol, entry in sorted(entries.items())
        }
    elif source is not None and data.start is not None:
        until = config.spans.extent[1]
        outcomes = refresh(
            source,
            data.symbols,
            start=data.start,
            until=until,
            cache=cache,
            recheck=True,
            on_progress=on_progress,
            on_wait=on_wait,
        )
        shelf = shelf_of(source, cache)
        done = {
            symbol: _told(outcome.entry, before=outcome.before, fetched=outcome.fetched, changed=outcome.changed)
            for symbol, outcome in outcomes.items()
        }
    else:
        raise ConfigError(
            f"data.source: {data.source} comes with an installed package, and there is nothing to fetch; use it as it "
            "is, or name source: files, alpaca or yahoo"
        )
    return FetchReport(
        folder=shelf.folder,
        source=data.source,
        timeframe=shelf.timeframe,
        symbols=done,
        missing=tuple(symbol for symbol, one in done.items() if one.rows < 2),
    )


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What one shelf of the cache holds.

    Attributes:
        words: where its bars come from: a feed, or a path.
        size_bytes: on the disk.
        symbols: what is there of each; see ``manifest.Entry``.
    """

    folder: Path
    source: str
    variant: str
    timeframe: str
    words: str
    size_bytes: int
    symbols: Mapping[str, Entry]

    def to_json(self) -> dict[str, Any]:
        """The holding as one JSON-ready object."""
        kept = ("asked", "fetched", "rows", "first", "last", "sha256")
        return {
            "folder": str(self.folder),
            "source": self.source,
            "variant": self.variant,
            "timeframe": self.timeframe,
            "words": self.words,
            "size_bytes": self.size_bytes,
            "symbols": {s: {name: getattr(e, name) for name in kept} for s, e in self.symbols.items()},
        }


def list_data(*, root: Path = Path()) -> list[Holding]:
    """What the cache holds, by source, variant and timeframe.

    Raises:
        StorageError: it cannot be read.
    """
    return [_holding(shelf) for shelf in shelves(cache_folder(root))]


def _holding(shelf: Shelf) -> Holding:
    manifest = shelf.manifest()
    return Holding(
        folder=shelf.folder,
        source=shelf.source,
        variant=shelf.variant,
        timeframe=shelf.timeframe,
        words=str(manifest.about.get("path") or manifest.about.get("words") or ""),
        size_bytes=sum(path.stat().st_size for path in shelf.folder.iterdir() if path.is_file()),
        symbols=manifest.entries,
    )


def _told(entry: Entry | None, *, before: int, fetched: int, changed: bool = False) -> FetchedSymbol:
    return FetchedSymbol(
        rows=0 if entry is None else entry.rows,
        first=None if entry is None else entry.first,
        last=None if entry is None else entry.last,
        before=before,
        fetched=fetched,
        changed=changed,
        sha256=None if entry is None else entry.sha256,
    )
