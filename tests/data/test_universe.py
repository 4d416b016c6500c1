"""The point-in-time universe: spells from a file, who was a member when, and who of them has bars."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.calendars import session_closes, sessions_of
from engine.data.universe import Membership, read_universe, survivorship
from engine.errors import ConfigError, DataError

SPELLS = """ticker,start_date,end_date
B,2020-01-06,2020-01-08
A,2020-01-02,
B,2020-01-10,
C,2019-06-03,2020-01-06
"""


def written(folder: Path, text: str = SPELLS) -> Path:
    path = folder / "universe.csv"
    path.write_text(text)
    return path


def closes(*days: str) -> pd.DatetimeIndex:
    return session_closes(pd.DatetimeIndex(days))


def test_the_end_is_the_first_day_outside(tmp_path: Path) -> None:
    universe = read_universe(written(tmp_path))
    times = closes("2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08", "2020-01-09", "2020-01-10", "2020-01-13")
    assert universe.mask("B", times).tolist() == [False, True, True, False, False, True, True]
    assert universe.members(date(2020, 1, 3)) == {"A", "C"}
    # On the day of a change the one that joins is in, and the one that leaves is out.
    assert universe.members(date(2020, 1, 6)) == {"A", "B"}
    assert universe.members(date(2019, 1, 1)) == frozenset()
    assert universe.mask("UNKNOWN", times).tolist() == [False] * 7


def test_a_period_counts_everyone_who_was_in_on_some_day_of_it(tmp_path: Path) -> None:
    universe = read_universe(written(tmp_path))
    assert universe.symbols == ("A", "B", "C")
    assert universe.between(date(2020, 1, 8), date(2020, 1, 9)) == ("A",)
    assert universe.between(date(2020, 1, 8), date(2020, 1, 10)) == ("A", "B")
    assert universe.between(date(2020, 1, 5), date(2020, 1, 5)) == ("A", "C")
    assert universe.between(date(2018, 1, 1), date(2018, 12, 31)) == ()


def test_a_bar_belongs_to_its_session_in_new_york(tmp_path: Path) -> None:
    universe = read_universe(written(tmp_path, "symbol,start,end\nX,2020-07-02,2020-07-03\n"))
    # 20:30 in New York is the next day in UTC; a bar that ends at midnight belongs to the day that ends.
    times = pd.DatetimeIndex(["2020-07-02 04:00", "2020-07-02 04:01", "2020-07-03 00:30", "2020-07-03 04:00"], tz="UTC")
    assert universe.mask("X", times).tolist() == [False, True, True, True]
    assert ["X" in universe.members_at(time) for time in times.as_unit("ns").asi8] == [False, True, True, True]
    assert universe.refusal("X", int(times.as_unit("ns").asi8[1])) == ""
    assert universe.refusal("X", int(times.as_unit("ns").asi8[0])) == "data.universe: X is no member on 2020-07-01"


def test_spells_that_touch_are_one_and_the_digest_knows_only_days(tmp_path: Path) -> None:
    whole = read_universe(written(tmp_path, "symbol,start,end\nX,2020-01-02,2020-02-03\nY,2020-01-02,\n"))
    parts = "Ticker,From,To,note\nY,2020-01-02,,x\nX,2020-01-10,2020-02-03,\nX,2020-01-02,2020-01-10,\n\n"
    halves = read_universe(written(tmp_path, parts))
    assert halves.digest == whole.digest
    assert halves.members(date(2020, 1, 10)) == {"X", "Y"}
    later = read_universe(written(tmp_path, "symbol,start,end\nX,2020-01-02,2020-02-04\nY,2020-01-02,\n"))
    assert later.digest != whole.digest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no column for the symbol of spells; expected symbol or ticker or name, found an empty file"),
        ("symbol,start\nA,2020-01-02\n", "no column for the end"),
        ("symbol,start,end\n", "no members"),
        ("symbol,start,end\nA,2020-01-02\n", "row 2: expected 3 columns, found 2"),
        ("symbol,start,end\n,2020-01-02,\n", "row 2: expected a symbol"),
        ("symbol,start,end\nA B,2020-01-02,\n", "row 2: expected a symbol"),
        ("symbol,start,end\nA,2020-01-02,\nB,,\n", "row 3: the start of B is no day"),
        ("symbol,start,end\nA,2020-02-30,\n", "found '2020-02-30'"),
        ("symbol,start,end\nA,1.2.2020,\n", "expected one such as 2004-09-01, found '1.2.2020'"),
        ("symbol,start,end\nA,2020-01-02,20200203\n", "row 2: the end of A is no day"),
        ("symbol,start,end\nA,2020-01-02,2020-01-02\n", "row 2: A leaves on 2020-01-02, which must be after"),
        ("symbol,start,end\nA,2020-01-02,2019-01-02\n", "row 2: A leaves on 2019-01-02"),
        (
            "symbol,start,end\nA,2020-01-02,\nB,2020-01-02,\nA,2020-03-02,2020-04-01\n",
            "row 4: A joins on 2020-03-02, when by row 2 it is a member still",
        ),
        (
            "symbol,start,end\nA,2020-03-02,2020-04-01\nA,2020-01-02,2020-03-03\n",
            "row 2: A joins on 2020-03-02, when by row 3 it is a member until 2020-03-03",
        ),
    ],
)
def test_what_a_universe_cannot_be(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError) as caught:
        read_universe(written(tmp_path, text))
    assert complaint in str(caught.value)
    assert "universe.csv" in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.universe: there is no file"):
        read_universe(tmp_path / "none.csv")
    path = tmp_path / "bytes.csv"
    path.write_bytes(b"symbol,start,end\n\xff\xfe,2020-01-02,\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_universe(path)


def test_members_without_bars_are_counted(tmp_path: Path) -> None:
    universe = read_universe(written(tmp_path))
    after = closes("2020-01-08", "2020-01-09")
    # B has bars in the period, but none while it was a member.
    found = survivorship(universe, {"A": after, "B": after}, (date(2020, 1, 3), date(2020, 1, 9)), named=False)
    assert (found.members, found.with_bars, found.without_bars) == (3, 1, 2)
    assert found.sentence == "2 of 3 members have no bars"
    assert found.entry()["without_bars_pct"] == 66.67
    # A bar out of the period is none in it.
    found = survivorship(universe, {"A": closes("2020-02-03")}, (date(2020, 1, 8), date(2020, 1, 9)), named=True)
    assert found.sentence == "1 of 1 members take no part"


DAYS = st.integers(0, 60).map(lambda number: date(2020, 1, 1) + timedelta(days=number))


@settings(max_examples=50, deadline=None)
@given(st.lists(DAYS, min_size=2, max_size=8, unique=True).map(sorted), st.booleans())
def test_mask_members_and_between_say_the_same(days: list[date], still: bool) -> None:
    pairs = list(zip(days[::2], days[1::2], strict=False))
    spells = [(start, None if still and end == days[-1] else end) for start, end in pairs]
    universe = Membership({"X": tuple(spells)})
    times = pd.date_range("2019-12-20", "2020-03-20", tz="UTC").shift(18, "h").as_unit("ns")
    expected = [
        any(start <= day.date() and (end is None or day.date() < end) for start, end in spells)
        for day in sessions_of(times)
    ]
    assert universe.mask("X", times).tolist() == expected
    assert ["X" in universe.members_at(int(time)) for time in times.asi8] == expected
    for at in range(0, len(times) - 3, 7):
        window = sessions_of(times[at : at + 3])
        inside = universe.between(window[0].date(), window[-1].date()) == ("X",)
        assert inside == bool(np.any(expected[at : at + 3]))
