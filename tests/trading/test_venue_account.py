"""What the account lets through, and what it says when it does not."""

import math
from typing import Any

import pytest
from desk import Desk

from engine.trading.orders import Order, OrderStatus


def refused(order: Order) -> str:
    """The reason of an order that must have been rejected."""
    assert order.status is OrderStatus.REJECTED
    assert not order.alive
    return order.reason


# --- what is not an order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", [0.0, -1.0, math.nan, math.inf])
def test_a_quantity_must_be_a_positive_number(quantity: float) -> None:
    for fractional in (False, True):
        desk = Desk(fractional=fractional)
        assert refused(desk.buy(quantity)) == f"quantity must be a positive number, found {quantity}"
        assert desk.venue.open_orders == {}


def test_a_fraction_needs_a_fractional_account() -> None:
    reason = refused(Desk().buy(1.5))
    assert reason == "whole shares only, found 1.5; set broker.fractional to true for fractions"


def test_a_fraction_is_kept_to_nine_places() -> None:
    desk = Desk(fractional=True)
    desk.buy(1.0 / 3.0, time_in_force="day")
    desk.flat_bar()
    assert desk.held() == desk.fills[0].quantity == 0.333333333
    assert desk.ledger.cash == pytest.approx(10_000.0 - 33.3333333, abs=1e-12)
    assert refused(desk.buy(1e-10)) == "quantity must be a positive number, found 0.0"


@pytest.mark.parametrize(("type", "more"), [("market", {}), ("limit", {"limit_price": 90.0, "time_in_force": "day"})])
def test_a_fraction_is_a_market_day_order_as_at_alpaca(type: str, more: dict[str, Any]) -> None:
    reason = refused(Desk(fractional=True).buy(1.5, type, **more))
    assert reason.startswith("fractions of a share are market day orders only")


@pytest.mark.parametrize("price", [0.0, -5.0, math.nan, math.inf])
@pytest.mark.parametrize(
    ("type_", "prices", "wrong"),
    [
        ("limit", {}, "limit"),
        ("stop", {}, "stop"),
        ("stop_limit", {"stop_price": 100.0}, "limit"),
        ("stop_limit", {"limit_price": 100.0}, "stop"),
    ],
)
def test_a_price_must_be_a_positive_number(price: float, type_: str, prices: dict[str, float], wrong: str) -> None:
    reason = refused(Desk().buy(1, type_, **prices, **{f"{wrong}_price": price}))
    assert reason == f"a {type_} order needs a positive {wrong} price, found {price}"


@pytest.mark.parametrize(
    ("type_", "name"), [("market", "limit"), ("market", "stop"), ("limit", "stop"), ("stop", "limit")]
)
def test_a_price_that_the_type_does_not_use_is_a_mistake(type_: str, name: str) -> None:
    prices: dict[str, Any] = {"limit_price": 100.0} if type_ == "limit" else {}
    prices |= {"stop_price": 100.0} if type_ == "stop" else {}
    reason = refused(Desk().buy(1, type_, **prices, **{f"{name}_price": 90.0}))
    assert reason == f"a {type_} order takes no {name} price, found 90.0"


@pytest.mark.parametrize("last", [None, math.nan, 0.0])
def test_a_symbol_without_a_price_cannot_be_bought(last: float | None) -> None:
    desk = Desk()
    if last is not None:
        desk.closes["NEW"] = last
    assert refused(desk.buy(1, symbol="NEW")) == "NEW has no price yet; wait for its first bar"
    assert refused(desk.buy(1, "limit", limit_price=5.0, symbol="NEW")).startswith("NEW has no price yet")


# --- cash account ---------------------------------------------------------------------------------------------------


def test_a_cash_account_buys_with_cash_only() -> None:
    desk = Desk(account="cash", cash=1_000.0)
    assert refused(desk.buy(11)) == "insufficient buying power: 1100.00 needed, 1000.00 free"
    assert desk.buy(10).status is OrderStatus.ACCEPTED


def test_commission_and_slippage_count_at_submission() -> None:
    # 9 * 100 * 1.02 = 918; + 1% = 927.18. With 10: 1,020 + 10.20
    desk = Desk(account="cash", cash=1_000.0, slippage_bps=200.0, commission_bps=100.0)
    assert refused(desk.buy(10)) == "insufficient buying power: 1030.20 needed, 1000.00 free"
    assert desk.buy(9).status is OrderStatus.ACCEPTED


