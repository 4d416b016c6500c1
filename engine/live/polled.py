"""The steps of a run on bars longer than a minute: each is fetched once it is complete and has had time to settle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial

import pandas as pd

from engine.data.timeframes import bar_ends, duration, in_session, is_intraday
from engine.errors import DataError
from engine.live.inbox import Inbox
from engine.live.rest import NoAnswer
from engine.live.sources import REACH, Arrived, Noted, Row, Rows, checked_row_of, known_until, moment, start_of

_SLICE_SECONDS = 0.5
# How far the history may lag behind when it is asked at the start, at least.
_LAG = 3_600_000_000_000
_ASK_AGAIN, _ASK_AGAIN_AT_MOST = 2_000_000_000, 60_000_000_000


class PolledBars:
    """Bars from the history, one step for each moment at which some are complete.

    After a pause every bar that was missed is seen, in order; the newest one is decided on, if no other is due yet. A
    symbol whose bar is late is waited for, and a bar that comes later still is noted. Bars that a symbol's history
    lacked at the start, while another's had them, are seen.

    Args:
        seen: symbol -> end of its last bar that is known already, UTC ns. last: of the last one of all symbols.
        now: the market's time, UTC ns. speed: how much faster it runs than this machine's clock.
        next_end: the end of the first bar after a moment, both UTC ns.
        settle_seconds: how long after its end a bar is fetched.
        grace_seconds: how long a symbol's bar is waited for beyond that, while others have theirs.
        noted: takes what the run should remember.
        made: whether the bars are made of shorter ones, so that all of them are of the regular session.
        on_idle: called while nothing comes, with how many seconds a bar is overdue (negative: none is).
        settles: whether what the broker told is to be booked now, though there is no bar.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        symbols: Sequence[str],
        rows: Rows,
        seen: Mapping[str, int],
        last: int,
        timeframe: str,
        now: Callable[[], int],
        speed: float = 1.0,
        next_end: Callable[[int], int],
        settle_seconds: float,
        grace_seconds: float,
        noted: Noted,
        made: bool = False,
        on_idle: Callable[[float], None] = lambda overdue: None,
        settles: Callable[[], bool] = lambda: False,
    ) -> None:
        self._inbox = inbox
        self._symbols = frozenset(symbols)
        self._rows = rows
        self._seen = dict(seen)
        self._values: dict[str, Row] = {}
        self._reach = int(duration(timeframe).value) if is_intraday(timeframe) else REACH[timeframe]
        self._last = known_until(self._seen, last, max(self._reach, _LAG))
        self._known = self._last_found = last
        self._now = now
        self._speed = speed
        self._next_end = next_end
        self._settle = int(settle_seconds * 1e9)
        self._grace = int(grace_seconds * 1e9)
        self._noted = noted
        self._on_idle = on_idle
        self._settles = settles
        self._ask_at, self._pause = 0, _ASK_AGAIN
        # All symbols' bars have the same few stamps.
        self._end_of = lru_cache(maxsize=1024)(partial(_end_of, timeframe=timeframe, made=made))

    def __iter__(self) -> Iterator[Arrived]:
        due = expected = self._next_end(self._last)
        while not self._inbox.stopped:
            for event in self._inbox.take_events():
                self._noted("connection", stream=event.stream, state=event.state, detail=event.detail)
            if self._settles():
                yield Arrived(self._last, {}, False, time.monotonic_ns())
            now = self._now()
            if now >= max(due + self._settle, self._ask_at):
                yield from self._fetched(due, now)
                due, expected = self._next_end(self._last), self._next_end(self._last_found)
                continue
            left = (max(due + self._settle, self._ask_at) - now) / 1e9 / self._speed
            self._inbox.wait(lambda: self._inbox.has_events, max(0.001, min(_SLICE_SECONDS, left)))
            self._on_idle((now - expected - self._settle) / 1e9)

    def _fetched(self, due: int, now: int) -> Iterator[Arrived]:
        """What is complete by now, ``due`` and what came after it."""
        self._ask_at = now + _ASK_AGAIN
        try:
            found = self._found(self._rows(moment(self._last - self._reach), moment(now)), now - self._settle)
        except NoAnswer as error:
            self._noted("connection", stream="history", state="error", detail=str(error))
            self._pause = min(2 * self._pause, _ASK_AGAIN_AT_MOST)
            self._ask_at = now + self._pause
            return
        self._pause = _ASK_AGAIN
        newest = max(due, *found) if found else due
        while (after := self._next_end(newest)) + self._settle <= now:
            newest = after
        for end in sorted(found):
            if end < newest:
                yield self._release(end, found[end], decide=False)
        bars = found.get(newest, {})
        missing = [s for s in self._symbols - bars.keys() if self._seen.get(s, 0) < newest]
        if missing and now < newest + self._settle + self._grace:
            return  # the others may come yet
        if bars:
            decide = newest > self._known and self._now() < self._next_end(newest)
            yield self._release(newest, bars, decide=decide)
        self._last, self._ask_at = newest, 0

    def _release(self, end: int, bars: Mapping[str, Row], *, decide: bool) -> Arrived:
        self._last, self._last_found = end, max(end, self._last_found)
        self._seen.update(dict.fromkeys(bars, end))
        self._values.update(bars)
        return Arrived(end, dict(sorted(bars.items())), decide, time.monotonic_ns())

    def _found(self, rows: Mapping[str, Sequence[Mapping[str, object]]], until: int) -> dict[int, dict[str, Row]]:
        """New bars of the regular session that were complete then, by their ends; late and changed ones are noted."""
        found: dict[int, dict[str, Row]] = {}
        for symbol in sorted(self._symbols & rows.keys()):
            for fields in rows[symbol]:
                try:
                    start, row = start_of(fields), checked_row_of(fields)
                    end = self._end_of(start)
                except (AttributeError, KeyError, TypeError, ValueError, DataError) as error:
                    self._noted("garbled", detail=f"{symbol}: {type(error).__name__}: {error}"[:200])
                    continue
                if end is None or end > until:
                    continue
                if end > max(self._last, self._seen.get(symbol, 0)):
                    found.setdefault(end, {})[symbol] = row
                elif end > self._seen.get(symbol, 0):
                    self._note("late", symbol, end, row)
                elif end == self._seen[symbol] and self._values.get(symbol, row) != row:
                    self._note("revision", symbol, end, row)
        return found

    def _note(self, kind: str, symbol: str, end: int, row: Row) -> None:
        self._seen[symbol], self._values[symbol] = end, row
        self._noted(kind, symbol=symbol, time=end, bar=list(row))


def _end_of(start: int, timeframe: str, *, made: bool) -> int | None:
    """When the bar with this stamp is complete, UTC ns; None out of the regular session.

    One that was made of shorter ones may have been cut off by the close, and is stamped as if it had not been.
    """
    ends = bar_ends(pd.DatetimeIndex([start], tz="UTC"), timeframe)
    return int(ends.as_unit("ns")[0].value) if made or in_session(ends, timeframe)[0] else None
