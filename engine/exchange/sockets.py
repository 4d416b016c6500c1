"""The two sockets of Alpaca: market data in msgpack, trade updates in JSON. Written against bare ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack

from engine.exchange.clients import Client
from engine.exchange.exchange import Exchange
from engine.exchange.outlets import Outlet

BARS_A_FRAME = 5_000  # a frame over 1 MiB closes alpaca-py's stream
_SECONDS_TO_AUTHENTICATE = 10.0
_SECONDS_TO_SAY_GOODBYE = 1.0
_CHANNELS = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "corrections", "cancelErrors")
_KEPT = ("bars", "updatedBars", "dailyBars")

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class _Gone(Exception):
    """The client has closed the connection."""


class _Socket:
    """One connection: whole messages in, binary frames out."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def accept(self) -> None:
        await self._receive()
        await self._send({"type": "websocket.accept"})

    async def next(self) -> bytes:
        """The next message, fragments put together, text as UTF-8."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise _Gone
        text = message.get("text")
        return text.encode() if text is not None else bytes(message["bytes"])

    async def send(self, frame: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": frame})

    async def close(self, code: int = 1000) -> None:
        await self._send({"type": "websocket.close", "code": code})


async def market_data(
    exchange: Exchange, receive: Receive, send: Send, *, begin: Callable[[], None], abort: Callable[[], None]
) -> None:
    """Serve one connection to the market data socket; it ends with the client's closing, or with an error's frame.

    ``begin`` is called when the client has subscribed; ``abort`` ends the connection without a word.
    """
    socket = _Socket(receive, send)
    try:
        await socket.accept()
        await socket.send(_pack([{"T": "success", "msg": "connected"}]))
        client = await _data_client(exchange, socket)
        if client is None:
            await socket.close()
            return
        outlet = Outlet(_joined, abort=abort, messages_a_frame=BARS_A_FRAME)
        client.data = outlet
        try:
            await socket.send(_pack([{"T": "success", "msg": "authenticated"}]))
            slow = _pack([{"T": "error", "code": 407, "msg": "slow client"}])
            await _converse(socket, outlet, lambda message: _subscription(outlet, message, begin), slow)
        finally:
            client.hang_up(outlet)
    except (_Gone, OSError):
        return


async def _data_client(exchange: Exchange, socket: _Socket) -> Client | None:
    """The account that authenticates, or None after telling why not."""
    try:
        message = _unpacked(await asyncio.wait_for(socket.next(), _SECONDS_TO_AUTHENTICATE))
    except TimeoutError:
        await socket.send(_pack([{"T": "error", "code": 404, "msg": "auth timeout"}]))
        return None
    if message.get("action") != "auth":
        await socket.send(_pack([{"T": "error", "code": 401, "msg": "not authenticated"}]))
        return None
    client = _authenticated(exchange, message.get("key"), message.get("secret"))
    if client is None:
        await socket.send(_pack([{"T": "error", "code": 402, "msg": "auth failed"}]))
        return None
    if client.data is not None:
        await socket.send(_pack([{"T": "error", "code": 406, "msg": "connection limit exceeded"}]))
        return None
    return client


def _subscription(outlet: Outlet, frame: bytes, begin: Callable[[], None]) -> bytes:
    """Subscribe or unsubscribe; the answer names everything that is subscribed now."""
    message = _unpacked(frame)
    action = message.get("action")
    if action == "auth":
        return _pack([{"T": "error", "code": 403, "msg": "already authenticated"}])
    asked = {channel: message.get(channel, []) for channel in _CHANNELS}
    if action not in ("subscribe", "unsubscribe") or not all(map(_symbols, asked.values())):
        return _pack([{"T": "error", "code": 400, "msg": "invalid syntax"}])
    for channel in _KEPT:
        if action == "subscribe":
            outlet.symbols[channel].update(asked[channel])
        else:
            outlet.symbols[channel].difference_update(asked[channel])
    begin()
    # What this exchange has no data for is answered as not subscribed.
    names = {channel: sorted(outlet.symbols.get(channel, ())) for channel in _CHANNELS}
    return _pack([{"T": "subscription", **names}])


def _symbols(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(symbol, str) for symbol in value)


async def trade_updates(
    exchange: Exchange, receive: Receive, send: Send, *, begin: Callable[[], None], abort: Callable[[], None]
) -> None:
    """Serve one connection to the trading socket: text JSON comes in, JSON in binary frames goes out.

    ``begin`` is called when the client listens; ``abort`` ends the connection without a word.
    """
    socket = _Socket(receive, send)
    try:
        await socket.accept()
        client = await _trading_client(exchange, socket)
        if client is None:
            await socket.close()
            return
        outlet = Outlet(lambda messages: messages[0], abort=abort)
        try:
            slow = _json({"stream": "error", "data": {"code": 407, "error_message": "slow client"}})
            await _converse(socket, outlet, lambda message: _listening(client, outlet, message, begin), slow)
        finally:
            client.hang_up(outlet)
    except (_Gone, OSError):
        return


async def _trading_client(exchange: Exchange, socket: _Socket) -> Client | None:
    """The account that authenticates, in Alpaca's older or newer way; None after answering that none did."""
    try:
        message = _loaded(await asyncio.wait_for(socket.next(), _SECONDS_TO_AUTHENTICATE))
    except TimeoutError:
        message = {}
    action = message.get("action")
    keys = message.get("data") if action == "authenticate" else message if action == "auth" else {}
    keys = keys if isinstance(keys, dict) else {}
    client = _authenticated(exchange, keys.get("key_id", keys.get("key")), keys.get("secret_key", keys.get("secret")))
    status = "unauthorized" if client is None else "authorized"
    await socket.send(_json({"stream": "authorization", "data": {"status": status, "action": "authenticate"}}))
    return client


