"""The source and the benchmark that a run file names."""

import time
from pathlib import Path

import pandas as pd
import pytest

from engine.config import DataConfig
from engine.data.samples import load_sample
from engine.data.sources import load_bars, load_benchmark
from engine.errors import ConfigError


def section(**settings: object) -> DataConfig:
    return DataConfig(**({"source": "sample:tech", "symbols": ("MSFT", "AAPL")} | settings))


def test_symbols_come_sorted_with_their_whole_history():
    bars = load_bars(section(), Path())
    assert bars.symbols == ("AAPL", "MSFT")
    assert [len(frame) for frame in bars.frames.values()] == [3270, 3270]


def test_loading_a_sample_is_quick():
    start = time.perf_counter()
    load_bars(section(symbols=("AAPL", "GOOG", "IBM", "MSFT")), Path())
    assert time.perf_counter() - start < 2.0


def test_files_are_a_source(tmp_path: Path):
    for symbol, frame in load_sample("tech", ("AAPL", "IBM")).frames.items():
        frame.iloc[:50].to_csv(tmp_path / f"{symbol}.csv")
    bars = load_bars(section(source="files", path=Path("."), symbols=("IBM", "AAPL")), tmp_path)
    assert bars.symbols == ("AAPL", "IBM")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "sample:teck"}, r"data.source: unknown source sample:teck; did you mean sample:tech\?"),
        ({"source": "oracle"}, "data.source: unknown source oracle; expected one of sample:tech, .*, files"),
        ({"symbols": ("APPL",)}, r"data.symbols: sample:tech has no symbol APPL; did you mean AAPL\?"),
        ({"symbols": ("aapl",)}, r"data.symbols: sample:tech has no symbol aapl; did you mean AAPL\?"),
        ({"symbols": ("XYZ",)}, "data.symbols: sample:tech has no symbol XYZ; it has AAPL, GOOG, IBM, MSFT"),
        ({"timeframe": "5m"}, "data.timeframe: sample:tech has bars of 1d only, found 5m"),
        ({"source": "sample:minutes", "symbols": ("SYN_CALM",)}, "data.timeframe: .* bars of 1m only, found 1d"),
        ({"path": "prices.csv"}, "data.path: only source: files reads it, found source: sample:tech; remove it"),
        ({"timezone": "UTC"}, "data.timezone: only source: files reads it"),
    ],
)
def test_what_a_source_lacks_is_a_config_error(settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        load_bars(section(**settings), Path())


def test_no_benchmark_is_none():
    assert load_benchmark(section(), Path()) is None


@pytest.mark.parametrize(
    ("benchmark", "symbol"), [("sample:sp500", "SP500"), ("sample:sp500/SP500", "SP500"), ("sample:tech/IBM", "IBM")]
)
def test_a_benchmark_is_one_symbol_of_a_sample(benchmark: str, symbol: str):
    bars = load_benchmark(section(benchmark=benchmark), Path())
    assert bars is not None
    assert bars.symbols == (symbol,)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_benchmark_may_be_a_file_with_any_source(tmp_path: Path, suffix: str):
    index = load_sample("sp500", ("SP500",)).frames["SP500"].iloc[:100]
    index.to_csv(tmp_path / "INDEX.csv")
    index.to_parquet(tmp_path / "INDEX.parquet")
    bars = load_benchmark(section(benchmark=f"INDEX{suffix}"), tmp_path)
    assert bars is not None
    pd.testing.assert_frame_equal(bars.frames["INDEX"], index, check_exact=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"benchmark": "sample:tech"},
            "data.benchmark: one symbol, found all of sample:tech; name one, as in sample:tech/",
        ),
        ({"benchmark": "sample:tech/XYZ"}, "data.benchmark: sample:tech has no symbol XYZ"),
        ({"benchmark": "SPY"}, "data.benchmark: unknown benchmark SPY; expected sample:sp500"),
        ({"benchmark": "files"}, "data.benchmark: unknown benchmark files"),
        ({"benchmark": "sample:x.csv"}, "data.benchmark: unknown benchmark sample:x.csv"),
        ({"benchmark": "nowhere.csv"}, "data.benchmark: there is no file .*nowhere.csv"),
        (
            {"source": "sample:minutes", "symbols": ("SYN_CALM",), "timeframe": "1m", "benchmark": "sample:sp500"},
            "data.benchmark: sample:sp500 has bars of 1d only, found 1m",
        ),
    ],
)
def test_a_benchmark_that_cannot_be_is_a_config_error(settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        load_benchmark(section(**settings), Path())
