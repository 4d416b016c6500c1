"""The cache: what goes in comes out to the bit, whatever dies or is damaged on the way."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.cache import segments
from engine.data.cache.places import cache_folder
from engine.data.cache.shelves import Series, Shelf, empty_frame, shelves
from engine.data.cache.writing import writing
from engine.errors import StorageError

COLUMNS = ["open", "high", "low", "close", "volume"]
ABOUT = {"adjustment": "all"}

# Each process is forked from one that has imported everything, and has no thread yet that a fork would lose.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["engine.data.cache.writing"])


def frame(times: Any, seed: int = 0) -> pd.DataFrame:
    index = pd.DatetimeIndex(times, tz="UTC", name="time").as_unit("ns")
    return pd.DataFrame(np.random.default_rng(seed).normal(100, 5, (len(index), 5)), index=index, columns=COLUMNS)


def days(count: int, first: str = "2020-01-02", seed: int = 0) -> pd.DataFrame:
    return frame(pd.bdate_range(first, periods=count) + pd.Timedelta(hours=21), seed)


def series(bars: pd.DataFrame, **more: Any) -> Series:
    return Series(frame=bars, asked=(date(2020, 1, 1), date(2020, 12, 31)), fetched="2021-01-01", **more)


def shelf_in(folder: Path, timeframe: str = "1d") -> Shelf:
    return Shelf(root=folder, source="alpaca", variant="iex-all", timeframe=timeframe)


def put(shelf: Shelf, **frames: pd.DataFrame) -> None:
    with writing(shelf) as writer:
        writer.put({symbol: series(bars) for symbol, bars in frames.items()}, about=ABOUT)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """To the bit, NaN payloads and signs of zero included."""
    return (
        list(found.columns) == list(expected.columns)
        and found.index.dtype == expected.index.dtype == pd.DatetimeTZDtype("ns", "UTC")
        and found.index.name == "time"
        and found.index.equals(expected.index)
        and found.to_numpy().tobytes() == expected.to_numpy().tobytes()
    )


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelf_in(tmp_path)


def of_segments(shelf: Shelf) -> list[Path]:
    return sorted(shelf.folder.glob("*.parquet"))


# --- what goes in comes out -----------------------------------------------------------------------------------------

INSTANTS = st.integers(min_value=0, max_value=2**61)
FLOATS = st.floats(width=64, allow_nan=True, allow_infinity=True)


@given(
    rows=st.lists(st.tuples(INSTANTS, *[FLOATS] * 5), max_size=30),
    timeframe=st.sampled_from(["1d", "1m"]),
    in_order=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_frame_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], timeframe: str, in_order: bool
) -> None:
    rows = sorted(rows, key=lambda row: int(row[0])) if in_order else rows
    index = pd.DatetimeIndex([row[0] for row in rows], dtype="datetime64[ns, UTC]", name="time")
    bars = pd.DataFrame(np.array([row[1:] for row in rows]).reshape(-1, 5), index=index, columns=COLUMNS)
    shelf = shelf_in(tmp_path_factory.mktemp("cache"), timeframe)
    put(shelf, ACME=bars, OTHER=days(3))
    found = shelf.read(["ACME", "OTHER"])
    assert same(found["ACME"].frame, bars)
    assert same(found["OTHER"].frame, days(3))


def test_all_that_a_source_tells_comes_back(shelf: Shelf) -> None:
    bars = days(5)
    actions = pd.DataFrame({"split": [2.0, 1.0], "dividend": [0.0, 0.25]}, index=bars.index[[1, 3]])
    given = series(
        bars,
        actions=actions,
        origin="bars/ACME.csv",
        extra={"row": np.array([2.0, 3, 5, 4, 6]), "adjusted_close": np.array([1.0, np.nan, 3, 4, 5])},
    )
    with writing(shelf) as writer:
        writer.put({"ACME": given, "NONE": series(days(2), actions=empty_frame(("split", "dividend")))}, about=ABOUT)
    found = shelf.read(["ACME", "NONE", "ABSENT"])
    assert list(found) == ["ACME", "NONE"]
    assert same(found["ACME"].frame, bars)
    pd.testing.assert_frame_equal(found["ACME"].actions, actions, check_freq=False)
    assert (found["ACME"].origin, found["ACME"].asked) == (given.origin, given.asked)
    for name, values in given.extra.items():
        np.testing.assert_array_equal(found["ACME"].extra[name], values)
    # To tell that there were none is not the same as to tell nothing.
    assert list(found["NONE"].actions.columns) == ["split", "dividend"]  # type: ignore[union-attr]
    assert shelf.manifest().about == ABOUT


def test_equal_bars_have_equal_hashes_however_they_came(tmp_path: Path) -> None:
    one, other = shelf_in(tmp_path / "one", "1m"), shelf_in(tmp_path / "other", "1m")
    minutes = frame(pd.date_range("2019-12-31 20:00", "2020-01-02 15:00", freq="30min"))
    put(one, ACME=minutes)
    for count in (3, 20, len(minutes)):
        put(other, ACME=minutes.iloc[:count])
        put(other, ELSE=days(count))
    assert one.manifest().entries["ACME"].sha256 == other.manifest().entries["ACME"].sha256
    put(other, ACME=minutes + 1e-9)
    assert one.manifest().entries["ACME"].sha256 != other.manifest().entries["ACME"].sha256


def test_an_update_at_the_right_edge_leaves_earlier_years_of_minutes_where_they_are(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path, "1m")
    years = [frame(pd.date_range(f"{year}-03-01 15:00", periods=50, freq="min"), year) for year in (2018, 2019, 2020)]
    put(shelf, ACME=pd.concat(years))
    first = shelf.manifest().entries["ACME"].pieces
    put(shelf, ACME=pd.concat([*years, frame(pd.date_range("2020-03-02 15:00", periods=5, freq="min"))]))
    second = shelf.manifest().entries["ACME"].pieces
    assert [piece.place for piece in first[:2]] == [piece.place for piece in second[:2]]
    assert first[2].place.segment != second[2].place.segment


def test_only_the_years_that_are_asked_for_are_read(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path, "1m")
    years = [frame(pd.date_range(f"{year}-03-01 15:00", periods=5, freq="min"), year) for year in (2018, 2019, 2020)]
    put(shelf, ACME=pd.concat(years))
    since, until = (int(pd.Timestamp(day, tz="UTC").value) for day in ("2019-01-01", "2019-12-31"))
    assert same(shelf.read(["ACME"], since, until)["ACME"].frame, years[1])


def test_many_symbols_share_segments_of_a_limited_size(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.cache.writing.MOST_ROWS", 100)
    monkeypatch.setattr(segments, "_GROUP_ROWS", 7)
    frames = {f"S{number}": days(15 + number, seed=number) for number in range(30)}
    put(shelf, **frames)
    entries = shelf.manifest().entries
    assert 1 < len(of_segments(shelf)) < len(frames) / 2
    assert max(place.start + place.count for entry in entries.values() for place in entry.places()) <= 100
    for symbols in (list(frames), ["S7"], ["S29", "S0", "S13"]):
        found = shelf.read(symbols)
        assert all(same(found[symbol].frame, frames[symbol]) for symbol in symbols)


def test_segments_that_are_mostly_out_of_use_and_many_small_ones_are_put_together(shelf: Shelf) -> None:
    frames = {f"S{number}": days(20, seed=number) for number in range(60)}
    for symbol, bars in frames.items():
        put(shelf, **{symbol: bars})
    assert len(of_segments(shelf)) <= 34
    frames = {symbol: bars + 1 for symbol, bars in frames.items()}
    put(shelf, **frames)
    assert len(of_segments(shelf)) == 1
    # All but a few are replaced: those few move on too.
    put(shelf, **{symbol: bars + 1 for symbol, bars in list(frames.items())[:50]})
    assert len(of_segments(shelf)) == 1
    found = shelf.read(list(frames))
    assert all(same(found[s].frame, bars + 1 if n < 50 else bars) for n, (s, bars) in enumerate(frames.items()))


# --- who dies, and who is in the way --------------------------------------------------------------------------------


def _writes_until_killed(folder: Path, seed: int, started: Any) -> None:
    random.seed(seed)
    shelf, number = shelf_in(folder), 0
    while True:
        number += 1
        symbol = f"S{random.randrange(6)}"
        put(shelf, **{symbol: days(50 + number % 50, seed=number)})
        started.set()


def test_killed_writers_leave_a_valid_cache_and_nothing_that_is_never_removed(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    put(shelf, KEPT=days(40))
    for seed in range(4):
        started = [PROCESSES.Event(), PROCESSES.Event()]
        pair = [
            PROCESSES.Process(target=_writes_until_killed, args=(tmp_path, 2 * seed + n, event), daemon=True)
            for n, event in enumerate(started)
        ]
        for process in pair:
            process.start()
        assert started[seed % 2].wait(20)
        for process in pair:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        entries = shelf.manifest().entries
        found = shelf.read(list(entries))
        assert list(found) == list(entries)
        assert all(len(found[s].frame) == entries[s].rows for s in entries)
        assert same(found["KEPT"].frame, days(40))
    (shelf.folder / "leftover.partial").write_bytes(b"half")
    put(shelf, LAST=days(3))
    names = {path.name for path in shelf.folder.iterdir()}
    assert names == {"lock", "manifest.json"} | shelf.manifest().segments()


def _second(folder: Path, waits: Any, done: Any) -> None:
    with writing(shelf_in(folder), waits.set) as writer:
        writer.put({"B": series(days(4))}, about=ABOUT)
    done.set()


def test_a_second_writer_waits_and_says_so(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    waits, done = PROCESSES.Event(), PROCESSES.Event()
    with writing(shelf) as writer:
        process = PROCESSES.Process(target=_second, args=(tmp_path, waits, done), daemon=True)
        process.start()
        assert waits.wait(20)
        assert not done.is_set()
        writer.put({"A": series(days(3))}, about=ABOUT)
    process.join(20)
    assert process.exitcode == 0
    assert {symbol: entry.rows for symbol, entry in shelf.manifest().entries.items()} == {"A": 3, "B": 4}


def test_a_reader_whose_segment_has_been_replaced_looks_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    put(shelf, A=days(3), B=days(5))
    read, replaced = segments.read_segment, []

    def late(path: Path, places: Any) -> Any:
        if not replaced:
            replaced.append(path)
            put(shelf, A=days(4), B=days(6))
        return read(path, places)

    monkeypatch.setattr("engine.data.cache.shelves.read_segment", late)
    found = shelf.read(["A", "B"])
    assert replaced
    assert [len(found[symbol].frame) for symbol in ("A", "B")] == [4, 6]


# --- what is damaged ------------------------------------------------------------------------------------------------


def damages(path: Path) -> Iterator[bytes]:
    """The file with a bit flipped, cut, longer, and empty."""
    whole = path.read_bytes()
    pick = random.Random(len(whole))
    for _ in range(12):
        at = pick.randrange(len(whole))
        yield whole[:at] + bytes([whole[at] ^ (1 << pick.randrange(8))]) + whole[at + 1 :]
    yield whole[: len(whole) // 2]
    yield whole + b"x"
    yield b""


def test_a_damaged_segment_costs_its_own_series_only(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    put(shelf, A=days(30), B=days(30, seed=1))
    put(shelf, C=days(30, seed=2))
    path = next(
        path for path in of_segments(shelf) if shelf.manifest().entries["C"].pieces[0].place.segment != path.name
    )
    whole = path.read_bytes()
    for damaged in damages(path):
        path.write_bytes(damaged)
        caplog.clear()
        assert list(shelf.read(["A", "B", "C"])) == ["C"]
        assert f"{path} is damaged; the bars of A, B count as absent" in caplog.text
    # Written again, they are what they were, and the damaged file is gone.
    again = shelf_in(shelf.root)
    put(again, A=days(30), B=days(30, seed=1))
    assert path.read_bytes() == whole
    assert len(again.read(["A", "B", "C"])) == 3


def test_a_segment_that_is_missing_costs_its_own_series_only(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    put(shelf, A=days(30))
    path = of_segments(shelf)[0]
    put(shelf, B=days(30, seed=1))
    path.unlink()
    assert list(shelf.read(["A", "B"])) == ["B"]
    assert "missing" in caplog.text


def test_a_damaged_manifest_is_as_good_as_none(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    put(shelf, A=days(30))
    path = shelf.folder / "manifest.json"
    whole = path.read_bytes()
    for damaged in (*damages(path), b"[1]", b"null", whole.replace(b'"version":1', b'"version":2')):
        if damaged == whole + b"x":
            continue
        path.write_bytes(damaged)
        caplog.clear()
        found = shelf.manifest()
        # A flipped bit outside of what is vouched for may leave all that matters as it was.
        assert not found.entries or found.entries["A"].rows == 30
        assert bool(found.entries) != ("cannot be used" in caplog.text)
    path.write_bytes(b"{}")
    put(shelf, B=days(3))
    assert set(shelf.read(["A", "B"])) == {"B"}


def test_what_cannot_be_written_is_told_in_a_sentence(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    shelf.root.joinpath("alpaca").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"the cache could not be written \(.*\); make the folder writable"):
        put(shelf, A=days(3))


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEXTBAR_CACHE", raising=False)
    assert cache_folder(tmp_path) == tmp_path / "cache"
    monkeypatch.setenv("NEXTBAR_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder(tmp_path) == tmp_path / "elsewhere"
    put(shelf_in(tmp_path), A=days(3))
    put(shelf_in(tmp_path, "1m"), A=days(3))
    assert [shelf.timeframe for shelf in shelves(tmp_path)] == ["1d", "1m"]
    assert shelves(tmp_path / "nothing") == []


def test_nothing_is_told_of_a_cache_in_order(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        put(shelf, A=days(3))
        put(shelf, B=days(3))
        shelf.read(["A", "B", "C"])
    assert caplog.text == ""


ODD: dict[str, Callable[[dict[str, Any]], None]] = {
    "a segment that is a path": lambda c: c["entries"]["A"]["pieces"][0]["place"].update(segment="../../passwd"),
    "beyond its segment": lambda c: c["entries"]["A"]["pieces"][0]["place"].update(start=10**9),
    "fewer rows": lambda c: c["entries"]["A"]["pieces"][0]["place"].update(count=2),
    "no pieces": lambda c: c["entries"]["A"].update(pieces=[]),
    "rows in words": lambda c: c["entries"]["A"].update(rows="x"),
    "a first bar without words": lambda c: c["entries"]["A"].update(first=5),
    "a list of entries": lambda c: c.update(entries=[]),
    "a list for what they have in common": lambda c: c.update(about=[]),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_a_manifest_that_no_writer_has_written_counts_as_absent(
    shelf: Shelf, change: Callable[[dict[str, Any]], None]
) -> None:
    """Its hash is right: what it says is looked at all the same."""
    put(shelf, A=days(5))
    path = shelf.folder / "manifest.json"
    content = json.loads(path.read_text())["content"]
    change(content)
    text = json.dumps(content, separators=(",", ":"))
    path.write_text(f'{{"sha256":"{hashlib.sha256(text.encode()).hexdigest()}","content":{text}}}\n')
    assert shelf.read(["A"]) == {}
    put(shelf, A=days(5))
    assert same(shelf.read(["A"])["A"].frame, days(5))


def test_who_waits_for_a_shelf_that_is_removed_gets_the_new_one(shelf: Shelf) -> None:
    put(shelf, A=days(3))
    waits = threading.Event()

    def wait() -> None:
        with writing(shelf, waits.set) as writer:
            writer.put({"B": series(days(4))}, about=ABOUT)

    waiting = threading.Thread(target=wait)
    with writing(shelf) as writer:
        waiting.start()
        assert waits.wait(20)
        writer.remove()
    waiting.join(20)
    assert list(shelf.manifest().entries) == ["B"]
    with writing(shelf) as writer:
        writer.put({"C": series(days(2))}, about=ABOUT)
    assert list(shelf.read(["B", "C"])) == ["B", "C"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    shelf = Shelf(root=Path("/proc/nowhere"), source="files", variant="v", timeframe="1d")
    with pytest.raises(StorageError, match="/proc/nowhere"), writing(shelf):
        pass
