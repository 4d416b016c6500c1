"""``nextbar data fetch`` and ``data list`` as their user types them, from an exchange on this machine and files."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_project import Bars, Project

from engine.config import BrokerConfig
from engine.data import bars as data_bars
from engine.data.calendars import session_hours
from engine.exchange.account import AccountSpec
from engine.exchange.server import ExchangeServer

# alpaca-py imports it.
pytestmark = pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning")

SYMBOLS = [f"S{number}" for number in range(6)]
KEYS = {"APCA_API_KEY_ID": "k", "APCA_API_SECRET_KEY": "a-secret"}


def minutes(symbol: str) -> pd.DataFrame:
    opens, closes = session_hours(pd.DatetimeIndex(["2021-12-31", "2022-01-03", "2022-01-04"]))
    ends = [pd.date_range(o, c, freq="min")[1:] for o, c in zip(opens, closes, strict=True)]
    index = ends[0].append(ends[1:]).as_unit("ns").rename("time")
    close = 50 + np.random.default_rng(int(symbol[1:])).normal(0, 0.01, len(index)).cumsum().round(2)
    return pd.DataFrame(
        {"open": close, "high": close + 0.25, "low": close - 0.25, "close": close, "volume": 100.0}, index=index
    )


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeServer]:
    frames = {symbol: minutes(symbol) for symbol in SYMBOLS}
    bars = data_bars.Bars(frames=frames, timeframe="1m", adjustment="none", source="test")
    account = AccountSpec(key=KEYS["APCA_API_KEY_ID"], secret=KEYS["APCA_API_SECRET_KEY"], broker=BrokerConfig())
    server = ExchangeServer(bars=bars, start=frames["S0"].index[-1], accounts=[account])
    server.start()
    yield server
    server.stop()


class Line(socketserver.ThreadingTCPServer):
    """A line to the exchange that passes some connections on, and then lets nothing through any more."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, url: str, *, passed: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.target, self.left, self.cut = (host, int(port)), passed, threading.Event()
        self.lock = threading.Lock()

        class Handler(socketserver.BaseRequestHandler):
            server: Line

            def handle(self) -> None:
                with self.server.lock:
                    self.server.left -= 1
                    over = self.server.left < 0
                if over:
                    self.server.cut.set()
                    self.request.recv(1 << 16)
                    self.request.recv(1 << 16)  # until the client is gone
                    return
                with socket.create_connection(self.server.target) as far:
                    back = threading.Thread(target=_pass, args=(far, self.request))
                    back.start()
                    _pass(self.request, far)
                    back.join()

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def _pass(here: socket.socket, there: socket.socket) -> None:
    try:
        while data := here.recv(1 << 16):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def run_file(project: Project, **data: Any) -> Path:
    section = {"source": "alpaca", "symbols": SYMBOLS, "timeframe": "1m", "start": "2021-06-01"} | data
    return project.write(
        data=section, model=None, spans={"test": ["2022-01-03", "2022-01-03"]},
        strategy={"kind": "strategies.buy_and_hold:BuyAndHold"},
    )  # fmt: skip


