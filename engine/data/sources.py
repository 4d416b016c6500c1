"""Where bars enter the program: the source that a run file names, and its benchmark."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd

from engine.config import ALL, DataConfig
from engine.data.adjustment import adjusted, can_adjust
from engine.data.aggregation import aggregated, check_timeframes
from engine.data.alpaca_history import AlpacaHistory
from engine.data.bars import Bars, bars_of
from engine.data.cache.fetching import Source, read_network
from engine.data.cache.imports import read_imported
from engine.data.cache.places import cache_folder
from engine.data.cleaning.pipeline import clean
from engine.data.files.reading import read_files, symbols_named_in
from engine.data.files.tables import suffix_of, symbol_of
from engine.data.quality import Quality
from engine.data.raw import Raw
from engine.data.samples import SAMPLES, read_sample
from engine.data.symbols import require_symbols
from engine.data.timeframes import check_alignment, check_spacings, duration, is_intraday
from engine.data.universe import Membership, read_universe
from engine.data.yahoo import YahooHistory
from engine.errors import ConfigError

_SAMPLES = tuple(f"sample:{name}" for name in SAMPLES)
_NETWORK = ("alpaca", "yahoo")
SOURCES = (*_SAMPLES, "files", *_NETWORK)

# Keys that some sources alone read.
_READ_BY = {
    **dict.fromkeys(("path", "columns", "timezone", "stamp", "date_format"), ("files",)),
    "start": ("alpaca", "yahoo"),
    "feed": ("alpaca",),
}


def load_bars(
    data: DataConfig, folder: Path, *, root: Path | None = None, within: tuple[date, date] | None = None
) -> Bars:
    """The whole history that the run file's source has of its symbols, symbols sorted.

    Args:
        data: the run file's ``data`` section.
        folder: the run file's folder, which relative paths are relative to.
        root: the working folder, whose cache is read and brought up to date; None for no cache.
        within: the first and last session that is needed. Of a source on the network no later bar is asked for, or
            looked at; all that are complete, if None. Of a universe those are asked for who were members on some day
            from the one to the other; everyone, if None. Members whom the source does not have are left out.

    Raises:
        ConfigError: an unknown source, or a symbol or timeframe that the source lacks; a setting that only another
            source reads.
        DataError: bars are missing, malformed or impossible.
        BrokerError: Alpaca could not be reached, or refused.
        StorageError: the cache cannot be read or written.
    """
    return _cleaned(read_raw(data, folder, root=root, within=within), data)


def load_universe(data: DataConfig, folder: Path) -> Membership | None:
    """Who is a member of the run file's universe, and when; None where it names none. Raises as ``read_universe``."""
    return None if data.universe is None else read_universe(folder / data.universe)


def read_raw(
    data: DataConfig, folder: Path, *, root: Path | None = None, within: tuple[date, date] | None = None
) -> Raw:
    """The source's bars as they are there; what ``load_bars`` begins with, and raises for the same reasons."""
    asked, membership = asked_for(data, folder, within=within)
    raw = _read(
        asked,
        folder,
        until=within and within[1],
        cache=None if root is None else cache_folder(root),
        everyone=membership is None or data.symbols != (ALL,),
    )
    if membership is None:
        return raw
    members = membership.symbols if within is None else membership.between(*within)
    # A single bar is none, as of a source on the network.
    there = {s: f for s, f in raw.frames.items() if s in set(members) and (data.symbols != (ALL,) or len(f) > 1)}
    if not there:
        raise _nobody(members, data)
    return replace(raw, frames=there, membership=membership)


def asked_for(
    data: DataConfig, folder: Path, *, within: tuple[date, date] | None
) -> tuple[DataConfig, Membership | None]:
    """The section with the symbols that its source is asked for, and its universe, if it has one.

    Raises:
        ConfigError, DataError: it cannot be used; see ``load_bars``.
    """
    if data.source not in SOURCES:
        close = difflib.get_close_matches(data.source, SOURCES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(SOURCES)}"
        raise ConfigError(f"data.source: unknown source {data.source}; {hint}")
    for name, sources in _READ_BY.items():
        if data.source not in sources and getattr(data, name) is not None:
            raise ConfigError(
                f"data.{name}: only source: {' or '.join(sources)} reads it, found source: {data.source}; remove it"
            )
    if data.source in _SAMPLES and data.adjustment is not None:
        raise ConfigError(f"data.adjustment: {data.source} has one adjustment only, found {data.adjustment}; remove it")
    if data.base is not None:
        check_timeframes(data.base, data.timeframe, key="data.base")
    for timeframe in data.slower or ():
        check_timeframes(data.timeframe, timeframe, key="data.slower")
    _check_clock(data)
    membership = load_universe(data, folder)
    if membership is not None:
        members = membership.symbols if within is None else membership.between(*within)
        data = _asking_for(members, data, folder)
    if data.source in _NETWORK and data.symbols == (ALL,):
        raise ConfigError(
            f"data.symbols: all means what a file or a sample has, found source: {data.source}; name them"
        )
    return data, membership


