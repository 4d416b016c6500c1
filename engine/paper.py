"""The use case behind ``nextbar paper``: a run file in, trading on paper, a run folder out."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd

from engine.config import RunConfig, digest, dump
from engine.errors import NextbarError
from engine.live.connection import Connection
from engine.live.desk import AlpacaDesk
from engine.live.journal import FILE, Entry, Journal
from engine.live.recorded import read_recorded
from engine.live.rest import NoAnswer
from engine.live.retrace import Differs, Present, Retrace
from engine.live.run import REPLAY, LiveRun, Plan
from engine.live.sources import Arrived, LockStep, Source
from engine.live.status import Status
from engine.live.switch import Switch
from engine.live.verifier import Verifier
from engine.notices import Notifier, Silence
from engine.paper_past import Earlier, earlier_run
from engine.paper_record import left_behind, read_paper, record_paper, seen_bars
from engine.paper_stage import Stage, alpaca_stage, replay_stage
from engine.preparation import Prepared, prepare
from engine.report.recording import portable, trial_of
from engine.report.run import RUNNING, Metrics, Run, close_run, finish_run, load_manifest, open_run
from engine.report.trials import append_trial

OnStatus = Callable[[Callable[[], Status]], None]
"""Called after each step with a function that gives the picture of the run, for whoever watches."""

_COMPLETED, _STOPPED, _HALTED, _FAILED = "completed", "stopped", "halted", "failed"


@dataclass(frozen=True, kw_only=True)
class PaperReport:
    """What a paper run did: its folder, how it ended, its fingerprints and figures.

    ``status`` is ``completed`` (the bars ended), ``stopped`` (by the user) or ``halted`` (by a limit, or killed).
    ``resumed``: how many bars of an earlier session it went on from.
    """

    run: Path
    status: str
    mode: str
    halted: str
    resumed: int
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
    new: bool = False,
    accept_broker: bool = False,
    pace_seconds: float = 0.0,
    on_status: OnStatus = lambda picture: None,
    on_remark: Callable[[str], None] = lambda sentence: None,
    notifier: Notifier | None = None,
) -> PaperReport:
    """Trade the run file's strategy on paper: on Alpaca, or on the embedded exchange, which replays its test span.

    A run of the same file and account that was cut off, stopped or failed goes on: it is made anew from its journal,
    compared with the account, and then trades.

    Args:
        replay: start the embedded exchange on the test span and trade there, in lock-step; no key is needed.
        new: begin another run, whatever became of the earlier one.
        accept_broker: where journal and account differ, the account is right.
        pace_seconds: wait so long before each step of a replay, so that a person can watch.
        on_status: see ``OnStatus``.
        on_remark: takes what a user should know before the first bar, such as when the market opens.
        notifier: is told of fills, halts and the end.

    Raises:
        ConfigError, BundleError: the run file or its bundle cannot be used, or is not what it was.
        DataError: bars are missing or malformed, or the journal is damaged.
        BrokerError: keys, account, feed or network are not right, or failed on the way; or the account is not what the
            journal says.
        StrategyError: the strategy could not be loaded, or raised.
        StorageError: journal or run folder cannot be written; nothing is traded without a journal.
        RiskHalt: the run was killed before.
    """
    prepared = prepare(config, root=root)
    runs = root / "runs"
    with ExitStack() as stack:
        if replay:
            earlier = None if new else earlier_run(runs, prepared, mode="replay", account=None)
            stage = stack.enter_context(replay_stage(prepared, pace_seconds, kept=earlier and earlier.folder))
        else:
            stage = stack.enter_context(alpaca_stage(prepared, now))
            earlier = None if new else earlier_run(runs, prepared, mode=stage.mode, account=stage.account)
        for note in stage.notes:
            on_remark(note)
        session = _Session(prepared, stage, on_status, on_remark, notifier or Silence(), accept_broker)
        return _trade(session, earlier, root=root, now=now)


@dataclass(frozen=True)
class _Session:
    """What a run needs from its start to its end."""

    prepared: Prepared
    stage: Stage
    on_status: OnStatus
    on_remark: Callable[[str], None]
    notifier: Notifier
    accept_broker: bool


def _trade(session: _Session, earlier: Earlier | None, *, root: Path, now: datetime) -> PaperReport:
    prepared, stage, config = session.prepared, session.stage, session.prepared.config
    folder, manifest = earlier or _begun(session, root, now)
    cash = float(stage.connection.account["cash"])
    journal = Journal.open(
        folder / FILE, {"id": manifest["journal"], "run": folder.name, "cash": cash, "opening": stage.clock}
    )
    run = _PaperRun(session, folder, manifest, journal)
    try:
        if earlier is not None:
            close_run(folder, RUNNING)
        how = run.trade()
    except BaseException as error:
        # The failure is what is told: what can be reported beside it is, and what cannot is left.
        with suppress(NextbarError):
            _end(journal, _FAILED, f"{type(error).__name__}: {error}")
            _finished(folder, prepared, _FAILED)
        session.notifier.ended(folder.name, f"{_FAILED}: {error}")
        if stage.mode == "replay" or not isinstance(error, NextbarError | KeyboardInterrupt):
            raise
        raise type(error)(f"{str(error) or 'interrupted'}; what was done is in {folder}{_left(folder)}") from error
    _end(journal, how, "")
    session.notifier.ended(folder.name, how)
    try:
        written = _finished(folder, prepared, how)
    except NextbarError:
        close_run(folder, how)  # how it ended is known, whatever hinders the report
        raise
    if written is not None:
        append_trial(root / "runs", trial_of(written, config, now=now, span="test"))
    told = load_manifest(folder)
    return PaperReport(
        run=folder,
        status=how,
        mode=stage.mode,
        halted=told.get("halted", ""),
        resumed=run.resumed,
        orders_hash=told.get("orders_hash", ""),
        fills_hash=told.get("fills_hash", ""),
        metrics={} if written is None else written.metrics,
        latency_ms=told.get("latency_ms", {}),
        remarks=tuple(told.get("remarks", ["stopped before the first bar: nothing was traded"])),
    )


def _begun(session: _Session, root: Path, now: datetime) -> Earlier:
    """The folder of a run that begins, and its manifest."""
    prepared, stage, config = session.prepared, session.stage, session.prepared.config
    stage.connection.check_start()
    history = stage.history()  # what is wrong with it is said before there is a folder
    bars = prepared.bars
    manifest: dict[str, Any] = {
        "kind": "paper",
        "journal": secrets.token_hex(8),
        "mode": stage.mode,
        "account": stage.account,
        "period": stage.period,
        "strategy": config.strategy.kind,
        "strategy_hash": prepared.strategy.source_hash,
        "bundle": None if prepared.forecaster is None else prepared.forecaster.bundle.path.name,
        "hashes": {"config": digest(dump(config))},
        "symbols": list(history.symbols),
        "source": bars.source,
        "timeframe": bars.timeframe,
        "adjustment": bars.adjustment,
        "close_only": bars.close_only,
        "synthetic": bars.synthetic,
        "survivor_biased": bars.survivor_biased,
        "preparation": [*prepared.remarks, *stage.remarks],
    }
    folder = open_run(root / "runs", config.name, manifest, portable(config), now=now)
    stage.keep(folder)
    return Earlier(folder, manifest)


class _PaperRun:
    """A run between its preparation and its report: what has been, what comes, and who looks on.

    Attributes:
        resumed: bars that it had seen before this session.
    """

    def __init__(self, session: _Session, folder: Path, manifest: dict[str, Any], journal: Journal) -> None:
        self._session = session
        self._stage = stage = session.stage
        self._journal = journal
        self._switch = Switch(folder)
        config = session.prepared.config
        entries = list(journal.entries())
        self._past = read_recorded(journal, cash=config.broker.cash)
        self.resumed = len(self._past.steps)
        self._known = seen_bars(self._past, manifest) if self._past.history else stage.history()
        first = self._past.steps[0][0] if self._past.steps else None
        before = None if first is None else pd.Timestamp(first, tz="UTC") - pd.Timedelta(1, unit="ns")
        connection = stage.connection
        self._desk = AlpacaDesk(connection.trading, connection.inbox)
        log = _Announcing(journal, session.notifier, folder.name)
        self._retrace = Retrace(entries, Present(steps=self._steps, desk=self._desk, log=log))
        self._goes_on = bool(entries)
        self._verifier = Verifier(
            connection,
            account_cash=float(journal.about["cash"]) + self._past.unexplained_cash,
            ledger_cash=config.broker.cash,
            agreed=_moment_of(entries),
        )
        self._live = LiveRun(
            Plan(
                run=str(journal.about["run"]),
                venue={"replay": REPLAY, "exchange": "exchange on this machine"}.get(stage.mode, "Alpaca paper"),
                strategy=session.prepared.strategy.cls,
                arguments=session.prepared.strategy.arguments,
                history=self._known.between(end=before),
                broker=config.broker,
                risk=config.risk if stage.real_time else config.risk.on_bars(),
                forecaster=session.prepared.forecaster,
                ends_when_halted=stage.real_time,
            ),
            source=self._retrace,
            desk=self._retrace,
            log=self._retrace,
            past=self._retrace,
            on_step=self._after_step,
            connections=connection.states,
            check=stage.check,
            is_late=stage.is_late,
        )
        self._retrace.follow(self._live)

    def trade(self) -> str:
        """Run to the end; how it ended.

        Raises:
            NextbarError: the run made anew from its journal is not the run that was, or one of ``paper``'s errors.
        """
        live, connection = self._live, self._stage.connection
        if self.resumed:
            self._session.on_remark(f"run {live.name} goes on: it has seen {_counted(self.resumed, 'step')}")
        with _stopping(connection):
            connection.open()
            try:
                live.run()
            except Differs as error:
                raise NextbarError(
                    f"run {live.name} cannot go on, since it would not do again what it has done: {error}; nothing was "
                    f"sent. Close its positions with nextbar kill {live.name}, and begin another run with --new"
                ) from error
        self._verifier.at_the_end(live, self._journal, strict=self._stage.mode == "replay")
        if live.halted:
            return _HALTED
        inbox = connection.inbox
        return _STOPPED if inbox.stopped and not inbox.finished else _COMPLETED

    def _steps(self) -> Iterator[Arrived]:
        """What comes after the journal's end: first what was missed, then the account is compared, then the rest."""
        live, stage = self._live, self._stage
        clock = live.time or int(self._journal.about["opening"])
        source = stage.source(live, self._journal, self._known, clock, self._look)
        if self._goes_on:
            self._desk.held = "the account has not been compared with the journal yet"
            self._journal.write("resumed", steps=self.resumed)
            yield from self._missed(source)
            self._verifier.reconcile(live, self._journal, accept=self._session.accept_broker)
            self._desk.held = ""
            if live.venue.has_outgoing:
                yield self._nothing()
        yield from source

    def _missed(self, source: Source) -> Iterator[Arrived]:
        """What became of our orders while nobody looked; of a lock-step exchange the steps that it has gone on."""
        live = self._live
        with suppress(NoAnswer):  # reconciling insists
            self._desk.catch_up(live.venue.waiting)
        if isinstance(source, LockStep):
            yield from source.missed()
        elif live.time:
            yield self._nothing()

    def _nothing(self) -> Arrived:
        return Arrived(self._live.time, {}, False, time.monotonic_ns())

    # --- who looks on ----------------------------------------------------------------------------------------------

    def _after_step(self, live: LiveRun) -> None:
        if not self._desk.held:
            self._verifier.look(live, self._journal)
            self._look()
        self._session.on_status(live.status)

    def _look(self) -> None:
        """What was said from outside, and what is not as it should be, between two steps and while nothing comes."""
        live, said = self._live, self._switch.look()
        live.pause("person", said.paused)
        live.pause("disk", self._journal.full)
        live.pause("model", self._stale_model())
        if said.killed:
            live.halt(said.killed, ends=True)

    def _stale_model(self) -> str:
        prepared = self._session.prepared
        limit = prepared.config.risk.stale_model_days
        if limit is None or prepared.forecaster is None or not self._stage.real_time:
            return ""
        last_seen = prepared.forecaster.bundle.record.last_seen
        age = (pd.Timestamp(self._live.time or self._stage.clock, tz="UTC").date() - last_seen).days
        if age <= limit:
            return ""
        return f"risk.stale_model_days: the model has seen no bar since {last_seen}, {age} days ago; train it anew"


