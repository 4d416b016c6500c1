"""Intervals: as often right as they say, whatever the model; what adapts recovers, and sees no outcome too early."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from scipy import stats
from synthetic import make_bars, make_config, make_frame

from engine.errors import ConfigError
from models.bundle_files import load_bundle, write_bundle
from models.calibration import Adaptive, Conformal, conformal_margins
from models.features import Columns, Floats
from models.fitting.bundles import fit_bundle
from models.forecaster import Forecaster
from models.predictor import Predictor

HORIZONS = [1, 5]


class Narrow(Predictor):
    """Expects nothing, and is far too sure of it."""

    memory = 3

    def series(self, columns: Columns) -> Floats:
        rows = np.tile([0.0, -1e-3, 1e-3], (len(columns), 1))
        rows[: self.memory - 1] = np.nan
        return rows


def columns_of(returns: Floats) -> Columns:
    return Columns.of(make_frame(len(returns), returns=returns, start="1950-01-02"))


def held(rows: Floats, columns: Columns, horizon: int = 1) -> np.ndarray:
    """Whether each interval holds its outcome, of those that there are."""
    outcomes = np.log(columns.close[horizon:] / columns.close[:-horizon])
    rows = rows[:-horizon]
    known = ~np.isnan(rows[:, 0])
    return ((rows[:, 1] <= outcomes) & (outcomes <= rows[:, 2]))[known]


def conformal(columns: Columns, *, seen: int, horizon: int = 1) -> Conformal:
    """The narrow predictor, calibrated on the first bars."""
    rows = Narrow().series(columns[:seen])[2:-horizon]
    outcomes = np.log(columns.close[2 + horizon : seen] / columns.close[2 : seen - horizon])
    return Conformal(Narrow(), conformal_margins(rows[:, 1], rows[:, 2], outcomes))


def test_the_margin_is_the_quantile_with_the_correction_for_a_finite_sample():
    outcomes = np.arange(1.0, 20.0)  # 1 to 19: the 18th smallest of 19 scores, for ceil(20 * 0.9) = 18
    below, above = conformal_margins(np.zeros(19), np.full(19, 10.0), outcomes)
    assert (below, above) == (-2.0, 8.0)
    with pytest.raises(ValueError, match="at least 9 outcomes, found 8"):
        conformal_margins(np.zeros(8), np.zeros(8), outcomes[:8])
    assert conformal_margins(np.zeros(9), np.zeros(9), outcomes[:9]) == (-1.0, 9.0)


@pytest.mark.parametrize("spread", [1e-3, 0.05], ids=["too narrow", "too wide"])
def test_split_conformal_holds_as_often_as_it_says(spread: float):
    """The mean coverage over many calibrations is that of the ranks: 2 * 46 / 51 - 1 with 50 outcomes."""
    random = np.random.default_rng(3)
    hits = []
    for _ in range(4000):
        outcomes = random.standard_t(4, 51) * 0.01
        below, above = conformal_margins(np.full(50, -spread), np.full(50, spread), outcomes[:50])
        hits.append(min(-spread - below, 0.0) <= outcomes[50] <= max(spread + above, 0.0))
    expected = 2 * 46 / 51 - 1
    assert stats.binomtest(sum(hits), len(hits), expected).pvalue > 0.001


@pytest.mark.parametrize("horizon", HORIZONS)
def test_adaptive_intervals_hold_as_often_as_they_say(horizon: int):
    columns = columns_of(np.random.default_rng(4).standard_t(4, 6000) * 0.01)
    adaptive = Adaptive(Narrow(), horizon=horizon)
    hits = held(adaptive.series(columns), columns, horizon)
    if horizon > 1:  # outcomes that overlap are no independent draws: take those that do not
        hits = hits[::horizon]
    assert abs(hits.mean() - 0.8) < 3.3 * np.sqrt(0.8 * 0.2 / len(hits)) + 0.01


def test_after_a_shift_of_volatility_the_adaptive_ones_recover_and_the_others_do_not():
    random = np.random.default_rng(5)
    calm, wild = random.normal(0.0, 0.01, 1000), random.normal(0.0, 0.03, 1000)
    columns = columns_of(np.concatenate([calm, wild]))
    adaptive = Adaptive(Narrow(), horizon=1)
    fixed = conformal(columns, seen=500)
    after = {name: held(own.series(columns), columns)[-900:].mean() for name, own in
             {"fixed": fixed, "adaptive": adaptive}.items()}  # fmt: skip
    assert after["fixed"] < 0.5
    assert 0.75 < after["adaptive"] < 0.85
    at_once = held(adaptive.series(columns), columns)[-1000:-950].mean()
    assert at_once < after["adaptive"]  # it cannot know before it has seen


@pytest.mark.parametrize("horizon", HORIZONS)
def test_an_adaptive_interval_follows_known_outcomes_and_nothing_else(horizon: int):
    """Of the bars before its own, an outlier moves it once its outcome is known; and is forgotten with its window."""
    frame = make_frame(400, seed=6)
    adaptive = Adaptive(Narrow(), horizon=horizon)
    before = adaptive.series(Columns.of(frame))
    at = 250
    for factor in (2.0, 0.5):
        shocked = frame.copy()
        shocked.iloc[at] *= factor
        after = adaptive.series(Columns.of(shocked))
        differs = np.flatnonzero((before != after).any(axis=1) & ~np.isnan(before[:, 0]))
        assert at <= differs[0] <= at + 1  # its outcome is known at that bar, and no sooner
        assert differs[-1] < at + adaptive.memory
    assert adaptive.memory == Narrow.memory + 100 + 2 * horizon - 2
    assert np.isnan(before[: adaptive.memory - 1]).all()
    assert np.isfinite(before[adaptive.memory - 1 :]).all()


def test_an_interval_keeps_holding_its_forecast_and_the_forecast_is_left_alone():
    columns = columns_of(np.random.default_rng(7).normal(0.0, 1e-6, 400))  # all intervals are far too wide
    plain = Narrow().series(columns)
    for own in (conformal(columns, seen=200), Adaptive(Narrow(), horizon=1), Conformal(Narrow(), (-1.0, -1.0))):
        rows = own.series(columns)
        known = ~np.isnan(rows[:, 0])
        assert (rows[known, 0] == plain[known, 0]).all()
        assert (rows[known, 1] <= rows[known, 0]).all()
        assert (rows[known, 0] <= rows[known, 2]).all()
        assert (rows[known, 2] - rows[known, 1] < 1e-3).all()


@pytest.fixture(scope="module")
def bars():
    return make_bars({"AAA": make_frame(300, seed=1), "BBB": make_frame(280, seed=2)})


def config_of(kind: str, calibration: str, **more):
    model = {"kind": kind, "calibration": calibration, "more_horizons": [3], **more}
    spans = {
        "train": ["2020-01-02", "2020-06-30"],
        "validate": ["2020-07-01", "2020-10-15"],
        "test": ["2020-10-16", "2021-02-15"],
    }
    config = make_config(spans=spans)
    return type(config).model_validate({**config.model_dump(mode="json", exclude_none=True), "model": model})


@pytest.mark.parametrize("kind", ["mean", "last_return"])
def test_a_bundle_has_numbers_of_each_horizon_and_forecasts_the_same_once_it_is_read_again(kind, bars, tmp_path):
    bundles = {
        name: fit_bundle(config_of(kind, name), bars, root=tmp_path) for name in ("none", "conformal", "adaptive")
    }
    assert list(bundles["conformal"].record.calibration) == ["1", "3"]
    assert bundles["none"].record.calibration is bundles["adaptive"].record.calibration is None
    assert len({bundle.record.hash for bundle in bundles.values()}) == 3
    columns = Columns.of(bars.frames["AAA"])
    for horizon in (1, 3):
        plain = Forecaster(bundles["none"], horizon=horizon).forecast(columns)
        for name in ("conformal", "adaptive"):
            written = write_bundle(bundles[name])
            rows = Forecaster(load_bundle(written.path), horizon=horizon).forecast(columns)
            np.testing.assert_array_equal(rows, Forecaster(bundles[name], horizon=horizon).forecast(columns))
            known = ~np.isnan(rows[:, 0])
            assert known[-1]
            np.testing.assert_array_equal(rows[known, 0], plain[known, 0])
            assert (rows[known, 1:] != plain[known, 1:]).any()


def test_nothing_after_the_validation_span_enters_the_numbers(bars, tmp_path):
    config = config_of("mean", "conformal")
    changed = replace(bars, frames={name: frame.copy() for name, frame in bars.frames.items()})
    for frame in changed.frames.values():
        frame.loc["2020-10-16":] *= 1.5
    found, again = (fit_bundle(config, own, root=tmp_path).record.calibration for own in (bars, changed))
    assert found == again


def test_no_embargoed_outcome_enters_the_numbers(bars, tmp_path):
    """Nor any whose label of another horizon would be: the bars are those that models are chosen on."""
    config = config_of("mean", "conformal")
    config = config.model_copy(update={"training": config.training.model_copy(update={"embargo": 6})})
    found = []
    for left in (0, 6, 7):
        changed = replace(bars, frames={name: frame.copy() for name, frame in bars.frames.items()})
        for frame in changed.frames.values():
            at = np.flatnonzero(frame.index < "2020-10-16")[-1] + 1
            frame.iloc[at - left : at, :4] *= 3.0
        found.append(fit_bundle(config, changed, root=tmp_path).record.calibration)
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_what_was_learned_has_a_hash_of_its_own_with_the_intervals_in_it(bars, tmp_path):
    hashes = {
        write_bundle(fit_bundle(config_of("mean", name), bars, root=tmp_path)).record.weights_hash
        for name in ("none", "conformal")
    }
    assert len(hashes) == 2


def test_too_few_outcomes_are_said(bars, tmp_path):
    config = config_of("mean", "conformal")
    spans = config.spans.model_copy(update={"validate_": (date(2020, 7, 1), date(2020, 7, 9))})
    config = config.model_copy(update={"spans": spans})
    with pytest.raises(ConfigError, match=r"model.calibration: conformal: spans.validate holds too few outcomes"):
        fit_bundle(config, bars, root=tmp_path)
