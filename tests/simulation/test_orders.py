"""What happens to orders, beside what backtrader's own broker does to them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import backtrader as bt
import pandas as pd
import pytest
from stage import (
    CASH,
    LEAN,
    Loop,
    Row,
    Scripted,
    broker,
    days,
    fills,
    frame,
    play,
    stock_broker,
)

from engine.cerebro.loop import Engine
from engine.config import RiskConfig
from engine.errors import StrategyError

Order = bt.Order
FLAT = 100.0


def script(frames: Mapping[str, pd.DataFrame] | list[Row | float], used: Any, steps: Any, loop: Loop = LEAN) -> Any:
    """Play a script on symbol A, or on several."""
    frames = {"A": frame(frames)} if isinstance(frames, list) else frames
    return play(loop, frames, Scripted, used, script=steps)


def prices(strategy: Any) -> list[tuple[float, float]]:
    """(signed quantity, price) of each fill."""
    return [(quantity, price) for _, quantity, price, _ in fills(strategy)]


def statuses(strategy: Any) -> list[tuple[int, str]]:
    """(order, status) in the sequence of notifications."""
    return [row[:2] for row in strategy.heard()]


# --- when an order fills ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["Limit", "Stop", "StopLimit", "Market"])
def test_an_order_never_fills_in_the_bar_that_decided_it(type_: str) -> None:
    """B has no bar on the first day. backtrader matches B's order again at A's next bar, with B's old bar.

    The order is decided at B's bar 2, whose range touches every price, and A ticks alone on the next day.
    """
    times = days(4)
    wide = (100.0, 110.0, 90.0, 100.0)
    frames = {"A": frame([FLAT] * 4, times), "B": frame([FLAT, wide, FLAT], times[[0, 1, 3]])}
    price = {"price": 105.0 if type_ != "Limit" else 95.0}
    step = {
        2: lambda s: s.buy(
            s.datas[1], size=1, exectype=getattr(Order, type_), **({} if type_ == "Market" else price), plimit=106.0
        )
    }
    theirs, ours = (script(frames, used, step) for used in (stock_broker(), broker()))
    decided = times[1].value
    assert all(time > decided for *_, time in fills(ours))
    if type_ == "Market":
        assert [time for *_, time in fills(ours)] == [times[3].value]
    else:
        assert [time for *_, time in fills(theirs)] == [decided]  # filled by prices of the bar that decided it
        assert fills(ours) == []


@pytest.mark.parametrize("quick", [True, False])
def test_a_fill_is_heard_of_before_the_decision_on_the_bar_that_brought_it(quick: bool) -> None:
    """Quick notifications come with the fill, before the strategy's clock moves; the others just before ``next``."""

    class Hears(bt.Strategy):
        def __init__(self) -> None:
            self.events: list[tuple[str, int, int]] = []

        def notify_order(self, order: Any) -> None:
            if order.status == order.Completed:
                self.events.append(("filled", len(self), len(self.data)))

        def next(self) -> None:
            self.events.append(("next", len(self), len(self.data)))
            if len(self) == 1:
                self.buy(size=1)

    played = play(LEAN, {"A": frame([FLAT] * 2)}, Hears, broker(), quicknotify=quick)
    assert played.events == [("next", 1, 1), ("filled", 1 if quick else 2, 2), ("next", 2, 2)]


def test_quick_notifications_are_the_engines_default() -> None:
    assert Engine().p.quicknotify
    assert not bt.Cerebro().p.quicknotify


# --- money -----------------------------------------------------------------------------------------------------------


def unaffordable_then_exit(used: Any) -> Any:
    """Hold A; then ask for far too much of B and, in the same bar, for the exit from A."""

    def ask(s: Any) -> list[Any]:
        return [s.buy(s.datas[1], size=10_000), s.close(s.datas[0])]

    frames = {"A": frame([FLAT] * 5), "B": frame([FLAT] * 5)}
    return script(frames, used, {1: lambda s: s.buy(s.datas[0], size=10), 3: ask})


