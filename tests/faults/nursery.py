"""Runs of `nextbar paper --replay` in processes that are killed, or on exchanges that misbehave, many at a time.

It imports everything once, and forks a process for each attempt, so that an attempt costs what it does and no more. A
process of its own, because a test's process has threads, and such are not forked:

    python -m tests.faults.nursery PLAN.json RESULTS.json

The plan: ``config`` (a run file), ``root`` (a folder), ``workers``, and ``trials``, each with a ``name``, ``deaths``
(of one attempt after another: ``[point, nth]``, or a fraction of the time for which the first trial has traded: it runs
by itself; below 0 a fraction of the time before that, when a run starts) and ``faults``
(as `nextbar exchange --faults` has them); ``attempts`` limits how often it is started. A result has the run's hashes,
and what the exchange says of its orders.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import engine.paper_stage
from engine.exchange.faults import Faults
from engine.exchange.server import ExchangeServer
from engine.paper import paper
from engine.paper_run import PaperRun
from engine.report.run import load_manifest
from engine.report.tear_sheet import render_report  # noqa: F401  so that no attempt has to import it
from engine.run_file import load_config
from tests.faults.crash_points import POINTS

_MOST_ATTEMPTS = 12
_SECONDS = 120.0


@dataclass
class _Trial:
    """A run that is started until it ends."""

    name: str
    root: Path
    deaths: list[Any]
    faults: str
    most: int
    attempts: int = 0
    killed: int = 0
    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class _Attempt:
    """A process that runs: since when, the pipe on which it says that it trades, and when it is to be killed.

    ``death`` is a fraction, see above; ``deadline`` is known once it trades (monotonic seconds).
    """

    trial: _Trial
    begun: float
    pipe: int
    death: float | None
    deadline: float


@dataclass
class _Usual:
    """How long the first trial took to start, and to trade, in seconds; longer where many run at a time."""

    start: float = 1.0
    trade: float = 1.0


def _attempt(trial: _Trial, config: Path, death: Any, pipe: int) -> None:
    """In the new process: one attempt, whose outcome it leaves in a file; the pipe hears when it begins to trade."""
    os.setsid()
    trade = PaperRun.trade

    def trading(run: PaperRun) -> str:
        os.write(pipe, b"x")
        begun.append(time.monotonic())
        return trade(run)

    PaperRun.trade = trading  # type: ignore[method-assign]
    begun: list[float] = []
    log = os.open(trial.root / f"attempt-{trial.attempts}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if isinstance(death, list):
        POINTS[death[0]](death[1])
    made: list[ExchangeServer] = []
    if trial.faults:

        def faulty(**options: Any) -> ExchangeServer:
            made.append(ExchangeServer(**options, faults=Faults.parse(trial.faults)))
            return made[0]

        engine.paper_stage.ExchangeServer = faulty  # type: ignore[assignment,misc]
    outcome: dict[str, Any]
    try:
        report = paper(load_config(config, ()), root=trial.root, now=datetime.now(UTC), replay=True)
        outcome = {
            "status": report.status,
            "orders_hash": report.orders_hash,
            "fills_hash": report.fills_hash,
            "resumed": report.resumed,
            "metrics": report.metrics,
            "run": str(report.run),
            "traded_seconds": time.monotonic() - begun[0],
        }
    except BaseException as error:
        traceback.print_exc()
        outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    if made:
        outcome["struck"] = [[fault.step, fault.kind] for fault in made[0].faults_spent]
    (trial.root / "outcome.json").write_text(json.dumps(outcome))
    sys.stdout.flush()
    os._exit(0 if outcome["status"] != "failed" else 1)


def _started(trial: _Trial, config: Path, usual: _Usual) -> tuple[int, _Attempt]:
    """The new process."""
    death = trial.deaths[trial.attempts] if trial.attempts < len(trial.deaths) else None
    trial.attempts += 1
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    child = os.fork()
    if child == 0:
        try:
            _attempt(trial, config, death, writes)
        finally:
            os._exit(70)
    os.close(writes)
    now = time.monotonic()
    moment = death if isinstance(death, float) else None
    early = moment is not None and moment < 0.0
    deadline = now - moment * usual.start if early and moment is not None else now + _SECONDS
    return child, _Attempt(trial, now, reads, None if early else moment, deadline)


def _look(attempt: _Attempt, usual: _Usual) -> bool:
    """Whether the process is to be killed now."""
    now = time.monotonic()
    if attempt.death is not None:
        try:
            if os.read(attempt.pipe, 1):
                attempt.deadline, attempt.death = now + attempt.death * usual.trade, None
        except BlockingIOError:
            pass
    return now >= attempt.deadline


def _ended(trial: _Trial) -> dict[str, Any]:
    path = trial.root / "outcome.json"
    outcome: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"status": "killed for ever"}
    return {
        **outcome,
        "name": trial.name,
        "attempts": trial.attempts,
        "killed": trial.killed,
        "codes": trial.codes,
        "seconds": round(trial.seconds, 3),
        **_orders(trial.root),
    }


def _orders(root: Path) -> dict[str, Any]:
    """What the exchange has taken: the client ids of its orders, in their order; and how many runs there are.

    A run that was over when its process was killed does not count: the next attempt rightly begins another.
    """
    states = sorted(root.glob("runs/*/exchange.sqlite"))
    if not states:
        return {"runs": 0, "client_ids": []}
    database = sqlite3.connect(states[-1])
    try:
        rows = database.execute("SELECT detail FROM actions WHERE kind = 'submit' ORDER BY number").fetchall()
    finally:
        database.close()
    over = sum(load_manifest(state.parent)["status"] in ("completed", "halted") for state in states[:-1])
    return {"runs": len(states) - over, "client_ids": [json.loads(detail)["client_order_id"] for (detail,) in rows]}


def run_plan(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Run all trials, so many at a time; their results in the order of the plan."""
    config, root = Path(plan["config"]), Path(plan["root"])
    waiting = [
        _Trial(
            name=t["name"],
            root=root / t["name"].replace(" ", "-").replace("/", "-"),
            deaths=t.get("deaths", []),
            faults=t.get("faults", ""),
            most=t.get("attempts", _MOST_ATTEMPTS),
        )
        for t in plan["trials"]
    ]
    for trial in waiting:
        trial.root.mkdir(parents=True)
    order = [trial.name for trial in waiting]
    results: dict[str, dict[str, Any]] = {}
    running: dict[int, _Attempt] = {}
    usual, workers = _Usual(), plan.get("workers", 2)
    while waiting or running:
        while waiting and len(running) < (workers if results else 1):
            trial = waiting.pop(0)
            child, attempt = _started(trial, config, usual)
            running[child] = attempt
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            for other, attempt in running.items():
                if _look(attempt, usual):
                    os.kill(other, signal.SIGKILL)
            time.sleep(0.001)
            continue
        attempt = running.pop(child)
        os.close(attempt.pipe)
        trial, took = attempt.trial, time.monotonic() - attempt.begun
        trial.seconds += took
        code = os.waitstatus_to_exitcode(status)
        trial.codes.append(code)
        trial.killed += code == -signal.SIGKILL
        # Killed, or failed with more deaths to come: it is started again, as a supervisor would.
        hopeless = code > 0 and trial.attempts > len(trial.deaths) + 3
        if code == 0 or hopeless or trial.attempts >= trial.most:
            results[trial.name] = _ended(trial)
            if len(results) == 1:
                traded = float(results[trial.name].get("traded_seconds", 1.0))
                stretch = max(1.0, workers / 2)
                usual = _Usual(start=(took - traded) * stretch, trade=traded * stretch)
        else:
            waiting.insert(0, trial)
    return [results[name] for name in order]


def main() -> None:
    """Read a plan, run it, write the results."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(run_plan(plan)))


if __name__ == "__main__":
    main()
