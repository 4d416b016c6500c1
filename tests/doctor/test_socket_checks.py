"""The checks of the sockets, against servers that do not speak as Alpaca does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from engine.checks import Check
from engine.credentials import Credentials
from engine.live import socket_probes
from engine.live.answers import Subject
from engine.live.socket_probes import Sockets
from tests.doctor.broker_stub import KEY, SECRET

CONNECTED = msgpack.packb([{"T": "success", "msg": "connected"}])
AUTHORIZED = json.dumps({"stream": "authorization", "data": {"status": "authorized"}})


@contextmanager
def served(talk: Callable[[ServerConnection], None]) -> Iterator[int]:
    with serve(talk, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def checks(talk: Callable[[ServerConnection], None]) -> dict[str, Check]:
    with served(talk) as port:
        credentials = Credentials(
            key=KEY,
            secret=SECRET,
            trading_url=f"http://127.0.0.1:{port}",
            data_url=f"http://127.0.0.1:{port}",
            trading_stream_url=f"ws://127.0.0.1:{port}/stream",
        )
        with Sockets(credentials, Subject(symbols=("X",), timeframe="1m", feed="iex")) as sockets:
            made = [question.answered(seconds=5.0, secrets=(SECRET,)) for question in sockets.questions()]
    assert not any(SECRET in check.found for check in made)
    return {check.name: check for check in made}


def test_text_frames_differ() -> None:
    def talk(socket: ServerConnection) -> None:
        socket.send(f"hello {SECRET}")
        socket.recv(timeout=5.0)

    made = checks(talk)
    assert made["trading socket"].found == made["data socket"].found == "a text frame: hello …"
    assert made["second data connection"].state == "skipped"


@pytest.mark.parametrize("frame", [b"\xc1", msgpack.packb({"T": "success"}), msgpack.packb([]), msgpack.packb([1])])
def test_frames_that_are_no_list_of_messages(frame: bytes) -> None:
    def talk(socket: ServerConnection) -> None:
        socket.send(frame)
        socket.recv(timeout=5.0)

    assert checks(talk)["data socket"].state in ("differs", "failed")


def test_a_mute_socket_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_probes, "_FRAME_SECONDS", 0.05)

    def talk(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                socket.recv(timeout=5.0)

    made = checks(talk)
    assert "gave no answer in time; check the network" in made["data socket"].found


def test_a_socket_that_hangs_up_is_told() -> None:
    made = checks(lambda socket: socket.close(1011, "out of order"))
    assert "closed the connection (ConnectionClosed" in made["trading socket"].found
    assert made["trading socket"].state == made["data socket"].state == "failed"


def test_a_socket_that_takes_any_secret_and_subscribes_to_nothing() -> None:
    def talk(socket: ServerConnection) -> None:
        assert socket.request is not None
        if socket.request.path == "/stream":
            socket.recv(timeout=5.0)
            socket.send(AUTHORIZED.encode())
            socket.recv(timeout=5.0)
            socket.send(json.dumps({"stream": "listening", "data": {"streams": []}}).encode())
            return
        socket.send(CONNECTED)
        socket.recv(timeout=5.0)
        socket.send(msgpack.packb([{"T": "success", "msg": "authenticated"}]))
        socket.recv(timeout=5.0)
        socket.send(msgpack.packb([{"T": "subscription", "bars": [], "updatedBars": []}]))

    made = checks(talk)
    assert made["trading socket"].state == made["trading socket, wrong secret"].state == "differs"
    assert made["data socket, wrong secret"].found == "authenticated"
    assert made["data socket"].found == "subscribed to other symbols: []"