def test_pending_orders_reserve_cash_at_their_own_prices() -> None:
    desk = Desk(account="cash", cash=1_000.0)
    desk.buy(5, "limit", limit_price=90.0)  # 450
    desk.buy(3, "stop", stop_price=110.0)  # 330
    desk.buy(1, "stop_limit", stop_price=110.0, limit_price=120.0)  # 120
    assert refused(desk.buy(2)) == "insufficient buying power: 200.00 needed, 100.00 free"
    assert desk.buy(1).status is OrderStatus.ACCEPTED
    assert refused(desk.buy(1)) == "insufficient buying power: 100.00 needed, 0.00 free"


def test_a_pending_sale_is_not_cash() -> None:
    desk = Desk(account="cash", cash=1_000.0)
    desk.buy(10)
    desk.flat_bar()
    desk.sell(10)
    assert refused(desk.buy(1, symbol="Y")) == "insufficient buying power: 100.00 needed, 0.00 free"
    desk.flat_bar()
    assert desk.buy(1, symbol="Y").status is OrderStatus.ACCEPTED


def test_an_all_in_order_is_cut_when_the_open_gaps_up() -> None:
    # Accepted at 100; the open is 130: 1,000 / 130 = 7.69
    desk = Desk(account="cash", cash=1_000.0)
    order = desk.buy(10)
    (event,) = desk.bar(130.0, 131.0, 129.0, 130.0)
    assert order.status is OrderStatus.CANCELED
    assert order.filled_quantity == 7.0
    assert order.reason == "cut to 7 of 10: the account could not pay for more at 130.0000 a share"
    assert event.fill is not None
    assert desk.ledger.cash == 90.0


def test_a_cut_leaves_room_for_every_kind_of_commission() -> None:
    # With 10 at 103.7 + 1% + 0.50 a share: 103.7 * 1.01 + 0.5 = 105.237 a share; 1,010 / 105.237 = 9.597
    proportional = Desk(account="cash", cash=1_015.0, fractional=True, commission_bps=100.0, commission_per_share=0.5)
    proportional.buy(10)
    proportional.bar(103.7, 104.0, 103.0, 104.0)
    assert proportional.held() == pytest.approx(1_015.0 / 105.237, abs=2e-9)
    assert 0.0 <= proportional.ledger.cash < 1e-6
    # A minimum of 50 is more than 1% of it: (1,055 - 50) / 120 = 8.375
    minimum = Desk(account="cash", cash=1_055.0, commission_bps=100.0, commission_minimum=50.0)
    minimum.buy(10)
    minimum.bar(120.0, 121.0, 119.0, 120.0)
    assert minimum.held() == 8.0
    assert minimum.ledger.cash == pytest.approx(45.0)  # 1,055 - 960 - 50


def test_a_cut_never_takes_the_cent_that_is_missing() -> None:
    desk = Desk(account="cash", cash=700.0 - 1e-10)
    desk.flat_bar(50.0)
    desk.buy(10)
    desk.flat_bar(100.0)
    assert desk.held() == 6.0


def test_an_order_that_can_buy_nothing_any_more_is_cancelled() -> None:
    desk = Desk(account="cash", cash=150.0)
    order = desk.buy(1)
    desk.bar(200.0, 201.0, 199.0, 200.0)
    assert order.status is OrderStatus.CANCELED
    assert order.reason == "the account could not pay for more at 200.0000 a share"
    assert desk.fills == []
    assert desk.ledger.cash == 150.0


def test_a_sale_that_would_not_pay_its_commission_leaves_a_cash_account_alone() -> None:
    desk = Desk(account="cash", cash=110.0, commission_minimum=10.0)
    desk.buy(1)
    desk.flat_bar()
    order = desk.sell(1)
    desk.flat_bar(5.0)
    assert order.status is OrderStatus.CANCELED
    assert order.reason == "the proceeds and the cash would not pay the commission"
    assert desk.ledger.cash == 0.0


# --- margin account -------------------------------------------------------------------------------------------------


def test_a_margin_account_buys_twice_its_equity() -> None:
    desk = Desk(cash=1_000.0)
    assert refused(desk.buy(21)) == "insufficient buying power: 2100.00 needed, 2000.00 free"
    assert desk.buy(15).status is OrderStatus.ACCEPTED
    assert refused(desk.buy(6, symbol="Y")) == "insufficient buying power: 600.00 needed, 500.00 free"
    desk.flat_bar()
    assert desk.ledger.cash == -500.0
    assert desk.buy(5, symbol="Y").status is OrderStatus.ACCEPTED


