"""What a user should know of a run beside its figures, one sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date

import pandas as pd

from engine.data.bars import Bars
from engine.data.calendars import sessions_of
from engine.simulation.simulate import Simulation
from engine.trading.orders import OrderStatus

_TURNED_DOWN = (OrderStatus.REJECTED, OrderStatus.REFUSED)


def absences(symbols: Iterable[str], period: tuple[date, date]) -> list[str]:
    """Symbols that have no bar in the period."""
    return [f"{symbol} has no bars from {period[0]} to {period[1]} and takes no part" for symbol in symbols]


def observations(bars: Bars, simulation: Simulation, held: Simulation, benchmark: Bars | None) -> list[str]:
    """What a run showed: on bars that are made up or end early, orders turned down, a benchmark that is too short.

    Args:
        bars: of the run. simulation: what came of it. held: buy-and-hold of the same bars.
    """
    return [
        *(["the bars are synthetic: they prove nothing about a market"] if bars.synthetic else []),
        *_stopped(bars, simulation),
        *_turned_down(simulation),
        *_pairs(simulation),
        *_benchmark(benchmark, simulation),
        *_held(held, bars),
    ]


def _stopped(bars: Bars, simulation: Simulation) -> list[str]:
    """Symbols whose bars end before the run's last session."""
    last = sessions_of(pd.DatetimeIndex(simulation.equity.index))[-1]
    ends = {symbol: sessions_of(pd.DatetimeIndex(frame.index[-1:]))[0] for symbol, frame in bars.frames.items()}
    return [
        f"{symbol} has no bars after {end:%Y-%m-%d}; what is held of it stays marked at its last close"
        for symbol, end in ends.items()
        if end < last
    ]


def _turned_down(simulation: Simulation) -> list[str]:
    reasons = [order.reason.split(":")[0] for order in simulation.orders if order.status in _TURNED_DOWN]
    if not reasons:
        return []
    reason, count = Counter(reasons).most_common(1)[0]
    return [f"{len(reasons)} of {len(simulation.orders)} orders were turned down, {count} of them for: {reason}"]


def _pairs(simulation: Simulation) -> list[str]:
    if not any(order.group > 0 for order in simulation.orders):
        return []
    return ["pairs of orders that cancel one another (oco) are turned down on paper, where only brackets have them"]


def _benchmark(benchmark: Bars | None, simulation: Simulation) -> list[str]:
    if benchmark is None:
        return []
    times = pd.DatetimeIndex(simulation.equity.index)
    own = pd.DatetimeIndex(next(iter(benchmark.frames.values())).index)
    if own[0] <= times[0] and times[-1] <= own[-1]:
        return []
    return [f"the benchmark has bars from {own[0]:%Y-%m-%d} to {own[-1]:%Y-%m-%d} only, and is compared where it has"]


def _held(held: Simulation, bars: Bars) -> list[str]:
    missing = sorted(set(bars.symbols) - {fill.symbol for fill in held.ledger.fills})
    if not missing:
        return []
    return [f"buy-and-hold could not buy {', '.join(missing)}: its share of the account does not pay for one share"]
