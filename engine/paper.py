"""The use case behind ``nextbar paper``: a run file in, trading on paper, a run folder out."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd

from engine.config import RunConfig, digest, dump
from engine.credentials import Credentials, find_credentials
from engine.data.alpaca import fetch_bars
from engine.data.bars import Bars
from engine.errors import DataError, NextbarError
from engine.exchange.account import AccountSpec
from engine.exchange.server import ExchangeServer
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.desk import AlpacaDesk
from engine.live.journal import FILE, Journal
from engine.live.run import LiveRun, Plan
from engine.live.sources import LockStep, Source, starts_seen
from engine.live.status import Status
from engine.live.wall_clock import wall_clock_source
from engine.paper_record import record_paper
from engine.preparation import Prepared, prepare, refuse_seen_bars
from engine.remarks import absences
from engine.report.recording import portable, trial_of
from engine.report.run import Metrics, finish_run, open_run
from engine.report.trials import append_trial

OnStatus = Callable[[Callable[[], Status]], None]
"""Called after each step with a function that gives the picture of the run, for whoever watches."""

_COMPLETED, _STOPPED, _HALTED, _FAILED = "completed", "stopped", "halted", "failed"
_DAY = 86_400_000_000_000
_VERIFY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class PaperReport:
    """What a paper run did: its folder, how it ended, its fingerprints and figures.

    ``status`` is ``completed`` (the bars ended), ``stopped`` (by the user) or ``halted`` (by a limit).
    """

    run: Path
    status: str
    mode: str
    halted: str
    orders_hash: str
    fills_hash: str
    metrics: Metrics
    latency_ms: Mapping[str, Mapping[str, float]]
    remarks: tuple[str, ...]


def paper(
    config: RunConfig,
    *,
    root: Path = Path(),
    now: datetime,
    replay: bool,
    pace_seconds: float = 0.0,
    on_status: OnStatus = lambda picture: None,
) -> PaperReport:
    """Trade the run file's strategy on paper: on Alpaca, or on the embedded exchange, which replays its test span.

    Args:
        replay: start the embedded exchange on the test span and trade there, in lock-step; no key is needed.
        pace_seconds: wait so long before each step of a replay, so that a person can watch.
        on_status: see ``OnStatus``.

    Raises:
        ConfigError, BundleError: the run file or its bundle cannot be used.
        DataError: bars are missing or malformed.
        BrokerError: keys, account, feed or network are not right, or failed on the way.
        StrategyError: the strategy could not be loaded, or raised.
        StorageError: journal or run folder cannot be written; nothing is traded without a journal.
    """
    prepared = prepare(config, root=root)
    with ExitStack() as stack:
        if replay:
            stage = stack.enter_context(_replay(prepared, pace_seconds))
        else:
            stage = stack.enter_context(_alpaca(prepared, now))
        return _trade(prepared, stage, root=root, now=now, on_status=on_status)


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """Where a run trades, ready to begin.

    Attributes:
        mode: ``replay``, ``exchange`` or ``alpaca``. period: the span that is replayed.
        history: bars before the first decision. source: gives the steps, once told whom to notify.
        remarks: one sentence each.
    """

    mode: str
    period: tuple[str, str] | None
    connection: Connection
    history: Bars
    source: Callable[[LiveRun, Journal], Source]
    remarks: tuple[str, ...]


# --- where it trades -------------------------------------------------------------------------------------------------


@contextmanager
def _replay(prepared: Prepared, pace_seconds: float) -> Iterator[_Stage]:
    """The embedded exchange on the test span, in this process, behind real sockets."""
    config = prepared.config
    period = config.spans.get("test")
    refuse_seen_bars([prepared.forecaster] if prepared.forecaster else [], "test", period)
    used, start, absent = prepared.cut(period)
    last = max(frame.index[-1] for frame in used.frames.values())
    shown = replace(prepared.bars, frames={symbol: prepared.bars.frames[symbol] for symbol in used.symbols}).between(
        end=last
    )
    account = AccountSpec(key="replay", secret=secrets.token_urlsafe(24), broker=config.broker)
    narrowed = config.model_copy(update={"data": config.data.model_copy(update={"symbols": used.symbols})})
    with ExchangeServer(bars=shown, start=start, accounts=[account]) as exchange:
        credentials = Credentials(
            key=account.key,
            secret=account.secret,
            trading_url=exchange.url,
            data_url=exchange.url,
            trading_stream_url=f"{exchange.url.replace('http:', 'ws:', 1)}/stream",
        )
        with Connection(credentials, narrowed, streamed=_streamed(config)) as connection:
            connection.check()
            history = _warmup(prepared, credentials, narrowed, before=start)
            _same_history(history, used, start)
            control = Control(credentials)
            try:
                yield _Stage(
                    mode="replay",
                    period=(str(period[0]), str(period[1])),
                    connection=connection,
                    history=history,
                    source=_lock_step(control, connection, config, history, start, pace_seconds),
                    remarks=tuple(absences(absent, period)),
                )
            finally:
                control.close()


@contextmanager
def _alpaca(prepared: Prepared, now: datetime) -> Iterator[_Stage]:
    """Alpaca's paper account, or an exchange on this machine that somebody has started."""
    config = prepared.config
    credentials = find_credentials(config.folder)
    with Connection(credentials, config, streamed=_streamed(config)) as connection:
        remarks = connection.check()
        control = Control(credentials) if credentials.local else None
        try:
            status = control.status() if control is not None else {}
            moment = pd.Timestamp(status["time"], tz="UTC") if status else pd.Timestamp(now)
            history = _warmup(prepared, credentials, config, before=moment)
            if control is not None and status["mode"] == "lock-step":
                source = _lock_step(control, connection, config, history, moment, 0.0)
            else:
                source = wall_clock_source(connection, config, history, control=control)
            yield _Stage(
                mode="exchange" if credentials.local else "alpaca",
                period=None,
                connection=connection,
                history=history,
                source=source,
                remarks=tuple(remarks),
            )
        finally:
            if control is not None:
                control.close()


