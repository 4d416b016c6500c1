"""Bars of a source on the network, by way of the cache: what is missing is fetched, what is there is read.

A series in the cache covers the New York dates from the first one asked for to the last one that had settled, which is
the day before the fetch: bars of the present day may still be corrected, and are fetched again. Whenever a series is
extended, some sessions that are there already are fetched once more. If they are what they were, the new bars are put
beside the old ones; if not, the source has changed its history (a split or a dividend re-adjusts all prices), and the
whole series is fetched anew.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

import pandas as pd

from engine.data.cache.manifest import Entry
from engine.data.cache.ranges import Fetched, bounds, complete, edges, merged, part, years
from engine.data.cache.shelves import Series, Shelf
from engine.data.cache.writing import Writer, writing
from engine.data.calendars import ZONE
from engine.data.raw import Raw
from engine.data.timeframes import duration, is_intraday
from engine.errors import DataError

# Bars that one batch of requests may bring: what is lost at most when the process dies.
_BATCH_ROWS = 50_000
_MINUTES_A_DAY = 960  # early and late trading, which comes with the bars of some sources
_DAY = timedelta(days=1)

_log = logging.getLogger("nextbar.cache")


class Source(Protocol):
    """A source of bars on the network."""

    @property
    def name(self) -> str:
        """As the run file names it."""

    @property
    def variant(self) -> str:
        """What else its bars depend on, such as feed and adjustment: a folder's name."""

    @property
    def timeframe(self) -> str:
        """Of its bars."""

    @property
    def adjustment(self) -> str:
        """As in ``Raw``."""

    @property
    def words(self) -> str:
        """The source in a sentence, as in ``the iex feed``."""

    @property
    def lasting(self) -> bool:
        """Whether what it told yesterday can be relied on today; without that it is always asked again."""

    @property
    def most_symbols(self) -> int:
        """In one batch."""

    def now(self) -> pd.Timestamp:
        """The present moment by the source's clock, UTC."""

    def fetch(self, symbols: Sequence[str], first: date, last: date | None, *, now: pd.Timestamp) -> dict[str, Fetched]:
        """All bars that begin on or after the first New York date and end on or before the last one.

        Args:
            last: None for the newest ones there are.
            now: bars that end later are left out.

        Returns:
            Each of the symbols, an empty frame where there are no bars.
        """


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a fetch did for one symbol.

    Attributes:
        entry: what is there now; one without rows where the source has no bar.
        before: bars that were there.
        fetched: bars that came over the network, those of the overlap included.
        changed: whether the source's history was another one than that in the cache, and was fetched anew.
    """

    entry: Entry | None
    before: int
    fetched: int
    changed: bool


def shelf_of(source: Source, cache: Path) -> Shelf:
    """Where the source's bars lie in the cache."""
    return Shelf(root=cache, source=source.name, variant=source.variant, timeframe=source.timeframe)


def read_network(
    source: Source,
    symbols: Iterable[str],
    *,
    start: date,
    until: date | None,
    cache: Path | None,
    now: pd.Timestamp | None = None,
    everyone: bool = True,
) -> Raw:
    """The source's bars from ``start`` to ``until``; nothing is asked of the network where the cache covers them.

    Args:
        until: the last New York date that is needed; None for all that are complete.
        cache: its folder; None for none, so that all bars are fetched.
        now: the present moment where there is no cache; the machine's clock, if None. A cache has its source's clock.
        everyone: whether a symbol with less than two bars is an error; it is left out otherwise.

    Raises:
        DataError: a symbol has less than two bars, and everyone is needed.
        BrokerError, ConfigError: as the source raises them.
        StorageError: the cache cannot be read or written.
    """
    symbols = sorted(symbols)
    if cache is None:
        reach = _Reach(start=start, until=until, now=pd.Timestamp.now("UTC") if now is None else now)
        jobs = [_Job(symbol=symbol, series=None) for symbol in symbols]
        for batch in _batches(jobs, source, reach):
            _work(batch, source, reach, put=None)
        found = {job.symbol: job.series for job in jobs if job.series is not None}
        return _raw(source, symbols, found, start=start, until=until, everyone=everyone)
    shelf = shelf_of(source, cache)
    found = _covered(shelf, symbols, start, until, everyone=everyone) if source.lasting else {}
    if len(found) < len(symbols):
        outcomes = refresh(source, symbols, start=start, until=until, cache=cache, everyone=everyone)
        symbols_there = symbols if source.lasting else [s for s in symbols if outcomes[s].fetched]
        found = shelf.read(symbols_there, *bounds(source.timeframe, start, until))
    return _raw(source, symbols, found, start=start, until=until, everyone=everyone)


