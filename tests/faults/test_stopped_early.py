"""Runs that ended before their first bar, or before a halt had closed what they held: the next start goes on."""

from __future__ import annotations

import os
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from engine.errors import BrokerError
from engine.exchange.account import AccountSpec
from engine.exchange.server import ExchangeServer
from engine.live.connection import Connection
from engine.live.journal import Journal
from engine.paper import PaperReport, paper
from engine.paper_record import read_paper
from engine.run_file import load_config
from engine.serving import bars_to_replay
from tests.faults.harness import DAILY, HERE, MINUTES

# Slow enough to be stopped between a halt and the next bar, at whose open its orders fill.
SPEED = 60.0


def placed(folder: Path, config: dict[str, Any]) -> Path:
    shutil.copy(HERE / "restless.py", folder)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def go(path: Path, *, replay: bool, **more: Any) -> PaperReport:
    return paper(load_config(path, ()), root=path.parent, now=datetime.now(UTC), replay=replay, **more)


def test_one_whose_streams_did_not_open_goes_on_with_a_whole_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = placed(tmp_path, DAILY)

    def refused(self: Connection) -> None:
        raise BrokerError("the trades stream did not connect")

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "open", refused)
        with pytest.raises(BrokerError, match="did not connect"):
            go(path, replay=True)
    report = go(path, replay=True)
    assert report.status == "completed"
    assert len(list(tmp_path.glob("runs/*/journal.sqlite"))) == 1
    _, _, recorded = read_paper(report.run)
    assert set(recorded.history) == {"AAPL", "IBM", "MSFT"}
    assert recorded.ended == "completed"


def test_one_that_was_cut_off_before_it_began_is_refused_where_the_account_is_not_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = placed(tmp_path, MINUTES)
    loaded = load_config(path, ())
    bars, start = bars_to_replay(loaded)
    account = AccountSpec(key="k", secret="a-secret", broker=loaded.broker)

    def cut_off(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with ExchangeServer(bars=bars, start=start, accounts=[account], speed=SPEED) as exchange:
        monkeypatch.setenv("APCA_API_BASE_URL", exchange.url)
        monkeypatch.setenv("APCA_API_KEY_ID", "k")
        monkeypatch.setenv("APCA_API_SECRET_KEY", "a-secret")
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "open", cut_off)
            with pytest.raises(KeyboardInterrupt):
                go(path, replay=False)
        bought = {"symbol": "SYN_CALM", "qty": "5", "side": "buy", "type": "limit", "limit_price": "1",
                  "time_in_force": "gtc", "client_order_id": "by-hand"}  # fmt: skip
        keys = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "a-secret"}
        assert requests.post(f"{exchange.url}/v2/orders", headers=keys, json=bought, timeout=5).ok
        for _ in range(2):
            with pytest.raises(BrokerError, match="the account has open orders in SYN_CALM"):
                go(path, replay=False)
    assert len(list(tmp_path.glob("runs/*/manifest.json"))) == 1


def test_one_that_is_stopped_before_a_halt_has_closed_everything_goes_on_to_close_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = {"kind": "./restless.py:Restless", "params": {"seed": 5, "eager": 0.5}}
    path = placed(tmp_path, {**MINUTES, "strategy": strategy, "risk": {"max_gross": 2.0, "max_drawdown_halt": 1e-5}})
    loaded = load_config(path, ())
    bars, start = bars_to_replay(loaded)
    account = AccountSpec(key="k", secret="a-secret", broker=loaded.broker)
    stopped: list[Any] = []

    def stop(picture: Any) -> None:
        seen = picture()
        if seen.halted and seen.positions and not stopped:
            stopped.append(seen)
            os.kill(os.getpid(), signal.SIGINT)

    with ExchangeServer(bars=bars, start=start, accounts=[account], speed=SPEED) as exchange:
        monkeypatch.setenv("APCA_API_BASE_URL", exchange.url)
        monkeypatch.setenv("APCA_API_KEY_ID", "k")
        monkeypatch.setenv("APCA_API_SECRET_KEY", "a-secret")
        first = go(path, replay=False, on_status=stop)
        assert (first.status, bool(first.halted)) == ("stopped", True)
        second = go(path, replay=False)
        assert (second.run, second.status, second.halted) == (first.run, "halted", first.halted)
        theirs = exchange._exchange.clients[0].account.venue.ledger
        assert not any(position.quantity for position in theirs.positions.values())
