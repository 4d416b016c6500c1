"""What the live side is tested against: a broker that can be nasty, a desk in memory, clocks that are moved by hand."""

from __future__ import annotations

import json
import socket
import struct
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgpack
import pandas as pd
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from engine.config import RunConfig
from engine.credentials import Credentials
from engine.live.desk import CutOff, Receipt, TurnedDown
from engine.live.inbox import Inbox, UpdateMessage
from engine.live.rest import NoAnswer
from engine.trading.orders import Order

KEY, SECRET = "PKTESTKEY0123456", "a-secret-that-nobody-may-see"
SECONDS = 5.0


def utc(text: str) -> int:
    """A moment, New York time unless it has a zone, as UTC ns."""
    moment = pd.Timestamp(text)
    return int((moment if moment.tzinfo else moment.tz_localize("America/New_York")).value)


def config(*, timeframe: str = "1m", symbols: Sequence[str] = ("A", "B"), **sections: Any) -> RunConfig:
    """A run file for the symbols."""
    return RunConfig.model_validate(
        {
            "name": "test",
            "data": {"source": "alpaca", "symbols": list(symbols), "timeframe": timeframe, "start": "2023-06-01"},
            "spans": {"test": ["2023-07-01", "2024-06-30"]},
            "strategy": {"kind": "strategies.buy_and_hold:BuyAndHold"},
            **sections,
        }
    )


class HastyInbox(Inbox):
    """Waits for nothing that is not there already, and keeps what it was asked to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, ready: Callable[[], bool], timeout: float, *, through_stop: bool = False) -> bool:
        self.waits.append(timeout)
        return super().wait(ready, 0.0, through_stop=through_stop)


class Clock:
    """The market's time and the machine's, moved by hand; a wait moves them on and lets come what is due then."""

    def __init__(self, start: int) -> None:
        self.utc = start
        self.monotonic = 1_000_000_000
        # How much longer than asked for a wait takes, where days go by.
        self.stretch = 1
        self.events: list[tuple[int, Callable[[], Any]]] = []

    def now(self) -> int:
        return self.utc

    def monotonic_ns(self) -> int:
        return self.monotonic

    def at(self, moment: int, what: Callable[[], Any]) -> None:
        """Let something happen once the market's time is there."""
        self.events.append((moment, what))
        self.events.sort(key=lambda event: event[0])

    def pass_by(self, nanoseconds: int) -> None:
        """Move on, to the next event at most."""
        target = self.utc + nanoseconds
        if self.events and self.events[0][0] <= target:
            moment, what = self.events.pop(0)
            self._set(max(moment, self.utc))
            what()
        else:
            self._set(target)

    def _set(self, moment: int) -> None:
        self.monotonic += moment - self.utc
        self.utc = moment


