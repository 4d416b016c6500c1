"""The use case behind ``nextbar paper``: a run file in, trading on paper, a run folder out."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from engine.config import RunConfig, digest, dump
from engine.errors import NextbarError
from engine.live.connection import Connection
from engine.live.desk import AlpacaDesk
from engine.live.journal import FILE, Journal
from engine.live.run import REPLAY, LiveRun, Plan
from engine.live.status import Status
from engine.live.verifier import Verifier
from engine.paper_record import left_behind, read_paper, record_paper
from engine.paper_stage import Stage, alpaca_stage, replay_stage
from engine.preparation import Prepared, prepare
from engine.report.recording import portable, trial_of
from engine.report.run import Metrics, Run, close_run, finish_run, load_manifest, open_run
from engine.report.trials import append_trial

OnStatus = Callable[[Callable[[], Status]], None]
"""Called after each step with a function that gives the picture of the run, for whoever watches."""

_COMPLETED, _STOPPED, _HALTED, _FAILED = "completed", "stopped", "halted", "failed"


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
    on_remark: Callable[[str], None] = lambda sentence: None,
) -> PaperReport:
    """Trade the run file's strategy on paper: on Alpaca, or on the embedded exchange, which replays its test span.

    Args:
        replay: start the embedded exchange on the test span and trade there, in lock-step; no key is needed.
        pace_seconds: wait so long before each step of a replay, so that a person can watch.
        on_status: see ``OnStatus``.
        on_remark: takes what a user should know before the first bar, such as when the market opens.

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
            stage = stack.enter_context(replay_stage(prepared, pace_seconds))
        else:
            stage = stack.enter_context(alpaca_stage(prepared, now))
        for note in stage.notes:
            on_remark(note)
        return _trade(prepared, stage, root=root, now=now, on_status=on_status)


def _trade(prepared: Prepared, stage: Stage, *, root: Path, now: datetime, on_status: OnStatus) -> PaperReport:
    config, bars = prepared.config, prepared.bars
    manifest: dict[str, Any] = {
        "kind": "paper",
        "journal": secrets.token_hex(8),
        "mode": stage.mode,
        "account": str(stage.connection.account.get("account_number", "")),
        "period": stage.period,
        "strategy": config.strategy.kind,
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
        # The failure is what is told: what can be reported beside it is, and what cannot is left.
        with suppress(NextbarError):
            _end(journal, _FAILED, f"{type(error).__name__}: {error}")
            _finished(folder, prepared, _FAILED)
        if stage.mode == "replay" or not isinstance(error, NextbarError | KeyboardInterrupt):
            raise
        raise type(error)(f"{str(error) or 'interrupted'}; what was done is in {folder}{_left(folder)}") from error
    _end(journal, how, "")
    try:
        run = _finished(folder, prepared, how)
    except NextbarError:
        close_run(folder, how)  # how it ended is known, whatever hinders the report
        raise
    if run is not None:
        append_trial(root / "runs", trial_of(run, config, now=now, span="test"))
    told = load_manifest(folder)
    return PaperReport(
        run=folder,
        status=how,
        mode=stage.mode,
        halted=told.get("halted", ""),
        orders_hash=told.get("orders_hash", ""),
        fills_hash=told.get("fills_hash", ""),
        metrics={} if run is None else run.metrics,
        latency_ms=told.get("latency_ms", {}),
        remarks=tuple(told.get("remarks", ["stopped before the first bar: nothing was traded"])),
    )


def _traded(prepared: Prepared, stage: Stage, folder: Path, journal: Journal, on_status: OnStatus) -> str:
    """Run to the end; how it ended."""
    config, connection = prepared.config, stage.connection
    verifier = Verifier(connection, config.broker.cash)

    def after_step(run: LiveRun) -> None:
        verifier.look(run, journal)
        on_status(run.status)

    def steps() -> Iterator[Any]:
        # The source is made once the run is there, which it may have to tell of a mute feed.
        yield from stage.source(live, journal)

    live = LiveRun(
        Plan(
            run=folder.name,
            venue={"replay": REPLAY, "exchange": "exchange on this machine"}.get(stage.mode, "Alpaca paper"),
            strategy=prepared.strategy.cls,
            arguments=prepared.strategy.arguments,
            history=stage.history,
            broker=config.broker,
            risk=config.risk if stage.real_time else config.risk.on_bars(),
            forecaster=prepared.forecaster,
            ends_when_halted=stage.real_time,
        ),
        source=_Steps(steps),
        desk=AlpacaDesk(connection.trading, connection.inbox),
        log=journal,
        on_step=after_step,
        connections=connection.states,
        check=stage.check,
    )
    with _stopping(connection):
        connection.open()
        live.run()
    verifier.at_the_end(live, journal, strict=stage.mode == "replay")
    if live.halted:
        return _HALTED
    inbox = connection.inbox
    return _STOPPED if inbox.stopped and not inbox.finished else _COMPLETED


class _Steps:
    """A source from a generator function."""

    def __init__(self, steps: Callable[[], Iterator[Any]]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        return self._steps()


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
