"""The bar loop, for historical bars and live ones: backtrader's results without its per-bar overhead.

``Engine`` is a ``bt.Cerebro`` that moves flat lists of line buffers instead of walking the object tree, and tells the
strategy something only when there is something to tell. Historical bars are computed at once; live ones, which a
``LiveSource`` gives, bar by bar; the rest of a step is the same code for both. It takes any backtrader broker. What it
does not cover (timers, writers, observers, resampled feeds, several strategies, couplers) runs in the stock loop, with
the same results and at its speed, but with lines that show bars to come: ``simulate`` does not run that.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from engine.cerebro.feed import ArrayFeed
from engine.cerebro.lines import checked, guarded
from engine.errors import ConfigError, DataError, LookAheadError, StrategyError

PROGRESS_STEPS = 1000
_INDICATORS = bt.LineIterator.IndType
_OBSERVERS = bt.LineIterator.ObsType
_COUPLERS = (bt.lineiterator.SingleCoupler, bt.lineiterator.MultiCoupler)

Positions = tuple[int, ...]


class LiveStep(NamedTuple):
    """Bars that are complete at one time.

    Attributes:
        time: their end in float days.
        bars: position of the feed -> (float days of the end, open, high, low, close, volume).
        decide: whether the strategy decides on them; bars that came too late are only seen.
    """

    time: float
    bars: Mapping[int, Sequence[float]]
    decide: bool = True


LiveSource = Callable[[], Iterator[LiveStep]]
"""Gives the steps one after another, and waits for them. It is asked for the next one once the strategy has decided."""


class Engine(bt.Cerebro):
    """Cerebro with the lean bar loop.

    Attributes:
        start: float days of the first decision; earlier bars are history that indicators see and strategies do not
            decide on. None: all bars are decided on.
        compute_only: compute the indicators, and decide on nothing.
        source: where the bars after the feeds' own come from; the feeds are ``LiveFeed``s.
        on_progress: called every thousand steps with (steps done, steps in all).
        stock_reason: why the stock loop ran instead, or empty.
        time: float days of the step that is being worked on.
        steps: number of the step that is being worked on, from 1.

    Cerebro's own parameters are given as usual; ``stdstats`` is off and ``quicknotify`` is on by default, so that a
    fill reaches the strategy before it decides on the bar that brought it.
    """

    params = (("stdstats", False), ("quicknotify", True))

    def __init__(
        self,
        *,
        start: float | None = None,
        compute_only: bool = False,
        source: LiveSource | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.start = start
        self.compute_only = compute_only
        self.source = source
        self.on_progress = on_progress
        self.stock_reason = ""
        self.time = 0.0
        self.steps = 0

    @property
    def fills_feeds(self) -> bool:
        """Whether the engine fills the feeds itself, late; clones need the bars of what they copy before that."""
        return not any(data._clone for data in self.datas)

    def runstrategies(self, iterstrat: Any, predata: bool = False) -> Any:
        """As Cerebro's, without the settings that let a strategy see or fill what it cannot know yet."""
        for name in ("cheat_on_open", "oldsync"):
            if getattr(self.p, name):
                raise ConfigError(f"{name}=True shows a strategy bars that are not over; remove it")
        return super().runstrategies(iterstrat, predata)

    def _runonce(self, runstrats: list[Any]) -> None:
        self._fill_feeds()
        reason = self._needs_stock_loop(runstrats)
        if reason:
            self._use_stock_loop(reason)
            super()._runonce(runstrats)
            return
        strategy = runstrats[0]
        self._check_lengths(strategy)
        self._check_inputs(strategy)
        with checked([*self.datas, *descendants(strategy)], computing=True):
            strategy._once()
        if self.compute_only:
            return
        strategy.reset()
        with checked([strategy], computing=False):
            self._loop(strategy)

    def _runnext(self, runstrats: list[Any]) -> None:
        """Cerebro comes here for live feeds, without preload or runonce, and where indicators or feeds say so."""
        if self.source is not None:
            self._run_live(runstrats[0], self.source)
            return
        if self._dopreload:
            self._fill_feeds()
        self._use_stock_loop("bar by bar, without preload or runonce, as an indicator or a resampled feed may ask")
        super()._runnext(runstrats)

    def _fill_feeds(self) -> None:
        """Only now: while the strategy was built and started, it had no bar to look at."""
        for data in self.datas if self.fills_feeds else ():
            if isinstance(data, ArrayFeed):
                data.fill()

    @property
    def stopped(self) -> bool:
        """Whether the strategy stopped the run before its end."""
        return bool(self._event_stop)

    def _use_stock_loop(self, reason: str) -> None:
        if self.start is not None:
            raise ConfigError(
                f"this run needs backtrader's own loop ({reason}), which decides on "
                "every bar, cannot begin after a warm-up, and shows bars to come; remove what needs it"
            )
        self.stock_reason = reason

    def _needs_stock_loop(self, strategies: list[Any]) -> str:
        if len(strategies) != 1:
            return f"{len(strategies)} strategies"
        if self._timers or self._timerscheat:
            return "timers"
        if self.runwriters:
            return "writers"
        if strategies[0]._lineiterators[_OBSERVERS]:
            return "observers"
        for data in self.datas:
            if type(data).advance is not bt.feed.AbstractDataBase.advance or data.resampling or data.replaying:
                return "resampled or replayed feeds"
        for indicator in strategies[0]._lineiterators[_INDICATORS]:
            if isinstance(indicator, _COUPLERS) or clock_position(indicator, self.datas) is None:
                return f"{type(indicator).__name__} does not follow one feed"
        return ""

    def _check_lengths(self, strategy: Any) -> None:
        """Keep indicators from feeds that are shorter than their memory: backtrader would write past the end.

        Where a strategy decides without waiting for all symbols (it has a ``prenext``), and another symbol is long
        enough, such an indicator stays NaN. Elsewhere the strategy could never decide, and that is an error.
        """
        short = []
        for indicator in descendants(strategy):
            data = self.datas[clock_position(indicator, self.datas) or 0]
            if indicator._minperiod > data.buflen():
                short.append((indicator, data))
        if not short:
            return
        indicator, data = short[0]
        long_enough = any(other.buflen() >= indicator._minperiod for other in self.datas)
        if not long_enough or not _overrides(strategy, "prenext"):
            raise DataError(
                f"{data._name}: {type(indicator).__name__} needs {indicator._minperiod} bars, "
                f"and there are {data.buflen()}; give it a longer history or a shorter memory"
            )
        for indicator, _ in short:
            indicator.preonce = indicator.oncestart = indicator.once = _nothing

    def _check_inputs(self, strategy: Any) -> None:
        """What backtrader computes at once from lines, it pairs by position, wherever those positions lie in time."""
        for indicator in descendants(strategy):
            if isinstance(indicator, bt.linebuffer._LineForward):
                raise LookAheadError(
                    f"line({indicator.ago}) was asked for: that is the line {indicator.ago} bar(s) into the future; "
                    "only line(0), line(-1), line(-2) ... exist"
                )
            inputs = getattr(indicator, "_datas", None) or getattr(indicator, "datas", [])
            found = {feed_position(line, self.datas) for line in inputs}
            feeds = [data for position, data in enumerate(self.datas) if position in found]
            if any(not np.array_equal(_times(feed), _times(feeds[0])) for feed in feeds[1:]):
                names = " and ".join(feed._name for feed in feeds)
                raise StrategyError(
                    f"{type(indicator).__name__} combines {names}, whose bars do not end at the same times, and would "
                    "pair bars of different times; combine their values in next(), or give them the same bars"
                )

    def _loop(self, strategy: Any) -> None:
        datas = self.datas
        followers: list[list[Any]] = [[data] for data in datas]
        for indicator in descendants(strategy):
            # Parts of an indicator that follow nothing themselves do not differ from their first feed.
            followers[clock_position(indicator, datas) or 0].append(indicator)
        times = [_times(data) for data in datas]
        begin = -math.inf if self.start is None else self.start
        cells = [[int(np.searchsorted(own, begin)) - 1] for own in times]
        clock, advancing = steps([own[cell[0] + 1 :] for own, cell in zip(times, cells, strict=True)])
        with ExitStack() as guards:
            for group, cell in zip(followers, cells, strict=True):
                guards.enter_context(guarded(group, cell))
            for data in datas:
                data._tick_nullify()
            # Orders and their snapshots are kept to the end: looking for garbage among them only takes time.
            collecting = gc.isenabled()
            gc.disable()
            try:
                self._walk(strategy, cells, _moving(cells, clock, advancing), len(clock))
            finally:
                if collecting:
                    gc.enable()

    def _run_live(self, strategy: Any, source: LiveSource) -> None:
        """History first, for the indicators alone; then each step as it comes."""
        reason = self._needs_stock_loop([strategy])
        if reason:
            raise StrategyError(f"{type(strategy).__name__} cannot trade live bars: {reason}")
        for data in self.datas:
            data.fill()
        self._check_inputs(strategy)
        for data in self.datas:
            data._tick_nullify()
        with checked([*self.datas, *descendants(strategy)], computing=True), checked([strategy], computing=False):
            lines = LiveLines(self.datas, strategy)
            clock, advancing = steps([_times(data) for data in self.datas])
            for _, positions in zip(clock, advancing, strict=True):
                lines.move(positions)
            self._walk(strategy, lines.cells, lines.follow(source()), 0)

    def _walk(self, strategy: Any, cells: list[list[int]], clock: Iterable[float], count: int) -> None:
        """One step at each distinct time: move, match, tell, decide, in the order of backtrader's own loop.

        ``clock`` moves the lines before it gives the time; ``cells`` hold the index of each feed's present bar, and
        ``count`` is the number of steps, for the progress.
        """
        broker_next, notification = self._broker.next, self._broker.get_notification
        quick = self.p.quicknotify
        takes_values, takes_orders = _takes_values(strategy), _takes_orders(strategy)
        clock_line = strategy.lines.datetime
        own_lines = [line for line in strategy.lines if line is not clock_line]
        minimums = strategy._minperiods
        analyzers = bool(strategy.analyzers)
        decide = strategy.next
        status = 1
        for time in clock:
            self.time = time
            self.steps += 1
            broker_next()
            while (order := notification()) is not None:
                if takes_orders:
                    (strategy if order.owner is None else order.owner)._addnotification(order, quicknotify=quick)
            if self._event_stop:
                return
            clock_line.array.append(time)
            clock_line._idx += 1
            clock_line.lencount += 1
            for line in own_lines:
                line.forward()
            # With quick notifications the orders have been told already; what is left is cash and value.
            if takes_values or (strategy._orderspending and not quick):
                strategy._notify()
            if status >= 0:
                status = max(minimum - cell[0] - 1 for minimum, cell in zip(minimums, cells, strict=True))
                if self.steps == 1:
                    # The first decision is the strategy's start, also where history has made all indicators ready.
                    status = max(status, 0)
            if status < 0:
                decide()
            elif status == 0:
                strategy.nextstart()
            else:
                strategy.prenext()
            if analyzers:
                strategy._next_analyzers(status, once=True)
            if strategy._orderspending or strategy._tradespending:
                strategy.clear()
            if self._event_stop:
                return
            if self.on_progress is not None and not self.steps % PROGRESS_STEPS:
                self.on_progress(self.steps, count)


