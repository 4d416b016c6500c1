"""The plain backtrader strategy that is shipped as an example: entries, stops, exits."""

from __future__ import annotations

from typing import Any

from scripted import ScriptedForecaster, make_bars, orders, run

from engine.simulation.simulate import Simulation
from engine.trading.orders import OrderStatus
from strategies.plain import Plain

UP, DOWN, WEAK = 0.002, -0.002, 0.0004  # the threshold is 0.0005


def trade(bars: Any, **params: Any) -> Simulation:
    return run(bars, Plain, {"forecaster": ScriptedForecaster(), **params})


def test_it_buys_above_the_threshold_with_a_stop_below():
    bars = make_bars({"A": [WEAK, WEAK, UP, WEAK, WEAK]})
    done = trade(bars)
    assert orders(done, bars) == [(3, "buy", 20.0, "A"), (3, "sell", 20.0, "A")]
    entry, stop = done.orders
    assert (stop.type, stop.stop_price, stop.parent) == ("stop", 92.0, entry)
    assert (entry.status, stop.status) == (OrderStatus.FILLED, OrderStatus.ACCEPTED)


def test_it_sells_and_cancels_the_stop_when_the_forecast_turns():
    bars = make_bars({"A": [WEAK, UP, UP, DOWN, DOWN, WEAK]})
    done = trade(bars)
    assert orders(done, bars)[2:] == [(4, "sell", 20.0, "A")]
    assert [order.status for order in done.orders] == [OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.FILLED]
    assert done.ledger.quantity("A") == 0.0


def test_the_stop_ends_a_position_that_falls():
    bars = make_bars({"A": [WEAK, UP, WEAK, WEAK, WEAK]}, {"A": [100.0, 100.0, 100.0, 90.0, 90.0]})
    done = trade(bars)
    assert [order.status for order in done.orders] == [OrderStatus.FILLED, OrderStatus.FILLED]
    assert done.ledger.fills[-1].price == 90.0, "the gap is paid"


def test_it_enters_again_after_a_stop():
    bars = make_bars({"A": [WEAK, UP, WEAK, WEAK, UP, WEAK]}, {"A": [100.0, 100.0, 100.0, 90.0, 90.0, 90.0]})
    done = trade(bars)
    assert [(day, side) for day, side, *_ in orders(done, bars)] == [(2, "buy"), (2, "sell"), (5, "buy"), (5, "sell")]
    assert done.ledger.quantity("A") > 0.0


def test_its_parameters_count():
    bars = make_bars({"A": [WEAK, UP, WEAK, WEAK]})
    assert not trade(bars, threshold_bps=30.0).orders
    entry, stop = trade(bars, weight=0.5, stop_pct=20.0).orders
    assert (entry.quantity, stop.stop_price) == (50.0, 80.0)


def test_a_symbol_without_a_bar_is_not_ordered_twice():
    """Its order waits for its next bar; the bars of others are no reason to give another."""
    bars = make_bars({"A": [WEAK, UP, None, None, UP, DOWN, WEAK], "B": [WEAK] * 7})
    done = trade(bars)
    assert orders(done, bars) == [(2, "buy", 20.0, "A"), (2, "sell", 20.0, "A"), (6, "sell", 20.0, "A")]
    assert done.ledger.quantity("A") == 0.0