def test_an_unaffordable_order_does_not_take_the_exit_with_it_where_backtraders_does() -> None:
    theirs = unaffordable_then_exit(stock_broker())
    assert [order.getstatusname() for order in theirs.orders] == ["Completed", "Margin", "Margin"]
    assert theirs.getposition(theirs.datas[0]).size == 10
    ours = unaffordable_then_exit(broker())
    assert [order.getstatusname() for order in ours.orders] == ["Completed", "Rejected", "Completed"]
    assert ours.getposition(ours.datas[0]).size == 0
    assert "gross exposure would be 100.1" in ours.orders[1].info.reason


GAP = [FLAT, (110.0, 110.0, 110.0, 110.0), 110.0]


def test_an_all_in_order_over_a_gap_up_is_cut_where_backtrader_drops_it() -> None:
    step = {1: lambda s: s.buy(size=100)}  # all of 10,000 at the close of 100; the next open is 110
    theirs = script(GAP, stock_broker(), step)
    assert theirs.orders[0].getstatusname() == "Margin"
    assert prices(theirs) == []
    ours = script(GAP, broker(account="cash"), step)
    assert prices(ours) == [(90.0, 110.0)]
    assert ours.orders[0].getstatusname() == "Canceled"
    assert "cut to 90 of 100" in ours.orders[0].info.reason
    assert ours.broker.getcash() == CASH - 9_900.0
    assert [status for _, status in statuses(ours)] == ["Accepted", "Partial", "Canceled"]


def test_a_reversal_in_one_order_is_refused_where_backtrader_ends_it_half_done() -> None:
    rows = [FLAT, FLAT, FLAT, (150.0, 150.0, 150.0, 150.0), 150.0]
    steps = {1: lambda s: s.sell(size=50), 3: lambda s: s.buy(size=140)}
    theirs = script(rows, stock_broker(shortcash=False), steps)
    assert theirs.orders[1].getstatusname() == "Margin"
    assert theirs.position.size == 0  # it said no, and bought 50
    ours = script(rows, broker(), steps)
    assert ours.orders[1].getstatusname() == "Rejected"
    assert "close first, reverse on a later bar" in ours.orders[1].info.reason
    assert ours.position.size == -50


def test_a_close_and_a_reversal_on_a_later_bar() -> None:
    steps = {1: lambda s: s.buy(size=5), 2: lambda s: s.close(), 3: lambda s: s.sell(size=5)}
    played = script([FLAT] * 5, broker(), steps)
    assert [quantity for quantity, _ in prices(played)] == [5.0, -5.0, -5.0]
    assert [row[1] for row in played.heard("trade")] == [5, 0, -5]


def test_short_sales_need_buying_power_where_backtraders_do_not() -> None:
    step = {1: lambda s: s.sell(size=1_000)}  # 100,000 short on 10,000
    theirs = script([FLAT] * 3, stock_broker(), step)
    assert theirs.position.size == -1_000
    assert theirs.broker.getcash() == 110_000.0
    ours = script([FLAT] * 3, broker(), step)
    assert ours.orders[0].getstatusname() == "Rejected"
    assert prices(ours) == []


def test_no_short_sale_unless_it_was_asked_for() -> None:
    played = script([FLAT] * 3, broker(short=False), {1: lambda s: s.sell(size=1)})
    assert "short selling is off" in played.orders[0].info.reason


def test_shorts_pay_for_their_market_value_where_backtrader_charges_the_entry_price() -> None:
    """10 short at 100; the price is 200 from Tuesday's close on. Wednesday charges one day."""
    rows = [FLAT, (100.0, 200.0, 100.0, 200.0), 200.0, 200.0]
    step = {1: lambda s: s.sell(size=10)}
    ours = script(rows[:3], broker(borrow_rate_pct=36.5), step)
    assert ours.broker.venue.ledger.interest_paid == pytest.approx(10 * 200.0 * 0.365 / 365.0)
    used = stock_broker()
    used.setcommission(interest=0.365)
    theirs = script(rows[:3], used, step)
    assert CASH + 1_000.0 - theirs.broker.getcash() == pytest.approx(10 * 100.0 * 0.365 / 365.0)


