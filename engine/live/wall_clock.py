"""The source of a run that keeps real time, or the time of an exchange that does not wait: streamed or polled bars."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pandas as pd

from engine.config import RunConfig
from engine.data.aggregation import next_end
from engine.data.bars import Bars
from engine.data.calendars import session_hours, session_number, sessions_of
from engine.errors import BrokerError
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.inbox import Inbox
from engine.live.minutes import Mute, StreamedMinutes
from engine.live.polled import PolledBars
from engine.live.rest import NoAnswer
from engine.live.sources import Source

_GRACE_SECONDS, _SHORTEST_GRACE_SECONDS = 3.0, 0.05
# After the end of a longer bar: how long it is given to settle, and how long a symbol without one is waited for then.
_SETTLE_SECONDS = {"1d": 60.0, "1w": 60.0, "1mo": 60.0}
_INTRADAY_SETTLE_SECONDS = 5.0
# A minute is decided on until the next one is over, and so much later by this machine's clock.
_STALE_SECONDS = 5.0
_CATCH_UP_SECONDS = 60.0
_TRY_SECONDS, _CLOSE_SECONDS = 5.0, 60.0
_CLOCK_SECONDS = 60.0
_OVER_SECONDS, _SETTLED = 2.0, 60.0


def wall_clock_source(
    connection: Connection, config: RunConfig, clock: MarketClock, *, control: Control | None
) -> Callable[..., Source]:
    """A source for Alpaca, or for an exchange on this machine that runs by a clock of its own (``control``).

    What is returned takes the run, its journal, the bars that are known already, and what is to be done while nothing
    comes.
    """
    timeframe = config.data.timeframe
    hours = SessionHours()

    def source(run: Any, journal: Any, known: Bars, idle: Callable[[], None]) -> Source:
        seen = {symbol: int(frame.index[-1].value) for symbol, frame in known.frames.items() if len(frame)}
        last = max(seen.values(), default=clock.now())
        if run.time:
            # Where a run goes on, what its steps have passed by is late: it does not go back in time for it.
            seen = {symbol: max(seen.get(symbol, 0), run.time) for symbol in config.data.symbols}
        watch = Watch(
            connection.inbox,
            run,
            hours,
            clock.now,
            speed=clock.speed,
            stale_seconds=config.risk.stale_seconds,
            is_open=connection.is_open,
        )

        def noted(kind: str, **fields: Any) -> None:
            journal.write(kind, **fields)
            run.events.append(" ".join(str(value) for value in (kind, *fields.values()) if value != ""))
            if kind == "connection" and fields["state"] == "connected":
                watch.catch_up()

        def look(*silent: float) -> None:
            watch.look(*silent)
            idle()
            if clock.is_over():
                connection.inbox.finish()

        if timeframe == "1m":
            grace = max(_SHORTEST_GRACE_SECONDS, _GRACE_SECONDS / clock.speed)
            return StreamedMinutes(
                connection.inbox,
                symbols=config.data.symbols,
                rows=connection.rows,
                last=last,
                seen=seen,
                now=clock.now,
                grace_seconds=grace,
                stale_seconds=60.0 + (grace + _STALE_SECONDS) * clock.speed,
                in_session=hours.holds_minute,
                noted=noted,
                # An exchange on this machine loses nothing, and its time may run much faster.
                mute=Mute(hours=hours.of, renew=connection.renew_bars) if control is None else None,
                on_idle=look,
                settles=watch.settles,
            )
        settling = _settling(timeframe, clock.speed)
        return PolledBars(
            connection.inbox,
            symbols=config.data.symbols,
            rows=connection.rows,
            seen=seen,
            last=last,
            timeframe=timeframe,
            now=clock.now,
            speed=clock.speed,
            next_end=lambda after: next_end(after, config.data),
            settle_seconds=settling,
            grace_seconds=settling,
            noted=noted,
            made=config.data.base is not None,
            on_idle=look,
            settles=watch.settles,
        )

    return source


def _settling(timeframe: str, speed: float) -> float:
    """Seconds of the market's time from the end of a bar to the moment at which it is fetched."""
    if not math.isfinite(speed):
        return 0.0  # such an exchange's time stands still in between
    return max(_SETTLE_SECONDS.get(timeframe, _INTRADAY_SETTLE_SECONDS), _SHORTEST_GRACE_SECONDS * speed)


