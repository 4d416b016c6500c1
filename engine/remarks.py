"""What a user should know of a run beside its figures, one sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date

import pandas as pd

from engine.config import ALL, DataConfig
from engine.data.bars import Bars
from engine.data.calendars import sessions_of
from engine.data.cleaning.findings import changed_in_hindsight, tallied
from engine.data.quality import Quality
from engine.data.universe import survivorship_of
from engine.simulation.simulate import Simulation
from engine.trading.orders import OrderStatus

_TURNED_DOWN = (OrderStatus.REJECTED, OrderStatus.REFUSED)


def absences(symbols: Iterable[str], period: tuple[date, date]) -> list[str]:
    """Symbols that have no bar in the period."""
    return [f"{symbol} has no bars from {period[0]} to {period[1]} and takes no part" for symbol in symbols]


def missing_members(bars: Bars, period: tuple[date, date], data: DataConfig) -> list[str]:
    """How many of a universe's members in the period have no bars in it; nothing where there is no universe."""
    found = survivorship_of(bars, period, named=data.symbols != (ALL,))
    if found is None:
        return []
    if not found.without_bars:
        return [f"all {found.members} members of the universe have bars while they are members"]
    return [f"SURVIVORSHIP: {found.sentence}; who left is likelier to be missing, and results look better for it"]


def observations(bars: Bars, simulation: Simulation, held: Simulation, benchmark: Bars | None) -> list[str]:
    """What a run showed: on bars that are made up or end early, orders turned down, a benchmark that is too short.

    Args:
        bars: of the run. simulation: what came of it. held: buy-and-hold of the same bars.
    """
    return [
        *(["the bars are synthetic: they prove nothing about a market"] if bars.synthetic else []),
        *cleaning(bars.quality),
        *_stopped(bars, simulation),
        *_turned_down(simulation),
        *_pairs(simulation),
        *_benchmark(benchmark, simulation),
        *_held(held, bars),
    ]


def cleaning(quality: Quality) -> list[str]:
    """What cleaning changed in the bars and what it left as it was, in a sentence, and whether it looked ahead."""
    tally = tallied(quality)
    said = []
    for action in ("dropped", "repaired"):
        of_kind = {kind: counts[action] for kind, counts in tally.items() if counts[action]}
        if of_kind:
            symbols = {f.symbol for f in quality.findings if f.action == action}
            bars, whose = _counted(sum(of_kind.values()), "bar"), _counted(len(symbols), "symbol")
            said.append(f"{action} {bars} of {whose} ({', '.join(of_kind)})")
    flagged = [f"{kind} {counts['flagged']:,}" for kind, counts in tally.items() if counts["flagged"]]
    if flagged:
        said.append(f"flagged bars and left them as they are ({', '.join(flagged)})")
    if not said:
        return []
    sentences = [f"cleaning {' and '.join(said)}; nextbar data check shows them"]
    ahead = changed_in_hindsight(quality)
    if ahead:
        sentences.append(
            f"CLEANED IN HINDSIGHT: {_counted(ahead, 'bar')} dropped or repaired as a spike for what the next bar "
            "told, which live trading cannot know; set data.cleaning.spike to flag"
        )
    return sentences


def uncleaned(data: DataConfig) -> list[str]:
    """Where a broker's bars are traded on: what the run file would have done with spikes."""
    if data.cleaning.spike not in ("drop", "repair"):
        return []
    return [
        f"data.cleaning.spike: {data.cleaning.spike} looks one bar ahead and cannot be done live: the broker's bars "
        "are used as they come, and backtests of this run file are not what is traded"
    ]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


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
    asked = bars.first_members(pd.Timestamp(held.equity.index[0])).symbols
    missing = sorted(set(asked) - {fill.symbol for fill in held.ledger.fills})
    if not missing:
        return []
    return [f"buy-and-hold could not buy {', '.join(missing)}: its share of the account does not pay for one share"]