def test_a_weekend_costs_three_days() -> None:
    times = days(2, start="2020-01-09").append(days(1, start="2020-01-13"))  # Thursday, Friday, Monday
    played = script({"A": frame([FLAT] * 3, times)}, broker(borrow_rate_pct=36.5), {1: lambda s: s.sell(size=10)})
    assert played.broker.venue.ledger.interest_paid == pytest.approx(3 * 10 * 100.0 * 0.365 / 365.0)


def test_debt_costs_interest() -> None:
    played = script([FLAT] * 4, broker(margin_rate_pct=36.5), {1: lambda s: s.buy(size=150)})
    assert played.broker.venue.ledger.interest_paid == pytest.approx((5_000.0 + 5_005.0) * 0.001)


@pytest.mark.parametrize("way", ["setcommission", "addcommissioninfo"])
def test_costs_are_not_set_from_a_strategy_as_if_that_worked(way: str) -> None:
    class Sets(bt.Strategy):
        def start(self) -> None:
            getattr(self.broker, way)(bt.CommissionInfo(commission=0.001))

    with pytest.raises(StrategyError, match="write them in the run file, under broker"):
        play(LEAN, {"A": frame([FLAT] * 3)}, Sets, broker())


def test_an_order_says_what_it_made() -> None:
    steps = {1: lambda s: s.sell(size=10), 2: lambda s: s.close(), 3: lambda s: s.buy(size=5), 4: lambda s: s.close()}
    rows = [100.0, 100.0, 90.0, 90.0, 80.0]
    for used in (broker(commission={"per_share": 0.1}), stock_broker()):
        played = script(rows, used, steps)
        assert [order.executed.pnl for order in played.orders] == [0.0, 100.0, 0.0, -50.0]


def test_a_strategy_can_set_neither_cash_nor_positions() -> None:
    def tamper(s: Any) -> None:
        s.position.size = 1_000

    played = script([FLAT] * 4, broker(), {1: tamper, 2: lambda s: s.buy(size=1)})
    assert played.position.size == 1
    assert played.broker.getvalue() == CASH


# --- cancel, pairs, brackets -----------------------------------------------------------------------------------------


def cancel_at_once(s: Any) -> Any:
    order = s.buy(size=1)
    s.cancel(order)
    return order


def test_an_order_can_be_canceled_in_the_bar_that_gave_it_where_backtrader_ignores_that() -> None:
    theirs, ours = (script([FLAT] * 3, used, {1: cancel_at_once}) for used in (stock_broker(), broker()))
    assert theirs.orders[0].getstatusname() == "Completed"
    assert ours.orders[0].getstatusname() == "Canceled"
    assert prices(ours) == []
    assert statuses(ours) == [(0, "Accepted"), (0, "Canceled")]


def test_a_dead_order_stays_as_it_was_when_it_is_canceled() -> None:
    played = script([FLAT] * 4, broker(), {1: lambda s: s.buy(size=1), 3: lambda s: s.cancel(s.orders[0])})
    assert statuses(played) == [(0, "Accepted"), (0, "Completed")]


def pair(s: Any) -> list[Any]:
    first = s.sell(size=10, exectype=Order.Limit, price=110.0)
    return [first, s.sell(size=10, exectype=Order.Stop, price=90.0, oco=first)]


def test_of_a_pair_one_order_fills_and_the_other_is_canceled() -> None:
    rows = [FLAT, FLAT, FLAT, (100.0, 112.0, 100.0, 105.0), (80.0, 80.0, 80.0, 80.0)]
    played = script(rows, broker(), {1: lambda s: s.buy(size=10), 3: pair})
    assert prices(played) == [(10.0, 100.0), (-10.0, 110.0)]
    assert [order.getstatusname() for order in played.orders] == ["Completed", "Completed", "Canceled"]


