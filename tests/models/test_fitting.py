"""Fitting: reproducible, blind to what it must not see, quiet, and interruptible."""

from __future__ import annotations

import signal
from functools import partial

import numpy as np
import pytest
import torch
from synthetic import make_bars, make_config, make_frame, make_windows

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.errors import ConfigError, NextbarError
from models.fitting.gradient import NetworkModule, fit_network
from models.fitting.task import Fit, Task
from models.networks import build_network
from models.windows import Windows


def fit_on(bars: Bars, config: RunConfig, *, build=None) -> tuple[Fit, Windows, dict[str, np.ndarray]]:
    windows, rows = make_windows(bars, config)
    task = Task(
        model=config.model,
        windows=windows,
        train_rows=rows["train"],
        validation_rows=rows["validate"],
        training=config.training,
    )
    fitted = fit_network(build or partial(build_network, config.model), task)
    return fitted, windows, rows


def weights(fitted: Fit) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in fitted.network.state_dict().items()}


@pytest.mark.parametrize("head", ["quantile", "point", "direction"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(head):
    bars, config = make_bars(), make_config(head)
    first, _, _ = fit_on(bars, config)
    torch.manual_seed(99)  # whatever happened in the process before
    again, _, _ = fit_on(bars, config)
    other, _, _ = fit_on(bars, make_config(head, training={"seed": 8}))
    assert weights(first) == weights(again)
    assert first.curve == again.curve
    assert weights(first) != weights(other)
    assert not first.network.training


def test_it_is_quiet_and_leaves_global_state_alone(capfd):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit_on(make_bars(), make_config())
    assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    assert capfd.readouterr() == ("", "")


def test_the_curve_has_one_point_an_epoch_and_the_best_weights_are_kept():
    bars, config = make_bars(), make_config(training={"epochs": 6, "learning_rate": 0.05, "patience": 6})
    fitted, windows, rows = fit_on(bars, config)
    assert [point.epoch for point in fitted.curve] == [1, 2, 3, 4, 5, 6]
    lowest = min(point.validation_loss for point in fitted.curve)
    with torch.inference_mode():
        loss = fitted.network.loss(
            windows.gather(rows["validate"]), torch.from_numpy(windows.labels[rows["validate"]])
        ).item()
    assert loss == pytest.approx(lowest, rel=1e-5)
    assert fitted.curve[fitted.best_epoch - 1].validation_loss == lowest


def test_training_stops_when_validation_no_longer_improves():
    config = make_config(training={"epochs": 40, "patience": 2, "learning_rate": 0.3})
    fitted, _, _ = fit_on(make_bars(), config)
    assert len(fitted.curve) == fitted.best_epoch + 2 < 40


@pytest.mark.parametrize("head", ["quantile", "direction"])
def test_validation_and_test_bars_do_not_move_what_is_fitted_on_training_bars(head):
    bars, config = make_bars(), make_config(head)
    cut = config.spans.get("validate")[0].isoformat()
    changed = {}
    for symbol, frame in bars.frames.items():
        later = frame.copy()
        later.loc[cut:] *= np.linspace(1.0, 3.0, len(later.loc[cut:]))[:, None]
        changed[symbol] = later
    first, again = fit_on(bars, config)[0], fit_on(make_bars(changed), config)[0]
    fitted_on_training = [
        n for n in weights(first) if n.startswith(("scaling.", "heads.0.target.", "heads.0.class", "heads.0.thr"))
    ]
    assert len(fitted_on_training) == {"quantile": 3, "direction": 5}[head]
    for name in fitted_on_training:
        assert weights(first)[name] == weights(again)[name]


def test_test_bars_move_nothing_at_all():
    bars, config = make_bars(), make_config("point")
    cut = config.spans.get("test")[0].isoformat()
    changed = {symbol: frame.copy() for symbol, frame in bars.frames.items()}
    for frame in changed.values():
        frame.loc[cut:] *= 2.0
    assert weights(fit_on(bars, config)[0]) == weights(fit_on(make_bars(changed), config)[0])


def _returns(coefficient: float, seed: int, count: int = 1500) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.0, 0.01, count)
    returns = np.empty(count)
    returns[0] = noise[0]
    for position in range(1, count):
        returns[position] = coefficient * returns[position - 1] + noise[position]
    return returns


@pytest.mark.parametrize(("coefficient", "found"), [(0.6, True), (0.0, False)])
def test_a_planted_signal_is_found_and_none_in_noise(coefficient, found):
    bars = make_bars({"AAA": make_frame(seed=4, start="2010-01-01", returns=_returns(coefficient, 11))})
    config = make_config(
        spans={
            "train": ["2010-01-01", "2013-12-31"],
            "validate": ["2014-01-01", "2014-12-31"],
            "test": ["2015-01-01", "2015-09-30"],
        },
        model={"features": ["log_return"], "layers": 1},
        training={"epochs": 8, "learning_rate": 0.03, "patience": 8},
    )
    fitted, windows, rows = fit_on(bars, config)
    with torch.inference_mode():
        forecast = fitted.network.forecast(windows.gather(rows["test"]))[:, 0].numpy()
    labels = windows.labels[rows["test"], 0]
    r2 = 1.0 - np.sum((labels - forecast) ** 2) / np.sum(labels**2)
    assert (r2 > 0.2) if found else (r2 < 0.03)  # an AR(1) of 0.6 explains 36%


def test_ctrl_c_is_a_keyboard_interrupt_and_sigint_still_works_afterwards(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    handler = signal.getsignal(signal.SIGINT)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(NetworkModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_on(make_bars(), make_config())
    assert signal.getsignal(signal.SIGINT) is handler
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_loss_is_an_error_that_says_what_to_do():
    def spoiled():
        network = build_network(make_config().model)
        torch.nn.init.constant_(network.head().project.weight, float("nan"))
        return network

    with pytest.raises(NextbarError, match=r"lower training\.learning_rate"):
        fit_on(make_bars(), make_config(), build=spoiled)


@pytest.mark.parametrize("training", [{"accelerator": "abacus"}, {"accelerator": "cpu", "devices": -3}])
def test_an_impossible_accelerator_is_a_config_error(training):
    with pytest.raises(ConfigError, match=r"training\.accelerator"):
        fit_on(make_bars(), make_config(training=training))
