"""A paper run between its preparation and its report: what has been, what comes, and who looks on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd

from engine.errors import BrokerError, NextbarError, StorageError
from engine.live.connection import Connection
from engine.live.desk import AlpacaDesk
from engine.live.journal import Entry, Journal
from engine.live.recorded import read_recorded
from engine.live.rest import NoAnswer
from engine.live.retrace import Differs, Present, Retrace
from engine.live.run import REPLAY, LiveRun, Plan
from engine.live.sources import Arrived, LockStep, Source
from engine.live.status import Status
from engine.live.switch import Switch
from engine.live.verifier import Gap, Verifier
from engine.notices import Notifier
from engine.paper_models import Change
from engine.paper_record import seen_bars
from engine.paper_stage import Stage
from engine.preparation import Prepared

OnStatus = Callable[[Callable[[], Status]], None]
"""Called after each step with a function that gives the picture of the run, for whoever watches."""

# How often a difference is looked at before it counts, where the market does not wait.
_LOOKS, _LOOK_SECONDS = 4, 0.5
_COMPLETED, _STOPPED, _HALTED = "completed", "stopped", "halted"


@dataclass(frozen=True)
class Session:
    """What a run needs from its start to its end."""

    prepared: Prepared
    stage: Stage
    on_status: OnStatus
    on_remark: Callable[[str], None]
    notifier: Notifier
    accept_broker: bool
    change: Change | None = None


class PaperRun:
    """A run made anew from its journal, as far as there is one, and then going on.

    Attributes:
        resumed: bars that it had seen before this session.
    """

    def __init__(self, session: Session, folder: Path, manifest: dict[str, Any], journal: Journal) -> None:
        self._session = session
        self._stage = stage = session.stage
        self._journal = journal
        self._switch = Switch(folder)
        config = session.prepared.config
        entries = list(journal.entries())
        self._past = read_recorded(journal, cash=config.broker.cash)
        self.resumed = len(self._past.steps)
        universe = session.prepared.bars.membership
        self._known = seen_bars(self._past, manifest, universe) if self._past.history else stage.history()
        first = self._past.steps[0][0] if self._past.steps else None
        before = None if first is None else pd.Timestamp(first, tz="UTC") - pd.Timedelta(1, unit="ns")
        connection = stage.connection
        self._desk = AlpacaDesk(connection.trading, connection.inbox)
        log = _Announcing(journal, session.notifier, folder.name)
        self._retrace = Retrace(entries, Present(steps=self._steps, desk=self._desk, log=log))
        self._goes_on = bool(entries)
        self._desk.held = "the account has not been compared with the journal yet" if entries else ""
        self._reconnects = 0
        self._verifier = Verifier(
            connection,
            account_cash=float(journal.about["cash"]) + self._past.unexplained_cash,
            ledger_cash=config.broker.cash,
            agreed=_agreed(entries),
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
                slower=config.data.slower or (),
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
        if self._session.change is not None:
            change = self._session.change
            self._session.on_remark(f"{change.new['name']} decides from here on, in the place of {change.old['name']}")
        if self._switch.look().paused:
            self._session.on_remark(f"entries are {self._switch.look().paused}; lift that with nextbar resume")
        with _stopping(connection):
            connection.open()
            try:
                live.run()
            except StorageError:
                self._withdraw_entries()
                raise
            except Differs as error:
                raise NextbarError(
                    f"run {live.name} cannot go on, since it would not do again what it has done: {error}; nothing was "
                    f"sent. Close its positions with nextbar kill {live.name}, and begin another run with --new"
                ) from error
        self._verifier.at_the_end(live, self._journal, strict=self._stage.mode == "replay")
        inbox = connection.inbox
        stopped = inbox.stopped and not inbox.finished
        # One that was stopped before a halt had closed everything goes on to close it.
        if live.halted and (live.is_flat or not stopped):
            return _HALTED
        return _STOPPED if stopped else _COMPLETED

    def _withdraw_entries(self) -> None:
        """Without a journal nothing new is sent: what would open a position is cancelled, what protects one stays."""
        for broker_id, order in self._live.venue.at_broker.items():
            if not order.closing and order.parent is None:
                with suppress(BrokerError):
                    self._desk.withdraw(broker_id)

    def _steps(self) -> Iterator[Arrived]:
        """What comes after the journal's end: first what was missed, then the account is compared, then the rest."""
        live, stage = self._live, self._stage
        clock = live.time or int(self._journal.about["opening"])
        source = stage.source(live, self._journal, self._known, clock, self._look)
        if self._goes_on:
            self._journal.write("resumed", steps=self.resumed)
        if self._session.change is not None:
            live.change_model(**self._session.change.entry())
        if self._goes_on:
            yield from self._caught_up(source)
            self._desk.held = ""
            self._look()  # what a person has said meanwhile comes before what was to be sent
            if live.venue.has_outgoing:
                yield self._nothing()
        yield from source

    def _caught_up(self, source: Source) -> Iterator[Arrived]:
        """What happened while nobody looked, until nothing in the account is unexplained, or a person accepts it.

        Where the market does not wait, a fill may be on its way, and be known to one of the broker's answers only: it
        is looked again.
        """
        live, stage, verifier = self._live, self._stage, self._verifier
        wrong: list[Gap] = []
        for look in range(_LOOKS if stage.real_time else 1):
            if look:
                stage.connection.inbox.wait(lambda: False, _LOOK_SECONDS)
            with suppress(NoAnswer):  # comparing insists
                self._desk.catch_up(live.venue.waiting)
            if isinstance(source, LockStep):
                yield from source.missed()
            if live.time and (stage.real_time or stage.connection.inbox.has_updates):
                yield self._nothing()
            if stage.connection.inbox.has_updates:  # of orders that turned out to be there
                yield self._nothing()
            wrong = verifier.differences(live, self._journal)
            if not wrong:
                break
        verifier.reconcile(live, self._journal, wrong, accept=self._session.accept_broker)

    def _nothing(self) -> Arrived:
        return Arrived(self._live.time, {}, False, time.monotonic_ns())

    # --- who looks on ----------------------------------------------------------------------------------------------

    def _after_step(self, live: LiveRun) -> None:
        self._look()
        self._session.on_status(live.status)

    def _look(self) -> None:
        """What was said from outside, and what is not as it should be, between two steps and while nothing comes."""
        if self._desk.held:
            return
        live, said, inbox = self._live, self._switch.look(), self._stage.connection.inbox
        if inbox.reconnects != self._reconnects:
            self._reconnects = inbox.reconnects
            self._verifier.soon()
        self._verifier.look(live, self._journal)
        live.pause("person", said.paused)
        live.pause("disk", self._journal.full)
        live.pause("model", self._stale_model())
        if said.killed:
            live.halt(said.killed, ends=True)
        self._journal.commit()

    def _stale_model(self) -> str:
        prepared = self._session.prepared
        limit = prepared.config.risk.stale_model_days
        if limit is None or prepared.forecaster is None or not self._stage.real_time:
            return ""
        last_seen = prepared.forecaster.bundle.seen[1]
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


def _agreed(entries: Sequence[Entry]) -> str:
    """When journal and account were last taken to agree, in words; empty where nothing was decided yet."""
    for entry in reversed(entries):
        if entry.kind == "decision" or (entry.kind == "account" and not entry.body["differences"]):
            return f"{pd.Timestamp(entry.written, tz='UTC'):%Y-%m-%d %H:%M:%S} UTC"
    return ""


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
