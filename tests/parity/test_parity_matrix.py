"""Run files of every kind: ``paper --replay`` writes the backtest's orders, fills and figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pairs import NOW, TECH, Pair, manifest, run_both, write_config

from engine.data.calendars import last_session_closes, session_closes, session_hours
from engine.training import train

Both = Callable[..., Pair]
SMA = {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 3, "slow": 8}}
HOLD = {"kind": "strategies.buy_and_hold:BuyAndHold"}
MINUTES = ["SYN_CALM", "SYN_LATE", "SYN_THIN", "SYN_WILD"]
LARGE20 = "AAPL AMD BAC BBY CVX GE HD JNJ JPM KO LLY MRK MSFT PEP PFE PG RRC UNH WMT XOM".split()  # noqa: SIM905
COSTLY = {
    "cash": 20000,
    "commission": {"bps": 3.3, "per_share": 0.0035, "minimum": 1.0},
    "slippage_bps": 7.5,
    "borrow_rate_pct": 8.0,
    "margin_rate_pct": 9.5,
}


def tech(*symbols: str) -> dict[str, Any]:
    return {"source": "sample:tech", "symbols": list(symbols), "warmup_bars": 30}


def minutes(*symbols: str) -> dict[str, Any]:
    return {"source": "sample:minutes", "symbols": list(symbols), "timeframe": "1m", "warmup_bars": 40}


# --- accounts, costs and limits --------------------------------------------------------------------------------------

ACCOUNTS: dict[str, dict[str, Any]] = {
    "one symbol": {"data": tech("IBM")},
    "free of costs": {"broker": {"cash": 100000}},
    "all costs": {"broker": COSTLY},
    "cash account": {"broker": {**COSTLY, "account": "cash"}},
    "fractions": {"broker": {**COSTLY, "fractional": True}},
    "fractions in a cash account": {"broker": {**COSTLY, "account": "cash", "fractional": True}},
    "too poor for most": {"broker": {**COSTLY, "cash": 400}},
    "gross above one": {"strategy": HOLD, "broker": COSTLY, "risk": {"max_gross": 2.0}},
    "hold one": {"strategy": HOLD, "data": tech("AAPL"), "broker": COSTLY},
    "no warm-up": {"data": {**tech("AAPL", "IBM"), "warmup_bars": 0}},
    "a benchmark": {"data": {**tech("AAPL"), "benchmark": "sample:sp500"}},
    "from the first bar of a late listing": {
        "data": {**tech("AAPL", "GOOG"), "warmup_bars": 10},
        "spans": {"test": ["2004-08-02", "2004-11-30"]},
    },
}


@pytest.mark.parametrize("sections", ACCOUNTS.values(), ids=ACCOUNTS)
def test_accounts_and_costs(both: Both, sections: dict[str, Any]) -> None:
    assert len(both(**{"strategy": SMA, **sections}).agree().fills) > 0


LIMITS: dict[str, dict[str, Any]] = {
    "max_position": {"max_position": 0.1},
    "max_gross": {"max_gross": 0.3},
    "max_order_notional": {"max_order_notional": 24900.0},
    "symbols": {"symbols": ["AAPL", "IBM"]},
}


@pytest.mark.parametrize("risk", LIMITS.values(), ids=LIMITS)
def test_limits_that_refuse(both: Both, risk: dict[str, Any]) -> None:
    pair = both(strategy=HOLD, risk=risk, data=tech("AAPL", "IBM", "MSFT")).agree()
    assert "refused" in set(pair.orders["status"]) or len(pair.orders) < 3


HALTS: dict[str, dict[str, Any]] = {
    "max_drawdown_halt": {"max_drawdown_halt": 0.02},
    "max_daily_loss_halt": {"max_daily_loss_halt": 0.01},
}


@pytest.mark.parametrize("risk", HALTS.values(), ids=HALTS)
@pytest.mark.parametrize("broker", [TECH["broker"], {**COSTLY, "fractional": True}], ids=["whole", "fractions"])
def test_halts(both: Both, risk: dict[str, Any], broker: dict[str, Any]) -> None:
    pair = both(strategy=SMA, risk=risk, broker=broker).agree()
    assert pair.paper.status == "halted"
    assert next(iter(risk)) in pair.paper.halted


def test_a_halt_within_a_session(both: Both) -> None:
    pair = both(
        data=minutes("SYN_WILD", "SYN_THIN"),
        spans={"test": ["2023-11-24", "2023-11-24"]},
        strategy=SMA,
        risk={"max_daily_loss_halt": 0.001},
        broker=COSTLY,
    ).agree()
    assert pair.paper.status == "halted"


PLAIN = '''
import backtrader as bt


class Plain(bt.Strategy):
    """Long above the average, short below it, with an order behind every position."""

    params = (("period", 6), ("size", 30))

    def __init__(self):
        self.averages = [bt.ind.EMA(d.close, period=self.p.period) for d in self.datas]
        self.stops = {}

    def prenext(self):
        self.next()

    def next(self):
        for d, average in zip(self.datas, self.averages):
            if len(d) < self.p.period or d.datetime[0] < self.datetime[0]:
                continue
            long, held = d.close[0] > average[0], self.getposition(d).size
            if held and (held > 0) != long:
                if d in self.stops:
                    self.cancel(self.stops.pop(d))
                self.close(d)
            elif not held:
                go, back = (self.buy, self.sell) if long else (self.sell, self.buy)
                entry = go(d, size=self.p.size)
                away = 0.97 if long else 1.03
                self.stops[d] = back(
                    d, size=self.p.size, exectype=bt.Order.Stop, price=d.close[0] * away, parent=entry
                )
'''


@pytest.mark.parametrize(
    ("short", "symbols", "risk"),
    [
        (True, ("IBM",), {}),
        (True, ("AAPL", "GOOG", "IBM", "MSFT"), {}),
        (False, ("AAPL", "GOOG", "IBM", "MSFT"), {}),
        (True, ("AAPL", "GOOG", "IBM", "MSFT"), {"max_position": 0.9, "price_collar": 0.029}),
    ],
    ids=["one symbol", "short", "long only", "collared"],
)
def test_a_plain_strategy(
    both: Both, tmp_path: Path, short: bool, symbols: tuple[str, ...], risk: dict[str, Any]
) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    pair = both(
        strategy={"kind": str(tmp_path / "plain.py") + ":Plain", "params": {"size": 20}},
        data=tech(*symbols),
        broker={**COSTLY, "cash": 100000, "short": short},
        risk=risk,
    ).agree()
    if risk:
        assert set(pair.orders["status"]) & {"refused", "canceled"}
    else:
        assert len(pair.fills) > 8
        signed = pair.fills["quantity"].where(pair.fills["side"] == "buy", -pair.fills["quantity"])
        assert (signed.groupby(pair.fills["symbol"]).cumsum().min() < 0.0) == short


# --- bars of every kind ----------------------------------------------------------------------------------------------


def test_minutes_with_gaps_on_a_half_day(both: Both) -> None:
    pair = both(
        data=minutes(*MINUTES), spans={"test": ["2023-11-24", "2023-11-24"]}, strategy=SMA, broker=COSTLY
    ).agree()
    assert len(pair.fills) > 40
    assert manifest(pair.paper.run)["symbols"] == MINUTES


def test_minutes_in_which_a_symbol_is_listed(both: Both) -> None:
    bars = both(
        data={**minutes("SYN_LATE", "SYN_THIN"), "warmup_bars": 5},
        spans={"test": ["2023-11-10", "2023-11-10"]},
        strategy=HOLD,
    ).agree()
    assert set(bars.fills["symbol"]) == {"SYN_LATE", "SYN_THIN"}


def test_closes_of_twenty(both: Both) -> None:
    pair = both(
        data={"source": "sample:large20", "symbols": LARGE20, "warmup_bars": 20},
        spans={"test": ["2010-01-04", "2010-02-26"]},
        strategy=SMA,
        broker=COSTLY | {"cash": 1000000},
    ).agree()
    assert len(set(pair.fills["symbol"])) == 20


def bar_ends(timeframe: str) -> pd.DatetimeIndex:
    """Ends of about 150 bars, among them those of the half day after Thanksgiving and of the end of summer time."""
    if timeframe == "1w":
        mondays = pd.date_range("2021-01-04", periods=150, freq="7D")
        return last_session_closes(mondays + pd.Timedelta(days=6))
    if timeframe == "1d":
        return session_closes(pd.bdate_range("2023-08-01", "2024-02-28").difference(holidays()))
    step = pd.Timedelta(timeframe.replace("m", "min"))
    # Hours begin on the clock at Alpaca: the half hour after the open belongs to none.
    days = pd.bdate_range("2023-11-02" if step >= pd.Timedelta("1h") else "2023-11-22", "2023-11-27")
    ends: list[pd.Timestamp] = []
    for opened, closed in zip(*session_hours(days.difference(holidays())), strict=True):
        first = opened.ceil(step) + step
        ends += [end for end in pd.date_range(first, closed, freq=step) if end <= closed]
    return pd.DatetimeIndex(ends)


def holidays() -> pd.DatetimeIndex:
    names = ["2023-09-04", "2023-11-23", "2023-12-25", "2024-01-01", "2024-01-15", "2024-02-19"]
    return pd.DatetimeIndex(names)


def write_bars(folder: Path, ends: pd.DatetimeIndex, **gaps: float) -> None:
    """A CSV a symbol; the number is the share of its bars that are missing."""
    folder.mkdir()
    for number, (symbol, gap) in enumerate(gaps.items()):
        random = np.random.default_rng(number)
        close = np.round(40.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, len(ends)))), 2)
        opened = np.round(np.concatenate([[40.0], close[:-1]]) * np.exp(random.normal(0.0, 0.003, len(ends))), 2)
        frame = pd.DataFrame(
            {
                "open": opened,
                "high": np.maximum(opened, close) + 0.07,
                "low": np.minimum(opened, close) - 0.07,
                "close": close,
                "volume": 1000.0,
            },
            index=ends.strftime("%Y-%m-%dT%H:%M:%SZ").rename("time"),
        )
        frame[random.random(len(ends)) >= gap].to_csv(folder / f"{symbol}.csv", float_format="%.2f")


@pytest.mark.parametrize("timeframe", ["5m", "1h", "1d", "1w"])
def test_bars_from_files(both: Both, tmp_path: Path, timeframe: str) -> None:
    ends = bar_ends(timeframe)
    write_bars(tmp_path / "bars", ends, FULL=0.0, THIN=0.3, **{"BRK.B": 0.05})
    sections: dict[str, Any] = {
        "data": {
            "source": "files",
            "path": "bars",
            "symbols": ["BRK.B", "FULL", "THIN"],
            "timeframe": timeframe,
            "warmup_bars": 12,
        },
        "spans": {"test": [str(ends[len(ends) // 5].date()), str(ends[-1].date())]},
        "strategy": SMA,
        "broker": COSTLY,
        "risk": {"max_drawdown_halt": 0.9},
    }
    pair = both(**sections).agree()
    assert set(pair.fills["symbol"]) == {"BRK.B", "FULL", "THIN"}


# --- forecasts -------------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "data": tech("AAPL", "GOOG", "IBM", "MSFT"),
    "spans": {
        "train": ["2009-01-01", "2009-12-31"],
        "validate": ["2010-01-01", "2010-06-30"],
        "test": ["2011-01-01", "2011-03-25"],
    },
    "model": {"kind": "lstm", "features": ["log_return", "volatility_5"], "lookback": 5, "hidden": 4, "layers": 1},
    "training": {"seed": 7, "epochs": 1, "batch": 64},
    "strategy": {"kind": "strategies.forecast:Forecast", "params": {"margin_bps": -30, "full_size": 0.001}},
    "broker": COSTLY,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network's bundle."""
    return trained(tmp_path_factory.mktemp("bundle"))


