"""A bundle whose models take over from one another trades alike in a backtest, on an exchange, and in its twin."""

from __future__ import annotations

import pytest
from pairs import NOW, frame, run_both, write_config

from engine.backtest import backtest
from engine.errors import BundleError
from engine.training import train
from engine.twin import twin

SECTIONS = {
    "data": {"source": "sample:tech", "symbols": ["AAPL", "IBM"], "warmup_bars": 30},
    "spans": {"train": ["2010-06-01", "2010-12-31"], "test": ["2011-01-01", "2011-03-25"]},
    "folds": {"train": 100, "validate": 30, "test": 9},
    "model": {"kind": "ridge", "features": ["log_return", "range", "rsi_5"], "lookback": 5, "alpha": 1.0},
    "training": {"walk_forward": True},
    "strategy": {"kind": "strategies.forecast:Forecast", "params": {"margin_bps": -5, "full_size": 0.001}},
}


def test_backtest_replay_and_twin_of_a_walk_forward_agree_to_the_bit(tmp_path):
    config = write_config(tmp_path, **SECTIONS)
    report = train(config, root=tmp_path, now=NOW)
    assert len(report.folds) >= 8
    pair = run_both(tmp_path, **SECTIONS).agree()
    assert len(pair.fills) > 10
    found = twin(pair.paper.run.name, root=tmp_path / "runs")
    assert (found.verdict, found.same_orders, found.same_fills) == ("identical", True, True)
    made = frame(pair.backtest.run, "forecasts")
    assert made["forecast"].notna().all()


def test_bars_before_its_first_fold_are_refused_with_the_day_from_which_it_can_be_tested(tmp_path):
    report = train(write_config(tmp_path, **SECTIONS), root=tmp_path, now=NOW)
    begins = report.folds[0].takes_over
    spans = {"test": ["2010-07-01", "2010-12-31"]}
    early = write_config(tmp_path, **{**SECTIONS, "spans": spans, "model": {"bundle": str(report.path)}})
    with pytest.raises(BundleError, match=f"begins before {begins}, when the walk-forward .* begin the span there"):
        backtest(early, root=tmp_path, now=NOW)
