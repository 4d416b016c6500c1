"""A replay that does not come to its end: stopped, interrupted, or by a strategy that raises."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from lockstep import config_of, credentials_of, minutes
from pairs import NOW, entries, frame, manifest, write_config

import engine.live.connection
from engine.backtest import BacktestReport, backtest
from engine.config import BrokerConfig, RiskConfig
from engine.errors import StrategyError
from engine.exchange.server import AccountSpec, ExchangeServer
from engine.live.connection import Connection
from engine.live.inbox import Inbox
from engine.live.status import Status
from engine.paper import PaperReport, paper
from engine.report.run import load_run

MINUTES: dict[str, Any] = {
    "data": {
        "source": "sample:minutes",
        "symbols": ["SYN_CALM", "SYN_THIN", "SYN_WILD"],
        "timeframe": "1m",
        "warmup_bars": 40,
    },
    "spans": {"test": ["2023-11-24", "2023-11-24"]},
}
SPANS: dict[str, dict[str, Any]] = {"days": {}, "minutes": MINUTES}
DECIDED = ["order_id", "time", "symbol", "side", "quantity", "type", "limit_price", "stop_price", "time_in_force"]


def stopped(
    folder: Path, patch: pytest.MonkeyPatch, kind: type[Inbox], stop: Callable[[Any, Status], None], **sections: Any
) -> tuple[BacktestReport, PaperReport]:
    """A backtest, and a replay during which ``stop(inbox, status)`` is called after each step."""
    made: list[Any] = []

    def inbox() -> Inbox:
        made.append(kind())
        return made[-1]

    patch.setattr(engine.live.connection, "Inbox", inbox)
    config = write_config(folder, **sections)
    whole = backtest(config, root=folder, now=NOW)
    part = paper(config, root=folder, now=NOW, replay=True, on_status=lambda picture: stop(made[-1], picture()))
    return whole, part


def assert_beginning(whole: Path, part: Path) -> None:
    """The stopped run is the beginning of the backtest."""
    bars, all_bars = frame(part, "bars"), frame(whole, "bars")
    last = bars["time"].max()
    expected = all_bars[all_bars["time"] <= last].reset_index(drop=True)
    assert 0 < len(expected) < len(all_bars)
    pd.testing.assert_frame_equal(bars, expected, check_exact=True)
    orders, all_orders = frame(part, "orders"), frame(whole, "orders")
    pd.testing.assert_frame_equal(orders[DECIDED], all_orders[all_orders["time"] <= last][DECIDED], check_exact=True)
    fills, all_fills = frame(part, "fills"), frame(whole, "fills")
    assert len(fills) > 0
    pd.testing.assert_frame_equal(fills, all_fills[all_fills["time"] <= last], check_exact=True)
    equity, curve = frame(part, "equity"), frame(whole, "equity")
    columns = ["equity", "cash", "gross_exposure"]
    pd.testing.assert_frame_equal(equity[columns], curve.loc[:last, columns], check_exact=True)
    assert [entry.body["order"] for entry in entries(part, "intent")] == orders["order_id"].tolist()


@pytest.mark.parametrize("sections", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("at", [20, 40])
def test_a_run_that_is_stopped_after_a_step_is_the_beginning_of_the_backtest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], at: int
) -> None:
    def stop(inbox: Inbox, status: Status) -> None:
        if status.step == at:
            inbox.stop()

    whole, part = stopped(tmp_path, monkeypatch, Inbox, stop, **sections)
    assert part.status == "stopped"
    assert len(entries(part.run, "decision")) == at
    assert_beginning(whole.run, part.run)
    run = load_run(part.run)
    assert run.manifest["status"] == "stopped"
    assert (part.run / "report.html").stat().st_size > 10_000
    (end,) = entries(part.run, "end")
    assert end.body["how"] == "stopped"


class StoppedInAStep(Inbox):
    """Is stopped after the exchange has moved on, and before what it has pushed has arrived.

    What was pushed arrives while the run waits for it, and never if it does not wait. The lock is reentrant: nothing
    arrives between the stop and the verdict of a wait that does not wait.
    """

    slow = waiting = False

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], None]] = []

    def put_update(self, fields: Any) -> None:
        with self._changed:
            if self.slow:
                self.held.append(lambda: Inbox.put_update(self, fields))
                return
        super().put_update(fields)

    def put_bar(self, fields: Any, *, revised: bool = False) -> None:
        with self._changed:
            if self.slow:
                self.held.append(lambda: Inbox.put_bar(self, fields, revised=revised))
                return
        super().put_bar(fields, revised=revised)

    def wait(self, ready: Callable[[], bool], timeout: float, **more: Any) -> bool:
        with self._changed:
            if not self.slow:
                return super().wait(ready, timeout, **more)
            self.stop()
            self.waiting = True
            threading.Thread(target=self.deliver, daemon=True).start()
            try:
                return super().wait(ready, timeout, **more)
            finally:
                self.waiting = False

    def deliver(self) -> None:
        """Let everything in: what was held, and what is still on its way."""
        with self._changed:
            if not self.waiting:
                return
            self.slow = False
            for put in self.held:
                put()


@pytest.mark.parametrize("sections", SPANS.values(), ids=SPANS)
def test_a_stop_while_a_step_is_on_its_way_waits_for_the_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any]
) -> None:
    def stop(inbox: Any, status: Status) -> None:
        # An order went out at this step's decision: the next step brings its fill.
        if status.step >= 20 and status.orders and not inbox.stopped:
            inbox.slow = True

    whole, part = stopped(tmp_path, monkeypatch, StoppedInAStep, stop, **sections)
    assert part.status == "stopped"
    assert_beginning(whole.run, part.run)


INTERRUPTED = '''
import os
import signal
from pathlib import Path

import backtrader as bt


class Interrupted(bt.Strategy):
    """Is interrupted at its 15th bar, as by Ctrl-C, where a file says so."""

    def next(self):
        for d in self.datas:
            if not self.getposition(d):
                self.buy(d, size=10)
            elif len(self) % 4 == 0:
                self.close(d)
        if len(self) == 15 and (Path(__file__).parent / "now").exists():
            os.kill(os.getpid(), getattr(signal, (Path(__file__).parent / "now").read_text()))
'''


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_command_ends_with_130_and_a_readable_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text(INTERRUPTED)
    config = write_config(tmp_path, strategy={"kind": "./mine.py:Interrupted"})
    whole = backtest(config, root=tmp_path, now=NOW)
    (tmp_path / "now").write_text(name)
    code = "from engine.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "paper", "run.yaml", "--replay", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report["status"] == "stopped"
    part = tmp_path / report["run"]
    assert len(entries(part, "decision")) == 15
    assert_beginning(whole.run, part)
    assert load_run(part).manifest["status"] == "stopped"


RAISING = """
import backtrader as bt


