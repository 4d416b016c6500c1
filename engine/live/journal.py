"""The journal of a paper run: everything that was seen, decided and done, in one ordered log on disk.

What must not be lost (an intent, before it is sent) is on the disk before ``commit(durable=True)`` returns; the rest
is on the disk soon after. Reading goes on while a run writes. Entries are never changed: each one carries a checksum
over itself and all before it, so that what is read is what was written, or is refused.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import DataError
from engine.live import locks
from engine.live.ballast import Ballast, is_full
from engine.live.journal_file import Read, Written, about_of, begin, chained, encoded, never_begun, reading

SCHEMA = 2
FILE = "journal.sqlite"

_REFILL_SECS = 5.0
_decoded = json.JSONDecoder().raw_decode


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
        broker answered), ``deferred`` (it did not answer, and what could not be sent waits), ``ended`` (an order),
        ``decision``; and as they come ``late`` and ``revision`` (bars that came too late to be decided on, and changed
        ones), ``garbled``, ``account``, ``connection``, ``pause``, ``halt``, ``stopping`` and ``end``. A run that goes
        on writes ``resumed``, ``model`` where another bundle takes over, ``adopted`` and ``accepted`` where a person
        says that the broker is right; `nextbar kill` writes ``kill_intent`` and ``killed``.

    Attributes:
        about: whose journal it is.
        full: why nothing new should be begun, or empty: the disk is full, and entries go where room was kept for them.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, *, identity: str | None = None) -> None:
        """A journal whose tables are there; ``open`` and ``read_only`` make one.

        Raises:
            DataError: it is damaged, another run's or of another schema.
        """
        self._connection = connection
        self.path = path
        with Read(path):
            self.about, self._seed = about_of(connection)
        found = self.about.get("schema")
        if found != SCHEMA:
            raise DataError(
                f"{path}: a journal of schema {found}, expected {SCHEMA}; read it with the nextbar it is of"
            )
        with Read(path):
            if self.about.pop("crc", None) != self._seed:
                raise ValueError("it does not say whose it is")
        if identity is not None and self.about.get("id") != identity:
            raise DataError(
                f"{path}: the journal is that of the run {self.about.get('run')}, not of this folder's manifest; "
                "put the two together again"
            )
        self.full = ""
        self._lock: int | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._pending: list[tuple[int, int, str, str, int]] = []
        self._number, self._crc = self._kept = (0, self._seed)
        self._synced = False
        self._touched = 0
        self._ballast = Ballast(path.with_suffix(".ballast"))
        self._monotonic: Callable[[], float] = time.monotonic
        self._refill_at = 0.0

    @classmethod
    def open(cls, path: Path, about: Mapping[str, Any], *, monotonic: Callable[[], float] = time.monotonic) -> Journal:
        """A journal to write: the one that is there is gone on with; a new one if there is none, or half of one.

        Args:
            about: whose it is; ``id`` must be that of the journal that is there.
            monotonic: seconds, to space the attempts to get room on a full disk.

        Raises:
            DataError: it is damaged, another run's or of another schema.
            StorageError: another process writes it, or it cannot be written.
        """
        with Written(path):
            lock = locks.take(path)
        try:
            return cls._to_write(path, about, lock, monotonic)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def _to_write(cls, path: Path, about: Mapping[str, Any], lock: int, monotonic: Callable[[], float]) -> Journal:
        with Written(path):
            if never_begun(path):
                for ending in ("", "-wal", "-shm", "-journal"):
                    path.with_name(path.name + ending).unlink(missing_ok=True)
                begin(path, {"schema": SCHEMA, **about})
            connection = sqlite3.connect(path, isolation_level="IMMEDIATE")
        try:
            journal = cls(connection, path, identity=about.get("id"))
            with Read(path):
                for row in journal._rows():
                    journal._number, journal._crc = journal._kept = (row[0], row[4])
            with Written(path):
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
            journal._monotonic = monotonic
            journal._fill()
            journal.commit(durable=True)  # whether it can be written at all
        except BaseException:
            connection.close()
            raise
        journal._lock = lock
        return journal

    @classmethod
    def read_only(cls, path: Path, *, identity: str | None = None) -> Journal:
        """A journal to read, of a finished run or of one that is still going on.

        Raises:
            DataError: there is none, it is damaged, of another run or of another schema.
        """
        if not path.is_file():
            raise DataError(f"{path}: no journal; only paper runs have one")
        with Read(path):
            connection, copy = reading(path)
        try:
            journal = cls(connection, path, identity=identity)
        except BaseException:
            connection.close()
            if copy is not None:
                copy.cleanup()
            raise
        journal._copy = copy
        return journal

    def write(self, kind: str, /, **body: Any) -> None:
        """Append an entry. It is on the disk after the next ``commit``, and lost as a whole if there is none."""
        try:
            text = encoded(body)
        except ValueError:  # a NaN
            text = encoded(plain(body))
        number, written = self._number + 1, time.time_ns()
        self._crc = chained(self._crc, number, written, kind, text)
        self._number = number
        self._pending.append((number, written, kind, text, self._crc))

    def commit(self, *, durable: bool = False) -> None:
        """Make what was written part of the journal; ``durable``: all of it is on the disk before this returns.

        On a full disk the kept room is given up for it, and ``full`` says so until there is room again.

        Raises:
            StorageError: it cannot be written; the entries wait for the next attempt.
        """
        if self.full and self._monotonic() >= self._refill_at:
            self._fill()
        if not self._pending and (self._synced or not durable):
            return
        with Written(self.path):
            try:
                self._insert(durable=durable)
            except (sqlite3.Error, OSError) as error:
                if not is_full(error):
                    raise
                released = self._ballast.release()
                self._is_full(str(error))
                if not released:
                    raise
                self._insert(durable=durable)

    def drop(self) -> None:
        """Forget what was written since the last commit: a step that did not come to its end has not happened."""
        self._pending.clear()
        self._number, self._crc = self._kept

    def _insert(self, *, durable: bool) -> None:
        # The level of safety belongs to the connection, and changes only between transactions. A sync covers what
        # earlier transactions left to the system, too.
        if durable:
            self._connection.execute("PRAGMA synchronous=FULL")
        try:
            with self._connection:
                if self._pending:
                    self._connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", self._pending)
                else:
                    # Something that changes the file: SQLite writes, and syncs, nothing for what is the same.
                    self._touched = 1 - self._touched
                    self._connection.execute(f"PRAGMA user_version = {self._touched}")
        finally:
            if durable:
                self._connection.execute("PRAGMA synchronous=NORMAL")
        self._pending.clear()
        self._kept = (self._number, self._crc)
        self._synced = durable

    def _fill(self) -> None:
        why = self._ballast.make()
        if why:
            self._is_full(why)
        else:
            self.full = ""

    def _is_full(self, why: str) -> None:
        self.full = f"the disk is full: {self.path.parent}: {why}; free some space"
        self._refill_at = self._monotonic() + _REFILL_SECS

    def entries(self, *kinds: str) -> Iterator[Entry]:
        """The committed entries of these kinds (all, if none is named), in order.

        Raises:
            DataError: the journal is damaged from some entry on.
        """
        with Read(self.path):
            for number, written, kind, body, _crc in self._rows():
                if kinds and kind not in kinds:
                    continue
                content, _ = _decoded(body)
                if not isinstance(content, dict):
                    raise ValueError(f"entry {number} is no entry")
                yield Entry(number, written, kind, content)

    def _rows(self) -> Iterator[tuple[int, int, str, str, int]]:
        # The end first: a run that goes on may write more while we read.
        end = self._connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0] or 0
        crc, last = self._seed, 0
        for row in self._connection.execute("SELECT entry, written, kind, body, crc FROM log ORDER BY entry"):
            number, written, kind, body, found = row
            if number != last + 1:
                raise ValueError(f"entry {last + 1} is missing")
            crc, last = chained(crc, number, written, kind, body), number
            if crc != found:
                raise ValueError(f"entry {number} is not as it was written")
            yield row
        if last < end:
            raise ValueError(f"entry {last + 1} is missing")

    def close(self) -> None:
        """Commit and let go of the file.

        Raises:
            StorageError: what was written last cannot be committed.
        """
        try:
            if self._lock is not None:
                self.commit()
        finally:
            if self._lock is not None:
                self._ballast.release()
                # All in one file, without the two beside it; not while somebody reads.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._connection.execute("PRAGMA journal_mode=DELETE")
            self._connection.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            if self._copy is not None:
                self._copy.cleanup()


def plain(value: Any) -> Any:
    """A value as the journal holds it: JSON has no NaN, which becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
