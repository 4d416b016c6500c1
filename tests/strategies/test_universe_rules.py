"""Rules and orders in a universe: members only, out at the first bar outside, and nothing opened in a stranger."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import backtrader as bt
import pandas as pd
import pytest
from scripted import FREE, follow, make_bars, orders, run

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.universe import Membership
from engine.errors import ConfigError
from engine.preparation import buy_and_hold
from engine.remarks import missing_members, observations
from engine.simulation.simulate import Simulation
from engine.trading.costs import Costs
from engine.trading.orders import OrderStatus
from strategies.buy_and_hold import BuyAndHold
from strategies.rule import Context
from strategies.runner import RuleStrategy

# The stage's bars are 2024-01-02 to 2024-01-10 for days 1 to 7.
FIRST = date(2000, 1, 1)
DAYS = {day: date(2024, 1, number) for day, number in enumerate((2, 3, 4, 5, 8, 9, 10), start=1)}


def in_universe(bars: Bars, **spells: tuple[int, int | None]) -> Bars:
    """Members from a day to before another, as numbered on the stage."""
    membership = Membership(
        {s: ((DAYS.get(start, FIRST), None if end is None else DAYS[end]),) for s, (start, end) in spells.items()}
    )
    return replace(bars, membership=membership)


def test_what_is_held_is_closed_at_the_first_bar_outside_and_taken_up_again_by_no_rule() -> None:
    bars = in_universe(make_bars({"A": [0.5] * 7, "B": [0.25] * 7}), A=(0, 4), B=(2, None))
    _, done = follow(bars)
    assert orders(done, bars) == [(1, "buy", 50.0, "A"), (2, "buy", 25.0, "B"), (4, "sell", 50.0, "A")]
    assert all(order.status is OrderStatus.FILLED for order in done.orders)


def test_a_rule_is_asked_about_members_only() -> None:
    bars = in_universe(make_bars({"A": [0.1] * 5, "B": [0.2] * 5, "C": [0.3] * 5}), A=(0, 3), B=(2, None), C=(0, None))
    rule, _ = follow(bars)
    assert [signals for signals, _, _ in rule.shown] == [
        [0.1, 0.3],
        [0.1, 0.2, 0.3],
        [0.2, 0.3],
        [0.2, 0.3],
        [0.2, 0.3],
    ]
    assert [weights for _, weights, _ in rule.shown][2] == [0.2, 0.3]


def test_a_rule_is_not_asked_when_there_are_no_members() -> None:
    bars = in_universe(make_bars({"A": [0.5] * 5}), A=(3, None))
    rule, done = follow(bars)
    assert len(rule.shown) == 3
    assert orders(done, bars) == [(3, "buy", 50.0, "A")]


def test_equal_weights_count_the_members() -> None:
    bars = in_universe(
        make_bars({"A": [0.0] * 4, "B": [0.0] * 4, "C": [0.0] * 4}), A=(0, None), B=(0, None), C=(7, None)
    )
    done = run(bars, RuleStrategy, {"rule": BuyAndHold({}, Context(costs=Costs(), max_gross=2.0))})
    assert orders(done, bars) == [(1, "buy", 50.0, "A"), (1, "buy", 50.0, "B")]


# --- plain strategies ------------------------------------------------------------------------------------------------


class Stubborn(bt.Strategy):
    """Buys ten more A at every bar, sells five on the fifth, and keeps a limit far below."""

    params = (("limit", False),)

    def next(self) -> None:
        if self.p.limit:
            if len(self) == 1:
                self.buy(size=1, exectype=bt.Order.Limit, price=50.0)
        elif len(self) == 5:
            self.sell(size=5)
        else:
            self.buy(size=10)


def test_nothing_is_opened_in_who_is_no_member_and_reducing_passes() -> None:
    bars = in_universe(make_bars({"A": [0.0] * 7}), A=(2, 4))
    done = run(bars, Stubborn, {})
    found = [(order.status, order.reason) for order in done.orders]
    assert found[0] == (OrderStatus.REFUSED, "data.universe: A is no member on 2024-01-02")
    assert [status for status, _ in found[1:3]] == [OrderStatus.FILLED] * 2
    assert found[3] == (OrderStatus.REFUSED, "data.universe: A is no member on 2024-01-05")
    assert found[4][0] is OrderStatus.FILLED  # the sale
    assert found[5][0] is OrderStatus.REFUSED


def test_an_entry_that_waits_is_withdrawn_when_its_symbol_leaves() -> None:
    bars = in_universe(make_bars({"A": [0.0] * 5}), A=(0, 3))
    (order,) = run(bars, Stubborn, {"limit": True}).orders
    assert (order.status, order.reason) == (OrderStatus.CANCELED, "data.universe: A is no member on 2024-01-04")
    kept = run(replace(bars, membership=None), Stubborn, {"limit": True}).orders
    assert kept[0].status is OrderStatus.ACCEPTED


# --- beside the run ---------------------------------------------------------------------------------------------------


def config(**data: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "stage",
            "data": {"source": "files", "symbols": ["A"], **data},
            "spans": {"test": ["2024-01-02", "2024-01-10"]},
            "strategy": {"kind": "a:B"},
            "broker": FREE,
        }
    )


def held_beside(bars: Bars) -> Simulation:
    return buy_and_hold(config(), bars, pd.Timestamp("2024-01-01", tz="UTC"))


def test_buy_and_hold_takes_the_members_at_the_start_and_keeps_them() -> None:
    prices = {"A": [100.0] * 4 + [200.0] * 3, "B": [100.0] * 7, "C": [100.0] * 3 + [50.0] * 4}
    bars = make_bars({"A": [0.0] * 7, "B": [0.0] * 7, "C": [0.0] * 7}, prices)
    held = held_beside(in_universe(bars, A=(0, 3), B=(0, None), C=(3, None)))
    assert [(fill.symbol, fill.quantity) for fill in held.ledger.fills] == [("A", 50.0), ("B", 50.0)]
    assert held.equity["equity"].iloc[-1] == 15_000.0  # A was held beyond its end, C never bought


def test_buy_and_hold_begins_with_the_first_members_and_covers_every_bar_of_the_run() -> None:
    bars = make_bars({"A": [0.0] * 7, "B": [None, None, 0.0, 0.0, 0.0, None, None]})
    held = held_beside(in_universe(bars, B=(0, 5), A=(7, None)))
    assert [fill.symbol for fill in held.ledger.fills] == ["B"]
    assert len(held.equity) == 7
    assert held.equity["equity"].tolist() == [10_000.0] * 7


def test_the_run_says_how_many_members_have_no_bars() -> None:
    bars = in_universe(make_bars({"A": [0.5] * 7}), A=(0, None), GONE=(0, 3), LATER=(7, None))
    period = (date(2024, 1, 2), date(2024, 1, 9))
    (said,) = missing_members(bars, period, config(symbols="all").data)
    assert said.startswith("SURVIVORSHIP: 1 of 2 members have no bars;")
    (said,) = missing_members(bars, period, config(symbols=["A"]).data)
    assert said.startswith("SURVIVORSHIP: 1 of 2 members take no part;")
    whole = in_universe(make_bars({"A": [0.5] * 7}), A=(0, None))
    assert missing_members(whole, period, config().data) == [
        "all 1 members of the universe have bars while they are members"
    ]
    assert missing_members(replace(bars, membership=None), period, config().data) == []
    _, done = follow(bars)
    assert not any("could not buy" in remark for remark in observations(bars, done, held_beside(bars), None))


def test_a_period_without_members_is_an_error() -> None:
    bars = in_universe(make_bars({"A": [0.5] * 7}), A=(5, None), GONE=(0, None))
    with pytest.raises(
        ConfigError, match=r"data.universe: none of the 1 symbols with bars is a member from 2024-01-02"
    ):
        bars.among(date(2024, 1, 2), date(2024, 1, 5))
