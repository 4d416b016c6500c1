"""The source of a run that keeps real time, or the time of an exchange that does not wait: streamed or polled bars."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.calendars import session_hours, sessions_of
from engine.data.timeframes import next_bar_end
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.desk import AlpacaDesk
from engine.live.sources import PolledBars, Source, StreamedMinutes, starts_seen

_GRACE_SECONDS = 3.0
_SETTLE_SECONDS = {"1d": 60.0, "1w": 60.0}
_INTRADAY_SETTLE_SECONDS = 5.0
_POLL_GRACE_SECONDS = 60.0
_CATCH_UP_SECONDS = 60.0
_DAY = 86_400_000_000_000


def wall_clock_source(
    connection: Connection, config: RunConfig, history: Bars, *, control: Control | None
) -> Callable[[Any, Any], Source]:
    """A source for Alpaca, or for an exchange on this machine that runs by a clock of its own (``control``)."""
    clock = _Clock(control)
    known = [int(frame.index[-1].value) for frame in history.frames.values() if len(frame)]
    last = max(known, default=clock.now() - _DAY)
    hours = _SessionHours()

    def source(run: Any, journal: Any) -> Source:
        desk = AlpacaDesk(connection.trading, connection.inbox)
        watch = _Watch(connection, run, desk, hours, clock)

        def noted(kind: str, **fields: Any) -> None:
            journal.write(kind, **fields)
            run.events.append(" ".join(str(value) for value in (kind, *fields.values()) if value != ""))
            if kind == "connection" and fields["state"] == "connected":
                desk.catch_up(run.venue.waiting)

        if config.data.timeframe == "1m":
            return StreamedMinutes(
                connection.inbox,
                symbols=config.data.symbols,
                rows=connection.rows,
                last=last,
                now=clock.now,
                grace_seconds=_GRACE_SECONDS / clock.speed,
                in_session=hours.holds_minute,
                noted=noted,
                on_idle=watch.look,
            )
        return PolledBars(
            connection.inbox,
            symbols=config.data.symbols,
            rows=connection.rows,
            seen=starts_seen(history.frames, config.data.timeframe),
            last=last,
            timeframe=config.data.timeframe,
            now=clock.now,
            next_end=lambda after: next_bar_end(after, config.data.timeframe),
            settle_seconds=_SETTLE_SECONDS.get(config.data.timeframe, _INTRADAY_SETTLE_SECONDS),
            grace_seconds=_POLL_GRACE_SECONDS,
            noted=noted,
            on_idle=watch.look,
        )

    return source


class _Clock:
    """The machine's clock, or the simulated one of an exchange on this machine."""

    def __init__(self, control: Control | None) -> None:
        self._control = control
        status: Mapping[str, Any] = {} if control is None else control.status()
        self.speed = float(status.get("speed") or 1.0)

    def now(self) -> int:
        """UTC ns."""
        return time.time_ns() if self._control is None else int(self._control.status()["time"])


class _SessionHours:
    """Opening hours of the New York session of a moment, asked of the calendar once a day."""

    def __init__(self) -> None:
        self._day: Any = None
        self._open = self._close = 0

    def _hours(self, moment: int) -> tuple[int, int]:
        day = sessions_of(pd.DatetimeIndex([moment], tz="UTC"))
        if self._day is None or day[0] != self._day:
            opens, closes = session_hours(day)
            self._day = day[0]
            is_session = not pd.isna(opens[0])
            self._open, self._close = (int(opens[0].value), int(closes[0].value)) if is_session else (0, 0)
        return self._open, self._close

    def holds_minute(self, end: int) -> bool:
        """Whether the minute that ends then lies within the regular session."""
        opened, closed = self._hours(end)
        return opened < end <= closed

    def is_open(self, moment: int) -> bool:
        """Whether the market is open at a moment."""
        opened, closed = self._hours(moment)
        return opened <= moment < closed


class _Watch:
    """Looks at a mute feed and a mute broker while nothing comes."""

    def __init__(self, connection: Connection, run: Any, desk: AlpacaDesk, hours: _SessionHours, clock: _Clock) -> None:
        self._connection = connection
        self._run = run
        self._desk = desk
        self._hours = hours
        self._clock = clock
        self._asked = time.monotonic()

    def look(self) -> None:
        """Halt on a feed that is silent for too long; ask for orders that nothing was heard of."""
        now = time.monotonic()
        silent = (time.monotonic_ns() - self._connection.inbox.last_bar) / 1e9
        self._run.check_feed(silent_seconds=silent, is_open=self._hours.is_open(self._clock.now()))
        if now - self._asked >= _CATCH_UP_SECONDS:
            self._asked = now
            self._desk.catch_up(self._run.venue.waiting)