def test_of_a_pair_in_one_wide_bar_the_worse_fills_and_each_end_is_told_once() -> None:
    rows = [FLAT, FLAT, FLAT, (100.0, 112.0, 88.0, 105.0), 105.0]
    played = script(rows, broker(), {1: lambda s: s.buy(size=10), 3: pair})
    assert prices(played) == [(10.0, 100.0), (-10.0, 90.0)]
    assert statuses(played)[4:] == [(2, "Completed"), (1, "Canceled")]


def test_a_partial_fill_ends_the_pair_in_both_brokers_but_ours_has_nothing_left_to_fill() -> None:
    """backtrader cancels the partner at the first part of a fill, and the rest of the order goes on without it."""
    rows = [FLAT, FLAT, FLAT, *[(100.0, 112.0, 100.0, 105.0)] * 3]
    used = stock_broker(filler=bt.fillers.FixedSize(size=4))
    steps = {1: lambda s: s.buy(size=4), 2: lambda s: s.buy(size=4), 3: pair}
    theirs = script(rows, used, steps)
    heard = statuses(theirs)
    assert heard.index((3, "Canceled")) < heard.index((2, "Partial")) + 2
    assert (2, "Completed") in heard[heard.index((3, "Canceled")) :]
    ours = script(rows, broker(), {1: lambda s: s.buy(size=10), 3: pair})
    assert "Partial" not in [status for _, status in statuses(ours)]


BRACKET = {1: lambda s: s.buy_bracket(size=10, exectype=Order.Market, stopprice=95.0, limitprice=120.0)}
CRASH = [FLAT, (100.0, 101.0, 90.0, 92.0), (70.0, 70.0, 70.0, 70.0), 70.0]


def test_the_stop_of_a_bracket_lives_on_the_entry_bar_where_backtraders_wakes_a_bar_late() -> None:
    theirs, ours = (script(CRASH, used, BRACKET) for used in (stock_broker(), broker()))
    assert prices(theirs) == [(10.0, 100.0), (-10.0, 70.0)]
    assert prices(ours) == [(10.0, 100.0), (-10.0, 95.0)]


def test_each_order_of_a_bracket_that_opens_and_ends_in_one_bar_is_told_of_once() -> None:
    played = script(CRASH, broker(), BRACKET)
    heard = statuses(played)
    assert heard[:3] == [(0, "Accepted"), (1, "Accepted"), (2, "Accepted")]
    assert heard[3:] == [(0, "Completed"), (1, "Completed"), (2, "Canceled")]
    assert [row[1] for row in played.heard("trade")] == [10, 0]


def test_a_leg_that_wakes_is_told_of_and_its_end_later() -> None:
    rows = [FLAT, FLAT, (100.0, 125.0, 99.0, 120.0), 120.0]
    played = script(rows, broker(), BRACKET)
    assert statuses(played)[3:] == [
        (0, "Completed"),
        (1, "Accepted"),
        (2, "Accepted"),
        (2, "Completed"),
        (1, "Canceled"),
    ]
    assert prices(played) == [(10.0, 100.0), (-10.0, 120.0)]


def test_a_leg_of_an_entry_that_was_cut_closes_what_there_is_and_is_complete() -> None:
    gapped = [FLAT, (110.0, 110.0, 90.0, 92.0), 92.0]
    step = {1: lambda s: s.buy_bracket(size=100, exectype=Order.Market, stopprice=95.0, limitprice=150.0)}
    played = script(gapped, broker(account="cash"), step)
    assert prices(played) == [(90.0, 110.0), (-90.0, 95.0)]
    assert [order.getstatusname() for order in played.orders] == ["Canceled", "Completed", "Canceled"]


def test_an_entry_that_is_canceled_takes_its_legs_with_it() -> None:
    steps = {
        1: lambda s: s.buy_bracket(size=10, exectype=Order.Limit, price=50.0, stopprice=40.0, limitprice=60.0),
        2: lambda s: s.cancel(s.orders[0]),
    }
    played = script([FLAT] * 4, broker(), steps)
    assert {order.getstatusname() for order in played.orders} == {"Canceled"}


