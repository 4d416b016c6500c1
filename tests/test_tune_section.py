"""The tune section of a run file: what its ranges and lists may be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from engine.tune_section import RangeConfig, TuneConfig


@pytest.mark.parametrize(
    ("low", "high", "step"), [(1, 4, 5), (0.1, 0.2, 0.11), (1, 10**30, 10**30), (10**17, 10**17 + 3, 4)]
)
def test_a_step_that_is_larger_than_the_range_is_refused(low: Any, high: Any, step: Any) -> None:
    with pytest.raises(ValidationError, match="step must fit between low and high, found"):
        RangeConfig(low=low, high=high, step=step)


@pytest.mark.parametrize(("low", "high", "step"), [(1, 4, 3), (1, 4, 2), (0.2, 0.3, 0.1), (0.1, 0.3, 0.2)])
def test_a_step_as_large_as_the_range_or_smaller_is_taken(low: Any, high: Any, step: Any) -> None:
    assert RangeConfig(low=low, high=high, step=step).step == step


def test_an_empty_list_is_named_in_our_words() -> None:
    with pytest.raises(ValidationError, match="expected at least one value, found an empty list"):
        TuneConfig.model_validate({"space": {"model.alpha": []}})
