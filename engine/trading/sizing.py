"""From a target weight to a quantity."""

from __future__ import annotations

import math

from engine.errors import StrategyError
from engine.trading.orders import QUANTITY_PLACES


def rounded_down(quantity: float, fractional: bool) -> float:
    """Towards zero: to whole shares, or to nine decimal places when fractional."""
    places = QUANTITY_PLACES if fractional else 0
    nearest = round(quantity, places)
    if abs(nearest) > abs(quantity):
        nearest = round(nearest - math.copysign(10.0**-places, nearest), places)
    return nearest + 0.0  # no negative zero


def target_quantity(weight: float, equity: float, unit_cost: float, fractional: bool) -> float:
    """Signed quantity whose cost is ``weight`` of the equity, rounded towards zero.

    ``unit_cost`` is what one share costs to buy with slippage and proportional commission (``Costs.unit_cost``), so
    that a weight of 1 leaves no debt at an unchanged price; a commission minimum is not in it. No equity or no price
    (NaN): no position.

    Raises:
        StrategyError: the weight is NaN or infinite.
    """
    if not math.isfinite(weight):
        raise StrategyError(f"a target weight must be a finite number, found {weight}; use 0 for no position")
    if weight == 0.0 or not (equity > 0.0 and unit_cost > 0.0):
        return 0.0
    # One part in 10^12 is forgiven, so that 0.29 * 100 / 29 buys one share and not none.
    return rounded_down(weight * equity / unit_cost * (1.0 + 1e-12), fractional)


def changes(target: float, last_target: float, min_change: float) -> bool:
    """Whether a new target weight is worth an order: it differs by ``min_change`` or more, or it leaves the market."""
    if target == last_target:
        return False
    # One part in 10^12 is forgiven: 0.6 - 0.5 is a change of 0.1.
    return target == 0.0 or abs(target - last_target) >= min_change * (1.0 - 1e-12)
