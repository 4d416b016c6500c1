"""What a shelf of the cache holds, as one JSON file that vouches for itself."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from engine.data.cache.segments import Place, write_durably

NAME = "manifest.json"
_VERSION = 1
_SEGMENT = re.compile(r"[0-9a-f]{64}\.parquet")

_log = logging.getLogger("nextbar.cache")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of one series: where it lies, its first and last bar (UTC ns), and the SHA-256 of its rows."""

    place: Place
    first: int
    last: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is there of one symbol.

    Attributes:
        asked: first and last New York date whose bars were asked for and have settled; None for what was imported.
        fetched: when, UTC.
        rows, first, last: bars, and the ends of the first and last one, UTC; None where there is none.
        sha256: over its pieces' hashes; two series with the same bars have the same one.
        pieces: in the order of the series: all of it, or a calendar year each.
        actions: splits and dividends; None where there are none.
        tells_actions: whether the source would tell them.
        origin: where the bars come from, in words; None for the source's name.
    """

    asked: tuple[date, date] | None
    fetched: str
    rows: int
    first: str | None
    last: str | None
    sha256: str
    pieces: tuple[Piece, ...]
    actions: Piece | None = None
    tells_actions: bool = False
    origin: str | None = None

    def places(self) -> Iterator[Place]:
        """All places that it refers to."""
        yield from (piece.place for piece in self.pieces)
        if self.actions is not None:
            yield self.actions.place


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A shelf's content.

    Attributes:
        about: what all its series have in common, such as the adjustment; see ``engine.data.cache.shelves``.
        entries: by symbol, sorted.
        sizes: the rows of each segment that it refers to, whether they are in use or not.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def segments(self) -> set[str]:
        """The segments that it refers to."""
        return {place.segment for entry in self.entries.values() for place in entry.places()}

    def write(self, folder: Path) -> None:
        """Puts it in the place of the one before it, in one step.

        Raises:
            OSError: it could not be written.
        """
        content = json.dumps(
            {
                "version": _VERSION,
                "about": self.about,
                "sizes": self.sizes,
                "entries": {s: asdict(e) for s, e in self.entries.items()},
            },
            default=date.isoformat,
            separators=(",", ":"),
        )
        write_durably(folder / NAME, f'{{"sha256":"{_sha256(content)}","content":{content}}}\n'.encode())


def read_manifest(folder: Path) -> Manifest:
    """The shelf's manifest; an empty one where there is none, or, with a notice, where it is damaged.

    Raises:
        OSError: it is there, and could not be read.
    """
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return Manifest()
    try:
        told, content = json.loads(data)["sha256"], data[data.index(b'"content":') + 10 : data.rindex(b"}")].decode()
        if told != _sha256(content):
            raise ValueError("its hash is another one")
        values = json.loads(content)
        if values["version"] != _VERSION:
            raise ValueError(f"it is of version {values['version']}")
        entries = {s: _entry(e) for s, e in values["entries"].items()}
        manifest = Manifest(about=values["about"], entries=entries, sizes=values["sizes"])
        _check(manifest)
        return manifest
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        _log.warning("%s cannot be used (%s); what it lists counts as absent", folder / NAME, problem)
        return Manifest()


def _check(manifest: Manifest) -> None:
    """Raise a ValueError for what no writer has written; a segment's name, above all, is no path."""
    if not isinstance(manifest.about, dict) or not manifest.segments() <= set(manifest.sizes):
        raise ValueError("it is not whole")
    for entry in manifest.entries.values():
        texts = (entry.fetched, entry.sha256, *(x for x in (entry.first, entry.last, entry.origin) if x is not None))
        if not all(isinstance(text, str) for text in texts) or not isinstance(entry.rows, int):
            raise ValueError("an entry is not whole")
        if sum(piece.place.count for piece in entry.pieces) != entry.rows:
            raise ValueError("an entry has other rows than its pieces")
        for place in entry.places():
            if not (_SEGMENT.fullmatch(place.segment) and place.start >= 0 and place.count >= 0):
                raise ValueError("a place is none")
            if place.start + place.count > manifest.sizes[place.segment]:
                raise ValueError("a place lies beyond its segment")


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _entry(values: dict[str, Any]) -> Entry:
    asked, actions = values["asked"], values["actions"]
    return Entry(
        **values
        | {
            "asked": None if asked is None else (date.fromisoformat(asked[0]), date.fromisoformat(asked[1])),
            "pieces": tuple(map(_piece, values["pieces"])),
            "actions": None if actions is None else _piece(actions),
        }
    )


def _piece(values: dict[str, Any]) -> Piece:
    return Piece(**values | {"place": Place(**values["place"])})