def refresh(
    source: Source,
    symbols: Iterable[str],
    *,
    start: date,
    until: date | None,
    cache: Path,
    recheck: bool = False,
    everyone: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> dict[str, Outcome]:
    """Brings the cache up to date. What is complete is committed batch by batch: a fetch that died goes on there.

    Args:
        recheck: look at the newest bars that are there even if none are missing.
        everyone: whether a symbol that had no bars is asked for once more.
        on_progress: called with how many symbols are done, of how many.
        on_wait: called when another process writes to the same shelf, whose end is waited for.

    Raises:
        As ``read_network``, but for symbols without bars.
    """
    symbols = sorted(symbols)
    shelf = shelf_of(source, cache)
    outcomes: dict[str, Outcome] = {}
    with writing(shelf, on_wait) as writer:
        reach = _Reach(
            start=start, until=until, now=source.now(), recheck=recheck or not source.lasting, everyone=everyone
        )
        jobs = [_Job(symbol=symbol, series=None) for symbol in symbols]
        for batch in _batches(jobs, source, reach):
            known = shelf.read([job.symbol for job in batch])
            entries = shelf.manifest().entries
            for job in batch:
                job.series = known.get(job.symbol)
                if job.symbol in entries:
                    job.was, job.asked_before = entries[job.symbol].rows, entries[job.symbol].asked
            _work(batch, source, reach, put=_putting(writer, source))
            entries = shelf.manifest().entries
            for job in batch:
                outcomes[job.symbol] = Outcome(
                    entry=entries.get(job.symbol), before=job.was, fetched=job.fetched, changed=job.changed
                )
            if on_progress is not None:
                on_progress(len(outcomes), len(symbols))
    return outcomes


# --- what is asked for ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Reach:
    """How far a fetch goes: the first date, the last one or None, and the moment at which it begins."""

    start: date
    until: date | None
    now: pd.Timestamp
    recheck: bool = False
    everyone: bool = True

    @property
    def today(self) -> date:
        return self.now.tz_convert(ZONE).date()

    @property
    def settled(self) -> date:
        """The last date whose bars will not change any more, but by a change of the history."""
        return self.today - _DAY

    @property
    def goal(self) -> date:
        return self.today if self.until is None else min(self.until, self.today)


@dataclass(kw_only=True)
class _Job:
    """One symbol on its way: its series as far as it goes, and the ranges of dates that are still to be fetched."""

    symbol: str
    series: Series | None
    asked_before: tuple[date, date] | None = None
    was: int = 0
    ranges: deque[tuple[date, date]] = field(default_factory=deque)
    fetched: int = 0
    changed: bool = False

    def plan(self, reach: _Reach, timeframe: str) -> None:
        """What has to be fetched: nothing, the whole, or an extension on each side with its overlap."""
        series = self.series
        overlap = None if series is None else edges(series, timeframe)
        if series is None or series.asked is None:
            self.begin_anew(reach, timeframe)
            return
        first, through = series.asked
        if overlap is None:
            # Nothing was there: who needs the symbol asks again, and who can do without it believes that.
            if reach.start < first or reach.goal > through or reach.recheck or reach.everyone:
                self.begin_anew(reach, timeframe)
            return
        if through > reach.settled:  # the clock is another exchange's
            self.begin_anew(reach, timeframe)
            return
        if reach.start < first:
            self.ranges.append((reach.start, overlap[0]))
        if reach.goal > through or reach.recheck:
            last = min(max(reach.goal, through), reach.today)
            self.ranges.extend(years(overlap[1], last, timeframe))

    def begin_anew(self, reach: _Reach, timeframe: str) -> None:
        """All that was ever asked for, and what is asked for now."""
        first, through = self.asked_before or (reach.start, reach.goal)
        self.series = None
        last = min(max(reach.goal, through), reach.today)
        self.ranges = deque(years(min(first, reach.start), last, timeframe))


def _batches(jobs: Sequence[_Job], source: Source, reach: _Reach) -> Iterator[list[_Job]]:
    """The symbols, so many at a time that a batch of requests does not bring too many bars."""
    days = max((reach.goal - reach.start).days, 1)
    bars = days * 5 / 7
    if is_intraday(source.timeframe):
        bars = min(bars, 262) * _MINUTES_A_DAY / (duration(source.timeframe) / pd.Timedelta(minutes=1))
    size = min(max(int(_BATCH_ROWS / bars), 1), source.most_symbols)
    for at in range(0, len(jobs), size):
        yield list(jobs[at : at + size])


# --- fetching and putting together ---------------------------------------------------------------------------------


def _work(
    jobs: Sequence[_Job], source: Source, reach: _Reach, *, put: Callable[[Mapping[str, Series]], None] | None
) -> None:
    """Fetches what the jobs need, range by range, those of one range together, and commits each step."""
    for job in jobs:
        job.plan(reach, source.timeframe)
    while waiting := [job for job in jobs if job.ranges]:
        asked = waiting[0].ranges[0]
        together = [job for job in waiting if job.ranges[0] == asked]
        first, last = asked
        # The newest bars are left to the source, which knows what it may show of them.
        answer = source.fetch(
            [job.symbol for job in together], first, None if last >= reach.today else last, now=reach.now
        )
        for job in together:
            job.ranges.popleft()
            new = complete(answer[job.symbol], reach.now)
            job.fetched += len(new.frame)
            series = merged(job.series, new, asked, settled=reach.settled, timeframe=source.timeframe, now=reach.now)
            if series is None:
                job.changed = True
                job.begin_anew(reach, source.timeframe)
                _log.warning(
                    "%s, %s: the bars from %s to %s are not those in the cache any more (a split, a dividend or a "
                    "correction); all of them are fetched anew",
                    source.name,
                    job.symbol,
                    first,
                    last,
                )
            else:
                job.series = series
        if put is not None:
            put({job.symbol: job.series for job in together if job.series is not None})


def _putting(writer: Writer, source: Source) -> Callable[[Mapping[str, Series]], None]:
    about = {"adjustment": source.adjustment, "words": source.words}

    def put(series: Mapping[str, Series]) -> None:
        if series:
            writer.put(series, about=about)

    return put


def _covered(
    shelf: Shelf, symbols: Sequence[str], start: date, until: date | None, *, everyone: bool
) -> dict[str, Series]:
    """The series of those symbols whose dates are in the cache; the symbols that it does not cover are left out."""
    entries = shelf.manifest().entries
    there = [
        symbol
        for symbol in symbols
        if (entry := entries.get(symbol)) is not None
        and entry.asked is not None
        and entry.asked[0] <= start
        and until is not None
        and entry.asked[1] >= until
        and (entry.rows or not everyone)
    ]
    return shelf.read(there, *bounds(shelf.timeframe, start, until)) if len(there) == len(symbols) else {}


def _raw(
    source: Source,
    symbols: Sequence[str],
    found: Mapping[str, Series],
    *,
    start: date,
    until: date | None,
    everyone: bool,
) -> Raw:
    frames, actions = {}, {}
    for symbol in symbols:
        series = found.get(symbol)
        frame = None if series is None else part(series.frame, start, until, source.timeframe)
        if frame is None or len(frame) < 2:
            if not everyone:
                continue
            to = "" if until is None else f" until {until}"
            raise DataError(
                f"{source.name}, {symbol}: at least two bars are needed, and {source.words} has "
                f"{(0 if frame is None else len(frame)) or 'none'} of {source.timeframe} since {start}{to}; check the "
                "symbol, or set data.start to an earlier day"
            )
        frames[symbol] = frame
        told = None if series is None else part(series.actions, start, until, source.timeframe)
        if told is not None:
            actions[symbol] = told
    return Raw(
        frames=frames,
        timeframe=source.timeframe,
        adjustment=source.adjustment,
        source=source.name,
        actions=actions,
    )
