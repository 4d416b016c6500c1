"""Round trips from fills, by hand."""

import pytest

from engine.trading.orders import BUY, SELL, Fill
from engine.trading.trades import Trade, round_trips


def fill(time: int, side: int, quantity: float, price: float, commission: float = 0.0, symbol: str = "X") -> Fill:
    return Fill(
        order_id=time,
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=price,
        reference_price=price,
        commission=commission,
        decided=time - 1,
        time=time,
    )


def trips(*fills: Fill, **last_prices: float) -> list[Trade]:
    return round_trips(fills, last_prices=last_prices, last_time=99)


def test_one_way_in_and_one_way_out() -> None:
    (trade,) = trips(fill(1, BUY, 10, 100.0, 1.0), fill(2, SELL, 10, 110.0, 2.0))
    assert trade == Trade(
        symbol="X",
        side="long",
        entry_time=1,
        exit_time=2,
        quantity=10.0,
        entry_price=100.0,
        exit_price=110.0,
        pnl=97.0,  # 10 * 10 - 3
        return_pct=pytest.approx(9.7),  # of 1,000
        commission=3.0,
        open=False,
    )


def test_partial_exits_are_one_trade() -> None:
    (trade,) = trips(
        fill(1, BUY, 10, 100.0, 1.0),
        fill(2, BUY, 30, 104.0, 3.0),
        fill(3, SELL, 15, 120.0, 1.5),
        fill(4, SELL, 25, 90.0, 2.5),
    )
    assert (trade.entry_time, trade.exit_time, trade.quantity) == (1, 4, 40.0)
    assert trade.entry_price == pytest.approx(103.0)  # 4,120 / 40
    assert trade.exit_price == pytest.approx(101.25)  # (1,800 + 2,250) / 40
    assert trade.pnl == pytest.approx(-78.0)  # 4,050 - 4,120 - 8


def test_a_short_gains_when_the_price_falls() -> None:
    (trade,) = trips(fill(1, SELL, 10, 100.0, 1.0), fill(2, BUY, 10, 90.0, 1.0))
    assert trade.side == "short"
    assert trade.pnl == pytest.approx(98.0)
    assert trade.return_pct == pytest.approx(9.8)


def test_crossing_zero_ends_one_trade_and_begins_another_and_splits_the_commission() -> None:
    long, short = trips(fill(1, BUY, 10, 100.0, 1.0), fill(2, SELL, 15, 110.0, 3.0), fill(3, BUY, 5, 104.0, 1.0))
    assert long.pnl == pytest.approx(97.0)  # 100 - 1 - 3 * 10/15
    assert (long.side, long.quantity, long.exit_time) == ("long", 10.0, 2)
    assert short.pnl == pytest.approx(28.0)  # 5 * 6 - 3 * 5/15 - 1
    assert (short.side, short.quantity, short.entry_time, short.exit_time) == ("short", 5.0, 2, 3)


def test_what_is_open_at_the_end_is_marked() -> None:
    (trade,) = trips(fill(1, BUY, 10, 100.0, 1.0), fill(2, SELL, 4, 110.0, 1.0), X=120.0)
    assert trade.open
    assert trade.exit_time == 99
    assert trade.exit_price == pytest.approx(116.0)  # (4 * 110 + 6 * 120) / 10
    assert trade.pnl == pytest.approx(158.0)  # 1,160 - 1,000 - 2


def test_symbols_do_not_mix_and_trades_come_in_the_order_of_their_ends() -> None:
    result = trips(
        fill(1, BUY, 1, 10.0, symbol="B"),
        fill(2, BUY, 1, 10.0, symbol="A"),
        fill(3, BUY, 1, 10.0, symbol="C"),
        fill(4, SELL, 1, 11.0, symbol="A"),
        fill(5, SELL, 1, 12.0, symbol="B"),
        C=13.0,
    )
    assert [(t.symbol, t.pnl, t.open) for t in result] == [("A", 1.0, False), ("B", 2.0, False), ("C", 3.0, True)]


def test_fractions_that_do_not_add_up_in_floats_still_close() -> None:
    result = trips(
        fill(1, BUY, 0.1, 10.0), fill(2, BUY, 0.2, 10.0), fill(3, SELL, 0.3, 11.0), fill(4, BUY, 1, 10.0), X=10
    )
    assert [t.open for t in result] == [False, True]
    assert result[0].pnl == pytest.approx(0.3)
    assert result[1].quantity == 1.0


def test_a_float_rest_is_no_new_trade() -> None:
    # 0.3 - 0.1 is a bit less than 0.2 in floats: the last sale must not open a short of 3e-17 shares.
    (trade,) = trips(fill(1, BUY, 0.3, 10.0), fill(2, SELL, 0.1, 11.0), fill(3, SELL, 0.2, 11.0))
    assert not trade.open
    assert trade.pnl == pytest.approx(0.3)


def test_no_fills_no_trades() -> None:
    assert trips() == []
