"""Clocks that run by themselves: at the wall clock's pace, faster, or as fast as possible."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from engine.exchange.exchange import Exchange

SETTLE_SECONDS = 0.02
_NANOSECONDS = 1_000_000_000


async def walk(
    exchange: Exchange, *, speed: float, begin: asyncio.Event, interrupted: Callable[[], None] = lambda: None
) -> None:
    """Take step after step at ``speed`` simulated seconds a second, until there are no more bars.

    At a step's moment orders are matched and accounts hear of it; the bars follow after ``SETTLE_SECONDS``, so that a
    fill is known before the bar it happened in, as it nearly always is at Alpaca. At infinite speed there is no wait.
    Nights are skipped (``Market.pause``). An order that comes before the matching of the bar that ends at T fills in
    that bar: at its open, which has not been shown to anybody. ``interrupted`` is called when a fault ends
    the exchange.
    """
    await begin.wait()
    clock = asyncio.get_running_loop().time
    due = clock()
    while not exchange.done:
        pause = exchange.market.pause(exchange.position, exchange.now) / _NANOSECONDS / speed
        due = max(due + pause, clock())
        await asyncio.sleep(due - clock() if pause else 0.0)
        exchange.match()
        if exchange.interrupted:
            interrupted()
            return
        if math.isfinite(speed):
            await asyncio.sleep(min(SETTLE_SECONDS, pause))
        exchange.show()
