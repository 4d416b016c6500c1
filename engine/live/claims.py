"""What of an account is a run's: its orders, and the quantities that its orders explain; read from its journal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import DataError
from engine.live.desk import ENDED
from engine.live.journal import Entry, Journal
from engine.trading.orders import BUY, SELL, SIDE_NAMES, OrderStatus

_SIDES = {SIDE_NAMES[side]: side for side in (BUY, SELL)}
_NEVER_SENT = (OrderStatus.REFUSED.value, OrderStatus.REJECTED.value)
# Client order ids hold at most 128 characters, and a run's name 80.
_MOST_OF_A_NAME = 60


@dataclass(kw_only=True)
class Claims:
    """What a run has on its account, as far as its journal knows.

    Attributes:
        run: how the client ids of its orders begin.
        symbols: that it trades.
        held: symbol -> signed quantity of the fills that are booked.
        waiting: the broker's id of an order whose end is not booked -> the quantity of it that is.
        booked: the broker's ids of orders that are booked to their end.
        unanswered: client ids of orders that the broker may have, although it has not said so.
        intended: client id -> a closing order that may have been sent, of an earlier kill that was cut off.
        last_bar: end of the last bar that it has seen, UTC ns; 0 before the first.
        known: whether the journal could be read; else the broker's list of orders must tell everything.
    """

    run: str
    symbols: set[str]
    held: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    booked: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)
    intended: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    last_bar: int = 0
    known: bool = True

    def is_ours(self, client_id: str) -> bool:
        """Whether a client order id is of this run: one that its strategy's orders have, or one of a kill."""
        return self.is_closing(client_id) or bool(
            re.match(rf"{re.escape(self.run)}-\d{{8}}T\d{{6}}-.+-\d+$", client_id)
        )

    def is_closing(self, client_id: str) -> bool:
        """Whether it is the client id of an order by which a kill closes a position of this run."""
        return client_id.startswith(f"{self.run}-kill-")

    def closing_id(self, symbol: str, number: int) -> str:
        """The client id of a closing order of a symbol; the numbers begin with 1."""
        return f"{self.run}-kill-{symbol}-{number}"


def short_name(run: str) -> str:
    """A run's name as the client ids of its orders begin with it."""
    return run.replace("Z-", "-", 1)[:_MOST_OF_A_NAME]


def unknown_claims(run: str, symbols: set[str]) -> Claims:
    """The claims of a run whose journal cannot be read."""
    return Claims(run=short_name(run), symbols=symbols, known=False)


def read_claims(journal: Journal, *, run: str, symbols: set[str]) -> Claims:
    """The claims of a run, from its journal.

    Args:
        run: its name, where the journal does not say.
        symbols: that its manifest names.

    Raises:
        DataError: the journal is damaged.
    """
    claims = Claims(run=short_name(str(journal.about.get("run") or run)), symbols=set(symbols))
    reader = _Reader(claims)
    for entry in journal.entries():
        try:
            reader.take(entry)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{journal.path}: entry {entry.number} ({entry.kind}) is damaged: {error!r}") from error
    claims.unanswered = set(reader.unanswered.values())
    return claims


class _Reader:
    """Follows the orders of a journal to where they are at its end."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self.unanswered: dict[int, str] = {}
        self._deferred = False

    def take(self, entry: Entry) -> None:
        """Take the next entry."""
        claims, body = self._claims, entry.body
        match entry.kind:
            case "history":
                claims.symbols.add(str(body["symbol"]))
            case "bars":
                claims.last_bar = int(body["time"])
            case "intent":
                if body["parent"] is None and body["status"] not in _NEVER_SENT:
                    self.unanswered[body["order"]] = body["client_id"]
            case "ack":
                self.unanswered.pop(body["order"], None)
                for broker_id in (body["broker_id"], *body["legs"]):
                    claims.waiting.setdefault(broker_id, 0.0)
            case "turned_down":
                self.unanswered.pop(body["order"], None)
            case "deferred":
                self._deferred = True
            case "ended":
                # It ended before it was sent; unless something could not be sent, and it is not known what.
                if not self._deferred:
                    self.unanswered.pop(body["order"], None)
            case "update":
                self._follow(body)
            case "fill":
                quantity = _SIDES[body["side"]] * float(body["quantity"])
                claims.held[body["symbol"]] = claims.held.get(body["symbol"], 0.0) + quantity
            case "kill_intent":
                claims.intended[body["client_id"]] = body
            case "killed":
                for closing in body["closings"]:
                    claims.intended.pop(closing.get("client_id"), None)
                    claims.waiting.setdefault(closing["broker_id"], 0.0)

    def _follow(self, body: Mapping[str, Any]) -> None:
        """A trade update; those of orders that the run did not know as its own are not booked."""
        waiting, broker_id = self._claims.waiting, body["broker_id"]
        if body["order"] is None or broker_id not in waiting:
            return
        waiting[broker_id] = float(body["filled_quantity"] or 0.0)
        if body["event"] in ENDED:
            del waiting[broker_id]
            self._claims.booked.add(broker_id)
        if body["event"] == "replaced" and body.get("replaced_by"):
            waiting[body["replaced_by"]] = 0.0