def at(url: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for name, value in {**KEYS, "APCA_API_BASE_URL": url, "NEXTBAR_CACHE": str(cache)}.items():
        monkeypatch.setenv(name, value)


def fetching(url: str, cache: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "data", "fetch", "run.yaml", "--json"],
        cwd=folder,
        env={**os.environ, **KEYS, "APCA_API_BASE_URL": url, "NEXTBAR_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def hashes(report: dict[str, Any]) -> dict[str, str]:
    return {symbol: done["sha256"] for symbol, done in report["symbols"].items()}


def test_killed_half_way_and_run_again_it_ends_with_the_hashes_of_one_clean_run(
    empty: Project, exchange: ExchangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_file(empty)
    at(exchange.url, monkeypatch, empty.folder / "clean")
    clean = empty.json("data", "fetch", path)
    assert {done["rows"] for done in clean["symbols"].values()} == {390 * 2}

    # One connection tells the time; each symbol has two years to fetch.
    line = Line(exchange.url, passed=1 + 2 * 3)
    first = fetching(line.url, empty.folder / "cache", empty.folder)
    assert line.cut.wait(60), first.communicate()
    second = fetching(exchange.url, empty.folder / "cache", empty.folder)
    assert second.stderr is not None
    assert "Another process fetches these bars; waiting for it to end." in second.stderr.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    stdout, stderr = second.communicate(timeout=60)
    line.shutdown()
    line.server_close()
    assert second.returncode == 0, stderr
    report = json.loads(stdout)
    assert hashes(report) == hashes(clean)
    assert report["sha256"] == clean["sha256"]
    # It went on where the other one was: three symbols were there, and only their newest bars were looked at again.
    assert [done["before"] for done in report["symbols"].values()] == [780] * 3 + [0] * 3
    assert not any(done["changed"] for done in report["symbols"].values())
    names = {p.name for p in (empty.folder / "cache").rglob("*") if p.is_file()}
    assert not any(name.endswith(".partial") for name in names)


def test_damaged_at_any_byte_it_is_fetched_again(
    empty: Project, exchange: ExchangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_file(empty, symbols=SYMBOLS[:2])
    at(exchange.url, monkeypatch, empty.folder / "cache")
    clean = empty.json("data", "fetch", path)
    pick = random.Random(3)
    for number in range(len([p for p in Path(clean["folder"]).iterdir() if p.name != "lock"])):
        file = sorted(p for p in Path(clean["folder"]).iterdir() if p.name != "lock")[number]
        whole = bytearray(file.read_bytes())
        whole[pick.randrange(len(whole))] ^= 1 << pick.randrange(8)
        file.write_bytes(whole)
        result = empty.run("data", "fetch", path, "--json")
        assert result.exit_code == 0, result.stderr
        assert "Traceback" not in result.stderr
        assert hashes(json.loads(result.stdout)) == hashes(clean)


def test_what_a_person_sees(
    empty: Project, exchange: ExchangeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "The cache is empty" in empty.run("data", "list").stderr
    path = run_file(empty, symbols=["S1", "S0"])
    at(exchange.url, monkeypatch, empty.folder / "cache")
    result = empty.run("data", "fetch", path)
    assert result.exit_code == 0
    assert result.stdout == ""
    for row in (r"S0 .*780.*2021-12-31.*2022-01-03.* 0 .*780", r"S1 .*780", "2 symbols, 1,560 bars of 1m, sha256 "):
        assert pd.Series(result.stderr.splitlines()).str.contains(row).any(), result.stderr
    assert f"Wrote {empty.folder}/cache/alpaca/iex-all-practice/1m" in result.stderr
    assert "Next: nextbar data check" in result.stderr

    listed = empty.run("data", "list").stderr
    assert "iex-all-practice" in listed
    assert "2: S0, S1" in listed
    (holding,) = empty.json("data", "list")["cache"]
    assert (holding["source"], holding["timeframe"], list(holding["symbols"])) == ("alpaca", "1m", ["S0", "S1"])
    assert holding["symbols"]["S0"]["rows"] == 780


def test_a_symbol_without_bars_is_named_and_the_others_are_kept(
    empty: Project, exchange: ExchangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_file(empty, symbols=["S0", "S1"], start="2022-01-04")
    at(exchange.url, monkeypatch, empty.folder / "cache")
    result = empty.run("data", "fetch", path, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["missing"] == ["S0", "S1"]


def test_a_run_reads_what_was_fetched(
    empty: Project, exchange: ExchangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_file(empty, symbols=["S0", "S1"])
    at(exchange.url, monkeypatch, empty.folder / "cache")
    before = empty.json("backtest", path)
    fetched = empty.json("data", "fetch", path)
    assert [done["before"] for done in fetched["symbols"].values()] == [780, 780]
    assert empty.json("backtest", path)["fills_hash"] == before["fills_hash"]


def test_files_are_imported_and_read_from_the_cache_until_they_change(
    empty: Project, bars_file: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bars_file()
    path = empty.write(
        data={"source": "files", "symbols": ["ABC"], "path": str(file)}, model=None,
        spans={"test": ["2009-06-01", "2009-12-31"]}, strategy={"kind": "strategies.buy_and_hold:BuyAndHold"},
    )  # fmt: skip
    straight = empty.json("backtest", path)
    first = empty.json("data", "fetch", path)
    assert (first["symbols"]["ABC"]["rows"], first["symbols"]["ABC"]["fetched"]) == (400, 400)
    again = empty.json("data", "fetch", path)
    assert (again["sha256"], again["symbols"]["ABC"]["fetched"]) == (first["sha256"], 0)

    with monkeypatch.context() as patch:
        patch.setattr("engine.data.sources.read_files", None)
        cached = empty.json("backtest", path)
    assert cached["fills_hash"] == straight["fills_hash"]

    bars_file(lambda rows: rows[:-1])
    assert empty.json("data", "fetch", path)["symbols"]["ABC"]["rows"] == 399
    (holding,) = empty.json("data", "list")["cache"]  # what the file was before is gone
    assert (holding["words"], holding["symbols"]["ABC"]["rows"]) == (str(file), 399)


def test_what_needs_no_fetching_and_what_cannot_be_kept(empty: Project, bars_file: Bars) -> None:
    assert "comes with an installed package, and there is nothing to fetch" in empty.fails(
        2, "data", "fetch", empty.write()
    )
    file = bars_file()
    missing = empty.write(data={"source": "files", "symbols": ["ABC"], "path": "nowhere.csv"})
    assert "nowhere.csv" in empty.fails(2, "data", "fetch", missing)
    (empty.folder / "cache").write_text("no folder")
    path = empty.write(data={"source": "files", "symbols": ["ABC"], "path": str(file)})
    assert "the cache could not be written" in empty.fails(1, "data", "fetch", path)