class LiveLines:
    """The lines of feeds and indicators under live bars: a bar moves its feed and what follows it, and nothing else.

    Attributes:
        cells: index of each feed's present bar, counted from its first, whatever has been let go since.
    """

    # Bars that are kept, and how many more may gather before the rest is let go.
    KEPT, GATHERED = 20_000, 5_000

    def __init__(self, datas: list[Any], strategy: Any) -> None:
        self.cells = [[-1] for _ in datas]
        self._datas = datas
        self._strategy = strategy
        self._followers: list[list[Any]] = [[] for _ in datas]
        for indicator in strategy._lineiterators[_INDICATORS]:
            self._followers[clock_position(indicator, datas) or 0].append(indicator)
        # Known by what they offer: importing their class would import torch, also for strategies without a forecast.
        self._forecasts = [i for i in descendants(strategy) if hasattr(i, "forecast_together")]
        self._computed = [line for holder in descendants(strategy) for line in holder.lines]
        self._steps = 0

    def move(self, positions: Iterable[int]) -> None:
        """Move these feeds on by the bar that lies ready, and compute what follows them."""
        moved = list(positions)
        for position in moved:
            self._datas[position].step()
            self.cells[position][0] += 1
        if self._forecasts:
            datas = {id(self._datas[position]) for position in moved}
            fresh = [indicator for indicator in self._forecasts if id(indicator.data) in datas]
            self._forecasts[0].forecast_together(fresh)
        for position in moved:
            for indicator in self._followers[position]:
                indicator._next()

    def follow(self, live: Iterator[LiveStep]) -> Iterator[float]:
        """Times of the steps that are decided on, each once its bars are in the lines."""
        for step in live:
            for position, values in step.bars.items():
                self._datas[position].append(values)
            self.move(step.bars)
            self._steps += 1
            if self._steps % self.GATHERED == 0:
                self._forget()
            if step.decide:
                yield step.time

    def _forget(self) -> None:
        for data in self._datas:
            data.forget(self.KEPT)
        for line in [*self._computed, *self._strategy.lines]:
            gone = line._idx + 1 - self.KEPT
            if gone > 0:
                del line.array[:gone]
                line._idx -= gone


