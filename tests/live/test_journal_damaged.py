"""A journal that was cut off or changed anywhere: what is read is a beginning of what was written, or refused."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import DataError
from engine.live.journal import Entry, Journal

ABOUT = {"id": "abc", "run": "a run"}
PAGE = 4096
FRAME = PAGE + 24
WAL_HEADER = 32


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Entry]]:
    """Folders of one journal as a kill leaves it, log and all, and as it is once closed; and its entries."""
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal.open(folder / "journal.sqlite", ABOUT)
    for step in range(150):
        journal.write("bars", time=step, bars={"A": [step / 7, 2.0, 3.0]}, filling="x" * (step % 90))
        journal.write("decision", equity=100_000.0 + step)
        journal.commit(durable=step % 10 == 0)
    killed = tmp_path_factory.mktemp("killed")
    for ending in ("", "-wal"):
        shutil.copyfile(folder / f"journal.sqlite{ending}", killed / f"journal.sqlite{ending}")
    entries = list(journal.entries())
    journal.close()
    assert len(entries) == 300
    return killed, folder, entries


def _by_reading(path: Path) -> Iterator[Entry]:
    journal = Journal.read_only(path, identity="abc")
    try:
        yield from journal.entries()
    finally:
        journal.close()


def _by_going_on(path: Path) -> Iterator[Entry]:
    journal = Journal.open(path, ABOUT)
    try:
        yield from journal.entries()
    finally:
        journal.close()


def read(
    folder: Path, spoil: Callable[[Path], None], how: Callable[[Path], Iterator[Entry]]
) -> tuple[list[Entry], str]:
    """What a spoilt copy holds, and what is said of it."""
    copy = folder.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for ending in ("", "-wal"):
        if (folder / f"journal.sqlite{ending}").exists():
            shutil.copyfile(folder / f"journal.sqlite{ending}", copy / f"journal.sqlite{ending}")
    spoil(copy)
    found: list[Entry] = []
    try:
        found.extend(how(copy / "journal.sqlite"))
        said = ""
    except DataError as error:
        said = str(error)
    assert "\n" not in said
    assert not said or str(copy) in said
    return found, said


def cut(name: str, size: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return spoil


def flipped(name: str, byte: int, bit: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.seek(byte)
            old = file.read(1)[0]
            file.seek(byte)
            file.write(bytes([old ^ 1 << bit]))

    return spoil


def offsets(size: int, first: int, step: int, *, seed: int) -> list[int]:
    """Every boundary, a byte before and a byte after it, and some places between."""
    edges = {edge + by for edge in range(first, size, step) for by in (-1, 0, 1)}
    if len(edges) > 240:
        edges = set(random.Random(seed).sample(sorted(edges), 240))
    return sorted(
        {at for at in edges | set(random.Random(seed).sample(range(size), 200)) | {0, 1, size - 1} if 0 <= at < size}
    )


HOW = pytest.mark.parametrize("how", [_by_reading, _by_going_on])


@HOW
def test_a_closed_journal_that_was_cut_is_refused(
    written: tuple[Path, Path, list[Entry]], how: Callable[[Path], Iterator[Entry]]
) -> None:
    _, closed, entries = written
    for size in offsets((closed / "journal.sqlite").stat().st_size, 0, PAGE, seed=1):
        found, said = read(closed, cut("journal.sqlite", size), how)
        assert said or (size == 0 and how is _by_going_on), size
        assert found == entries[: len(found)], size


@HOW
def test_a_log_that_was_cut_has_what_was_committed_before(
    written: tuple[Path, Path, list[Entry]], how: Callable[[Path], Iterator[Entry]]
) -> None:
    killed, _, entries = written
    lengths = []
    for size in offsets((killed / "journal.sqlite-wal").stat().st_size, WAL_HEADER, FRAME, seed=2):
        found, said = read(killed, cut("journal.sqlite-wal", size), how)
        assert said == "", size
        assert found == entries[: len(found)], size
        assert len(found) % 2 == 0, size  # the entries of one commit, or none of them
        lengths.append(len(found))
    assert lengths == sorted(lengths)
    assert lengths[-1] == len(entries) - 2


@HOW
def test_a_file_that_was_cut_under_its_log_is_refused_or_whole(
    written: tuple[Path, Path, list[Entry]], how: Callable[[Path], Iterator[Entry]]
) -> None:
    killed, _, entries = written
    for size in offsets((killed / "journal.sqlite").stat().st_size, 0, PAGE, seed=3):
        found, said = read(killed, cut("journal.sqlite", size), how)
        assert found == entries[: len(found)], size
        assert said or len(found) == len(entries), size


@HOW
@pytest.mark.parametrize("place", ["closed", "killed", "log"])
def test_a_changed_bit_is_noticed_or_changes_nothing(
    written: tuple[Path, Path, list[Entry]], how: Callable[[Path], Iterator[Entry]], place: str
) -> None:
    killed, closed, entries = written
    folder = closed if place == "closed" else killed
    name = "journal.sqlite-wal" if place == "log" else "journal.sqlite"
    chance = random.Random(4)
    size = (folder / name).stat().st_size
    for _ in range(300):
        byte, bit = chance.randrange(size), chance.randrange(8)
        found, said = read(folder, flipped(name, byte, bit), how)
        assert found == entries[: len(found)], (byte, bit)
        # A log with a wrong bit ends before it, as one that was never written to the end does.
        assert said or place == "log" or len(found) == len(entries), (byte, bit)


def test_each_bit_of_the_first_pages_is_noticed_or_changes_nothing(written: tuple[Path, Path, list[Entry]]) -> None:
    _, closed, entries = written
    chance = random.Random(5)
    places = [*range(100), *range(100, 116), *range(PAGE, PAGE + 16), *range(2 * PAGE, 2 * PAGE + 16)]
    for byte in places:
        found, said = read(closed, flipped("journal.sqlite", byte, chance.randrange(8)), _by_reading)
        assert found == entries[: len(found)], byte
        assert said or len(found) == len(entries), byte


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET body = replace(body, 'equity', 'Equity') WHERE entry = 100",
        "UPDATE log SET kind = 'bars' WHERE entry = 100",
        "UPDATE log SET written = written + 1 WHERE entry = 100",
        "DELETE FROM log WHERE entry = 100",
        "DELETE FROM log WHERE entry = 1",
        "DELETE FROM log WHERE entry = 300",
        "DELETE FROM log",
        "UPDATE log SET body = (SELECT body FROM log WHERE entry = 98) WHERE entry = 100",
        "UPDATE log SET entry = 1000 WHERE entry = 300",
        "UPDATE about SET value = '\"another run\"' WHERE name = 'run'",
        "DELETE FROM about WHERE name = 'crc'",
    ],
)
@HOW
def test_what_sqlite_cannot_notice_is_noticed(
    written: tuple[Path, Path, list[Entry]], how: Callable[[Path], Iterator[Entry]], statement: str
) -> None:
    def spoil(folder: Path) -> None:
        with sqlite3.connect(folder / "journal.sqlite") as connection:
            connection.execute(statement)
        connection.close()

    _, closed, entries = written
    found, said = read(closed, spoil, how)
    assert "damaged" in said
    assert found == entries[: len(found)]


@HOW
def test_a_file_that_was_left_in_the_middle_of_a_change_is_read_as_it_was(
    written: tuple[Path, Path, list[Entry]], how: Callable[[Path], Iterator[Entry]]
) -> None:
    """SQLite puts it right with the file that lies beside it; for one who may only read, in a copy."""

    def spoil(folder: Path) -> None:
        connection = sqlite3.connect(folder / "journal.sqlite")
        connection.execute("PRAGMA cache_size = 1")  # so that half of it is in the file already
        connection.execute("UPDATE log SET kind = 'changed'")
        for ending in ("", "-journal"):
            shutil.copyfile(folder / f"journal.sqlite{ending}", folder / f"kept{ending}")
        connection.rollback()
        connection.close()
        assert (folder / "kept").read_bytes() != (folder / "journal.sqlite").read_bytes()
        for ending in ("", "-journal"):
            (folder / f"kept{ending}").replace(folder / f"journal.sqlite{ending}")

    _, closed, entries = written
    assert read(closed, spoil, how) == (entries, "")
