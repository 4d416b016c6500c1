"""Both sockets in raw frames: greeting, keys, subscriptions, counts, and clients that misbehave."""

from __future__ import annotations

import json
import math
import socket as sockets
from typing import Any

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from engine.exchange import outlets
from tests.exchange.floor import KEY, SECRET, Floor, days, events, flat, frame, minutes, tell, update

TWO = {"X": [flat(100.0)] * 4, "Y": [flat(50.0), None, flat(51.0), flat(52.0)]}


def closed(socket: ClientConnection) -> bool:
    try:
        socket.recv(timeout=5.0)
    except ConnectionClosed:
        return True
    return False


@pytest.mark.parametrize("path", ["/v2/iex", "/v2/sip"])
def test_wrong_keys_are_told_402_on_either_feed(path: str) -> None:
    with Floor(minutes(TWO)) as floor:
        socket = floor.socket(path)
        assert frame(socket) == [{"T": "success", "msg": "connected"}]
        tell(socket, action="auth", key=KEY, secret="wrong")
        assert frame(socket) == [{"T": "error", "code": 402, "msg": "auth failed"}]
        assert closed(socket)


@pytest.mark.parametrize("message", [b"\xc1", msgpack.packb([1]), msgpack.packb({"action": "subscribe"})])
def test_what_is_no_authentication_is_told_401(message: bytes) -> None:
    with Floor(minutes(TWO)) as floor:
        socket = floor.socket("/v2/iex")
        frame(socket)
        socket.send(message)
        assert frame(socket)[0]["code"] == 401
        assert closed(socket)


def test_a_second_data_connection_is_told_406_and_the_first_goes_on() -> None:
    with Floor(minutes(TWO)) as floor:
        first = floor.data(bars=["X"])
        second = floor.socket("/v2/sip")
        frame(second)
        tell(second, action="auth", key=KEY, secret=SECRET)
        assert frame(second) == [{"T": "error", "code": 406, "msg": "connection limit exceeded"}]
        assert closed(second)
        floor.advance()
        assert [bar["S"] for bar in frame(first)] == ["X"]
        first.close()
        floor.data(bars=["X"])


def test_bars_come_in_one_frame_a_step_sorted_and_stamped_with_their_start() -> None:
    with Floor(minutes(TWO)) as floor:
        socket = floor.data(bars=["*"])
        assert floor.advance(2)["bars"] == 3
        assert [bar["S"] for bar in frame(socket)] == ["X"]
        both = frame(socket)
        start = msgpack.Timestamp.from_unix_nano(1704205920 * 10**9)  # 2024-01-02 14:32 UTC
        assert both == [
            {"T": "b", "S": s, "o": p, "h": p, "l": p, "c": p, "v": 1000.0, "n": 1, "vw": p, "t": start}
            for s, p in (("X", 100.0), ("Y", 51.0))
        ]


def test_a_subscription_may_come_in_fragments_and_grows_and_shrinks() -> None:
    with Floor(minutes(TWO)) as floor:
        socket = floor.data()
        asked = msgpack.packb({"action": "subscribe", "bars": ["Y"], "trades": ["X"]})
        socket.send([asked[:5], asked[5:9], asked[9:]])
        (answer,) = frame(socket)
        assert (answer["T"], answer["bars"], answer["trades"]) == ("subscription", ["Y"], [])
        tell(socket, action="subscribe", bars=["X"], dailyBars=["X"])
        assert frame(socket)[0]["bars"] == ["X", "Y"]
        tell(socket, action="unsubscribe", bars=["Y"])
        assert frame(socket)[0]["bars"] == ["X"]
        assert floor.advance(2)["bars"] == 2
        assert [bar["S"] for _ in range(2) for bar in frame(socket)] == ["X", "X"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"action": "subscribe", "bars": "X"}, 400),
        ({"action": "subscribe", "bars": [1]}, 400),
        ({"action": "dance"}, 400),
        ({}, 400),
        ({"action": "auth", "key": KEY, "secret": SECRET}, 403),
    ],
)
def test_what_a_data_connection_does_not_understand(message: dict[str, Any], code: int) -> None:
    with Floor(minutes(TWO)) as floor:
        socket = floor.data(bars=["X"])
        tell(socket, **message)
        assert frame(socket)[0]["code"] == code
        floor.advance()
        assert frame(socket)[0]["S"] == "X"


def test_daily_bars_go_to_who_asked_for_them_and_are_not_counted() -> None:
    bars = days({"X": [flat(100.0)] * 3}, dates=["2024-01-02", "2024-01-03", "2024-01-04"])
    with Floor(bars) as floor:
        socket = floor.data(bars=["X"], dailyBars=["X"])
        assert floor.advance()["bars"] == 0
        (bar,) = frame(socket)
        assert (bar["T"], bar["t"].to_datetime().isoformat()) == ("d", "2024-01-03T05:00:00+00:00")


