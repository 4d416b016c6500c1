"""From a weight to a quantity, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StrategyError
from engine.trading.costs import Costs
from engine.trading.sizing import changes, rounded_down, target_quantity


@pytest.mark.parametrize(
    ("quantity", "whole", "fraction"),
    [
        (2.9, 2.0, 2.9),
        (-2.9, -2.0, -2.9),
        (0.12345678987, 0.0, 0.123456789),
        (-0.12345678987, 0.0, -0.123456789),
        (3.0, 3.0, 3.0),
        (4e-10, 0.0, 0.0),
    ],
)
def test_rounding_goes_towards_zero(quantity: float, whole: float, fraction: float) -> None:
    assert rounded_down(quantity, False) == whole
    assert rounded_down(quantity, True) == fraction
    assert math.copysign(1.0, rounded_down(-0.4, False)) == 1.0  # no negative zero in an order


@given(st.integers(-(10**15), 10**15))
def test_nine_places_stay_what_they_are(billionths: int) -> None:
    quantity = round(billionths * 1e-9, 9)
    assert rounded_down(quantity, True) == quantity


@pytest.mark.parametrize(
    ("weight", "equity", "unit_cost", "fractional", "expected"),
    [
        (0.5, 10_000.0, 30.0, False, 166.0),  # 5,000 / 30 = 166.67
        (-0.5, 10_000.0, 30.0, False, -166.0),
        (0.5, 10_000.0, 30.0, True, 166.666666666),  # cut after nine places, not rounded up
        (0.29, 100.0, 29.0, False, 1.0),  # 0.29 * 100 is a bit less than 29 in floats
        (1.0, 29.99, 30.0, False, 0.0),
        (0.0, 10_000.0, 30.0, False, 0.0),
        (1.0, 0.0, 30.0, False, 0.0),
        (1.0, -5.0, 30.0, False, 0.0),
        (1.0, 10_000.0, math.nan, False, 0.0),
        (1.0, 10_000.0, 0.0, False, 0.0),
    ],
)
def test_target_quantity(weight: float, equity: float, unit_cost: float, fractional: bool, expected: float) -> None:
    assert target_quantity(weight, equity, unit_cost, fractional) == expected


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_an_error(weight: float) -> None:
    with pytest.raises(StrategyError, match=r"a target weight must be a finite number, found (nan|inf)"):
        target_quantity(weight, 1_000.0, 10.0, False)


@given(
    weight=st.floats(0.0, 1.0),
    equity=st.floats(1.0, 1e7),
    price=st.floats(0.01, 1e4),
    bps=st.floats(0.0, 100.0),
    slippage=st.floats(0.0, 100.0),
    fractional=st.booleans(),
)
def test_a_target_costs_no_more_than_its_share_of_equity(
    weight: float, equity: float, price: float, bps: float, slippage: float, fractional: bool
) -> None:
    costs = Costs(commission_bps=bps, slippage_bps=slippage)
    quantity = target_quantity(weight, equity, costs.unit_cost(price), fractional)
    paid = price * (1.0 + slippage * 1e-4)
    assert quantity * paid + costs.commission(quantity, paid) <= weight * equity * (1.0 + 1e-9)


def test_a_change_is_worth_an_order_from_min_change_on() -> None:
    assert changes(0.25, 0.2, 0.05 - 1e-12)
    assert not changes(0.24, 0.2, 0.05)
    assert not changes(0.2, 0.2, 0.0)


def test_leaving_the_market_is_always_worth_an_order() -> None:
    assert changes(0.0, 0.001, 0.05)


def test_a_change_of_just_min_change_survives_rounding() -> None:
    assert 0.6 - 0.5 < 0.1
    assert changes(0.6, 0.5, 0.1)


def test_a_target_that_is_nan_changes_nothing() -> None:
    assert not changes(math.nan, 0.2, 0.05)