def test_an_entry_that_is_rejected_takes_its_legs_with_it() -> None:
    steps = {1: lambda s: s.buy_bracket(size=10_000, exectype=Order.Market, stopprice=90.0, limitprice=120.0)}
    played = script([FLAT] * 4, broker(), steps)
    assert {order.getstatusname() for order in played.orders} == {"Rejected"}
    assert played.orders[1].info.reason == "its entry was refused"


# --- prices ----------------------------------------------------------------------------------------------------------


def test_slippage_moves_opens_where_backtraders_constructor_leaves_them() -> None:
    step = {1: lambda s: s.buy(size=10)}
    rows = [FLAT, (100.0, 110.0, 90.0, 100.0), 100.0]
    assert prices(script(rows, stock_broker(slip_perc=0.01), step)) == [(10.0, 100.0)]
    assert prices(script(rows, broker(slippage_bps=100.0), step)) == [(10.0, 101.0)]


def test_slippage_of_a_sell_at_the_open_goes_down_to_its_limit_and_no_further() -> None:
    """The open betters the limit; 10% of slippage would go far below it. backtrader bounds by neither low nor limit."""
    rows = [FLAT, FLAT, (110.0, 112.0, 107.0, 110.0), 110.0]
    steps = {1: lambda s: s.sell(size=10, exectype=Order.Limit, price=109.0)}
    ours = script(rows, broker(slippage_bps=1_000.0), steps)
    assert prices(ours) == [(-10.0, 109.0)]
    near = script(rows, broker(slippage_bps=50.0), steps)
    assert prices(near) == [(-10.0, pytest.approx(110.0 * 0.995))]


def test_slippage_below_the_bars_low_is_what_backtraders_sell_limit_gets() -> None:
    """Its bound for a sell limit is the limit itself, although it computes max(low, limit): a price never traded."""
    rows = [FLAT, FLAT, (110.0, 112.0, 109.0, 110.0), 110.0]
    used = stock_broker(slip_perc=0.05, slip_open=True)
    theirs = script(rows, used, {1: lambda s: s.sell(size=10, exectype=Order.Limit, price=101.0)})
    assert prices(theirs) == [(-10.0, pytest.approx(104.5))]
    assert prices(theirs)[0][1] < 109.0


@pytest.mark.parametrize(
    ("order", "bar", "paid"),
    [
        ({"exectype": Order.Market}, (103.0, 105.0, 99.0, 101.0), 103.0),
        ({"exectype": Order.Limit, "price": 98.0}, (103.0, 105.0, 98.0, 101.0), 98.0),
        ({"exectype": Order.Limit, "price": 104.0}, (103.0, 105.0, 98.0, 101.0), 103.0),
        ({"exectype": Order.Limit, "price": 97.9}, (103.0, 105.0, 98.0, 101.0), None),
        ({"exectype": Order.Stop, "price": 104.0}, (103.0, 105.0, 98.0, 101.0), 104.0),
        ({"exectype": Order.Stop, "price": 102.0}, (103.0, 105.0, 98.0, 101.0), 103.0),
        ({"exectype": Order.Stop, "price": 106.0}, (103.0, 105.0, 98.0, 101.0), None),
        ({"exectype": Order.StopLimit, "price": 104.0, "plimit": 104.5}, (103.0, 105.0, 98.0, 101.0), 104.0),
        ({"exectype": Order.StopLimit, "price": 102.0, "plimit": 102.5}, (103.0, 105.0, 102.6, 103.0), None),
    ],
)
@pytest.mark.parametrize("used", [broker, stock_broker], ids=["ours", "backtrader's"])
def test_where_there_is_no_trap_both_brokers_pay_the_same(used: Any, order: Any, bar: Row, paid: float | None) -> None:
    played = script([FLAT, bar], used(), {1: lambda s: s.buy(size=10, **order)})
    assert prices(played) == ([] if paid is None else [(10.0, paid)])