def _moving(cells: list[list[int]], clock: Iterable[float], advancing: Iterable[Positions]) -> Iterator[float]:
    """The times of the clock, each after the feeds that have a bar then have moved on to it."""
    for time, positions in zip(clock, advancing, strict=True):
        for position in positions:
            cells[position][0] += 1
        yield time


def _times(data: Any) -> NDArray[np.float64]:
    """Bar ends of a preloaded feed."""
    line = data.lines.datetime
    return np.array(line.array, dtype=np.float64)[: len(line.array) - line.extension]


def steps(times: list[NDArray[np.float64]]) -> tuple[list[float], Iterable[Positions]]:
    """The distinct times of several feeds in order, and at each the positions of the feeds that have a bar."""
    if len(times) == 1:
        return times[0].tolist(), [(0,)] * len(times[0])
    clock = np.unique(np.concatenate(times))
    present = np.stack([np.isin(clock, own, assume_unique=True) for own in times], axis=1)
    # Few distinct rows: each is turned into a tuple once.
    rows, which = np.unique(present, axis=0, return_inverse=True)
    tuples = [tuple(int(i) for i in np.flatnonzero(row)) for row in rows]
    return clock.tolist(), [tuples[i] for i in which.reshape(-1).tolist()]


def _nothing(start: int, end: int) -> None:
    """Leaves an indicator's lines NaN."""