def test_buying_power_follows_equity() -> None:
    desk = Desk(cash=1_000.0)
    desk.buy(10)
    desk.flat_bar()
    desk.flat_bar(150.0)
    # Equity 1,500, gross 1,500: 2 * 1,500 - 1,500 = 1,500 free
    assert refused(desk.buy(16, symbol="Y")) == "insufficient buying power: 1600.00 needed, 1500.00 free"
    desk.flat_bar(40.0)
    # Equity 400, gross 400: 400 free
    assert refused(desk.buy(5, symbol="Y")) == "insufficient buying power: 500.00 needed, 400.00 free"


def test_a_commission_takes_twice_its_amount_of_buying_power() -> None:
    # After buying 19 at 100 with a commission of 60: equity 940, gross 1,900 > 1,880
    desk = Desk(cash=1_000.0, commission_minimum=60.0)
    assert refused(desk.buy(19)) == "insufficient buying power: 2020.00 needed, 2000.00 free"
    assert desk.buy(18).status is OrderStatus.ACCEPTED


def test_a_gap_up_cuts_a_margin_order_to_twice_the_equity_at_the_open() -> None:
    # Accepted at 100 for all of 2,000; at 128: 2,000 / 128 = 15.6
    desk = Desk(cash=1_000.0)
    order = desk.buy(20)
    desk.bar(128.0, 130.0, 127.0, 130.0)
    assert (order.status, desk.held()) == (OrderStatus.CANCELED, 15.0)
    assert order.reason == "cut to 15 of 20: the account could not pay for more at 128.0000 a share"


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({"commission_bps": 100.0}, 2_000.0 / 130.56),  # 128 and twice 1.28
        ({"commission_per_share": 1.0}, 2_000.0 / 130.0),  # 128 and twice 1
        ({"commission_minimum": 50.0}, 1_900.0 / 128.0),  # 2,000 less twice 50
    ],
)
def test_a_margin_cut_leaves_room_for_twice_the_commission(costs: dict[str, float], expected: float) -> None:
    desk = Desk(cash=1_000.0, fractional=True, **costs)
    desk.buy(18)
    desk.bar(128.0, 130.0, 127.0, 130.0)
    assert desk.held() == pytest.approx(expected, abs=2e-9)
    marks = {"X": 128.0}
    assert desk.ledger.gross(marks) <= 2.0 * desk.ledger.equity(marks)


def test_what_is_held_already_is_valued_at_the_fill() -> None:
    # 10 held on 1,000 of equity. At 80 equity and gross are 800: 800 / 80 = 10 more, not the 12 that 100 allowed.
    desk = Desk(cash=1_000.0)
    desk.buy(10)
    desk.flat_bar()
    order = desk.buy(12, "limit", limit_price=80.0)
    desk.bar(100.0, 101.0, 79.0, 80.0)
    assert (order.status, desk.held()) == (OrderStatus.CANCELED, 20.0)


def test_short_positions_use_buying_power_like_long_ones() -> None:
    desk = Desk(cash=1_000.0, short=True)
    desk.sell(15)
    desk.flat_bar()
    assert desk.ledger.cash == 2_500.0  # the proceeds are cash, but no buying power
    assert refused(desk.buy(6, symbol="Y")) == "insufficient buying power: 600.00 needed, 500.00 free"
    assert refused(desk.sell(6)) == "insufficient buying power: 600.00 needed, 500.00 free"


def test_a_short_sale_below_the_market_needs_what_the_market_pays() -> None:
    # A sell limit at 1 sells at 100.
    desk = Desk(cash=1_000.0, short=True)
    reason = refused(desk.sell(21, "limit", limit_price=1.0))
    assert reason == "insufficient buying power: 2100.00 needed, 2000.00 free"


def test_shorts_are_refused_unless_asked_for() -> None:
    reason = refused(Desk().sell(5))
    assert reason == "short selling is off: 5 asked, 0 held; set broker.short to true"
    assert Desk(short=True).sell(5).status is OrderStatus.ACCEPTED


# --- closing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short", [False, True])
def test_a_reversal_in_one_order_is_refused_as_alpaca_does(short: bool) -> None:
    desk = Desk(short=short)
    desk.buy(10)
    desk.flat_bar()
    assert refused(desk.sell(20)) == (
        "insufficient quantity: 20 asked, 10 of 10 not in open orders; close first, reverse on a later bar"
    )
    assert desk.held() == 10.0


