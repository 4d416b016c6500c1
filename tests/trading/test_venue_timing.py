"""When an order may fill, and how long it lives."""

import pytest
from desk import Desk

from engine.trading.orders import OrderStatus


def test_an_order_fills_at_the_next_bar_and_not_at_its_own() -> None:
    desk = Desk()
    desk.bar(100.0, 101.0, 99.0, 100.0)
    desk.buy(1)
    desk.bar(102.0, 103.0, 101.0, 102.0)
    (fill,) = desk.fills
    assert (fill.decided, fill.time, fill.price) == (1, 2, 102.0)


@pytest.mark.parametrize("type_", ["market", "limit", "stop", "stop_limit"])
def test_no_type_fills_at_a_bar_that_is_not_after_its_decision(type_: str) -> None:
    # Also when that bar comes to the venue late: trap 2 of a broker that checks the time of market orders only.
    prices = {
        "market": {},
        "limit": {"limit_price": 101.0},
        "stop": {"stop_price": 99.0},
        "stop_limit": {"stop_price": 99.0, "limit_price": 101.0},
    }[type_]
    desk = Desk()
    order = desk.buy(1, type_, decided=2, **prices)
    desk.flat_bar()
    desk.flat_bar()
    assert desk.fills == []
    assert order.alive
    desk.flat_bar()
    assert [fill.time for fill in desk.fills] == [3]


def test_with_several_symbols_each_order_waits_for_its_own_symbols_bar() -> None:
    desk = Desk()
    desk.bars({"X": (100.0, 101.0, 99.0, 100.0)})
    on_x, on_y = desk.buy(1), desk.buy(1, symbol="Y")
    desk.bars({"Y": (50.0, 51.0, 49.0, 50.0)})  # X has no bar at this time
    assert (on_x.status, on_y.status) == (OrderStatus.ACCEPTED, OrderStatus.FILLED)
    desk.bars({"X": (103.0, 104.0, 102.0, 103.0)})
    assert [(f.symbol, f.time, f.price) for f in desk.fills] == [("Y", 2, 50.0), ("X", 3, 103.0)]


def test_a_good_till_cancelled_order_lives_on() -> None:
    desk = Desk()
    order = desk.buy(1, "limit", limit_price=90.0)
    for _ in range(5):
        desk.flat_bar()
    desk.bar(95.0, 96.0, 89.0, 95.0)
    assert order.status is OrderStatus.FILLED
    assert desk.fill_prices == [90.0]


def test_a_day_order_expires_with_the_session_of_its_first_bar() -> None:
    desk = Desk()
    order = desk.buy(1, "limit", limit_price=90.0, time_in_force="day")
    (event,) = desk.flat_bar()
    assert event == (order, None)
    assert order.status is OrderStatus.EXPIRED
    assert order.reason == "day order: its session ended"
    desk.bar(89.0, 89.0, 89.0, 89.0)
    assert desk.fills == []


def test_a_day_order_may_fill_on_the_last_bar_of_its_session() -> None:
    desk = Desk()
    order = desk.buy(1, "limit", limit_price=90.0, time_in_force="day")
    desk.bar(95.0, 96.0, 90.0, 95.0)
    assert order.status is OrderStatus.FILLED


def test_a_day_order_decided_at_the_last_bar_lives_in_the_next_session() -> None:
    desk = Desk()
    desk.flat_bar(ends=True)
    order = desk.buy(1, "limit", limit_price=90.0, time_in_force="day")
    desk.flat_bar(ends=False)
    desk.flat_bar(ends=False, same_session=True)
    assert order.alive
    desk.flat_bar(ends=True, same_session=True)
    assert order.status is OrderStatus.EXPIRED


def test_a_day_order_expires_at_the_next_session_when_the_last_bar_never_came() -> None:
    desk = Desk()
    order = desk.buy(1, "limit", limit_price=90.0, time_in_force="day")
    desk.flat_bar(ends=False)
    events = desk.bar(89.0, 89.0, 89.0, 89.0, ends=False)  # would fill it at once
    assert order.status is OrderStatus.EXPIRED
    assert desk.fills == []
    assert [event.order for event in events] == [order]


def test_a_day_order_on_a_symbol_without_a_bar_that_day_expires_all_the_same() -> None:
    desk = Desk()
    order = desk.buy(1, time_in_force="day")
    desk.bars({"Y": (100.0, 100.0, 100.0, 100.0)})  # the session passes; X is not traded in it
    assert order.status is OrderStatus.EXPIRED
    desk.flat_bar()
    assert desk.fills == []


def test_an_order_cancelled_where_it_was_given_never_fills() -> None:
    desk = Desk()
    order = desk.buy(1)
    assert desk.venue.cancel(order) == [(order, None)]
    assert order.status is OrderStatus.CANCELED
    assert desk.flat_bar() == []
    assert desk.fills == []


def test_cancelling_twice_or_after_the_fill_changes_nothing() -> None:
    desk = Desk()
    order = desk.buy(1)
    desk.flat_bar()
    assert desk.venue.cancel(order) == []
    assert order.status is OrderStatus.FILLED


def test_a_cancelled_order_gives_its_cash_back() -> None:
    desk = Desk(account="cash", cash=1_000.0)
    first = desk.buy(10)
    desk.venue.cancel(first)
    assert desk.buy(10).status is OrderStatus.ACCEPTED


def test_a_later_bar_changes_no_earlier_fill() -> None:
    def run(last_close: float) -> list[object]:
        desk = Desk()
        desk.buy(3, "limit", limit_price=99.0)
        desk.bar(100.0, 101.0, 98.0, 100.0)
        desk.bar(100.0, max(100.0, last_close), min(100.0, last_close), last_close)
        return list(desk.fills)

    assert run(100.0) == run(1.0) == run(900.0)
