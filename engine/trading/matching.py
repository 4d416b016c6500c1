"""The matcher: at which price an order fills inside a bar, if it does. One copy for every venue.

What a bar can tell is its open, its range, and nothing about the path between. The rules, in this order:

1. At the open: market orders fill at the open. A limit that the open already betters fills at the open. A stop that the
   open has passed (a gap) fills at the open, not at its price.
2. Inside the bar the adverse touch comes first: stops before limits. A bracket whose stop and target both lie in the
   range is stopped.
3. A touch counts: a limit at the low of the bar fills, at its own price and never better.
4. A stop-limit that is triggered at the open is a limit from the open on. One that is triggered inside the bar fills at
   its stop price if its limit allows that, else it is a limit from the next bar on.
5. The legs of a bracket begin at the price that fills its entry: what that price has passed already fills there.
   Legs of an entry at the open live through the whole bar. Legs of an entry inside the bar may be stopped in it, but
   reach no target: the range does not tell what came after the entry, so the worse is assumed.

Slippage moves every fill but a touched limit's, opens included, and never moves a limit order past its limit.
"""

from __future__ import annotations

import math

from engine.trading.costs import slipped

MARKET, LIMIT, STOP, STOP_LIMIT = 0, 1, 2, 3
TYPE_CODES = {"market": MARKET, "limit": LIMIT, "stop": STOP, "stop_limit": STOP_LIMIT}


def price_at_open(kind: int, side: int, limit: float, stop: float, triggered: bool, open_: float) -> float:
    """Unslipped price at which the order fills at the open, or at another price known to be the market's; or NaN.

    ``kind`` is MARKET, LIMIT, STOP or STOP_LIMIT; ``side`` +1 or -1; prices NaN where the kind has none.
    """
    if kind == MARKET:
        return open_
    if kind == LIMIT or (kind == STOP_LIMIT and (triggered or side * (open_ - stop) >= 0.0)):
        return open_ if side * (open_ - limit) <= 0.0 else math.nan
    if kind == STOP and side * (open_ - stop) >= 0.0:
        return open_
    return math.nan


def triggers_at_open(side: int, stop: float, open_: float) -> bool:
    """Whether the open has reached the stop price."""
    return side * (open_ - stop) >= 0.0


def triggers_inside(side: int, stop: float, high: float, low: float) -> bool:
    """Whether the bar's range reaches the stop price."""
    return high >= stop if side > 0 else low <= stop


def price_of_stop(kind: int, side: int, limit: float, stop: float, high: float, low: float) -> float:
    """Unslipped price at which a stop, or a stop-limit triggered inside this bar, fills inside it, or NaN."""
    if not triggers_inside(side, stop, high, low):
        return math.nan
    if kind == STOP_LIMIT and side * (stop - limit) > 0.0:
        return math.nan
    return stop


def price_of_limit(side: int, limit: float, high: float, low: float) -> float:
    """The limit when the bar's range touches it, or NaN."""
    touched = low <= limit if side > 0 else high >= limit
    return limit if touched else math.nan


def paid_price(reference: float, side: int, limit: float, slippage_bps: float) -> float:
    """The reference price after slippage; an order with a limit (not NaN) never pays beyond it."""
    price = slipped(reference, side, slippage_bps)
    if limit == limit and side * (price - limit) > 0.0:
        return limit
    return price
