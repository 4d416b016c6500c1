"""Yahoo's bars, from a module in the shape of yfinance 1.7; nothing is asked of the network."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.config import DataConfig
from engine.data.sources import load_bars, read_raw
from engine.data.yahoo import YahooHistory
from engine.errors import ConfigError, DataError

NOW = pd.Timestamp("2024-07-10 15:00", tz="UTC")
FIRST = date(2024, 6, 3)


class Yahoo:
    """What the fake yfinance has, and what it was asked."""

    def __init__(self) -> None:
        self.tables: dict[str, pd.DataFrame] = {}
        self.asked: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.config = SimpleNamespace(debug=SimpleNamespace(hide_exceptions=True))

    def history(self, symbol: str, **asked: Any) -> pd.DataFrame:
        assert self.config.debug.hide_exceptions is False, "failures would come as empty tables"
        self.asked.append({"symbol": symbol, **asked})
        if self.failure is not None:
            raise self.failure
        if symbol not in self.tables:
            raise self.missing(symbol)
        table = self.tables[symbol]
        zone = table.index.tz  # type: ignore[attr-defined]
        end = pd.Timestamp(asked["end"] or "2100-01-01", tz=zone)
        return table[(table.index >= pd.Timestamp(asked["start"], tz=zone)) & (table.index < end)]

    missing: Any
    limited: Any


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> Yahoo:
    yahoo = Yahoo()
    module, exceptions = ModuleType("yfinance"), ModuleType("yfinance.exceptions")
    for name in ("YFTickerMissingError", "YFRateLimitError"):
        setattr(exceptions, name, type(name, (Exception,), {}))
    yahoo.missing, yahoo.limited = exceptions.YFTickerMissingError, exceptions.YFRateLimitError
    module.config = yahoo.config  # type: ignore[attr-defined]
    module.Ticker = lambda symbol: SimpleNamespace(  # type: ignore[attr-defined]
        history=lambda **asked: yahoo.history(symbol, **asked)
    )
    module.exceptions = exceptions  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yfinance", module)
    monkeypatch.setitem(sys.modules, "yfinance.exceptions", exceptions)
    return yahoo


def table(times: pd.DatetimeIndex, **changes: Any) -> pd.DataFrame:
    """As ``Ticker.history(auto_adjust=False, actions=True)`` gives it: capitals, Adj Close, whole volumes."""
    count = len(times)
    close = 100.0 + np.arange(count)
    values = {
        "Open": close - 0.5, "High": close + 1.0, "Low": close - 1.0, "Close": close, "Adj Close": close * 0.9,
        "Volume": np.arange(1, count + 1, dtype=np.int64), "Dividends": 0.0, "Stock Splits": 0.0,
    }  # fmt: skip
    made = pd.DataFrame(values, index=times.rename("Date"))
    for name, cells in changes.items():
        for row, value in cells.items():
            made.loc[made.index[row], name.replace("_", " ")] = value
    return made


def sessions(first: str, last: str, zone: str = "America/New_York") -> pd.DatetimeIndex:
    return pd.bdate_range(first, last, tz=zone)


def section(**settings: Any) -> DataConfig:
    return DataConfig.model_validate({"source": "yahoo", "symbols": ["AAPL"], "start": "2024-06-03"} | settings)


def fetched(yahoo: Yahoo, bars: pd.DataFrame, *, last: date | None = None, **settings: Any) -> Any:
    yahoo.tables["AAPL"] = bars
    return YahooHistory(section(**settings)).fetch(["AAPL"], FIRST, last, now=NOW)["AAPL"]


def test_days_end_with_their_session_and_the_present_one_is_left_out(yahoo: Yahoo) -> None:
    days = sessions("2024-07-01", "2024-07-10").drop(pd.Timestamp("2024-07-04", tz="America/New_York"))
    frame = fetched(yahoo, table(days)).frame
    # A half day on the 3rd; on the 10th New York has just opened.
    assert [str(end)[5:16] for end in frame.index] == [
        "07-01 20:00", "07-02 20:00", "07-03 17:00", "07-05 20:00", "07-08 20:00", "07-09 20:00",
    ]  # fmt: skip
    assert (frame.index.name, str(frame.index.dtype)) == ("time", "datetime64[ns, UTC]")
    assert list(frame.columns) == ["open", "high", "low", "close", "volume"]
    # Prices as they are quoted: the adjusted close is not used.
    assert frame.iloc[1].tolist() == [100.5, 102.0, 100.0, 101.0, 2.0]


def test_what_is_asked_for(yahoo: Yahoo) -> None:
    fetched(yahoo, table(sessions("2024-06-03", "2024-06-10")), last=date(2024, 6, 7))
    expected = {
        "symbol": "AAPL", "interval": "1d", "start": "2024-06-03", "end": "2024-06-08", "auto_adjust": False,
        "actions": True, "keepna": True,
    }  # fmt: skip
    assert yahoo.asked == [expected]
    assert yahoo.config.debug.hide_exceptions is True


@pytest.mark.parametrize(
    ("timeframe", "starts", "expected"),
    [
        ("1w", ["2024-06-03", "2024-06-24", "2024-07-08"], ["06-07 20:00", "06-28 20:00"]),
        ("1h", ["2024-07-03 09:30", "2024-07-03 12:30"], ["07-03 14:30", "07-03 17:00"]),  # cut short by a half day
        ("1h", ["2024-07-02 15:30", "2024-07-02 16:00"], ["07-02 20:00"]),  # after hours
        ("5m", ["2024-07-02 09:30", "2024-07-10 10:55", "2024-07-10 11:00"], ["07-02 13:35", "07-10 15:00"]),
    ],
)
def test_other_timeframes(yahoo: Yahoo, timeframe: str, starts: list[str], expected: list[str]) -> None:
    frame = fetched(yahoo, table(pd.DatetimeIndex(starts, tz="America/New_York")), timeframe=timeframe).frame
    assert [str(end)[5:16] for end in frame.index] == expected


def test_splits_and_dividends(yahoo: Yahoo) -> None:
    days = sessions("2024-06-03", "2024-06-14")
    actions = fetched(yahoo, table(days, Dividends={2: 0.25, 5: 0.1}, Stock_Splits={5: 10.0})).actions
    assert [str(time) for time in actions.index] == ["2024-06-05 20:00:00+00:00", "2024-06-10 20:00:00+00:00"]
    assert actions["dividend"].tolist() == [0.25, 0.1]
    assert actions["split"].tolist() == [1.0, 10.0]
    assert (actions.index.name, list(actions)) == ("time", ["split", "dividend"])
    # Of intraday bars they are told at the first one of the session.
    bars = table(pd.DatetimeIndex(["2024-06-05 09:30", "2024-06-05 10:30"], tz="America/New_York"), Dividends={0: 0.25})
    assert [str(time)[:16] for time in fetched(yahoo, bars, timeframe="1h").actions.index] == ["2024-06-05 20:00"]
    assert len(fetched(yahoo, table(days)).actions) == 0


def test_what_is_odd_is_left_for_cleaning(yahoo: Yahoo) -> None:
    days = pd.DatetimeIndex(["2024-06-18", "2024-06-19", "2024-06-20"], tz="America/New_York")  # Juneteenth
    frame = fetched(yahoo, table(days, Close={2: np.nan})).frame
    assert [str(end)[5:16] for end in frame.index] == ["06-18 20:00", "06-19 20:00", "06-20 20:00"]
    assert np.isnan(frame["close"].iloc[2])


def test_the_bars_of_a_run_and_their_adjustment(yahoo: Yahoo, tmp_path: Path) -> None:
    days = sessions("2024-06-03", "2024-06-14")
    yahoo.tables = {symbol: table(days, Dividends={5: 5.0}) for symbol in ("AAPL", "MSFT")}
    data = section(symbols=["MSFT", "AAPL"])
    raw = read_raw(data, tmp_path)
    assert (raw.source, raw.adjustment, raw.timeframe, list(raw.frames)) == ("yahoo", "split", "1d", ["AAPL", "MSFT"])
    whole = load_bars(section(adjustment="all"), tmp_path)
    assert (whole.adjustment, load_bars(data, tmp_path).adjustment) == ("all", "split")
    factors = whole.frames["AAPL"]["close"] / load_bars(data, tmp_path).frames["AAPL"]["close"]
    np.testing.assert_allclose(factors, [1 - 5.0 / 104.0] * 5 + [1.0] * 5)


def test_a_run_inside_of_what_the_cache_covers_needs_no_network_and_no_yfinance(
    yahoo: Yahoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yahoo.tables["AAPL"] = table(sessions("2024-06-03", "2024-06-14"), Dividends={5: 5.0})
    within = (date(2024, 6, 4), date(2024, 6, 12))
    first = load_bars(section(adjustment="all"), tmp_path, root=tmp_path, within=within)
    monkeypatch.setitem(sys.modules, "yfinance", None)
    again = load_bars(section(adjustment="all"), tmp_path, root=tmp_path, within=within)
    assert again.content_hash == first.content_hash
    assert again.frames["AAPL"].index[-1] == pd.Timestamp("2024-06-12 20:00", tz="UTC")


# --- how it fails ---------------------------------------------------------------------------------------------------


def test_without_yfinance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(ConfigError, match=r"needs the package yfinance, .*; pip install 'nextbar\[yahoo\]'"):
        load_bars(section(), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeframe": "4h"}, "data.timeframe: Yahoo has bars of 1m, 2m, .* found 4h"),
        ({"timeframe": "1h", "base": "10m"}, "data.base: Yahoo has bars of .* found 10m"),
        ({"start": None}, "data.start: source yahoo needs the first day to fetch"),
        ({"feed": "sip"}, "data.feed: only source: alpaca reads it, found source: yahoo"),
        ({"symbols": "all"}, "data.symbols: all means what a file or a sample has, found source: yahoo"),
    ],
)
def test_settings_that_do_not_fit(yahoo: Yahoo, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_bars(section(**settings), tmp_path)


def test_a_symbol_that_yahoo_has_not(yahoo: Yahoo, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="yahoo, AAPL: at least two bars are needed, and Yahoo has none of 1d since"):
        load_bars(section(), tmp_path)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("limited", "yahoo, AAPL: Yahoo lets no more requests through for now; wait some minutes"),
        (ConnectionError("Failed\nto connect"), r"could not be fetched \(ConnectionError: Failed\); check the network"),
        (KeyError("chart"), r"could not be fetched \(KeyError: 'chart'\)"),
    ],
)
def test_failures_are_sentences(yahoo: Yahoo, tmp_path: Path, failure: Any, message: str) -> None:
    yahoo.failure = yahoo.limited("Too Many Requests") if failure == "limited" else failure
    with pytest.raises(DataError, match=message):
        load_bars(section(), tmp_path)
    assert yahoo.config.debug.hide_exceptions is True


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        (
            table(sessions("2024-06-03", "2024-06-10", "Europe/London")),
            "an exchange in New York, .* zone Europe/London",
        ),
        (table(sessions("2024-06-03", "2024-06-10")).drop(columns="Close"), r"what are no bars \(KeyError: 'Close'\)"),
        (table(sessions("2024-06-03", "2024-06-10")).drop(columns="Dividends"), r"no bars \(KeyError: 'Dividends'\)"),
    ],
)
def test_answers_that_are_no_bars_of_new_york(yahoo: Yahoo, tmp_path: Path, bars: pd.DataFrame, message: str) -> None:
    yahoo.tables["AAPL"] = bars
    with pytest.raises(DataError, match=message):
        load_bars(section(), tmp_path)
