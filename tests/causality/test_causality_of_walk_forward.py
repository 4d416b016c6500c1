"""Promise 1 for models that take over from one another, whatever kind they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness import assert_causal, assert_same
from subjects import daily_bars, of_columns, of_indicator, tiny_config

from engine.config import FoldsConfig, Spans, TrainingConfig
from engine.data.bars import Bars
from models.features import Columns
from models.fitting.walk_forward import fit_walk_forward, fold_store
from models.forecaster import Forecaster
from models.indicator import ForecastIndicator

RIDGE = {"kind": "ridge", "features": ["log_return", "range", "rsi_4"], "lookback": 4, "alpha": 1.0, "horizon": 2}
SECTIONS = {
    "ridge": RIDGE,
    "ensemble": {"kind": "ensemble", "combine": "online", "window": 5, "members": [RIDGE, {"kind": "mean"}]},
    "calibrated": {**RIDGE, "calibration": "conformal"},
}


def walked(folder: Path, name: str, bars: Bars) -> Forecaster:
    section = {"horizon": 2, **SECTIONS[name]}
    config = tiny_config("zero").model_validate(
        {
            **tiny_config("zero").model_dump(mode="json", exclude={"model", "folder"}, exclude_none=True),
            "model": section,
            "spans": Spans.model_validate({"test": ["2020-01-01", "2020-12-31"]}).model_dump(),
            "folds": FoldsConfig.model_validate({"train": 30, "validate": 20, "test": 15}).model_dump(),
            "training": TrainingConfig(walk_forward=True).model_dump(),
        }
    )
    with fold_store(folder / "bundles" / "walk") as store:
        bundle, _ = fit_walk_forward(config, bars, store=store)
        store.clear()
    assert len(bundle.members) >= 5
    return Forecaster(bundle)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_stitched_forecast_depends_on_its_last_bars_alone(tmp_path, name):
    bars = daily_bars(140)
    forecaster = walked(tmp_path, name, bars)
    assert_causal(of_columns(forecaster.forecast), bars, warmup=forecaster.memory, memory=forecaster.memory)

    def one_at_a_time(columns: Columns) -> np.ndarray:
        known = np.full((len(columns), 3), np.nan)
        for end in range(forecaster.memory, len(columns) + 1):
            known[end - 1] = forecaster.latest(columns[end - forecaster.memory : end])
        return known

    assert_same(of_columns(forecaster.forecast)(bars), of_columns(one_at_a_time)(bars), check="bar by bar")


def test_bars_after_a_fold_was_chosen_change_neither_its_model_nor_what_it_says_before_them(tmp_path):
    bars = daily_bars(140)
    whole = walked(tmp_path, "ridge", bars)
    changed = {}
    last = whole.bundle.members[2].seen[1]
    for symbol, frame in bars.frames.items():
        later = frame.copy()
        later.loc[later.index.date > last, ["open", "high", "low", "close"]] *= 1.5
        changed[symbol] = later
    other = walked(tmp_path, "ridge", replace(bars, frames=changed))
    hashes = [[member.record.weights_hash for member in found.bundle.members] for found in (whole, other)]
    assert hashes[0][:3] == hashes[1][:3]
    assert hashes[0][3:] != hashes[1][3:]


@pytest.mark.parametrize("run", [{"lean": True}, {"lean": False, "runonce": False, "preload": False}])
def test_the_indicator_reads_it_alike_in_every_loop(tmp_path, run):
    bars = daily_bars(100)
    forecaster = walked(tmp_path, "ridge", daily_bars(140))
    expected = of_indicator(ForecastIndicator, params={"bundle": forecaster}, lean=True)(bars)
    assert_same(of_indicator(ForecastIndicator, params={"bundle": forecaster}, **run)(bars), expected, check="loops")
