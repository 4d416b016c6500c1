"""Where the steps of a paper run come from: bars that are complete at one time, one step after another.

``LockStep`` moves an embedded exchange on by itself. ``StreamedMinutes`` (in ``minutes``) waits for Alpaca's minute
bars, and ``PolledBars`` (in ``polled``) for the end of each longer bar, which it then fetches: streamed daily bars are
partial.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import pandas as pd

from engine.data.timeframes import bar_starts, duration, is_intraday
from engine.errors import BrokerError
from engine.live.control import Advance, Control
from engine.live.inbox import Inbox

Row = tuple[float, float, float, float, float]

_LOCK_STEP_SECONDS, _SECONDS_AFTER_STOP = 20.0, 2.0


class Arrived(NamedTuple):
    """The bars of one step.

    Attributes:
        time: when they were complete, UTC ns.
        bars: symbol -> open, high, low, close, volume; none, where only what the broker told is to be booked.
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
"""Alpaca's own rows of all symbols whose bars start in [from, to]; a ``NoAnswer`` where there is none for now."""

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
            if not self._complete(at):
                return
            if self._streamed:
                found = {m.fields["S"]: row_of(m.fields) for m in inbox.take_bars() if not m.revised}
                received = inbox.last_bar
            else:
                found = self._fetched(at.time)
                received = time.monotonic_ns()
            yield Arrived(at.time, dict(sorted(found.items())), True, received)
            self._last = at.time

    def _complete(self, at: Advance) -> bool:
        """Wait for what the exchange pushed; False where a stop came, and it did not come after that either."""
        inbox = self._inbox
        bars = at.bars if self._streamed else 0

        def complete() -> bool:
            return inbox.updates_received >= at.updates and inbox.bars_received >= bars

        if complete() or inbox.wait(complete, _LOCK_STEP_SECONDS):
            return True
        if inbox.stopped:
            # The exchange has moved on already: a step is taken as a whole.
            return inbox.wait(complete, _SECONDS_AFTER_STOP, through_stop=True)
        raise BrokerError(
            f"the exchange pushed {at.updates} updates and {bars} bars, and {inbox.updates_received} and "
            f"{inbox.bars_received} arrived within {_LOCK_STEP_SECONDS:g} seconds"
        )

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


def start_of(fields: Mapping[str, Any]) -> int:
    """UTC ns with which Alpaca stamps a bar, from the stream (a msgpack timestamp) or from JSON (ISO 8601)."""
    stamp = fields["t"]
    if isinstance(stamp, str):
        return int(datetime.fromisoformat(stamp).timestamp()) * 1_000_000_000
    return int(stamp.to_unix_nano())


def row_of(fields: Mapping[str, Any]) -> Row:
    """Open, high, low, close, volume of Alpaca's fields."""
    return (float(fields["o"]), float(fields["h"]), float(fields["l"]), float(fields["c"]), float(fields["v"]))


def checked_row_of(fields: Mapping[str, Any]) -> Row:
    """As ``row_of``; a ValueError where these are the prices of no bar."""
    row = opening, high, low, close, volume = row_of(fields)
    sound = 0.0 < low <= min(opening, close) <= max(opening, close) <= high and volume >= 0.0
    if not (sound and all(map(math.isfinite, row))):
        raise ValueError(f"no bar has such prices: {row}")
    return row


def moment(nanoseconds: int) -> datetime:
    """UTC ns as the SDK takes a time."""
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC)


def known_until(seen: Mapping[str, int], last: int, lag: int) -> int:
    """From which moment on, UTC ns, a symbol may lack bars that another one has: its history may have lagged behind.

    ``seen``: symbol -> end of its last known bar. ``last``: of all of them. ``lag``: how far back is looked at most.
    """
    return max(min(last, *seen.values()) if seen else last, last - lag)


def starts_seen(history: Mapping[str, pd.DataFrame], timeframe: str) -> dict[str, int]:
    """Symbol -> UTC ns with which Alpaca stamps its last known bar."""
    return {
        symbol: int(bar_starts(pd.DatetimeIndex(frame.index[-1:]), timeframe).asi8[0])
        for symbol, frame in history.items()
        if len(frame)
    }
