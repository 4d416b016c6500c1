"""What the usual vendors write is read without a word in the run file. The bars are made up, the layouts are theirs."""

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.config import DataConfig
from engine.data.raw import Raw
from engine.data.sources import load_bars, read_raw
from engine.errors import DataError

NEW_YORK = "America/New_York"


@dataclass(frozen=True)
class Sample:
    """A vendor's file, and what is in it: ends of all bars, the first bar, and how the prices are adjusted."""

    text: str
    ends: tuple[str, ...]
    first: tuple[float, ...]
    timeframe: str = "1d"
    symbol: str = "ACME"
    adjustment: str = "none"
    actions: tuple[tuple[str, float, float], ...] | None = None
    settings: dict = field(default_factory=dict)


DAILY = ("01-30 21:00", "01-31 21:00", "02-01 21:00")
FIVES = ("01-31 14:35", "01-31 14:40", "01-31 14:45")
FIRST = (10.5, 12.25, 9.75, 11.0, 1234567.0)

SAMPLES = {
    "yahoo": Sample(
        """Date,Open,High,Low,Close,Adj Close,Volume
2024-01-30,10.500000,12.250000,9.750000,11.000000,10.812346,1234567
2024-01-31,11.000000,12.000000,10.000000,11.500000,11.303816,2234567
2024-02-01,11.500000,12.500000,11.000000,12.000000,12.000000,3234567
""",
        DAILY,
        FIRST,
        adjustment="split",
    ),
    "yahoo until 2017": Sample(
        """Date,Open,High,Low,Close,Volume,Adj Close
2024-01-30,10.5,12.25,9.75,11.0,1234567,10.812346
2024-01-31,11.0,12.0,10.0,11.5,2234567,11.303816
2024-02-01,11.5,12.5,11.0,12.0,3234567,12.0
""",
        DAILY,
        FIRST,
    ),
    "yfinance history": Sample(
        """Date,Open,High,Low,Close,Volume,Dividends,Stock Splits
2024-01-30 00:00:00-05:00,10.5,12.25,9.75,11.0,1234567,0.0,0.0
2024-01-31 00:00:00-05:00,11.0,12.0,10.0,11.5,2234567,0.25,0.0
2024-02-01 00:00:00-05:00,11.5,12.5,11.0,12.0,3234567,0.0,4.0
""",
        DAILY,
        FIRST,
        adjustment="all",
        actions=(("01-31 21:00", 1.0, 0.25), ("02-01 21:00", 4.0, 0.0)),
    ),
    "yfinance history, not adjusted": Sample(
        """Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits
2024-01-30 00:00:00-05:00,10.5,12.25,9.75,11.0,10.8,1234567,0.0,0.0
2024-01-31 00:00:00-05:00,11.0,12.0,10.0,11.5,11.5,2234567,0.25,0.0
2024-02-01 00:00:00-05:00,11.5,12.5,11.0,12.0,12.0,3234567,0.0,0.0
""",
        DAILY,
        FIRST,
        adjustment="split",
        actions=(("01-31 21:00", 1.0, 0.25),),
    ),
    "yfinance download": Sample(
        """Price,Close,High,Low,Open,Volume
Ticker,ACME,ACME,ACME,ACME,ACME
Date,,,,,
2024-01-30,11.0,12.25,9.75,10.5,1234567
2024-01-31,11.5,12.0,10.0,11.0,2234567
2024-02-01,12.0,12.5,11.0,11.5,3234567
""",
        DAILY,
        FIRST,
        adjustment="all",
    ),
    "yfinance, minutes": Sample(
        """Datetime,Open,High,Low,Close,Adj Close,Volume
2024-01-31 09:30:00-05:00,10.5,12.25,9.75,11.0,11.0,1234567
2024-01-31 09:35:00-05:00,11.0,12.0,10.0,11.5,11.5,2234567
2024-01-31 09:40:00-05:00,11.5,12.5,11.0,12.0,12.0,3234567
""",
        FIVES,
        FIRST,
        timeframe="5m",
        adjustment="split",
    ),
    "stooq": Sample(
        """Date,Open,High,Low,Close,Volume
2024-01-30,10.5,12.25,9.75,11,1234567
2024-01-31,11,12,10,11.5,2234567
2024-02-01,11.5,12.5,11,12,3234567
""",
        DAILY,
        FIRST,
    ),
    "stooq archive": Sample(
        """<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>
ACME.US,D,20240130,000000,10.5,12.25,9.75,11,1234567,0
ACME.US,D,20240131,000000,11,12,10,11.5,2234567,0
ACME.US,D,20240201,000000,11.5,12.5,11,12,3234567,0
""",
        DAILY,
        FIRST,
        symbol="ACME.US",
    ),
    "stooq archive, minutes": Sample(
        """<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>
ACME.US,5,20240131,093500,10.5,12.25,9.75,11,1234567,0
ACME.US,5,20240131,094000,11,12,10,11.5,2234567,0
ACME.US,5,20240131,094500,11.5,12.5,11,12,3234567,0
""",
        FIVES,
        FIRST,
        timeframe="5m",
        symbol="ACME.US",
        settings={"timezone": NEW_YORK},
    ),
    "alpha vantage": Sample(
        """timestamp,open,high,low,close,adjusted_close,volume,dividend_amount,split_coefficient
2024-02-01,11.5000,12.5000,11.0000,12.0000,12.0000,3234567,0.0000,1.0
2024-01-31,11.0000,12.0000,10.0000,11.5000,11.5000,2234567,0.2500,2.0
2024-01-30,10.5000,12.2500,9.7500,11.0000,5.3750,1234567,0.0000,1.0
""",
        DAILY,
        FIRST,
        actions=(("01-31 21:00", 2.0, 0.25),),
    ),
    "tiingo": Sample(
        """date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume,divCash,splitFactor
2024-01-30T00:00:00.000Z,11.0,12.25,9.75,10.5,1234567,5.375,6.0,4.7,5.1,2469134,0.0,1.0
2024-01-31T00:00:00.000Z,11.5,12.0,10.0,11.0,2234567,11.5,12.0,10.0,11.0,2234567,0.25,2.0
2024-02-01T00:00:00.000Z,12.0,12.5,11.0,11.5,3234567,12.0,12.5,11.0,11.5,3234567,0.0,1.0
""",
        DAILY,
        FIRST,
        actions=(("01-31 21:00", 2.0, 0.25),),
    ),
    "nasdaq": Sample(
        """Date,Close/Last,Volume,Open,High,Low
02/01/2024,$12.00,3234567,$11.50,$12.50,$11.00
01/31/2024,$11.50,2234567,$11.00,$12.00,$10.00
01/30/2024,$11.00,1234567,$10.50,$12.25,$9.75
""",
        DAILY,
        FIRST,
    ),
    "investing.com": Sample(
        """\ufeff"Date","Price","Open","High","Low","Vol.","Change %"
"02/01/2024","1,012.00","1,011.50","1,012.50","1,011.00","3.23M","4.35%"
"01/31/2024","1,011.50","1,011.00","1,012.00","1,010.00","450.12K","4.55%"
"01/30/2024","1,011.00","1,010.50","1,012.25","1,009.75","1.13M","-0.50%"
""",
        DAILY,
        (1010.5, 1012.25, 1009.75, 1011.0, 1_130_000.0),
    ),
    "investing.com, months by name": Sample(
        """"Date","Price","Open","High","Low","Vol.","Change %"
"Feb 01, 2024","12.00","11.50","12.50","11.00","-","4.35%"
"Jan 31, 2024","11.50","11.00","12.00","10.00","1.2B","4.55%"
"Jan 30, 2024","11.00","10.50","12.25","9.75","1,234,567","-0.50%"
""",
        DAILY,
        FIRST,
        settings={"cleaning": {"missing_value": "repair"}},
    ),
    "polygon": Sample(
        """ticker,volume,open,close,high,low,window_start,transactions
ACME,1234567,10.5,11.0,12.25,9.75,1706711400000000000,52
ACME,2234567,11.0,11.5,12.0,10.0,1706711700000000000,61
ACME,3234567,11.5,12.0,12.5,11.0,1706712000000000000,70
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "polygon, days": Sample(
        """ticker,volume,open,close,high,low,window_start,transactions
ACME,1234567,10.5,11.0,12.25,9.75,1706590800000000000,52
ACME,2234567,11.0,11.5,12.0,10.0,1706677200000000000,61
ACME,3234567,11.5,12.0,12.5,11.0,1706763600000000000,70
""",
        DAILY,
        FIRST,
    ),
    "alpaca": Sample(
        """symbol,timestamp,open,high,low,close,volume,trade_count,vwap
ACME,2024-01-31 14:30:00+00:00,10.5,12.25,9.75,11.0,1234567.0,52.0,10.9
ACME,2024-01-31 14:35:00+00:00,11.0,12.0,10.0,11.5,2234567.0,61.0,11.2
ACME,2024-01-31 14:40:00+00:00,11.5,12.5,11.0,12.0,3234567.0,70.0,11.8
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "alpaca, days": Sample(
        """symbol,timestamp,open,high,low,close,volume,trade_count,vwap
ACME,2024-01-30 05:00:00+00:00,10.5,12.25,9.75,11.0,1234567.0,52.0,10.9
ACME,2024-01-31 05:00:00+00:00,11.0,12.0,10.0,11.5,2234567.0,61.0,11.2
ACME,2024-02-01 05:00:00+00:00,11.5,12.5,11.0,12.0,3234567.0,70.0,11.8
""",
        DAILY,
        FIRST,
    ),
    "kibot": Sample(
        """01/31/2024,09:30,10.5,12.25,9.75,11,1234567
01/31/2024,09:35,11,12,10,11.5,2234567
01/31/2024,09:40,11.5,12.5,11,12,3234567
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "kibot, days": Sample(
        """01/30/2024,10.5,12.25,9.75,11,1234567
01/31/2024,11,12,10,11.5,2234567
02/01/2024,11.5,12.5,11,12,3234567
""",
        DAILY,
        FIRST,
    ),
    "firstrate": Sample(
        """2024-01-31 09:30:00,10.5,12.25,9.75,11,1234567
2024-01-31 09:35:00,11,12,10,11.5,2234567
2024-01-31 09:40:00,11.5,12.5,11,12,3234567
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "firstrate with a header": Sample(
        """timestamp,open,high,low,close,volume
2024-01-31 09:30:00,10.5,12.25,9.75,11,1234567
2024-01-31 09:35:00,11,12,10,11.5,2234567
2024-01-31 09:40:00,11.5,12.5,11,12,3234567
""",
        FIVES,
        FIRST,
        timeframe="5m",
        settings={"stamp": "start", "timezone": NEW_YORK},
    ),
    "databento": Sample(
        """ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol
1706711400000000000,33,2,38,10500000000,12250000000,9750000000,11000000000,1234567,ACME
1706711700000000000,33,2,38,11000000000,12000000000,10000000000,11500000000,2234567,ACME
1706712000000000000,33,2,38,11500000000,12500000000,11000000000,12000000000,3234567,ACME
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "databento, pretty": Sample(
        """ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol
2024-01-31T14:30:00.000000000Z,33,2,38,10.500000000,12.250000000,9.750000000,11.000000000,1234567,ACME
2024-01-31T14:35:00.000000000Z,33,2,38,11.000000000,12.000000000,10.000000000,11.500000000,2234567,ACME
2024-01-31T14:40:00.000000000Z,33,2,38,11.500000000,12.500000000,11.000000000,12.000000000,3234567,ACME
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "backtrader": Sample(
        """Date,Open,High,Low,Close,Volume,OpenInterest
2024-01-30,10.50,12.25,9.75,11.00,1234567,0
2024-01-31,11.00,12.00,10.00,11.50,2234567,0
2024-02-01,11.50,12.50,11.00,12.00,3234567,0
""",
        DAILY,
        FIRST,
    ),
    "backtrader, minutes": Sample(
        """Date,Time,Open,High,Low,Close,Volume,OpenInterest
2024-01-31,09:35:00,10.50,12.25,9.75,11.00,1234567,0
2024-01-31,09:40:00,11.00,12.00,10.00,11.50,2234567,0
2024-01-31,09:45:00,11.50,12.50,11.00,12.00,3234567,0
""",
        FIVES,
        FIRST,
        timeframe="5m",
        settings={"timezone": NEW_YORK},
    ),
    "decimal commas": Sample(
        """Date;Open;High;Low;Close;Volume
2024-01-30;10,5;12,25;9,75;11;1234567
2024-01-31;11;12;10;11,5;2234567
2024-02-01;11,5;12,5;11;12;3234567
""",
        DAILY,
        FIRST,
    ),
    "tabs": Sample(
        "Date\tOpen\tHigh\tLow\tClose\tVolume\n"
        "30.01.2024\t10.5\t12.25\t9.75\t11\t1234567\n"
        "31.01.2024\t11\t12\t10\t11.5\t2234567\n"
        "01.02.2024\t11.5\t12.5\t11\t12\t3234567\n",
        DAILY,
        FIRST,
    ),
}


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
