"""AR, ARIMA and exponential smoothing: statsmodels' own forecasts, from the training span's parameters alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import config_of, fitted, forecasts, frame_of, task_of
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from synthetic import make_bars, make_frame

from engine.errors import ConfigError
from models.fitting import classical, fit

COUNT = 1560
HORIZONS = (1, 5)


def arma(phi: float, theta: float, *, seed: int = 5, mean: float = 0.0005) -> np.ndarray:
    """Log returns of an ARMA(1, 1), in the single precision in which a model sees them."""
    noise = np.random.default_rng(seed).normal(0.0, 0.01, COUNT)
    moves = noise.copy()
    for position in range(1, COUNT):
        moves[position] += phi * moves[position - 1] + theta * noise[position - 1]
    return (moves + mean).astype(np.float32).astype(np.float64)


def bars_of(*returns: np.ndarray):
    return make_bars({f"{name}": frame_of(own) for name, own in zip(("AAA", "BBB", "CCC"), returns, strict=False)})


def seen(task, row: int) -> np.ndarray:
    """The log returns of all bars up to a row of the first symbol; the first bar has none."""
    return task.windows.features[1 : row + 1, 0].astype(np.float64)


def test_ar_is_autoreg_on_one_symbol():
    found, task = fitted(config_of("ar", lookback=3, more_horizons=[5]), bars_of(arma(0.4, 0.0)))
    rows = task.train_rows
    # Their first three returns are lags only, as are those of our first window.
    trained = task.windows.features[rows[0] - 2 : rows[-1] + 2, 0].astype(np.float64)
    theirs = AutoReg(trained, lags=3, trend="c").fit()
    row = task.validation_rows[40]
    following = theirs.apply(seen(task, row)).forecast(5)
    for at, ahead in enumerate(HORIZONS):
        ours = forecasts(found, task, np.array([row]), at)[0, 0]
        assert ours == pytest.approx(float(following[:ahead].sum()), abs=1e-7)


def test_ar_pools_all_symbols():
    """A second symbol of another coefficient moves the first one's; ten times its size, it counts for most."""
    low, high = arma(0.1, 0.0), 10.0 * arma(0.6, 0.0, seed=8, mean=0.0)
    found, _ = fitted(config_of("ar", lookback=1), bars_of(low, high))
    assert found.network.head().project.weight.item() == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 0), (0, 1), (0, 0)])
def test_arima_forecasts_are_statsmodels_own(p, q):
    found, task = fitted(config_of("arima", p=p, q=q, lookback=60, more_horizons=[5]), bars_of(arma(0.5, 0.3)))
    row = task.validation_rows[40]
    rows = task.train_rows
    trained = task.windows.features[rows + 1, 0].astype(np.float64)
    theirs = ARIMA(trained, order=(p, 0, q), trend="c").fit()
    longest = theirs.apply(seen(task, row)).forecast(5)
    # The same parameters in their filter, over the window alone and over the whole history.
    model = ARIMA(seen(task, row), order=(p, 0, q), trend="c")
    for at, ahead in enumerate(HORIZONS):
        ours = forecasts(found, task, np.array([row]), at)[0, 0]
        assert ours == pytest.approx(float(longest[:ahead].sum()), abs=2e-4), "their own fit finds nearly the same"
    ar, ma, mean = np.array([1.0, -0.5, 0.2][: p + 1]), np.array([1.0, 0.3][: q + 1]), 0.0004
    parameters = np.array([mean, *(-ar[1:]), *ma[1:], 1e-4])
    for taken in (seen(task, row), seen(task, row)[-60:]):
        model = ARIMA(taken, order=(p, 0, q), trend="c")
        filtered = model.filter(parameters).forecast(5)
        weights, constants = classical.best_linear(ar, ma, mean, lookback=60, horizons=HORIZONS)
        for at, ahead in enumerate(HORIZONS):
            exact = float(weights[at] @ seen(task, row)[-60:] + constants[at])
            assert exact == pytest.approx(float(filtered[:ahead].sum()), abs=1e-9)


def test_arima_finds_one_set_of_parameters_for_symbols_of_any_volatility():
    returns = [arma(0.5, 0.0, seed=seed, mean=0.0) * size for seed, size in ((1, 1.0), (2, 0.1), (3, 5.0))]
    found, _ = fitted(config_of("arima", p=1, q=0, lookback=10), bars_of(*returns))
    assert found.network.head().project.weight[0, -1].item() == pytest.approx(0.5, abs=0.03)
    assert found.network.head().project.weight[0, :-1].abs().max() < 1e-6


def test_what_never_moves_and_nothing_else_is_a_sentence():
    for kind in ("arima", "ets"):
        with pytest.raises(ConfigError, match=rf"spans\.train: {kind} has . parameters .* that move, found 0"):
            fitted(config_of(kind, lookback=5), bars_of(np.zeros(COUNT)))


