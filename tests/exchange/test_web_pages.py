"""Web pages that are open on this machine reach the loopback port too: none of them is served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import msgpack
import pytest
import requests
import websockets.legacy.client as legacy
from alpaca.trading.client import TradingClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from engine.credentials import Credentials
from engine.exchange.loopback import refusal_of_pages
from engine.live.control import Control
from tests.exchange.floor import KEY, SECRET, Floor, flat, minutes

ORDER = {"symbol": "X", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"}


BARS = minutes({"X": [flat(100.0)] * 3})


@pytest.fixture(scope="module")
def floor() -> Iterator[Floor]:
    with Floor(BARS) as made:
        yield made


PAGES = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:8181"},
    {"Host": "evil.example:8181"},
    {"Host": "evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "192.168.1.5:8181"},
    {"Host": "0.0.0.0:8181"},
    {"Host": "[::]:8181"},
    {"Host": "127.0.0.1:8181:80"},
    {"Host": ":8181"},
]


@pytest.mark.parametrize("headers", PAGES, ids=str)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v2/orders"), ("POST", "/nextbar/advance"), ("GET", "/v2/account"), ("OPTIONS", "/")]
)
def test_a_request_that_may_come_from_a_page_is_refused_in_a_sentence(
    floor: Floor, headers: dict[str, str], method: str, path: str
) -> None:
    answer = floor.ask(method, path, json=ORDER, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["code"] == 40310000
    assert next(iter(headers.values())) in answer.json()["message"]
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert floor.get("/v2/orders", status="all") == []
    assert floor.get("/nextbar/status")["time"] == BARS.frames["X"].index[0].value


def test_a_page_is_refused_before_it_learns_whether_its_keys_are_good(floor: Floor) -> None:
    answer = requests.get(floor.exchange.url + "/v2/account", headers={"Origin": "http://evil.example"}, timeout=5)
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["/v2/iex", "/stream"])
def test_a_pages_socket_is_closed_before_it_is_open_and_takes_no_place(path: str) -> None:
    with Floor(BARS) as floor:
        url = floor.exchange.url.replace("http", "ws") + path
        page = Origin("http://evil.example")
        with pytest.raises(InvalidStatus, match="403"), connect(url, origin=page):
            pass
        rebound = url.replace("127.0.0.1", "evil.example")
        with (
            socket.create_connection(("127.0.0.1", int(floor.exchange.url.rsplit(":", 1)[1]))) as line,
            pytest.raises(InvalidStatus, match="403"),
            connect(rebound, sock=line),
        ):
            pass
        floor.data(bars=["X"])  # the only place is still free
        floor.updates()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8181", "127.8.9.10:1", "localhost", "LocalHost:8181", "localhost:", "[::1]", "[::1]:8181"],
)
def test_programs_name_this_machine_by_any_of_its_names(host: str) -> None:
    assert refusal_of_pages([(b"accept", b"*/*"), (b"host", host.encode())]) is None


@pytest.mark.parametrize("hosts", [[], [b"localhost", b"evil.example"], [b"\xff\xfe"], [b"9" * 10_000]])
def test_no_host_or_another_one_beside_it_is_refused(hosts: list[bytes]) -> None:
    refusal = refusal_of_pages([(b"host", host) for host in hosts])
    assert refusal is not None
    assert refusal.status == 403
    assert len(refusal.body["message"]) < 250


def test_the_sdk_and_our_own_calls_are_served_under_localhost_too(floor: Floor) -> None:
    for url in (floor.exchange.url, floor.exchange.url.replace("127.0.0.1", "localhost")):
        assert TradingClient(KEY, SECRET, url_override=url).get_account().id
        control = Control(Credentials(key=KEY, secret=SECRET, trading_url=url, data_url=url, trading_stream_url=None))
        assert control.status()["mode"] == "lock-step"
        control.close()
        asyncio.run(_greeted(url.replace("http", "ws") + "/v2/iex"))


async def _greeted(url: str) -> None:
    """As alpaca-py's own streams connect."""
    async with legacy.connect(url, extra_headers={"Content-Type": "application/msgpack"}) as stream:
        assert msgpack.unpackb(await stream.recv()) == [{"T": "success", "msg": "connected"}]
