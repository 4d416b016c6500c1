"""The use case behind ``nextbar kill``, ``pause`` and ``resume``: what a person says to a run from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import ConfigError, DataError, NextbarError, StorageError
from engine.kill_broker import reached
from engine.kill_choice import Chosen, alone, chosen_run
from engine.kill_process import NONE, REACTED, Patience, Process, await_reaction, count_halts
from engine.live import locks
from engine.live.account_picture import Picture, Told
from engine.live.account_rest import Persistence
from engine.live.claims import Claims, read_claims, unknown_claims
from engine.live.flatten import Flattening, Waits
from engine.live.journal import FILE, Journal
from engine.live.journal_file import never_begun
from engine.live.kill_notes import KillNotes
from engine.live.switch import Switch

_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a kill waits for others: the process, the broker, the ends of orders; seconds each."""

    patience: Patience = field(default_factory=Patience)
    persistence: Persistence = field(default_factory=Persistence)
    waits: Waits = field(default_factory=Waits)
    another_kill: float = 60.0


@dataclass(frozen=True, kw_only=True)
class KillReport:
    """What a kill did, and how the account is after it.

    Attributes:
        switch: why the run is killed. already: it was before.
        process: ``none`` traded it, it ``reacted``, or had to be ``ended``.
        canceled, closing, open_orders: orders of the run. held: symbol -> signed quantity of its positions.
        left_alone: what is on the account and none of the run's business, in sentences.
        over: the run's exchange is at the end of its bars, where nothing fills any more.
        flat: the run holds nothing, and has no open order. safe: flat, over, or all that it holds is being closed.
        cash, equity: of the account, account currency; None where there is none yet.
        remarks: what a person should know, one sentence each.
    """

    run: Path
    switch: str
    already: bool
    process: str
    canceled: tuple[Told, ...] = ()
    closing: tuple[Told, ...] = ()
    held: dict[str, float] = field(default_factory=dict)
    open_orders: tuple[Told, ...] = ()
    left_alone: tuple[str, ...] = ()
    over: bool = False
    flat: bool = True
    safe: bool = True
    cash: float | None = None
    equity: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PauseReport:
    """What was said to a run: why its entries are paused now, or empty; whether that was so before, and its process."""

    run: Path
    paused: str
    already: bool
    pid: int | None


def kill(
    reference: str | None,
    *,
    root: Path,
    now: datetime,
    say: Callable[[str], None] = lambda sentence: None,
    timing: Timing | None = None,
) -> KillReport:
    """Stop a run for good: cancel its orders, close its positions, and let it trade no more. Twice is harmless.

    The switch is written before anything else. A process that trades the run closes everything by itself; one that
    does not react is ended. Where there is none, it is done from here, by REST alone.

    Args:
        reference: the run's folder or name; None: the newest paper run that goes on.
        root: the folder of runs.
        say: takes what is going on, a sentence at a time.

    Raises:
        ConfigError: no such run, or not a paper run.
        BrokerError: the broker could not be reached; the run does not trade any more all the same.
        NextbarError: the process cannot be ended, or the exchange of a replay cannot be brought back; the same holds.
    """
    chosen = chosen_run(reference, root=root)
    return _Kill(chosen, now=now, say=say, timing=timing or Timing()).done()


def pause(reference: str | None, *, root: Path, now: datetime) -> PauseReport:
    """Let a run open no more positions; exits and protective orders go on. It survives restarts, until ``resume``.

    Raises:
        ConfigError: no such run; it is over, or killed.
        StorageError: the switch cannot be written.
    """
    chosen = _going_on(reference, root, "pause")
    switch = Switch(chosen.folder)
    before = switch.look().paused
    if not before:
        switch.pause(f"paused with nextbar pause on {_moment(now)}")
    return PauseReport(
        run=chosen.folder, paused=switch.look().paused, already=bool(before), pid=locks.holder(chosen.folder / FILE)
    )


