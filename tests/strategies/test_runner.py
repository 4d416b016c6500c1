"""The runner: from a rule's targets to orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scripted import Follow, follow, make_bars, orders, run

from engine.cerebro.broker import Broker
from engine.errors import StrategyError
from engine.trading.costs import Costs
from engine.trading.orders import SELL, OrderStatus
from strategies.buy_and_hold import BuyAndHold
from strategies.rule import Context
from strategies.runner import RuleStrategy
from strategies.sma_cross import SmaCross

NAN = float("nan")
FREE = Context(costs=Costs(), max_gross=2.0)


# --- which changes become orders -------------------------------------------------------------------------------------


def test_a_target_becomes_an_order_that_fills_at_the_next_bar():
    bars = make_bars({"A": [0.0, 0.5, 0.5, 0.0, 0.0]})
    _, done = follow(bars)
    assert orders(done, bars) == [(2, "buy", 50.0, "A"), (4, "sell", 50.0, "A")]
    assert [fill.time for fill in done.ledger.fills] == [bars.frames["A"].index[i].value for i in (2, 4)]


def test_a_change_below_min_change_is_no_order_unless_it_leaves_the_market():
    bars = make_bars({"A": [0.5, 0.55, 0.59, 0.61, 0.05, 0.0]})
    _, done = follow(bars, min_change=0.1)
    assert orders(done, bars) == [
        (1, "buy", 50.0, "A"),
        (4, "buy", 11.0, "A"),
        (5, "sell", 56.0, "A"),
        (6, "sell", 5.0, "A"),
    ]


def test_changes_are_measured_from_the_last_target_that_was_ordered():
    """Small steps add up: each is compared with the last order, not with the bar before."""
    bars = make_bars({"A": [0.5, 0.54, 0.58, 0.62, 0.66]})
    rule, done = follow(bars, min_change=0.1)
    assert orders(done, bars) == [(1, "buy", 50.0, "A"), (4, "buy", 12.0, "A")]
    assert rule.weights() == [0.0, 0.5, 0.5, 0.5, 0.62]


def test_a_position_that_drifted_is_left_alone_while_its_target_stays():
    bars = make_bars({"A": [0.5] * 5}, {"A": [100.0, 100.0, 150.0, 300.0, 50.0]})
    rule, done = follow(bars)
    assert orders(done, bars) == [(1, "buy", 50.0, "A")]
    assert rule.weights() == [0.0, 0.5, 0.5, 0.5, 0.5]


def test_nan_leaves_the_target_as_it_is():
    bars = make_bars({"A": [0.5, NAN, NAN, 0.0]})
    _, done = follow(bars)
    assert orders(done, bars) == [(1, "buy", 50.0, "A"), (4, "sell", 50.0, "A")]


def test_an_infinite_target_is_an_error():
    with pytest.raises(
        StrategyError, match=r"at bar 2 \(2024-01-03.*a target weight must be a finite number, found inf"
    ):
        follow(make_bars({"A": [0.5, float("inf")]}))


# --- in which order --------------------------------------------------------------------------------------------------


def test_sells_come_before_buys_and_then_symbols_in_order():
    script = {"A": [0.0, 0.2], "B": [0.2, 0.0], "C": [0.0, 0.1], "D": [0.3, 0.1]}
    bars = make_bars({symbol: [*said, said[-1]] for symbol, said in script.items()})
    _, done = follow(bars)
    assert orders(done, bars) == [
        (1, "buy", 20.0, "B"),
        (1, "buy", 30.0, "D"),
        (2, "sell", 20.0, "B"),
        (2, "sell", 20.0, "D"),
        (2, "buy", 20.0, "A"),
        (2, "buy", 10.0, "C"),
    ]


def test_a_reversal_closes_first_and_opens_at_a_later_bar():
    bars = make_bars({"A": [0.5, 0.5, -0.3, -0.3, -0.3, 0.4, 0.4]})
    rule, done = follow(bars, short=True, borrow_rate_pct=0.0)
    assert orders(done, bars) == [
        (1, "buy", 50.0, "A"),
        (3, "sell", 50.0, "A"),
        (4, "sell", 30.0, "A"),
        (6, "buy", 30.0, "A"),
        (7, "buy", 40.0, "A"),
    ]
    assert rule.weights() == [0.0, 0.5, 0.5, 0.0, -0.3, -0.3, 0.0]


# --- what is turned down ---------------------------------------------------------------------------------------------


def test_an_order_that_is_turned_down_does_not_count_and_is_tried_again():
    bars = make_bars({"A": [0.5, 0.5, 0.5, 0.3, 0.3]})
    rule, done = follow(bars, risk={"max_position": 0.3, "max_gross": 1.0})
    assert [order.status for order in done.orders] == [OrderStatus.REFUSED] * 3 + [OrderStatus.FILLED]
    assert orders(done, bars)[-1] == (4, "buy", 30.0, "A")
    assert rule.weights() == [0.0, 0.0, 0.0, 0.0, 0.3]


def test_short_selling_that_is_off_leaves_the_symbol_flat():
    bars = make_bars({"A": [-0.5, -0.5, 0.2, 0.2]})
    rule, done = follow(bars)
    assert [order.status for order in done.orders] == [OrderStatus.REJECTED] * 2 + [OrderStatus.FILLED]
    assert rule.weights() == [0.0, 0.0, 0.0, 0.2]


# --- symbols that come, go and pause ---------------------------------------------------------------------------------


def test_a_late_listing_does_not_silence_the_others():
    bars = make_bars({"A": [0.5, 0.5, 0.5, 0.0, 0.0], "B": [None, None, None, 0.5, 0.5]})
    rule, done = follow(bars)
    assert orders(done, bars) == [(1, "buy", 50.0, "A"), (4, "sell", 50.0, "A"), (4, "buy", 50.0, "B")]
    assert [np.isnan(signals[1]) for signals, _, _ in rule.shown] == [True, True, True, False, False]


def test_an_indicator_that_is_not_ready_does_not_silence_the_others():
    rule = SmaCross({"fast": 1, "slow": 2}, FREE)
    prices = {"A": [100.0, 101.0, 102.0, 101.0, 100.0], "B": [100.0] * 5}
    bars = make_bars({"A": [0.0] * 5, "B": [None, None, None, None, 0.0, 0.0]}, {**prices, "B": [100.0] * 6})
    done = run(bars, RuleStrategy, {"rule": rule})
    assert orders(done, bars) == [(2, "buy", 49.0, "A"), (4, "sell", 49.0, "A")]


def test_a_symbol_without_a_bar_now_keeps_its_target_and_gets_no_order():
    bars = make_bars({"A": [0.5, 0.0, None, None, 0.0], "B": [0.0, 0.3, 0.3, 0.1, 0.1]})
    _, done = follow(bars)
    assert orders(done, bars) == [
        (1, "buy", 50.0, "A"),
        (2, "sell", 50.0, "A"),
        (2, "buy", 30.0, "B"),
        (4, "sell", 20.0, "B"),
    ]
    sale = next(fill for fill in done.ledger.fills if (fill.symbol, fill.side) == ("A", SELL))
    assert sale.time == bars.frames["A"].index[-1].value, "its order waits for its own next bar"


def test_a_symbol_that_stopped_is_not_traded_any_more():
    bars = make_bars({"A": [0.5, 0.5, None, None, None], "B": [0.0, 0.0, 0.4, 0.0, 0.0]})
    rule, done = follow(bars)
    assert [order[-1] for order in orders(done, bars)] == ["A", "B", "B"]
    assert rule.weights(0)[-1] == 0.5
    assert rule.shown[-1][0][0] == 0.5, "its last signals are shown"


def test_bars_held_counts_the_symbols_own_bars_since_its_target_left_zero():
    bars = make_bars({"A": [0.5, 0.5, None, None, 0.5, 0.5, 0.0, 0.0, 0.2, 0.2], "B": [0.1] * 10})
    rule, _ = follow(bars)
    assert rule.bars_held(0) == [0.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 1.0]
    assert rule.bars_held(1) == [0.0, *range(1, 10)]


def test_bars_held_begins_again_with_a_reversal():
    rule, _ = follow(make_bars({"A": [0.5, 0.5, -0.5, -0.5, -0.5]}), short=True)
    assert rule.bars_held() == [0.0, 1.0, 2.0, 0.0, 1.0]


# --- how much --------------------------------------------------------------------------------------------------------


def test_whole_shares_are_rounded_down_and_fractions_are_kept():
    bars = make_bars({"A": [0.5, 0.5]}, {"A": [300.0, 300.0]})
    assert orders(follow(bars)[1], bars) == [(1, "buy", 16.0, "A")]
    assert orders(follow(bars, fractional=True)[1], bars) == [(1, "buy", 16.666666666, "A")]


def test_less_than_a_share_is_no_order_and_counts_as_done():
    bars = make_bars({"A": [0.5, 0.5]}, {"A": [30_000.0] * 2})
    rule, done = follow(bars)
    assert not done.orders
    assert rule.weights() == [0.0, 0.5]


def test_costs_are_part_of_what_a_share_costs():
    bars = make_bars({"A": [1.0, 1.0]})
    _, done = follow(bars, commission={"bps": 100.0}, slippage_bps=100.0)
    assert orders(done, bars) == [(1, "buy", 98.0, "A")]  # 10,000 / (100 * 1.01 * 1.01) = 98.03
    assert done.ledger.cash == pytest.approx(10_000 - 98 * 101 * 1.01)


def test_size_follows_the_equity_of_the_bar():
    bars = make_bars({"A": [0.5, 0.5, 0.5, 0.6, 0.6]}, {"A": [100.0, 100.0, 200.0, 200.0, 200.0]})
    _, done = follow(bars)
    # 50 shares at 200 and 5,000 in cash: 60% of 15,000 is 45 shares.
    assert orders(done, bars) == [(1, "buy", 50.0, "A"), (4, "sell", 5.0, "A")]


def test_targets_beyond_the_gross_limit_are_cut_to_the_room_that_is_left():
    bars = make_bars({"A": [0.7, 0.7, 0.7], "B": [0.7, 0.7, 0.7]})
    rule, done = follow(bars, risk={"max_gross": 1.0})
    assert orders(done, bars) == [(1, "buy", 70.0, "A"), (1, "buy", 30.0, "B")]
    assert rule.weights(1) == pytest.approx([0.0, 0.3, 0.3])


def test_closing_makes_room_at_the_same_bar_in_a_margin_account():
    bars = make_bars({"A": [1.0, 0.0, 0.0], "B": [0.0, 1.0, 1.0]})
    _, done = follow(bars, risk={"max_gross": 1.0})
    assert orders(done, bars) == [(1, "buy", 100.0, "A"), (2, "sell", 100.0, "A"), (2, "buy", 100.0, "B")]
    assert all(order.status is OrderStatus.FILLED for order in done.orders)


# --- cash accounts ---------------------------------------------------------------------------------------------------


def test_a_cash_account_buys_only_once_a_sale_has_paid():
    bars = make_bars({"A": [1.0, 0.0, 0.0, 0.0], "B": [0.0, 1.0, 1.0, 1.0]})
    rule, done = follow(bars, account="cash")
    assert orders(done, bars) == [(1, "buy", 100.0, "A"), (2, "sell", 100.0, "A"), (3, "buy", 100.0, "B")]
    assert all(order.status is OrderStatus.FILLED for order in done.orders)
    assert rule.weights(1) == [0.0, 0.0, 0.0, 1.0]


def test_a_cash_account_buys_the_rest_when_a_sale_has_paid():
    """A position that was begun with the cash at hand is completed, not left at a fraction of its target."""
    bars = make_bars({"A": [0.7, 0.0, 0.0, 0.0], "B": [0.0, 0.9, 0.9, 0.9]})
    rule, done = follow(bars, account="cash", min_change=0.02)
    assert orders(done, bars) == [
        (1, "buy", 70.0, "A"),
        (2, "sell", 70.0, "A"),
        (2, "buy", 30.0, "B"),
        (3, "buy", 60.0, "B"),
    ]
    assert rule.weights(1) == pytest.approx([0.0, 0.0, 0.3, 0.9])


def test_room_for_less_than_min_change_is_not_worth_an_order():
    bars = make_bars({"A": [0.99, 0.0, 0.0], "B": [0.0, 0.9, 0.9]})
    _, done = follow(bars, account="cash", min_change=0.02)
    assert orders(done, bars) == [(1, "buy", 99.0, "A"), (2, "sell", 99.0, "A"), (3, "buy", 90.0, "B")]


@pytest.mark.parametrize("seed", range(5))
def test_a_cash_account_is_never_overdrawn(seed: int):
    random = np.random.default_rng(seed)
    symbols = ("A", "B", "C")
    script = {s: (random.integers(0, 3, 60) / 6.0).tolist() for s in symbols}
    prices = {s: (100.0 * np.exp(np.cumsum(random.normal(0.0, 0.02, 60)))).tolist() for s in symbols}
    costs = {"commission": {"bps": 5.0, "minimum": 1.0}, "slippage_bps": 5.0}
    _, done = follow(make_bars(script, prices), account="cash", fractional=True, **costs)
    assert len(done.ledger.fills) > 50
    assert min(cash for _, cash in done.ledger.cash_history) >= 0.0


# --- rules that go wrong ---------------------------------------------------------------------------------------------


class Raising(Follow):
    def _targets(self, signals: Any, weights: Any, bars_held: Any, params: Any) -> Any:
        if signals[0, 0] == 3.0:
            raise ZeroDivisionError("division by zero")
        return weights


class TooFew(Follow):
    def _targets(self, signals: Any, weights: Any, bars_held: Any, params: Any) -> Any:
        return weights[:1]


def test_a_rule_that_raises_is_named_with_the_bar():
    bars = make_bars({"A": [1.0, 2.0, 3.0, 4.0]})
    expected = r"at bar 3 \(2024-01-04 21:00 UTC\): Raising.targets raised ZeroDivisionError: division by zero$"
    with pytest.raises(StrategyError, match=expected):
        run(bars, RuleStrategy, {"rule": Raising({}, FREE)})


def test_a_rule_that_answers_in_another_shape_is_told_so():
    bars = make_bars({"A": [0.0, 0.0], "B": [0.0, 0.0]})
    expected = r"TooFew.targets: expected an array of 2 weights, one a symbol, found the shape \(1,\)$"
    with pytest.raises(StrategyError, match=expected):
        run(bars, RuleStrategy, {"rule": TooFew({}, FREE)})


# --- shipped rules, run ----------------------------------------------------------------------------------------------


def test_buy_and_hold_buys_each_symbol_once_at_its_first_bar():
    bars = make_bars({"A": [0.0] * 5, "B": [None, None, 0.0, 0.0, 0.0]})
    done = run(bars, RuleStrategy, {"rule": BuyAndHold({}, FREE)})
    assert orders(done, bars) == [(1, "buy", 50.0, "A"), (3, "buy", 50.0, "B")]


def test_sma_cross_follows_its_averages():
    rule = SmaCross({"fast": 2, "slow": 3}, FREE)
    bars = make_bars({"A": [0.0] * 7}, {"A": [100.0, 100.0, 103.0, 103.0, 103.0, 100.0, 100.0]})
    done = run(bars, RuleStrategy, {"rule": rule})
    # Fast above slow first at bar 3 (101.5 > 101); not above at bar 5 (103 = 103).
    assert orders(done, bars) == [(3, "buy", 97.0, "A"), (5, "sell", 97.0, "A")]


class Fickle(Broker):
    """A broker whose first sell ends unfilled after it was accepted, as Alpaca may turn an order down late."""

    def next(self) -> None:
        for order in list(self.venue.open_orders.values()):
            if order.side < 0 and not getattr(self, "once", False):
                self.once = True
                self._report(self.venue.cancel(order, "halted"), self._now())
        super().next()


def test_a_target_whose_order_ended_unfilled_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.simulation.simulate.Broker", Fickle)
    bars = make_bars({"A": [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]})
    rule, simulation = follow(bars)
    assert orders(simulation, bars) == [(1, "buy", 50.0, "A"), (3, "sell", 50.0, "A"), (4, "sell", 50.0, "A")]
    assert [order.status for order in simulation.orders] == ["filled", "canceled", "filled"]
    assert rule.weights() == [0.0, 0.5, 0.5, 0.5, 0.0, 0.0]
