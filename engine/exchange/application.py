"""The ASGI application: who asks, how often, and which part of the exchange answers."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from starlette.types import Receive, Scope, Send

from engine.errors import NextbarError
from engine.exchange.exchange import Client, Exchange
from engine.exchange.faults import unauthorized
from engine.exchange.loopback import refusal_of_pages
from engine.exchange.rest import RateLimit, answer, router
from engine.exchange.sockets import market_data, trade_updates


class Application:
    """Serves one exchange.

    Attributes:
        speed: None for lock-step, infinity for as fast as possible, else simulated seconds a second.
        called_upon: set by the first request or subscription of an account; a clock of its own begins then, so that
            nobody misses the first bars for having started later than the exchange.
    """

    def __init__(self, exchange: Exchange, *, speed: float | None, rate_limit: int | None) -> None:
        self.exchange = exchange
        self.speed = speed
        self.called_upon = asyncio.Event()
        self._limit = RateLimit(rate_limit)
        self._rest = router(exchange)

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
            await self._advance(client, send)
        elif path == "/nextbar/status" and method == "GET":
            await _send(send, 200, json.dumps(self._status(client)).encode())
        else:
            may_pass, scope["limits"] = self._limit.take(client.account)
            if may_pass:
                scope["client_account"] = client
                await self._rest(scope, receive, send)
            else:
                await answer(429, {"code": 42910000, "message": "too many requests."}, scope["limits"])(
                    scope, receive, send
                )

    async def _advance(self, client: Client, send: Send) -> None:
        """The lock-step clock's next step. The hot path of a replay: no router, no response object."""
        if self.speed is not None:
            message = "this exchange keeps its own clock; start it in lock-step (without a speed) to advance it"
            await _send(send, 409, json.dumps({"code": 40910000, "message": message}).encode())
            return
        exchange = self.exchange
        moved = exchange.advance()
        time, done = (exchange.now, "false") if moved else ("null", "true")
        body = f'{{"time":{time},"done":{done},"bars":{client.bars},"trade_updates":{client.trade_updates}}}'
        if moved:
            await asyncio.sleep(0)  # the senders' turn: what was pushed goes out before the answer
        await _send(send, 200, body.encode())

    def _status(self, client: Client) -> dict[str, Any]:
        exchange, speed = self.exchange, self.speed
        mode = "lock-step" if speed is None else "wall-clock" if speed == 1.0 else "accelerated"
        return {
            "mode": mode,
            # JSON knows no infinity.
            "speed": speed if speed is None or math.isfinite(speed) else "inf",
            "time": exchange.now,
            "done": exchange.done,
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
        if scope["path"] in ("/v2/iex", "/v2/sip"):
            await market_data(self.exchange, receive, send, begin=self.called_upon.set)
        elif scope["path"] == "/stream":
            await trade_updates(self.exchange, receive, send, begin=self.called_upon.set)
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