def _streamed(config: RunConfig) -> bool:
    """Alpaca streams minutes; longer bars are fetched."""
    return config.data.timeframe == "1m"


def _warmup(prepared: Prepared, credentials: Credentials, config: RunConfig, *, before: pd.Timestamp) -> Bars:
    """The last bars before a moment, from where the run trades."""
    frames = {symbol: prepared.bars.frames[symbol].iloc[:0] for symbol in config.data.symbols}
    if prepared.warmup:
        data = config.data
        options: dict[str, Any] = {"feed": data.feed or "iex", "adjustment": data.adjustment or "all"}
        frames = fetch_bars(
            credentials,
            sorted(data.symbols),
            data.timeframe,
            start=None,
            limit=prepared.warmup,
            now=before,
            **options,
        )
    return replace(prepared.bars, frames=dict(sorted(frames.items())))


def _same_history(history: Bars, used: Bars, start: pd.Timestamp) -> None:
    """The exchange's history is the backtest's warm-up, or the replay would prove nothing."""
    for symbol, frame in used.frames.items():
        if not history.frames[symbol].equals(frame[frame.index < start]):
            raise DataError(
                f"{symbol}: the exchange's history differs from the backtest's warm-up; bars out of the regular "
                "session are left out on the way, as at Alpaca: remove them from the data"
            )


def _lock_step(
    control: Control, connection: Connection, config: RunConfig, history: Bars, start: pd.Timestamp, pace_seconds: float
) -> Callable[[LiveRun, Journal], Source]:
    known = [int(frame.index[-1].value) for frame in history.frames.values() if len(frame)]

    def wait() -> None:
        if pace_seconds > 0.0:
            connection.inbox.wait(lambda: False, pace_seconds)

    def source(run: LiveRun, journal: Journal) -> Source:
        return LockStep(
            control,
            connection.inbox,
            timeframe=config.data.timeframe,
            streamed=_streamed(config),
            rows=connection.rows,
            seen=starts_seen(history.frames, config.data.timeframe),
            last=max(known, default=int(start.value) - 7 * _DAY),
            before_step=wait,
        )

    return source


# --- trading ---------------------------------------------------------------------------------------------------------


