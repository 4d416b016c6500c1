"""Brackets and groups: legs sleep, wake, replace one another, and end."""

import pytest
from desk import Desk

from engine.trading.orders import BUY, SELL, OrderStatus

ACCEPTED, CANCELED, EXPIRED = OrderStatus.ACCEPTED, OrderStatus.CANCELED, OrderStatus.EXPIRED
FILLED, HELD, REJECTED = OrderStatus.FILLED, OrderStatus.HELD, OrderStatus.REJECTED


def test_legs_sleep_until_the_entry_fills() -> None:
    desk = Desk()
    entry, stop, target = desk.bracket(10, stop=90.0, target=110.0, type="limit", limit_price=95.0)
    assert (stop.status, target.status) == (HELD, HELD)
    desk.bar(100.0, 120.0, 96.0, 100.0)  # over the target, but nothing is held
    assert desk.fills == []
    assert (entry.status, stop.status, target.status) == (ACCEPTED, HELD, HELD)


def test_legs_reserve_nothing_while_they_sleep() -> None:
    desk = Desk()
    desk.buy(10)
    desk.flat_bar()
    desk.bracket(5, stop=90.0, target=110.0)
    assert desk.sell(10).status is ACCEPTED


def test_the_stop_works_on_the_entry_bar() -> None:
    desk = Desk()
    entry, stop, target = desk.bracket(10, stop=95.0, target=120.0)
    events = desk.bar(100.0, 101.0, 94.0, 96.0)
    assert desk.fill_prices == [100.0, 95.0]
    assert (entry.status, stop.status, target.status) == (FILLED, FILLED, CANCELED)
    assert [event.order for event in events] == [entry, stop, target, stop, target]


def test_the_target_works_on_the_entry_bar_of_an_entry_at_the_open() -> None:
    desk = Desk()
    _, stop, target = desk.bracket(10, stop=90.0, target=105.0)
    desk.bar(100.0, 106.0, 99.0, 100.0)
    assert desk.fill_prices == [100.0, 105.0]
    assert (stop.status, stop.reason) == (CANCELED, f"order {target.id} of its group was filled")


def test_stop_and_target_in_the_range_of_one_bar_stop() -> None:
    desk = Desk()
    desk.bracket(10, stop=95.0, target=105.0)
    desk.bar(100.0, 106.0, 94.0, 105.0)
    assert desk.fill_prices == [100.0, 95.0]


def test_an_entry_inside_the_bar_may_be_stopped_but_reaches_no_target_in_it() -> None:
    desk = Desk()
    _, _, target = desk.bracket(10, stop=90.0, target=105.0, type="limit", limit_price=95.0)
    desk.bar(100.0, 106.0, 94.0, 100.0)  # nobody knows whether 106 came before 95
    assert desk.fill_prices == [95.0]
    assert target.status is ACCEPTED
    desk.bar(104.0, 106.0, 103.0, 104.0)
    assert desk.fill_prices == [95.0, 105.0]


def test_an_entry_inside_the_bar_is_stopped_in_it() -> None:
    desk = Desk()
    desk.bracket(10, stop=90.0, target=105.0, type="limit", limit_price=95.0)
    desk.bar(100.0, 101.0, 89.0, 100.0)
    assert desk.fill_prices == [95.0, 90.0]
    by_stop = Desk()
    by_stop.bracket(10, stop=98.0, target=120.0, type="stop", stop_price=104.0)
    by_stop.bar(100.0, 105.0, 97.0, 100.0)
    assert by_stop.fill_prices == [104.0, 98.0]


def test_an_entry_that_gaps_below_its_stop_is_stopped_where_it_entered() -> None:
    # Not at 95, a price that this bar never saw.
    desk = Desk()
    desk.bracket(10, stop=95.0, target=120.0)
    desk.bar(90.0, 92.0, 88.0, 91.0)
    assert desk.fill_prices == [90.0, 90.0]


def test_an_entry_that_gaps_over_its_target_leaves_where_it_entered() -> None:
    desk = Desk()
    desk.bracket(10, stop=90.0, target=105.0)
    desk.bar(110.0, 112.0, 109.0, 110.0)
    assert desk.fill_prices == [110.0, 110.0]


@pytest.mark.parametrize(("side", "stop", "target"), [(BUY, 100.0, 100.0), (BUY, 101.0, 100.0), (SELL, 99.0, 100.0)])
def test_a_target_lies_beyond_its_stop(side: int, stop: float, target: float) -> None:
    desk = Desk(short=True)
    _, first, second = desk.bracket(10, stop=stop, target=target, side=side)
    assert (first.status, second.status) == (HELD, REJECTED)
    assert second.reason.startswith("the target lies beyond the stop, in the direction of the entry: found")


