"""Runs that cannot go on as they were: a journal without its end, another strategy or process, a full disk."""

from __future__ import annotations

import os
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.errors import BrokerError, DataError, NextbarError, RiskHalt, StorageError
from engine.exchange.account import PRACTICE, AccountSpec
from engine.exchange.server import ExchangeServer
from engine.live.journal import Journal
from engine.live.recorded import read_recorded
from engine.live.switch import Switch
from engine.paper import PaperReport, paper
from engine.run_file import load_config
from engine.serving import bars_to_replay
from engine.trading.orders import BUY, SELL
from tests.faults.harness import DAILY, run_trials

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a run that was killed after 40 steps, and what an undisturbed one comes to."""
    folder = tmp_path_factory.mktemp("cut")
    trial = {"name": "cut", "deaths": [["after a step", 40]], "attempts": 1}
    results = run_trials(folder, DAILY, [trial])
    assert results[1]["killed"] == 1
    return folder, results[0]


@pytest.fixture
def place(cut_off: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of that folder, with its run file."""
    shutil.copytree(cut_off[0] / "trials" / "cut", tmp_path / "place")
    for name in ("run.yaml", "restless.py"):
        shutil.copy(cut_off[0] / name, tmp_path / "place")
    return tmp_path / "place"


def go_on(place: Path, **more: Any) -> PaperReport:
    return paper(load_config(place / "run.yaml", ()), root=place, now=NOW, replay=True, **more)


def run_of(place: Path) -> Path:
    (folder,) = [path.parent for path in place.glob("runs/*/manifest.json")]
    return folder


def test_it_goes_on(place: Path, cut_off: tuple[Path, dict[str, Any]]) -> None:
    report = go_on(place)
    assert (report.orders_hash, report.fills_hash) == (cut_off[1]["orders_hash"], cut_off[1]["fills_hash"])
    assert report.resumed == 40
    assert any("interrupted and went on 1 time" in remark for remark in report.remarks)


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.45, 0.7, 0.9, 0.99])
def test_a_journal_that_lost_its_end_goes_on_rightly_or_refuses_in_a_sentence(
    place: Path, cut_off: tuple[Path, dict[str, Any]], kept: float
) -> None:
    wal = run_of(place) / "journal.sqlite-wal"
    data = wal.read_bytes()
    wal.write_bytes(data[: int(len(data) * kept)])
    try:
        report = go_on(place)
    except (BrokerError, DataError) as error:
        sentence = str(error)
        assert "nothing was sent" in sentence or "journal" in sentence, sentence
    else:
        assert report.fills_hash == cut_off[1]["fills_hash"]


def test_what_is_not_known_to_the_journal_is_accepted_by_a_person(place: Path) -> None:
    wal = run_of(place) / "journal.sqlite-wal"
    data = wal.read_bytes()
    wal.write_bytes(data[: int(len(data) * 0.45)])
    with pytest.raises(BrokerError, match=r"by our ledger, .* at the broker .*--accept-broker"):
        go_on(place)
    report = go_on(place, accept_broker=True)
    assert report.status == "completed"
    assert any("accepted as the broker had it" in remark for remark in report.remarks)


def test_another_strategy_begins_another_replay(place: Path) -> None:
    source = place / "restless.py"
    source.write_text(source.read_text() + "\n# changed\n")
    report = go_on(place)
    assert report.resumed == 0
    assert len(list(place.glob("runs/*/manifest.json"))) == 2


def test_new_begins_another(place: Path) -> None:
    assert go_on(place, new=True).resumed == 0


def test_a_strategy_that_does_not_do_again_what_it_did_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    seeds = random.Random.__init__
    monkeypatch.setattr(random.Random, "__init__", lambda self, seed=None: seeds(self, f"other {seed}"))
    with pytest.raises(NextbarError, match=r"cannot go on, since it would not do again.*--new"):
        go_on(place)


def test_two_processes_do_not_trade_one_run(place: Path) -> None:
    journal = Journal.open(run_of(place) / "journal.sqlite", _about(run_of(place)))
    try:
        with pytest.raises(StorageError, match=r"traded by another process \(pid \d+\).*--new"):
            go_on(place)
    finally:
        journal.close()


def _about(folder: Path) -> dict[str, Any]:
    journal = Journal.read_only(folder / "journal.sqlite")
    try:
        return dict(journal.about)
    finally:
        journal.close()


