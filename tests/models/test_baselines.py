"""The naive kinds: what they forecast, and that a score's naive figures are these kinds' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fits import SPANS, config_of, fitted, forecasts, frame_of
from synthetic import make_bars

from engine.data.bars import Bars
from models.evaluation import forecast_frame, judge, score_frame
from models.fitting.bundles import fit_bundle
from models.forecaster import Forecaster

HORIZONS = (2, 1, 5)
TEST = tuple(pd.Timestamp(day).date() for day in SPANS["test"])


@pytest.fixture(scope="module")
def bars() -> Bars:
    moves = np.random.default_rng(4).normal(0.001, 0.01, (2, 1560))
    return make_bars({"AAA": frame_of(moves[0]), "BBB": frame_of(moves[1], seed=3)})


def expected(kind: str, task, row: int, at: int) -> float:
    horizon = HORIZONS[at]
    if kind == "zero":
        return 0.0
    if kind == "mean":
        return float(task.windows.labels[task.train_rows, at].astype(np.float64).mean())
    return float(task.windows.features[row - horizon + 1 : row + 1, 0].astype(np.float64).sum())


@pytest.mark.parametrize("kind", ["zero", "mean", "last_return"])
def test_what_a_baseline_forecasts_at_every_horizon(bars, kind):
    found, task = fitted(config_of(kind, horizon=HORIZONS[0], more_horizons=HORIZONS[1:]), bars)
    rows = task.validation_rows[[0, 40, 200]]
    for at in range(len(HORIZONS)):
        ours = forecasts(found, task, rows, at)
        assert ours[:, 0] == pytest.approx([expected(kind, task, row, at) for row in rows], abs=1e-8)
        assert (ours[:, 1] <= ours[:, 0]).all()
        assert (ours[:, 0] <= ours[:, 2]).all()


@pytest.mark.parametrize(("kind", "suffix"), [("zero", "zero"), ("mean", "train_mean"), ("last_return", "last_return")])
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_naive_figures_of_any_score_are_these_kinds_own(bars, kind, suffix, horizon):
    bundle = fit_bundle(config_of(kind, horizon=horizon), bars, root=Path("bundles"))
    frame = forecast_frame(bars, Forecaster(bundle), TEST)
    scores = score_frame(frame, train_mean=bundle.record.train_mean, train_naive_mae=bundle.record.train_naive_mae)
    for name in ("mae", "rmse", "mase"):
        assert scores[name] == pytest.approx(scores[f"{name}_{suffix}"], rel=1e-5), name
    if kind != "zero":
        for name in ("hit_rate{}_pct", "r2_out_of_sample{}"):
            assert scores[name.format("")] == pytest.approx(scores[name.format(f"_{suffix}")], rel=1e-4, abs=1e-9)


def test_against_zero_the_last_return_loses_and_zero_itself_is_no_test(bars):
    def statistic(kind: str) -> tuple[float | None, float | None]:
        bundle = fit_bundle(config_of(kind, horizon=1), bars, root=Path("bundles"))
        figures = judge(forecast_frame(bars, Forecaster(bundle), TEST), horizon=1)
        return figures["dm_zero"], figures["dm_zero_p"]

    worse, chance = statistic("last_return")
    assert worse is not None
    assert worse > 5.0, "on white noise it has twice the squared error"
    assert chance == pytest.approx(1.0)
    assert statistic("zero") == (None, None)
