"""The steps of a run on minute bars: Alpaca streams each minute once it is over."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.live.inbox import BarMessage, Inbox
from engine.live.rest import NoAnswer
from engine.live.sources import Arrived, Noted, Row, Rows, checked_row_of, known_until, moment, start_of
from engine.live.streams import BARS

SECOND, MINUTE = 1_000_000_000, 60_000_000_000
_SLICE_SECONDS = 0.5
# How far the history may lag behind when it is asked at the start.
_LAG = 60 * MINUTE
# How long a minute is held back for the ones before it, while the history does not answer; how often it is asked then.
_HOLD, _RETRY = 30 * SECOND, 5 * SECOND
# While the stream says nothing: how often the history is asked, how long after a minute it has it, and how old a minute
# from it may be to be decided on.
_ASK_AGAIN, _SETTLED, _FRESH = 15 * SECOND, 5 * SECOND, 2 * MINUTE
# The first minute ends that long after the open, and the last one's bar comes after the close.
_OPENING, _CLOSING = MINUTE, 2 * MINUTE
_REMEMBERED = 500


@dataclass(frozen=True, kw_only=True)
class Mute:
    """When a stream that says nothing during a session is mistrusted.

    Attributes:
        hours: open and close of the session of a moment, UTC ns; twice the same where there is none.
        renew: has the connection made anew.
        fetch_seconds: silence after which the minutes are fetched instead, until a bar comes again.
        renew_seconds: silence after which the connection is made anew, if the history has bars that it did not bring,
            or does not answer: where nobody trades, there are none.
    """

    hours: Callable[[int], tuple[int, int]]
    renew: Callable[[], None]
    fetch_seconds: float = 75.0
    renew_seconds: float = 180.0


class StreamedMinutes:
    """Minute bars from the stream, released when all symbols have one, or after a grace period.

    Thin symbols have no bar in many minutes: none is invented. A bar that comes after its minute was released is noted
    and not decided on. After a connection was lost, and at the start, what was missed is fetched; it is seen, and not
    decided on. So are bars that come all at once after a pause. While what was missed cannot be fetched, a new minute
    is held back for a while, and then seen and not decided on. Where the stream is mute, minutes are fetched, and the
    newest is decided on.

    Args:
        last: end of the last bar that is known already, UTC ns. seen: of each symbol's last one, if they differ.
        now: the market's time, UTC ns.
        grace_seconds: how long a minute's other bars are waited for, once its first has come.
        stale_seconds: how old a minute may be, by the market's time, to be decided on.
        in_session: whether the minute that ends then lies in the regular session.
        noted: takes what the run should remember.
        mute: what is done about a stream that says nothing; nothing, if None.
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
        seen: Mapping[str, int] | None = None,
        now: Callable[[], int],
        grace_seconds: float,
        stale_seconds: float = math.inf,
        in_session: Callable[[int], bool],
        noted: Noted,
        mute: Mute | None = None,
        on_idle: Callable[[], None] = lambda: None,
        settles: Callable[[], bool] = lambda: False,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._inbox = inbox
        self._symbols = frozenset(symbols)
        self._rows = rows
        self._known = dict(seen or {})
        self._released = known_until(self._known, last, _LAG)
        self._now = now
        self._grace = int(grace_seconds * 1e9)
        self._stale = stale_seconds * 1e9
        self._in_session = in_session
        self._noted = noted
        self._mute = mute
        self._on_idle = on_idle
        self._settles = settles
        self._monotonic_ns = monotonic_ns
        self._waiting: dict[int, dict[str, Row]] = {}
        self._first: dict[int, int] = {}
        self._had: dict[str, deque[int]] = {symbol: deque(maxlen=_REMEMBERED) for symbol in symbols}
        # Bars that end after this moment may have been missed; None: there are none.
        self._gap: int | None = self._released
        self._retry_at = self._ask_at = self._renew_at = 0
        # When the stream brought its last bar, and whether it is known to keep bars back, or may do so.
        self._heard, self._suspect = monotonic_ns(), False

    def __iter__(self) -> Iterator[Arrived]:
        self._heard = self._monotonic_ns()
        yield from self._missed(self._now())
        while not self._inbox.stopped:
            if self._reconnected():
                yield from self._missed(self._now())
            for message in self._inbox.take_bars():
                self._heard, self._suspect = message.received, False
                self._keep(message)
            while not self._inbox.stopped and (end := self._due()) is not None:
                if self._gap is not None:
                    # The history of the last minute may have come later than the connection.
                    yield from self._missed(end - MINUTE)
                    if self._fails and self._monotonic_ns() - self._first[end] < _HOLD:
                        break
                    self._gap = self._gap if self._fails else None
                fresh = self._gap is None and self._now() - end <= self._stale
                yield self._release(end, fresh=fresh)
            if self._mute is not None:
                yield from self._instead_of(self._mute)
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

    # --- bars that wait for others ---------------------------------------------------------------------------------

    def _keep(self, message: BarMessage) -> None:
        try:
            symbol, end, row = message.fields["S"], start_of(message.fields) + MINUTE, checked_row_of(message.fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._noted("garbled", detail=f"{type(error).__name__}: {error}"[:200])
            return
        if symbol not in self._symbols or not self._in_session(end):
            return
        had = self._had[symbol]
        if message.revised:
            self._noted("revision", symbol=symbol, time=end, bar=list(row))
        elif end <= self._known.get(symbol, 0) or end in had:
            return
        elif end > self._released:
            self._waiting.setdefault(end, {}).setdefault(symbol, row)
            self._first.setdefault(end, message.received)
        elif len(had) < _REMEMBERED or end > had[0]:
            had.append(end)
            self._noted("late", symbol=symbol, time=end, bar=list(row))

    def _due(self) -> int | None:
        """The earliest minute that waits, if it is to be released."""
        if not self._waiting or self._monotonic_ns() < self._retry_at:
            return None
        end = min(self._waiting)
        complete = len(self._waiting[end]) == len(self._symbols)
        return end if complete or self._monotonic_ns() - self._first[end] >= self._grace else None

    def _release(self, end: int, *, fresh: bool) -> Arrived:
        self._released = end
        bars = self._waiting.pop(end)
        for symbol in bars:
            self._had[symbol].append(end)
        return Arrived(end, dict(sorted(bars.items())), fresh, self._first.pop(end))

    def _patience(self) -> float:
        if not self._waiting:
            return _SLICE_SECONDS
        now = self._monotonic_ns()
        left = max(self._grace - (now - self._first[min(self._waiting)]), self._retry_at - now)
        return max(0.001, min(_SLICE_SECONDS, left / 1e9))

    # --- bars from the history -------------------------------------------------------------------------------------

    @property
    def _fails(self) -> bool:
        """Whether the history gave no answer just now."""
        return self._retry_at > 0

    def _missed(self, until: int, *, decides: bool = False) -> Iterator[Arrived]:
        """Bars of the gap, until then, from the history; the newest may yet wait for others.

        Without a gap, one begins with the last minute released. ``decides``: the newest is decided on, if it is fresh.
        """
        self._gap = since = self._released if self._gap is None else self._gap
        self._retry_at = 0
        if until - since < MINUTE:
            return
        try:
            found = self._rows(moment(since), moment(until - MINUTE))
        except NoAnswer as error:
            self._noted("connection", stream="history", state="error", detail=str(error))
            self._retry_at, self._suspect = self._monotonic_ns() + _RETRY, True
            return
        received = self._monotonic_ns()
        for symbol, rows in found.items():
            for row in rows:
                self._keep(BarMessage({**row, "S": symbol}, received))
        now = self._now()
        ends = sorted(end for end in self._waiting if end <= until and now - end >= self._grace)
        if ends:
            # A bar counts from its end on: a history that lags behind for long is as good as none.
            self._inbox.last_bar = max(self._inbox.last_bar, received - (now - ends[-1]))
            self._suspect = True
        for end in ends:
            yield self._release(end, fresh=decides and end == ends[-1] and now - end < _FRESH)
        self._gap = self._released

    def _instead_of(self, mute: Mute) -> Iterator[Arrived]:
        """What the stream should have brought during a session, where it has been mute for a while."""
        now, tick = self._now(), self._monotonic_ns()
        opened, closed = mute.hours(now)
        if not opened < now < closed + _CLOSING:
            return
        # Nobody expects a bar of the night.
        silent = min(tick - self._heard, now - opened - _OPENING) / 1e9
        if silent >= mute.fetch_seconds and tick >= self._ask_at:
            self._ask_at = tick + _ASK_AGAIN
            yield from self._missed((now - _SETTLED) // MINUTE * MINUTE, decides=True)
        if silent >= mute.renew_seconds and self._suspect and now < closed and tick >= self._renew_at:
            self._renew_at = tick + int(mute.renew_seconds * 1e9)
            detail = f"no bar for {silent:.0f} seconds, although there are some; it is made anew"
            self._noted("connection", stream=BARS, state="mute", detail=detail)
            mute.renew()
