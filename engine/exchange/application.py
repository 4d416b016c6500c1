"""The ASGI application: who asks, how often, and which part of the exchange answers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import NextbarError
from engine.exchange.clients import Client
from engine.exchange.exchange import Exchange
from engine.exchange.faulty_requests import FaultyRequests, until_gone
from engine.exchange.loopback import refusal_of_pages
from engine.exchange.refusals import Refusal, invalid, unauthorized
from engine.exchange.rest import RateLimit, answer, router
from engine.exchange.sockets import market_data, trade_updates
from engine.exchange.wire import moment

_CONFLICT = 40910000


class Application:
    """Serves one exchange.

    Attributes:
        speed: None for lock-step, infinity for as fast as possible, else simulated seconds a second.
        called_upon: set by the first request or subscription of an account; a clock of its own begins then, so that
            nobody misses the first bars for having started later than the exchange.
        interrupted: set when a fault has ended the exchange: it is to be restored, and until then nobody is answered.
    """

    def __init__(
        self, exchange: Exchange, *, speed: float | None, rate_limit: int | None, drop: Callable[[Any], None]
    ) -> None:
        """Serve the exchange; ``drop`` ends a connection at once, by its client's (host, port)."""
        self.exchange = exchange
        self.speed = speed
        self.called_upon = asyncio.Event()
        self._limit = RateLimit(rate_limit)
        self.interrupted = asyncio.Event()
        self._drop = drop
        self._rest = router(exchange)
        self._alpaca: ASGIApp = self._rest
        if exchange.faults is not None:
            self._alpaca = FaultyRequests(self._rest, exchange.faults, drop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one connection to a socket."""
        refusal = refusal_of_pages(scope["headers"])
        if scope["type"] == "websocket":
            if refusal is None:
                await self._socket(scope, receive, send)
            else:
                await _turn_away(receive, send)
            return
        client = self._client(scope["headers"])
        if refusal is not None or client is None:
            refusal = refusal or unauthorized()
            await answer(refusal.status, refusal.body)(scope, receive, send)
            return
        self.called_upon.set()
        try:
            await self._serve(client, scope, receive, send)
        except NextbarError as error:
            await answer(500, {"code": 50010000, "message": str(error)})(scope, receive, send)

    async def _serve(self, client: Client, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path == "/nextbar/advance" and method == "POST":
            await self._advance(client, scope["query_string"], receive, send)
        elif path == "/nextbar/status" and method == "GET":
            await _send(send, 200, json.dumps(self._status(client)).encode())
        elif path.startswith("/nextbar/"):
            scope["client_account"], scope["limits"] = client, ()
            await self._rest(scope, receive, send)
        else:
            may_pass, scope["limits"] = self._limit.take(client.account)
            if may_pass:
                scope["client_account"] = client
                await self._alpaca(scope, receive, send)
            else:
                await answer(429, {"code": 42910000, "message": "too many requests."}, scope["limits"])(
                    scope, receive, send
                )

    async def _advance(self, client: Client, query: bytes, receive: Receive, send: Send) -> None:
        """The lock-step clock's next step. The hot path of a replay: no router, no response object.

        A client that says after which time it wants the next step may ask again when an answer was lost: the step that
        was taken is answered once more, and nothing moves twice.
        """
        exchange = self.exchange
        try:
            taken = self._taken_already(query)
        except Refusal as refusal:
            await _send(send, refusal.status, json.dumps(refusal.body).encode())
            return
        moved = not taken and exchange.advance()
        if exchange.interrupted:
            self.interrupted.set()
            await until_gone(receive)
            return
        time, done = (exchange.now, "false") if moved or taken else ("null", "true")
        start = "null" if exchange.last_start is None else exchange.last_start
        body = (
            f'{{"time":{time},"done":{done},"bars":{client.bars},"trade_updates":{client.trade_updates},'
            f'"step":{exchange.position},"start":{start},"moved":{_json(moved)},'
            f'"shown":{client.shown},"told":{json.dumps(client.told)},'
            f'"hears_trades":{_json(client.hears_trades)},"hears_bars":{_json(client.hears_bars)}}}'
        )
        if moved:
            await asyncio.sleep(0)  # the senders' turn: what was pushed goes out before the answer
        await _send(send, 200, body.encode())

    def _taken_already(self, query: bytes) -> bool:
        """Whether the step after the time that the client names was taken before; a Refusal where none can follow."""
        if self.speed is not None:
            message = "this exchange keeps its own clock; start it in lock-step (without a speed) to advance it"
            raise Refusal(409, _CONFLICT, message)
        if not query:
            return False
        text = parse_qs(query.decode("latin-1")).get("after", [""])[0]
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise invalid(f"invalid after: expected UTC nanoseconds, found {text[:40]!r}")
        after, now = int(text), self.exchange.now
        if now < after:
            raise Refusal(
                409, _CONFLICT,
                f"the exchange stands at {moment(now)}, before {moment(after)}, the time it was asked to go on from; "
                "it has begun afresh, or from an older state",
            )  # fmt: skip
        return now > after

    def _status(self, client: Client) -> dict[str, Any]:
        exchange, speed = self.exchange, self.speed
        mode = "lock-step" if speed is None else "wall-clock" if speed == 1.0 else "accelerated"
        return {
            "mode": mode,
            # JSON knows no infinity.
            "speed": speed if speed is None or math.isfinite(speed) else "inf",
            "time": exchange.now,
            "done": exchange.done,
            "step": exchange.position,
            "bars": client.bars,
            "trade_updates": client.trade_updates,
        }

    def _client(self, headers: list[tuple[bytes, bytes]]) -> Client | None:
        key = secret = b""
        for name, value in headers:
            if name == b"apca-api-key-id":
                key = value
            elif name == b"apca-api-secret-key":
                secret = value
        return self.exchange.authenticate(key, secret)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        def abort() -> None:
            self._drop(scope["client"])

        if scope["path"] in ("/v2/iex", "/v2/sip"):
            await market_data(self.exchange, receive, send, begin=self.called_upon.set, abort=abort)
        elif scope["path"] == "/stream":
            await trade_updates(self.exchange, receive, send, begin=self.called_upon.set, abort=abort)
        else:
            await _turn_away(receive, send)


async def _turn_away(receive: Receive, send: Send) -> None:
    """Close a socket before it is one: the client is answered 403."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _json(flag: bool) -> str:
    return "true" if flag else "false"
