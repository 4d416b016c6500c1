"""The shipped rules as pure functions, with signals written by hand."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedForecaster

from engine.errors import ConfigError
from engine.trading.costs import Costs
from strategies.buy_and_hold import BuyAndHold, BuyAndHoldParams
from strategies.filtered_cross import FilteredCross, FilteredCrossParams
from strategies.forecast import Forecast, ForecastParams
from strategies.rule import Context, Rule, each_symbol
from strategies.sma_cross import SmaCross, SmaCrossParams

NAN = math.nan
# A round trip costs 6 bps; with a margin of 4 a forecast must be above 0.001. With an interval of 0.04 the cap is
# reached at 0.002.
PARAMS = ForecastParams(margin_bps=4.0, cap=0.25, max_bars=10.0, full_size=0.05, cost_bps=6.0)
SHORT = PARAMS._replace(short=1.0)


def decide(*symbols: tuple[float, float], weights=None, bars_held=None, params=PARAMS) -> list[float]:
    """Targets for symbols given as (forecast, interval width)."""
    signals = np.array([(forecast, forecast - width / 2.0, forecast + width / 2.0) for forecast, width in symbols])
    weights = np.zeros(len(symbols)) if weights is None else np.array(weights)
    bars_held = np.where(weights != 0.0, 1.0, 0.0) if bars_held is None else np.array(bars_held, dtype=float)
    before = [array.copy() for array in (signals, weights, bars_held)]
    targets = Forecast.targets(signals, weights, bars_held, params)
    for array, copy in zip((signals, weights, bars_held), before, strict=True):
        np.testing.assert_array_equal(array, copy)  # pure
    return targets.tolist()


# --- forecast: entering ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forecast", "target"),
    [(0.0011, 0.1375), (0.0009, 0.0), (0.0, 0.0), (-0.0009, 0.0), (-0.0011, 0.0), (0.002, 0.25), (0.5, 0.25)],
)
def test_it_enters_when_the_forecast_clears_costs_and_margin(forecast: float, target: float):
    assert decide((forecast, 0.04)) == pytest.approx([target])


def test_a_forecast_that_only_meets_the_hurdle_is_not_enough():
    exactly = (PARAMS.cost_bps + PARAMS.margin_bps) * 1e-4
    assert decide((exactly, 0.04)) == [0.0]
    assert decide((np.nextafter(exactly, 1.0), 0.04))[0] > 0.0


@pytest.mark.parametrize(("width", "target"), [(0.04, 0.25), (0.08, 0.125), (0.16, 0.0625), (0.02, 0.25), (0.0, 0.25)])
def test_a_wider_interval_makes_a_smaller_position_up_to_the_cap(width: float, target: float):
    assert decide((0.002, width)) == pytest.approx([target])


def test_it_sells_short_only_when_allowed():
    assert decide((-0.002, 0.08)) == [0.0]
    assert decide((-0.002, 0.08), params=SHORT) == pytest.approx([-0.125])
    assert decide((-0.0009, 0.08), params=SHORT) == [0.0]


# --- forecast: holding and leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("forecast", [1e-9, 0.0005, 0.002, 0.1])
def test_it_holds_unchanged_while_the_sign_agrees(forecast: float):
    assert decide((forecast, 0.04), weights=[0.1]) == [0.1]
    assert decide((-forecast, 0.04), weights=[-0.1], params=SHORT) == [-0.1]


@pytest.mark.parametrize("forecast", [0.0, -1e-9, -0.1])
def test_it_leaves_on_a_change_of_sign(forecast: float):
    assert decide((forecast, 0.04), weights=[0.1]) == [0.0]
    assert decide((-forecast, 0.04), weights=[-0.1], params=SHORT) == [0.0]


def test_it_leaves_after_max_bars():
    assert decide((0.01, 0.04), weights=[0.1], bars_held=[9]) == [0.1]
    assert decide((0.01, 0.04), weights=[0.1], bars_held=[10]) == [0.0]
    assert decide((0.01, 0.04), weights=[0.1], bars_held=[11]) == [0.0]


def test_without_a_forecast_nothing_changes():
    assert decide((NAN, NAN), (NAN, NAN), weights=[0.0, 0.1], bars_held=[0, 50]) == [0.0, 0.1]


# --- forecast: the gross limit ---------------------------------------------------------------------------------------


def test_new_positions_share_the_gross_limit():
    assert decide(*[(0.01, 0.04)] * 5) == pytest.approx([0.2] * 5)
    assert decide(*[(0.01, 0.04)] * 3) == [0.25] * 3


def test_new_positions_share_what_held_ones_leave():
    targets = decide(*[(0.01, 0.04)] * 5, weights=[0.3, 0.3, 0.0, 0.0, 0.0])
    assert targets == pytest.approx([0.3, 0.3, 0.4 / 3, 0.4 / 3, 0.4 / 3])


def test_what_is_left_at_this_bar_makes_room_at_this_bar():
    targets = decide((-0.01, 0.04), *[(0.01, 0.04)] * 3, weights=[0.9, 0.25, 0.0, 0.0])
    assert targets == [0.0, 0.25, 0.25, 0.25]


def test_long_and_short_count_alike():
    targets = decide((0.01, 0.04), (-0.01, 0.04), params=SHORT._replace(max_gross=0.3))
    assert targets == pytest.approx([0.15, -0.15])


def test_held_positions_above_the_limit_stay_and_leave_no_room():
    weights = [0.35, 0.35, 0.35, 0.0, 0.0]
    assert decide(*[(0.01, 0.04)] * 4, (0.0, 0.04), weights=weights) == weights


def test_held_positions_above_the_limit_with_nothing_new_are_no_division_by_zero():
    weights = [0.35, 0.35, 0.35, 0.0]
    assert decide(*[(0.01, 0.04)] * 3, (0.0, 0.04), weights=weights) == weights


symbol = st.tuples(
    st.one_of(st.just(NAN), st.floats(-0.05, 0.05)),
    st.floats(0.0, 0.2),
    st.sampled_from([0.0, 0.0, 0.2, -0.2, 0.05]),
    st.integers(0, 12),
)


@settings(max_examples=150, deadline=None)
@given(
    symbols=st.lists(symbol, min_size=1, max_size=6), short=st.booleans(), max_gross=st.sampled_from([0.3, 1.0, 1.5])
)
def test_whatever_the_signals_the_limits_hold(symbols, short: bool, max_gross: float):
    weights = [weight for _, _, weight, _ in symbols]
    params = PARAMS._replace(short=float(short), max_gross=max_gross)
    targets = decide(*[each[:2] for each in symbols], weights=weights, bars_held=[s[3] for s in symbols], params=params)
    assert all(math.isfinite(target) for target in targets)
    for (forecast, *_), last, target in zip(symbols, weights, targets, strict=True):
        if last:
            assert target in (0.0, last)
        else:
            assert abs(target) <= params.cap
            assert target == 0.0 or (target > 0.0) == (forecast > 0.0)
            assert short or target >= 0.0
    held = sum(abs(target) for target, last in zip(targets, weights, strict=True) if last)
    assert sum(map(abs, targets)) <= max(max_gross, held) + 1e-12


# --- forecast: parameters --------------------------------------------------------------------------------------------

CONTEXT = Context(
    costs=Costs(commission_bps=1.0, slippage_bps=2.0, commission_minimum=1.0),
    short=True,
    forecaster=ScriptedForecaster(),
)


def test_costs_and_permission_to_sell_short_come_from_the_account():
    params = Forecast({"margin_bps": 7}, CONTEXT).params
    assert (params.cost_bps, params.short, params.margin_bps) == (6.0, 1.0, 7.0)
    assert params.cap == ForecastParams().cap


def test_the_run_file_may_say_otherwise():
    params = Forecast({"cost_bps": 20, "short": 0}, CONTEXT).params
    assert (params.cost_bps, params.short) == (20.0, 0.0)


@pytest.mark.parametrize("name", ["cap", "full_size", "max_gross"])
@pytest.mark.parametrize("value", [0.0, -0.1])
def test_sizes_are_positive(name: str, value: float):
    with pytest.raises(ConfigError, match=rf"^strategy.params.{name}: expected a number above 0, found {value:g}$"):
        Forecast({name: value}, CONTEXT)


# --- sma_cross -------------------------------------------------------------------------------------------------------


def test_sma_cross_holds_an_equal_part_of_what_is_above():
    signals = np.array([[11.0, 10.0], [10.0, 11.0], [10.0, 10.0], [NAN, NAN], [12.0, NAN]])
    weights = np.array([0.0, 0.2, 0.2, 0.0, 0.2])
    targets = SmaCross.targets(signals, weights, np.zeros(5), SmaCrossParams())
    assert targets.tolist() == [0.2, 0.0, 0.0, 0.0, 0.2]


@pytest.mark.parametrize("params", [{"fast": 50, "slow": 20}, {"fast": 20, "slow": 20}, {"fast": 0}, {"slow": 20.5}])
def test_sma_cross_needs_whole_lengths_in_order(params):
    with pytest.raises(ConfigError, match=r"^strategy.params: expected whole lengths with 1 <= fast < slow, found"):
        SmaCross(params, CONTEXT)


# --- filtered_cross --------------------------------------------------------------------------------------------------


def test_filtered_cross_holds_what_is_above_on_both_clocks():
    up, down = [11.0, 10.0], [10.0, 11.0]
    signals = np.array([up + up, up + down, down + up, down + down, [*up, NAN, NAN], [NAN, NAN, *up]])
    weights = np.array([0.0, 0.2, 0.2, 0.0, 0.2, 0.0])
    targets = FilteredCross.targets(signals, weights, np.zeros(6), FilteredCrossParams())
    assert targets.tolist() == [1.0 / 6.0, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("params", [{"fast": 13}, {"trend": 0}, {"trend": 2.5}])
def test_filtered_cross_needs_whole_lengths_in_order(params):
    with pytest.raises(ConfigError, match=r"^strategy.params: expected whole lengths with 1 <= fast < slow and trend"):
        FilteredCross(params, CONTEXT)


# --- buy_and_hold ----------------------------------------------------------------------------------------------------


def test_buy_and_hold_wants_equal_parts_and_keeps_what_it_has():
    signals, bars_held = np.full((4, 1), 100.0), np.zeros(4)
    assert BuyAndHold.targets(signals, np.zeros(4), bars_held, BuyAndHoldParams()).tolist() == [0.25] * 4
    assert BuyAndHold.targets(signals, np.zeros(4), bars_held, BuyAndHoldParams(0.5)).tolist() == [0.125] * 4
    held = np.array([0.1, 0.0, 0.25, 0.0])
    assert BuyAndHold.targets(signals, held, bars_held, BuyAndHoldParams()).tolist() == [0.1, 0.25, 0.25, 0.25]


# --- each_symbol -----------------------------------------------------------------------------------------------------


def test_a_rule_for_one_symbol_is_lifted_to_all():
    def one(signals, weight, bars_held, params):
        return params * signals[1] + weight + bars_held

    signals = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, NAN]])
    targets = each_symbol(one)(signals, np.array([0.0, 0.5, 0.0]), np.array([0.0, 3.0, 0.0]), 0.1)
    np.testing.assert_allclose(targets, [0.1, 3.7, NAN])


# --- compiling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "params"),
    [
        (Forecast, SHORT),
        (SmaCross, SmaCrossParams()),
        (FilteredCross, FilteredCrossParams()),
        (BuyAndHold, BuyAndHoldParams()),
    ],
)
def test_the_shipped_rules_can_be_compiled_to_the_same_numbers(rule: type[Rule], params):
    compiled = numba.njit(rule.targets)
    random = np.random.default_rng(1)
    for _ in range(20):
        signals = np.sort(random.normal(0.0, 0.01, (6, len(rule.signals))), axis=1)
        signals[random.integers(6)] = NAN
        weights, bars_held = random.choice([0.0, 0.2, -0.1], 6), random.integers(0, 12, 6).astype(float)
        expected = rule.targets(signals, weights, bars_held, params)
        np.testing.assert_array_equal(compiled(signals, weights, bars_held, params), expected)