# --- how long an order lives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("valid", [0, Order.DAY, datetime.timedelta(0)], ids=["0", "Order.DAY", "timedelta()"])
def test_a_day_order_ends_with_the_next_session_where_backtraders_zero_never_does(valid: Any) -> None:
    step = {1: lambda s: s.buy(size=1, exectype=Order.Limit, price=90.0, valid=valid)}
    rows = [FLAT, FLAT, (80.0, 80.0, 80.0, 80.0), 80.0]
    ours = script(rows, broker(), step)
    assert ours.orders[0].getstatusname() == "Expired"
    assert prices(ours) == []
    if valid == 0 and isinstance(valid, int):
        assert prices(script(rows, stock_broker(), step)) == [(1.0, 80.0)]


def test_a_day_order_lives_through_its_session_and_no_longer() -> None:
    minutes = pd.DatetimeIndex(
        [f"2020-01-0{day} {time}" for day in (6, 7, 8) for time in ("20:58", "20:59", "21:00")], tz="UTC"
    ).as_unit("ns")
    ends = frozenset(minutes[2::3].asi8.tolist())
    day = {"exectype": Order.Limit, "price": 90.0, "valid": 0}
    played = script(
        {"A": frame([FLAT] * 9, minutes)},
        broker(session_ends=ends.__contains__),
        {1: lambda s: s.buy(size=1, **day), 3: lambda s: s.buy(size=2, **day)},
    )
    expired = [row for row in played.heard() if row[1] == "Expired"]
    assert [(row[0], row[2]) for row in expired] == [(0, 3), (1, 6)]  # order, bar


@pytest.mark.parametrize("valid", [5, 737_500.0, datetime.datetime(2020, 2, 1), datetime.timedelta(days=2)])
def test_other_lives_are_refused(valid: Any) -> None:
    with pytest.raises(StrategyError, match=r"use None \(good till cancelled\) or 0 \(day order\)"):
        script([FLAT] * 3, broker(), {1: lambda s: s.buy(size=1, valid=valid)})


@pytest.mark.parametrize("name", ["Close", "StopTrail", "StopTrailLimit", "Historical"])
def test_order_types_that_a_bar_cannot_decide_are_refused_in_one_sentence(name: str) -> None:
    more = {"trailamount": 1.0} if "Trail" in name else {}
    with pytest.raises(StrategyError, match=f"orders of type {name} are not supported: .* use Market, Limit"):
        script([FLAT] * 3, broker(), {1: lambda s: s.sell(size=1, exectype=getattr(Order, name), price=99.0, **more)})


def test_a_sell_stop_that_trails_in_backtrader_moves_on_closes_only() -> None:
    """Why trailing stops are refused: the high of 130 does not move the stop, the close of 101 does."""
    rows = [FLAT, FLAT, (100.0, 130.0, 100.0, 101.0), (101.0, 101.0, 97.0, 97.0), 97.0]
    steps = {1: lambda s: s.buy(size=1), 2: lambda s: s.sell(size=1, exectype=Order.StopTrail, trailamount=3.0)}
    assert prices(script(rows, stock_broker(), steps)) == [(1.0, 100.0), (-1.0, 98.0)]


# --- what the broker can be asked ------------------------------------------------------------------------------------


def test_the_status_of_every_order_can_be_asked_for_where_backtraders_raises() -> None:
    """backtrader looks a known order up by its position in a list and then asks that number for its status."""
    asked: list[int] = []

    def status(s: Any) -> None:
        asked.append(s.broker.orderstatus(s.orders[0]))

    steps = {1: lambda s: s.buy(size=1), 2: status}
    script([FLAT] * 3, broker(), steps)
    assert asked == [Order.Completed]
    with pytest.raises(AttributeError):
        script([FLAT] * 3, stock_broker(), steps)


