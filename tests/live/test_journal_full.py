"""A disk that is full: the room that was kept is used, it is said, and it ends when there is room again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.live import ballast
from engine.live.journal import Journal

ABOUT = {"id": "abc", "run": "a run"}


class Disk:
    """A disk with as many pages as a test wants; SQLite counts them, and files beside it see only full or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.seconds = 0.0
        self.tries = 0
        self._allocate = os.posix_fallocate
        monkeypatch.setattr("engine.live.ballast.os.posix_fallocate", self._allocated)

    def _allocated(self, file: int, start: int, size: int) -> None:
        self.tries += 1
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._allocate(file, start, size)

    def fill(self, journal: Journal, *, kept: int) -> None:
        """No more room in it, but for so many pages once the ballast is gone."""
        self.full = True
        pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
        journal._connection.execute(f"PRAGMA max_page_count = {pages}")
        release: Callable[[], bool] = journal._ballast.release

        def released() -> bool:
            there = release()
            if there:
                journal._connection.execute(f"PRAGMA max_page_count = {pages + kept}")
            return there

        journal._ballast.release = released  # type: ignore[method-assign]

    def free(self, journal: Journal) -> None:
        """Room again."""
        self.full = False
        journal._connection.execute("PRAGMA max_page_count = 1000000")

    def clock(self) -> float:
        return self.seconds


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def times(path: Path) -> list[int]:
    reader = Journal.read_only(path, identity="abc")
    try:
        return [entry.body["time"] for entry in reader.entries()]
    finally:
        reader.close()


def test_room_is_kept_in_real_blocks_while_it_is_written(path: Path) -> None:
    journal = Journal.open(path, ABOUT)
    room = path.with_name("journal.ballast")
    assert room.stat().st_blocks * 512 >= ballast.SIZE
    assert journal.full == ""
    journal.close()
    assert not room.exists()


@pytest.mark.parametrize("durable", [False, True])
def test_on_a_full_disk_the_kept_room_is_used_and_it_is_said_until_there_is_room(
    path: Path, disk: Disk, durable: bool
) -> None:
    journal = Journal.open(path, ABOUT, monotonic=disk.clock)
    room = path.with_name("journal.ballast")
    disk.fill(journal, kept=10)
    journal.write("bars", time=1, filling="x" * 10_000)
    journal.write("bars", time=2)
    journal.commit(durable=durable)
    assert journal.full.startswith("the disk is full: ")
    assert str(path.parent) in journal.full
    assert "free some space" in journal.full
    assert not room.exists()
    assert times(path) == [1, 2]
    tries = disk.tries
    for time in range(3, 6):
        disk.seconds += 1.0
        journal.write("bars", time=time)
        journal.commit(durable=durable)
    assert disk.tries == tries  # not at every commit
    disk.seconds += 10.0
    journal.commit()
    assert disk.tries == tries + 1
    assert journal.full
    disk.free(journal)
    disk.seconds += 1.0
    journal.commit()
    assert journal.full
    disk.seconds += 10.0
    journal.commit()
    assert journal.full == ""
    assert room.exists()
    journal.close()
    assert times(path) == [1, 2, 3, 4, 5]


def test_what_does_not_fit_waits_and_goes_in_once_there_is_room(path: Path, disk: Disk) -> None:
    journal = Journal.open(path, ABOUT, monotonic=disk.clock)
    journal.write("bars", time=0)
    journal.commit()
    disk.fill(journal, kept=0)
    journal.write("bars", time=1, filling="x" * 10_000)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"cannot be written .* free some space"):
            journal.commit(durable=True)
    assert journal.full
    assert times(path) == [0]
    journal.write("bars", time=2)
    disk.free(journal)
    disk.seconds += 10.0
    journal.commit(durable=True)
    assert journal.full == ""
    assert times(path) == [0, 1, 2]
    journal.close()
    assert times(path) == [0, 1, 2]


def test_a_start_without_room_to_keep_says_so_and_can_be_written(path: Path, disk: Disk) -> None:
    disk.full = True
    journal = Journal.open(path, ABOUT, monotonic=disk.clock)
    assert journal.full.startswith("the disk is full: ")
    assert not path.with_name("journal.ballast").exists()
    journal.write("bars", time=1)
    journal.commit(durable=True)
    journal.close()
    assert times(path) == [1]


def test_the_room_of_a_run_that_was_cut_off_is_taken_over(path: Path, disk: Disk) -> None:
    Journal.open(path, ABOUT).close()
    with path.with_name("journal.ballast").open("wb") as file:
        file.write(b"\0" * ballast.SIZE)
    journal = Journal.open(path, ABOUT, monotonic=disk.clock)
    disk.fill(journal, kept=10)
    journal.write("bars", time=1, filling="x" * 10_000)
    journal.commit()
    assert journal.full
    journal.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.lock", "journal.sqlite"]


def test_another_error_of_the_disk_leaves_the_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=1)
    with monkeypatch.context() as patch:

        def broken(*, durable: bool) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(journal, "_insert", broken)
        with pytest.raises(StorageError, match="Input/output error"):
            journal.commit()
    assert journal.full == ""
    assert path.with_name("journal.ballast").exists()
    journal.close()
    assert times(path) == [1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_share_of_the_disk_that_is_used_up_is_a_full_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal = Journal.open(path, ABOUT)
    journal.write("bars", time=1)
    insert = journal._insert

    def full(*, durable: bool) -> None:
        monkeypatch.setattr(journal, "_insert", insert)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(journal, "_insert", full)
    journal.commit()
    assert os.strerror(number) in journal.full
    assert times(path) == [1]
    journal.close()
