"""Ridge and elastic net: scikit-learn's numbers; the validation span chooses the penalty, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fits import config_of, fitted, forecasts, frame_of
from sklearn.linear_model import ElasticNet, Ridge
from synthetic import make_bars

from engine.data.bars import Bars
from models.fitting.regression import RIDGE_PENALTIES
from models.networks.scaling import CLIP

COUNT = 1560


def planted(coefficient: float, *, seed: int = 11, count: int = COUNT) -> np.ndarray:
    """Log returns of an AR(1) of known R2 = coefficient^2."""
    noise = np.random.default_rng(seed).standard_t(5, count) * 0.01
    returns = noise.copy()
    for position in range(1, count):
        returns[position] += coefficient * returns[position - 1]
    return returns


def two(coefficient: float = 0.3) -> Bars:
    return make_bars({"AAA": frame_of(planted(coefficient)), "BBB": frame_of(planted(coefficient, seed=2), seed=3)})


def inputs_of(task, rows: np.ndarray) -> np.ndarray:
    """Windows standardised by the training span's rows and clipped, [n, lookback * features]."""
    trained = task.windows.features[task.train_rows].astype(np.float64)
    windows = task.windows.gather(rows).double().numpy()
    return np.clip((windows - trained.mean(axis=0)) / trained.std(axis=0), -CLIP, CLIP).reshape(len(rows), -1)


@pytest.mark.parametrize("kind", ["ridge", "elastic_net"])
def test_it_is_scikit_learns_fit_of_all_windows(kind):
    found, task = fitted(config_of(kind, alpha=0.02, more_horizons=[3]), two())
    x, labels = inputs_of(task, task.train_rows), task.windows.labels[task.train_rows].astype(np.float64)
    for at in range(2):
        scale = np.sqrt(np.square(labels[:, at]).mean())
        if kind == "ridge":
            theirs = Ridge(alpha=0.02 * len(x))
        else:
            theirs = ElasticNet(alpha=0.02, l1_ratio=0.5, tol=1e-9, max_iter=100_000)
        theirs.fit(x, labels[:, at] / scale)
        expected = theirs.predict(inputs_of(task, task.validation_rows)) * scale
        ours = forecasts(found, task, task.validation_rows, at)[:, 0]
        np.testing.assert_allclose(ours, expected, rtol=0.0, atol=2e-6 * scale if kind == "ridge" else 2e-3 * scale)


@pytest.mark.parametrize("kind", ["ridge", "elastic_net"])
def test_the_validation_span_chooses_the_penalty(kind):
    """On a strong signal a small one, on noise one that leaves the mean."""

    def r2(coefficient: float) -> float:
        found, task = fitted(config_of(kind), two(coefficient))
        rows = task.validation_rows
        ours, labels = forecasts(found, task, rows)[:, 0], task.windows.labels[rows, 0].astype(np.float64)
        return float(1.0 - np.square(labels - ours).sum() / np.square(labels).sum())

    assert r2(0.6) > 0.8 * 0.36
    assert abs(r2(0.0)) < 0.01


def test_the_chosen_ridge_is_the_best_of_the_declared_ones_on_the_validation_span():
    bars = two(0.2)

    def loss(**model: float) -> float:
        found, task = fitted(config_of("ridge", **model), bars)
        labels = task.windows.labels[task.validation_rows, 0].astype(np.float64)
        return float(np.square(labels - forecasts(found, task, task.validation_rows)[:, 0]).mean())

    losses = [loss(alpha=alpha) for alpha in RIDGE_PENALTIES]
    assert loss() == pytest.approx(min(losses), rel=1e-9)
    assert min(losses) < min(losses[0], losses[-1])


@pytest.mark.parametrize("kind", ["ridge", "elastic_net"])
def test_with_a_given_penalty_later_bars_change_nothing_but_the_interval(kind):
    bars, config = two(), config_of(kind, alpha=0.05)
    changed = {symbol: frame.copy() for symbol, frame in bars.frames.items()}
    for frame in changed.values():
        frame.loc["2014-01-01":] *= np.linspace(1.0, 3.0, len(frame.loc["2014-01-01":]))[:, None]
    first, again = fitted(config, bars)[0].network, fitted(config, make_bars(changed))[0].network
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]) == ("residuals" not in name), name


@pytest.mark.parametrize("kind", ["ridge", "elastic_net"])
def test_inputs_that_never_vary_or_repeat_others_do_no_harm(kind):
    """Month and weekday of bars a week apart, and a return that is there twice."""
    bars = make_bars({"AAA": frame_of(planted(0.4)).iloc[::5]})
    config = config_of(kind, features=["weekday", "log_return", "log_return_1"], lookback=2)
    found, task = fitted(config, bars)
    assert np.isfinite(forecasts(found, task, task.validation_rows)).all()
