"""Starting and stopping: ports, hosts, secrets, threads and sockets; bars that cannot be carried."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests

from engine.data.bars import Bars
from engine.errors import BrokerError, ConfigError, DataError
from engine.exchange.server import AccountSpec, ExchangeServer
from engine.preparation import prepare
from engine.run_file import load_config
from engine.serving import PRACTICE, bars_to_replay
from tests.exchange.floor import KEY, SECRET, Floor, broker, days, flat, minutes

BARS = minutes({"X": [flat(100.0)] * 3})
START = BARS.frames["X"].index[1]
ACCOUNT = AccountSpec(key=KEY, secret=SECRET, broker=broker())
ROOT = Path(__file__).parents[2]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_after_stop() -> None:
    with Floor(BARS) as floor:  # what the first start leaves in caches
        floor.data()
    gc.collect()  # what other tests have left to it
    threads, files = threading.active_count(), open_files()
    for speed in (None, 1.0):
        with Floor(BARS, speed=speed) as floor:
            floor.data(bars=["X"])
            floor.updates()
            floor.get("/v2/account")
            assert threading.active_count() > threads
            floor.exchange.stop()  # while they are connected
            floor.exchange.stop()
    assert threading.active_count() == threads
    assert open_files() <= files


def test_a_port_that_is_taken_is_named_and_can_be_had_again_later() -> None:
    with Floor(BARS) as floor:
        port = int(floor.exchange.url.rsplit(":", 1)[1])
        second = ExchangeServer(bars=BARS, start=START, accounts=[ACCOUNT], port=port)
        with pytest.raises(BrokerError, match=rf"could not listen on 127\.0\.0\.1, port {port} .*another one"):
            second.start()
    second.start()
    assert second.url == f"http://127.0.0.1:{port}"
    second.stop()
    with pytest.raises(BrokerError, match="started before"):
        second.start()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.com", "", "::"])
def test_only_this_machine_is_served(host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        ExchangeServer(bars=BARS, start=START, accounts=[ACCOUNT], host=host)


def test_it_also_serves_the_other_loopback_addresses() -> None:
    with ExchangeServer(bars=BARS, start=START, accounts=[ACCOUNT], host="localhost") as exchange:
        assert requests.get(exchange.url + "/v2/account", timeout=5).status_code == 401
    if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
        with ExchangeServer(bars=BARS, start=START, accounts=[ACCOUNT], host="::1") as exchange:
            assert requests.get(exchange.url + "/v2/account", timeout=5).status_code == 401


@pytest.mark.parametrize("more", [{"speed": 0.0}, {"speed": -1.0}, {"speed": float("nan")}, {"rate_limit": 0}])
def test_a_speed_and_a_limit_are_positive(more: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ExchangeServer(bars=BARS, start=START, accounts=[ACCOUNT], **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("accounts", [[], [ACCOUNT, ACCOUNT], [AccountSpec(key="", secret="s", broker=broker())]])
def test_accounts_have_keys_of_their_own(accounts: list[AccountSpec]) -> None:
    with pytest.raises(ConfigError, match="a key of its own"):
        ExchangeServer(bars=BARS, start=START, accounts=accounts)


def test_two_accounts_trade_side_by_side_and_know_nothing_of_each_other() -> None:
    other = AccountSpec(key="other", secret="word", broker=broker(cash=5.0))
    with ExchangeServer(bars=BARS, start=START, accounts=[ACCOUNT, other]) as exchange:
        headers = {"APCA-API-KEY-ID": "other", "APCA-API-SECRET-KEY": "word"}
        mine = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
        order = {"symbol": "X", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"}
        made = requests.post(exchange.url + "/v2/orders", json=order, headers=mine, timeout=5).json()
        assert requests.get(exchange.url + "/v2/orders", headers=headers, timeout=5).json() == []
        hidden = requests.get(f"{exchange.url}/v2/orders/{made['id']}", headers=headers, timeout=5)
        assert hidden.status_code == 404
        assert requests.get(exchange.url + "/v2/account", headers=headers, timeout=5).json()["cash"] == "5"


def test_the_secret_is_in_no_repr() -> None:
    assert SECRET not in repr(ACCOUNT)
    assert KEY in repr(ACCOUNT)


def test_bars_that_do_not_end_with_new_yorks_sessions_cannot_be_carried() -> None:
    good = days({"X": [flat(1.0)] * 3}, dates=["2024-01-04", "2024-01-05", "2024-01-08"]).frames["X"]
    for index in (good.index + pd.Timedelta(hours=1), good.index + pd.Timedelta(days=1)):
        bars = Bars(frames={"X": good.set_axis(index)}, timeframe="1d", adjustment="none", source="test")
        with pytest.raises(DataError, match="do not follow New York's sessions"):
            ExchangeServer(bars=bars, start=index[1], accounts=[ACCOUNT])


def test_a_start_after_the_last_bar_is_refused() -> None:
    with pytest.raises(DataError, match="no symbol has a bar at or after"):
        ExchangeServer(bars=BARS, start=pd.Timestamp("2030-01-01", tz="UTC"), accounts=[ACCOUNT])


def test_weekly_bars_are_carried() -> None:
    closes = days({"X": [flat(1.0)] * 3}, dates=["2024-01-05", "2024-01-12", "2024-01-19"]).frames["X"]
    with Floor(Bars(frames={"X": closes}, timeframe="1w", adjustment="none", source="test")) as floor:
        floor.advance(2)
        shown = floor.get("/v2/stocks/bars", symbols="X", timeframe="1Week")["bars"]["X"]
        assert [bar["t"] for bar in shown] == [f"2024-01-{day}T05:00:00Z" for day in ("01", "08", "15")]


SCRIPT = """
import pathlib, sys
from engine.run_file import load_config
from engine.serving import serve
config = load_config(pathlib.Path("configs/minutes.yaml"))
def ready(url):
    print(url, flush=True)
