"""Where bars enter the program: the source that a run file names, and its benchmark."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from engine.config import ALL, DataConfig
from engine.data.aggregation import aggregated, check_timeframes
from engine.data.alpaca import read_alpaca
from engine.data.bars import Bars, bars_of
from engine.data.cleaning import clean
from engine.data.files import read_files
from engine.data.quality import Quality
from engine.data.raw import Raw
from engine.data.samples import SAMPLES, read_sample
from engine.data.symbols import require_symbols
from engine.data.tables import SUFFIXES
from engine.data.timeframes import check_alignment, check_spacing
from engine.errors import ConfigError

_SAMPLES = tuple(f"sample:{name}" for name in SAMPLES)
SOURCES = (*_SAMPLES, "files", "alpaca")

# Keys that one source alone reads.
_READ_BY = {
    **dict.fromkeys(("path", "columns", "timezone", "stamp"), "files"),
    **dict.fromkeys(("start", "feed", "adjustment"), "alpaca"),
}


def load_bars(data: DataConfig, folder: Path) -> Bars:
    """The whole history that the run file's source has of its symbols, symbols sorted.

    Args:
        data: the run file's ``data`` section.
        folder: the run file's folder, which relative paths are relative to.

    Raises:
        ConfigError: an unknown source, or a symbol or timeframe that the source lacks; a setting that only another
            source reads.
        DataError: bars are missing, malformed or impossible.
        BrokerError: Alpaca could not be reached, or refused.
    """
    return _cleaned(read_raw(data, folder), data)


def read_raw(data: DataConfig, folder: Path) -> Raw:
    """The source's bars as they are there; what ``load_bars`` begins with, and raises for the same reasons."""
    if data.source not in SOURCES:
        close = difflib.get_close_matches(data.source, SOURCES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(SOURCES)}"
        raise ConfigError(f"data.source: unknown source {data.source}; {hint}")
    for name, source in _READ_BY.items():
        if source != data.source and getattr(data, name) is not None:
            raise ConfigError(f"data.{name}: only source: {source} reads it, found source: {data.source}; remove it")
    if data.base is not None:
        check_timeframes(data.base, data.timeframe, key="data.base")
    for timeframe in data.slower or ():
        check_timeframes(data.timeframe, timeframe, key="data.slower")
    return _read(data, folder)


def _read(data: DataConfig, folder: Path) -> Raw:
    if data.source == "files":
        return read_files(data, folder)
    if data.source == "alpaca":
        if data.symbols == (ALL,):
            raise ConfigError("data.symbols: all means what a file or a sample has, found source: alpaca; name them")
        return read_alpaca(data, folder)
    return _sample(data.source, data.symbols, data, symbols_key="data.symbols")


def _cleaned(raw: Raw, data: DataConfig) -> Bars:
    frames, quality = clean(raw, data.cleaning)
    return completed(raw, frames, quality, data)


def completed(raw: Raw, frames: Mapping[str, pd.DataFrame], quality: Quality, data: DataConfig) -> Bars:
    """What a source's bars become once they are cleaned: checked against each other, and in the run's timeframe.

    Raises:
        DataError: they do not keep their timeframe, or overlap without ending together.
    """
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in frames.items()}
    if data.source == "files":
        for symbol, own in times.items():
            check_spacing(own, raw.timeframe, where=raw.origin(symbol))
    check_alignment(times, raw.timeframe)
    bars = bars_of(raw, frames, quality)
    return bars if raw.timeframe == data.timeframe else aggregated(bars, data.timeframe)


def load_benchmark(data: DataConfig, folder: Path) -> Bars | None:
    """The bars of the one symbol that results are compared with, in the run's timeframe; None where there is none.

    ``data.benchmark`` is a sample of one symbol (``sample:sp500``), one symbol of a sample (``sample:tech/AAPL``), or
    the path of a CSV or Parquet file, read as ``source: files`` would read the symbol of its name.

    Raises:
        ConfigError: an unknown benchmark, or one without the run's timeframe.
        DataError: its bars are missing, malformed or impossible.
    """
    key = "data.benchmark"
    if data.benchmark is None:
        return None
    source, _, symbol = data.benchmark.partition("/")
    if source in _SAMPLES:
        symbols = SAMPLES[source.removeprefix("sample:")].symbols
        if not symbol and len(symbols) > 1:
            raise ConfigError(f"{key}: one symbol, found all of {source}; name one, as in {source}/{symbols[0]}")
        return _cleaned(_sample(source, (symbol or symbols[0],), data, symbols_key=key, timeframe_key=key), data)
    path = Path(data.benchmark)
    if path.suffix.lower() not in SUFFIXES or data.benchmark.startswith("sample:"):
        raise ConfigError(
            f"{key}: unknown benchmark {data.benchmark}; expected sample:sp500, one symbol of a sample, as in "
            "sample:tech/AAPL, or the path of a CSV or Parquet file"
        )
    if not (folder / path).is_file():
        raise ConfigError(f"{key}: there is no file {folder / path}; correct the path")
    asked = {"source": "files", "symbols": (path.stem,), "path": path, "columns": None, "benchmark": None}
    own = data.model_copy(update=asked)
    return _cleaned(read_files(own, folder), own)


def _sample(
    source: str, symbols: tuple[str, ...], data: DataConfig, *, symbols_key: str, timeframe_key: str = ""
) -> Raw:
    name = source.removeprefix("sample:")
    sample = SAMPLES[name]
    if symbols == (ALL,):
        symbols = sample.symbols
    require_symbols(symbols, sample.symbols, where=source, key=symbols_key)
    asked = data.base or data.timeframe
    if asked != sample.timeframe:
        key = timeframe_key or ("data.timeframe" if data.base is None else "data.base")
        raise ConfigError(f"{key}: {source} has bars of {sample.timeframe} only, found {asked}")
    return read_sample(name, symbols)