def _listening(client: Client, outlet: Outlet, frame: bytes, begin: Callable[[], None]) -> bytes:
    message = _loaded(frame)
    data = message.get("data")
    streams = data.get("streams") if isinstance(data, dict) else None
    if message.get("action") != "listen" or not isinstance(streams, list):
        return _json({"stream": "error", "data": {"code": 400, "error_message": "invalid syntax"}})
    if "trade_updates" in streams:
        client.listen(outlet)
        begin()
    else:
        client.hang_up(outlet)
    return _json({"stream": "listening", "data": {"streams": [name for name in streams if name == "trade_updates"]}})


async def _converse(socket: _Socket, outlet: Outlet, answer: Callable[[bytes], bytes], slow: bytes) -> None:
    """Answer the client's messages while another task sends what is pushed, until either comes to an end."""
    sender = asyncio.ensure_future(outlet.send_all(socket.send))
    listener = asyncio.ensure_future(_answer(socket, answer))
    overflow = asyncio.ensure_future(outlet.overflow.wait())
    try:
        await asyncio.wait((sender, listener, overflow), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sender, listener, overflow):
            task.cancel()
        ends = await asyncio.gather(sender, listener, overflow, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception) and not isinstance(end, _Gone | OSError):
            raise end
    if outlet.overflow.is_set():
        try:
            await asyncio.wait_for(_goodbye(socket, slow), _SECONDS_TO_SAY_GOODBYE)
        except TimeoutError:
            return  # it does not read at all


async def _answer(socket: _Socket, answer: Callable[[bytes], bytes]) -> None:
    while True:
        await socket.send(answer(await socket.next()))


async def _goodbye(socket: _Socket, frame: bytes) -> None:
    await socket.send(frame)
    await socket.close(1008)


def _authenticated(exchange: Exchange, key: Any, secret: Any) -> Client | None:
    if not (isinstance(key, str) and isinstance(secret, str)):
        return None
    return exchange.authenticate(key.encode(errors="replace"), secret.encode(errors="replace"))


def _joined(messages: list[bytes]) -> bytes:
    """A msgpack list of messages that are packed already."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(len(messages))
    return b"".join((packer.bytes(), *messages))


def _pack(messages: list[dict[str, Any]]) -> bytes:
    packed: bytes = msgpack.packb(messages)
    return packed


def _unpacked(frame: bytes) -> dict[str, Any]:
    try:
        message = msgpack.unpackb(frame)
    except (ValueError, msgpack.exceptions.UnpackException):
        return {}
    return message if isinstance(message, dict) else {}


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def _loaded(frame: bytes) -> dict[str, Any]:
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
