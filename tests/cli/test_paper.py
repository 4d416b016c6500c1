"""Paper trading as its user types it: replay, twin, report, exchange."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_project import Project

SMA = {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 5, "slow": 20}}


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "engine.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """An exchange in a process of its own; its URL."""
    with start("exchange", *arguments) as process:
        try:
            assert process.stderr is not None
            yield next(found[0] for line in process.stderr if (found := re.findall(r"http://[\d.:]+\d", line)))
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.fixture
def sma(empty: Project) -> Project:
    """A folder with a run file that needs no model."""
    empty.write(name="sma", model=None, strategy=SMA, spans={"test": ["2011-01-01", "2011-04-30"]})
    return empty


def test_a_replay_is_the_backtest(project: Project) -> None:
    tested = project.json("backtest", "run.yaml")
    traded = project.json("paper", "run.yaml", "--replay")
    assert tested["metrics"]["strategy"]["fills"] > 0
    for key in ("status", "orders_hash", "fills_hash", "metrics"):
        assert traded[key] == tested[key], key
    folder = project.folder / traded["run"]
    assert (folder / "metrics.json").read_bytes() == (project.folder / tested["run"] / "metrics.json").read_bytes()
    page = (folder / "report.html").read_text()
    assert "PAPER, REPLAYED" in page
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["kind"], manifest["mode"], manifest["status"]) == ("paper", "replay", "completed")
    assert len(project.json("compare", tested["run"], traded["run"])["runs"]) == 2


def test_the_twin_of_a_replay_is_identical(sma: Project) -> None:
    traded = sma.json("paper", "run.yaml", "--replay")
    found = sma.json("twin", "latest")
    assert found["verdict"] == "identical"
    assert found["same_orders"]
    assert found["same_fills"]
    assert found["compared"]["fill"] == traded["metrics"]["strategy"]["fills"]
    result = sma.run("twin", "sma")
    assert "identical" in result.stderr
    sma.json("backtest", "run.yaml")
    assert "journal" in sma.fails(2, "twin", "latest")


def test_a_twin_notices_a_changed_strategy(empty: Project) -> None:
    code = (
        "import backtrader as bt\n"
        "class Mine(bt.Strategy):\n"
        "    def next(self):\n"
        "        if len(self) % 10 == 1:\n"
        "            self.buy(size=SIZE)\n"
        "        elif len(self) % 10 == 6:\n"
        "            self.close()\n"
    )
    (empty.folder / "mine.py").write_text(code.replace("SIZE", "3"))
    spans = {"test": ["2011-01-01", "2011-02-28"]}
    run = empty.write(name="mine", model=None, spans=spans, strategy={"kind": "./mine.py:Mine"})
    empty.json("paper", run, "--replay")
    assert empty.json("twin", "mine")["verdict"] == "identical"
    (empty.folder / "mine.py").write_text(code.replace("SIZE", "4"))
    sys.modules.pop(next(name for name in sys.modules if name.startswith("nextbar_strategy_")), None)
    result = empty.run("twin", "mine", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert found["verdict"] == "differs"
    assert "2011-01-03" in found["difference"]
    assert "quantity was 3.0, and is 4.0 now" in found["difference"]
    assert "source has changed" in found["remarks"][0]


def test_ctrl_c_ends_a_run_cleanly_and_leaves_its_report(sma: Project) -> None:
    process = start("paper", "run.yaml", "--replay", "--speed", "10/s", "--json")
    journal = wait_for(lambda: next((sma.folder / "runs").glob("*/journal.sqlite"), None))
    wait_for(lambda: decisions(journal) >= 10)
    finished = sma.json("backtest", "run.yaml")["run"]
    assert "this paper run is going on" in sma.fails(3, "compare", finished, journal.parent)
    assert sma.json("report", journal.parent)["metrics"]["strategy"]["orders"] >= 0
    assert "NOT FINISHED" in (journal.parent / "report.html").read_text()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    value = json.loads(out)
    assert value["status"] == "stopped"
    assert f"the same command, which goes on; or nextbar kill {journal.parent.name}" in err
    whole = sma.json("paper", "run.yaml", "--replay")
    assert value["orders_hash"] != whole["orders_hash"]
    assert sma.json("twin", value["run"])["verdict"] == "identical"
    assert sma.json("report", value["run"])["run"] == value["run"]


def decisions(journal: Path) -> int:
    """How many bars a run that goes on has decided on."""
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as connection:
        count = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'log'").fetchone()[0]
        found = connection.execute("SELECT count(*) FROM log WHERE kind = 'decision'").fetchone()[0] if count else 0
    connection.close()
    return int(found)


def wait_for(found: Callable[[], Any]) -> Any:
    """What ``found`` gives, once it gives something; asked again and again for half a minute."""
    deadline = time.monotonic() + 30.0
    while not (value := found()):
        assert time.monotonic() < deadline
        os.sched_yield()
    return value


def test_a_halt_exits_with_5(empty: Project) -> None:
    held = {"kind": "strategies.buy_and_hold:BuyAndHold"}
    empty.write(model=None, strategy=held, risk={"max_drawdown_halt": 0.03})
    result = empty.run("paper", "run.yaml", "--replay", "--json")
    assert result.exit_code == 5, result.stderr
    value = json.loads(result.stdout)
    assert value["status"] == "halted"
    assert "max_drawdown_halt" in value["halted"]
    tested = json.loads(empty.run("backtest", "run.yaml", "--json").stdout)
    assert tested["orders_hash"] == value["orders_hash"]


def test_no_keys_wrong_keys_and_live_money(sma: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "APCA_API_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert "APCA_API_KEY_ID" in sma.fails(4, "paper", "run.yaml")
    monkeypatch.setenv("APCA_API_KEY_ID", "PKNONSENSE")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "very-secret-nonsense")
    monkeypatch.setenv("APCA_API_BASE_URL", "https://api.alpaca.markets")
    sentence = sma.fails(4, "paper", "run.yaml")
    assert "paper only" in sentence
    assert "very-secret" not in sentence
    monkeypatch.setenv("APCA_API_BASE_URL", "http://127.0.0.1:9")
    assert "could not be reached" in sma.fails(4, "paper", "run.yaml")
    assert sma.runs == []


def test_speed_is_a_replays(sma: Project) -> None:
    assert "--speed" in sma.fails(2, "paper", "run.yaml", "--replay", "--speed", "fast")
    assert "--speed" in sma.fails(2, "paper", "run.yaml", "--speed", "5/s")


def test_paper_trades_on_an_exchange_that_somebody_started(sma: Project) -> None:
    with served("run.yaml", "--port", "0", "--speed", "lock-step") as url:
        keys = {"APCA_API_KEY_ID": "practice", "APCA_API_SECRET_KEY": "practice", "APCA_API_BASE_URL": url}
        trading = start("paper", "run.yaml", "--json", **keys)
        out, err = trading.communicate(timeout=60)
        assert trading.returncode == 0, err
        value = json.loads(out)
        again = start("paper", "run.yaml", **keys)
        _, said = again.communicate(timeout=60)
        assert again.returncode == 4
        assert "holds" in said
    assert value["mode"] == "exchange"
    assert value["orders_hash"] == sma.json("backtest", "run.yaml")["orders_hash"]


def test_a_port_in_use(sma: Project) -> None:
    with served("run.yaml", "--port", "0") as url:
        port = url.rsplit(":", 1)[1]
        second = start("exchange", "run.yaml", "--port", port)
        _, said = second.communicate(timeout=60)
        assert second.returncode == 4
        assert port in said


def test_a_journal_of_another_run_is_refused(sma: Project) -> None:
    first = sma.folder / sma.json("paper", "run.yaml", "--replay")["run"]
    second = sma.folder / sma.json("paper", "run.yaml", "--replay")["run"]
    (first / "journal.sqlite").replace(second / "journal.sqlite")
    assert "not of this folder's manifest" in sma.fails(3, "twin", second)


def test_a_bundle_that_does_not_fit_trades_nothing(project: Project) -> None:
    bundle = next((project.folder / "bundles").iterdir())
    data = {"source": "sample:minutes", "symbols": ["SYN_CALM"], "timeframe": "1m"}
    other = project.write(
        "other.yaml", model={"bundle": str(bundle)}, data=data, spans={"test": ["2023-11-06", "2023-11-07"]}
    )
    assert "trained on 1d bars" in project.fails(2, "paper", other, "--replay")
    seen = project.write("seen.yaml", model={"bundle": str(bundle)}, spans={"test": ["2010-05-01", "2010-12-31"]})
    assert "2010-06-30" in project.fails(2, "paper", seen, "--replay")
    assert project.runs == []


def test_what_a_strategy_or_its_programs_print_is_not_the_object(empty: Project) -> None:
    code = (
        "import subprocess\n"
        "import backtrader as bt\n"
        "class Loud(bt.Strategy):\n"
        "    def start(self):\n"
        "        print('hello')\n"
        "        subprocess.run(['echo', 'world'], check=True)\n"
    )
    (empty.folder / "loud.py").write_text(code)
    spans = {"test": ["2011-01-01", "2011-01-31"]}
    empty.write(name="loud", model=None, spans=spans, strategy={"kind": "./loud.py:Loud"})
    for command in (("backtest", "run.yaml"), ("paper", "run.yaml", "--replay")):
        process = start(*command, "--json")
        out, err = process.communicate(timeout=60)
        assert json.loads(out)["status"] == "completed"
        assert "hello" in err
        assert "world" in err


def test_what_stays_at_the_broker_is_said(sma: Project) -> None:
    strategy = {"kind": "strategies.buy_and_hold:BuyAndHold"}
    run = sma.write(
        "hold.yaml", name="hold", model=None, strategy=strategy, spans={"test": ["2011-01-01", "2011-02-28"]}
    )
    with served("hold.yaml", "--port", "0", "--speed", "lock-step") as url:
        keys = {"APCA_API_KEY_ID": "practice", "APCA_API_SECRET_KEY": "practice", "APCA_API_BASE_URL": url}
        process = start("paper", str(run), "--json", **keys)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "by its journal the run holds" in err
    assert any("the same command goes on from there" in remark for remark in json.loads(out)["remarks"])


def test_a_port_that_is_none(sma: Project) -> None:
    result = sma.run("exchange", "run.yaml", "--port", "99999")
    assert result.exit_code == 2
    assert "65535" in result.stderr


def test_a_journal_without_its_history_is_one_sentence(sma: Project) -> None:
    folder = sma.folder / sma.json("paper", "run.yaml", "--replay")["run"]
    with sqlite3.connect(folder / "journal.sqlite") as connection:
        connection.execute("DELETE FROM log WHERE kind = 'history'")
    connection.close()
    assert "entry 1 is missing" in sma.fails(3, "twin", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["journal"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "journal missing" in sma.fails(3, "twin", folder)


@pytest.mark.parametrize(
    ("timeframe", "speed"), [("1d", "40000"), ("1m", "6000")], ids=["days are polled", "minutes are streamed"]
)
def test_a_run_on_an_exchange_with_a_clock_of_its_own_decides_and_ends_with_it(
    empty: Project, timeframe: str, speed: str
) -> None:
    days = {"source": "sample:tech", "symbols": ["AAPL"]}
    minutes = {"source": "sample:minutes", "symbols": ["SYN_CALM"], "timeframe": "1m"}
    empty.write(
        model=None,
        data=days if timeframe == "1d" else minutes,
        strategy={"kind": "strategies.buy_and_hold:BuyAndHold"},
        spans={"test": ["2011-01-03", "2011-01-14"] if timeframe == "1d" else ["2023-11-24", "2023-11-24"]},
    )
    with served("run.yaml", "--port", "0", "--speed", speed) as url:
        keys = {"APCA_API_KEY_ID": "practice", "APCA_API_SECRET_KEY": "practice", "APCA_API_BASE_URL": url}
        out, err = start("paper", "run.yaml", "--json", **keys).communicate(timeout=90)
    value = json.loads(out)
    assert value["status"] == "completed", err
    assert value["metrics"]["strategy"]["fills"] == 1
