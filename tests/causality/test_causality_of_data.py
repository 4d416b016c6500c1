"""Promise 1 on the data path: bars that come later change no earlier bar, as they are read, cut and backtested."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from subjects import daily_bars

from engine.backtest import backtest
from engine.config import DataConfig, RunConfig
from engine.data import samples
from engine.data.samples import SAMPLES, load_sample
from engine.data.sources import load_bars

END = pd.Timestamp("2008-06-30", tz="UTC")


def read_up_to(end: pd.Timestamp):
    """The packages' tables as they would have been at that time."""

    def read(package: str, file: str) -> pd.DataFrame:
        table = whole(package, file)
        dates = pd.to_datetime(table["Date"], format="mixed")
        return table[dates <= end.tz_localize(None)].reset_index(drop=True)

    whole = samples._packaged
    return read


@pytest.mark.parametrize("name", ["tech", "large20", "sp500"])
def test_a_sample_that_ends_earlier_has_the_same_bars(name: str, monkeypatch: pytest.MonkeyPatch):
    symbols = SAMPLES[name].symbols[:3]
    later = load_sample(name, symbols)
    monkeypatch.setattr(samples, "_packaged", read_up_to(END))
    earlier = load_sample(name, symbols)
    assert earlier.symbols == later.symbols
    for symbol in symbols:
        known = later.frames[symbol].loc[: END + pd.Timedelta(days=1)]
        assert 0 < len(known) < len(later.frames[symbol])
        pd.testing.assert_frame_equal(earlier.frames[symbol], known, check_exact=True)


def test_a_file_that_ends_earlier_has_the_same_bars(tmp_path: Path):
    frames = daily_bars(of_sessions=True).frames
    for folder, count in (("earlier", 60), ("later", 150)):
        (tmp_path / folder).mkdir()
        for symbol, frame in frames.items():
            frame.iloc[:count].to_csv(tmp_path / folder / f"{symbol}.csv")
    earlier, later = (
        load_bars(DataConfig(source="files", symbols=tuple(frames), path=Path(folder)), tmp_path)
        for folder in ("earlier", "later")
    )
    for symbol, frame in earlier.frames.items():
        assert len(frame) == 60
        pd.testing.assert_frame_equal(frame, later.frames[symbol].iloc[:60], check_exact=True)


def run_until(end: str, tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Orders, fills and equity of a backtest whose test span ends on that day."""
    config = RunConfig.model_validate(
        {
            "name": f"until-{end}",
            "data": {"source": "sample:tech", "symbols": ["AAPL", "GOOG", "IBM"]},
            "spans": {"test": ["2005-01-03", end]},
            "strategy": {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 5, "slow": 20}},
            "broker": {"commission": {"bps": 1.0}, "slippage_bps": 2.0},
        }
    )
    report = backtest(config, root=tmp_path, now=datetime(2026, 1, 1, tzinfo=UTC))
    orders, fills, equity = (pd.read_parquet(report.run / f"{n}.parquet") for n in ("orders", "fills", "equity"))
    return orders, fills, equity


def test_a_longer_backtest_begins_as_the_shorter_one(tmp_path: Path):
    orders, fills, equity = run_until("2005-06-30", tmp_path)
    later_orders, later_fills, later_equity = run_until("2005-09-30", tmp_path)
    assert 10 < len(orders) < len(later_orders)
    decided = ["order_id", "time", "symbol", "side", "quantity", "type"]
    pd.testing.assert_frame_equal(later_orders[decided].iloc[: len(orders)], orders[decided], check_exact=True)
    pd.testing.assert_frame_equal(later_fills.iloc[: len(fills)], fills, check_exact=True)
    pd.testing.assert_frame_equal(later_equity.iloc[: len(equity)], equity, check_exact=True)
