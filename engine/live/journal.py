"""The journal of a paper run: everything that was seen, decided and done, in one ordered log on disk.

What must not be lost (an intent, before it is sent) is on the disk before ``commit(durable=True)`` returns; the rest
is on the disk soon after. Reading goes on while a run writes. Entries are never changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import DataError, StorageError

SCHEMA = 1
FILE = "journal.sqlite"

_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (
    entry INTEGER PRIMARY KEY AUTOINCREMENT, written INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
);
"""


class Entry(NamedTuple):
    """One entry: its number, when it was written (UTC ns), its kind and its content."""

    number: int
    written: int
    kind: str
    body: dict[str, Any]


class Journal:
    """One run's journal, written by one process and one thread.

    Kinds of entries, in the order in which a step writes them:
        ``history`` (bars before the first decision), ``bundles`` (that the strategy forecasts with); then ``bars`` (of
        one step) or ``settled`` (the broker's news are booked without any), ``interest``, ``update`` (a trade update as
        it came), ``fill`` (as booked), ``intent`` (an order, before it is sent), ``forecast``, ``withdrawal``,
        ``withdrawal_failed``, ``taken`` (news are booked after a withdrawal), ``ack`` and ``turned_down`` (what the
        broker answered), ``ended`` (an order), ``decision``; and as they come ``late`` and ``revision`` (bars that came
        too late to be decided on, and changed ones), ``garbled``, ``account``, ``connection``, ``pause``, ``halt`` and
        ``end``.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: int | None) -> None:
        self._connection = connection
        self._lock = lock
        self.path = path

    @classmethod
    def create(cls, path: Path, about: Mapping[str, Any]) -> Journal:
        """A new journal; ``about`` says whose it is: at least ``id``, which its run's manifest repeats.

        Raises:
            StorageError: it is there already, another process writes it, or it cannot be written.
        """
        with _Explained(path):
            lock = _locked(path)
            try:
                if path.exists():
                    raise StorageError(f"{path}: there is a journal already; a run has one of its own")
                connection = sqlite3.connect(path, isolation_level="IMMEDIATE")
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute("PRAGMA synchronous=NORMAL")
                    connection.executescript(_TABLES)
                    connection.executemany(
                        "INSERT INTO about VALUES (?, ?)",
                        [(name, json.dumps(value)) for name, value in {"schema": SCHEMA, **about}.items()],
                    )
                    connection.commit()
                except BaseException:
                    connection.close()
                    raise
            except BaseException:
                os.close(lock)
                raise
        return cls(connection, path, lock)

    @classmethod
    def read_only(cls, path: Path, *, identity: str | None = None) -> Journal:
        """A journal to read, of a finished run or of one that is still going on.

        Raises:
            DataError: there is none, it is damaged, of another run or of another schema.
        """
        if not path.is_file():
            raise DataError(f"{path}: no journal; only paper runs have one")
        connection = None
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            journal = cls(connection, path, None)
            about = journal.about
            found = about.get("schema")
            if found != SCHEMA:
                raise DataError(
                    f"{path}: a journal of schema {found}, expected {SCHEMA}; read it with the nextbar it is of"
                )
            if identity is not None and about.get("id") != identity:
                raise DataError(
                    f"{path}: the journal is that of the run {about.get('run')}, not of this folder's manifest; "
                    "put the two together again"
                )
        except (sqlite3.Error, ValueError, TypeError) as error:
            if connection is not None:
                connection.close()
            raise DataError(f"{path}: the journal cannot be read ({error}); it is damaged, or no journal") from error
        except DataError:
            if connection is not None:
                connection.close()
            raise
        return journal

    @property
    def about(self) -> dict[str, Any]:
        """Whose journal this is."""
        rows = self._connection.execute("SELECT name, value FROM about")
        return {name: json.loads(value) for name, value in rows}

    def write(self, kind: str, /, **body: Any) -> None:
        """Append an entry. It is on the disk after the next ``commit``, and lost as a whole if there is none."""
        try:
            self._connection.execute(
                "INSERT INTO log (written, kind, body) VALUES (?, ?, ?)",
                (time.time_ns(), kind, json.dumps(plain(body), separators=(",", ":"), allow_nan=False)),
            )
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error

    def commit(self, *, durable: bool = False) -> None:
        """Make what was written part of the journal; ``durable``: on the disk before this returns."""
        with _Explained(self.path):
            if durable:
                # The level of safety belongs to the connection, and changes only between transactions: what is
                # pending goes first, and the sync of the second commit covers both.
                self._connection.commit()
                self._connection.execute("PRAGMA synchronous=FULL")
                self._connection.execute("UPDATE about SET value = value WHERE name = 'schema'")
                self._connection.commit()
                self._connection.execute("PRAGMA synchronous=NORMAL")
            else:
                self._connection.commit()

    def entries(self, *kinds: str) -> Iterator[Entry]:
        """The entries of these kinds (all, if none is named), in order.

        Raises:
            DataError: the journal is damaged from some entry on.
        """
        chosen = f"WHERE kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        try:
            rows = self._connection.execute(
                f"SELECT entry, written, kind, body FROM log {chosen} ORDER BY entry", kinds
            )
            for number, written, kind, body in rows:
                content = json.loads(body)
                if not isinstance(content, dict):
                    raise ValueError(f"entry {number} is no entry")
                yield Entry(number, written, kind, content)
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: the journal is damaged ({error})") from error

    def close(self) -> None:
        """Commit and let go of the file."""
        try:
            with _Explained(self.path):
                self._connection.commit()
            if self._lock is not None:
                # All in one file, without the two beside it; not while somebody reads.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._connection.execute("PRAGMA journal_mode=DELETE")
        finally:
            self._connection.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


def _locked(path: Path) -> int:
    """The lock file of a journal, held until it is closed or the process ends."""
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StorageError(
            f"{path}: another process is trading this run; stop it first, or follow it with nextbar report"
        ) from None
    return lock


class _Explained:
    """Turns what SQLite and the system say about a file into one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error | OSError):
            raise _storage_error(self._path, error) from error


def _storage_error(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{path}: the journal cannot be written ({getattr(error, 'strerror', None) or error}); nothing is traded "
        "without it: free some space, or make the folder writable"
    )


def plain(value: Any) -> Any:
    """A value as the journal holds it: JSON has no NaN, which becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
