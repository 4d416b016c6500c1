"""What ``nextbar doctor`` asks of the broker's two sockets: they are opened, subscribed to, and closed again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgpack
from alpaca.common.enums import BaseURL
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import ClientConnection, connect

from engine.checks import Differs, Question, Skipped
from engine.credentials import Credentials
from engine.errors import BrokerError
from engine.live.answers import Subject
from engine.live.rest import AccountLock, NoAnswer

AREA = "sockets"

_OPEN_SECONDS, _FRAME_SECONDS, _CLOSE_SECONDS = 4.0, 3.0, 0.5
_LIMIT = 406


class Sockets:
    """The connections of the checks. As a context manager it keeps runs of the same account off this machine.

    Attributes:
        busy: why no socket may be opened; empty if they may.
    """

    def __init__(self, credentials: Credentials, subject: Subject) -> None:
        self._credentials = credentials
        self._subject = subject
        self._opened = ExitStack()
        self._first: ClientConnection | None = None
        # The name that a run's connection locks too.
        self._lock = AccountLock(f"{credentials.trading_url or ''} {credentials.key}", credentials.masked)
        self.busy = ""

    def __enter__(self) -> Sockets:
        try:
            self._lock.take()
        except BrokerError as error:
            self.busy = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        self._lock.release()

    def questions(self) -> list[Question]:
        """In the order in which they are to be asked: the second data connection needs the first."""
        asked: list[tuple[str, str, Callable[[], str]]] = [
            ("trading socket", "authorized, then listening; JSON in binary frames", self._trading),
            ("trading socket, wrong secret", "unauthorized", self._trading_wrong_secret),
            ("data socket, wrong secret", "error 402", self._data_wrong_secret),
            ("data socket", "connected, authenticated, subscription; msgpack lists", self._data),
            ("second data connection", f"error {_LIMIT}", self._second),
        ]
        return [Question(name=name, area=AREA, expected=expected, ask=ask) for name, expected, ask in asked]

    # --- the trading socket ----------------------------------------------------------------------------------------

    def _trading(self) -> str:
        with self._opening(self._trading_url) as socket:
            status = self._authorized(socket, self._credentials.secret)
            if status != "authorized":
                raise Differs(status)
            socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
            answer = _json_frame(socket)
            if answer.get("stream") != "listening" or answer.get("data", {}).get("streams") != ["trade_updates"]:
                raise Differs(f"authorized, then {answer}")
        return "authorized, then listening; JSON in binary frames"

    def _trading_wrong_secret(self) -> str:
        with self._opening(self._trading_url) as socket:
            status = self._authorized(socket, secrets.token_urlsafe(24))
            if status != "unauthorized":
                raise Differs(status)
            return status

    def _authorized(self, socket: ClientConnection, secret: str) -> str:
        keys = {"key_id": self._credentials.key, "secret_key": secret}
        socket.send(json.dumps({"action": "authenticate", "data": keys}))
        answer = _json_frame(socket)
        data = answer.get("data")
        if answer.get("stream") != "authorization" or not isinstance(data, dict):
            raise Differs(f"{answer}")
        return str(data.get("status"))

    # --- the market data socket ------------------------------------------------------------------------------------

    def _data_wrong_secret(self) -> str:
        with self._opening(self._data_url) as socket:
            answer = self._greeted(socket, secrets.token_urlsafe(24))
            if answer.get("code") != 402:
                raise Differs(_in_words(answer))
            return _in_words(answer)

    def _data(self) -> str:
        with _told(self._data_url):
            # It stays open for the next check.
            socket = self._opened.enter_context(self._connect(self._data_url))
            self._subscribe(socket)
        self._first = socket
        return f"connected, authenticated, subscription to {', '.join(self._subject.symbols)}"

    def _subscribe(self, socket: ClientConnection) -> None:
        answer = self._greeted(socket, self._credentials.secret)
        if answer.get("code") == _LIMIT:
            raise BrokerError(
                f"{_in_words(answer)}: another process, here or elsewhere, is connected with this account; stop it"
            )
        if (answer.get("T"), answer.get("msg")) != ("success", "authenticated"):
            raise Differs(_in_words(answer))
        symbols = list(self._subject.symbols)
        asked: bytes = msgpack.packb({"action": "subscribe", "bars": symbols, "updatedBars": symbols})
        socket.send([asked[:7], asked[7:]])  # in fragments, as the SDK does
        answer = _first_message(socket)
        if answer.get("T") != "subscription":
            raise Differs(_in_words(answer))
        if any(sorted(answer.get(name, ())) != sorted(symbols) for name in ("bars", "updatedBars")):
            raise Differs(f"subscribed to other symbols: {answer.get('bars')}")

    def _second(self) -> str:
        if self._first is None:
            raise Skipped("the first one was not made")
        with self._opening(self._data_url) as socket:
            answer = self._greeted(socket, self._credentials.secret)
            if answer.get("code") != _LIMIT:
                raise Differs(_in_words(answer))
            return _in_words(answer)

    def _greeted(self, socket: ClientConnection, secret: str) -> dict[str, Any]:
        """The answer to the keys, after the greeting."""
        greeting = _first_message(socket)
        if (greeting.get("T"), greeting.get("msg")) != ("success", "connected"):
            raise Differs(_in_words(greeting))
        keys = {"action": "auth", "key": self._credentials.key, "secret": secret}
        socket.send(msgpack.packb(keys))
        return _first_message(socket)

    # --- both ------------------------------------------------------------------------------------------------------

    @property
    def _trading_url(self) -> str:
        return self._credentials.trading_stream_url or str(BaseURL.TRADING_STREAM_PAPER.value)

    @property
    def _data_url(self) -> str:
        feed = self._subject.feed
        return self._credentials.data_stream(feed) or f"{BaseURL.MARKET_DATA_STREAM.value}/v2/{feed}"

    @contextmanager
    def _opening(self, url: str) -> Iterator[ClientConnection]:
        with _told(url), self._connect(url) as socket:
            yield socket

    def _connect(self, url: str) -> ClientConnection:
        return connect(
            url,
            additional_headers={"Content-Type": "application/msgpack"},
            open_timeout=_OPEN_SECONDS,
            close_timeout=_CLOSE_SECONDS,
            proxy=None if self._credentials.local else True,
        )


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What goes wrong with a connection, or in its use, as one sentence."""
    try:
        yield
    except TimeoutError:
        raise NoAnswer(f"{url} gave no answer in time; check the network") from None
    except InvalidHandshake as error:
        raise NoAnswer(f"{url} refuses the connection ({error})") from None
    except WebSocketException as error:
        raise NoAnswer(f"{url} closed the connection ({type(error).__name__}: {error})") from None
    except OSError as error:
        raise NoAnswer(f"{url} could not be reached ({type(error).__name__}); check the network") from None


def _binary_frame(socket: ClientConnection) -> bytes:
    received = socket.recv(timeout=_FRAME_SECONDS)
    if not isinstance(received, bytes):
        raise Differs(f"a text frame: {received}")
    return received


def _json_frame(socket: ClientConnection) -> dict[str, Any]:
    message = json.loads(_binary_frame(socket))
    if not isinstance(message, dict):
        raise Differs(f"no object: {message}")
    return message


def _first_message(socket: ClientConnection) -> dict[str, Any]:
    """The first message of the next frame, which is a list of them."""
    messages = msgpack.unpackb(_binary_frame(socket), timestamp=3)
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], dict):
        raise Differs(f"no list of messages: {messages}")
    return messages[0]


def _in_words(message: dict[str, Any]) -> str:
    said = str(message.get("msg", message.get("T")))
    return f"{message['code']}: {said}" if "code" in message else said
