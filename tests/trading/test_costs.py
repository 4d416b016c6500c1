"""Commission, slippage and interest, by hand."""

import pytest
from desk import Desk

from engine.config import BrokerConfig, CommissionConfig
from engine.trading.costs import Costs, commission, interest, slipped
from engine.trading.orders import BUY, SELL


@pytest.mark.parametrize(
    ("quantity", "price", "bps", "per_share", "minimum", "expected"),
    [
        (200, 50.0, 1.0, 0.0, 0.0, 1.0),  # 10,000 * 1 / 10,000
        (200, 50.0, 0.0, 0.005, 0.0, 1.0),  # 200 * 0.005
        (200, 50.0, 2.0, 0.01, 0.0, 4.0),  # 10,000 * 2 / 10,000 + 200 * 0.01
        (200, 50.0, 1.0, 0.0, 5.0, 5.0),  # the minimum is more than 1
        (2000, 50.0, 1.0, 0.0, 5.0, 10.0),  # and less than 10
        (200, 50.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_commission(
    quantity: float, price: float, bps: float, per_share: float, minimum: float, expected: float
) -> None:
    assert commission(quantity, price, bps=bps, per_share=per_share, minimum=minimum) == pytest.approx(expected)


def test_slippage_moves_against_the_order() -> None:
    assert slipped(100.0, BUY, 20.0) == pytest.approx(100.2)  # 100 * (1 + 0.0020)
    assert slipped(100.0, SELL, 20.0) == pytest.approx(99.8)


def test_interest_is_simple_and_by_calendar_day() -> None:
    assert interest(36_500.0, 6.0, 1) == pytest.approx(6.0)  # 36,500 * 6% / 365
    assert interest(36_500.0, 6.0, 3) == pytest.approx(18.0)


def test_unit_cost_holds_slippage_and_proportional_commission() -> None:
    costs = Costs(commission_bps=10.0, commission_per_share=0.05, commission_minimum=7.0, slippage_bps=20.0)
    # 100 * 1.002 = 100.2; + 10 bps of it 0.1002; + 0.05
    assert costs.unit_cost(100.0) == pytest.approx(100.3502)
    assert costs.round_trip_bps == pytest.approx(60.0)  # twice 10 + 20


def test_costs_are_read_from_the_broker_section() -> None:
    section = BrokerConfig(
        commission=CommissionConfig(bps=1.0, per_share=0.005, minimum=2.0),
        slippage_bps=3.0,
        borrow_rate_pct=4.0,
        margin_rate_pct=5.0,
    )
    assert Costs.of(section) == Costs(
        commission_bps=1.0,
        commission_per_share=0.005,
        commission_minimum=2.0,
        slippage_bps=3.0,
        borrow_rate_pct=4.0,
        margin_rate_pct=5.0,
    )


def test_market_orders_slip_at_the_open_too() -> None:
    desk = Desk(slippage_bps=10.0, commission_bps=5.0)
    desk.buy(10)
    desk.bar(102.0, 103.0, 101.0, 102.0)
    desk.sell(10)
    desk.bar(104.0, 105.0, 103.0, 104.0)
    bought, sold = desk.fills
    assert (bought.reference_price, sold.reference_price) == (102.0, 104.0)
    assert bought.price == pytest.approx(102.102)  # 102 * 1.001
    assert sold.price == pytest.approx(103.896)  # 104 * 0.999
    assert bought.slippage == pytest.approx(1.02)  # 0.102 * 10
    assert sold.slippage == pytest.approx(1.04)
    assert bought.commission == pytest.approx(0.51051)  # 1,021.02 * 5 / 10,000
    assert sold.commission == pytest.approx(0.51948)
    # 10,000 - 1,021.02 - 0.51051 + 1,038.96 - 0.51948
    assert desk.ledger.cash == pytest.approx(10_016.91001)


def test_a_minimum_is_charged_at_every_fill() -> None:
    desk = Desk(commission_bps=1.0, commission_minimum=5.0)
    desk.buy(1)
    desk.flat_bar()
    desk.sell(1)
    desk.flat_bar()
    assert desk.ledger.cash == pytest.approx(9_990.0)