def test_a_bracket_is_one_order_in_the_sequence_of_matching() -> None:
    """Its legs follow it, the stop first, whatever was given between them."""
    desk = Desk()
    entry, other = desk.buy(10), desk.buy(1)
    target = desk.sell(10, "limit", limit_price=110.0, parent=entry)
    stop = desk.sell(10, "stop", stop_price=90.0, parent=entry)
    assert list(desk.venue.open_orders.values()) == [entry, stop, target, other]


def test_a_short_bracket_mirrors_a_long_one() -> None:
    desk = Desk(short=True)
    desk.bracket(10, stop=105.0, target=90.0, side=SELL)
    desk.bar(100.0, 106.0, 89.0, 100.0)
    assert desk.fill_prices == [100.0, 105.0]
    assert desk.held() == 0.0


def test_a_stop_limit_leg_triggered_on_the_entry_bar_stays_triggered() -> None:
    desk = Desk()
    entry = desk.buy(10, "limit", limit_price=95.0)
    leg = desk.sell(10, "stop_limit", stop_price=92.0, limit_price=93.0, parent=entry)
    desk.bar(100.0, 101.0, 91.0, 92.0)  # enters at 95, triggers at 92; the limit of 93 is over the stop
    assert desk.fill_prices == [95.0]
    assert leg.triggered
    desk.bar(92.5, 94.0, 92.4, 93.0)
    assert desk.fill_prices == [95.0, 93.0]


def test_a_stop_limit_leg_that_its_entry_has_passed_is_a_limit_from_the_next_bar_on() -> None:
    desk = Desk()
    entry = desk.buy(10, "limit", limit_price=90.0)
    leg = desk.sell(10, "stop_limit", stop_price=95.0, limit_price=93.0, parent=entry)
    desk.bar(97.0, 98.0, 89.0, 90.0)  # not sold at 95: that was before the entry at 90
    assert desk.fill_prices == [90.0]
    assert leg.triggered
    desk.bar(91.0, 94.0, 90.0, 91.0)
    assert desk.fill_prices == [90.0, 93.0]


def test_cancelling_the_entry_cancels_its_legs() -> None:
    desk = Desk()
    entry, stop, target = desk.bracket(10, stop=90.0, target=110.0, type="limit", limit_price=95.0)
    events = desk.venue.cancel(entry)
    assert {event.order for event in events} == {entry, stop, target}
    assert len(events) == 3
    assert [o.status for o in (entry, stop, target)] == [CANCELED] * 3
    assert desk.venue.open_orders == {}


def test_an_expired_entry_takes_its_legs_along() -> None:
    desk = Desk()
    entry, stop, target = desk.bracket(10, stop=90.0, target=110.0, type="limit", limit_price=95.0, time_in_force="day")
    desk.flat_bar()
    assert [o.status for o in (entry, stop, target)] == [EXPIRED, CANCELED, CANCELED]
    assert stop.reason == f"order {entry.id} ended: day order: its session ended"


def test_legs_of_a_rejected_entry_are_rejected() -> None:
    desk = Desk()
    entry, stop, target = desk.bracket(1_000, stop=90.0, target=110.0)
    assert [o.status for o in (entry, stop, target)] == [REJECTED] * 3
    assert stop.reason == "its parent was rejected"


@pytest.mark.parametrize("end", ["canceled", "filled", "refused"])
def test_a_leg_given_after_its_entry_ended_does_not_wait_for_ever(end: str) -> None:
    desk = Desk()
    entry = desk.buy(10)
    if end == "canceled":
        desk.venue.cancel(entry)
    elif end == "filled":
        desk.flat_bar()
    else:
        entry.status = OrderStatus.REFUSED  # by the risk gate
    leg = desk.sell(10, "stop", stop_price=90.0, parent=entry)
    assert (leg.status, leg.reason) == (REJECTED, f"its parent was {end}")


def test_a_leg_closes_its_entry_and_nothing_else() -> None:
    desk = Desk()
    entry = desk.buy(10)
    same_side = desk.buy(10, "limit", limit_price=90.0, parent=entry)
    assert same_side.reason == "a leg closes its parent: expected a sell of X, found a buy of X"
    other = desk.sell(10, "limit", limit_price=110.0, parent=entry, symbol="Y")
    assert other.reason == "a leg closes its parent: expected a sell of X, found a sell of Y"