serve(config, port=0, speed=None, state=None, keys=("practice", "practice"), on_ready=ready)
print("left", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_use_case_serves_in_the_foreground_until_a_signal(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        keys = {"APCA-API-KEY-ID": "practice", "APCA-API-SECRET-KEY": "practice"}
        assert requests.get(url + "/v2/account", headers=keys, timeout=5).json()["cash"] == "100000"
        process.send_signal(number)
        assert process.stdout.readline() == "left\n"
        assert process.wait(5.0) == 0


def test_the_replay_has_all_history_and_ends_with_the_span() -> None:
    config = load_config(ROOT / "configs" / "sma_cross.yaml")
    bars, start = bars_to_replay(config)
    first, last = config.spans.test
    for frame in bars.frames.values():
        assert frame.index[0].date() < first
        assert np.datetime64(frame.index[-1].date()) <= np.datetime64(last)
    assert start.date() >= first


def test_the_state_that_a_replay_leaves_can_be_served_again(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs" / "sma_cross.yaml")
    prepared = prepare(config, root=ROOT)
    used, start, _ = prepared.cut(config.spans.test)
    last = max(frame.index[-1] for frame in used.frames.values())
    kept = {symbol: prepared.bars.frames[symbol] for symbol in used.symbols}
    replayed = replace(prepared.bars, frames=kept).between(end=last)
    account = AccountSpec(key=PRACTICE[0], secret="of-this-replay-only", broker=config.broker)
    with ExchangeServer(bars=replayed, start=start, accounts=[account]) as exchange:
        exchange.keep(tmp_path / "exchange.sqlite")
        keys = {"APCA-API-KEY-ID": account.key, "APCA-API-SECRET-KEY": account.secret}
        requests.post(exchange.url + "/nextbar/advance", headers=keys, timeout=5)
    script = SCRIPT.replace("minutes.yaml", "sma_cross.yaml").replace("state=None", "state=pathlib.Path(sys.argv[1])")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "exchange.sqlite")], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        keys = {"APCA-API-KEY-ID": "practice", "APCA-API-SECRET-KEY": "practice"}
        assert requests.get(url + "/nextbar/status", headers=keys, timeout=5).json()["step"] == 1
        process.send_signal(signal.SIGINT)