class ClockedInbox(Inbox):
    """Waiting moves the clock on instead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.waited = 0

    def wait(self, ready: Callable[[], bool], timeout: float, *, through_stop: bool = False) -> bool:
        self.waited += 1
        assert self.waited < 500_000, "the source waits for ever"
        if not ready() and not self.stopped:
            self.clock.pass_by(max(1, int(timeout * self.clock.stretch * 1e9)))
        return super().wait(ready, 0.0, through_stop=through_stop)

    def put_bar(self, fields: Mapping[str, Any], *, revised: bool = False) -> None:
        super().put_bar(fields, revised=revised)
        self._bars[-1] = self._bars[-1]._replace(received=self.clock.monotonic)
        self.last_bar = self.clock.monotonic


# --- a desk in memory ----------------------------------------------------------------------------------------------


def update(order: Mapping[str, Any], event: str, **fields: Any) -> dict[str, Any]:
    """A trade update as the broker sends it."""
    return {
        "event": event,
        "execution_id": fields.pop("execution", str(uuid.uuid4())),
        "timestamp": "2024-01-02T15:00:00Z",
        "qty": None,
        "price": None,
        "order": dict(order),
        **fields,
    }


class MemoryDesk:
    """Takes orders and keeps the updates that a test puts in.

    Attributes:
        faults: what becomes of the next requests, by which orders are sent, looked for or cancelled: ``""`` (they are
            answered), ``lost`` (they do not reach the broker), ``taken`` (they do, and the answer is lost) or ``cut``
            (of an order that is sent: the run was cut off there, and what follows may have been sent too).
        asked: (``send`` or ``find``, client id) of every order that was to be sent or looked for, however often.
        sent: the orders that have reached the broker.
        caught_up: what it was asked for by ``catch_up``.
    """

    def __init__(self, log: list[Any] | None = None) -> None:
        self.log = [] if log is None else log
        self.faults: deque[str] = deque()
        self.asked: list[tuple[str, str]] = []
        self.sent: list[tuple[Order, list[Order], str]] = []
        self.withdrawn: list[str] = []
        self.caught_up: list[list[str]] = []
        self.updates: list[dict[str, Any]] = []
        self.refuse = ""
        self.known: dict[str, Receipt] = {}
        self._executed: dict[str, tuple[float, float]] = {}
        self._last: dict[str, dict[str, Any]] = {}

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        self.asked.append(("send", client_id))
        fault = self._fault()
        if fault in ("lost", "cut"):
            raise (CutOff if fault == "cut" else NoAnswer)("the broker says nothing")
        self.log.append(("sent", client_id))
        if self.refuse:
            raise TurnedDown(self.refuse)
        assert client_id not in self.known, f"{client_id} was sent twice"
        self.sent.append((order, list(legs), client_id))
        self.known[client_id] = Receipt(f"r{order.id}", tuple(f"r{leg.id}" for leg in legs))
        if fault == "taken":
            raise NoAnswer("the broker says nothing")
        return self.known[client_id]

    def find(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt | None:
        self.asked.append(("find", client_id))
        if self._fault():
            raise NoAnswer("the broker says nothing")
        return self.known.get(client_id)

    def withdraw(self, remote_id: str) -> None:
        fault = self._fault()
        if fault != "lost":
            self.withdrawn.append(remote_id)
            self.tell(remote_id, "canceled")
        if fault:
            raise NoAnswer("the broker says nothing")

    def _fault(self) -> str:
        return self.faults.popleft() if self.faults else ""

    def tell(self, remote_id: str, event: str, quantity: float = 0.0, price: float = 0.0, **fields: Any) -> None:
        """An update with this fill, and cumulative figures as they follow."""
        done, paid = self._executed.get(remote_id, (0.0, 0.0))
        done, paid = done + quantity, paid + quantity * price
        self._executed[remote_id] = done, paid
        order = {
            "id": remote_id,
            "client_order_id": "",
            "symbol": "A",
            "filled_qty": str(done),
            "filled_avg_price": str(paid / done) if done else None,
        }
        fill = {"qty": str(quantity), "price": str(price)} if quantity else {}
        self.updates.append(update(order, event, **fill, **fields))
        self._last.pop(remote_id, None)
        self._last[remote_id] = {"qty": str(done), "price": order["filled_avg_price"], "event": event, "order": order}

    def take_updates(self) -> list[UpdateMessage]:
        taken, self.updates = self.updates, []
        return [UpdateMessage(fields, 0) for fields in taken]

    def catch_up(self, remote_ids: Iterable[str]) -> int:
        """What was told last of each, with its cumulative figures, once more, as it happened one after the other."""
        self.caught_up.append(list(remote_ids))
        found = [told for remote_id, told in self._last.items() if remote_id in self.caught_up[-1]]
        self.updates.extend(update(**told) for told in found)
        return len(found)


# --- a broker that can be nasty ------------------------------------------------------------------------------------

ACCOUNT = {
    "id": "0", "account_number": "PA1", "status": "ACTIVE", "cash": "100000", "equity": "100000",
    "shorting_enabled": True, "trading_blocked": False, "account_blocked": False, "trade_suspended_by_user": False,
}  # fmt: skip


class FakeBroker:
    """REST as Alpaca speaks it, with faults on demand. Use it as a context manager.

    Attributes:
        faults: what happens to the next requests, ``(method, start of the path, fault)``: a status, ``reset``, ``mute``
            or ``garbage``, with ``after`` for an order that was taken all the same, as in ``"504 after"``.
        seen: (method, path, query, body) of every request.
        answers: path -> what a GET gives.
    """

    def __init__(self) -> None:
        self.faults: deque[tuple[str, str, str]] = deque()
        self.seen: list[tuple[str, str, dict[str, list[str]], Any]] = []
        self.orders: dict[str, dict[str, Any]] = {}
        self.by_client_id_with_legs = True
        self.mute_seconds = SECONDS
        self.on_cancel: Callable[[str], Any] = lambda remote_id: None
        asset = {"tradable": True, "fractionable": True, "shortable": True}
        self.answers: dict[str, Any] = {
            "/v2/account": dict(ACCOUNT),
            "/v2/positions": [],
            "/v2/orders": [],
            "/v2/clock": {"timestamp": "2024-01-02T10:00:00-05:00", "is_open": True, "next_open": "tomorrow"},
            "/v2/assets/A": asset,
            "/v2/assets/B": asset,
            "/v2/stocks/bars": {"bars": {}, "next_page_token": None},
        }
        self.released = threading.Event()
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                fake._serve(self)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

            def log_message(self, *args: Any) -> None:
                """Nobody reads it."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                """A client that has gone."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeBroker:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def credentials(self, streams: str | None = None) -> Credentials:
        """Of an account here; ``streams`` is the address of a ``FakeSockets``."""
        stream = streams or self.url.replace("http", "ws")
        return Credentials(
            key=KEY,
            secret=SECRET,
            trading_url=self.url,
            data_url=self.url if streams is None else streams.replace("ws", "http"),
            trading_stream_url=f"{stream}/stream",
        )

    def requests(self, method: str) -> list[str]:
        """Paths that were asked for."""
        return [path for asked, path, _, _ in self.seen if asked == method]

    def take(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """An order as if it had been sent; None where its client id is known already."""
        if any(order["client_order_id"] == body["client_order_id"] for order in self.orders.values()):
            return None
        order = {
            **body,
            "id": str(uuid.uuid4()),
            "status": "new",
            "filled_qty": "0",
            "filled_avg_price": None,
            "updated_at": "2024-01-02T15:00:00Z",
            "legs": None,
        }
        legs = [("limit", "take_profit"), ("stop", "stop_loss")]
        if any(name in body for _, name in legs):
            order["legs"] = [{"id": str(uuid.uuid4()), "type": kind} for kind, name in legs if name in body]
        self.orders[order["id"]] = order
        return order

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        place = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        method = handler.command
        with self._lock:
            self.seen.append((method, place.path, parse_qs(place.query), body))
            fault = ""
            for position, (asked, path, kind) in enumerate(self.faults):
                if asked == method and place.path.startswith(path):
                    fault = kind
                    del self.faults[position]
                    break
            if fault.endswith(" after") and method == "POST":
                self.take(body)
            if fault.endswith(" after") and method == "DELETE":
                self.on_cancel(place.path.rsplit("/", 1)[1])
        kind = fault.removesuffix(" after")
        if kind == "mute":
            self.released.wait(self.mute_seconds)
            handler.close_connection = True
        elif kind == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
        elif kind == "garbage":
            self._answer(handler, 200, b"<html>not what you think</html>")
        elif kind:
            self._answer(handler, int(kind), json.dumps({"message": f"fault {kind}"}).encode())
        else:
            with self._lock:
                status, answer = self._respond(method, place.path, parse_qs(place.query), body)
            self._answer(handler, status, b"" if answer is None else json.dumps(answer).encode())

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _respond(self, method: str, path: str, query: Mapping[str, list[str]], body: Any) -> tuple[int, Any]:
        missing = 404, {"code": 40410000, "message": "not found"}
        if method == "POST":
            order = self.take(body)
            if order is None:
                return 422, {"code": 40010001, "message": "client_order_id must be unique"}
            return 200, order
        if method == "DELETE":
            remote_id = path.rsplit("/", 1)[1]
            if remote_id not in self.orders:
                return missing
            self.on_cancel(remote_id)
            return 204, None
        if path == "/v2/orders:by_client_order_id":
            wanted = query["client_order_id"][0]
            for order in self.orders.values():
                if order["client_order_id"] == wanted:
                    return 200, order if self.by_client_id_with_legs else {**order, "legs": None}
            return missing
        if path.startswith("/v2/orders/"):
            found = self.orders.get(path.rsplit("/", 1)[1])
            return (200, found) if found else missing
        return (200, self.answers[path]) if path in self.answers else missing


# --- sockets that can be nasty -------------------------------------------------------------------------------------

Script = Callable[[ServerConnection], None]


def packed(*messages: Mapping[str, Any]) -> bytes:
    """A frame of the market data socket."""
    frame: bytes = msgpack.packb(list(messages))
    return frame


def bar(symbol: str, end: str, price: float = 100.0, *, kind: str = "b", **more: Any) -> dict[str, Any]:
    """A minute bar, stamped with its start, as the stream brings it."""
    stamp = msgpack.Timestamp.from_unix_nano(utc(end) - 60_000_000_000)
    return {"T": kind, "S": symbol, "t": stamp, "o": price, "h": price, "l": price, "c": price, "v": 10, "n": 1,
            "vw": price, **more}  # fmt: skip


def row(start: str, price: float = 100.0, **more: Any) -> dict[str, Any]:
    """A bar of the history, stamped with its start."""
    stamp = pd.Timestamp(utc(start), tz="UTC").isoformat().replace("+00:00", "Z")
    return {"t": stamp, "o": price, "h": price, "l": price, "c": price, "v": 10, "n": 1, "vw": price, **more}


def greet(connection: ServerConnection) -> None:
    """The market data socket's way in, up to the subscription."""
    connection.send(packed({"T": "success", "msg": "connected"}))
    connection.recv(timeout=SECONDS)
    connection.send(packed({"T": "success", "msg": "authenticated"}))
    asked = msgpack.unpackb(connection.recv(timeout=SECONDS))
    connection.send(packed({"T": "subscription", "bars": asked["bars"], "updatedBars": asked["updatedBars"]}))


def listen(connection: ServerConnection) -> None:
    """The trading socket's way in."""
    connection.recv(timeout=SECONDS)
    told(connection, {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}})
    connection.recv(timeout=SECONDS)
    told(connection, {"stream": "listening", "data": {"streams": ["trade_updates"]}})


def told(connection: ServerConnection, message: Mapping[str, Any]) -> None:
    """A frame of the trading socket: JSON, in binary."""
    connection.send(json.dumps(message).encode())


def stay(connection: ServerConnection) -> None:
    """Say nothing more until the client has gone."""
    for _ in connection:
        pass


class FakeSockets:
    """The two sockets; each connection follows the next script of its path, and the last one again and again."""

    def __init__(self, *, data: Sequence[Script] = (), trades: Sequence[Script] = ()) -> None:
        self._scripts = {"/v2/iex": deque(data or [lambda c: (greet(c), stay(c))]),
                         "/stream": deque(trades or [lambda c: (listen(c), stay(c))])}  # fmt: skip
        self.connections = dict.fromkeys(self._scripts, 0)
        self._server = serve(self._handle, "127.0.0.1", 0, compression=None, max_size=None)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = connection.request.path
        scripts = self._scripts[path]
        script = scripts.popleft() if len(scripts) > 1 else scripts[0]
        self.connections[path] += 1
        try:
            script(connection)
        except (ConnectionClosed, TimeoutError, OSError):
            return

    def __enter__(self) -> FakeSockets:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()


@contextmanager
def mute_listener() -> Iterator[str]:
    """The address of a port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