class Raising(bt.Strategy):
    def next(self):
        self.buy(size=1)
        if len(self) == 9:
            raise ValueError("no more")
"""


def test_a_strategy_that_raises_is_told_of_in_the_same_words_and_what_was_done_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RAISING)
    config = write_config(tmp_path, strategy={"kind": "./mine.py:Raising"})
    with pytest.raises(StrategyError) as tested:
        backtest(config, root=tmp_path, now=NOW)
    threads = threading.enumerate()
    with pytest.raises(StrategyError) as replayed:
        paper(config, root=tmp_path, now=NOW, replay=True)
    assert str(replayed.value) == str(tested.value)
    assert "bar 9 (2011-01-13 21:00 UTC): no more" in str(replayed.value)
    assert threading.enumerate() == threads
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/manifest.json"))
    assert manifest(folder)["status"] == "failed"
    assert len(frame(folder, "orders")) == 9
    assert len(entries(folder, "decision")) == 8
    assert load_run(folder).manifest["orders_hash"]


def test_connections_that_are_closed_at_once_leave_no_thread() -> None:
    bars = minutes({"A": [100.0] * 4})
    broker = BrokerConfig()
    account = AccountSpec(key="replay", secret="a-secret", broker=broker)
    with ExchangeServer(bars=bars, start=bars.frames["A"].index[1], accounts=[account]) as exchange:
        threads = threading.enumerate()
        for _ in range(40):
            with Connection(
                credentials_of(exchange, account), config_of(bars, broker, RiskConfig()), streamed=False
            ) as connection:
                connection.open()
            assert threading.enumerate() == threads
