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

from engine.data.timeframes import bar_ends, bar_starts, duration, is_intraday, spans_days
from engine.errors import BrokerError
from engine.live.control import Advance, Control
from engine.live.inbox import Inbox
from engine.live.rest import NoAnswer
from engine.live.streams import BARS, TRADES

Row = tuple[float, float, float, float, float]

# How long what was pushed is waited for before it is asked for, at first and while messages are known to get lost.
_LOCK_STEP_SECONDS, _MISTRUSTED_SECONDS = 1.0, 0.02
# How long an exchange that does not answer is asked again, and how often.
_ANSWER_SECONDS, _AGAIN_SECONDS, _SECONDS_AFTER_STOP = 60.0, 0.1, 2.0


# How long before its end Alpaca stamps a bar, at most.
_DAY = 24 * 3_600_000_000_000
REACH = {"1d": _DAY + 2 * 3_600_000_000_000, "1w": 7 * _DAY, "1mo": 32 * _DAY}


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
    """The embedded exchange, moved on one step at a time; every step is deterministic, whatever gets lost on the way.

    The exchange stands still between two steps. What it has pushed and what has not arrived, it is asked for.

    Args:
        streamed: whether the bars come through the socket (minutes), or are fetched after each step.
        seen: symbol -> UTC ns with which its last known bar is stamped.
        last: end of the last bar that is known already, UTC ns.
        clock: the exchange's time as it was last known, UTC ns.
        catch_up: asks for the orders whose end is not known; a ``NoAnswer`` where the exchange says nothing.
        waits: whether something is still to be sent, before the exchange may move on.
        noted: takes what the run should remember.
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
        clock: int,
        catch_up: Callable[[], object],
        waits: Callable[[], bool],
        noted: Noted,
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._control = control
        self._inbox = inbox
        self._timeframe = timeframe
        self._streamed = streamed
        self._rows = rows
        self._last = last
        self._clock = clock
        self._seen = dict(seen)
        # Steps of an exchange's days come between the ends of weeks and months that are made of them.
        self._reach = REACH[timeframe] if spans_days(timeframe) else 0
        if is_intraday(timeframe):
            self._reach = int(duration(timeframe).value)
        self._catch_up = catch_up
        self._waits = waits
        self._noted = noted
        self._before_step = before_step
        # Whether messages that were to come have not come lately.
        self._mistrusted = False

    def missed(self) -> Iterator[Arrived]:
        """The steps that the exchange has taken already, and that the run has not seen.

        Raises:
            BrokerError: it stands before the last step that the run has seen.
        """
        stands = int(self._control.status()["time"])
        if stands < self._clock:
            raise BrokerError(
                f"the exchange stands at {moment(stands):%Y-%m-%d %H:%M} UTC, and the journal ends at "
                f"{moment(self._clock):%Y-%m-%d %H:%M}: its state is not that of this run; begin another with --new"
            )
        if stands > self._clock:
            yield from self._taken(self._control.advance(self._clock))

    def __iter__(self) -> Iterator[Arrived]:
        inbox = self._inbox
        while not inbox.stopped:
            self._before_step()
            yield from self._until_sent()
            if inbox.stopped:
                return
            at = self._control.advance(self._clock)
            if at.time is None:
                return
            yield from self._taken(at)

    def _until_sent(self) -> Iterator[Arrived]:
        """Steps without bars, until everything is sent that was decided on."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self._waits() and not self._inbox.stopped:
            yield Arrived(self._last, {}, False, time.monotonic_ns())
            if not self._waits():
                return
            if time.monotonic() >= deadline:
                raise BrokerError(
                    f"the exchange has not taken an order for {_ANSWER_SECONDS:g} seconds; start the run again, it "
                    "goes on from there"
                )
            self._inbox.wait(lambda: False, _AGAIN_SECONDS)

    def _taken(self, at: Advance) -> Iterator[Arrived]:
        """The bars of a step that the exchange has taken, and of those before it that are not known."""
        assert at.time is not None
        hears = at.hears_trades and (at.hears_bars or not self._streamed)
        complete = at.moved and hears and self._has_all(at)
        self._inbox.forget_executions()
        for event in self._inbox.take_events():
            self._noted("connection", stream=event.stream, state=event.state, detail=event.detail)
        if not complete:
            self._answer("its orders", self._catch_up)
        found = self._from_stream(at) if self._streamed else None
        if found is None or not complete:
            found = self._fetched(at)
        received = self._inbox.last_bar if self._streamed and complete else time.monotonic_ns()
        for end in sorted(found):
            if end != at.time:
                yield Arrived(end, dict(sorted(found[end].items())), False, received)
        bars = found.get(at.time, {})
        yield Arrived(at.time, dict(sorted(bars.items())), bool(bars), received)
        self._last = self._clock = at.time

    def _has_all(self, at: Advance) -> bool:
        """Wait for what the exchange has pushed; whether all of it is there."""
        inbox = self._inbox
        bars = at.shown if self._streamed else 0

        def complete() -> bool:
            return at.told <= inbox.executions and (
                not bars or (inbox.bars_waiting >= bars and inbox.count_bars(start_of, at.start) >= bars)
            )

        if complete():
            self._mistrusted = False
            return True
        if not {TRADES, *([BARS] if self._streamed else [])} <= inbox.connected:
            return False
        # A step is taken as a whole, also when the run is to end.
        patience = _MISTRUSTED_SECONDS if self._mistrusted else _LOCK_STEP_SECONDS
        self._mistrusted = not inbox.wait(complete, patience, through_stop=True)
        return not self._mistrusted

    def _from_stream(self, at: Advance) -> dict[int, dict[str, Row]] | None:
        """The step's bars from the socket; what belongs to another step is left to the history."""
        found = {}
        for message in self._inbox.take_bars():
            symbol, start = message.fields["S"], start_of(message.fields)
            if message.revised:
                self._noted("revision", symbol=symbol, time=start, bar=list(row_of(message.fields)))
            elif start == at.start and start > self._seen.get(symbol, 0):
                self._seen[symbol] = start
                found[symbol] = row_of(message.fields)
        assert at.time is not None
        return {at.time: found}

    def _fetched(self, at: Advance) -> dict[int, dict[str, Row]]:
        """New bars from the history by their ends: the exchange shows no bar before it is complete."""
        assert at.time is not None
        first, last = moment(self._last - self._reach), moment(at.time - 1)
        found: dict[int, dict[str, Row]] = {at.time: {}}
        for symbol, rows in self._answer("its bars", lambda: self._rows(first, last)).items():
            for row in rows:
                start = start_of(row)
                known = self._seen.get(symbol, 0)
                if start > known or (self._streamed and start == at.start):
                    self._seen[symbol] = start
                    end = at.time if start == at.start else _end_of(start, self._timeframe)
                    if end > self._clock:
                        found.setdefault(end, {})[symbol] = row_of(row)
                    elif known:
                        self._noted("late", symbol=symbol, time=end, bar=list(row_of(row)))
        return found

    def _answer(self, what: str, ask: Callable[[], Any]) -> Any:
        """What the exchange answers, where it does so within a while."""
        begun = time.monotonic()
        while True:
            try:
                return ask()
            except NoAnswer as error:
                patience = _SECONDS_AFTER_STOP if self._inbox.stopped else _ANSWER_SECONDS
                if time.monotonic() - begun >= patience:
                    raise BrokerError(f"the exchange does not answer for {what}: {error}") from error
                self._inbox.wait(lambda: False, _AGAIN_SECONDS, through_stop=True)


def _end_of(start: int, timeframe: str) -> int:
    return int(bar_ends(pd.DatetimeIndex([start], tz="UTC"), timeframe).as_unit("ns")[0].value)


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