@pytest.mark.parametrize("trend", ["none", "additive", "damped"])
def test_ets_is_statsmodels_fit_and_forecast_on_one_symbol(trend):
    returns = arma(0.3, -0.7, mean=0.001)
    found, task = fitted(config_of("ets", trend=trend, lookback=200, more_horizons=[5]), bars_of(returns))
    rows = task.train_rows
    trained = task.windows.features[rows + 1, 0].astype(np.float64)
    trended, drift = trend != "none", float(trained.mean())

    def theirs(moves: np.ndarray) -> ETSModel:
        return ETSModel(
            np.cumsum(moves),
            trend="add" if trended else None,
            damped_trend=trend == "damped",
            initialization_method="known",
            initial_level=0.0,
            initial_trend=drift if trended else None,
        )

    fit = theirs(trained).fit(disp=False)
    row = task.validation_rows[40]
    following = theirs(seen(task, row)[-200:]).smooth(fit.params).forecast(5) - seen(task, row)[-200:].sum()
    for at, ahead in enumerate(HORIZONS):
        ours = forecasts(found, task, np.array([row]), at)[0, 0]
        assert ours == pytest.approx(float(following[ahead - 1]), abs=2e-4)
    names = dict(zip(theirs(trained).param_names, [0.6, 0.05, 0.9], strict=False))
    exact = classical.smoothed(
        names["smoothing_level"],
        names.get("smoothing_trend", 0.0),
        names.get("damping_trend", float(trended)),
        drift if trended else 0.0,
        lookback=200,
        horizons=HORIZONS,
    )
    smooth = theirs(seen(task, row)[-200:]).smooth(np.array(list(names.values())))
    expected = smooth.forecast(5) - seen(task, row)[-200:].sum()
    window = seen(task, row)[-200:]
    np.testing.assert_allclose(exact[0] @ window + exact[1], expected[[0, 4]], rtol=0.0, atol=1e-12)


MODELS = {"ar": {}, "arima": {"lookback": 30}, "ets": {"lookback": 30}}


@pytest.mark.parametrize("kind", MODELS)
def test_later_bars_change_nothing_but_the_interval(kind):
    bars, config = bars_of(arma(0.4, 0.2), arma(0.1, 0.2, seed=9)), config_of(kind, **MODELS[kind])
    changed = {symbol: frame.copy() for symbol, frame in bars.frames.items()}
    for frame in changed.values():
        later = len(frame.loc["2014-01-01":])
        frame.loc["2014-01-01":] *= np.exp(np.random.default_rng(1).normal(0.0, 0.1, later))[:, None]
    first, again = fitted(config, bars)[0].network, fitted(config, make_bars(changed))[0].network
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]) == ("residuals" not in name), name


@pytest.mark.parametrize("kind", MODELS)
def test_the_same_bars_give_the_same_bits(kind):
    bars, config = bars_of(arma(0.4, 0.2)), config_of(kind, **MODELS[kind])
    first, again = (fitted(config, bars)[0].network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_series_are_cut_where_rows_are_missing_and_between_symbols():
    _, task = fitted(config_of("arima", lookback=10), bars_of(arma(0.4, 0.2), arma(0.1, 0.2, seed=9)))
    whole = classical.returns_of(task)
    assert len(whole) == 2
    assert [own.symbol for own in whole] == [0, 1]
    assert sum(len(own.returns) for own in whole) == len(task.train_rows)
    kept = np.concatenate([task.train_rows[:100], task.train_rows[130:]])
    object.__setattr__(task, "train_rows", kept)
    parts = classical.returns_of(task)
    assert len(parts[0].returns) == 100
    assert [own.symbol for own in parts] == [0, 0, 1]
    assert sum(len(own.returns) for own in parts) == len(kept)


def test_too_few_returns_are_a_sentence():
    config = config_of("ar", lookback=600)
    with pytest.raises(ConfigError, match=r"spans\.train: ar has 601 parameters and needs twice as many returns"):
        fitted(config, bars_of(arma(0.4, 0.2)))


@pytest.mark.parametrize("kind", MODELS)
def test_prices_that_never_move_are_forecast_to_stay(kind):
    bars = bars_of(arma(0.4, 0.2), np.zeros(COUNT))
    found, task = fitted(config_of(kind, **MODELS[kind]), bars)
    assert np.isfinite(forecasts(found, task, task.validation_rows)).all()


@pytest.mark.parametrize(("kind", "count"), [("arima", 1), ("arima", 2), ("ets", 4)])
def test_a_listing_at_the_end_of_the_span_hardly_moves_what_all_forecast(kind, count):
    """Returns that vary by nothing, as one does, are not the surest."""
    old = frame_of(arma(0.0, 0.0))
    config = config_of(kind, lookback=20, **({"p": 0, "q": 0} if kind == "arima" else {"trend": "additive"}))
    last = np.flatnonzero(old.index < "2014-01-01")[-1]
    listed = old.index[last - 20 - count]
    new = make_frame(start=str(listed.date()), returns=np.full(len(old.loc[listed:]), 0.005))
    alone, both = (fitted(config, make_bars(own)) for own in ({"AAA": old}, {"AAA": old, "BBB": new}))
    assert [len(own.returns) for own in classical.returns_of(both[1])][1:] == [count]
    constants = [found.network.head().project.bias.item() for found, _ in (alone, both)]
    assert constants[1] == pytest.approx(constants[0], abs=5e-5)


def test_a_universe_of_memberships_of_one_bar_counts_by_its_returns():
    """Stretches of one return each: their symbol's variance is that of all of them."""
    bars = bars_of(arma(0.5, 0.0, mean=0.0), arma(0.5, 0.0, seed=9, mean=0.0) * 3.0)
    whole = task_of(config_of("arima", p=1, q=0, lookback=10), bars)
    second = whole.train_rows >= whole.windows.starts["BBB"]
    kept = whole.train_rows[~second | (np.arange(len(second)) % 5 == 0)]
    task = replace(whole, train_rows=kept)
    series = classical.returns_of(task)
    assert {len(own.returns) for own in series[1:]} == {1}
    variances = classical.variances_of(series)
    assert variances[0] == pytest.approx(float(series[0].returns.var()), rel=0.15)
    assert len(set(variances)) == 2
    assert 5.0 < variances[1] / variances[0] < 13.0
    found = fit(task)
    assert found.network.head().project.weight[0, -1].item() == pytest.approx(0.5, abs=0.1)
    mean = classical.common_mean(series, variances)
    assert mean == pytest.approx(float(series[0].returns.mean()), abs=3e-4)
