"""Every kind of network: its declared work, its indifference to the batch, its training, and what it finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.planted import autoregression, reversal, volatility_only
from benchmarks.signals import NETWORKS, OTHERS, TINY, judged, rejections
from engine.model_sections import MODEL_KINDS, TransformerConfig
from models.networks import Network, build_network
from models.networks.aligned import AlignedRecurrent
from models.networks.convolution import CausalConvolution, Tcn
from models.predictor import BATCH

FEATURES = ("log_return", "range", "gap", "volatility", "volume_zscore", "rsi", "distance_from_mean", "weekday")
OPTIONS = {
    **{kind: {"kind": kind} for kind in NETWORKS},
    "lstm, bidirectional": {"kind": "lstm", "bidirectional": True},
    "lstm, attention": {"kind": "lstm", "pooling": "attention"},
}


def network_of(features: int = 8, **values) -> Network:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(4)
        section = MODEL_KINDS[values["kind"]].model_validate({"features": FEATURES[:features], **values})
        return build_network(section).eval()


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's own remark at switching oneDNN off
@pytest.mark.parametrize("name", OPTIONS)
def test_the_declared_multiply_adds_are_those_that_torch_counts(name):
    network = network_of(**OPTIONS[name])
    # Fused operators are not counted: take the plain ones.
    with (
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        network(torch.zeros(2, 60, 8))
    assert network.multiply_adds == pytest.approx(counter.get_total_flops() / 2 / 2, rel=0.01)


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    size=st.integers(1, 33),
    features=st.integers(1, 8),
    lookback=st.integers(1, 40),
    layers=st.integers(1, 2),
    shift=st.integers(1, BATCH - 1),
)
def test_a_forecast_does_not_depend_on_its_place_in_the_batch(name, size, features, lookback, layers, shift):
    sizes = {"hidden": size, "channels": size} if name != "transformer" else {"hidden": 8 * -(-size // 8), "heads": 2}
    known = MODEL_KINDS[OPTIONS[name]["kind"]].model_fields
    asked = {"lookback": lookback, "layers": layers, **sizes}
    network = network_of(features, **OPTIONS[name], **{key: value for key, value in asked.items() if key in known})
    windows = torch.randn(BATCH, lookback, features, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        there, elsewhere = network.forecast(windows), network.forecast(windows.roll(shift, 0))
    assert torch.equal(there.roll(shift, 0), elsewhere)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_of_whole_blocks_are_those_of_torch(layers, bidirectional):
    plain = layers(3, 7, num_layers=2, batch_first=True, bidirectional=bidirectional)
    aligned = AlignedRecurrent(plain)
    windows = torch.randn(4, 9, 3)
    expected, found = plain(windows)[0], aligned(windows)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), list(aligned.parameters())),
        torch.autograd.grad(expected.square().sum(), list(plain.parameters())),
    )


def test_a_convolution_does_not_look_ahead():
    convolution = CausalConvolution(2, 3, kernel=4)
    series = torch.randn(1, 2, 10)
    changed = series.clone()
    changed[:, :, 6:] = 9.0
    assert torch.equal(convolution(series)[:, :, :6], convolution(changed)[:, :, :6])
    assert convolution(series).shape == (1, 3, 10)


def test_the_bars_that_a_tcn_leaves_out_are_those_that_its_dilated_twin_does_not_read():
    body = network_of(kind="tcn", channels=8, lookback=37, layers=4).body
    assert isinstance(body, Tcn)
    windows = torch.randn(5, 37, 8)
    series = windows.transpose(1, 2)
    for number, block in enumerate(body.blocks):

        def dilated(part, values, dilation=2**number):
            convolution = part.convolution
            padded = nn.functional.pad(values, (dilation * part.reach, 0))
            return torch.relu(nn.functional.conv1d(padded, convolution.weight, convolution.bias, dilation=dilation))

        inner = dilated(block.second, dilated(block.first, series))
        series = torch.relu(inner + (series if block.shortcut is None else block.shortcut(series)))
    torch.testing.assert_close(body(windows), series[:, :, -1])


def test_widths_that_heads_cannot_share_are_refused():
    with pytest.raises(ValidationError, match="hidden must be a multiple of 4 times heads, found 12 and 2 heads"):
        TransformerConfig(kind="transformer", features=("rsi",), hidden=12, heads=2)


QUICK = replace(
    TINY,
    train=2_000,
    validation=500,
    test=1_500,
    training={"epochs": 10, "patience": 10, "batch": 64, "learning_rate": 0.01},
    model={**TINY.model, "hidden": 16, "dropout": 0.0},
)


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_network_finds_an_autoregression_and_no_more(kind):
    share = judged(kind, autoregression(4_000, seed=1), QUICK, seed=3).share
    assert 0.8 <= share <= 1.1


@pytest.mark.parametrize("kind", ["ridge", "ar", "arima"])
def test_closed_forms_find_an_autoregression(kind):
    assert judged(kind, autoregression(4_000, seed=1), QUICK, seed=3).share > 0.95


def test_a_reversal_after_large_moves_is_found_by_a_network_and_not_by_a_line():
    planted = reversal(4_000, seed=2)
    assert judged("mlp", planted, QUICK, seed=3).share > 0.8 > judged("ridge", planted, QUICK, seed=3).share


def test_intervals_widen_with_volatility_where_nothing_else_is_to_be_known():
    found = judged("cnn", volatility_only(4_000, seed=4), QUICK, seed=3)
    assert found.width_correlation > 0.7
    assert found.coverage == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_network_is_trained_to_the_same_bits_again(kind):
    planted = autoregression(700, seed=5)
    first, again, other = (judged(kind, planted, TINY, seed=seed) for seed in (6, 6, 7))
    assert np.array_equal(first.forecast, again.forecast)
    assert not np.array_equal(first.forecast, other.forecast)


@pytest.mark.soak
@pytest.mark.parametrize("kind", [*NETWORKS, *OTHERS])
def test_none_finds_anything_in_noise(kind):
    for each in rejections(kind, TINY, seeds=100):
        assert each.value <= each.at_most, each.case
