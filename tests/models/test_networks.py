"""Networks: heads by hand, intervals that hold the forecast, windows that do not see each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model_sections import LstmConfig
from models.networks import Network, build_network
from models.networks.heads import HEADS, DirectionHead, PointHead, QuantileHead, ResidualHead
from models.networks.scaling import FeatureScaling, TargetScaling


def tiny(head: str) -> Network:
    torch.manual_seed(0)
    config = LstmConfig(kind="lstm", features=("log_return", "rsi"), lookback=5, hidden=4, layers=2, head=head)
    return build_network(config).eval()


def test_scaling_standardises_and_leaves_a_constant_feature_alone():
    scaling = FeatureScaling(3)
    scaling.fit(torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0]]))
    assert scaling.mean.tolist() == [2.0, 5.0, 0.0]
    assert scaling.scale.tolist() == [1.0, 1.0, 1.0]
    assert scaling(torch.tensor([[[4.0, 6.0, -99.0]]])).tolist() == [[[2.0, 1.0, -8.0]]]


def test_a_feature_that_is_constant_but_not_exact_in_binary_gets_scale_one():
    scaling = FeatureScaling(1)
    scaling.fit(torch.full((1001, 1), 0.1))
    assert scaling.scale.item() == 1.0


def test_targets_are_scaled_by_their_root_mean_square():
    target = TargetScaling()
    target.fit(torch.tensor([3.0, -4.0, 0.0, 0.0]))
    assert target.scale.item() == pytest.approx(2.5)
    assert target(torch.tensor([5.0])).item() == pytest.approx(2.0)
    assert target.inverse(torch.tensor([2.0])).item() == pytest.approx(5.0)
    target.fit(torch.zeros(4))
    assert target.scale.item() == 1.0


def test_pinball_loss_and_quantiles_by_hand():
    head = QuantileHead(2)
    outputs = torch.tensor([[0.5, math.log(math.expm1(1.0)), math.log(math.expm1(2.0))]])  # 0.5, -0.5, 2.5
    torch.testing.assert_close(head.forecast(outputs), torch.tensor([[0.5, -0.5, 2.5]]))
    # y = 1: errors 0.5, 1.5, -1.5 -> 0.5*0.5, 0.1*1.5, 0.1*1.5
    assert head.loss(outputs, torch.tensor([1.0])).item() == pytest.approx((0.25 + 0.15 + 0.15) / 3)
    head.fit(torch.tensor([2.0, -2.0]))  # scale 2: forecasts double, the loss is in scaled units
    torch.testing.assert_close(head.forecast(outputs), torch.tensor([[1.0, -1.0, 5.0]]))
    assert head.loss(outputs, torch.tensor([2.0])).item() == pytest.approx((0.25 + 0.15 + 0.15) / 3)


def test_huber_loss_and_residual_interval_by_hand():
    head = PointHead(2)
    outputs = torch.zeros(11, 1)
    assert head.loss(outputs[:2], torch.tensor([0.5, 3.0])).item() == pytest.approx((0.125 + 2.5) / 2)
    head.calibrate(outputs, torch.linspace(-0.5, 0.5, 11))
    torch.testing.assert_close(head.forecast(torch.tensor([[1.0]])), torch.tensor([[1.0, 0.6, 1.4]]))
    head.calibrate(outputs, torch.linspace(1.0, 2.0, 11))  # all residuals positive: the forecast stays inside
    torch.testing.assert_close(head.forecast(torch.tensor([[1.0]])), torch.tensor([[1.0, 1.0, 2.9]]))


def test_direction_classes_are_thirds_and_the_forecast_is_their_expected_mean():
    head = DirectionHead(2)
    head.fit(torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]))
    assert head.thresholds.tolist() == [-1.0, 1.0]
    torch.testing.assert_close(head.class_means, torch.tensor([-2.0, 0.5, 2.5]))
    even = torch.zeros(3, 3)
    assert head.loss(even, torch.tensor([-9.0, 0.0, 9.0])).item() == pytest.approx(math.log(3))
    assert head.centre(even).tolist() == pytest.approx([1 / 3] * 3)
    assert head.centre(torch.tensor([[50.0, 0.0, 0.0]])).item() == pytest.approx(-2.0)


def test_direction_head_survives_labels_that_are_all_equal():
    head = DirectionHead(2)
    head.fit(torch.full((5,), 0.25))
    assert torch.isfinite(head.class_means).all()
    assert torch.isfinite(head.loss(torch.zeros(5, 3), torch.full((5,), 0.25)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1.0, 100.0]))
@pytest.mark.parametrize("kind", HEADS)
def test_lower_forecast_and_upper_never_cross(kind, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    head = HEADS[kind](4).eval()
    labels = torch.randn(50, generator=generator) * 0.02
    head.fit(labels)
    outputs = torch.randn(50, head.outputs, generator=generator) * scale
    if isinstance(head, ResidualHead):
        head.calibrate(outputs, labels)
    forecast, lower, upper = head.forecast(outputs).T
    assert bool((lower <= forecast).all())
    assert bool((forecast <= upper).all())


@pytest.mark.parametrize("head", HEADS)
def test_a_window_does_not_see_the_others_of_its_batch(head):
    network = tiny(head)
    windows = torch.randn(64, 5, 2, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = network.forecast(windows)
        windows[1:] = 3.0
        after = network.forecast(windows)
    assert before.shape == (64, 3)
    assert torch.equal(before[0], after[0])


def test_dropout_is_silent_with_one_layer():
    build_network(LstmConfig(kind="lstm", features=("rsi",), layers=1, dropout=0.5))  # torch would warn
