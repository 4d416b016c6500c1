"""Recorded fills beside the modelled ones: matched by what was decided, whatever the orders' numbers."""

from __future__ import annotations

import pytest

from engine.trading.orders import BUY, SELL, Fill
from engine.twin import _beside


def fill(order: int, decided: int, price: float, *, symbol: str = "A", side: int = BUY, quantity: float = 10.0) -> Fill:
    return Fill(
        order_id=order, symbol=symbol, side=side, quantity=quantity, price=price, reference_price=price, commission=0.0,
        decided=decided, time=decided + 60,
    )  # fmt: skip


def test_a_rejected_order_shifts_no_pair() -> None:
    # Order 1 was turned down on paper, and the model filled it: from there on, the numbers are one apart.
    recorded = [fill(2, 200, 101.0), fill(3, 300, 102.0)]
    modelled = [fill(1, 100, 50.0), fill(2, 150, 70.0), fill(3, 200, 100.0), fill(4, 300, 102.0)]
    assert _beside(recorded, modelled) == {
        "matched": 2,
        "unmatched_recorded": 0,
        "unmatched_modelled": 2,
        "cost_bps_mean": pytest.approx(50.0),
        "cost_bps_worst": pytest.approx(100.0),
    }


def test_fills_of_one_decision_are_taken_together_on_both_sides() -> None:
    recorded = [fill(1, 100, 100.0, quantity=30.0), fill(1, 100, 104.0, quantity=10.0)]  # 101 on average
    modelled = [fill(1, 100, 99.0, quantity=20.0), fill(1, 100, 101.0, quantity=20.0)]  # 100
    found = _beside(recorded, modelled)
    assert (found["matched"], found["unmatched_recorded"], found["unmatched_modelled"]) == (1, 0, 0)
    assert found["cost_bps_mean"] == pytest.approx(100.0)


def test_a_sale_below_the_model_costs_too() -> None:
    found = _beside([fill(1, 100, 99.0, side=SELL)], [fill(1, 100, 100.0, side=SELL)])
    assert found["cost_bps_mean"] == pytest.approx(100.0)


def test_another_symbol_side_or_decision_is_no_pair() -> None:
    modelled = [fill(1, 100, 100.0)]
    for other in (fill(1, 100, 90.0, symbol="B"), fill(1, 100, 90.0, side=SELL), fill(1, 101, 90.0)):
        assert _beside([other], modelled) == {
            "matched": 0,
            "unmatched_recorded": 1,
            "unmatched_modelled": 1,
            "cost_bps_mean": None,
            "cost_bps_worst": None,
        }
