"""The journal: what is in it after a kill, who may write it, and what is said of one that is not right."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import DataError, StorageError
from engine.live.journal import Journal

ABOUT = {"id": "abc", "run": "a run"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_what_was_written_is_read_back_in_order(path: Path) -> None:
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=1, bars={"A": (1.0, 2.0)}, decide=True)
    journal.write("decision", equity=math.nan, cash=math.inf)
    journal.write("bars", time=2)
    journal.close()
    journal = Journal.read_only(path, identity="abc")
    entries = list(journal.entries())
    assert [(entry.number, entry.kind) for entry in entries] == [(1, "bars"), (2, "decision"), (3, "bars")]
    assert entries[0].body == {"time": 1, "bars": {"A": [1.0, 2.0]}, "decide": True}
    assert entries[1].body == {"equity": None, "cash": None}  # JSON has no NaN
    assert [entry.body["time"] for entry in journal.entries("bars")] == [1, 2]
    assert journal.about["run"] == "a run"
    journal.close()


def test_it_can_be_followed_while_it_is_written(path: Path) -> None:
    journal = Journal.open(path, ABOUT)
    reader = Journal.read_only(path, identity="abc")
    journal.write("bars", time=1)
    assert list(reader.entries()) == []  # nothing of a step before the whole of it
    journal.commit(durable=True)
    assert len(list(reader.entries())) == 1
    reader.close()
    journal.close()


# --- what is forgotten ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 3])
def test_a_step_that_did_not_come_to_its_end_has_not_happened(path: Path, kept: int) -> None:
    journal = Journal.open(path, ABOUT)
    for number in range(kept):
        journal.write("bars", time=number)
    journal.commit()
    journal.write("bars", time=98)
    journal.write("fill", order=1)
    journal.drop()
    journal.write("end", how="failed", why="")
    journal.close()
    journal = Journal.read_only(path, identity="abc")  # reading goes along the chain of checksums
    entries = list(journal.entries())
    journal.close()
    assert [entry.number for entry in entries] == list(range(1, kept + 2))
    assert [entry.body.get("time") for entry in entries] == [*range(kept), None]


def test_where_nothing_waits_nothing_is_forgotten(path: Path) -> None:
    journal = Journal.open(path, ABOUT)
    journal.drop()
    journal.write("bars", time=1)
    journal.commit(durable=True)
    journal.drop()
    journal.drop()
    journal.write("bars", time=2)
    journal.close()
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=3)
    journal.drop()  # back to what was there when it was opened
    journal.write("bars", time=4)
    journal.commit()
    assert [(entry.number, entry.body["time"]) for entry in journal.entries()] == [(1, 1), (2, 2), (3, 4)]
    journal.close()


def test_what_could_not_be_written_can_be_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=1)
    journal.commit()
    journal.write("bars", time=2)

    def broken(*, durable: bool) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_insert", broken)
        with pytest.raises(StorageError):
            journal.commit()
    journal.drop()
    journal.write("end", how="failed")
    journal.commit()
    assert [(entry.number, entry.kind) for entry in journal.entries()] == [(1, "bars"), (2, "end")]
    journal.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from engine.live.journal import Journal
journal = Journal.open(Path(sys.argv[1]), {"id": "abc", "run": "a run"})
for step in range(50):
    journal.write("bars", time=step)
    journal.write("intent", order=step)
    journal.commit(durable=True)
    journal.write("ack", order=step)
    journal.commit()
journal.write("bars", time=50)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_what_was_not_committed_as_a_whole_and_nothing_else(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    journal = Journal.read_only(path, identity="abc")
    assert [entry.body["order"] for entry in journal.entries("ack")] == list(range(50))
    assert [entry.body["time"] for entry in journal.entries("bars")] == list(range(50))
    journal.close()


SECOND = """
import sys
from pathlib import Path
from engine.live.journal import Journal
Journal.open(Path(sys.argv[1]), {})
"""


def test_a_second_process_on_the_same_run_is_refused(path: Path) -> None:
    journal = Journal.open(path, ABOUT)
    done = subprocess.run([sys.executable, "-c", SECOND, str(path)], check=False, capture_output=True, text=True)
    assert "StorageError" in done.stderr
    assert "is trading this run" in done.stderr
    journal.close()


def test_a_full_disk_is_one_sentence_and_what_was_committed_stays(path: Path) -> None:
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=1)
    journal.commit(durable=True)
    journal._connection.execute("PRAGMA max_page_count = 4")

    def fill() -> None:
        for step in range(1000):
            journal.write("bars", time=step, filling="x" * 1000)
            journal.commit(durable=True)

    with pytest.raises(StorageError, match="cannot be written") as caught:
        fill()
    assert str(path) in str(caught.value)
    assert "free some space" in str(caught.value)
    with pytest.raises(StorageError, match="cannot be written"):
        journal.close()  # what could not be committed is lost, and that is said
    reader = Journal.read_only(path, identity="abc")
    assert next(reader.entries()).body == {"time": 1}
    reader.close()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        Journal.open(tmp_path / "nowhere" / "journal.sqlite", ABOUT)


def _written(path: Path, **about: object) -> None:
    journal = Journal.open(path, {**ABOUT, **about})
    for step in range(200):
        journal.write("bars", time=step, filling="x" * 100)
    journal.close()


def _read(path: Path) -> None:
    journal = Journal.read_only(path)
    try:
        list(journal.entries())
    finally:
        journal.close()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def _no_database(path: Path) -> None:
    path.write_text("once upon a time")


def _truncated(path: Path) -> None:
    _written(path)
    path.write_bytes(path.read_bytes()[:6000])


def _overwritten(path: Path) -> None:
    _written(path)
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    path.write_bytes(content)


def _no_json(path: Path) -> None:
    _written(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE log SET body = '{\"time\": ' WHERE entry = 100")
    connection.close()


def _no_entry(path: Path) -> None:
    _written(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE log SET body = '[]' WHERE entry = 100")
    connection.close()


def _garbled_about(path: Path) -> None:
    _written(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET value = '{' WHERE name = 'schema'")
    connection.close()


@pytest.mark.parametrize(
    "spoil", [_empty, _garbage, _no_database, _truncated, _overwritten, _no_json, _no_entry, _garbled_about]
)
def test_a_spoilt_journal_is_one_sentence_that_names_it(path: Path, spoil: object) -> None:
    spoil(path)  # type: ignore[operator]
    with pytest.raises(DataError, match="damaged") as caught:
        _read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_runs_journal_and_another_schema_are_refused(path: Path) -> None:
    with pytest.raises(DataError, match="no journal; only paper runs"):
        Journal.read_only(path)
    _written(path)
    with pytest.raises(DataError, match="that of the run a run, not of this folder's manifest"):
        Journal.read_only(path, identity="another")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET value = ? WHERE name = 'schema'", (json.dumps(99),))
    connection.close()
    with pytest.raises(DataError, match="schema 99, expected 2"):
        Journal.read_only(path, identity="abc")


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100%25 #1"
    folder.mkdir()
    _written(folder / "journal.sqlite")
    journal = Journal.read_only(folder / "journal.sqlite", identity="abc")
    assert len(list(journal.entries())) == 200
    journal.close()


def test_a_journal_that_is_closed_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal.open(path, {"id": "1"})
    journal.write("end", how="completed")
    reader = Journal.read_only(path)
    assert list(reader.entries()) == []  # a reader of a run that goes on, still there when it ends
    journal.close()
    reader.close()
    again = Journal.read_only(path)
    assert [entry.kind for entry in again.entries()] == ["end"]
    again.close()
    other = Journal.open(tmp_path / "other.sqlite", {"id": "2"})
    other.close()
    assert sorted(file.name for file in tmp_path.glob("other*")) == ["other.lock", "other.sqlite"]
