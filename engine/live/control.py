"""The embedded exchange's own calls: advance its clock, and ask where it stands. Alpaca has nothing of the kind."""

from __future__ import annotations

import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from engine.credentials import Credentials
from engine.errors import BrokerError

_TIMEOUT_SECONDS = 10.0


class Advance(NamedTuple):
    """Where the exchange stands after a step.

    Attributes:
        time: end of the step's bars, UTC ns; None when there are no more.
        bars, updates: messages it has pushed to this account so far.
    """

    time: int | None
    bars: int
    updates: int


class Control:
    """One kept connection for the calls that move a lock-step exchange."""

    def __init__(self, credentials: Credentials) -> None:
        place = urlsplit(credentials.trading_url or "")
        self._connection = http.client.HTTPConnection(
            place.hostname or "127.0.0.1", place.port or 80, timeout=_TIMEOUT_SECONDS
        )
        self._headers = {
            "APCA-API-KEY-ID": credentials.key,
            "APCA-API-SECRET-KEY": credentials.secret,
            "Content-Length": "0",
        }

    def advance(self) -> Advance:
        """Move the exchange on by one step: it matches, pushes updates, pushes bars, and answers.

        Raises:
            BrokerError: it cannot be reached, or is not in lock-step.
        """
        answer = self._call("POST", "/nextbar/advance", ("time", "bars", "trade_updates"))
        return Advance(answer["time"], answer["bars"], answer["trade_updates"])

    def status(self) -> dict[str, Any]:
        """Mode, speed and time of the exchange; a BrokerError where there is none of ours."""
        return self._call("GET", "/nextbar/status", ("mode", "time"))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, method: str, path: str, wanted: tuple[str, ...]) -> dict[str, Any]:
        try:
            self._connection.request(method, path, headers=self._headers)
            response = self._connection.getresponse()
            body = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise BrokerError(
                f"the exchange at {self._connection.host}:{self._connection.port} does not answer "
                f"({type(error).__name__}); is nextbar exchange running there?"
            ) from error
        told = body if isinstance(body, dict) else {}
        if response.status != 200:
            raise BrokerError(f"the exchange refused {path}: {told.get('message', response.status)}")
        missing = [name for name in wanted if name not in told]
        if missing:
            raise BrokerError(
                f"the exchange at {self._connection.host}:{self._connection.port} answered {path} without "
                f"{', '.join(missing)}; is another server running there?"
            )
        return told
