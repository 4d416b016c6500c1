"""Bars from CSV and Parquet files, in every layout, and what is said of bad ones."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.bars import Bars
from engine.data.samples import load_sample
from engine.data.sources import load_bars, read_raw
from engine.data.validation import validated
from engine.errors import ConfigError, DataError, NextbarError

NEW_YORK = "America/New_York"
HEADER = "date,open,high,low,close,volume\n"
DAYS = ("2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08", "2024-03-11")
BAR = "10,12,9,11,100"


def read(path: Path, *symbols: str, **more: object) -> Bars:
    return load_bars(DataConfig(source="files", symbols=symbols or ("ACME",), path=path, **more), Path())


def written(folder: Path, times: list[str] | tuple[str, ...], *, name: str = "acme.csv", header: str = HEADER) -> Path:
    path = folder / name
    path.write_text(header + "".join(f"{time},{BAR}\n" for time in times))
    return path


def ends(bars: Bars) -> list[str]:
    return [f"{time:%m-%d %H:%M}" for frame in bars.frames.values() for time in frame.index]


def minute_times(start: str, count: int, step: int = 15) -> list[str]:
    return [f"{time:%Y-%m-%d %H:%M}" for time in pd.date_range(start, periods=count, freq=f"{step}min")]


# --- layouts ----------------------------------------------------------------------------------------------------------


def save_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path.with_suffix(".csv"), index=False)


def save_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path.with_suffix(".parquet"), index=False)


def save_indexed_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.set_index("time").to_parquet(path.with_suffix(".parquet"))


SAVERS = [save_csv, save_parquet, save_indexed_parquet]


@pytest.fixture(scope="module", params=["tech", "minutes"])
def sample(request: pytest.FixtureRequest) -> Bars:
    symbols = {"tech": ("AAPL", "GOOG", "MSFT"), "minutes": ("SYN_LATE", "SYN_THIN", "SYN_WILD")}[request.param]
    bars = load_sample(request.param, symbols)
    return Bars(
        frames={s: f.iloc[-700:] for s, f in bars.frames.items()},
        timeframe=bars.timeframe,
        adjustment="none",
        source="files",
    )


def assert_same(found: Bars, sample: Bars, symbols: tuple[str, ...]) -> None:
    assert found.symbols == symbols
    for symbol in symbols:
        pd.testing.assert_frame_equal(found.frames[symbol], sample.frames[symbol], check_exact=True, check_freq=False)
    assert (found.timeframe, found.adjustment, found.source) == (sample.timeframe, "none", "files")


@pytest.mark.parametrize("save", SAVERS)
def test_a_folder_of_one_file_a_symbol_comes_back_equal(tmp_path: Path, sample: Bars, save: Callable[..., None]):
    for symbol, frame in sample.frames.items():
        save(frame.reset_index(), tmp_path / symbol)
    (tmp_path / "README.md").write_text("not bars")
    asked = sample.symbols[1:]
    assert_same(read(tmp_path, *reversed(asked), timeframe=sample.timeframe), sample, asked)


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("order", ["symbol", "time"])
def test_a_long_file_comes_back_equal(tmp_path: Path, sample: Bars, save: Callable[..., None], order: str):
    long = pd.concat([frame.reset_index().assign(Ticker=s) for s, frame in sample.frames.items()], ignore_index=True)
    if order == "time":
        long = long.sort_values(["time", "Ticker"]).reset_index(drop=True)
    save(long, tmp_path / "long")
    path = next(tmp_path.iterdir())
    assert_same(read(path, *sample.symbols[:2], timeframe=sample.timeframe), sample, sample.symbols[:2])


def test_a_file_of_one_symbol_takes_the_name_that_the_run_file_gives(tmp_path: Path):
    assert read(written(tmp_path, DAYS), "WHATEVER").symbols == ("WHATEVER",)


def test_a_relative_path_is_relative_to_the_run_files_folder(tmp_path: Path):
    written(tmp_path, DAYS)
    data = DataConfig(source="files", symbols=("ACME",), path=Path("acme.csv"))
    assert len(load_bars(data, tmp_path).frames["ACME"]) == 6


def test_the_layout_does_not_enter_the_content_hash(tmp_path: Path, sample: Bars):
    symbol = sample.symbols[0]
    save_csv(sample.frames[symbol].reset_index(), tmp_path / symbol)
    from_csv = read(tmp_path / f"{symbol}.csv", symbol, timeframe=sample.timeframe).content_hash
    save_parquet(sample.frames[symbol].reset_index().assign(symbol=symbol), tmp_path / "long")
    assert read(tmp_path / "long.parquet", symbol, timeframe=sample.timeframe).content_hash == from_csv


def test_other_symbols_of_a_file_may_be_bad(tmp_path: Path):
    path = tmp_path / "long.csv"
    rows = [f"{day},ACME,{BAR}" for day in DAYS] + ["2024-03-09,BAD,1,,x,-1,0"]
    path.write_text("date,symbol,open,high,low,close,volume\n" + "\n".join(rows))
    assert len(read(path).frames["ACME"]) == 6
    with pytest.raises(DataError, match="BAD"):
        read(path, "BAD")


def test_tickers_that_look_like_missing_values_are_tickers(tmp_path: Path):
    path = tmp_path / "long.csv"
    rows = [f"{day},{symbol},{BAR}" for day in DAYS for symbol in ("NA", "TRUE", "NAN")]
    path.write_text("date,symbol,open,high,low,close,volume\n" + "\n".join(rows))
    assert read(path, "TRUE", "NA").symbols == ("NA", "TRUE")


def test_pandas_own_types_of_parquet_are_read(tmp_path: Path):
    frame = pd.DataFrame(
        {
            "Symbol": pd.Categorical(["ACME"] * 6),
            "date": pd.DatetimeIndex(DAYS).date,
            "open": np.float32(10.0),
            "high": 12,
            "low": pd.array([9] * 6, dtype="Int64"),
            "close": 11.0,
            "volume": np.uint32(100),
        }
    )
    frame.to_parquet(tmp_path / "long.parquet")
    bars = read(tmp_path / "long.parquet")
    assert bars.frames["ACME"].iloc[0].tolist() == [10.0, 12.0, 9.0, 11.0, 100.0]
    assert ends(bars)[0] == "03-04 21:00"


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "Date,Open,High,Low,Close,Volume",
        " TIMESTAMP , OPEN,high,LOW,Close,VOLUME",
        "\ufeffdatetime,open,high,low,close,volume",
    ],
)
def test_usual_names_are_recognised_in_any_case(tmp_path: Path, header: str):
    assert len(read(written(tmp_path, DAYS, header=header + "\n")).frames["ACME"]) == 6


def test_an_adjusted_close_is_not_used(tmp_path: Path):
    path = tmp_path / "yahoo.csv"
    path.write_text(
        "Date,Open,High,Low,Close,Adj Close,Volume\n" + "".join(f"{day},10,12,9,11,5.5,100\n" for day in DAYS)
    )
    bars = read(path)
    assert bars.frames["ACME"].iloc[0].tolist() == [10.0, 12.0, 9.0, 11.0, 100.0]
    assert bars.adjustment == "split"  # as Yahoo's closes are


def test_columns_are_mapped(tmp_path: Path):
    path = written(tmp_path, DAYS, header="Tag,Eröffnung,Hoch,Tief,Schluss,Stück\n")
    names = ("Tag", "Eröffnung", "Hoch", "Tief", "Schluss", "Stück")
    columns = dict(zip(("time", "open", "high", "low", "close", "volume"), names, strict=True))
    assert read(path, columns=columns).frames["ACME"].iloc[0].tolist() == [10.0, 12.0, 9.0, 11.0, 100.0]
    with pytest.raises(DataError, match=r"no column for the time; .* name it in data.columns.time"):
        read(path)
    with pytest.raises(
        DataError, match=r"no column for open, .*, volume; found Tag, Eröffnung, .*; add it, or name it in data.columns"
    ):
        read(path, columns={"date": "Tag", "close": "Schluss"})


def test_a_mapping_wins_over_a_usual_name(tmp_path: Path):
    path = written(tmp_path, DAYS, header="date,open,high,low,last,volume\n")
    table = path.read_text().replace("volume\n", "volume,close\n").replace(",100\n", ",100,9.5\n")
    path.write_text(table)
    assert read(path).frames["ACME"]["close"].iloc[0] == 9.5
    assert read(path, columns={"close": "last"}).frames["ACME"]["close"].iloc[0] == 11.0


def test_a_mapping_that_cannot_be_is_a_config_error(tmp_path: Path):
    path = written(tmp_path, DAYS)
    with pytest.raises(ConfigError, match=r"data.columns.vwap: unknown column"):
        read(path, columns={"vwap": "open"})
    with pytest.raises(ConfigError, match=r"data.columns.open: acme.csv has no column 'Opening'; it has date, open"):
        read(path, columns={"open": "Opening"})


def test_two_candidates_for_a_column_are_an_error(tmp_path: Path):
    path = written(tmp_path, DAYS, header="date,open,high,low,close,Close\n")
    with pytest.raises(DataError, match=r"'close' and 'Close' may all be the close; say which in data.columns.close"):
        read(path)
    path = written(tmp_path, DAYS, header="date,timestamp,high,low,close,volume\n")
    with pytest.raises(DataError, match=r"may all be the time; say which in data.columns.time"):
        read(path)


def test_a_date_and_a_time_column_are_joined(tmp_path: Path):
    path = tmp_path / "acme.csv"
    path.write_text(
        "Date,Time,Open,High,Low,Close,Volume,OpenInterest\n"
        + "".join(f"2024-03-04,09:{m}:00,{BAR},0\n" for m in (35, 40, 45))
    )
    assert ends(read(path, timeframe="5m", timezone=NEW_YORK)) == ["03-04 14:35", "03-04 14:40", "03-04 14:45"]


# --- times ------------------------------------------------------------------------------------------------------------


def test_daily_dates_are_stamped_with_the_close_of_their_session(tmp_path: Path):
    path = written(tmp_path, ("2023-11-22", "2023-11-24", "2024-03-08", "2024-03-11"))
    assert ends(read(path)) == ["11-22 21:00", "11-24 18:00", "03-08 21:00", "03-11 20:00"]
    assert ends(read(path, timezone=NEW_YORK, stamp="start")) == ends(read(path))


@pytest.mark.parametrize("suffix", ["T00:00:00-05:00", " 00:00:00+00:00", "T05:00:00Z", "T00:00", " 00:00:00"])
def test_midnights_are_dates_whatever_their_zone(tmp_path: Path, suffix: str):
    assert ends(read(written(tmp_path, [day + suffix for day in DAYS[:5]]))) == [f"03-0{d} 21:00" for d in range(4, 9)]


def test_daily_moments_are_kept_and_daily_starts_are_moved_to_the_close(tmp_path: Path):
    path = written(tmp_path, [f"{day} 09:30" for day in DAYS])
    assert ends(read(path, timezone=NEW_YORK))[0] == "03-04 14:30"
    assert ends(read(path, timezone=NEW_YORK, stamp="start"))[::5] == ["03-04 21:00", "03-11 20:00"]


def test_dates_of_another_market_end_at_its_midnight(tmp_path: Path):
    path = written(tmp_path, ("2023-11-22", "2023-11-23", "2023-11-24"))
    assert ends(read(path, timezone="Europe/Berlin")) == ["11-22 23:00", "11-23 23:00", "11-24 23:00"]


def test_a_date_without_a_session_ends_at_its_midnight_for_cleaning_to_find(tmp_path: Path):
    path = written(tmp_path, ("2023-11-22", "2023-11-23", "2023-11-24"))
    raw = read_raw(DataConfig(source="files", symbols=("ACME",), path=path), Path())
    assert [f"{time:%m-%d %H:%M}" for time in raw.frames["ACME"].index] == ["11-22 21:00", "11-24 05:00", "11-24 18:00"]


def test_weeks_are_complete_at_their_last_session(tmp_path: Path):
    path = written(tmp_path, ("2024-03-22", "2024-03-29", "2024-04-05"))
    assert ends(read(path, timeframe="1w")) == ["03-22 20:00", "03-28 20:00", "04-05 20:00"]
    path = written(tmp_path, ("2024-03-18", "2024-03-25", "2024-04-01"))
    assert ends(read(path, timeframe="1w", stamp="start")) == ["03-22 20:00", "03-28 20:00", "04-05 20:00"]


def test_times_with_an_offset_are_converted(tmp_path: Path):
    path = written(tmp_path, ["2024-03-08T15:45:00-05:00", "2024-03-08T16:00:00-05:00", "2024-03-11T09:45:00-04:00"])
    assert ends(read(path, timeframe="15m")) == ["03-08 20:45", "03-08 21:00", "03-11 13:45"]


def test_naive_times_follow_the_clocks_of_their_zone(tmp_path: Path):
    path = written(tmp_path, [*minute_times("2024-03-08 15:30", 3), *minute_times("2024-03-11 09:45", 2)])
    bars = read(path, timeframe="15m", timezone=NEW_YORK)
    assert ends(bars) == ["03-08 20:30", "03-08 20:45", "03-08 21:00", "03-11 13:45", "03-11 14:00"]


def test_a_start_is_moved_to_the_end_of_its_bar(tmp_path: Path):
    path = written(tmp_path, minute_times("2024-03-08 09:30", 3))
    assert ends(read(path, timeframe="15m", timezone=NEW_YORK, stamp="start")) == [
        "03-08 14:45",
        "03-08 15:00",
        "03-08 15:15",
    ]


def test_naive_times_without_a_zone_say_how_to_mend_it(tmp_path: Path):
    path = written(tmp_path, minute_times("2024-03-08 09:45", 3))
    with pytest.raises(DataError, match=r"times without a zone, such as 2024-03-08 09:45; .* set data.timezone"):
        read(path, timeframe="15m")
    with pytest.raises(ConfigError, match=r"data.timezone: unknown zone 'Mars/Olympus'"):
        read(path, timeframe="15m", timezone="Mars/Olympus")


def test_a_mixture_of_times_with_and_without_an_offset_is_an_error(tmp_path: Path):
    path = written(tmp_path, ["2024-03-08 15:45-05:00", "2024-03-08 16:00"])
    with pytest.raises(DataError, match=r"row 3: the time '2024-03-08 16:00' has no zone, unlike others"):
        read(path, timeframe="15m")


@pytest.mark.parametrize(
    "times", [["2024-03-10 02:15", "2024-03-10 03:15"], ["2023-11-05 01:15", "2023-11-05 01:30", "2023-11-05 03:00"]]
)
def test_local_times_that_are_skipped_or_repeated_are_an_error(tmp_path: Path, times: list[str]):
    with pytest.raises(
        DataError, match=r"row 2: the time .* is skipped or repeated by the change of clocks in America"
    ):
        read(written(tmp_path, times), timeframe="15m", timezone=NEW_YORK)


@pytest.mark.parametrize("time", ["03/04/2024", "yesterday", "1709596800", "2024-02-30", "99999-01-01"])
def test_times_that_are_not_iso_are_an_error(tmp_path: Path, time: str):
    with pytest.raises(DataError, match=rf"row 3: the time '{time}' cannot be read; write it as 2024-01-31"):
        read(written(tmp_path, [DAYS[0], time]))


@pytest.mark.parametrize("time", ["-2024-03-05", "1492-10-12", "9000-01-03"])
def test_times_beyond_the_reach_of_nanoseconds_are_an_error(tmp_path: Path, time: str):
    with pytest.raises(DataError, match=rf"row 3: the time {time} is beyond the years 1679 to 2260"):
        read(written(tmp_path, [DAYS[0], time]))


def test_a_missing_time_or_symbol_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="row 3: the time is missing"):
        read(written(tmp_path, [DAYS[0], "", DAYS[1]]))
    path = tmp_path / "long.csv"
    path.write_text(f"symbol,{HEADER}ACME,{DAYS[0]},{BAR}\n,{DAYS[1]},{BAR}\n")
    with pytest.raises(DataError, match=r"long.csv, row 3: the symbol is missing"):
        read(path)


@pytest.mark.parametrize(
    ("times", "timeframe", "message"),
    [
        (DAYS, "1m", "the times are dates without a time of day; set it to 1d"),
        ([f"{day} 16:00" for day in DAYS], "1m", "at most one bar a day; set it to 1d"),
        (minute_times("2024-03-08 09:31", 9, step=1), "1d", "there are several bars on 2024-03-08"),
        (minute_times("2024-03-08 09:45", 9, step=1), "15m", "the bars are mostly 1 minutes apart"),
        (minute_times("2024-03-08 09:45", 9, step=15), "1m", "the bars are mostly 15 minutes apart"),
        (minute_times("2024-03-08 10:30", 5, step=60), "30m", "the bars are mostly 60 minutes apart"),
        (("2024-03-01", "2024-03-08", "2024-03-15"), "1d", "the bars are mostly 7 days apart"),
        (DAYS, "1w", "the bars are mostly a day apart"),
    ],
)
def test_the_timeframe_must_be_the_files_own(tmp_path: Path, times: list[str], timeframe: str, message: str):
    with pytest.raises(DataError, match=f"data.timeframe is {timeframe}, but .*{message}"):
        read(written(tmp_path, times), timeframe=timeframe, timezone=NEW_YORK)


@pytest.mark.parametrize(
    ("times", "timeframe"),
    [
        (["10:30", "11:30", "12:30", "13:30", "14:30", "15:30", "16:00"], "1h"),
        (["13:30", "16:00"], "4h"),
        (["09:32", "09:40", "09:48", "09:49", "10:10"], "1m"),
    ],
)
def test_short_last_bars_and_thin_symbols_are_no_contradiction(tmp_path: Path, times: list[str], timeframe: str):
    path = written(tmp_path, [f"2024-03-{day} {time}" for day in ("07", "08") for time in times])
    assert len(read(path, timeframe=timeframe, timezone=NEW_YORK).frames["ACME"]) == 2 * len(times)


# --- bad files --------------------------------------------------------------------------------------------------------


REFUSED = dict.fromkeys(("missing_value", "impossible", "disorder", "duplicate"), "refuse")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least two bars are needed, found 0"),
        ([f"2024-03-04,{BAR}"], "at least two bars are needed, found 1"),
        ([f"2024-03-04,{BAR}", "2024-03-05,10,12,9,,100"], "row 3.*the close"),
        ([f"2024-03-04,{BAR}", "2024-03-05,10,12"], "row 3.*the low"),
        ([f"2024-03-04,{BAR}", "", "2024-03-05,10,x,9,11,100"], "row 4: the high is not a number, found 'x'"),
        ([f"2024-03-04,{BAR}", "2024-03-05,10,inf,9,11,100"], "row 3.*the high"),
        (["2024-03-04,10,12,-9,11,100", f"2024-03-05,{BAR}"], "row 2.*the low"),
        ([f"2024-03-05,{BAR}", f"2024-03-04,{BAR}"], "row 3"),
        ([f"2024-03-05,{BAR}", f"2024-03-05,{BAR}"], "row 3"),
        ([f"2024-03-04,{BAR}", "2024-03-05,10,8,9,11,100"], "row 3.*the high"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, rows: list[str], message: str):
    path = tmp_path / "acme.csv"
    path.write_text(HEADER + "\n".join(rows) + "\n\n")
    with pytest.raises(DataError, match=f"acme.csv, ACME.*{message}"):
        read(path, cleaning=REFUSED)


def test_what_is_missing_doubled_or_out_of_order_is_left_to_cleaning(tmp_path: Path):
    path = tmp_path / "acme.csv"
    days = ("2024-03-05", "2024-03-04", "2024-03-04", "2024-03-06")
    path.write_text(HEADER + "".join(f"{day},10,,-1,inf,\n\n" for day in days))
    raw = read_raw(DataConfig(source="files", symbols=("ACME",), path=path), Path())
    frame = raw.frames["ACME"]
    assert [f"{time:%Y-%m-%d}" for time in frame.index] == list(days)
    np.testing.assert_array_equal(frame.to_numpy(), [[10.0, np.nan, -1.0, np.inf, np.nan]] * 4)
    assert raw.rows["ACME"].tolist() == [2, 4, 6, 8]
    assert raw.origins["ACME"] == str(path)


def test_the_row_of_a_long_file_is_the_files_own(tmp_path: Path):
    rows = [(day, symbol, 10.0, 12.0, 9.0, 11.0, 100) for day in DAYS for symbol in ("OTHER", "ACME")]
    frame = pd.DataFrame(rows, columns=["date", "symbol", "open", "high", "low", "close", "volume"])
    frame.to_parquet(tmp_path / "long.parquet")
    frame.to_csv(tmp_path / "long.csv", index=False)
    for path, header in ((tmp_path / "long.parquet", 0), (tmp_path / "long.csv", 1)):
        raw = read_raw(DataConfig(source="files", symbols=("ACME", "OTHER"), path=path), Path())
        assert {s: r.tolist() for s, r in raw.rows.items()} == {
            "ACME": [2 * n + 2 + header for n in range(6)],
            "OTHER": [2 * n + 1 + header for n in range(6)],
        }


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path):
    empty = tmp_path / "empty.csv"
    empty.touch()
    with pytest.raises(DataError, match=r"empty.csv: the file is empty"):
        read(empty)
    latin = tmp_path / "latin.csv"
    latin.write_bytes("date,Eröffnung\n".encode("latin-1"))
    with pytest.raises(DataError, match="not a text file in UTF-8"):
        read(latin)
    for content in (b"", b"not parquet at all", b"PAR1PAR1"):
        broken = tmp_path / "broken.parquet"
        broken.write_bytes(content)
        with pytest.raises(DataError, match=r"broken.parquet: the file could not be read"):
            read(broken)


def test_a_file_cut_short_is_an_error(tmp_path: Path):
    written(tmp_path, DAYS)
    pd.read_csv(tmp_path / "acme.csv").to_parquet(tmp_path / "acme.parquet")
    whole = (tmp_path / "acme.parquet").read_bytes()
    (tmp_path / "acme.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="could not be read"):
        read(tmp_path / "acme.parquet")


def test_rows_longer_than_the_header_are_an_error(tmp_path: Path):
    for name, extra in (("all.csv", DAYS), ("one.csv", DAYS[3:4])):
        path = tmp_path / name
        path.write_text(HEADER + "".join(f"{day},{BAR}{',1' if day in extra else ''}\n" for day in DAYS))
        with pytest.raises(DataError, match=f"{name}: the rows do not fit the header"):
            read(path)


def test_an_unknown_symbol_is_a_config_error_with_the_closest(tmp_path: Path):
    for symbol in ("AAPL", "MSFT"):
        written(tmp_path, DAYS, name=f"{symbol}.csv")
    with pytest.raises(ConfigError, match=r"data.symbols: the folder .* has no symbol APPL; did you mean AAPL\?"):
        read(tmp_path, "APPL")
    with pytest.raises(ConfigError, match="has no symbol XYZ; it has AAPL, MSFT"):
        read(tmp_path, "XYZ")
    path = tmp_path / "long.csv"
    path.write_text(f"symbol,{HEADER}" + "".join(f"ACME,{day},{BAR}\n" for day in DAYS))
    with pytest.raises(ConfigError, match=r"data.symbols: long.csv has no symbol AKME; did you mean ACME\?"):
        read(path, "AKME")


def test_a_folder_with_two_files_of_a_symbol_is_an_error(tmp_path: Path):
    written(tmp_path, DAYS, name="ACME.csv")
    written(tmp_path, DAYS, name="ACME.txt")
    with pytest.raises(DataError, match=r"ACME.csv and ACME.txt both name the symbol ACME; keep one"):
        read(tmp_path)


def test_a_path_that_is_not_there_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"data.path: there is no file .*nowhere.csv"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match=r"data.path: .*nowhere.xlsx is not a CSV or Parquet file"):
        read(tmp_path / "nowhere.xlsx")
    with pytest.raises(ConfigError, match=r"data.path: required with source: files"):
        load_bars(DataConfig(source="files", symbols=("ACME",)), tmp_path)


def test_a_file_of_one_symbol_cannot_serve_two(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"data.symbols: acme.csv has no column for the symbol"):
        read(written(tmp_path, DAYS), "ACME", "OTHER")


LINES = (HEADER + "".join(f"{day},{BAR}\n" for day in DAYS)).encode()
PIECES = [
    b"",
    b",",
    b"\n",
    b"\r\n",
    b'"',
    b"nan",
    b"-",
    b"e9",
    b"\x00",
    b"\xff",
    b"0",
    b"2024-03-05",
    b"T10:00Z",
    b"+01",
    b"#",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, len(LINES)), st.integers(0, 12), st.sampled_from(PIECES)), max_size=4))
def test_a_mangled_file_is_read_right_or_refused(tmp_path: Path, edits: list[tuple[int, int, bytes]]):
    content = LINES
    for start, removed, inserted in edits:
        content = content[:start] + inserted + content[start + removed :]
    path = tmp_path / "mangled.csv"
    path.write_bytes(content)
    try:
        frame = read(path).frames["ACME"]
    except NextbarError:
        return
    assert validated(frame, symbol="ACME", origin="mangled.csv").equals(frame)


def test_a_pickle_in_disguise_is_not_loaded(tmp_path: Path):
    pd.read_csv(written(tmp_path, DAYS)).to_pickle(tmp_path / "bars.pkl")
    (tmp_path / "bars.pkl").rename(tmp_path / "bars.parquet")
    with pytest.raises(DataError, match="could not be read"):
        read(tmp_path / "bars.parquet")


def test_a_packed_file_that_would_fill_the_memory_is_refused(tmp_path: Path):
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(LINES)[:-4] + (2**32 - 1).to_bytes(4, "little"))
    with pytest.raises(DataError, match=r"bytes unpack to 4294967295, more than bars ever do"):
        read(path)


def test_a_column_of_nothing_is_missing_values_and_no_text(tmp_path: Path):
    path = tmp_path / "acme.csv"
    path.write_text(HEADER + "".join(f"{day},10,12,9,11,\n" for day in DAYS))
    raw = read_raw(DataConfig(source="files", symbols=("ACME",), path=path), Path())
    assert raw.frames["ACME"]["volume"].isna().all()
    assert (raw.frames["ACME"].dtypes == np.float64).all()