def _trade(prepared: Prepared, stage: _Stage, *, root: Path, now: datetime, on_status: OnStatus) -> PaperReport:
    config, bars = prepared.config, prepared.bars
    manifest = {
        "kind": "paper",
        "journal": secrets.token_hex(8),
        "mode": stage.mode,
        "account": str(stage.connection.account.get("account_number", "")),
        "period": stage.period,
        "strategy_hash": prepared.strategy.source_hash,
        "bundle": None if prepared.forecaster is None else prepared.forecaster.bundle.path.name,
        "hashes": {"config": digest(dump(config))},
        "symbols": list(stage.history.symbols),
        "source": bars.source,
        "timeframe": bars.timeframe,
        "adjustment": bars.adjustment,
        "close_only": bars.close_only,
        "synthetic": bars.synthetic,
        "survivor_biased": bars.survivor_biased,
        "preparation": [*prepared.remarks, *stage.remarks],
    }
    folder = open_run(root / "runs", config.name, manifest, portable(config), now=now)
    journal = Journal.create(folder / FILE, {"id": manifest["journal"], "run": folder.name})
    try:
        how = _traded(prepared, stage, folder, journal, on_status)
    except BaseException as error:
        _end(journal, _FAILED, f"{type(error).__name__}: {error}")
        _finish_what_there_is(folder, prepared)
        raise
    _end(journal, how, "")
    run = record_paper(folder, forecaster=prepared.forecaster)
    finish_run(run, folder)
    append_trial(root / "runs", trial_of(run, config, now=now, span="test"))
    return PaperReport(
        run=folder,
        status=how,
        mode=stage.mode,
        halted=run.manifest["halted"],
        orders_hash=run.manifest["orders_hash"],
        fills_hash=run.manifest["fills_hash"],
        metrics=run.metrics,
        latency_ms=run.manifest["latency_ms"],
        remarks=tuple(run.manifest["remarks"]),
    )


def _traded(prepared: Prepared, stage: _Stage, folder: Path, journal: Journal, on_status: OnStatus) -> str:
    """Run to the end; how it ended."""
    config, connection = prepared.config, stage.connection
    connection.open()
    verifier = _Verifier(connection, config.broker.cash)

    def after_step(run: LiveRun) -> None:
        verifier.look(run, journal)
        on_status(run.status)

    def steps() -> Iterator[Any]:
        # The source is made once the run is there, which it may have to tell of a mute feed.
        yield from stage.source(live, journal)

    live = LiveRun(
        Plan(
            run=folder.name,
            venue={"replay": "replay", "exchange": "exchange on this machine"}.get(stage.mode, "Alpaca paper"),
            strategy=prepared.strategy.cls,
            arguments=prepared.strategy.arguments,
            history=stage.history,
            broker=config.broker,
            risk=config.risk,
            ends_when_halted=stage.mode == "alpaca",
        ),
        source=_Steps(steps),
        desk=AlpacaDesk(connection.trading, connection.inbox),
        log=journal,
        on_step=after_step,
        connections=connection.states,
    )
    with _stopping(connection):
        live.run()
    verifier.at_the_end(live, journal, strict=stage.mode == "replay")
    if live.halted:
        return _HALTED
    return _STOPPED if connection.inbox.stopped else _COMPLETED


class _Steps:
    """A source from a generator function."""

    def __init__(self, steps: Callable[[], Iterator[Any]]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        return self._steps()


class _Verifier:
    """Holds our ledger against the broker's account, now and then; no position is opened while they differ twice."""

    def __init__(self, connection: Connection, cash: float) -> None:
        self._connection = connection
        self._cash = cash
        self._next = time.monotonic() + _VERIFY_SECONDS
        self._before: list[str] = []

    def look(self, run: LiveRun, journal: Journal) -> None:
        """Compare, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _VERIFY_SECONDS
        found = self._differences(run)
        journal.write("account", differences=found)
        # A fill may be on its way: only what is still there the next time counts.
        lasting = [difference for difference in found if difference in self._before]
        self._before = found
        run.pause(f"the account differs from our ledger: {'; '.join(lasting)}" if lasting else "")

    def at_the_end(self, run: LiveRun, journal: Journal, *, strict: bool) -> None:
        """Compare once more; in a replay a difference is a defect."""
        found = self._differences(run)
        journal.write("account", differences=found)
        if found and strict:
            raise NextbarError(f"our ledger and the exchange differ: {'; '.join(found)}; please report")
        for difference in found:
            run.events.append(difference)

    def _differences(self, run: LiveRun) -> list[str]:
        ledger = run.venue.ledger
        costs = sum(fill.commission for fill in ledger.fills) + ledger.interest_paid
        held = {symbol: position.quantity for symbol, position in ledger.positions.items()}
        return self._connection.differences(ledger.cash - self._cash, held, costs=-costs)


@contextmanager
def _stopping(connection: Connection) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run cleanly; a second Ctrl-C interrupts whatever is going on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if connection.inbox.stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        connection.inbox.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(journal: Journal, how: str, why: str) -> None:
    try:
        journal.write("end", how=how, why=why)
    finally:
        journal.close()


def _finish_what_there_is(folder: Path, prepared: Prepared) -> None:
    """After a failure: the report of what was done, if anything was; the failure itself is what is told."""
    try:
        finish_run(record_paper(folder, forecaster=prepared.forecaster), folder)
    except NextbarError:
        return