class _Announcing:
    """The journal, and a word to the notifier on what a person wants to hear of."""

    def __init__(self, journal: Journal, notifier: Notifier, run: str) -> None:
        self._journal = journal
        self._notifier = notifier
        self._run = run

    def write(self, kind: str, /, **body: Any) -> None:
        self._journal.write(kind, **body)
        if kind == "fill":
            self._notifier.filled(self._run, body["side"], body["quantity"], body["symbol"], body["price"])
        elif kind == "halt":
            self._notifier.halted(self._run, body["reason"])
        elif kind == "pause" and body["reason"]:
            self._notifier.trouble(self._run, f"entries paused: {body['reason']}")

    def commit(self, *, durable: bool = False) -> None:
        self._journal.commit(durable=durable)


def _moment_of(entries: Sequence[Entry]) -> str:
    """When the journal was last written, in words; empty where it was not."""
    return f"{pd.Timestamp(entries[-1].written, tz='UTC'):%Y-%m-%d %H:%M:%S} UTC" if entries else ""


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


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


def _left(folder: Path) -> str:
    """What stays at the broker after a failure, as the end of a sentence."""
    try:
        _, _, recorded = read_paper(folder)
    except NextbarError:
        return ", and the account is as the broker shows it"
    left = left_behind(recorded)
    return f", and {left}" if left else ""


def _finished(folder: Path, prepared: Prepared, how: str) -> Run | None:
    """Write what the run did into its folder; None where nothing was decided."""
    run = record_paper(folder, forecaster=prepared.forecaster)
    if run is None:
        close_run(folder, how)
    else:
        finish_run(run, folder)
    return run