def test_a_frame_holds_at_most_five_thousand_bars() -> None:
    bars = minutes({"X": [flat(100.0)] * 390})
    many = {f"S{n:02}": bars.frames["X"] for n in range(30)}
    with Floor(type(bars)(frames=many, timeframe="1m", adjustment="none", source="test"), speed=math.inf) as floor:
        socket = floor.data(bars=["*"])
        received = 0
        while received < 389 * 30:
            part = frame(socket)
            assert len(part) <= 5_000
            received += len(part)
        assert received == floor.get("/nextbar/status")["bars"] == 389 * 30


def test_trade_updates_are_json_in_binary_frames_and_need_keys_and_listening() -> None:
    with Floor(minutes(TWO)) as floor:
        silent = floor.socket("/stream")
        silent.send(json.dumps({"action": "auth", "key": KEY, "secret": SECRET}))
        assert update(silent)["data"] == {"status": "authorized", "action": "authenticate"}
        floor.order()
        assert floor.get("/nextbar/status")["trade_updates"] == 0
        listening = floor.updates()
        made = floor.order()
        assert [one["order"]["id"] for one in events(listening, 2)] == [made["id"]] * 2
        assert floor.get("/nextbar/status")["trade_updates"] == 2
        listening.send(json.dumps({"action": "listen", "data": {"streams": []}}))
        assert update(listening)["data"] == {"streams": []}
        floor.order()
        assert floor.get("/nextbar/status")["trade_updates"] == 2


@pytest.mark.parametrize(
    "message",
    [
        json.dumps({"action": "authenticate", "data": {"key_id": KEY, "secret_key": "wrong"}}),
        json.dumps({"action": "authenticate", "data": "keys"}),
        json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}),
        json.dumps({"action": "auth", "key": "\ud800", "secret": 5}),
        "{",
        b"\xff\xfe",
        "[]",
    ],
)
def test_a_trading_connection_without_good_keys(message: Any) -> None:
    with Floor(minutes(TWO)) as floor:
        socket = floor.socket("/stream")
        socket.send(message)
        assert update(socket) == {
            "stream": "authorization",
            "data": {"status": "unauthorized", "action": "authenticate"},
        }
        assert closed(socket)


def test_two_trading_connections_hear_the_same_and_an_update_counts_once() -> None:
    with Floor(minutes(TWO)) as floor:
        first, second = floor.updates(), floor.updates()
        floor.order()
        assert floor.advance()["trade_updates"] == 3
        assert events(first, 3) == events(second, 3)


def test_no_other_socket_is_served() -> None:
    with Floor(minutes(TWO)) as floor, pytest.raises(Exception, match="403"):
        floor.socket("/v1beta1/news")


def test_a_client_that_does_not_read_is_cut_off_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "MOST_BYTES_WAITING", 20_000)
    rows = {f"S{n:0300}": [flat(100.0)] * 390 for n in range(100)}  # more than any kernel buffers
    with Floor(minutes(rows)) as floor:
        host, port = floor.exchange.url.removeprefix("http://").split(":")
        # A raw socket with a small window: the sync client's own thread would read ahead.
        with sockets.socket() as deaf:
            deaf.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
            deaf.settimeout(5.0)
            deaf.connect((host, int(port)))
            deaf.sendall(
                b"GET /v2/iex HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            received = b""
            while b"connected" not in received:
                received += deaf.recv(4_096)
            for message in (
                {"action": "auth", "key": KEY, "secret": SECRET},
                {"action": "subscribe", "bars": ["*"]},
            ):
                packed = msgpack.packb(message)
                deaf.sendall(bytes([0x82, 0x80 | len(packed), 0, 0, 0, 0]) + packed)
            while b"subscription" not in received:
                received += deaf.recv(4_096)
            counts = [floor.advance()["bars"] for _ in range(389)]
            assert floor.advance()["done"] is True
            assert counts[-1] < 38_900  # from the overflow on nothing more was left for it
            # The slot is free again once the exchange has given up saying goodbye.
            for _ in range(2_000):
                socket = floor.socket("/v2/iex")
                frame(socket)
                tell(socket, action="auth", key=KEY, secret=SECRET)
                if frame(socket)[0].get("msg") == "authenticated":
                    break
            else:
                pytest.fail("the slow client still holds the only data connection")


def test_a_client_that_vanishes_frees_its_place() -> None:
    with Floor(minutes(TWO)) as floor:
        first = floor.data(bars=["*"])
        trading = floor.updates()
        for gone in (first, trading):
            gone.socket.shutdown(sockets.SHUT_RDWR)
        floor.order()
        floor.advance()
        again = floor.data(bars=["*"])
        floor.advance()
        assert frame(again)[0]["S"] == "X"
