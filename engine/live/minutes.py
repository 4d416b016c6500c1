"""The steps of a run on minute bars: Alpaca streams each minute once it is over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

from engine.live.inbox import BarMessage, Inbox
from engine.live.rest import NoAnswer
from engine.live.sources import Arrived, Noted, Row, Rows, checked_row_of, moment, start_of
from engine.live.streams import BARS

MINUTE = 60_000_000_000
_SLICE_SECONDS = 0.5


class StreamedMinutes:
    """Minute bars from the stream, released when all symbols have one, or after a grace period.

    Thin symbols have no bar in many minutes: none is invented. A bar that comes after its minute was released is noted
    and not decided on. After a connection was lost, and at the start, what was missed is fetched; it is seen, and not
    decided on. So are bars that come all at once after a pause.

    Args:
        last: end of the last bar that is known already, UTC ns.
        now: the market's time, UTC ns.
        grace_seconds: how long a minute's other bars are waited for, once its first has come.
        stale_seconds: how old a minute may be, by the market's time, to be decided on.
        in_session: whether the minute that ends then lies in the regular session.
        noted: takes what the run should remember.
        on_idle: called while nothing comes.
        settles: whether what the broker told is to be booked now, though there is no bar.
        monotonic_ns: clock of the messages' times of receipt.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        symbols: Sequence[str],
        rows: Rows,
        last: int,
        now: Callable[[], int],
        grace_seconds: float,
        stale_seconds: float = math.inf,
        in_session: Callable[[int], bool],
        noted: Noted,
        on_idle: Callable[[], None] = lambda: None,
        settles: Callable[[], bool] = lambda: False,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._inbox = inbox
        self._symbols = frozenset(symbols)
        self._rows = rows
        self._released = last
        self._now = now
        self._grace = int(grace_seconds * 1e9)
        self._stale = stale_seconds * 1e9
        self._in_session = in_session
        self._noted = noted
        self._on_idle = on_idle
        self._settles = settles
        self._monotonic_ns = monotonic_ns
        self._waiting: dict[int, dict[str, Row]] = {}
        self._first: dict[int, int] = {}
        self._had: dict[str, int] = {}
        # Whether bars may have been missed since the last one released.
        self._unsure = True

    def __iter__(self) -> Iterator[Arrived]:
        yield from self._missed(self._now())
        while not self._inbox.stopped:
            if self._reconnected():
                self._unsure = True
                yield from self._missed(self._now())
            for message in self._inbox.take_bars():
                self._keep(message)
            while not self._inbox.stopped and (end := self._due()) is not None:
                if self._unsure:
                    # The history of the last minute may have come later than the connection.
                    self._unsure = False
                    yield from self._missed(end - MINUTE)
                yield self._release(end, fresh=self._now() - end <= self._stale)
            if self._settles():
                yield Arrived(self._released, {}, False, self._monotonic_ns())
            self._inbox.wait(lambda: self._inbox.has_bars or self._inbox.has_events, self._patience())
            self._on_idle()

    def _reconnected(self) -> bool:
        back = False
        for event in self._inbox.take_events():
            self._noted("connection", stream=event.stream, state=event.state, detail=event.detail)
            back = back or (event.stream == BARS and event.state == "connected")
        return back

    def _keep(self, message: BarMessage) -> None:
        try:
            symbol, end, row = message.fields["S"], start_of(message.fields) + MINUTE, checked_row_of(message.fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._noted("garbled", detail=f"{type(error).__name__}: {error}"[:200])
            return
        if symbol not in self._symbols or not self._in_session(end):
            return
        if message.revised:
            self._noted("revision", symbol=symbol, time=end, bar=list(row))
        elif end > self._released:
            self._wait_for(end, symbol, row, message.received)
        elif self._had.get(symbol, 0) < end:
            self._noted("late", symbol=symbol, time=end, bar=list(row))

    def _wait_for(self, end: int, symbol: str, row: Row, received: int) -> None:
        self._waiting.setdefault(end, {}).setdefault(symbol, row)
        self._first.setdefault(end, received)

    def _due(self) -> int | None:
        """The earliest minute that waits, if it is to be released."""
        if not self._waiting:
            return None
        end = min(self._waiting)
        complete = len(self._waiting[end]) == len(self._symbols)
        return end if complete or self._monotonic_ns() - self._first[end] >= self._grace else None

    def _release(self, end: int, *, fresh: bool) -> Arrived:
        self._released = end
        bars = self._waiting.pop(end)
        self._had.update(dict.fromkeys(bars, end))
        return Arrived(end, dict(sorted(bars.items())), fresh, self._first.pop(end))

    def _patience(self) -> float:
        if not self._waiting:
            return _SLICE_SECONDS
        left = self._grace - (self._monotonic_ns() - self._first[min(self._waiting)])
        return max(0.001, min(_SLICE_SECONDS, left / 1e9))

    def _missed(self, until: int) -> Iterator[Arrived]:
        """Bars after the last one released, until then, from the history; the newest may yet wait for others."""
        if until - self._released < MINUTE:
            return
        try:
            found = self._rows(moment(self._released), moment(until - MINUTE))
        except NoAnswer as error:
            self._noted("connection", stream="history", state="error", detail=str(error))
            self._unsure = True
            return
        received = self._monotonic_ns()
        for symbol, rows in found.items():
            for row in rows:
                self._keep(BarMessage({**row, "S": symbol}, received))
        for end in sorted(end for end in self._waiting if end <= until):
            if self._now() - end >= self._grace:
                yield self._release(end, fresh=False)