def test_positions_are_pictures() -> None:
    seen: list[Any] = []

    def look(s: Any) -> None:
        seen.append((s.position.size, s.position.price, s.getposition(s.data).size, s.positions[s.data].size))

    script([FLAT] * 4, broker(), {1: lambda s: s.buy(size=3), 2: look, 3: look})
    assert seen == [(3.0, 100.0, 3.0, 3.0)] * 2


def test_the_value_of_some_symbols() -> None:
    seen: list[float] = []
    frames = {"A": frame([FLAT] * 3), "B": frame([FLAT] * 3), "C": frame([FLAT], days(3)[2:])}

    def look(s: Any) -> None:
        seen.extend(s.broker.getvalue([data]) for data in s.datas)

    script(frames, broker(), {1: lambda s: s.buy(s.datas[1], size=3), 2: look})
    assert seen == [0.0, 300.0, 0.0]


def test_the_gate_refuses_what_breaks_a_limit_and_says_so() -> None:
    used = broker(risk=RiskConfig(max_position=0.5, max_gross=1.0))
    played = script([FLAT] * 3, used, {1: lambda s: s.buy(size=60)})
    assert played.orders[0].getstatusname() == "Rejected"
    assert played.orders[0].info.reason.startswith("risk.max_position")
    assert [order.status for order in used.submitted] == ["refused"]


def test_what_a_user_gives_along_stays_on_the_order() -> None:
    played = script([FLAT] * 3, broker(), {1: lambda s: s.buy(size=1, why="signal")})
    assert played.orders[0].info.why == "signal"


@pytest.mark.parametrize("size", [0.5, float("nan"), float("inf")])
def test_impossible_quantities_are_rejected(size: float) -> None:
    played = script([FLAT] * 3, broker(), {1: lambda s: s.buy(size=size)})
    assert played.orders[0].getstatusname() == "Rejected"


def test_prices_of_orders_are_put_on_the_tick() -> None:
    steps = {
        1: lambda s: s.buy(size=1, exectype=bt.Order.Limit, price=99.123456),
        2: lambda s: s.buy(size=1, exectype=bt.Order.StopLimit, price=0.123456, plimit=0.98765),
    }
    played = script([FLAT] * 3, broker(), steps)
    found = [(order.ours.limit_price, order.ours.stop_price) for order in played.orders]
    assert found[0][0] == 99.12
    assert found[1] == (0.9877, 0.1235)


def test_a_fractional_market_order_is_for_the_day() -> None:
    played = script([FLAT] * 3, broker(fractional=True), {1: lambda s: [s.buy(size=0.5), s.buy(size=2)]})
    assert [order.ours.time_in_force for order in played.orders] == ["day", "gtc"]


def test_a_halt_from_outside_cancels_closes_and_lets_nothing_open() -> None:
    steps = {
        1: lambda s: s.buy(size=10),
        2: lambda s: s.buy(size=1, exectype=bt.Order.Limit, price=50.0),
        3: lambda s: s.broker.halt("the feed is mute"),
        4: lambda s: s.buy(size=1),
    }
    played = script([FLAT] * 6, broker(), steps)
    assert prices(played) == [(10.0, 100.0), (-10.0, 100.0)]
    assert [order.status for order in played.broker.submitted] == ["filled", "canceled", "filled", "refused"]
    assert played.broker.gate.halted == "the feed is mute"
    assert played.position.size == 0


def test_a_halts_close_that_expired_is_given_again() -> None:
    """A fraction is for the day: where its symbol has no bar on that day, the close must not be forgotten."""
    times = days(6)
    frames = {"A": frame([100.0] * 6, times), "B": frame([100.0, 100.0, 40.0, 40.0, 40.0], times.delete(3))}
    used = broker(fractional=True, risk=RiskConfig(max_drawdown_halt=0.05))
    steps = {1: lambda s: [s.buy(s.data1, size=20.5)]}
    played = play(LEAN, frames, Scripted, used, script=steps)
    assert [(order.symbol, order.status) for order in used.submitted] == [
        ("B", "filled"), ("B", "expired"), ("B", "filled"),
    ]  # fmt: skip
    assert played.getposition(played.data1).size == 0.0