def resume(reference: str | None, *, root: Path) -> PauseReport:
    """Let a paused run open positions again; of a run that is not paused nothing changes.

    Raises:
        ConfigError: no such run; it is over, or killed.
        StorageError: the switch cannot be written.
    """
    chosen = _going_on(reference, root, "resume")
    switch = Switch(chosen.folder)
    paused = switch.look().paused
    if paused:
        switch.pause("")
    return PauseReport(run=chosen.folder, paused="", already=not paused, pid=locks.holder(chosen.folder / FILE))


def _going_on(reference: str | None, root: Path, what: str) -> Chosen:
    chosen = chosen_run(reference, root=root)
    name = chosen.folder.name
    killed = Switch(chosen.folder).look().killed
    if killed:
        raise ConfigError(
            f"run {name} was {killed}, for good: there is nothing to {what}; begin another run with nextbar paper "
            "CONFIG --new"
        )
    if not chosen.goes_on:
        raise ConfigError(
            f"run {name} is over ({chosen.manifest['status']}): there is nothing to {what}; name a run that goes on"
        )
    return chosen


def _moment(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


class _Kill:
    """One kill, from the switch to the account's picture."""

    def __init__(self, chosen: Chosen, *, now: datetime, say: Callable[[str], None], timing: Timing) -> None:
        self._folder, self._manifest, self._goes_on = chosen
        self._path = self._folder / FILE
        self._say, self._timing = say, timing
        self._switch = Switch(self._folder)
        self._before = self._switch.look().killed
        self._reason = self._before or f"killed with nextbar kill on {_moment(now)}"
        self._halts = count_halts(self._folder)
        self._remarks: list[str] = []

    def done(self) -> KillReport:
        """Write the switch, and see that everything is closed."""
        stopped = self._throw()
        try:
            with alone(self._folder, seconds=self._timing.another_kill, say=self._say):
                return self._closed()
        except NextbarError as error:
            raise type(error)(
                f"run {self._folder.name} {stopped} what it has at the broker may still be open: {error}; once that is "
                f"mended, say nextbar kill {self._folder.name} again"
            ) from error

    def _throw(self) -> str:
        """Write the switch; what that means, as the beginning of a sentence on what is still open."""
        try:
            self._switch.kill(self._reason)
        except StorageError as error:
            self._remarks.append(f"{error}; until then a restart would trade again")
            return f"could not be marked as killed ({error}), and"
        name = self._folder.name
        self._say(f"run {name} was {self._before} already" if self._before else f"run {name} is killed")
        return "is killed and will not trade any more, but"

    def _closed(self) -> KillReport:
        how, pid = NONE, None
        for _ in range(_TRIES):
            process = await_reaction(self._folder, halts=self._halts, patience=self._timing.patience, say=self._say)
            how, pid = process.how if process.how != NONE else how, process.pid
            if pid is not None:
                return self._looked_at(Process(how, pid))
            with self._journal() as (journal, taken):
                if taken:
                    return self._flattened(how, journal)
        raise StorageError(f"{self._path}: process {locks.holder(self._path)} keeps the journal; end that")

    @contextmanager
    def _journal(self) -> Iterator[tuple[Journal | None, bool]]:
        """The journal, to write; None where it cannot be. And whether nobody else has it."""
        if self._has_none():
            self._remarks.append("the run has no journal: what is its own is told from the ids of its orders alone")
            yield None, True
            return
        try:
            journal = Journal.open(self._path, {"id": self._manifest.get("journal")})
        except NextbarError as error:
            if locks.holder(self._path) is not None:
                yield None, False
                return
            damaged = isinstance(error, DataError)
            means = "the run cannot go on" if damaged else "a restart would have to be told with --accept-broker"
            self._remarks.append(f"{means}: {error}")
            yield None, True
            return
        try:
            yield journal, True
        finally:
            try:
                journal.close()
            except StorageError as error:
                self._remarks.append(str(error))

    def _has_none(self) -> bool:
        with suppress(DataError):
            return never_begun(self._path)
        return False

    def _claims(self, journal: Journal | None) -> Claims:
        run, symbols = self._folder.name, set(map(str, self._manifest.get("symbols") or ()))
        try:
            if journal is not None:
                return read_claims(journal, run=run, symbols=symbols)
            if not self._has_none():
                with closing(Journal.read_only(self._path)) as read:
                    return read_claims(read, run=run, symbols=symbols)
        except DataError as error:
            self._remarks.append(f"what is the run's own is told from the ids of its orders alone: {error}")
        return unknown_claims(run, symbols)

    def _flattened(self, how: str, journal: Journal | None) -> KillReport:
        """Cancel and close from here: nobody trades the run."""
        claims = self._claims(journal)
        notes = KillNotes(journal, self._reason, claims.last_bar)
        if self._manifest.get("mode") != "replay":
            self._say("asking its broker what it has there")
        with reached(self._folder, self._manifest, self._timing.persistence) as broker:
            if broker is None:
                lost = "its exchange has no state: the replay had not begun, or has lost it; there is nothing to close"
                return self._report(how, None, None, [lost])
            flattening = Flattening(
                broker.rest, claims, notes, advance=broker.advance, over=broker.over, waits=self._timing.waits
            )
            if broker.over:
                self._say(
                    "its exchange is at the end of its bars: what is open there is cancelled, nothing fills any more"
                )
            else:
                nobody = "its process has ended" if how == REACTED else "no process trades it"
                self._say(f"{nobody}: what it still has at the broker is cancelled and closed from here")
            flattening.run()
            picture = flattening.picture()
        remarks = [*flattening.problems, *notes.problems, *_said(picture, flattening.over)]
        return self._report(how, picture, flattening, remarks)

    def _looked_at(self, process: Process) -> KillReport:
        """The account beside a process that is about to close everything, and needs longer for it."""
        remarks = [
            f"process {process.pid} has halted and ends once all is closed; where it does not, end it (kill -9 "
            f"{process.pid}) and say nextbar kill {self._folder.name} again"
        ]
        claims = self._claims(None)
        if self._manifest.get("mode") == "replay":
            # Its exchange lives in that process.
            held = {symbol: quantity for symbol, quantity in sorted(claims.held.items()) if abs(quantity) > 1e-9}
            picture = None
            return self._report(process.how, picture, None, remarks, held=held)
        with reached(self._folder, self._manifest, self._timing.persistence) as broker:
            assert broker is not None
            looking = Flattening(broker.rest, claims, KillNotes(None, self._reason, 0))
            picture = looking.picture()
        return self._report(process.how, picture, looking, [*remarks, *_said(picture, over=False)])

    def _report(
        self,
        how: str,
        picture: Picture | None,
        flattening: Flattening | None,
        remarks: Sequence[str],
        *,
        held: dict[str, float] | None = None,
    ) -> KillReport:
        written = bool(self._switch.look().killed)
        remarks = tuple(dict.fromkeys([*self._remarks, *remarks]))
        common = {"run": self._folder, "already": bool(self._before), "process": how, "remarks": remarks}
        switch = self._switch.look().killed
        if picture is None or flattening is None:
            held = held or {}
            # A process that halts closes what is held; nothing has to be done by hand.
            return KillReport(**common, switch=switch, held=held, flat=not held, safe=written)  # type: ignore[arg-type]
        over = flattening.over
        return KillReport(
            **common,  # type: ignore[arg-type]
            switch=switch,
            canceled=flattening.canceled,
            closing=flattening.closing,
            held=picture.held,
            open_orders=picture.open_orders,
            left_alone=picture.left_alone,
            over=over,
            flat=picture.flat,
            safe=written and (picture.flat or picture.covered or over),
            cash=picture.cash,
            equity=picture.equity,
        )


def _said(picture: Picture, over: bool) -> list[str]:
    """What the account's picture means."""
    if over and picture.held:
        return ["the replay is at its end, where nothing fills any more: what is held stays as it is"]
    if picture.held and picture.closed_until and picture.covered:
        return [f"the market is closed: the closing orders wait for its open, {picture.closed_until}"]
    if picture.held and not picture.covered:
        return ["not all that the run holds is being closed: look at the account, and kill the run again"]
    return []


__all__ = ["REACTED", "KillReport", "PauseReport", "Timing", "kill", "pause", "resume"]