class MarketClock:
    """The machine's clock, or the simulated one of an exchange on this machine."""

    def __init__(self, control: Control | None) -> None:
        self._control = control
        status: Mapping[str, Any] = {} if control is None else control.status()
        self.speed = float(status.get("speed") or 1.0)
        self._told = self._at = 0
        self._done = False

    def now(self) -> int:
        """UTC ns. An exchange's time moves from bar to bar; in between it is taken to go on at its speed.

        While it does not answer, it stands still: nothing is known of it then.
        """
        if self._control is None:
            return time.time_ns()
        try:
            status = self._control.status(patient=False)
        except BrokerError:
            if not self._told:
                raise
            self._at = time.monotonic_ns()
            return self._told
        told, self._done = int(status["time"]), bool(status["done"])
        if told != self._told:
            self._told, self._at = told, time.monotonic_ns()
        return told + int((time.monotonic_ns() - self._at) * self.speed) if math.isfinite(self.speed) else told

    def has_passed(self, due: int) -> bool:
        """Whether the end of a bar (UTC ns) is over, and what was decided before it is late."""
        slack = int((_SHORTEST_GRACE_SECONDS + _STALE_SECONDS) * self.speed * 1e9) if math.isfinite(self.speed) else 0
        return self.now() > due + slack

    def is_over(self) -> bool:
        """Whether an exchange on this machine has shown its last bar some time ago."""
        return self._done and time.monotonic_ns() - self._at > (_OVER_SECONDS + 2 * _SETTLED / self.speed) * 1e9


class SessionHours:
    """Opening hours of the New York session of a moment, asked of the calendar once a day."""

    def __init__(self) -> None:
        self._day = -1
        self._open = self._close = 0

    def of(self, moment: int) -> tuple[int, int]:
        """Open and close of the session of that day, UTC ns; twice the same moment where there is none."""
        day = session_number(moment)
        if day != self._day:
            opens, closes = session_hours(sessions_of(pd.DatetimeIndex([moment], tz="UTC")))
            closed = pd.isna(opens[0])
            self._open, self._close = (0, 0) if closed else (int(opens[0].value), int(closes[0].value))
            self._day = day
        return self._open, self._close

    def holds_minute(self, end: int) -> bool:
        """Whether the minute that ends then lies within the regular session."""
        opened, closed = self.of(end)
        return opened < end <= closed


class Watch:
    """Looks at a mute feed and a mute broker while nothing comes."""

    def __init__(
        self,
        inbox: Inbox,
        run: Any,
        hours: SessionHours,
        now: Callable[[], int],
        *,
        speed: float = 1.0,
        stale_seconds: float | None = None,
        is_open: Callable[[], bool] = lambda: True,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Watch a run.

        Args:
            now: the market's time, UTC ns, which runs ``speed`` times as fast as this machine's.
            stale_seconds: silence after which the run halts; None: never.
            is_open: whether the market is open by the broker's clock, which is asked before a halt; may raise NoAnswer.
        """
        self._inbox = inbox
        self._run = run
        self._hours = hours
        self._now = now
        self._speed = speed
        self._stale_seconds = stale_seconds
        self._is_open = is_open
        self._monotonic_ns = monotonic_ns
        self._asked = monotonic_ns()
        # When the broker's clock was asked; and when it said, in a session of the calendar, that the market is closed.
        self._clock_asked: int | None = None
        self._closed: int | None = None
        self._settled = False
        self._tried = monotonic_ns()

    def look(self, overdue: float | None = None) -> None:
        """Halt on a feed that is silent for too long; ask for orders that nothing was heard of.

        ``overdue``: for how many seconds a bar has been due; None where bars are streamed.
        """
        moment, now = self._now(), self._monotonic_ns()
        opened, closed = self._hours.of(moment)
        if opened <= moment < closed:
            silent = (now - self._inbox.last_bar) / 1e9 if overdue is None else overdue / self._speed
            # Nobody expects a bar of the night.
            silent = min(silent, (moment - opened) / 1e9 / self._speed)
            if self._closed is not None:
                silent = min(silent, (now - self._closed) / 1e9)
            self._run.check_feed(silent_seconds=silent, is_open=not self._is_closed(silent, now))
        if now - self._asked >= _CATCH_UP_SECONDS * 1e9:
            self.catch_up()

    def _is_closed(self, silent: float, now: int) -> bool:
        """Whether the broker says, before a halt, that the market is closed: nobody expects bars then."""
        if self._stale_seconds is None or silent <= self._stale_seconds or self._run.halted:
            return False
        if self._clock_asked is None or now - self._clock_asked >= _CLOCK_SECONDS * 1e9:
            self._clock_asked = now
            try:
                if not self._is_open():
                    self._closed = now
            except NoAnswer:
                return False
        return self._closed == self._clock_asked

    def catch_up(self) -> None:
        """Ask for the orders whose end was not heard of."""
        self._asked = self._monotonic_ns()
        with suppress(NoAnswer):  # there will be another time
            self._run.venue.desk.catch_up(self._run.venue.waiting)

    def settles(self) -> bool:
        """Whether a step without a bar is due.

        A halted run is to book what the broker told: it may wait for a bar for ever. What the broker has not answered
        to is tried again, and so, less often, is the closing of what it does not let go.
        """
        now, run = self._monotonic_ns(), self._run
        for due, seconds in ((run.venue.has_outgoing, _TRY_SECONDS), (run.is_left_open, _CLOSE_SECONDS)):
            if due and now - self._tried >= seconds * 1e9:
                self._tried = now
                return True
        if not self._run.halted or (self._settled and not self._inbox.has_updates):
            return False
        self._settled = True
        return True