def _check_clock(data: DataConfig) -> None:
    """Alpaca's longer intraday bars lie on the clock: the first half hour of a session is in none of them."""
    own = data.base or data.timeframe
    made_of_it = data.base is not None or data.slower
    if data.source == "alpaca" and made_of_it and is_intraday(own) and pd.Timedelta(minutes=30) % duration(own):
        key = "data.timeframe" if data.base is None else "data.base"
        raise ConfigError(
            f"{key}: Alpaca's bars of {own} lie on the clock and leave out the session's first half hour, so that no "
            "longer ones can be made of them; expected a part of half an hour, as 5m or 30m"
        )


def network_source(data: DataConfig, folder: Path) -> Source | None:
    """The source on the network that the section names; None for one on this machine.

    Raises:
        ConfigError: a timeframe that it has not, or no first day to fetch.
    """
    if data.source not in _NETWORK:
        return None
    if data.start is None:
        raise ConfigError(
            f"data.start: source {data.source} needs the first day to fetch; add one, as in start: today-40"
        )
    return AlpacaHistory(data, folder) if data.source == "alpaca" else YahooHistory(data)


def _read(data: DataConfig, folder: Path, *, until: date | None, cache: Path | None, everyone: bool) -> Raw:
    if data.source == "files":
        imported = None if cache is None else read_imported(data, folder, cache)
        return read_files(data, folder) if imported is None else imported
    source = network_source(data, folder)
    if source is not None and data.start is not None:
        return read_network(source, data.symbols, start=data.start, until=until, cache=cache, everyone=everyone)
    return _sample(data.source, data.symbols, data, symbols_key="data.symbols")


def _asking_for(members: tuple[str, ...], data: DataConfig, folder: Path) -> DataConfig:
    """The section that asks for members only: those that it names, or those that the source may have."""
    if data.symbols != (ALL,):
        asked = tuple(symbol for symbol in data.symbols if symbol in set(members))
    elif data.source in _SAMPLES:
        asked = tuple(s for s in SAMPLES[data.source.removeprefix("sample:")].symbols if s in set(members))
    elif data.source == "files" and data.path is not None and (folder / data.path).is_dir():
        names = symbols_named_in(folder / data.path)
        # Where no file is named after a member, the files may hold many symbols each.
        asked = tuple(symbol for symbol in members if symbol in names) or (ALL,)
    else:
        # What one file holds is known when it is read; who asks a service hears whom it does not have.
        asked = (ALL,) if data.source == "files" else members
    if not asked:
        raise _nobody(members, data)
    return data.model_copy(update={"symbols": asked})


def _nobody(members: tuple[str, ...], data: DataConfig) -> ConfigError:
    shown = f"{', '.join(members[:5])}{' and more' if len(members) > 5 else ''}" if members else "none in this period"
    there = "among data.symbols" if data.symbols != (ALL,) else f"among those that {data.source} has"
    return ConfigError(
        f"data.universe: none of its {len(members)} members is {there}: found {shown}; check the spelling of "
        "symbols, the spells and the spans"
    )


def _cleaned(raw: Raw, data: DataConfig) -> Bars:
    frames, quality = clean(raw, data.cleaning)
    return completed(raw, frames, quality, data)


def completed(raw: Raw, frames: Mapping[str, pd.DataFrame], quality: Quality, data: DataConfig) -> Bars:
    """What a source's bars become once they are cleaned: checked with each other, adjusted, in the run's timeframe.

    Raises:
        ConfigError: an adjustment that the source tells too little for.
        DataError: they do not keep their timeframe, or overlap without ending together.
    """
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in frames.items()}
    if data.source == "files":
        key = "data.base" if data.base else "data.timeframe"
        check_spacings(times, raw.timeframe, where=raw.origin, key=key)
    check_alignment(times, raw.timeframe)
    frames, adjustment = adjusted(raw, frames, data.adjustment)
    bars = bars_of(replace(raw, adjustment=adjustment), frames, quality)
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
    if suffix_of(path) is None or data.benchmark.startswith("sample:"):
        raise ConfigError(
            f"{key}: unknown benchmark {data.benchmark}; expected sample:sp500, one symbol of a sample, as in "
            "sample:tech/AAPL, or the path of a CSV or Parquet file"
        )
    if not (folder / path).is_file():
        raise ConfigError(f"{key}: there is no file {folder / path}; correct the path")
    asked = {"source": "files", "symbols": (symbol_of(path),), "path": path, "columns": None, "benchmark": None}
    own = data.model_copy(update=asked)
    raw = read_files(own, folder)
    # An index knows no dividends, whatever is done to the stocks.
    adjustment = data.adjustment if data.source == "files" and can_adjust(raw, data.adjustment) else None
    return _cleaned(raw, own.model_copy(update={"adjustment": adjustment}))


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
