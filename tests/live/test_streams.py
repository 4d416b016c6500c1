"""The two streams against sockets that break off, refuse, say nothing, or talk nonsense."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from websockets.sync.server import ServerConnection

from engine.credentials import Credentials
from engine.errors import BrokerError
from engine.live.inbox import Inbox
from engine.live.streams import Streams
from tests.live.rig import (
    KEY,
    SECONDS,
    SECRET,
    FakeSockets,
    bar,
    greet,
    listen,
    mute_listener,
    packed,
    stay,
    told,
    update,
)

END = "2024-01-02 10:01"


class Running:
    """Streams against the sockets, as a context manager."""

    def __init__(self, url: str, *, symbols: tuple[str, ...] = ("A",)) -> None:
        self.inbox = Inbox()
        credentials = Credentials(
            key=KEY,
            secret=SECRET,
            trading_url=url.replace("ws", "http"),
            data_url=url.replace("ws", "http"),
            trading_stream_url=f"{url}/stream",
        )
        self.streams = Streams(credentials, self.inbox, symbols=symbols, feed="iex")
        for stream in self.streams._streams:
            stream._reconnect_min_backoff = stream._reconnect_max_backoff = 0.01

    def __enter__(self) -> Running:
        self.streams.start()
        return self

    def __exit__(self, *error: object) -> None:
        begun = time.monotonic()
        self.streams.stop()
        assert time.monotonic() - begun < 2.0
        assert not [thread for thread in threading.enumerate() if thread.name in ("nextbar-bars", "nextbar-trades")]

    def until(self, ready: Callable[[Inbox], bool]) -> None:
        assert self.inbox.wait(lambda: ready(self.inbox), SECONDS)

    def connected(self) -> None:
        self.until(lambda inbox: inbox.connected == {"bars", "trades"})

    def refusal(self) -> str:
        with pytest.raises(BrokerError) as caught:
            self.inbox.wait(lambda: False, SECONDS)
        assert SECRET not in str(caught.value)
        return str(caught.value)


def test_bars_revisions_and_updates_come_in_as_they_were_sent() -> None:
    def data(connection: ServerConnection) -> None:
        greet(connection)
        connection.send(packed(bar("A", END, 1.0), bar("A", END, 2.0, kind="u"), bar("A", END, 3.0, kind="d")))
        stay(connection)

    def trades(connection: ServerConnection) -> None:
        listen(connection)
        told(connection, {"stream": "trade_updates", "data": update({"id": "x"}, "new")})
        stay(connection)

    with FakeSockets(data=[data], trades=[trades]) as sockets, Running(sockets.url) as running:
        running.until(lambda inbox: inbox.bars_waiting == 2 and inbox.has_updates)
        bars = running.inbox.take_bars()
        assert [(message.fields["c"], message.revised) for message in bars] == [(1.0, False), (2.0, True)]
        (message,) = running.inbox.take_updates()
        assert (message.fields["event"], message.fields["order"]["id"]) == ("new", "x")


def test_without_symbols_no_market_data_is_asked_for() -> None:
    with FakeSockets() as sockets, Running(sockets.url, symbols=()) as running:
        running.until(lambda inbox: inbox.connected == {"trades"})
        assert running.streams.names == ["trades"]
        assert sockets.connections == {"/v2/iex": 0, "/stream": 1}


def test_a_connection_that_breaks_off_is_told_of_and_made_anew() -> None:
    def breaks(connection: ServerConnection) -> None:
        greet(connection)
        connection.send(packed(bar("A", END)))
        connection.socket.close()

    def trades_break(connection: ServerConnection) -> None:
        listen(connection)

    whole = lambda connection: (listen(connection), stay(connection))  # noqa: E731
    with (
        FakeSockets(data=[breaks, lambda c: (greet(c), stay(c))], trades=[trades_break, whole]) as sockets,
        Running(sockets.url) as running,
    ):
        running.until(lambda inbox: inbox.reconnects == 2 and len(inbox.connected) == 2)
        states = [(event.stream, event.state) for event in running.inbox.take_events()]
        for stream in ("bars", "trades"):
            assert [state for name, state in states if name == stream] == ["connected", "lost", "connected"]


def refusing(code: int, message: str) -> Callable[[ServerConnection], None]:
    def script(connection: ServerConnection) -> None:
        connection.send(packed({"T": "success", "msg": "connected"}))
        connection.recv(timeout=SECONDS)
        connection.send(packed({"T": "error", "code": code, "msg": message}))
        stay(connection)

    return script


def test_another_process_on_the_account_is_one_clear_sentence_at_once() -> None:
    with FakeSockets(data=[refusing(406, "connection limit exceeded")]) as sockets, Running(sockets.url) as running:
        assert "another process is connected with this account" in running.refusal()
        assert sockets.connections["/v2/iex"] == 1


@pytest.mark.parametrize(
    ("code", "message"), [(402, "auth failed"), (409, "insufficient subscription"), (405, "symbol limit exceeded")]
)
def test_keys_and_plans_that_are_refused_end_the_run_at_once(code: int, message: str) -> None:
    with FakeSockets(data=[refusing(code, message)]) as sockets, Running(sockets.url) as running:
        assert message in running.refusal()


def test_keys_that_the_trading_socket_refuses_end_the_run_at_once() -> None:
    def refuses(connection: ServerConnection) -> None:
        connection.recv(timeout=SECONDS)
        told(connection, {"stream": "authorization", "data": {"status": "unauthorized", "action": "authenticate"}})
        stay(connection)

    with FakeSockets(trades=[refuses]) as sockets, Running(sockets.url) as running:
        assert "check the keys" in running.refusal()


def test_a_connection_limit_after_a_loss_is_our_own_old_connection_for_a_while() -> None:
    def breaks(connection: ServerConnection) -> None:
        greet(connection)
        connection.socket.close()

    limit = refusing(406, "connection limit exceeded")
    with (
        FakeSockets(data=[breaks, limit, limit, lambda c: (greet(c), stay(c))]) as sockets,
        Running(sockets.url) as running,
    ):
        running.until(lambda inbox: inbox.reconnects == 1)
        assert [e.state for e in running.inbox.take_events() if e.stream == "bars"][:2] == ["connected", "lost"]
    with FakeSockets(data=[breaks, limit]) as sockets, Running(sockets.url) as running:
        assert "another process" in running.refusal()
        assert sockets.connections["/v2/iex"] == 7


@pytest.mark.parametrize("message", ["auth timeout", "internal error"])
def test_a_fault_of_the_server_is_tried_again(message: str) -> None:
    scripts = [refusing(500, message), lambda c: (greet(c), stay(c))]
    with FakeSockets(data=scripts) as sockets, Running(sockets.url) as running:
        running.connected()
        assert message in [event.detail for event in running.inbox.take_events()]


def test_a_stream_is_made_anew_on_demand_and_the_other_one_is_left_alone() -> None:
    with FakeSockets() as sockets, Running(sockets.url) as running:
        running.connected()
        for count in (1, 2):
            running.streams.renew("bars")
            running.until(lambda inbox, count=count: inbox.reconnects == count and len(inbox.connected) == 2)  # type: ignore[misc]
        assert sockets.connections == {"/v2/iex": 3, "/stream": 1}
        states = [(event.stream, event.state) for event in running.inbox.take_events()]
        assert [state for name, state in states if name == "bars"] == ["connected", "lost"] * 2 + ["connected"]


def test_the_sdk_makes_no_connection_anew_for_silence_alone() -> None:
    with FakeSockets() as sockets, Running(sockets.url) as running:
        (bars,) = (stream for stream in running.streams._streams if stream.stream_name == "bars")
        assert bars._data_timeout is None


def test_a_stream_that_is_not_connected_is_not_hung_up() -> None:
    with mute_listener() as address, Running(f"ws://{address}") as running:
        running.streams.renew("bars")
        running.streams.renew("none of them")
        assert not running.inbox.take_events()


def test_frames_of_more_than_a_mebibyte_close_nothing() -> None:
    def big(connection: ServerConnection) -> None:
        greet(connection)
        connection.send(packed(*(bar("A", END, 1.0, filling="x" * 100) for _ in range(10_000))))
        stay(connection)

    with FakeSockets(data=[big]) as sockets, Running(sockets.url) as running:
        running.until(lambda inbox: inbox.bars_waiting == 10_000)
        assert running.inbox.reconnects == 0


def test_nonsense_is_left_out_and_what_follows_is_taken() -> None:
    unreadable: list[object] = [
        update({}, "new"),
        update({"id": None}, "new"),
        update({"id": "x"}, "fill", qty="many", price="1"),
        update({"id": "x", "filled_qty": "nan"}, "fill"),
        update({"id": "x", "filled_avg_price": []}, "fill"),
        {"event": None, "order": {"id": "x"}},
    ]

    def data(connection: ServerConnection) -> None:
        greet(connection)
        connection.send(b"\xc1 this is no msgpack")
        connection.send("nor is this")
        connection.send(packed({"T": "b"}, {"T": "?"}, {"x": 1}))
        connection.send(packed(bar("A", END)))
        stay(connection)

    def trades(connection: ServerConnection) -> None:
        listen(connection)
        connection.send(b"no JSON")
        for data in (None, [], {}, {"event": "fill"}, {"order": {}}, {"event": "fill", "order": None}, *unreadable):
            told(connection, {"stream": "trade_updates", "data": data})
        told(connection, {"stream": "trade_updates", "data": update({"id": "x"}, "new")})
        stay(connection)

    with FakeSockets(data=[data], trades=[trades]) as sockets, Running(sockets.url) as running:
        running.until(lambda inbox: inbox.bars_waiting == 1 and inbox.has_updates)
        said = [event.detail for event in running.inbox.take_events() if event.state == "error"]
        assert said == ["a trade update that cannot be read was left out"] * 12
        (message,) = running.inbox.take_updates()
        assert message.fields["event"] == "new"


@pytest.mark.parametrize("moment", ["handshake", "welcome", "login", "subscription"])
def test_a_stop_does_not_wait_for_a_server_that_says_nothing(moment: str) -> None:
    reached = threading.Event()

    def data(connection: ServerConnection) -> None:
        if moment != "welcome":
            connection.send(packed({"T": "success", "msg": "connected"}))
            connection.recv(timeout=SECONDS)
        if moment == "subscription":
            connection.send(packed({"T": "success", "msg": "authenticated"}))
            connection.recv(timeout=SECONDS)
        reached.set()
        stay(connection)

    if moment == "handshake":
        with mute_listener() as address, Running(f"ws://{address}"):
            pass
    else:
        with FakeSockets(data=[data]) as sockets, Running(sockets.url):
            assert reached.wait(SECONDS)


def test_a_stop_does_not_wait_while_nobody_listens() -> None:
    with mute_listener() as address:
        pass
    with Running(f"ws://{address}") as running:
        running.until(lambda inbox: inbox.has_events)
        assert "ConnectionRefusedError" in running.inbox.take_events()[0].detail


def test_nothing_is_printed_or_logged_with_the_secret_in_it(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    with FakeSockets(data=[refusing(402, "auth failed")]) as sockets, Running(sockets.url) as running:
        running.refusal()
        assert SECRET not in repr(running.streams) + repr(running.streams._streams)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert not [
        record for record in caplog.records if SECRET in record.getMessage() and "websockets" not in record.name
    ]


def test_two_connected_streams_that_wait_take_next_to_no_time_of_the_processor() -> None:
    with FakeSockets() as sockets, Running(sockets.url) as running:
        running.connected()
        before = time.process_time()
        assert not running.inbox.wait(lambda: False, 1.0)
        assert time.process_time() - before < 0.05
