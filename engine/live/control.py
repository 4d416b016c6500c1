"""The embedded exchange's own calls: advance its clock, and ask where it stands. Alpaca has nothing of the kind."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from engine.credentials import Credentials
from engine.errors import BrokerError

_TIMEOUT_SECONDS = 10.0
_RESTART_SECONDS, _AGAIN_SECONDS = 15.0, 0.05


class Advance(NamedTuple):
    """Where the exchange stands after a step.

    Attributes:
        time: end of the step's bars, UTC ns; None when there are no more.
        start: with which it stamps them, UTC ns.
        moved: whether it moved just now; it did before, where the answer to that was lost.
        shown: how many bars it has pushed to this account in this step.
        told: execution ids of the trade updates that it has pushed to this account since the step before.
        hears_trades, hears_bars: whether this account was connected to hear them.
    """

    time: int | None
    start: int
    moved: bool
    shown: int
    told: frozenset[str]
    hears_trades: bool
    hears_bars: bool


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
        # One that has answered once is waited for when it does not.
        self._patience = 0.0

    def advance(self, after: int) -> Advance:
        """Move the exchange on by one step: it matches, pushes updates, pushes bars, and answers.

        Args:
            after: its time, UTC ns, as it was last known; where it has gone on since then, it does not move, but
                answers for the step that it has taken: asking twice moves nothing twice.

        Raises:
            BrokerError: it cannot be reached for a while, is not in lock-step, or stands before ``after``.
        """
        answer = self._call(
            "POST",
            f"/nextbar/advance?after={after}",
            ("time", "start", "moved", "shown", "told", "hears_trades", "hears_bars"),
        )
        return Advance(
            time=answer["time"],
            start=answer["start"] or 0,
            moved=answer["moved"],
            shown=answer["shown"],
            told=frozenset(answer["told"]),
            hears_trades=answer["hears_trades"],
            hears_bars=answer["hears_bars"],
        )

    def status(self, *, patient: bool = True) -> dict[str, Any]:
        """Mode, speed and time of the exchange; a BrokerError where there is none of ours.

        ``patient``: wait a while for one that is started anew.
        """
        return self._call("GET", "/nextbar/status", ("mode", "time"), patient=patient)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, method: str, path: str, wanted: tuple[str, ...], *, patient: bool = True) -> dict[str, Any]:
        deadline = time.monotonic() + (self._patience if patient else 0.0)
        while True:
            try:
                self._connection.request(method, path, headers=self._headers)
                response = self._connection.getresponse()
                body = json.loads(response.read())
                self._patience = _RESTART_SECONDS
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                # Both calls may be made again: an exchange that is started anew is waited for.
                self._connection.close()
                if time.monotonic() >= deadline:
                    raise BrokerError(
                        f"the exchange at {self._connection.host}:{self._connection.port} does not answer "
                        f"({type(error).__name__}); is nextbar exchange running there?"
                    ) from error
                time.sleep(_AGAIN_SECONDS)
        told = body if isinstance(body, dict) else {}
        call = path.partition("?")[0]
        if response.status != 200:
            raise BrokerError(f"the exchange refused {call}: {told.get('message', response.status)}")
        missing = [name for name in wanted if name not in told]
        if missing:
            raise BrokerError(
                f"the exchange at {self._connection.host}:{self._connection.port} answered {call} without "
                f"{', '.join(missing)}; is another server running there?"
            )
        return told
