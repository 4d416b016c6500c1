"""Requests that fail: refused, broken off or never answered, before they had an effect or after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.exchange.faults import ArmedFaults

_BEFORE = ("429", "500", "504", "hang-up", "timeout")
_AFTER = ("500-after", "504-after", "hang-up-after", "timeout-after")
_CHANGES = ("POST", "PATCH", "DELETE")

# The gateway in front of Alpaca answers itself when the exchange does not, and not in JSON.
_GATEWAY = b"<html><head><title>504 Gateway Time-out</title></head><body>504 Gateway Time-out</body></html>"
_TOO_MANY = {"code": 42910000, "message": "too many requests."}
_INTERNAL = {"code": 50010000, "message": "internal server error occurred"}


class FaultyRequests:
    """An ASGI application in front of Alpaca's routes; ``drop`` ends the connection of a client by its address."""

    def __init__(self, routes: ASGIApp, faults: ArmedFaults, drop: Callable[[Any], None]) -> None:
        self._routes = routes
        self._faults = faults
        self._drop = drop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or fail to."""
        kind = self._faults.take(*_BEFORE)
        if kind:
            await self._fail(kind, scope, receive, send)
        elif scope["method"] in _CHANGES and self._faults.is_armed(*_AFTER):
            await self._act_and_fail(scope, receive, send)
        else:
            await self._routes(scope, receive, send)

    async def _act_and_fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._routes(scope, receive, keep)
        if answer[0]["status"] < 400:  # a refusal had no effect, so the fault waits for another request
            kind = self._faults.take(*_AFTER)
            await self._fail(kind.removesuffix("-after"), scope, receive, send)
            return
        for message in answer:
            await send(message)

    async def _fail(self, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        if kind == "429":
            gone = [(name, b"0" if name.endswith(b"remaining") else value) for name, value in scope["limits"]]
            await _answer(send, 429, json.dumps(_TOO_MANY).encode(), b"application/json", gone)
        elif kind == "500":
            await _answer(send, 500, json.dumps(_INTERNAL).encode(), b"application/json")
        elif kind == "504":
            await _answer(send, 504, _GATEWAY, b"text/html")
        else:
            if kind == "hang-up":
                self._drop(scope["client"])
            await until_gone(receive)


async def until_gone(receive: Receive) -> None:
    """Wait until the client's connection has ended, without an answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(
    send: Send, status: int, body: bytes, media_type: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode()), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
