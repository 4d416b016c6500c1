"""The rules that rank symbols, as pure functions with scores written by hand."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedForecaster

from engine.errors import ConfigError
from engine.trading.costs import Costs
from strategies.ranking import RankingParams
from strategies.reversal import Reversal
from strategies.rule import Context
from strategies.top_bottom import TopBottom

NAN = math.nan
CONTEXT = Context(costs=Costs(), short=True, forecaster=ScriptedForecaster())
LONG_ONLY = Context(costs=Costs(), forecaster=ScriptedForecaster())


def targets(scores: list[float], *, times: list[float] | None = None, **params: Any) -> list[float]:
    """Targets of symbols with these scores, all of them with a bar now unless told otherwise."""
    signals = np.column_stack([scores, [5.0] * len(scores) if times is None else times])
    nothing = np.zeros(len(scores))
    answer = TopBottom.targets(signals, nothing, nothing, RankingParams(**{"k": 1.0, "short": 1.0, **params}))
    return answer.tolist()


def test_the_best_are_held_and_the_worst_sold_short_in_equal_parts() -> None:
    assert targets([0.3, -0.2, 0.1, 0.5, -0.4, 0.0], k=2.0) == [0.25, -0.25, 0.0, 0.25, -0.25, 0.0]
    assert targets([-0.3, -0.2, -0.1]) == [-0.5, 0.0, 0.5]  # the best of bad ones all the same
    assert targets([0.3, -0.2, 0.1], gross=0.5) == [0.25, -0.25, 0.0]


def test_an_account_without_short_sales_holds_the_best_alone() -> None:
    assert targets([0.3, -0.2, 0.1, 0.5], k=2.0, short=0.0) == [0.5, 0.0, 0.0, 0.5]
    assert targets([0.3], k=2.0, short=0.0) == [0.5]
    assert TopBottom({}, LONG_ONLY).params.short == 0.0
    assert TopBottom({}, CONTEXT).params.short == 1.0
    assert TopBottom({"short": 0}, CONTEXT).params.short == 0.0


def test_who_has_no_score_or_no_bar_now_is_not_ranked() -> None:
    assert targets([NAN, 0.1, 0.2, 0.3]) == [0.0, -0.5, 0.0, 0.5]
    assert targets([0.9, 0.1, 0.2, -0.9], times=[4.0, 5.0, 5.0, NAN]) == [0.0, -0.5, 0.5, 0.0]
    assert targets([NAN, NAN]) == [0.0, 0.0]
    assert targets([NAN, NAN], times=[NAN, NAN]) == [0.0, 0.0]


def test_of_few_symbols_each_is_on_one_side_at_most() -> None:
    assert targets([0.1, 0.3, 0.2], k=10.0) == [-0.05, 0.05, 0.05]
    assert targets([0.1], k=10.0) == [0.05]


@pytest.mark.parametrize("short", [0.0, 1.0])
def test_equal_scores_are_not_ranked_by_position(short: float) -> None:
    for k in (1.0, 2.0, 10.0):
        assert targets([0.1] * 4, k=k, short=short) == [0.0] * 4
    assert targets([0.2, 0.2, 0.1, 0.0], short=short) == [0.0, 0.0, 0.0, -0.5 * short]
    assert targets([0.2, 0.1, 0.1, 0.0], k=2.0, short=0.0) == [0.5, 0.0, 0.0, 0.0]
    assert targets([0.2, 0.1, 0.1, 0.0], k=2.0) == [0.25, 0.0, 0.0, -0.25]
    assert targets([0.3, 0.0, 0.0], k=1.0) == [0.5, 0.0, 0.0]


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.one_of(st.just(NAN), st.sampled_from([-0.1, 0.0, 0.1]), st.floats(-1, 1)), min_size=1),
    k=st.integers(1, 12),
    short=st.booleans(),
)
def test_whatever_the_scores_the_best_are_above_the_worst_and_the_limits_hold(scores, k: int, short: bool) -> None:
    found = targets(scores, k=float(k), short=float(short))
    longs = [score for score, target in zip(scores, found, strict=True) if target > 0.0]
    shorts = [score for score, target in zip(scores, found, strict=True) if target < 0.0]
    assert len(longs) <= k
    assert len(shorts) <= k
    assert short or not shorts
    assert sum(map(abs, found)) <= 1.0 + 1e-9
    out = [score for score, target in zip(scores, found, strict=True) if target == 0.0 and not math.isnan(score)]
    assert min(longs, default=2.0) > max([*out, *shorts], default=-2.0)
    assert max(shorts, default=-2.0) < min([*out, *longs], default=2.0)
    assert targets(scores[::-1], k=float(k), short=float(short)) == found[::-1]


def test_the_rule_compiles_and_gives_the_same() -> None:
    compiled = numba.njit(TopBottom.targets)
    random = np.random.default_rng(3)
    for count in (1, 4, 9):
        signals = np.column_stack([random.normal(size=count), random.choice([4.0, 5.0, NAN], count)])
        signals[random.random(count) < 0.2, 0] = NAN
        signals[random.random(count) < 0.3, 0] = 0.0
        for short in (0.0, 1.0):
            arguments = (signals, np.zeros(count), np.zeros(count), RankingParams(k=2.0, short=short))
            np.testing.assert_array_equal(compiled(*arguments), TopBottom.targets(*arguments))


@pytest.mark.parametrize(("rule", "params", "named"), [
    (TopBottom, {"k": 0}, "k: expected a whole number from 1 on, found 0"),
    (TopBottom, {"k": 2.5}, "k: expected a whole number from 1 on, found 2.5"),
    (TopBottom, {"gross": 0}, "gross: expected a number above 0, found 0"),
    (TopBottom, {"bars": 5}, "bars: unknown to TopBottom"),
    (Reversal, {"bars": 0.5}, "bars: expected a whole number from 1 on, found 0.5"),
])  # fmt: skip
def test_parameters_that_cannot_be_are_named(rule, params, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^strategy\.params\.{named}"):
        rule(params, CONTEXT)


def test_top_bottom_needs_a_model_and_reversal_does_not() -> None:
    without = Context(costs=Costs())
    with pytest.raises(ConfigError, match="has no model"):
        TopBottom({}, without)
    assert Reversal({}, without).params.bars == 1.0
