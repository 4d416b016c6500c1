"""What a user meets who has the wrong keys, no network, a broker that hangs, or a disk that is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.data.alpaca import fetch_bars
from engine.errors import BrokerError
from engine.exchange.server import AccountSpec, ExchangeServer
from engine.live.connection import Connection
from tests.exchange.floor import broker, flat, minutes
from tests.live.rig import KEY, SECRET, FakeBroker, FakeSockets, config

ROOT = Path(__file__).parents[2]


def nextbar(folder: Path, *arguments: str, url: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, with keys that are nonsense."""
    return subprocess.run(
        [sys.executable, "-m", "engine.cli", *arguments],
        cwd=folder,
        env=keys(url, **environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60.0,
    )


def keys(url: str, **environment: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("APCA")}
    address = {"APCA_API_BASE_URL": url} if url else {}
    return {
        **inherited, "PYTHONPATH": str(ROOT), "APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": SECRET,
        "NO_COLOR": "1", **address, **environment,
    }  # fmt: skip


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What was said, which must be one sentence for people, without a traceback or a secret."""
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    return " ".join(done.stderr.split())


RUN_FILE = """
name: minutes
data: {source: alpaca, symbols: [A], timeframe: 1m, start: 2023-12-01}
spans: {test: [2024-01-02, 2024-01-03]}
strategy: {kind: "strategies.buy_and_hold:BuyAndHold"}
broker: {cash: 10000}
"""


@pytest.mark.parametrize("source", ["sample", "alpaca"])
def test_nonsense_keys_and_no_network_end_within_seconds(tmp_path: Path, source: str) -> None:
    run_file = ROOT / "configs" / "sma_cross.yaml" if source == "sample" else tmp_path / "run.yaml"
    if source == "alpaca":
        run_file.write_text(RUN_FILE)
    # Nobody is asked on the way, whatever network this machine has.
    proxies = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    begun = time.monotonic()
    done = nextbar(tmp_path, "paper", str(run_file), **proxies)
    assert time.monotonic() - begun < 15.0
    assert "could not be reached" in sentence(done)


def test_a_broker_that_hangs_ends_within_seconds(tmp_path: Path) -> None:
    with FakeBroker() as fake:
        fake.faults += [("GET", "/v2/account", "mute")]
        fake.mute_seconds = 1.0  # for the patience of the real thing, see Line
        begun = time.monotonic()
        done = nextbar(tmp_path, "paper", str(ROOT / "configs" / "sma_cross.yaml"), url=fake.url)
        assert time.monotonic() - begun < 15.0
    assert "could not be reached for the account" in sentence(done)


def test_keys_that_are_refused_name_the_variables_to_mend(tmp_path: Path) -> None:
    bars = minutes({"AAPL": [flat(100.0)] * 5})
    account = AccountSpec(key="another", secret="account", broker=broker())
    with ExchangeServer(bars=bars, start=bars.frames["AAPL"].index[1], accounts=[account]) as exchange:
        done = nextbar(tmp_path, "paper", str(ROOT / "configs" / "sma_cross.yaml"), url=exchange.url)
    said = sentence(done)
    assert "refuses the key PK…56" in said
    assert "APCA_API_KEY_ID and APCA_API_SECRET_KEY" in said


def test_a_live_endpoint_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    done = nextbar(tmp_path, "paper", str(ROOT / "configs" / "sma_cross.yaml"), url="https://api.alpaca.markets")
    assert "trades on paper only" in sentence(done)


def test_a_history_that_is_refused_or_hangs_is_one_sentence() -> None:
    with FakeBroker() as fake:
        fake.faults.append(("GET", "/v2/stocks/bars", "401"))
        with pytest.raises(BrokerError) as caught:
            fetch_bars(fake.credentials(), ["A"], "1d", start=None, limit=5)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_that_waits_for_bars_ends_cleanly_and_soon(tmp_path: Path, name: str) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN_FILE.replace("source: alpaca", "source: sample:minutes").replace("[A]", "[SYN_CALM]"))
    with FakeBroker() as fake, FakeSockets() as sockets:
        script = tmp_path / "run.py"
        script.write_text(SCRIPT)
        process = subprocess.Popen(
            [sys.executable, str(script), fake.url, sockets.url],
            cwd=tmp_path,
            env=keys(fake.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        begun = time.monotonic()
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=10.0)
        assert time.monotonic() - begun < 2.0
    assert (process.returncode, out, err) == (0, "stopped\n", "")


# The live side's own parts, put together as engine.paper does, with a signal handler that stops the inbox.
SCRIPT = """
import signal, sys, time
from datetime import UTC, datetime
from engine.live.connection import Connection
from engine.live.minutes import StreamedMinutes
from tests.live.rig import KEY, SECRET, config
from engine.credentials import Credentials

trading, sockets = sys.argv[1:]
credentials = Credentials(key=KEY, secret=SECRET, trading_url=trading, data_url=sockets.replace("ws", "http"),
                          trading_stream_url=sockets + "/stream")
with Connection(credentials, config(), streamed=True) as connection:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: connection.inbox.stop())
    connection.open()
    print("waits", flush=True)
    source = StreamedMinutes(connection.inbox, symbols=["A"], rows=lambda start, end: {}, last=time.time_ns(),
                             now=time.time_ns, grace_seconds=3.0, in_session=lambda end: True,
                             noted=lambda *a, **k: None)
    assert list(source) == []
print("stopped", flush=True)
"""


def test_the_whole_of_it_waits_with_next_to_no_time_of_the_processor() -> None:
    from engine.live.minutes import StreamedMinutes

    with FakeBroker() as fake, FakeSockets() as sockets:
        rules: Any = config()
        with Connection(fake.credentials(sockets.url), rules, streamed=True) as connection:
            connection.open()
            stop_at = time.monotonic() + 2.0
            source = StreamedMinutes(
                connection.inbox,
                symbols=["A"],
                rows=lambda start, end: {},
                last=time.time_ns(),
                now=time.time_ns,
                grace_seconds=3.0,
                in_session=lambda end: True,
                noted=lambda kind, **fields: None,
                on_idle=lambda: connection.inbox.stop() if time.monotonic() > stop_at else None,
            )
            before = time.process_time()
            assert list(source) == []
            assert (time.process_time() - before) / 2.0 < 0.02
