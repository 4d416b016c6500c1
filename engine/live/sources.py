"""Where the steps of a paper run come from: bars that are complete at one time, one step after another.

``LockStep`` moves an embedded exchange on by itself. ``StreamedMinutes`` waits for Alpaca's minute bars, and
``PolledBars`` for the end of each longer bar, which it then fetches: streamed daily bars are partial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import pandas as pd

from engine.data.timeframes import bar_starts, duration, is_intraday
from engine.errors import BrokerError
from engine.live.control import Control
from engine.live.inbox import BarMessage, Inbox
from engine.live.streams import BARS

Row = tuple[float, float, float, float, float]

_LOCK_STEP_SECONDS = 20.0
_MINUTE = 60_000_000_000


class Arrived(NamedTuple):
    """The bars of one step.

    Attributes:
        time: when they were complete, UTC ns.
        bars: symbol -> open, high, low, close, volume.
        decide: whether they are fresh enough to be decided on.
        received: monotonic ns at which the last of them came.
    """

    time: int
    bars: Mapping[str, Row]
    decide: bool
    received: int


class Source(Protocol):
    """Gives the steps; asked for the next one when the one before has been dealt with."""

    def __iter__(self) -> Iterator[Arrived]: ...


Rows = Callable[[datetime, datetime], Mapping[str, Sequence[Mapping[str, Any]]]]
"""Alpaca's own rows of all symbols whose bars start in [from, to]."""

Noted = Callable[..., None]
"""Takes what the run should remember: a kind and its fields."""


