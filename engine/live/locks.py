"""Who trades a run: the lock file beside its journal, held by one process and empty of meaning once that has ended."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from engine.errors import StorageError

# Asking for the holder takes the lock for some microseconds: what meets that tries again.
_TRIES = 5
_PAUSE_SECS = 0.01


def take(path: Path) -> int:
    """The lock of the run with this journal, with our process id in it.

    Returns:
        The open lock file: closing it, or the end of the process however it comes, lets go of the lock.

    Raises:
        StorageError: another process has it; names that.
        OSError: the lock file cannot be written.
    """
    lock = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)  # no link: it is written over
    try:
        for _ in range(_TRIES):
            if _locked(lock, fcntl.LOCK_EX):
                # Over the old id and then cut: a file that is never empty, and needs no room on a full disk.
                text = f"{os.getpid()}\n".encode()
                os.pwrite(lock, text, 0)
                os.ftruncate(lock, len(text))
                return lock
            time.sleep(_PAUSE_SECS)
        raise StorageError(
            f"{path}: another process (pid {_process(lock) or 'unknown'}) is trading this run; stop it first, or "
            "follow it with nextbar report"
        )
    except BaseException:
        os.close(lock)
        raise


def holder(path: Path) -> int | None:
    """The process that trades the run with this journal: its id, or None when there is none.

    Raises:
        StorageError: the lock file cannot be read, or is held by a process that did not write its id.
    """
    try:
        lock = os.open(_lock_of(path), os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{_lock_of(path)}: the lock cannot be read ({error.strerror}); make it readable") from error
    try:
        for _ in range(_TRIES):
            if _locked(lock, fcntl.LOCK_SH):
                return None
            found = _process(lock)
            if found is not None:
                return found
            time.sleep(_PAUSE_SECS)
    finally:
        os.close(lock)
    raise StorageError(
        f"{_lock_of(path)}: held by a process that did not write its id; find it with fuser, and stop it there"
    )


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def _locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _process(lock: int) -> int | None:
    text = os.pread(lock, 32, 0).strip()
    return (int(text) or None) if text.isdigit() else None  # 0 is no process, and to kill it would end our own group
