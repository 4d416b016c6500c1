"""What becomes of messages and connections: lost, repeated, late, swapped, cut."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from engine.exchange.account import AccountSpec
from engine.exchange.exchange import Exchange
from engine.exchange.faults import Faults
from engine.exchange.market import Market
from engine.exchange.outlets import Outlet
from tests.exchange.floor import Floor, broker, events, flat, frame, minutes

BARS = minutes({"X": [flat(100.0 + n) for n in range(12)]})
TWO = minutes({"X": [flat(100.0 + n) for n in range(12)], "Y": [flat(50.0 + n) for n in range(12)]})


def disturbed(text: str, bars: Any = BARS, **more: Any) -> Floor:
    return Floor(bars, faults=Faults.parse(text), **more)


def silent(socket: ClientConnection) -> bool:
    """Whether nothing has been sent to it."""
    try:
        socket.recv(timeout=0.05)
    except TimeoutError:
        return True
    return False


def cut(socket: ClientConnection) -> bool:
    """Whether the connection ends without a goodbye."""
    try:
        while True:
            socket.recv(timeout=5.0)
    except ConnectionClosed as end:
        return end.rcvd is None


def closes(socket: ClientConnection, count: int) -> list[float]:
    """The closes of the next bars, however they are put into frames."""
    found: list[float] = []
    while len(found) < count:
        found += [bar["c"] for bar in frame(socket)]
    return found


def names(socket: ClientConnection, count: int) -> list[str]:
    return [one["event"] for one in events(socket, count)]


def test_a_bar_is_lost_on_the_way_and_counts_as_pushed() -> None:
    with disturbed("lose-bar@2") as floor:
        data = floor.data(bars=["X"])
        assert [floor.advance()["shown"] for _ in range(3)] == [1, 1, 1]
        assert closes(data, 2) == [101.0, 103.0]
        assert floor.exchange.faults_spent == [(2, "lose-bar")]
        assert floor.get("/v2/stocks/bars", symbols="X", timeframe="1Min")["bars"]["X"][2]["c"] == 102.0


def test_a_bar_comes_twice() -> None:
    with disturbed("repeat-bar@2") as floor:
        data = floor.data(bars=["X"])
        assert floor.advance(3)["bars"] == 3
        assert closes(data, 4) == [101.0, 102.0, 102.0, 103.0]


def test_a_bar_comes_after_the_next_step() -> None:
    with disturbed("delay-bar@2", TWO) as floor:
        data = floor.data(bars=["*"])
        floor.advance(3)
        assert closes(data, 6) == [101.0, 51.0, 52.0, 103.0, 53.0, 102.0]


def test_an_update_is_lost_and_is_named_as_told() -> None:
    with disturbed("lose-update@1") as floor:
        updates = floor.updates()
        floor.order()
        told = floor.advance()["told"]
        floor.order()
        floor.advance()
        heard = events(updates, 5)
        assert [one["event"] for one in heard] == ["pending_new", "new", "pending_new", "new", "fill"]
        assert told[:2] == [one["execution_id"] for one in heard[:2]]
        assert len(told) == 3
        assert told[2] not in {one["execution_id"] for one in heard}


def test_an_update_comes_twice_with_the_same_execution_id() -> None:
    with disturbed("repeat-update@1") as floor:
        updates = floor.updates()
        floor.order()
        assert len(floor.advance()["told"]) == 3
        heard = events(updates, 4)
        assert heard[2] == heard[3]
        assert heard[2]["event"] == "fill"


def test_an_update_comes_after_the_messages_of_the_next_step() -> None:
    with disturbed("delay-update@1", TWO) as floor:
        updates = floor.updates()
        floor.order()
        floor.advance()
        floor.order(symbol="Y")
        floor.advance()
        heard = events(updates, 6)
        assert [(one["event"], one["order"]["symbol"]) for one in heard[4:]] == [("fill", "Y"), ("fill", "X")]


def test_two_updates_of_one_step_come_in_the_wrong_order() -> None:
    with disturbed("reorder-updates@1") as floor:
        updates = floor.updates()
        floor.order()
        told = floor.advance()["told"]
        assert names(updates, 3) == ["pending_new", "new", "fill"]  # it came alone, and waits for nobody
        assert floor.exchange.faults_spent == []
        first, second = floor.order(qty=1), floor.order(qty=2)
        told = floor.advance()["told"][4:]
        heard = events(updates, 6)[4:]
        assert [one["order"]["id"] for one in heard] == [second["id"], first["id"]]
        assert [one["execution_id"] for one in heard] == told[::-1]
        assert floor.exchange.faults_spent == [(1, "reorder-updates")]


def test_the_data_connection_is_cut_before_the_steps_bars_and_its_place_is_free() -> None:
    with disturbed("drop-bars@2") as floor:
        data, updates = floor.data(bars=["X"]), floor.updates()
        floor.order()
        floor.advance()
        moved = floor.advance()
        assert (moved["shown"], moved["bars"]) == (1, 2)
        assert closes(data, 1) == [101.0]
        assert cut(data)
        again = floor.data(bars=["X"])
        floor.advance()
        assert closes(again, 1) == [103.0]
        assert names(updates, 3) == ["pending_new", "new", "fill"]
        assert floor.exchange.faults_spent == [(2, "drop-bars")]


def test_the_trading_connections_are_cut_before_the_steps_updates() -> None:
    with disturbed("drop-trades@1") as floor:
        data, first, second = floor.data(bars=["X"]), floor.updates(), floor.updates()
        made = floor.order()
        told = floor.advance()["told"]
        assert len(told) == 3  # what the connections would have been told in this step
        assert (cut(first), cut(second)) == (True, True)
        assert floor.look(made)["status"] == "filled"
        floor.order()
        assert floor.advance()["told"] == []  # nobody listens
        again = floor.updates()
        floor.order()
        floor.advance()
        assert names(again, 3) == ["pending_new", "new", "fill"]
        assert closes(data, 3) == [101.0, 102.0, 103.0]


def test_a_connection_is_cut_as_soon_as_there_is_one() -> None:
    with disturbed("drop-bars@1") as floor:
        floor.advance(2)
        assert floor.exchange.faults_spent == []
        data = floor.data(bars=["X"])
        floor.advance()
        assert cut(data)


def test_bars_go_mute_for_five_steps() -> None:
    with disturbed("mute-bars@2") as floor:
        data = floor.data(bars=["X"])
        assert floor.advance(8)["bars"] == 8
        assert closes(data, 3) == [101.0, 107.0, 108.0]


def test_updates_go_mute_for_five_steps() -> None:
    with disturbed("mute-trades@1") as floor:
        updates = floor.updates()
        for _ in range(6):
            floor.order(qty=1)
            floor.advance()
        # Mute from the first fill until the sixth step begins: what is told before that step is lost as well.
        assert names(updates, 3) == ["pending_new", "new", "fill"]
        assert silent(updates)
        assert floor.get("/nextbar/status")["trade_updates"] == 18


def test_a_fault_hits_the_account_whose_event_comes_first_and_no_other() -> None:
    specs = [AccountSpec(key=key, secret="s", broker=broker()) for key in ("one", "two")]
    exchange = Exchange(Market(BARS, BARS.frames["X"].index[1]), specs, faults=Faults.parse("lose-update@1").over(11))
    lines = [Outlet(lambda messages: messages[0], abort=lambda: None) for _ in specs]
    for client, line in zip(exchange.clients, lines, strict=True):
        client.listen(line)
    exchange.advance()
    order = {"symbol": "X", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"}
    for client in reversed(exchange.clients):
        exchange.submit(client.account, order)
    assert [len(line._waiting) for line in lines] == [2, 1]
    assert [len(client.told) for client in exchange.clients] == [2, 2]


@pytest.mark.parametrize("text", ["lose-bar@2", "drop-bars@2"])
def test_a_clock_of_its_own_makes_faults_too(text: str) -> None:
    with disturbed(text, speed=600.0) as floor:  # 0.1 s a bar
        data = floor.data(bars=["X"])
        if text == "drop-bars@2":
            assert cut(data)
        else:
            assert closes(data, 2) == [101.0, 103.0]
