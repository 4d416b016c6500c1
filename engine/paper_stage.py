"""Where a paper run trades: on the embedded exchange, which replays the test span, or at Alpaca; ready to begin."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from engine.config import RunConfig
from engine.credentials import Credentials, find_credentials
from engine.data.aggregation import made, most_bars, next_end
from engine.data.alpaca import DEFAULT_ADJUSTMENT, DEFAULT_FEED, fetch_bars
from engine.data.bars import Bars
from engine.data.quality import Quality
from engine.errors import DataError
from engine.exchange.account import PRACTICE, AccountSpec
from engine.exchange.server import ExchangeServer
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.journal import Journal
from engine.live.run import LiveRun
from engine.live.sources import LockStep, Source, starts_seen
from engine.live.wall_clock import MarketClock, wall_clock_source
from engine.preparation import Prepared, base_bars, refuse_seen_bars
from engine.remarks import absences, uncleaned
from engine.trading.orders import Order

# The file in a replay's folder in which its exchange keeps its state.
STATE = "exchange.sqlite"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a run trades, ready to begin or to go on.

    Attributes:
        mode: ``replay``, ``exchange`` or ``alpaca``. period: the span that is replayed.
        clock: the market's time now, UTC ns.
        history: gives the bars before the first decision.
        source: gives the steps; takes the run, its journal, the bars that are known already, the market's time at the
            last of them (UTC ns), and what is to be done while nothing comes.
        keep: has the exchange of a replay, which has not begun, keep its state in this folder.
        is_late: whether the time of an order's decision is over.
        real_time: whether it passes by the clock on the wall, and that clock's limits apply.
        check: refuses forecasters that have seen the bars which are traded.
        notes: what a user should know before the first bar, one sentence each.
        remarks: what belongs on the report, one sentence each.
    """

    mode: str
    period: tuple[str, str] | None
    clock: int
    connection: Connection
    history: Callable[[], Bars]
    source: Callable[[LiveRun, Journal, Bars, int, Callable[[], None]], Source]
    keep: Callable[[Path], None]
    is_late: Callable[[Order], bool]
    real_time: bool
    check: Callable[[Sequence[Any]], None]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def account(self) -> str:
        """The account's number."""
        return str(self.connection.account.get("account_number", ""))


@contextmanager
def replay_stage(prepared: Prepared, pace_seconds: float, *, root: Path, kept: Path | None) -> Iterator[Stage]:
    """The embedded exchange on the test span, in this process, behind real sockets.

    ``root``: the working folder. ``kept``: the folder of a replay that goes on; its exchange's state is in there.
    """
    config = prepared.config
    period = config.spans.get("test")
    refuse_seen_bars([prepared.forecaster] if prepared.forecaster else [], "test", period)
    used, start, absent = prepared.cut(period)
    last = max(frame.index[-1] for frame in used.frames.values())
    shown = replace(prepared.bars, frames={symbol: prepared.bars.frames[symbol] for symbol in used.symbols}).between(
        end=last
    )
    account = AccountSpec(key=PRACTICE[0], secret=secrets.token_urlsafe(24), broker=config.broker)
    narrowed = config.model_copy(update={"data": config.data.model_copy(update={"symbols": used.symbols})})
    state = None if kept is None else kept / STATE
    base = base_bars(config, root=root)
    with ExchangeServer(bars=shown, start=start, accounts=[account], state=state, base=base) as exchange:
        credentials = Credentials(
            key=account.key,
            secret=account.secret,
            trading_url=exchange.url,
            data_url=exchange.url,
            trading_stream_url=f"{exchange.url.replace('http:', 'ws:', 1)}/stream",
        )
        with Connection(credentials, narrowed, streamed=_streamed(config)) as connection:
            connection.check()
            control = Control(credentials)
            clock = int(control.status()["time"])

            def history() -> Bars:
                if clock >= start.value:
                    raise DataError(
                        f"the exchange of this run has gone on to {pd.Timestamp(clock, tz='UTC'):%Y-%m-%d %H:%M} UTC, "
                        "and its journal is empty: it has lost what it held; begin another run with --new"
                    )
                found = _warmup(prepared, credentials, narrowed, before=start)
                _same_history(found, used, start)
                # What is replayed has been cleaned as the backtest's bars, all of it before the first one is shown.
                return replace(found, quality=used.quality)

            try:
                yield Stage(
                    mode="replay",
                    period=(str(period[0]), str(period[1])),
                    clock=clock,
                    connection=connection,
                    history=history,
                    source=_lock_step(control, connection, config, pace_seconds),
                    keep=lambda folder: exchange.keep(folder / STATE),
                    is_late=lambda order: False,
                    real_time=False,
                    check=partial(_unseen, period=period),
                    notes=tuple(absences(absent, period)),
                    remarks=tuple(absences(absent, period)),
                )
            finally:
                control.close()


