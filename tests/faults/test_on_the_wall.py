"""On an exchange with a clock of its own, a run that is killed and started again holds what is held."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from engine.errors import BrokerError
from engine.exchange.account import AccountSpec
from engine.exchange.faults import Faults
from engine.exchange.server import ExchangeServer
from engine.live.journal import Journal
from engine.live.recorded import Recorded, read_recorded
from engine.run_file import load_config
from engine.serving import bars_to_replay
from tests.faults.harness import HERE, MINUTES

SPEED = 1_500.0
# Of the session's 210 minutes: by then some orders were sent, and there is more to come.
KILL_AFTER_STEPS = 40


def paper(folder: Path, url: str) -> subprocess.Popen[str]:
    """`nextbar paper` on the exchange at this address."""
    keys = {"APCA_API_BASE_URL": url, "APCA_API_KEY_ID": "k", "APCA_API_SECRET_KEY": "a-secret"}
    return subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "paper", "run.yaml", "--json"],
        cwd=folder,
        env={**os.environ, **keys, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_later(run: subprocess.Popen[str], folder: Path, steps: int) -> int:
    """SIGKILL once its journal holds so many steps; how many it held then."""
    pause = threading.Event()
    while run.poll() is None:
        found = recorded(folder)
        if found is not None and len(found.steps) >= steps:
            run.send_signal(signal.SIGKILL)
            run.communicate(timeout=30)
            return len(found.steps)
        pause.wait(0.05)
    raise AssertionError(run.communicate()[1])


def recorded(folder: Path) -> Recorded | None:
    """What the journal of the one run holds, if there is one."""
    for path in folder.glob("runs/*/journal.sqlite"):
        journal = Journal.read_only(path)
        try:
            return read_recorded(journal, cash=100_000.0)
        finally:
            journal.close()
    return None


@pytest.mark.parametrize("faults", ["", "drop-trades@60,lose-update@70,500-after@75,drop-bars@100,504@110,hang-up@120"])
def test_it_goes_on_and_holds_what_the_exchange_says_it_holds(tmp_path: Path, faults: str) -> None:
    config = {**MINUTES, "strategy": {"kind": "./restless.py:Restless", "params": {"seed": 5, "eager": 0.3}}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(HERE / "restless.py", tmp_path)
    loaded = load_config(tmp_path / "run.yaml", ())
    bars, start = bars_to_replay(loaded)
    account = AccountSpec(key="k", secret="a-secret", broker=loaded.broker)
    schedule = Faults.parse(faults) if faults else None
    with ExchangeServer(bars=bars, start=start, accounts=[account], speed=SPEED, faults=schedule) as exchange:
        first = paper(tmp_path, exchange.url)
        before = kill_later(first, tmp_path, KILL_AFTER_STEPS)
        for _ in range(3):  # a fault that meets the account's first questions ends it before it has begun
            second = paper(tmp_path, exchange.url)
            out, err = second.communicate(timeout=120)
            if second.returncode != BrokerError.exit_code:
                break
        assert second.returncode == 0, (out, err)
        theirs = exchange._exchange.clients[0].account
        held = {s: p.quantity for s, p in theirs.venue.ledger.positions.items() if p.quantity}
        taken = [listed.client_order_id for listed in theirs.listed.values() if listed.parent is None]
    assert len(list(tmp_path.glob("runs/*/journal.sqlite"))) == 1
    ours = recorded(tmp_path)
    assert ours is not None
    assert len(ours.steps) > before
    assert {s: p.quantity for s, p in ours.ledger.positions.items() if p.quantity} == held
    assert len(taken) == len(set(taken)) > 5
    # What passed while nobody looked was seen, and not decided on.
    assert any(not decide for _, decide, _ in ours.steps)
    assert ours.differences == ()
