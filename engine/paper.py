"""The use case behind ``nextbar paper``: a run file in, trading on paper, a run folder out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.data.cleaning.findings import tallied
from engine.errors import ConfigError, DataError, NextbarError, StrategyError
from engine.live.journal import FILE, Journal
from engine.notices import Notifier, Silence, from_environment
from engine.paper_models import identity, model_of, succession
from engine.paper_past import Earlier, earlier_run
from engine.paper_record import left_behind, read_paper, record_paper
from engine.paper_run import OnStatus, PaperRun, Session
from engine.paper_stage import alpaca_stage, replay_stage
from engine.preparation import Prepared, prepare
from engine.report.recording import portable, trial_of
from engine.report.run import RUNNING, Metrics, Run, close_run, finish_run, load_manifest, open_run
from engine.report.trials import append_trial
from engine.sections import digest, dump

_FAILED = "failed"


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
        notifier: is told of fills, halts and the end; who ``NEXTBAR_NOTIFY`` names, if None, and of a replay nobody.

    Raises:
        ConfigError, BundleError: the run file or its bundle cannot be used, or is not what it was.
        DataError: bars are missing or malformed, or the journal is damaged.
        BrokerError: keys, account, feed or network are not right, or failed on the way; or the account is not what the
            journal says.
        StrategyError: the strategy could not be loaded, or raised.
        StorageError: journal or run folder cannot be written; nothing is traded without a journal.
        RiskHalt: the run was killed before.
    """
    if new and accept_broker:
        raise ConfigError("--new begins a run without a past, and --accept-broker goes on with one: give one of them")
    prepared = prepare(config, root=root)
    runs = root / "runs"
    if notifier is None:
        notifier = Silence() if replay else from_environment(config.folder)
    with ExitStack() as stack:
        stack.callback(_say_goodbye, notifier, on_remark)
        if replay:
            earlier = None if new else earlier_run(runs, prepared, mode="replay", account=None)
            change = None
            if earlier is not None:
                prepared, change = succession(prepared, *earlier, clock=0)
            stage = stack.enter_context(
                replay_stage(prepared, pace_seconds, root=root, kept=earlier and earlier.folder)
            )
        else:
            stage = stack.enter_context(alpaca_stage(prepared, now))
            earlier = None if new else earlier_run(runs, prepared, mode=stage.mode, account=stage.account)
            change = None
            if earlier is not None:
                prepared, change = succession(prepared, *earlier, clock=stage.clock if stage.real_time else 0)
        for note in stage.notes:
            on_remark(note)
        session = Session(prepared, stage, on_status, on_remark, notifier, accept_broker, change)
        return _trade(session, earlier, root=root, now=now)


def _say_goodbye(notifier: Notifier, on_remark: Callable[[str], None]) -> None:
    lost = notifier.close()
    if lost:
        on_remark(lost)


def _trade(session: Session, earlier: Earlier | None, *, root: Path, now: datetime) -> PaperReport:
    prepared, stage, config = session.prepared, session.stage, session.prepared.config
    folder, manifest = earlier or _begun(session, root, now)
    cash = float(stage.connection.account["cash"])
    journal = _opened(folder, {"id": manifest["journal"], "run": folder.name, "cash": cash, "opening": stage.clock})
    try:
        if earlier is not None and next(journal.entries("history"), None) is None:
            stage.connection.check_start()  # it was cut off before it had begun
        run = PaperRun(session, folder, manifest, journal)
        if earlier is not None:
            close_run(folder, RUNNING)
        how = run.trade()
    except BaseException as error:
        # The failure is what is told: what can be reported beside it is, and what cannot is left.
        # What a strategy did before it raised is whole: the step's news were booked before it was asked.
        if not isinstance(error, StrategyError):
            journal.drop()
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


def _opened(folder: Path, about: Mapping[str, Any]) -> Journal:
    try:
        return Journal.open(folder / FILE, about)
    except DataError as error:
        raise DataError(
            f"{error}. The run cannot go on without it: close what it holds with nextbar kill {folder.name}, and begin "
            "another with --new"
        ) from error


def _begun(session: Session, root: Path, now: datetime) -> Earlier:
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
        "model": model_of(prepared.forecaster),
        "identity": identity(config),
        "hashes": {
            "config": digest(dump(config)),
            "universe": None if bars.membership is None else bars.membership.digest,
        },
        "folder": str(config.folder.resolve()),  # where the keys are found again
        "symbols": list(history.symbols),
        "source": bars.source,
        "timeframe": bars.timeframe,
        "adjustment": bars.adjustment,
        "close_only": bars.close_only,
        "synthetic": bars.synthetic,
        "survivor_biased": bars.survivor_biased,
        "quality": tallied(history.quality),
        "preparation": [*prepared.remarks, *stage.remarks],
        "timeline": prepared.timeline,
    }
    folder = open_run(root / "runs", config.name, manifest, portable(config), now=now, quality=history.quality)
    stage.keep(folder)
    return Earlier(folder, manifest)


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
