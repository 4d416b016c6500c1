"""The risk gate: what it refuses, what always passes, when it halts."""

import math

import pytest

from engine.config import RiskConfig
from engine.trading.ledger import Ledger, Position
from engine.trading.orders import BUY, SELL, Order
from engine.trading.risk import RiskGate, drawdown

PRICES = {"X": 100.0, "Y": 50.0}


def gate(*, max_position: float | None = None, max_gross: float = 1.0, halt: float | None = None) -> RiskGate:
    limits = RiskConfig(max_position=max_position, max_gross=max_gross, max_drawdown_halt=halt)
    return RiskGate(limits, peak=10_000.0)


def order(side: int, quantity: float, symbol: str = "X", parent: Order | None = None) -> Order:
    return Order(id=1, symbol=symbol, side=side, quantity=quantity, parent=parent)


def ledger(cash: float = 10_000.0, **positions: float) -> Ledger:
    return Ledger(cash, positions={s: Position(q, PRICES.get(s, 1.0)) for s, q in positions.items()})


def verdict(gate: RiskGate, asked: Order, account: Ledger, *pending: Order) -> str:
    return gate.refuses(asked, ledger=account, prices=PRICES, open_orders=pending)


def test_a_position_up_to_the_limit_passes_and_one_share_more_does_not() -> None:
    limited = gate(max_position=0.3)
    assert verdict(limited, order(BUY, 30), ledger()) == ""
    reason = verdict(limited, order(BUY, 31), ledger())
    assert reason == "risk.max_position: X would be 0.3100 of equity, the limit is 0.3"


def test_what_is_held_and_what_is_pending_count() -> None:
    # 10 held of equity 10,000, 15 pending: 5 more are 0.30
    account = ledger(9_000.0, X=10)
    assert verdict(gate(max_position=0.3), order(BUY, 5), account, order(BUY, 15)) == ""
    assert "X would be 0.3100" in verdict(gate(max_position=0.3), order(BUY, 6), account, order(BUY, 15))
    assert verdict(gate(max_position=0.3), order(BUY, 20), account, order(BUY, 15, "Y")) == ""


def test_gross_counts_every_symbol_shorts_and_pending_orders() -> None:
    # X 40 long = 4,000, Y 40 short = 2,000; equity 8,000 + 4,000 - 2,000 = 10,000; pending 1,000
    account = ledger(8_000.0, X=40, Y=-40)
    assert verdict(gate(), order(BUY, 30), account, order(SELL, 20, "Y")) == ""
    reason = verdict(gate(), order(BUY, 31), account, order(SELL, 20, "Y"))
    assert reason == "risk.max_gross: gross exposure would be 1.0100 of equity, the limit is 1"


def test_pending_exits_and_legs_do_not_count() -> None:
    account = ledger(6_000.0, X=40)
    entry = order(BUY, 1)
    pending = (order(SELL, 40), order(SELL, 99, "Y", parent=entry))
    assert verdict(gate(), order(BUY, 60), account, *pending) == ""


def test_orders_that_reduce_always_pass() -> None:
    halted = gate(max_position=0.01, max_gross=0.01, halt=0.1)
    assert halted.observe(5_000.0)
    broke = ledger(-3_900.0, X=40)
    assert verdict(halted, order(SELL, 40), broke) == ""
    assert verdict(halted, order(SELL, 1), broke) == ""
    assert verdict(halted, order(BUY, 40), ledger(14_000.0, X=-40)) == ""


def test_an_order_through_zero_is_no_reducing_order() -> None:
    halted = gate(halt=0.1)
    halted.observe(5_000.0)
    assert verdict(halted, order(SELL, 41), ledger(6_000.0, X=40)).startswith("trading is halted")
    # 40 long to 110 short at 100 is 1.1 of 10,000
    assert "1.1000" in verdict(gate(), order(SELL, 150), ledger(6_000.0, X=40))


def test_bracket_legs_pass() -> None:
    entry = order(BUY, 10)
    assert verdict(gate(max_position=0.01, max_gross=0.01), order(SELL, 10, parent=entry), ledger()) == ""


@pytest.mark.parametrize("cash", [0.0, -5.0])
def test_without_equity_nothing_opens(cash: float) -> None:
    reason = verdict(gate(max_position=0.3), order(BUY, 1), ledger(cash))
    assert reason == f"there is no equity left to open a position with, found {cash:.2f}"


def test_a_symbol_without_a_price_is_refused() -> None:
    asked = order(BUY, 1, "NEW")
    for prices in (PRICES, {**PRICES, "NEW": math.nan}):
        reason = gate().refuses(asked, ledger=ledger(), prices=prices, open_orders=())
        assert reason == "NEW has no price yet; wait for its first bar"


def test_drawdown_is_the_loss_from_the_peak() -> None:
    assert drawdown(75.0, 100.0) == 0.25
    assert drawdown(120.0, 100.0) == 0.0
    assert drawdown(-20.0, 100.0) == pytest.approx(1.2)
    assert drawdown(5.0, 0.0) == 0.0


def test_a_drawdown_beyond_the_limit_halts_once_and_for_good() -> None:
    watched = gate(halt=0.25)
    assert watched.watches_equity
    assert not watched.observe(12_000.0)
    assert not watched.observe(9_000.0)  # 0.25 of the peak of 12,000: at the limit, not beyond
    assert watched.observe(8_999.0)
    assert watched.halted == "risk.max_drawdown_halt: drawdown 0.2501 of the peak 12000.00 passed the limit 0.25"
    assert not watched.watches_equity
    assert not watched.observe(20_000.0)
    reason = verdict(watched, order(BUY, 1), ledger())
    assert reason == f"trading is halted: {watched.halted}"


def test_without_a_limit_nothing_halts() -> None:
    unwatched = gate()
    assert not unwatched.watches_equity
    assert not unwatched.observe(1.0)


def test_a_margin_call_halts_whatever_the_run_file_says() -> None:
    gate = RiskGate(RiskConfig(), peak=100_000.0)
    assert not gate.observe(25_000.0, 100_000.0)
    assert gate.observe(24_999.0, 100_000.0)
    assert "margin call: equity 24999.00 is below 25% of the exposure of 100000.00" in gate.halted
