"""What a replay leaves behind: the backtest's records, and a journal in which everything stands, but no secret."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from pairs import NOW, TECH, Pair, entries, frame, manifest, run_both, write_config

from engine.paper import paper

SECRET = "a-secret-that-must-not-be-written-anywhere"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A run file in both modes, whose exchange has a known secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_urlsafe", lambda count: SECRET)
        return run_both(tmp_path_factory.mktemp("records")).agree()


def test_every_bar_of_the_span_is_in_the_journal(pair: Pair) -> None:
    bars = frame(pair.backtest.run, "bars")
    steps = entries(pair.paper.run, "bars")
    assert [step.body["time"] for step in steps] == sorted(set(bars["time"].astype("int64")))
    assert sum(len(step.body["bars"]) for step in steps) == len(bars)
    assert all(step.body["decide"] for step in steps)
    close = {(row.symbol, row.time.value): row.close for row in bars.itertuples()}
    for step in steps:
        for symbol, (_, _, _, found, _) in step.body["bars"].items():
            assert found == close[symbol, step.body["time"]]


def test_the_history_is_the_warm_up(pair: Pair) -> None:
    history = {entry.body["symbol"]: entry.body["bars"] for entry in entries(pair.paper.run, "history")}
    assert list(history) == TECH["data"]["symbols"]
    assert {len(rows) for rows in history.values()} == {TECH["data"]["warmup_bars"]}


def test_every_order_fill_and_decision_is_in_the_journal_once(pair: Pair) -> None:
    orders, fills = frame(pair.backtest.run, "orders"), frame(pair.backtest.run, "fills")
    assert len(fills) > 10
    intents = entries(pair.paper.run, "intent")
    assert [entry.body["order"] for entry in intents] == orders["order_id"].tolist()
    booked = entries(pair.paper.run, "fill")
    assert [(entry.body["order"], entry.body["price"]) for entry in booked] == list(
        zip(fills["order_id"], fills["price"], strict=True)
    )
    counts = Counter(entry.kind for entry in entries(pair.paper.run))
    assert counts["decision"] == counts["bars"] == len(frame(pair.backtest.run, "equity"))
    sent = int((~orders["status"].isin(["refused", "rejected"])).sum())
    assert counts["ack"] == sent
    assert counts["turned_down"] == counts["late"] == counts["revision"] == counts["withdrawal"] == 0
    assert manifest(pair.paper.run)["journal_entries"] == {**counts}
    told = Counter(entry.body["event"] for entry in entries(pair.paper.run, "update"))
    assert told["fill"] + told["partial_fill"] == len(fills)


def test_an_order_stands_in_the_journal_before_it_is_sent_and_before_it_fills(pair: Pair) -> None:
    log = entries(pair.paper.run)
    where = {kind: {e.body["order"]: e.number for e in log if e.kind == kind} for kind in ("intent", "ack", "fill")}
    assert where["ack"]
    for order, acknowledged in where["ack"].items():
        assert where["intent"][order] < acknowledged
    for order, filled in where["fill"].items():
        assert where["ack"][order] < filled
    numbers = [entry.number for entry in log]
    assert numbers == sorted(set(numbers))


def test_a_fill_is_booked_at_a_later_bar_than_its_decision(pair: Pair) -> None:
    for entry in entries(pair.paper.run, "fill"):
        assert entry.body["decided"] < entry.body["time"]


def test_equity_at_each_decision_is_that_of_the_curve(pair: Pair) -> None:
    curve = frame(pair.backtest.run, "equity")
    decisions = entries(pair.paper.run, "decision")
    assert [entry.body["equity"] for entry in decisions] == curve["equity"].tolist()
    assert [entry.body["cash"] for entry in decisions] == curve["cash"].tolist()


def test_the_account_agrees_at_the_end(pair: Pair) -> None:
    (last,) = entries(pair.paper.run, "account")[-1:]
    assert last.body["differences"] == []
    (end,) = entries(pair.paper.run, "end")
    assert (end.body["how"], end.number) == ("completed", entries(pair.paper.run)[-1].number)


def test_no_secret_is_written(pair: Pair) -> None:
    files = [path for path in pair.paper.run.parent.parent.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"journal.sqlite", "manifest.json", "report.html", "config.yaml"}
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_the_reports_data_hashes_are_those_of_the_bars(pair: Pair) -> None:
    hashes = [manifest(folder)["hashes"] for folder in (pair.backtest.run, pair.paper.run)]
    assert hashes[0] == hashes[1]
    assert hashes[0]["data"] != hashes[0]["data_with_warmup"]


def sockets() -> int:
    """Open sockets of this process."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found += os.readlink(descriptor).startswith("socket:")
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def test_a_replay_leaves_no_thread_no_socket_and_no_signal_handler_and_repeats_itself(tmp_path: Path) -> None:
    config = write_config(tmp_path, spans={"test": ["2011-01-01", "2011-01-31"]})
    paper(config, root=tmp_path, now=NOW, replay=True)  # what is made once for the whole process is made here
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    threads, open_sockets, descriptors = threading.enumerate(), sockets(), len(os.listdir("/proc/self/fd"))
    reports = [paper(config, root=tmp_path, now=NOW, replay=True) for _ in range(4)]
    assert threading.enumerate() == threads
    assert sockets() == open_sockets
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len({report.run for report in reports}) == 4
    assert len({(report.orders_hash, report.fills_hash) for report in reports}) == 1
    assert len({(report.run / "metrics.json").read_bytes() for report in reports}) == 1
    for report in reports[1:]:
        pd.testing.assert_frame_equal(frame(report.run, "equity"), frame(reports[0].run, "equity"), check_exact=True)
