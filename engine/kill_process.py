"""The process that trades a run which was killed: whether it reacts, and the end of one that does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DataError, StorageError
from engine.live import locks
from engine.live.journal import FILE
from engine.live.journal_file import Read, reading

_POLL_SECONDS = 0.05
_SAID_EVERY_SECONDS = 5.0
NONE, REACTED, ENDED = "none", "reacted", "ended"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds to wait: for a halt after the switch was written, for the end of a run that halts, of a process."""

    reaction: float = 10.0
    end: float = 20.0
    death: float = 5.0


@dataclass(frozen=True)
class Process:
    """What became of the process that traded: ``none`` was there, it ``reacted``, or had to be ``ended``.

    ``pid``: the process that trades still, and is about to end by itself; None where there is none.
    """

    how: str
    pid: int | None = None


def count_halts(folder: Path) -> int:
    """How often the run has halted, by its journal; 0 where that cannot be read."""
    path = folder / FILE
    if not path.is_file():
        return 0
    with suppress(DataError), Read(path):
        connection, copy = reading(path)
        with closing(connection):
            found = int(connection.execute("SELECT count(*) FROM log WHERE kind = 'halt'").fetchone()[0])
        if copy is not None:
            copy.cleanup()
        return found
    return 0


def await_reaction(
    folder: Path,
    *,
    halts: int,
    patience: Patience,
    say: Callable[[str], None],
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Process:
    """Wait for the process that trades the run to see its switch; end one that does not.

    Args:
        halts: how often it had halted before the switch was written.

    Raises:
        StorageError: the process does not react, and cannot be ended.
    """
    path = folder / FILE
    pid = locks.holder(path)
    if pid is None:
        return Process(NONE)
    if pid == os.getpid():
        raise StorageError(f"{path}: this process trades the run itself; kill it from another one")
    say(f"process {pid} trades it: waiting up to {patience.reaction:g} seconds for it to halt")
    deadline = monotonic() + patience.reaction
    while not (count_halts(folder) > halts or (halts and not _is_stopped(pid))):
        if locks.holder(path) != pid:
            return Process(REACTED if count_halts(folder) > halts else NONE, locks.holder(path))
        if monotonic() >= deadline:
            say(f"process {pid} does not react: it is ended")
            _end(pid, path, patience.death, monotonic, sleep)
            return Process(ENDED)
        sleep(_POLL_SECONDS)
    say(f"process {pid} has halted: it cancels its orders and closes its positions")
    deadline, spoken = monotonic() + patience.end, monotonic()
    while (left := locks.holder(path)) == pid and monotonic() < deadline:
        if monotonic() - spoken >= _SAID_EVERY_SECONDS:
            spoken = monotonic()
            say(f"process {pid} is still closing its positions")
        sleep(_POLL_SECONDS)
    return Process(REACTED, left)


def _end(pid: int, path: Path, seconds: float, monotonic: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """End the process that holds the lock of this journal, and no other; wait until the lock is free."""
    stuck = StorageError(
        f"process {pid} trades the run, does not react, and cannot be ended from here; end it (kill -9 {pid}), and "
        "kill the run again"
    )
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        handle = None
    except OSError as error:
        raise stuck from error
    try:
        # Looked at once more, now that the id cannot become another process's.
        if locks.holder(path) == pid:
            if not _holds(pid, path.with_suffix(".lock")):
                raise stuck
            if handle is not None:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError as error:
        raise stuck from error
    finally:
        if handle is not None:
            os.close(handle)
    deadline = monotonic() + seconds
    while locks.holder(path) == pid:
        if monotonic() >= deadline:
            raise stuck
        sleep(_POLL_SECONDS)


def _holds(pid: int, lock: Path) -> bool:
    """Whether the process has the lock file open, as far as this machine can tell."""
    folder = Path(f"/proc/{pid}/fd")
    if not Path("/proc/self/fd").is_dir():
        return True
    wanted = lock.stat()
    with suppress(OSError):
        for file in folder.iterdir():
            with suppress(OSError):
                found = file.stat()
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
    return False


def _is_stopped(pid: int) -> bool:
    """Whether a process has been stopped, as by Ctrl-Z; False where this machine does not say."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    return False
