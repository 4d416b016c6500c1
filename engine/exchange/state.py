"""The exchange's memory: an ordered log of actions in a SQLite file. Repeating them brings everything back.

Written ahead of the answer, so that what a client was told survives the death of the process at any instant. A power
failure may lose the last moments, never the file: for that each action would have to wait for the disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import StorageError

_TABLES = """
CREATE TABLE exchange (fingerprint TEXT NOT NULL);
CREATE TABLE actions (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, account INTEGER NOT NULL, detail TEXT NOT NULL,
                      count INTEGER NOT NULL);
"""


class Action(NamedTuple):
    """Something that happened; consecutive advances are one action with a count."""

    number: int
    kind: str
    account: int
    detail: Any
    times: int


class ActionLog:
    """The log in a file; one exchange at a time may hold it.

    Attributes:
        failure: why an action could not be written, or empty; the exchange takes no more after that.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Open the file, or begin it.

        Raises:
            StorageError: it is damaged, another exchange's, or in use.
        """
        self.path = path
        self.failure = ""
        self._advances = 0
        self._last = 0
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.0)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        try:
            self._open(fingerprint)
        except sqlite3.Error as error:
            self._database.close()
            raise self._unusable(error) from error
        except StorageError:
            self._database.close()
            raise

    def _unusable(self, error: sqlite3.Error) -> StorageError:
        if "locked" in str(error):
            return StorageError(f"{self.path}: another exchange holds this state; stop it, or use another file")
        return StorageError(
            f"{self.path}: the exchange's state could not be opened ({error}); "
            "name a file that can be written, or remove a damaged one to start afresh"
        )

    def _open(self, fingerprint: str) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode=EXCLUSIVE")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        damage = run("PRAGMA quick_check").fetchone()[0]
        if damage != "ok":
            raise StorageError(f"{self.path}: the exchange's state is damaged ({damage}); remove it to start afresh")
        tables = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            self._database.executescript("BEGIN;" + _TABLES)
            run("INSERT INTO exchange VALUES (?)", (fingerprint,))
            run("COMMIT")
        elif "exchange" not in tables:
            raise StorageError(f"{self.path}: this is no exchange's state, but another program's; use another file")
        elif run("SELECT fingerprint FROM exchange").fetchall() != [(fingerprint,)]:
            raise StorageError(
                f"{self.path}: this state belongs to another exchange: other bars, start, accounts or version of "
                "nextbar; use another file, or remove it to start afresh"
            )
        self._last = run("SELECT coalesce(max(number), 0) FROM actions").fetchone()[0]

    @property
    def empty(self) -> bool:
        """Whether no action has been written."""
        return self._last == 0

    def actions(self) -> Iterator[Action]:
        """All actions, in their order.

        Raises:
            StorageError: one cannot be read.
        """
        rows = self._database.execute("SELECT number, kind, account, detail, count FROM actions ORDER BY number")
        try:
            for number, kind, account, detail, count in rows:
                yield Action(number, kind, account, json.loads(detail), count)
        except (sqlite3.Error, ValueError) as error:
            raise StorageError(
                f"{self.path}: the exchange's state is damaged ({error}); remove it to start afresh"
            ) from error

    def record(self, kind: str, account: int, detail: Any) -> None:
        """Write an action."""
        self._advances = 0
        self._write("INSERT INTO actions VALUES (?, ?, ?, ?, 1)", (self._last + 1, kind, account, json.dumps(detail)))
        self._last += 1

    def advance(self) -> None:
        """Write one more step of the clock: it counts on an advance just before."""
        self._advances += 1
        if self._advances > 1:
            self._write("UPDATE actions SET count = ? WHERE number = ?", (self._advances, self._last))
        else:
            self._write("INSERT INTO actions VALUES (?, 'advance', 0, 'null', 1)", (self._last + 1,))
            self._last += 1

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            self.failure = (
                f"{self.path}: an action of the exchange could not be written ({error}); make room and restart"
            )
            raise StorageError(self.failure) from error

    def close(self) -> None:
        """Give the file free."""
        self._database.close()
