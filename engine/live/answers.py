"""Plain questions to the broker, for ``nextbar doctor``: GETs only, and without the SDK, so that nothing is hidden."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import requests
from alpaca.common.enums import BaseURL

from engine.checks import Differs
from engine.credentials import Credentials
from engine.data.alpaca import alpaca_timeframe
from engine.live.rest import NoAnswer

_TIMEOUTS_SECONDS = (3.0, 5.0)
_MOST_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is asked about: symbols and their bars, as a run file has them."""

    symbols: tuple[str, ...]
    timeframe: str
    feed: str

    @property
    def alpaca_timeframe(self) -> str:
        """As the market data wants it, such as 1Min."""
        return str(alpaca_timeframe(self.timeframe).value)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back: the JSON (None where there is none), and when the question was half way, Unix seconds."""

    status: int
    headers: Mapping[str, str]
    body: Any
    moment: float
    seconds: float

    @property
    def message(self) -> str:
        """The status and the server's words."""
        said = self.body.get("message", "") if isinstance(self.body, dict) else ""
        return f"{self.status}: {said}" if said else f"status {self.status}"

    def of(self, kind: type, status: int = 200) -> Any:
        """The body, which must be of this kind and have come with this status.

        Raises:
            Differs: it is not.
        """
        if self.status != status:
            raise Differs(self.message)
        if not isinstance(self.body, kind):
            raise Differs(f"status {self.status} and what is no JSON {'list' if kind is list else 'object'}")
        return self.body


class Questioner:
    """Asks with the user's key; remembers what it has asked already.

    Attributes:
        reached: whether the trading endpoint has answered anything.
        accepted: whether it has answered a question, and with JSON.
    """

    def __init__(self, credentials: Credentials, now: Callable[[], float]) -> None:
        self.credentials = credentials
        self.trading_url = credentials.trading_url or str(BaseURL.TRADING_PAPER.value)
        self.data_url = credentials.data_url or str(BaseURL.DATA.value)
        self.reached = self.accepted = False
        self._now = now
        self._known: dict[str, Answer] = {}
        self._session = requests.Session()
        self._session.trust_env = not credentials.local

    def get(self, path: str, *, secret: str | None = None, data: bool = False, **query: Any) -> Answer:
        """The answer to one GET, whatever its status.

        Args:
            secret: sent instead of the user's.
            data: ask the market data, and not the trading endpoint.

        Raises:
            NoAnswer: nobody answered.
        """
        url = (self.data_url if data else self.trading_url) + path
        asked = json.dumps([url, secret, query])
        if asked not in self._known:
            answer = self._known[asked] = self._get(url, secret or self.credentials.secret, query)
            if not data:
                self.reached = True
                self.accepted |= answer.status == 200 and answer.body is not None
        return self._known[asked]

    def _get(self, url: str, secret: str, query: Mapping[str, Any]) -> Answer:
        headers = {"APCA-API-KEY-ID": self.credentials.key, "APCA-API-SECRET-KEY": secret}
        begun, started = self._now(), time.monotonic()
        try:
            # Redirections are not followed: the key goes nowhere else.
            with self._session.get(
                url,
                headers=headers,
                params=dict(query),
                timeout=_TIMEOUTS_SECONDS,
                allow_redirects=False,
                stream=True,
            ) as answer:
                received = bytearray()
                for chunk in answer.iter_content(65536):
                    received += chunk
                    if len(received) > _MOST_BYTES:
                        raise NoAnswer(f"{url} answers without an end; is there another server at its address?")
        except requests.RequestException as error:
            raise NoAnswer(f"{url} could not be reached ({type(error).__name__}); check the network") from None
        seconds = time.monotonic() - started
        try:
            body = json.loads(received)
        except (ValueError, RecursionError):
            body = None
        return Answer(
            status=answer.status_code,
            headers=answer.headers,
            body=body,
            moment=begun + seconds / 2.0,
            seconds=seconds,
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


# --- the forms of fields -------------------------------------------------------------------------------------------


def is_text(value: Any) -> bool:
    """Any text but an empty one."""
    return isinstance(value, str) and bool(value)


def is_flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_number(value: Any) -> bool:
    """A number, and no text of one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_number_text(value: Any) -> bool:
    """Text of a number, as Alpaca writes money and quantities."""
    return isinstance(value, str) and _reads(float, value)


def is_id(value: Any) -> bool:
    """A UUID."""
    return isinstance(value, str) and _reads(uuid.UUID, value)


def is_moment(value: Any) -> bool:
    """An RFC 3339 moment with its offset from UTC."""
    return isinstance(value, str) and _reads(moment, value)


def is_day(value: Any) -> bool:
    """A date such as 2024-01-31."""
    return isinstance(value, str) and _reads(date.fromisoformat, value)


def is_naive_time(value: Any) -> bool:
    """A time of day such as 09:30, without a zone."""
    return isinstance(value, str) and len(value) == 5 and _reads(lambda text: datetime.strptime(text, "%H:%M"), value)


def moment(text: str) -> datetime:
    """An RFC 3339 moment; finer than microseconds is cut off.

    Raises:
        ValueError: it is none, or has no offset from UTC.
    """
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(text)
    return value


def _reads(read: Callable[[str], Any], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


Form = Callable[[Any], bool]


def check_fields(row: Any, forms: Mapping[str, Form]) -> None:
    """Check that an object has these fields, in these forms.

    Raises:
        Differs: names each field that is missing or has another form.
    """
    if not isinstance(row, dict):
        raise Differs(f"found a {type(row).__name__}, and no object")
    missing = [name for name in forms if name not in row]
    other = [f"{name} is {row[name]!r}" for name, form in forms.items() if name in row and not form(row[name])]
    wrong = ([f"{', '.join(missing)} missing"] if missing else []) + other
    if wrong:
        raise Differs("; ".join(wrong))