def test_a_short_cannot_be_bought_back_through_zero_either() -> None:
    desk = Desk(short=True)
    desk.sell(10)
    desk.flat_bar()
    assert refused(desk.buy(11)).startswith("insufficient quantity: 11 asked, 10 of 10")
    desk.buy(10)
    desk.flat_bar()
    assert desk.held() == 0.0


def test_shares_in_open_orders_cannot_be_sold_again() -> None:
    desk = Desk()
    desk.buy(10)
    desk.flat_bar()
    resting = desk.sell(6, "limit", limit_price=150.0)
    assert refused(desk.sell(5)).startswith("insufficient quantity: 5 asked, 4 of 10")
    assert desk.sell(4).status is OrderStatus.ACCEPTED
    desk.venue.cancel(resting)
    assert desk.sell(6).status is OrderStatus.ACCEPTED


def test_partners_of_a_group_hold_the_same_shares() -> None:
    desk = Desk()
    desk.buy(10)
    desk.flat_bar()
    desk.sell(10, "limit", limit_price=150.0, group=3)
    assert desk.sell(10, "stop", stop_price=80.0, group=3).status is OrderStatus.ACCEPTED
    assert refused(desk.sell(1)).startswith("insufficient quantity: 1 asked, 0 of 10")


def test_closing_needs_no_buying_power() -> None:
    desk = Desk(account="cash", cash=1_000.0)
    desk.buy(10)
    desk.flat_bar()
    assert desk.ledger.cash == 0.0
    assert desk.sell(10).status is OrderStatus.ACCEPTED
    short = Desk(cash=1_000.0, short=True)
    short.sell(20)
    short.flat_bar()
    short.flat_bar(140.0)  # equity 3,000 - 2,800 = 200, gross 2,800: far beyond 2x
    assert short.buy(20).status is OrderStatus.ACCEPTED
    short.flat_bar(140.0)
    assert short.held() == 0.0


def test_an_opening_order_that_meets_the_opposite_position_does_not_cross_zero() -> None:
    # Given while flat, a buy below and a short sale above; the buy fills first.
    desk = Desk(short=True)
    desk.buy(10, "limit", limit_price=95.0)
    above = desk.sell(15, "limit", limit_price=105.0)
    desk.bar(100.0, 101.0, 94.0, 100.0)
    desk.bar(100.0, 106.0, 99.0, 105.0)
    assert desk.held() == 0.0
    assert (above.status, above.reason) == (OrderStatus.CANCELED, "cut to 10 of 15: 10 were left to close")


# --- one order does not spoil another -------------------------------------------------------------------------------


def test_one_unaffordable_order_poisons_nothing() -> None:
    desk = Desk(account="cash", cash=1_000.0)
    desk.buy(5, symbol="Y")
    desk.bars({"Y": (100.0, 100.0, 100.0, 100.0)})
    refused(desk.buy(1_000_000))
    exit_, entry = desk.sell(5, symbol="Y"), desk.buy(5)
    assert (exit_.status, entry.status) == (OrderStatus.ACCEPTED, OrderStatus.ACCEPTED)
    flat = (100.0, 100.0, 100.0, 100.0)
    desk.bars({"X": flat, "Y": flat})
    assert (desk.held("X"), desk.held("Y"), desk.ledger.cash) == (5.0, 0.0, 500.0)


def test_an_accepted_order_is_never_rejected_later() -> None:
    desk = Desk(cash=1_000.0)
    orders = [desk.buy(7, symbol=symbol) for symbol in ("X", "Y")]
    gap = (180.0, 181.0, 179.0, 180.0)
    desk.bars({"X": gap, "Y": gap})
    # 2 * 1,000 / 180 = 11.1 in all: 7 and then 4
    assert [order.filled_quantity for order in orders] == [7.0, 4.0]
    assert OrderStatus.REJECTED not in [order.status for order in orders]


def test_a_gap_is_valued_at_the_open_and_not_at_the_close_that_nobody_knows() -> None:
    desk = Desk(cash=1_000.0)
    desk.buy(10, symbol="Y")
    desk.bars({"Y": (100.0, 100.0, 100.0, 100.0)})
    desk.buy(10)
    # Y opens at 50 and closes at 500. Equity at the open: 0 + 500; free: 2 * 500 - 500 = 500: 5 of 10.
    desk.bars({"X": (100.0, 100.0, 100.0, 100.0), "Y": (50.0, 500.0, 50.0, 500.0)})
    assert desk.held("X") == 5.0