def test_a_killed_run_goes_on_to_close_what_it_holds_and_never_again(place: Path) -> None:
    Switch(run_of(place)).kill("killed by a test")
    report = go_on(place)
    assert (report.status, report.halted) == ("halted", "killed by a test")
    journal = Journal.read_only(report.run / "journal.sqlite")
    steps = [entry.body for entry in journal.entries("bars")]
    journal.close()
    assert 40 < len(steps) < 50
    with pytest.raises(RiskHalt, match=r"killed by a test.*--new"):
        go_on(place)
    assert go_on(place, new=True).status == "completed"


def test_paused_it_opens_nothing_and_still_closes(place: Path) -> None:
    Switch(run_of(place)).pause("paused by a test")
    report = go_on(place)
    journal = Journal.read_only(report.run / "journal.sqlite")
    intents = [entry.body for entry in journal.entries("intent")][-200:]
    decided = [entry.body["time"] for entry in journal.entries("bars")][40]
    journal.close()
    later = [body for body in intents if body["decided"] >= decided]
    opened = [body for body in later if body["side"] == "buy" and body["parent"] is None]
    assert opened
    assert {body["reason"] for body in opened} == {"paused by a test"}
    assert any(body["side"] == "sell" and body["status"] != "refused" for body in later)


def test_on_a_full_disk_nothing_is_opened_and_the_run_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "commit", _full_after(Journal.commit, 30))
    report = go_on(place)
    journal = Journal.read_only(report.run / "journal.sqlite")
    pauses = [entry.body for entry in journal.entries("pause")]
    journal.close()
    assert any(body["source"] == "disk" and "the disk is full" in body["reason"] for body in pauses)


def test_where_nothing_can_be_written_any_more_entries_are_cancelled_and_exits_stay(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "commit", _broken_after(Journal.commit, 12))
    with pytest.raises(StorageError, match="no room"):
        go_on(place)
    monkeypatch.undo()
    account = _account(place)
    journal = Journal.read_only(run_of(place) / "journal.sqlite")
    recorded = read_recorded(journal, cash=100_000.0)
    ids = {entry.body["order"]: entry.body["broker_id"] for entry in journal.entries("ack")}
    journal.close()
    entries = [ids[order.id] for order in recorded.orders if order.alive and order.id in ids and order.side == BUY]
    # What had been filled by then was not written any more.
    assert {account.listed[broker_id].status for broker_id in entries} == {"canceled", "filled"}
    exits = account.open_orders()
    assert exits
    assert all(listed.order.side == SELL for listed in exits)
    assert go_on(place).status == "completed"


def _account(place: Path) -> Any:
    """The account of the replay's exchange, as its state has it."""
    config = load_config(place / "run.yaml", ())
    bars, start = bars_to_replay(config)
    spec = AccountSpec(key=PRACTICE[0], secret="s", broker=config.broker)
    with ExchangeServer(bars=bars, start=start, accounts=[spec], state=run_of(place) / "exchange.sqlite") as exchange:
        return exchange._exchange.clients[0].account


def _broken_after(commit: Any, count: int) -> Any:
    """From the nth commit of a step on, nothing can be written."""
    seen = [0]

    def broken(self: Journal, *, durable: bool = False) -> None:
        seen[0] += durable
        if seen[0] > count:
            raise StorageError("no room")
        commit(self, durable=durable)

    return broken


def _full_after(commit: Any, count: int) -> Any:
    """The journal says from its nth commit on that it lives on its reserve."""
    seen = [0]

    def full(self: Journal, *, durable: bool = False) -> None:
        seen[0] += 1
        commit(self, durable=durable)
        if seen[0] > count:
            self.full = "the disk is full: here; free some space"

    return full


def test_a_strategy_that_gives_orders_when_it_is_stopped_cannot_go_on(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(
        "import backtrader as bt\n\n\nclass Leaves(bt.Strategy):\n"
        "    def next(self):\n        if len(self) == 8:\n            self.buy(size=1)\n\n"
        "    def stop(self):\n        self.close()\n"
    )
    config = {**DAILY, "strategy": {"kind": "./leaves.py:Leaves"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    stopped: list[Any] = []

    def stop(picture: Any) -> None:
        stopped.append(picture)
        if len(stopped) == 10:
            os.kill(os.getpid(), signal.SIGINT)

    assert go_on(tmp_path, on_status=stop).status == "stopped"
    with pytest.raises(NextbarError, match=r"gave orders in its stop\(\).*nextbar kill.*--new"):
        go_on(tmp_path)
