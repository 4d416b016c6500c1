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


# --- limits of one order --------------------------------------------------------------------------------------------


def limited(**limits: object) -> RiskGate:
    return RiskGate(RiskConfig.model_validate(limits), peak=10_000.0)


def priced(side: int, quantity: float, **prices: float) -> Order:
    kind = {("limit_price",): "limit", ("stop_price",): "stop"}.get(tuple(prices), "stop_limit")
    return Order(id=1, symbol="X", side=side, quantity=quantity, type=kind, **prices)  # type: ignore[arg-type]


def test_an_order_up_to_the_largest_passes_and_one_share_more_does_not() -> None:
    # 30 of X at the last close of 100
    small = limited(max_order_notional=3_000.0)
    assert verdict(small, order(BUY, 30), ledger()) == ""
    reason = verdict(small, order(BUY, 31), ledger())
    assert reason == "risk.max_order_notional: an order of 3100.00 in X was asked for, the limit is 3000.00"


def test_the_largest_order_is_of_one_order_and_of_no_reducing_one() -> None:
    small = limited(max_order_notional=3_000.0)
    account = ledger(5_000.0, X=50)
    assert verdict(small, order(BUY, 10), account, order(BUY, 30, "Y")) == ""
    assert verdict(small, order(SELL, 50), account) == ""
    assert "an order of 5100.00" in verdict(small, order(SELL, 51), account)


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("name", ["limit_price", "stop_price"])
def test_a_price_up_to_the_collar_passes_and_one_beyond_does_not(side: int, name: str) -> None:
    # 5 % of 100 is 95 to 105
    collared = limited(price_collar=0.05)
    for price in (95.0, 105.0):
        assert verdict(collared, priced(side, 1, **{name: price}), ledger()) == ""
    for price in (94.99, 105.01):
        reason = verdict(collared, priced(side, 1, **{name: price}), ledger())
        assert reason == (
            f"risk.price_collar: the {name[:-6]} price {price:g} of X is 0.0501 from the last close 100, "
            "the limit is 0.05"
        )


def test_the_collar_is_for_both_prices_for_reducing_orders_and_for_legs_but_not_for_market_orders() -> None:
    collared = limited(price_collar=0.05)
    account = ledger(5_000.0, X=50)
    assert "the stop price 110" in verdict(collared, priced(BUY, 1, limit_price=104.0, stop_price=110.0), ledger())
    assert "the limit price 110" in verdict(collared, priced(SELL, 50, limit_price=110.0), account)
    leg = priced(SELL, 1, stop_price=90.0)
    leg.parent = order(BUY, 1)
    assert "the stop price 90" in verdict(collared, leg, ledger())
    assert verdict(collared, order(SELL, 50), account) == ""
    assert verdict(limited(), priced(SELL, 50, limit_price=900.0), account) == ""


def test_a_collar_needs_a_price() -> None:
    leg = Order(id=2, symbol="NEW", side=SELL, quantity=1, type="stop", stop_price=9.0, parent=order(BUY, 1, "NEW"))
    assert verdict(limited(price_collar=0.05), leg, ledger()) == "NEW has no price yet; wait for its first bar"


def test_symbols_that_may_be_opened_others_can_only_be_closed() -> None:
    only_x = limited(symbols=["X"])
    account = ledger(9_000.0, Y=20)
    assert verdict(only_x, order(BUY, 1), account) == ""
    assert verdict(only_x, order(SELL, 20, "Y"), account) == ""
    for asked in (order(BUY, 1, "Y"), order(SELL, 21, "Y")):
        assert verdict(only_x, asked, account) == "risk.symbols: Y is none of the 1 symbols that may be opened"


# --- a day's loss, and halts from outside ---------------------------------------------------------------------------


def test_a_days_loss_is_counted_from_the_end_of_the_session_before() -> None:
    watched = limited(max_daily_loss_halt=0.1)
    assert watched.watches_equity
    assert not watched.observe(9_000.0, session=1)  # 0.1 of the starting 10,000: at the limit, not beyond
    assert not watched.observe(9_500.0, session=1)
    assert not watched.observe(12_000.0, session=2)
    assert not watched.observe(8_550.0, session=2)  # 0.1 of 9,500; far more of the peak of the day
    assert not watched.observe(8_000.0, session=5)  # a weekend later, from 8,550
    assert watched.observe(7_694.0, session=5)
    assert watched.halted == (
        "risk.max_daily_loss_halt: the session's loss 0.1001 of the 8550.00 it began with passed the limit 0.1"
    )
    assert not watched.watches_equity
    assert not watched.observe(1.0, session=6)
    assert verdict(watched, order(BUY, 1), ledger()).startswith("trading is halted: risk.max_daily_loss_halt")


def test_the_first_session_is_counted_from_the_starting_cash() -> None:
    watched = limited(max_daily_loss_halt=0.1)
    assert watched.observe(8_999.0, session=20_000)


def test_slow_losses_are_the_drawdowns_to_halt() -> None:
    watched = limited(max_daily_loss_halt=0.1, max_drawdown_halt=0.15)
    assert not watched.observe(9_200.0, session=1)
    assert watched.observe(8_400.0, session=2)
    assert watched.halted.startswith("risk.max_drawdown_halt")


def test_a_halt_from_outside_is_for_good_and_the_first_reason_stays() -> None:
    stopped = limited(max_drawdown_halt=0.1)
    assert stopped.halt("no bar for 180 seconds")
    assert not stopped.halt("another reason")
    assert not stopped.observe(1.0, 1e9)
    assert stopped.halted == "no bar for 180 seconds"
    assert not stopped.watches_equity
    assert verdict(stopped, order(BUY, 1), ledger()) == "trading is halted: no bar for 180 seconds"
    assert verdict(stopped, order(SELL, 50), ledger(5_000.0, X=50)) == ""


def test_what_is_outside_of_the_universe_is_not_opened_and_may_be_reduced() -> None:
    universe = RiskGate(RiskConfig(), peak=10_000.0, outside=lambda symbol, time: f"{symbol} is outside at {time}")
    asked = order(BUY, 1)
    asked.decided = 7
    assert verdict(universe, asked, ledger()) == "X is outside at 7"
    assert verdict(universe, order(SELL, 5), ledger(9_000.0, X=10)) == ""
    # More than is held would open the other side, which is no reducing.
    assert verdict(universe, order(SELL, 15), ledger(9_000.0, X=10)).startswith("X is outside")
    entry = order(BUY, 1)
    assert verdict(universe, order(SELL, 1, parent=entry), ledger()) == ""
