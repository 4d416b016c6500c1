"""``data.universe``: what is asked of a source, what it lacks, and what training takes of it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from engine.config import DataConfig
from engine.data.bars import Bars
from engine.data.cache.ranges import Fetched
from engine.data.sources import load_bars
from engine.errors import ConfigError, DataError

SPELLS = "symbol,start,end\nAAPL,2000-01-03,\nIBM,2000-01-03,2005-01-03\nZZZ,2000-01-03,\n"
ROWS = "2004-03-04,10,12,9,11,100\n2004-03-05,11,12,9,10,100\n2004-03-08,10,11,9,10,90\n"


def loaded(folder: Path, *, within: tuple[date, date] | None = None, spells: str = SPELLS, **data: Any) -> Bars:
    (folder / "universe.csv").write_text(spells)
    section = {"source": "sample:tech", "universe": "universe.csv", **data}
    return load_bars(DataConfig.model_validate(section), folder, within=within)


def test_without_symbols_everyone_is_asked_for_who_was_a_member_in_the_spans(tmp_path: Path) -> None:
    assert loaded(tmp_path).symbols == ("AAPL", "IBM")
    assert loaded(tmp_path, within=(date(2005, 1, 3), date(2009, 1, 2))).symbols == ("AAPL",)
    assert loaded(tmp_path, within=(date(2004, 12, 31), date(2009, 1, 2))).symbols == ("AAPL", "IBM")
    assert loaded(tmp_path, symbols="all").symbols == ("AAPL", "IBM")


def test_symbols_by_name_are_those_of_them_that_were_members(tmp_path: Path) -> None:
    assert loaded(tmp_path, symbols=["MSFT", "IBM"]).symbols == ("IBM",)
    with pytest.raises(ConfigError, match=r"none of its 3 members is among data.symbols: found AAPL, IBM, ZZZ"):
        loaded(tmp_path, symbols=["MSFT"])
    with pytest.raises(ConfigError, match=r"data.symbols: sample:tech has no symbol ZZZ"):
        loaded(tmp_path, symbols=["ZZZ"])


def test_a_folder_and_a_long_file_may_lack_members_and_hold_others(tmp_path: Path) -> None:
    prices = tmp_path / "prices"
    prices.mkdir()
    for name in ("AAPL", "OTHER"):
        (prices / f"{name}.csv").write_text("date,open,high,low,close,volume\n" + ROWS)
    assert loaded(tmp_path, source="files", path="prices").symbols == ("AAPL",)
    rows = "".join(f"{symbol},{row}\n" for symbol in ("IBM", "OTHER") for row in ROWS.splitlines())
    (tmp_path / "long.csv").write_text("symbol,date,open,high,low,close,volume\n" + rows)
    bars = loaded(tmp_path, source="files", path="long.csv")
    assert bars.symbols == ("IBM",)
    assert bars.membership is not None
    assert bars.between(pd.Timestamp("2004-03-05", tz="UTC")).membership is bars.membership


def test_a_member_with_a_single_bar_is_left_out_unless_it_is_named(tmp_path: Path) -> None:
    prices = tmp_path / "prices"
    prices.mkdir()
    header = "date,open,high,low,close,volume\n"
    more = "".join(f"2004-03-{day:02},10,11,9,10,90\n" for day in (9, 10, 11, 12, 15, 16, 17, 18, 19))
    (prices / "AAPL.csv").write_text(header + ROWS + more)
    (prices / "IBM.csv").write_text(header + ROWS.splitlines()[0] + "\n")
    (prices / "ZZZ.csv").write_text(header + ROWS)
    folder = {"source": "files", "path": "prices"}
    assert loaded(tmp_path, **folder).symbols == ("AAPL", "ZZZ")
    with pytest.raises(DataError, match=r"IBM: at least two bars are needed, found 1"):
        loaded(tmp_path, symbols=["AAPL", "IBM"], **folder)
    # Three days make a part of the first week, which is left out, and one week more.
    assert loaded(tmp_path, timeframe="1w", base="1d", **folder).symbols == ("AAPL",)


def test_nobody_is_an_error_and_so_is_a_universe_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of its 1 members is among those that sample:tech has: found ZZZ"):
        loaded(tmp_path, spells="symbol,start,end\nZZZ,2000-01-03,\n")
    with pytest.raises(ConfigError, match="none in this period"):
        loaded(tmp_path, within=(date(1990, 1, 1), date(1999, 1, 1)))
    with pytest.raises(DataError, match=r"universe.csv, row 2"):
        loaded(tmp_path, spells="symbol,start,end\nAAPL,soon,\n")
    with pytest.raises(ConfigError, match=r"data.universe: there is no file"):
        load_bars(DataConfig.model_validate({"source": "sample:tech", "universe": "none.csv"}), tmp_path)


def test_symbols_are_required_without_a_universe() -> None:
    with pytest.raises(ValidationError, match="symbols"):
        DataConfig.model_validate({"source": "sample:tech"})
    with pytest.raises(ValidationError, match="empty list"):
        DataConfig.model_validate({"source": "sample:tech", "universe": "u.csv", "symbols": []})


def test_bars_know_at_which_of_them_a_symbol_is_a_member(tmp_path: Path) -> None:
    bars = loaded(tmp_path)
    assert bars.inside is not None
    assert bars.inside["AAPL"].all()
    left = pd.DatetimeIndex(bars.frames["IBM"].index)[bars.inside["IBM"]]
    assert (str(left[0].date()), str(left[-1].date())) == ("2000-03-01", "2004-12-31")
    assert np.count_nonzero(bars.inside["IBM"]) == len(left)


class Service:
    """A source on the network that has bars of some symbols, and remembers for whom it was asked."""

    name, variant, timeframe, adjustment, words = "yahoo", "all", "1d", "all", "the service"
    lasting, most_symbols = True, 100

    def __init__(self, *known: str) -> None:
        self.known = known
        self.asked: set[str] = set()

    def now(self) -> pd.Timestamp:
        return pd.Timestamp("2004-06-01", tz="UTC")

    def fetch(self, symbols: Any, first: date, last: date | None, *, now: pd.Timestamp) -> dict[str, Fetched]:
        self.asked |= set(symbols)
        ends = pd.DatetimeIndex(["2004-03-04 21:00", "2004-03-05 21:00"], tz="UTC", name="time").as_unit("ns")
        frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0), index=ends)
        return {symbol: Fetched(frame=frame if symbol in self.known else frame.iloc[:0]) for symbol in symbols}


@pytest.mark.parametrize("cached", [False, True])
def test_members_that_a_service_does_not_have_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    service = Service("IBM")
    monkeypatch.setattr("engine.data.sources.network_source", lambda data, folder: service)
    (tmp_path / "universe.csv").write_text(SPELLS)
    asked = {"source": "yahoo", "universe": "universe.csv", "start": "2004-03-01"}
    root = tmp_path if cached else None
    within = (date(2004, 3, 1), date(2004, 4, 1))
    bars = load_bars(DataConfig.model_validate(asked), tmp_path, root=root, within=within)
    assert service.asked == {"AAPL", "IBM", "ZZZ"}
    assert bars.symbols == ("IBM",)
    named = DataConfig.model_validate({**asked, "symbols": ["AAPL", "IBM"]})
    with pytest.raises(DataError, match="AAPL: at least two bars are needed"):
        load_bars(named, tmp_path, root=root, within=within)