class LockStep:
    """The embedded exchange, moved on one step at a time; every step is deterministic.

    Args:
        streamed: whether the bars come through the socket (minutes), or are fetched after each step.
        last: end of the last bar that is known already, UTC ns.
        before_step: called before each step: it may wait, so that a person can watch.
    """

    def __init__(
        self,
        control: Control,
        inbox: Inbox,
        *,
        timeframe: str,
        streamed: bool,
        rows: Rows,
        seen: Mapping[str, int],
        last: int,
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._control = control
        self._inbox = inbox
        self._streamed = streamed
        self._rows = rows
        self._last = last
        self._seen = dict(seen)
        self._reach = int(duration(timeframe).value) if is_intraday(timeframe) else 0
        self._before_step = before_step

    def __iter__(self) -> Iterator[Arrived]:
        inbox = self._inbox
        while not inbox.stopped:
            self._before_step()
            at = self._control.advance()
            if at.time is None:
                return
            if inbox.updates_received < at.updates or (self._streamed and inbox.bars_received < at.bars):
                bars = at.bars if self._streamed else 0
                complete = inbox.wait(
                    lambda wanted=at.updates, bars=bars: (  # type: ignore[misc]
                        inbox.updates_received >= wanted and inbox.bars_received >= bars
                    ),
                    _LOCK_STEP_SECONDS,
                )
                if not complete and not inbox.stopped:
                    raise BrokerError(
                        f"the exchange pushed {at.updates} updates and {bars} bars, and {inbox.updates_received} and "
                        f"{inbox.bars_received} arrived within {_LOCK_STEP_SECONDS:g} seconds"
                    )
            if self._streamed:
                found = {m.fields["S"]: row_of(m.fields) for m in inbox.take_bars() if not m.revised}
                received = inbox.last_bar
            else:
                found = self._fetched(at.time)
                received = time.monotonic_ns()
            yield Arrived(at.time, dict(sorted(found.items())), True, received)
            self._last = at.time

    def _fetched(self, now: int) -> dict[str, Row]:
        """What is new since the last step ended with this one: the exchange shows no bar before it is complete."""
        found = {}
        for symbol, rows in self._rows(moment(self._last - self._reach), moment(now - 1)).items():
            for row in rows:
                start = start_of(row)
                if start > self._seen.get(symbol, 0):
                    self._seen[symbol] = start
                    found[symbol] = row_of(row)
        return found


class StreamedMinutes:
    """Minute bars from the stream, released when all symbols have one, or after a grace period.

    Thin symbols have no bar in many minutes: none is invented. A bar that comes after its minute was released is noted
    and not decided on. After a connection was lost, and at the start, what was missed is fetched; it is seen, and not
    decided on.
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
        in_session: Callable[[int], bool],
        noted: Noted,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._inbox = inbox
        self._symbols = frozenset(symbols)
        self._rows = rows
        self._released = last
        self._now = now
        self._grace = int(grace_seconds * 1e9)
        self._in_session = in_session
        self._noted = noted
        self._on_idle = on_idle
        self._waiting: dict[int, dict[str, Row]] = {}
        self._first: dict[int, int] = {}

    def __iter__(self) -> Iterator[Arrived]:
        yield from self._missed()
        while not self._inbox.stopped:
            reconnected = self._events()
            if reconnected:
                yield from self._missed()
            for message in self._inbox.take_bars():
                self._keep(message)
            step = self._due()
            if step is not None:
                yield step
                continue
            self._inbox.wait(lambda: self._inbox.has_bars or self._inbox.has_events, self._patience())
            self._on_idle()

    def _events(self) -> bool:
        back = False
        for event in self._inbox.take_events():
            self._noted("connection", stream=event.stream, state=event.state, detail=event.detail)
            back = back or (event.stream == BARS and event.state == "connected")
        return back

    def _keep(self, message: BarMessage) -> None:
        symbol, end = message.fields["S"], start_of(message.fields) + _MINUTE
        if symbol not in self._symbols or not self._in_session(end):
            return
        row = row_of(message.fields)
        if message.revised or end <= self._released:
            self._noted("revision" if message.revised else "late", symbol=symbol, time=end, bar=list(row))
            return
        self._waiting.setdefault(end, {}).setdefault(symbol, row)
        self._first.setdefault(end, message.received)

    def _due(self) -> Arrived | None:
        if not self._waiting:
            return None
        end = min(self._waiting)
        complete = len(self._waiting[end]) == len(self._symbols)
        if not (complete or len(self._waiting) > 1 or time.monotonic_ns() - self._first[end] >= self._grace):
            return None
        self._released = end
        received = self._first.pop(end)
        return Arrived(end, dict(sorted(self._waiting.pop(end).items())), True, received)

    def _patience(self) -> float:
        if not self._waiting:
            return 0.5
        left = self._grace - (time.monotonic_ns() - self._first[min(self._waiting)])
        return max(0.001, min(0.5, left / 1e9))

    def _missed(self) -> Iterator[Arrived]:
        """Bars between the last one released and now, from the history."""
        until = self._now()
        if until - self._released < 2 * _MINUTE:
            return
        steps: dict[int, dict[str, Row]] = {}
        for symbol, rows in self._rows(moment(self._released), moment(until - _MINUTE)).items():
            for row in rows:
                end = start_of(row) + _MINUTE
                if self._released < end <= until and self._in_session(end):
                    steps.setdefault(end, {})[symbol] = row_of(row)
        for end in sorted(steps):
            self._released = end
            # What the stream has brought of it meanwhile is the same bar.
            bars = {**self._waiting.pop(end, {}), **steps[end]}
            self._first.pop(end, None)
            yield Arrived(end, dict(sorted(bars.items())), False, time.monotonic_ns())


class PolledBars:
    """Bars longer than a minute: each is fetched once it is complete and has had time to settle.

    Args:
        next_end: the end of the first bar after a moment, both UTC ns.
        settle_seconds: how long after its end a bar is fetched.
        grace_seconds: how long a symbol's bar is waited for beyond that, while others have theirs.
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
        next_end: Callable[[int], int],
        settle_seconds: float,
        grace_seconds: float,
        noted: Noted,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._inbox = inbox
        self._symbols = frozenset(symbols)
        self._rows = rows
        self._seen = dict(seen)
        self._last = last
        self._reach = int(duration(timeframe).value) if is_intraday(timeframe) else 0
        self._now = now
        self._next_end = next_end
        self._settle = int(settle_seconds * 1e9)
        self._grace = int(grace_seconds * 1e9)
        self._noted = noted
        self._on_idle = on_idle

    def __iter__(self) -> Iterator[Arrived]:
        while not self._inbox.stopped:
            end = self._next_end(self._last)
            if not self._wait_until(end + self._settle):
                return
            step = self._completed(end)
            if step is not None:
                yield step
            self._last = end

    def _wait_until(self, moment: int) -> bool:
        while not self._inbox.stopped:
            for event in self._inbox.take_events():
                self._noted("connection", stream=event.stream, state=event.state, detail=event.detail)
            left = moment - self._now()
            if left <= 0:
                return True
            self._inbox.wait(lambda: self._inbox.has_events, min(0.5, left / 1e9))
            self._on_idle()
        return False

    def _completed(self, end: int) -> Arrived | None:
        """The bars that end then; one that is older than the next bar is seen, and not decided on."""
        deadline = end + self._settle + self._grace
        found: dict[str, Row] = {}
        while True:
            for symbol, rows in self._rows(moment(self._last - self._reach), moment(end - 1)).items():
                for row in rows:
                    start = start_of(row)
                    if start > self._seen.get(symbol, 0):
                        self._seen[symbol] = start
                        found[symbol] = row_of(row)
            if len(found) == len(self._symbols) or self._now() >= deadline:
                break
            if not self._wait_until(min(deadline, self._now() + 1_000_000_000)):
                return None
        if not found:
            return None
        fresh = self._now() < self._next_end(end)
        return Arrived(end, dict(sorted(found.items())), fresh, time.monotonic_ns())


def start_of(fields: Mapping[str, Any]) -> int:
    """UTC ns with which Alpaca stamps a bar, from the stream (a msgpack timestamp) or from JSON (ISO 8601)."""
    stamp = fields["t"]
    if isinstance(stamp, str):
        return int(datetime.fromisoformat(stamp).timestamp()) * 1_000_000_000
    return int(stamp.to_unix_nano())


def row_of(fields: Mapping[str, Any]) -> Row:
    """Open, high, low, close, volume of Alpaca's fields."""
    return (float(fields["o"]), float(fields["h"]), float(fields["l"]), float(fields["c"]), float(fields["v"]))


def moment(nanoseconds: int) -> datetime:
    """UTC ns as the SDK takes a time."""
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC)


def starts_seen(history: Mapping[str, pd.DataFrame], timeframe: str) -> dict[str, int]:
    """Symbol -> UTC ns with which Alpaca stamps its last known bar."""
    return {
        symbol: int(bar_starts(pd.DatetimeIndex(frame.index[-1:]), timeframe).asi8[0])
        for symbol, frame in history.items()
        if len(frame)
    }
