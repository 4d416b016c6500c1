"""Forecasts in classes and at several horizons: what is flat, how likely each is, and a strategy that reads them."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from synthetic import make_config

from models.networks.heads import DirectionHead


def with_costs(flat: object, **broker):
    values = make_config("direction").model_dump(mode="json", by_alias=True, exclude_none=True)
    values["model"]["flat_bps"] = flat
    return type(make_config()).model_validate({**values, "broker": broker})


def test_flat_by_costs_is_the_number_of_a_round_trip():
    config = with_costs("costs", commission={"bps": 1.0}, slippage_bps=2.5)
    assert config.model.flat_bps == 7.0
    assert config == with_costs(7.0, commission={"bps": 1.0}, slippage_bps=2.5)
    assert with_costs("costs").model.flat_bps == 0.0


@pytest.mark.parametrize("flat", [-1.0, "cost", True])
def test_what_is_no_width_of_flat_is_refused(flat: object):
    with pytest.raises(ValidationError):
        with_costs(flat)


def test_only_classes_have_a_flat_one():
    with pytest.raises(ValidationError, match="flat_bps says what is flat for head: direction, found head: point"):
        make_config("point", model={"flat_bps": 5.0})


def test_thresholds_are_thirds_or_what_is_flat():
    labels = torch.linspace(-0.02, 0.04, 61)
    thirds, fixed = DirectionHead(2), DirectionHead(2, flat=0.01)
    for head in (thirds, fixed):
        head.fit(labels)
    assert thirds.thresholds.tolist() == pytest.approx([0.0, 0.02], abs=1e-6)
    assert fixed.thresholds.tolist() == pytest.approx([-0.01, 0.01])
    assert fixed.class_means.tolist() == pytest.approx([-0.015, 0.0005, 0.0255], abs=6e-4)