def test_legs_shrink_with_an_entry_that_was_cut() -> None:
    desk = Desk(account="cash", cash=1_000.0)
    entry, stop, target = desk.bracket(10, stop=90.0, target=200.0)
    desk.bar(130.0, 131.0, 129.0, 130.0)
    assert entry.filled_quantity == 7.0
    assert (stop.status, stop.remaining, target.remaining) == (ACCEPTED, 7.0, 7.0)
    # What was decided stays as it was decided.
    assert (stop.quantity, target.quantity) == (10.0, 10.0)
    desk.bar(80.0, 81.0, 79.0, 80.0)
    assert (desk.held(), stop.status) == (0.0, OrderStatus.FILLED)


def test_a_leg_is_what_alpaca_takes_with_its_entry() -> None:
    desk = Desk()
    entry = desk.buy(10)
    partial = desk.sell(4, "limit", limit_price=105.0, parent=entry)
    assert partial.reason == "a leg closes its whole entry: expected 10, found 4"
    assert "found a market order" in desk.sell(10, parent=entry).reason
    day = desk.sell(10, "stop", stop_price=90.0, parent=entry, time_in_force="day")
    assert day.reason.startswith("a leg lives as long as its entry may: expected gtc, found day")
    assert desk.sell(10, "limit", limit_price=105.0, parent=entry).status is HELD
    second = desk.sell(10, "limit", limit_price=110.0, parent=entry)
    assert second.reason == "an entry has at most one target (limit) and one stop"
    assert desk.sell(10, "stop_limit", stop_price=95.0, limit_price=94.0, parent=entry).status is HELD
    assert desk.sell(10, "stop", stop_price=90.0, parent=entry).status is REJECTED


def test_a_leg_comes_with_its_entry_and_not_later() -> None:
    desk = Desk()
    entry = desk.buy(10, "limit", limit_price=90.0)
    desk.flat_bar()
    late = desk.sell(10, "stop", stop_price=80.0, parent=entry)
    assert late.status is REJECTED
    assert late.reason.startswith("a leg is given with its entry, on the same bar")


def test_cancelling_one_leg_cancels_its_partner_and_leaves_the_position() -> None:
    desk = Desk()
    _, stop, target = desk.bracket(10, stop=90.0, target=110.0)
    desk.flat_bar()
    desk.venue.cancel(stop)
    assert (stop.status, target.status) == (CANCELED, CANCELED)
    assert desk.sell(10).status is ACCEPTED


def test_day_legs_live_in_the_session_that_wakes_them() -> None:
    desk = Desk()
    entry = desk.buy(10, "limit", limit_price=95.0, time_in_force="day")
    leg = desk.sell(10, "stop", stop_price=80.0, parent=entry, time_in_force="day")
    desk.flat_bar(ends=False)
    assert leg.status is HELD
    desk.bar(96.0, 97.0, 94.0, 95.0, ends=False, same_session=True)
    assert leg.status is ACCEPTED
    desk.flat_bar(95.0, same_session=True)
    assert leg.status is EXPIRED


def test_a_day_leg_woken_by_the_last_bar_of_a_session_ends_with_it() -> None:
    desk = Desk()
    entry = desk.buy(10, time_in_force="day")
    leg = desk.sell(10, "stop", stop_price=80.0, parent=entry, time_in_force="day")
    desk.flat_bar(ends=True)
    assert (entry.status, leg.status) == (FILLED, EXPIRED)


def test_of_two_grouped_entries_the_first_fill_cancels_the_other() -> None:
    desk = Desk()
    low = desk.buy(5, "limit", limit_price=95.0, group=4)
    high = desk.buy(5, "stop", stop_price=105.0, group=4)
    desk.bar(100.0, 101.0, 94.0, 100.0)
    assert (low.status, high.status) == (FILLED, CANCELED)
    desk.bar(110.0, 111.0, 109.0, 110.0)
    assert desk.held() == 5.0


def test_a_grouped_order_that_was_cut_ends_its_partner_too() -> None:
    # A partner left behind would trade a position that it was never meant for.
    desk = Desk(account="cash", cash=1_000.0)
    breakout = desk.buy(9, "stop", stop_price=105.0, group=4)
    dip = desk.buy(1, "limit", limit_price=50.0, group=4)
    desk.bar(160.0, 161.0, 159.0, 160.0)  # 1,000 / 160 = 6.25
    assert (breakout.status, breakout.filled_quantity, dip.status) == (CANCELED, 6.0, CANCELED)


def test_an_expired_day_leg_leaves_its_partner_alive() -> None:
    desk = Desk()
    desk.buy(10)
    desk.flat_bar()
    stop = desk.sell(10, "stop", stop_price=90.0, group=4)
    target = desk.sell(10, "limit", limit_price=150.0, group=4, time_in_force="day")
    desk.flat_bar()
    assert (stop.status, target.status) == (ACCEPTED, EXPIRED)
