"""The kill switch and the pause of replays: beside a process that trades, hangs, or is no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kill_stage import NOW, QUICK, REASON, KillStage, entries, status_of

from engine import kill_broker
from engine.errors import ConfigError, DataError, RiskHalt, StorageError
from engine.kill import kill, pause, resume
from engine.kill_process import Patience
from engine.live import locks
from engine.live.journal import FILE
from engine.paper_stage import STATE
from engine.twin import twin

BOTH = [("sell", "AAPL", 10.0), ("sell", "MSFT", 20.0)]
# Enters and leaves, again and again.
IN_AND_OUT = """
from pathlib import Path
import backtrader as bt

class InAndOut(bt.Strategy):
    def next(self):
        if len(self) == 7 and Path("broken").exists():
            raise RuntimeError("the strategy is broken")
        if len(self) % 4 == 1:
            self.buy(size=10)
        elif len(self) % 4 == 3:
            self.close()
"""


@contextmanager
def trading(stage: KillStage, *, steps: int = 7) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A replay in a process of its own, which has taken so many steps and waits a second before each other one."""
    command = [sys.executable, "-m", "engine.cli", "paper", "run.yaml", "--replay", "--speed", "5/s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            journal = wait_for(lambda: next((stage.folder / "runs").glob(f"*/{FILE}"), None))
            wait_for(lambda: locks.holder(journal) and _decisions(journal) >= steps)
            yield process, journal.parent
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def _decisions(journal: Path) -> int:
    try:
        return len(entries(journal.parent, "decision"))
    except DataError:  # it is only just being made
        return 0


def wait_for(found: Callable[[], Any]) -> Any:
    """What ``found`` gives, once it gives something; asked again and again for half a minute."""
    deadline = time.monotonic() + 30.0
    while not (value := found()):
        assert time.monotonic() < deadline
        os.sched_yield()
    return value


def test_a_process_that_trades_closes_everything_and_ends_with_5(stage: KillStage) -> None:
    patient = replace(QUICK, patience=Patience(reaction=10.0, end=20.0, death=5.0))
    with trading(stage) as (process, run):
        done = stage.kill(timing=patient)
        output, _ = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in output) == (5, False), output
    assert (done.process, done.flat, done.switch, done.closing) == ("reacted", True, REASON, ())
    assert status_of(run) == "halted"
    assert entries(run, "killed") == []
    assert [(e.body["side"], e.body["symbol"], e.body["quantity"]) for e in entries(run, "fill")][-2:] == BOTH
    again = stage.kill()
    assert (again.run, again.already, again.process, again.flat) == (done.run, True, "none", True)
    with pytest.raises(RiskHalt, match="--new"):
        stage.trade(replay=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_dead_or_hangs_is_done_without(stage: KillStage, how: signal.Signals) -> None:
    with trading(stage) as (process, run):
        process.send_signal(how)
        if how is signal.SIGKILL:
            process.wait()
        done = stage.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert done.process == ("none" if how is signal.SIGKILL else "ended")
    assert (done.flat, done.held) == (True, {})
    assert [(o.side, o.symbol, o.quantity) for o in done.closing] == BOTH
    assert stage.kill().flat
    report = stage.trade(replay=True)
    assert (report.run.resolve(), report.status, report.halted) == (run, "halted", REASON)
    assert [(e.body["side"], e.body["symbol"], e.body["quantity"]) for e in entries(run, "fill")][-2:] == BOTH
    assert twin(run.name, root=Path("runs")).difference == ""
    with pytest.raises(RiskHalt):
        stage.trade(replay=True)


def test_a_replay_is_closed_without_its_strategy_and_its_keys(
    stage: KillStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stage.break_down(replay=True)
    (stage.folder / "mine.py").write_text("this is no Python")
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "APCA_API_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    done = stage.kill(run.name)
    assert (done.flat, len(done.closing), len(done.canceled)) == (True, 2, 3)


def test_the_state_of_a_replay_has_one_name() -> None:
    assert kill_broker.STATE == STATE


def test_a_replay_that_had_not_begun_is_flat(stage: KillStage) -> None:
    run = stage.break_down(replay=True)
    (run / STATE).unlink()
    done = stage.kill()
    assert done.flat
    assert "had not begun" in " ".join(done.remarks)


def test_nobody_ends_a_process_that_does_not_hold_the_lock(stage: KillStage) -> None:
    with trading(stage) as (process, going):
        lock = (going / FILE).with_suffix(".lock")
        kept = lock.read_bytes()
        lock.write_bytes(f"{os.getppid()}\n".encode())
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(StorageError, match="cannot be ended from here"):
            stage.kill(going.name)
        assert process.poll() is None
        lock.write_bytes(kept)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
    assert status_of(going) == "halted"


# --- pause and resume ------------------------------------------------------------------------------------------------


@pytest.fixture
def in_and_out(stage: KillStage) -> KillStage:
    """A strategy that enters at the first bar of four, and leaves at the third."""
    stage.config(strategy={"kind": "./in_and_out.py:InAndOut"}, name="in-and-out")
    (stage.folder / "in_and_out.py").write_text(IN_AND_OUT)
    return stage


def test_a_pause_refuses_entries_and_lets_exits_through_until_resumed(in_and_out: KillStage) -> None:
    runs, now = in_and_out.folder / "runs", NOW
    told = []

    def on_status(picture: Callable[[], Any]) -> None:
        step = picture().step
        if step == 5:  # an entry was decided on
            told.extend([pause(None, root=runs, now=now), pause(None, root=runs, now=now)])
        elif step == 16:
            told.extend([resume(None, root=runs), resume(None, root=runs)])

    report = in_and_out.trade(replay=True, on_status=on_status)
    assert [t.already for t in told] == [False, True, False, True]
    assert told[0].paused == told[1].paused == "paused with nextbar pause on 2026-11-24 10:31:02 UTC"
    assert told[0].pid == os.getpid()
    intents = {entry.body["order"]: entry.body for entry in entries(report.run, "intent")}
    refused = [body for body in intents.values() if body["status"] == "refused"]
    assert {body["side"] for body in refused} == {"buy"}
    assert len(refused) == 2
    assert "nextbar pause" in refused[0]["reason"]
    sides = [body["side"] for body in intents.values() if body["status"] == "accepted"]
    assert sides[:4] == ["buy", "sell", "buy", "sell"]  # the second sell came while it was paused
    assert sides.count("buy") > 4
    assert twin(report.run.name, root=runs).difference == ""


def test_a_pause_survives_a_restart(in_and_out: KillStage) -> None:
    runs, now = in_and_out.folder / "runs", NOW
    stopped = in_and_out.break_down(replay=True)
    said = pause(stopped.name, root=runs, now=now)
    assert said.pid is None
    report = in_and_out.trade(replay=True)
    assert (report.run.resolve(), report.status) == (stopped, "completed")
    broken = entries(report.run, "end")[0].number
    later = [entry.body for entry in entries(report.run, "intent") if entry.number > broken]
    assert {body["status"] for body in later if body["side"] == "buy"} == {"refused"}
    assert [body["status"] for body in later if body["side"] == "sell"] == ["accepted"]


def test_what_is_over_cannot_be_paused_or_resumed(in_and_out: KillStage) -> None:
    runs, now = in_and_out.folder / "runs", NOW
    with pytest.raises(ConfigError, match="no paper run"):
        pause(None, root=runs, now=now)
    run = in_and_out.trade(replay=True).run
    with pytest.raises(ConfigError, match=r"is over \(completed\)"):
        pause(None, root=runs, now=now)
    in_and_out.kill(run.name)
    for say in (lambda: pause(run.name, root=runs, now=now), lambda: resume(run.name, root=runs)):
        with pytest.raises(ConfigError, match="for good"):
            say()


def test_the_process_that_trades_does_not_end_itself(in_and_out: KillStage) -> None:
    caught: list[str] = []

    def on_status(picture: Callable[[], Any]) -> None:
        if picture().step == 3:
            with pytest.raises(StorageError, match="from another one") as found:
                kill(None, root=in_and_out.folder / "runs", now=NOW)
            caught.append(str(found.value))

    assert in_and_out.trade(replay=True, on_status=on_status).status == "halted"
    assert caught