def _takes_values(strategy: Any) -> bool:
    """Whether anyone takes the cash and value notifications of each bar."""
    return bool(strategy.analyzers) or _overrides(strategy, "notify_cashvalue", "notify_fund", "_notify")


def _takes_orders(strategy: Any) -> bool:
    """Whether anyone takes notifications of orders and trades; without a taker no trades are kept for them."""
    takes = _overrides(strategy, "notify_order", "notify_trade", "_addnotification")
    return takes or _takes_values(strategy)


def _overrides(strategy: Any, *methods: str) -> bool:
    own, base = type(strategy), bt.Strategy
    return any(name in strategy.__dict__ or getattr(own, name) is not getattr(base, name) for name in methods)


def descendants(holder: Any) -> Iterator[Any]:
    """Indicators of a strategy, and the indicators inside them."""
    for indicator in getattr(holder, "_lineiterators", {}).get(_INDICATORS, []):
        yield indicator
        yield from descendants(indicator)


def clock_position(indicator: Any, datas: list[Any]) -> int | None:
    """Position of the feed whose bars an indicator follows, or None where there is no such feed."""
    return feed_position(indicator._clock, datas)


def feed_position(clock: Any, datas: list[Any]) -> int | None:
    """Position of the feed that a line, an indicator or a feed belongs to, by the way of what it follows."""
    positions = {id(data): position for position, data in enumerate(datas)}
    positions.update({id(line): position for position, data in enumerate(datas) for line in data.lines})
    while clock is not None and id(clock) not in positions:
        if isinstance(clock, bt.lineseries.LineSeriesStub):
            clock = clock.lines[0]
            continue
        above = getattr(clock, "_clock", None)
        if above is None:
            above = getattr(getattr(clock, "_owner", None), "_clock", None)
        if above is clock:
            return None
        clock = above
    return None if clock is None else positions[id(clock)]