def trained(folder: Path, **sections: Any) -> Path:
    train(write_config(folder, **{**TINY, **sections}), root=folder, now=NOW)
    return next((folder / "bundles").iterdir())


FORECASTS: dict[str, dict[str, Any]] = {
    "four symbols": {},
    "fractions, short": {"broker": {**COSTLY, "fractional": True, "short": True}},
    "cash account": {"broker": {**COSTLY, "account": "cash"}},
    "plain": {"strategy": {"kind": "strategies.plain:Plain", "params": {"threshold_bps": -3, "stop_pct": 2}}},
    "halts": {"risk": {"max_drawdown_halt": 0.02}},
}


@pytest.mark.parametrize("sections", FORECASTS.values(), ids=FORECASTS)
def test_a_forecast(both: Both, bundle: Path, sections: dict[str, Any]) -> None:
    pair = both(**{**TINY, "model": {"bundle": str(bundle)}, **sections}).agree()
    assert len(pair.fills) > 5
    forecasts = pd.read_parquet(pair.paper.run / "forecasts.parquet")
    assert forecasts["forecast"].notna().all()
    assert set(forecasts["symbol"]) == {"AAPL", "GOOG", "IBM", "MSFT"}


OWN_BUNDLE = '''
import backtrader as bt
from models.indicator import ForecastIndicator


class Own(bt.Strategy):
    """Trades the mean of two bundles, of which the run file names one at most."""

    params = (("forecaster", None), ("other", ""))

    def __init__(self):
        bundles = [self.p.other] + ([self.p.forecaster] if self.p.forecaster else [])
        self.forecasts = [[ForecastIndicator(d, bundle=b) for b in bundles] for d in self.datas]

    def next(self):
        for d, own in zip(self.datas, self.forecasts):
            if not self.getposition(d) and sum(f.forecast[0] for f in own) > 0:
                self.buy(d, size=10)
            elif len(self) % 5 == 0:
                self.close(d)
'''


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with another seed."""
    return trained(tmp_path_factory.mktemp("other"), training={"seed": 8, "epochs": 1, "batch": 64})


def test_a_strategy_with_a_bundle_of_its_own_beside_the_run_files(
    both: Both, tmp_path: Path, bundle: Path, other_bundle: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN_BUNDLE)
    pair = both(
        **{
            **TINY,
            "model": {"bundle": str(bundle)},
            "strategy": {"kind": f"{tmp_path / 'own.py'}:Own", "params": {"other": str(other_bundle)}},
        }
    ).agree()
    assert len(manifest(pair.paper.run)["bundles"]) == 2
    assert len(pair.fills) > 10


def test_relative_paths_leave_every_hash_as_it_is(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars", bar_ends("1d"), AAA=0.0, BBB=0.2)
    write_bars(tmp_path / "beside", bar_ends("1d"), INDEX=0.0)
    (tmp_path / "plain.py").write_text(PLAIN)
    pair = run_both(
        tmp_path,
        data={
            "source": "files",
            "path": "bars",
            "symbols": ["AAA", "BBB"],
            "benchmark": "beside/INDEX.csv",
            "warmup_bars": 10,
        },
        spans={"test": ["2023-10-02", "2024-01-31"]},
        strategy={"kind": "./plain.py:Plain"},
    ).agree()
    assert len((tmp_path / "runs" / "trials.jsonl").read_text().splitlines()) == 2
    assert len(pair.fills) > 10
