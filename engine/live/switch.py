"""What a person has said about a run from outside: pause, kill. It is a file in the run's folder, and so survives all.

Whoever trades looks at it before each step and while nothing comes; whoever says something need not know whether
anybody trades.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import StorageError

FILE = "switch.json"


@dataclass(frozen=True)
class Said:
    """Why entries are paused, and why the run was killed; empty where nobody has said so."""

    paused: str = ""
    killed: str = ""


class Switch:
    """The switch of one run."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._stamp: tuple[int, int] | None = None
        self._said = Said()

    def look(self) -> Said:
        """What stands there now; a file that cannot be read pauses: it was written to stop something."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._said = None, Said()
            return self._said
        except OSError as error:
            return Said(paused=f"{self._path} cannot be read ({error.strerror})")
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._said = self._read()
            self._stamp = stamp
        return self._said

    def _read(self) -> Said:
        try:
            told = json.loads(self._path.read_text(encoding="utf-8"))
            return Said(paused=str(told["paused"]), killed=str(told["killed"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Said(paused=f"{self._path} cannot be read; write it anew with nextbar resume or nextbar kill")

    def pause(self, reason: str) -> None:
        """Pause entries; an empty reason lifts the pause."""
        with self._alone():
            self._write(replace(self.look(), paused=reason))

    def kill(self, reason: str) -> None:
        """Kill the run, for good; the first reason stays."""
        with self._alone():
            said = self.look()
            self._write(replace(said, killed=said.killed or reason))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A pause that is said while somebody kills the run must not write what it read before the kill."""
        folder = None
        try:
            with suppress(OSError):
                folder = os.open(self._path.parent, os.O_RDONLY)
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            if folder is not None:
                os.close(folder)

    def _write(self, said: Said) -> None:
        partial = self._path.with_name(f".{FILE}.{os.getpid()}")
        try:
            with partial.open("w", encoding="utf-8") as file:
                json.dump({"paused": said.paused, "killed": said.killed}, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StorageError(
                f"{self._path}: the switch cannot be written ({error.strerror}); free some space or make the "
                "run's folder writable, or close the positions at the broker"
            ) from error
