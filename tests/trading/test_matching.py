"""Every order type on either side against one bar."""

import math

import pytest
from desk import Desk

from engine.trading.matching import paid_price
from engine.trading.orders import BUY, SELL, OrderStatus

BAR = (100.0, 110.0, 90.0, 105.0)

# side, type, limit, stop, price at which it fills in BAR (None: it does not)
CASES = [
    (BUY, "market", None, None, 100.0),
    (SELL, "market", None, None, 100.0),
    # Limits: bettered by the open, at the open, touched exactly, inside, missed by a cent.
    (BUY, "limit", 101.0, None, 100.0),
    (BUY, "limit", 100.0, None, 100.0),
    (BUY, "limit", 95.0, None, 95.0),
    (BUY, "limit", 90.0, None, 90.0),
    (BUY, "limit", 89.99, None, None),
    (SELL, "limit", 99.0, None, 100.0),
    (SELL, "limit", 100.0, None, 100.0),
    (SELL, "limit", 104.0, None, 104.0),
    (SELL, "limit", 110.0, None, 110.0),
    (SELL, "limit", 110.01, None, None),
    # Stops: passed by the open (a gap fills at the open, not at the stop), at the open, inside, touched, missed.
    (BUY, "stop", None, 98.0, 100.0),
    (BUY, "stop", None, 100.0, 100.0),
    (BUY, "stop", None, 107.0, 107.0),
    (BUY, "stop", None, 110.0, 110.0),
    (BUY, "stop", None, 110.01, None),
    (SELL, "stop", None, 103.0, 100.0),
    (SELL, "stop", None, 100.0, 100.0),
    (SELL, "stop", None, 93.0, 93.0),
    (SELL, "stop", None, 90.0, 90.0),
    (SELL, "stop", None, 89.99, None),
    # Stop-limits triggered at the open: a limit from there on.
    (BUY, "stop_limit", 101.0, 98.0, 100.0),
    (BUY, "stop_limit", 97.0, 96.0, 97.0),
    (BUY, "stop_limit", 89.0, 88.0, None),
    (SELL, "stop_limit", 99.0, 103.0, 100.0),
    (SELL, "stop_limit", 104.0, 106.0, 104.0),
    (SELL, "stop_limit", 111.0, 112.0, None),
    # Triggered inside the bar: at the stop when the limit allows that, else not in this bar.
    (BUY, "stop_limit", 108.0, 107.0, 107.0),
    (BUY, "stop_limit", 107.0, 107.0, 107.0),
    (BUY, "stop_limit", 106.0, 107.0, None),
    (SELL, "stop_limit", 92.0, 93.0, 93.0),
    (SELL, "stop_limit", 93.0, 93.0, 93.0),
    (SELL, "stop_limit", 94.0, 93.0, None),
    # Never triggered, though the limit is in the range.
    (BUY, "stop_limit", 112.0, 111.0, None),
    (SELL, "stop_limit", 88.0, 89.0, None),
]


def desk_holding_ten(**costs: float) -> Desk:
    """So that a sell closes and a buy adds."""
    desk = Desk(cash=100_000.0, **costs)
    desk.buy(10)
    desk.flat_bar()
    return desk


def prices(limit: float | None, stop: float | None) -> dict[str, float]:
    given = {"limit_price": limit, "stop_price": stop}
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize(("side", "type_", "limit", "stop", "expected"), CASES)
def test_where_an_order_fills(
    side: int, type_: str, limit: float | None, stop: float | None, expected: float | None
) -> None:
    desk = desk_holding_ten()
    order = desk.order(side, 10, type_, **prices(limit, stop))
    desk.bar(*BAR)
    assert desk.fill_prices[1:] == ([] if expected is None else [expected])
    assert order.status is (OrderStatus.ACCEPTED if expected is None else OrderStatus.FILLED)


@pytest.mark.parametrize(("side", "type_", "limit", "stop", "expected"), CASES)
def test_slippage_is_against_the_order_and_never_past_its_limit(
    side: int, type_: str, limit: float | None, stop: float | None, expected: float | None
) -> None:
    desk = desk_holding_ten(slippage_bps=50.0)
    desk.order(side, 10, type_, **prices(limit, stop))
    desk.bar(*BAR)
    if expected is None:
        assert len(desk.fills) == 1
        return
    slipped = expected * (1.005 if side == BUY else 0.995)
    if limit is not None:
        slipped = min(slipped, limit) if side == BUY else max(slipped, limit)
    assert desk.fill_prices[1] == pytest.approx(slipped)


def test_paid_price_by_hand() -> None:
    assert paid_price(100.0, BUY, math.nan, 50.0) == pytest.approx(100.5)
    assert paid_price(100.0, SELL, math.nan, 50.0) == pytest.approx(99.5)
    assert paid_price(100.0, BUY, 100.3, 50.0) == 100.3
    assert paid_price(100.0, SELL, 99.8, 50.0) == 99.8


@pytest.mark.parametrize(
    ("side", "limit", "stop", "second_bar", "expected"),
    [
        # Triggered inside the first bar with the limit out of reach: a limit from the next bar on.
        (BUY, 106.0, 107.0, (108.0, 109.0, 105.0, 108.0), 106.0),
        (BUY, 106.0, 107.0, (104.0, 106.0, 103.0, 104.0), 104.0),  # gap through the limit: the open, below the stop
        (SELL, 94.0, 93.0, (92.0, 95.0, 91.0, 92.0), 94.0),
        (SELL, 94.0, 93.0, (96.0, 97.0, 95.0, 96.0), 96.0),
    ],
)
def test_a_triggered_stop_limit_stays_triggered(
    side: int, limit: float, stop: float, second_bar: tuple[float, float, float, float], expected: float
) -> None:
    desk = desk_holding_ten()
    order = desk.order(side, 10, "stop_limit", limit_price=limit, stop_price=stop)
    desk.bar(*BAR)
    assert order.triggered
    desk.bar(*second_bar)
    assert desk.fill_prices[1:] == [expected]


def test_a_stop_limit_triggered_by_a_gap_waits_for_its_limit() -> None:
    desk = desk_holding_ten()
    # The open gaps to 100, over stop and limit; the bar comes back to 97.
    desk.buy(5, "stop_limit", stop_price=96.0, limit_price=97.0)
    desk.bar(100.0, 101.0, 98.0, 100.0)
    assert len(desk.fills) == 1
    desk.bar(100.0, 101.0, 97.0, 100.0)
    assert desk.fill_prices[1:] == [97.0]


@pytest.mark.parametrize("first", ["stop", "limit"])
def test_inside_a_bar_stops_come_before_limits_whatever_the_submission_order(first: str) -> None:
    desk = desk_holding_ten()
    if first == "stop":
        desk.sell(10, "stop", stop_price=92.0, group=7)
    desk.sell(10, "limit", limit_price=108.0, group=7)
    if first == "limit":
        desk.sell(10, "stop", stop_price=92.0, group=7)
    desk.bar(*BAR)
    assert desk.fill_prices[1:] == [92.0]


def test_a_target_that_the_open_betters_comes_before_a_stop_inside_the_bar() -> None:
    desk = desk_holding_ten()
    desk.sell(10, "stop", stop_price=92.0, group=7)
    desk.sell(10, "limit", limit_price=99.0, group=7)
    desk.bar(*BAR)
    assert desk.fill_prices[1:] == [100.0]
