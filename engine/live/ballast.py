"""Room on the disk that is kept for the moment when there is no more: a file that is let go then."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

SIZE = 1 << 20  # bytes


class Ballast:
    """A file of ``SIZE`` bytes of real blocks, there or not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> str:
        """Have the file; returns why it cannot be, or empty."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                os.posix_fallocate(file, 0, SIZE)  # costs nothing where the blocks are there from before
            finally:
                os.close(file)
        except OSError as error:
            self.release()
            return error.strerror or str(error)
        return ""

    def release(self) -> bool:
        """Give the room back; returns whether there was any."""
        with contextlib.suppress(OSError):
            size = self.path.stat().st_size
            self.path.unlink()
            return size > 0
        return False


def is_full(error: BaseException) -> bool:
    """Whether an error of SQLite or the system says that the disk, or one's share of it, is full."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