@contextmanager
def alpaca_stage(prepared: Prepared, now: datetime) -> Iterator[Stage]:
    """Alpaca's paper account, or an exchange on this machine that somebody has started."""
    config = prepared.by_name
    credentials = find_credentials(config.folder)
    with Connection(credentials, config, streamed=_streamed(config)) as connection:
        notes = connection.check()
        control = Control(credentials) if credentials.local else None
        try:
            status = control.status() if control is not None else {}
            moment = pd.Timestamp(status["time"], tz="UTC") if status else pd.Timestamp(now)
            lock_step = control is not None and status["mode"] == "lock-step"
            clock = MarketClock(control)
            if control is not None and lock_step:
                source = _lock_step(control, connection, config, 0.0)
            else:
                source = _on_the_wall(connection, config, clock, control)
            yield Stage(
                mode="exchange" if credentials.local else "alpaca",
                period=None,
                clock=int(moment.as_unit("ns").value),
                connection=connection,
                history=lambda: _warmup(prepared, credentials, config, before=moment),
                source=source,
                keep=lambda folder: None,
                is_late=lambda order: not lock_step and clock.has_passed(next_end(order.decided, config.data)),
                real_time=not lock_step,
                check=partial(_unseen, period=(moment.date(), moment.date())),
                notes=(*notes, *uncleaned(config.data)),
                remarks=tuple(uncleaned(config.data)),
            )
        finally:
            if control is not None:
                control.close()


def _unseen(forecasters: Sequence[Any], *, period: tuple[date, date]) -> None:
    refuse_seen_bars(forecasters, "test", period)


def _streamed(config: RunConfig) -> bool:
    """Alpaca streams minutes; longer bars are fetched."""
    return config.data.timeframe == "1m"


def _warmup(prepared: Prepared, credentials: Credentials, config: RunConfig, *, before: pd.Timestamp) -> Bars:
    """The last bars before a moment, from where the run trades."""
    frames = {symbol: prepared.bars.frames[symbol].iloc[:0] for symbol in config.data.symbols}
    if prepared.warmup:
        data = config.data
        options: dict[str, Any] = {
            "feed": data.feed or DEFAULT_FEED,
            "adjustment": data.adjustment or DEFAULT_ADJUSTMENT,
        }
        short, count = data.base or data.timeframe, prepared.warmup
        if data.base is not None:
            # So many that the last ones have their beginning, whichever of the shorter ones are missing.
            count = (count + 1) * most_bars(data.base, data.timeframe)
        frames = fetch_bars(credentials, sorted(data.symbols), short, start=None, limit=count, now=before, **options)
        if data.base is not None:
            longer = made(frames, data.base, data.timeframe, until=before.value)
            frames = {symbol: frame.iloc[-prepared.warmup :] for symbol, frame in longer.items()}
    # As the broker has them, which nothing has cleaned.
    return replace(prepared.bars, frames=dict(sorted(frames.items())), quality=Quality())


def _same_history(history: Bars, used: Bars, start: pd.Timestamp) -> None:
    """The exchange's history is the backtest's warm-up, or the replay would prove nothing."""
    for symbol, frame in used.frames.items():
        if not history.frames[symbol].equals(frame[frame.index < start]):
            raise DataError(
                f"{symbol}: the exchange's history differs from the backtest's warm-up; bars out of the regular "
                "session are left out on the way, as at Alpaca: remove them from the data"
            )


def _lock_step(
    control: Control, connection: Connection, config: RunConfig, pace_seconds: float
) -> Callable[[LiveRun, Journal, Bars, int, Callable[[], None]], Source]:
    def source(run: LiveRun, journal: Journal, known: Bars, clock: int, idle: Callable[[], None]) -> LockStep:
        ends = [int(frame.index[-1].value) for frame in known.frames.values() if len(frame)]

        def wait() -> None:
            idle()
            if pace_seconds > 0.0:
                connection.inbox.wait(lambda: False, pace_seconds)

        return LockStep(
            control,
            connection.inbox,
            timeframe=config.data.timeframe,
            streamed=_streamed(config),
            rows=connection.rows,
            seen=starts_seen(known.frames, config.data.timeframe),
            last=max(ends, default=clock),
            clock=clock,
            catch_up=lambda: run.venue.desk.catch_up(run.venue.waiting),
            waits=lambda: run.venue.has_outgoing,
            noted=journal.write,
            before_step=wait,
        )

    return source


def _on_the_wall(
    connection: Connection, config: RunConfig, clock: MarketClock, control: Control | None
) -> Callable[[LiveRun, Journal, Bars, int, Callable[[], None]], Source]:
    made = wall_clock_source(connection, config, clock, control=control)

    def source(run: LiveRun, journal: Journal, known: Bars, clock: int, idle: Callable[[], None]) -> Source:
        return made(run, journal, known, idle)

    return source
