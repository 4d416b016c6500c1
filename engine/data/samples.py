"""Bars that every installation has: real prices inside installed packages, and synthetic minutes.

========== ============================================================ ===========================================
sample     bars                                                         from
========== ============================================================ ===========================================
tech       AAPL, IBM, MSFT 2000-2013 and GOOG 2004-2013, daily          bokeh_sampledata
large20    closes of 20 large US companies, 1990-2022, daily            skfolio
sp500      the S&P 500 price index, 1999-2018, daily                    arch
minutes    three made-up symbols and a late listing, one-minute bars    a seeded generator (see synthetic.py)
========== ============================================================ ===========================================

The packages' data files are read directly: importing arch or skfolio for them would cost a second.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS, Bars, bars_of
from engine.data.calendars import session_closes
from engine.data.quality import Quality
from engine.data.raw import Raw
from engine.data.synthetic import SYNTHETIC_SYMBOLS, synthetic_minutes
from engine.data.validation import validated
from engine.errors import DataError

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A built-in source: what it has, what is known about it, and how to read it (symbols -> frames)."""

    symbols: tuple[str, ...]
    timeframe: str
    adjustment: str
    read: Callable[[tuple[str, ...]], Frames]
    close_only: bool = False
    synthetic: bool = False
    survivor_biased: bool = False


def read_sample(name: str, symbols: tuple[str, ...]) -> Raw:
    """The whole history of some of a sample's symbols, sorted.

    Args:
        name: a key of ``SAMPLES``.
        symbols: some of the sample's symbols.

    Raises:
        DataError: the package that holds the data is not installed, or is of an edition without it.
    """
    sample = SAMPLES[name]
    return Raw(
        frames=sample.read(tuple(sorted(symbols))),
        timeframe=sample.timeframe,
        adjustment=sample.adjustment,
        source=f"sample:{name}",
        close_only=sample.close_only,
        synthetic=sample.synthetic,
        survivor_biased=sample.survivor_biased,
    )


def load_sample(name: str, symbols: tuple[str, ...]) -> Bars:
    """As ``read_sample``, checked: the samples hold nothing that would have to be mended."""
    raw = read_sample(name, symbols)
    frames = {s: validated(f, symbol=s, origin=f"sample:{name}") for s, f in raw.frames.items()}
    return bars_of(raw, frames, Quality())


def _read_tech(symbols: tuple[str, ...]) -> Frames:
    """Raw bars times adj_close / close, so that splits and dividends leave no jump.

    Rounding is monotone: a <= b gives a * ratio <= b * ratio in floating point too, so low <= open, close <= high
    stays true without mending. Volume is divided by the same ratio: price times volume remains the money that
    changed hands on the day, and a split does not look like a burst of trading.
    """
    table = _packaged("bokeh_sampledata", "_data/stocks.csv.gz")
    frames = {}
    for symbol in symbols:
        rows = table[table["Ticker"] == symbol]
        ratio = (rows["Adj Close"] / rows["Close"]).to_numpy()
        values = {name: rows[name.capitalize()].to_numpy() * ratio for name in COLUMNS[:4]}
        values["volume"] = rows["Volume"].to_numpy() / ratio
        frames[symbol] = pd.DataFrame(values, index=_closes(rows["Date"]))
    return frames


def _read_large20(symbols: tuple[str, ...]) -> Frames:
    """Adjusted closes, rounded to 0.001 by their source; open, high and low repeat them and the volume is zero."""
    table = _packaged("skfolio", "datasets/data/sp500_dataset.csv.gz")
    time = _closes(table["Date"])
    no_volume = np.zeros(len(time))
    return {
        symbol: pd.DataFrame(
            {name: table[symbol].to_numpy() for name in COLUMNS[:4]} | {"volume": no_volume}, index=time
        )
        for symbol in symbols
    }


def _read_sp500(symbols: tuple[str, ...]) -> Frames:
    table = _packaged("arch", "data/sp500/sp500.csv.gz")
    time = _closes(table["Date"], format="%m/%d/%Y")
    frame = pd.DataFrame({name: table[name.capitalize()].to_numpy() for name in COLUMNS}, index=time)
    return dict.fromkeys(symbols, frame)


def _closes(dates: pd.Series, format: str = "%Y-%m-%d") -> pd.DatetimeIndex:
    return session_closes(pd.DatetimeIndex(pd.to_datetime(dates, format=format)))


def _packaged(package: str, file: str) -> pd.DataFrame:
    """A data file of an installed package, read without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(f"the package {package}, which holds this sample, is not installed; run pip install {package}")
    path = Path(spec.origin).parent / file
    try:
        return pd.read_csv(path)
    except OSError as error:
        raise DataError(
            f"the package {package} holds no readable {file} ({error.strerror}); install the edition in constraints.txt"
        ) from error


SAMPLES: Mapping[str, Sample] = {
    "tech": Sample(
        symbols=("AAPL", "GOOG", "IBM", "MSFT"),
        timeframe="1d",
        adjustment="all",
        read=_read_tech,
        survivor_biased=True,
    ),
    "large20": Sample(
        symbols=tuple(
            "AAPL AMD BAC BBY CVX GE HD JNJ JPM KO LLY MRK MSFT PEP PFE PG RRC UNH WMT XOM".split()  # noqa: SIM905
        ),
        timeframe="1d",
        adjustment="all",
        read=_read_large20,
        close_only=True,
        survivor_biased=True,
    ),
    "sp500": Sample(symbols=("SP500",), timeframe="1d", adjustment="none", read=_read_sp500),
    "minutes": Sample(
        symbols=SYNTHETIC_SYMBOLS, timeframe="1m", adjustment="none", read=synthetic_minutes, synthetic=True
    ),
}
