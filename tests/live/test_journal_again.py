"""A journal that is gone on with: after a kill at any moment, by one process at a time, under its own name only."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import DataError, StorageError
from engine.live.journal import Journal
from engine.live.journal_file import TABLES
from engine.live.locks import holder

ABOUT = {"id": "abc", "run": "a run"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def times(path: Path) -> list[int]:
    reader = Journal.read_only(path, identity="abc")
    try:
        return [entry.body["time"] for entry in reader.entries()]
    finally:
        reader.close()


def test_it_is_made_where_there_is_none_and_gone_on_with_where_there_is(path: Path) -> None:
    for time in range(4):
        journal = Journal.open(path, ABOUT)
        assert len(list(journal.entries())) == time
        journal.write("bars", time=time)
        journal.close()
    assert times(path) == [0, 1, 2, 3]
    reader = Journal.read_only(path)
    assert [entry.number for entry in reader.entries()] == [1, 2, 3, 4]
    assert reader.about == {"schema": 2, **ABOUT}
    reader.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.lock", "journal.sqlite"]


def test_what_is_written_is_read_once_it_is_committed_and_as_it_was_then(path: Path) -> None:
    journal = Journal.open(path, ABOUT)
    bars = {"A": [1.0]}
    journal.write("bars", bars=bars)
    bars["A"][0] = 2.0
    assert list(journal.entries()) == []
    journal.commit()
    assert [entry.body for entry in journal.entries()] == [{"bars": {"A": [1.0]}}]
    journal.close()


def test_another_runs_journal_is_not_gone_on_with(path: Path) -> None:
    Journal.open(path, ABOUT).close()
    with pytest.raises(DataError, match="that of the run a run, not of this folder's manifest"):
        Journal.open(path, {"id": "other", "run": "another"})
    assert holder(path) is None
    assert times(path) == []


GOES_ON = """
import os, signal, sys
from pathlib import Path
from engine.live.journal import Journal
journal = Journal.open(Path(sys.argv[1]), {"id": "abc", "run": "a run"})
first = len(list(journal.entries()))
for time in range(first, first + 5):
    journal.write("bars", time=time)
    journal.commit(durable=time % 2 == 0)
journal.write("bars", time=-1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_is_killed_again_and_again_has_every_entry_once(path: Path) -> None:
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", GOES_ON, str(path)], check=False)
        assert done.returncode == -signal.SIGKILL
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=20)
    journal.close()
    assert times(path) == list(range(21))


def _nothing(path: Path) -> None:
    path.touch()


def _no_tables(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def _says_nothing(path: Path) -> None:
    connection = sqlite3.connect(path)
    for table in TABLES:
        connection.execute(table)
    connection.commit()
    connection.close()


def _one_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(TABLES[0])
    connection.commit()
    connection.close()


@pytest.mark.parametrize("half", [_nothing, _no_tables, _says_nothing, _one_table])
def test_half_a_journal_is_none(path: Path, half: object) -> None:
    half(path)  # type: ignore[operator]
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=1)
    journal.close()
    assert times(path) == [1]


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from engine.live.journal import Journal
left = int(sys.argv[2])
def hook(event, arguments):
    global left
    if event in ("open", "sqlite3.connect", "os.truncate", "os.remove", "fcntl.flock"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
journal = Journal.open(Path(sys.argv[1]), {"id": "abc", "run": "a run"})
journal.close()
"""


def test_a_kill_while_it_is_made_leaves_something_that_opens(path: Path) -> None:
    for moment in range(1, 30):
        done = subprocess.run([sys.executable, "-c", KILLED_AT, str(path), str(moment)], check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        Journal.open(path, ABOUT).close()
        for file in path.parent.iterdir():
            file.unlink()
    assert moment > 5
    assert done.returncode == 0


def test_what_is_no_half_journal_is_not_thrown_away(path: Path) -> None:
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=1)
    journal.commit()
    content = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    journal.close()
    path.write_bytes(b"")
    Path(f"{path}-wal").write_bytes(content[1])
    with pytest.raises(DataError, match=r"it is empty, journal\.sqlite-wal is not"):
        Journal.open(path, ABOUT)
    path.write_bytes(content[0])
    assert times(path) == [1]


HOLDS = """
import sys
from pathlib import Path
from engine.live.journal import Journal
journal = Journal.open(Path(sys.argv[1]), {"id": "abc"})
print("open", flush=True)
sys.stdin.read()
"""


def test_the_process_that_trades_a_run_is_named_until_it_is_gone(path: Path) -> None:
    assert holder(path) is None
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        assert holder(path) == process.pid
        with pytest.raises(StorageError, match=rf"another process \(pid {process.pid}\) is trading this run"):
            Journal.open(path, ABOUT)
    finally:
        process.kill()
        process.communicate()
    assert holder(path) is None
    journal = Journal.open(path, ABOUT)
    assert holder(path) == os.getpid()
    assert path.with_suffix(".lock").read_text() == f"{os.getpid()}\n"
    journal.close()
    assert holder(path) is None


def test_asking_who_trades_a_run_does_not_keep_it_from_being_traded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.with_suffix(".lock").write_text("1234567890\n")
    asking = os.open(path.with_suffix(".lock"), os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("engine.live.locks.time.sleep", lambda seconds: os.close(asking))
    journal = Journal.open(path, ABOUT)
    assert path.with_suffix(".lock").read_text() == f"{os.getpid()}\n"
    journal.close()


def test_a_lock_without_a_process_id_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.live.locks.time.sleep", lambda seconds: None)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="did not write its id"):
            holder(path)
        with pytest.raises(StorageError, match="pid unknown"):
            Journal.open(path, ABOUT)


def test_an_intent_is_synced_to_the_disk_before_commit_returns(path: Path) -> None:
    """SQLite's own level of safety at each commit: 2 syncs the log of a transaction, 1 leaves it to the system."""
    journal = Journal.open(path, ABOUT)
    levels: list[tuple[str, int]] = []

    def seen(statement: str) -> None:
        if statement == "COMMIT":
            levels.append((statement, journal._connection.execute("PRAGMA synchronous").fetchone()[0]))

    journal.write("bars")
    journal._connection.set_trace_callback(seen)
    journal.commit()
    journal.write("intent")
    journal.commit(durable=True)
    assert [level for _, level in levels] == [1, 2]
    journal._connection.set_trace_callback(None)
    journal.commit(durable=True)  # all of it is there: nothing to do
    journal.write("ack")
    journal.commit()
    before = Path(f"{path}-wal").stat().st_size
    journal.commit(durable=True)
    assert Path(f"{path}-wal").stat().st_size > before  # SQLite syncs only what it writes
    journal.close()
