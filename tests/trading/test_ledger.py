"""The account: average price, cash, interest, equity, by hand."""

import pytest
from desk import Desk
from hypothesis import given
from hypothesis import strategies as st

from engine.trading.costs import Costs
from engine.trading.ledger import Ledger, Position, position_after
from engine.trading.orders import BUY, SELL, Fill


def filled(side: int, quantity: float, price: float, commission: float = 0.0, symbol: str = "X") -> Fill:
    return Fill(
        order_id=1,
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=price,
        reference_price=price,
        commission=commission,
        decided=0,
        time=1,
    )


@pytest.mark.parametrize(
    ("quantity", "average", "signed", "price", "expected"),
    [
        (0.0, 0.0, 10.0, 100.0, (10.0, 100.0)),
        (10.0, 100.0, 30.0, 104.0, (40.0, 103.0)),  # (10 * 100 + 30 * 104) / 40
        (40.0, 103.0, -15.0, 120.0, (25.0, 103.0)),  # a part sold leaves the average
        (25.0, 103.0, -25.0, 90.0, (0.0, 0.0)),
        (10.0, 100.0, -15.0, 110.0, (-5.0, 110.0)),  # through zero: a new position at its own price
        (-10.0, 100.0, -10.0, 90.0, (-20.0, 95.0)),
        (-20.0, 95.0, 5.0, 80.0, (-15.0, 95.0)),
        (-15.0, 95.0, 20.0, 99.0, (5.0, 99.0)),
        (0.3, 10.0, -0.1 - 0.2, 12.0, (0.0, 0.0)),  # 0.1 + 0.2 is not 0.3 in floats, and nothing is left all the same
    ],
)
def test_position_after(
    quantity: float, average: float, signed: float, price: float, expected: tuple[float, float]
) -> None:
    assert position_after(quantity, average, signed, price) == pytest.approx(expected)


def test_cash_pays_price_and_commission() -> None:
    ledger = Ledger(1_000.0)
    ledger.apply(filled(BUY, 5, 100.0, commission=1.5))
    assert ledger.cash == pytest.approx(498.5)
    ledger.apply(filled(SELL, 2, 110.0, commission=1.0))
    assert ledger.cash == pytest.approx(717.5)  # 498.5 + 220 - 1
    assert ledger.positions["X"] == Position(3.0, 100.0)
    assert ledger.cash_history == [(1, pytest.approx(498.5)), (1, pytest.approx(717.5))]


def test_three_tenths_bought_in_three_parts_are_gone_when_sold_at_once() -> None:
    ledger = Ledger(1_000.0)
    for _ in range(3):
        ledger.apply(filled(BUY, 0.1, 10.0))
    assert ledger.quantity("X") == 0.3
    ledger.apply(filled(SELL, 0.3, 10.0))
    assert ledger.quantity("X") == 0.0
    assert not ledger.borrows


def test_equity_and_gross_mark_every_position() -> None:
    ledger = Ledger(1_000.0, positions={"X": Position(5.0, 90.0), "Y": Position(-2.0, 60.0), "Z": Position(0.0, 0.0)})
    prices = {"X": 100.0, "Y": 50.0}  # a symbol that is not held needs no price
    assert ledger.equity(prices) == pytest.approx(1_400.0)  # 1,000 + 500 - 100
    assert ledger.gross(prices) == pytest.approx(600.0)


def test_interest_on_negative_cash_and_on_shorts_at_market() -> None:
    ledger = Ledger(-7_300.0, positions={"X": Position(100.0, 90.0), "Y": Position(-73.0, 60.0)})
    costs = Costs(margin_rate_pct=6.0, borrow_rate_pct=3.0)
    # 7,300 * 6% / 365 = 1.20 a day; the short is worth 73 * 50 = 3,650 now, not 4,380: 3,650 * 3% / 365 = 0.30 a day
    due = ledger.charge_interest(9, 3, {"X": 100.0, "Y": 50.0}, costs)
    assert due == pytest.approx(4.5)
    assert ledger.interest_paid == pytest.approx(4.5)
    assert ledger.cash_history == [(9, pytest.approx(-7_304.5))]


def test_no_interest_without_debt() -> None:
    ledger = Ledger(0.0, positions={"X": Position(100.0, 90.0)})
    assert not ledger.borrows
    assert ledger.charge_interest(9, 3, {"X": 100.0}, Costs(margin_rate_pct=6.0, borrow_rate_pct=3.0)) == 0.0
    assert ledger.cash_history == []


def test_a_weekend_costs_three_days_of_margin_interest() -> None:
    desk = Desk(margin_rate_pct=7.3)
    desk.buy(150)
    desk.flat_bar()  # Friday: cash -5,000
    desk.flat_bar(days=3)  # Monday
    # 5,000 * 7.3% * 3 / 365
    assert desk.ledger.interest_paid == pytest.approx(3.0)
    desk.flat_bar()
    # 5,003 * 7.3% / 365 = 1.0006 more
    assert desk.ledger.interest_paid == pytest.approx(4.0006)


def test_a_short_pays_borrow_interest_at_the_open_that_ends_the_night() -> None:
    desk = Desk(short=True, borrow_rate_pct=3.65)
    desk.sell(50)
    desk.flat_bar()
    desk.bar(120.0, 150.0, 119.0, 150.0)
    assert desk.ledger.interest_paid == pytest.approx(0.6)  # 50 * 120 * 3.65% / 365, not at the close of 150


def test_a_debt_repaid_within_the_session_costs_nothing() -> None:
    desk = Desk(margin_rate_pct=7.3)
    desk.buy(150)
    desk.flat_bar(ends=False)
    desk.sell(150)
    desk.flat_bar(same_session=True)
    desk.flat_bar(days=3)
    assert desk.ledger.interest_paid == 0.0


def test_interest_is_charged_once_a_session_on_minute_bars() -> None:
    desk = Desk(margin_rate_pct=7.3)
    desk.buy(150)
    desk.flat_bar(ends=False)
    desk.flat_bar(same_session=True)
    for number in range(3):
        desk.flat_bar(ends=number == 2, same_session=number > 0)
    assert desk.ledger.interest_paid == pytest.approx(1.0)  # one night


@given(st.lists(st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 50), st.floats(1.0, 500.0)), max_size=30))
def test_equity_moves_by_realised_and_unrealised_profit_only(trades: list[tuple[int, int, float]]) -> None:
    ledger, realised = Ledger(1_000.0), 0.0
    for side, quantity, price in trades:
        position = ledger.positions.get("X", Position())
        closed = min(quantity, abs(position.quantity)) if position.quantity * side < 0.0 else 0.0
        realised += -side * closed * (price - position.average_price)
        ledger.apply(filled(side, quantity, price))
    position = ledger.positions.get("X", Position())
    unrealised = position.quantity * (77.0 - position.average_price)
    assert ledger.equity({"X": 77.0}) == pytest.approx(1_000.0 + realised + unrealised, abs=1e-6)
