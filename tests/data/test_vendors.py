"""What the usual vendors write is read without a word in the run file. The bars are made up, the layouts are theirs."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from vendor_samples import DAILY, SAMPLES, Sample

from engine.config import DataConfig
from engine.data.raw import Raw
from engine.data.sources import load_bars, read_raw
from engine.errors import DataError


def data_of(sample: Sample, path: Path, **more: object) -> DataConfig:
    settings = {"timeframe": sample.timeframe, **sample.settings, **more}
    return DataConfig(source="files", symbols=(sample.symbol,), path=path, **settings)


def ends(frame: pd.DataFrame) -> tuple[str, ...]:
    return tuple(f"{time:%m-%d %H:%M}" for time in frame.index)


@pytest.fixture(params=SAMPLES.values(), ids=SAMPLES.keys())
def sample(request: pytest.FixtureRequest) -> Sample:
    return request.param


def assert_read(raw: Raw, sample: Sample) -> None:
    frame = raw.frames[sample.symbol]
    assert ends(frame) == sample.ends
    assert tuple(frame.iloc[0]) == sample.first
    assert raw.adjustment == sample.adjustment
    if sample.actions is not None:
        told = raw.actions[sample.symbol]
        assert list(zip(ends(told), told["split"], told["dividend"], strict=True)) == list(sample.actions)


def test_a_vendors_text_is_read(sample: Sample, tmp_path: Path):
    path = tmp_path / "ACME.csv"
    path.write_text(sample.text, encoding="utf-8")
    assert_read(read_raw(data_of(sample, path), tmp_path), sample)
    assert ends(load_bars(data_of(sample, path), tmp_path).frames[sample.symbol]) == sample.ends


@pytest.mark.parametrize("name", ["acme.us.txt", "ACME.US.CSV", "acme.us.tsv"])
def test_whatever_the_file_is_called(tmp_path: Path, name: str):
    stooq = SAMPLES["stooq archive"]
    (tmp_path / name).write_text(stooq.text)
    assert_read(read_raw(data_of(stooq, tmp_path), tmp_path), stooq)


def test_a_packed_file_is_read(sample: Sample, tmp_path: Path):
    path = tmp_path / f"{sample.symbol}.csv.gz"
    path.write_bytes(gzip.compress(sample.text.encode()))
    assert_read(read_raw(data_of(sample, path), tmp_path), sample)
    assert_read(read_raw(data_of(sample, tmp_path), tmp_path), sample)


def test_a_file_in_utf_16_is_read(sample: Sample, tmp_path: Path):
    path = tmp_path / "ACME.csv"
    path.write_text(sample.text.removeprefix("\ufeff"), encoding="utf-16")
    assert_read(read_raw(data_of(sample, path), tmp_path), sample)


@pytest.mark.parametrize("name", ["polygon", "alpaca", "databento", "tiingo", "yfinance history", "backtrader"])
def test_a_vendors_table_is_read_from_parquet(name: str, tmp_path: Path):
    sample = SAMPLES[name]
    text = tmp_path / "ACME.csv"
    text.write_text(sample.text)
    table = pd.read_csv(text)
    table.to_parquet(tmp_path / "ACME.parquet")
    assert_read(read_raw(data_of(sample, tmp_path / "ACME.parquet"), tmp_path), sample)


def test_the_run_file_says_better_how_bars_are_stamped(tmp_path: Path):
    path = tmp_path / "ACME.csv"
    for name in ("polygon", "alpaca", "kibot", "firstrate", "databento"):
        path.write_text(SAMPLES[name].text)
        raw = read_raw(data_of(SAMPLES[name], path, stamp="end"), tmp_path)
        assert ends(raw.frames["ACME"]) == ("01-31 14:30", "01-31 14:35", "01-31 14:40")


def test_rows_newest_first_keep_their_numbers(tmp_path: Path):
    path = tmp_path / "ACME.csv"
    path.write_text(SAMPLES["nasdaq"].text)
    assert read_raw(data_of(SAMPLES["nasdaq"], path), tmp_path).rows["ACME"].tolist() == [4, 3, 2]


def test_numbers_written_for_people_are_numbers_of_those_vendors_only(tmp_path: Path):
    path = tmp_path / "ACME.csv"
    path.write_text("date,open,high,low,close,volume\n2024-01-30,10,12,9,11,1.2M\n2024-01-31,10,12,9,11,5\n")
    with pytest.raises(DataError, match=r"row 2: the volume is not a number, found '1.2M'"):
        read_raw(data_of(SAMPLES["stooq"], path), tmp_path)
    path.write_text(SAMPLES["nasdaq"].text.replace("$12.50", "twelve"))
    with pytest.raises(DataError, match=r"row 2: the high is not a number, found 'twelve'"):
        read_raw(data_of(SAMPLES["nasdaq"], path), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-30,10,9,12,11,5\n2024-01-31,10,12,9,11,5\n",  # the second number is not the highest
        "2024-01-30,10,12,9,11\n2024-01-31,10,12,9,11\n",  # four numbers
        "ACME,2024-01-30,10,12,9,11,5\nACME,2024-01-31,10,12,9,11,5\n",
        "2024-01-30,10,12,9,11,5\n2024-01-31,10,12,9,x,5\n",
    ],
)
def test_a_file_without_a_header_is_read_only_where_there_is_no_doubt(text: str, tmp_path: Path):
    path = tmp_path / "ACME.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="no column for the time"):
        read_raw(data_of(SAMPLES["stooq"], path), tmp_path)


def dated(folder: Path, *dates: str) -> Path:
    path = folder / "ACME.csv"
    path.write_text("date,open,high,low,close,volume\n" + "".join(f"{date},10,12,9,11,5\n" for date in dates))
    return path


def test_day_and_month_are_told_by_the_dates_that_can_be_one_only(tmp_path: Path):
    plain = SAMPLES["stooq"]
    for dates in (("01/02/2024", "31/01/2024"), ("1-2-2024", "31-1-2024"), ("02/01/2024", "01/31/2024")):
        raw = read_raw(data_of(plain, dated(tmp_path, *dates)), tmp_path)
        assert ends(raw.frames["ACME"]) == ("02-01 21:00", "01-31 21:00")


def test_day_and_month_that_cannot_be_told_apart_are_an_error(tmp_path: Path):
    plain = SAMPLES["stooq"]
    path = dated(tmp_path, "01/02/2024", "05/02/2024")
    with pytest.raises(
        DataError, match=r"01/02/2024, day and month cannot .* no day is above 12; set data.date_format"
    ):
        read_raw(data_of(plain, path), tmp_path)
    raw = read_raw(data_of(plain, path, date_format="%d/%m/%Y"), tmp_path)
    assert ends(raw.frames["ACME"]) == ("02-01 21:00", "02-05 21:00")
    raw = read_raw(data_of(plain, path, date_format="%m/%d/%Y"), tmp_path)
    assert ends(raw.frames["ACME"]) == ("01-02 21:00", "05-02 20:00")
    with pytest.raises(DataError, match=r"row 2: the time '13/13/2024' is not written as data.date_format says"):
        read_raw(data_of(plain, dated(tmp_path, "13/13/2024"), date_format="%m/%d/%Y"), tmp_path)
    with pytest.raises(DataError, match="days above 12 in both places"):
        read_raw(data_of(plain, dated(tmp_path, "01/31/2024", "31/01/2024")), tmp_path)


def test_a_price_that_databento_does_not_have_is_missing(tmp_path: Path):
    path = tmp_path / "ACME.csv"
    path.write_text(SAMPLES["databento"].text.replace("9750000000", str(2**63 - 1)))
    raw = read_raw(data_of(SAMPLES["databento"], path), tmp_path)
    np.testing.assert_array_equal(raw.frames["ACME"].iloc[0], [10.5, 12.25, np.nan, 11.0, 1234567.0])


def test_a_folder_of_days_that_each_hold_many_symbols_is_one_history(tmp_path: Path):
    rows = SAMPLES["polygon, days"].text.splitlines()
    for number, row in enumerate(rows[1:]):
        text = "\n".join([rows[0], row, row.replace("ACME", "OTHER"), ""])
        (tmp_path / f"2024-01-{number}.csv.gz").write_bytes(gzip.compress(text.encode()))
    for symbols in (("ACME", "OTHER"), "all"):
        raw = read_raw(DataConfig(source="files", symbols=symbols, path=tmp_path), Path())
        assert list(raw.frames) == ["ACME", "OTHER"]
        for frame in raw.frames.values():
            assert ends(frame) == DAILY
    assert raw.origin("ACME") == f"{tmp_path}, ACME"
    assert not raw.rows


def test_a_partitioned_data_set_is_read(tmp_path: Path):
    frame = pd.DataFrame(
        {"date": pd.DatetimeIndex(["2024-01-30", "2024-01-31"]), "open": 10.0, "high": 12.0, "low": 9.0}
    )
    frame = frame.assign(close=11.0, volume=100)
    for symbol in ("ACME", "OTHER"):
        for year in (2023, 2024):
            folder = tmp_path / f"symbol={symbol}" / f"year={year}"
            folder.mkdir(parents=True)
            moved = frame.assign(date=frame["date"] - pd.Timedelta(days=364 * (2024 - year)))
            moved.to_parquet(folder / "part-0.parquet")
    raw = read_raw(DataConfig(source="files", symbols=("OTHER",), path=tmp_path), Path())
    assert [f"{time:%Y-%m-%d}" for time in raw.frames["OTHER"].index] == [
        "2023-01-31",
        "2023-02-01",
        "2024-01-30",
        "2024-01-31",
    ]


def test_members_are_found_in_a_folder_of_long_files(tmp_path: Path):
    folder = tmp_path / "days"
    folder.mkdir()
    rows = SAMPLES["polygon, days"].text.splitlines()
    for number, row in enumerate(rows[1:]):
        (folder / f"{number}.csv").write_text("\n".join([rows[0], row, row.replace("ACME", "OTHER"), ""]))
    (tmp_path / "members.csv").write_text("symbol,start,end\nACME,2020-01-02,\nGONE,2020-01-02,\n")
    bars = load_bars(DataConfig(source="files", universe=tmp_path / "members.csv", path=folder), tmp_path)
    assert bars.symbols == ("ACME",)
