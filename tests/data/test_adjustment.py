"""Prices adjusted for splits and dividends: computed by hand, exact where they can be, and told where they cannot."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.config import DataConfig
from engine.data.adjustment import adjusted
from engine.data.bars import COLUMNS, Bars
from engine.data.files.reading import read_files
from engine.data.raw import Raw
from engine.data.samples import load_sample
from engine.data.sources import load_bars, load_benchmark
from engine.errors import ConfigError, DataError

DAYS = ("2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08", "2024-03-11")
CLOSES = (100.0, 102.0, 52.0, 50.0, 49.0, 49.5)
SPLITS = (1.0, 1.0, 2.0, 1.0, 1.0, 1.0)  # two for one on the morning of the 6th
DIVIDENDS = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # one dollar, ex on the 8th: 1 - 1/50 of what was before
TIINGO = "date,open,high,low,close,volume,adjOpen,adjClose,divCash,splitFactor\n"


def read(path: Path, **more: object) -> Bars:
    return load_bars(DataConfig(source="files", symbols=("ACME",), path=path, **more), Path())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acme.csv"
    rows = zip(DAYS, CLOSES, DIVIDENDS, SPLITS, strict=True)
    path.write_text(TIINGO + "".join(f"{day},{c},{c + 1},{c - 1},{c},600,0,0,{d},{s}\n" for day, c, d, s in rows))
    return path


@pytest.mark.parametrize(
    ("asked", "closes", "volumes", "name"),
    [
        (None, CLOSES, [600.0] * 6, "none"),
        ("raw", CLOSES, [600.0] * 6, "none"),
        ("split", [50.0, 51.0, 52.0, 50.0, 49.0, 49.5], [1200.0, 1200.0, *[600.0] * 4], "split"),
        (
            "dividend",
            [100 * 0.98, 102 * 0.98, 52 * 0.98, 50 * 0.98, 49.0, 49.5],
            [*[600 / 0.98] * 4, 600.0, 600.0],
            "dividend",
        ),
        (
            "all",
            [50 * 0.98, 51 * 0.98, 52 * 0.98, 50 * 0.98, 49.0, 49.5],
            [1200 / 0.98, 1200 / 0.98, 600 / 0.98, 600 / 0.98, 600.0, 600.0],
            "all",
        ),
    ],
)
def test_prices_before_an_ex_date_are_scaled(file: Path, asked: str, closes: list, volumes: list, name: str):
    bars = read(file, adjustment=asked)
    frame = bars.frames["ACME"]
    np.testing.assert_allclose(frame["close"], closes, rtol=1e-15)
    np.testing.assert_allclose(frame["volume"], volumes, rtol=1e-15)
    np.testing.assert_allclose(frame["high"] / frame["close"], 1 + 1 / np.array(CLOSES), rtol=1e-14)
    assert bars.adjustment == name


def of(closes: list[float], actions: dict[str, tuple[float, float]], **more: object) -> Raw:
    """A source of days with these closes, and split and dividend by day."""
    index = close_of(pd.bdate_range("2024-03-04", periods=len(closes)))
    frame = pd.DataFrame(dict.fromkeys(COLUMNS[:4], closes) | {"volume": 100.0}, index=index)
    told = pd.DataFrame(
        list(actions.values()), columns=["split", "dividend"], index=close_of(pd.DatetimeIndex(actions))
    )
    given = {"timeframe": "1d", "adjustment": "none", "source": "files", "actions": {"ACME": told}} | more
    return Raw(frames={"ACME": frame}, **given)


def close_of(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(days + pd.Timedelta(hours=21), tz="UTC", name="time").as_unit("ns")


def closes_of(raw: Raw, asked: str) -> list[float]:
    frames, _ = adjusted(raw, raw.frames, asked)
    return frames["ACME"]["close"].tolist()


def test_splits_are_cumulated_exactly():
    # 3:1, 3:2, 1:10 and 7:1 in turn, of which 3 * 3/2 / 10 * 7 = 63/20: each quotient is the nearest float there is.
    actions = {"2024-03-05": (3.0, 0.0), "2024-03-06": (1.5, 0.0), "2024-03-07": (0.1, 0.0), "2024-03-08": (7.0, 0.0)}
    raw = of([189.0] * 5, actions)
    assert closes_of(raw, "split") == [60.0, 180.0, 270.0, 27.0, 189.0]
    frames, _ = adjusted(raw, raw.frames, "split")
    assert frames["ACME"]["volume"].tolist() == [315.0, 105.0, 70.0, 700.0, 100.0]


def test_a_later_split_of_two_changes_no_digit_but_the_scale():
    actions = {"2024-03-06": (3.0, 0.37), "2024-03-08": (1.0, 0.21)}
    closes = [31.7, 29.3, 10.1, 11.3, 12.7, 13.1]
    before = closes_of(of(closes, actions), "all")
    after = closes_of(of(closes, actions | {"2024-03-12": (4.0, 0.0)}), "all")
    assert after == [close / 4.0 for close in before]


def test_an_action_on_a_day_without_a_bar_is_not_lost():
    sunday, before, after = {"2024-03-10": (2.0, 1.0)}, {"2024-03-01": (2.0, 0.0)}, {"2024-03-20": (2.0, 0.0)}
    closes = [20.0, 20.0, 20.0, 20.0, 20.0, 9.0]
    assert closes_of(of(closes, sunday), "all") == [9.5] * 5 + [9.0]
    assert closes_of(of(closes, before), "all") == closes
    assert closes_of(of(closes, after), "all") == [10.0] * 5 + [4.5]


def test_an_action_beside_a_bar_that_is_dropped_is_not_lost(file: Path):
    file.write_text(file.read_text().replace("2024-03-06,52.0,53.0,51.0,52.0", "2024-03-06,,,,"))
    assert read(file, adjustment="split").frames["ACME"]["close"].tolist() == [50.0, 51.0, 50.0, 49.0, 49.5]


def test_minutes_of_the_ex_date_are_after_it(tmp_path: Path):
    path = tmp_path / "acme.csv"
    rows = [
        (f"{day}T{clock}:00-05:00", 2.0 if day.endswith("05") else 1.0)
        for day in DAYS[:2]
        for clock in ("10:00", "10:30")
    ]
    path.write_text("time,open,high,low,close,volume,split_ratio\n" + "".join(f"{t},8,8,8,8,1,{s}\n" for t, s in rows))
    # The split stands beside both bars of its day, and is one.
    bars = read(path, timeframe="30m", adjustment="split")
    assert bars.frames["ACME"]["close"].tolist() == [4.0, 4.0, 8.0, 8.0]


def test_the_order_of_actions_does_not_matter():
    closes = [10.0, 11.0, 12.0, 13.0]
    actions = {"2024-03-05": (2.0, 0.5), "2024-03-06": (1.0, 0.7)}
    backwards = dict(reversed(actions.items()))
    assert closes_of(of(closes, actions), "all") == closes_of(of(closes, backwards), "all")


def test_an_adjusted_close_alone_serves_for_both(tmp_path: Path):
    path = tmp_path / "acme.csv"
    path.write_text("date,open,high,low,close,volume,adjusted_close\n" + "".join(f"{d},8,8,4,8,6,2\n" for d in DAYS))
    bars = read(path, adjustment="all")
    assert bars.frames["ACME"].iloc[0].tolist() == [2.0, 2.0, 1.0, 2.0, 24.0]
    assert bars.adjustment == "all"
    with pytest.raises(ConfigError, match=r"data.adjustment: .*acme.csv does not tell splits, found split; expected"):
        read(path, adjustment="split")
    path.write_text(path.read_text().replace("2024-03-06,8,8,4,8,6,2", "2024-03-06,8,8,4,8,6,"))
    with pytest.raises(DataError, match=r"the bar of 2024-03-06 21:00 UTC has no adjusted close above zero"):
        read(path, adjustment="all")


def test_adjusted_closes_give_what_the_sample_has(tmp_path: Path):
    table = pd.read_csv(_packaged())
    table[table["Ticker"] == "AAPL"].drop(columns="Ticker").to_csv(tmp_path / "aapl.csv", index=False)
    data = DataConfig(source="files", symbols=("AAPL",), path=tmp_path / "aapl.csv", adjustment="all")
    found = load_bars(data, Path()).frames["AAPL"]
    pd.testing.assert_frame_equal(found, load_sample("tech", ("AAPL",)).frames["AAPL"], rtol=1e-15, check_freq=False)


def _packaged() -> Path:
    import bokeh_sampledata

    return Path(str(bokeh_sampledata.__file__)).parent / "_data" / "stocks.csv.gz"


def test_what_is_done_already_is_neither_undone_nor_done_twice(tmp_path: Path):
    path = tmp_path / "acme.csv"
    header = "Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits\n"
    rows = zip(DAYS, (0, 0, 0, 1, 0, 0), (0, 0, 2, 0, 0, 0), strict=True)
    path.write_text(header + "".join(f"{day},50,50,50,50,49,600,{d},{s}\n" for day, d, s in rows))
    assert read(path, adjustment="split").frames["ACME"]["close"].tolist() == [50.0] * 6
    bars = read(path, adjustment="all")
    np.testing.assert_allclose(bars.frames["ACME"]["close"], [49.0] * 3 + [50.0] * 3)
    assert bars.adjustment == "all"
    with pytest.raises(ConfigError, match=r"adjusted already \(split\), found raw; expected split or all"):
        read(path, adjustment="raw")


def test_a_source_without_a_word_of_them_cannot_be_adjusted(tmp_path: Path):
    path = tmp_path / "acme.csv"
    path.write_text("date,open,high,low,close,volume\n" + "".join(f"{day},1,1,1,1,1\n" for day in DAYS))
    with pytest.raises(ConfigError, match="does not tell dividends and splits, found all"):
        read(path, adjustment="all")
    assert read(path, adjustment="raw").adjustment == "none"
    with pytest.raises(ConfigError, match="sample:tech has one adjustment only"):
        load_bars(DataConfig(source="sample:tech", symbols=("AAPL",), adjustment="all"), tmp_path)


def test_a_benchmark_is_adjusted_where_it_can_be(file: Path):
    plain = file.parent / "index.csv"
    plain.write_text("date,open,high,low,close,volume\n" + "".join(f"{day},1,1,1,1,1\n" for day in DAYS))
    data = DataConfig(source="files", symbols=("ACME",), path=file, adjustment="all", benchmark="index.csv")
    assert load_benchmark(data, file.parent).adjustment == "none"
    assert load_benchmark(data.model_copy(update={"benchmark": "acme.csv"}), file.parent).adjustment == "all"


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ((-2.0, 0.0), "2024-03-06: a split into -2 shares cannot be"),
        ((1e9, 0.0), "a split into 1e[+]09 shares cannot be"),
        ((1.0, -0.5), "a dividend of -0.5 cannot be paid out of a close of 11"),
        ((1.0, 11.0), "a dividend of 11 cannot be paid out of a close of 11"),
    ],
)
def test_actions_that_cannot_be_are_refused(action: tuple[float, float], message: str):
    with pytest.raises(DataError, match=message):
        closes_of(of([10.0, 11.0, 12.0], {"2024-03-06": action}), "all")


def test_factors_beyond_the_reach_of_numbers_are_refused():
    days = [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2024-03-05", periods=60)]
    for ratio in (1e6, 1e-6):
        with pytest.raises(DataError, match="beyond the reach of numbers"):
            closes_of(of([10.0] * 61, dict.fromkeys(days, (ratio, 0.0))), "split")


def test_columns_of_splits_dividends_and_adjusted_closes_are_mapped(file: Path):
    file.write_text(
        file.read_text().replace("divCash", "Bar").replace("splitFactor", "Teil").replace("adjClose", "Ber")
    )
    columns = {"dividend": "Bar", "split": "Teil"}
    assert read(file, adjustment="all", columns=columns).frames["ACME"]["close"].iloc[0] == pytest.approx(49.0)
    with pytest.raises(DataError, match="no adjusted close above zero"):
        read(file, adjustment="all", columns={"adjusted": "Ber"})


def test_files_that_are_adjusted_otherwise_are_not_mixed(tmp_path: Path):
    rows = "".join(f"{day},1,1,1,1,1,1\n" for day in DAYS)
    (tmp_path / "A.csv").write_text("Date,Open,High,Low,Close,Adj Close,Volume\n" + rows)
    (tmp_path / "B.csv").write_text("Date,Open,High,Low,Close,Volume,Adj Close\n" + rows)
    with pytest.raises(DataError, match=r"some files are adjusted \(none, split\) and others otherwise"):
        load_bars(DataConfig(source="files", symbols="all", path=tmp_path), Path())


def rows_with_adjusted(tmp_path: Path, *changes: str) -> Path:
    """Five days whose adjusted close is a half, with lines put in behind the third."""
    days = ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08"]
    lines = [f"{day},100,101,99,{100 + i},1000,{(100 + i) / 2}" for i, day in enumerate(days)]
    lines[3:3] = changes
    path = tmp_path / "A.csv"
    path.write_text("\n".join(["date,open,high,low,close,volume,adjusted", *lines]) + "\n")
    return path


def adjusted_closes(path: Path, cleaning: dict[str, str]) -> list[float]:
    data = DataConfig.model_validate(
        {
            "source": "files", "symbols": ["A"], "path": path, "adjustment": "all", "cleaning": cleaning,
            "columns": {"adjusted": "adjusted"},
        }
    )  # fmt: skip
    return load_bars(data, Path()).frames["A"]["close"].tolist()


@pytest.mark.parametrize("close", ["102", "101"])
def test_of_a_day_that_is_there_twice_the_kept_rows_factor_counts(tmp_path: Path, close: str):
    path = rows_with_adjusted(tmp_path, f"2024-01-04,100,103,99,{close},1000,{float(close) / 4}")
    assert adjusted_closes(path, {"conflict": "drop"})[2] == float(close) / 4


def test_a_repaired_close_takes_the_factor_of_the_bar_before_it(tmp_path: Path):
    raw = read_raw_of(rows_with_adjusted(tmp_path))
    frame = raw.frames["A"].assign(close=[100.0, 101.0, 90.0, 103.0, 104.0])
    assert adjusted(raw, {"A": frame}, "all")[0]["A"]["close"].tolist() == [50.0, 50.5, 45.0, 51.5, 52.0]


def read_raw_of(path: Path) -> Raw:
    data = {"source": "files", "symbols": ["A"], "path": path, "columns": {"adjusted": "adjusted"}}
    return read_files(DataConfig.model_validate(data), Path())
