"""The file of a journal: its tables, how it is begun, whether it was, and its chain of checksums."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import DataError, StorageError

TABLES = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE log (entry INTEGER PRIMARY KEY AUTOINCREMENT, written INTEGER NOT NULL, kind TEXT NOT NULL, "
    "body TEXT NOT NULL, crc INTEGER NOT NULL)",
)
_PAGE = 4096  # bytes; what a database takes before it has a table
encoded = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def begin(path: Path, about: Mapping[str, Any]) -> None:
    """A journal with its tables and nothing in them, in one transaction, on the disk."""
    rows = {name: encoded(value) for name, value in about.items()}
    rows["crc"] = str(_seed_of(rows))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            connection.execute(table)
        connection.executemany("INSERT INTO about VALUES (?, ?)", rows.items())
        connection.execute("COMMIT")
    finally:
        connection.close()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def never_begun(path: Path) -> bool:
    """Whether there is no journal, or one whose process was killed while it made it.

    Raises:
        DataError: something is there, and no journal.
    """
    beside = path.with_name(f"{path.name}-wal")
    size = _size(path)
    if size == 0:
        if _size(beside):
            raise DataError(f"{path}: the journal is damaged (it is empty, {beside.name} is not); bring it back")
        return True
    with Read(path):
        # SQLite takes so short a file for an empty one, and throws away what is beside it.
        if size < 512 and not _size(path.with_name(f"{path.name}-journal")):
            raise ValueError(f"it has {size} bytes")
        connection = sqlite3.connect(path)
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
            if "about" not in tables:
                return not tables and path.stat().st_size <= _PAGE
            counted = [name for name in ("about", "log", "sqlite_sequence") if name in tables]
            return not any(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {t})").fetchone()[0] for t in counted)
        finally:
            connection.close()


def _size(path: Path) -> int:
    """Of a file, in bytes; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def reading(path: Path) -> tuple[sqlite3.Connection, tempfile.TemporaryDirectory[str] | None]:
    """A connection to read with; and the folder of a copy, where only a copy can be read.

    That is so for a file that was left in the middle of something, in a folder where SQLite may not put it right.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
    else:
        return connection, None
    copy = tempfile.TemporaryDirectory(prefix="nextbar-")
    for ending in ("", "-wal", "-journal"):
        file = path.with_name(path.name + ending)
        if file.exists():
            shutil.copyfile(file, Path(copy.name, file.name))
    return sqlite3.connect(Path(copy.name, path.name)), copy


def about_of(connection: sqlite3.Connection) -> tuple[dict[str, Any], int]:
    """What a journal says of itself, and where its chain of checksums begins."""
    rows = dict(connection.execute("SELECT name, value FROM about"))
    about = {name: json.loads(value) for name, value in rows.items()}
    rows.pop("crc", None)
    return about, _seed_of(rows)


def _seed_of(rows: Mapping[str, str]) -> int:
    return zlib.crc32(json.dumps(sorted(rows.items())).encode())


def chained(crc: int, number: int, written: int, kind: str, body: str) -> int:
    """The checksum of an entry, which goes on from that of the entry before."""
    return zlib.crc32(f"{number} {written} {kind} {body}".encode(), crc)


class Written:
    """Turns what SQLite and the system say about a file that cannot be written into one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error | OSError):
            raise StorageError(
                f"{self._path}: the journal cannot be written ({getattr(error, 'strerror', None) or error}); nothing "
                "is traded without it: free some space, or make the folder writable"
            ) from error


class Read:
    """Turns what SQLite and JSON say about a file that cannot be read into one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error | OSError | TypeError | ValueError):
            raise DataError(
                f"{self._path}: the journal cannot be read ({error}); it is damaged, or no journal"
            ) from error
