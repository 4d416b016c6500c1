"""Where orders leave the house: through alpaca-py to Alpaca, and nowhere else.

An order is never sent twice. Its client order id is made from run, decision bar, symbol and number, and stands in the
journal before the order goes out; when no answer comes, the order is looked up by that id.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderClass, OrderSide, TimeInForce
from alpaca.trading.requests import (
    GetOrderByIdRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    OrderRequest,
    StopLimitOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
)

from engine.errors import BrokerError
from engine.live.inbox import Inbox, UpdateMessage
from engine.live.rest import NOT_FOUND, TOO_MANY, UNAUTHORIZED, NoAnswer, explained
from engine.trading.orders import BUY, Order

# Events after which nothing more comes for an order.
ENDED = frozenset({"fill", "canceled", "expired", "rejected", "replaced"})

# Why an order is given up that would open a position too late.
LATE = "it had not reached the broker when its bar was over"

_EVENTS = {
    "filled": "fill",
    "canceled": "canceled",
    "expired": "expired",
    "rejected": "rejected",
    "replaced": "replaced",
}
# Seconds to wait before an order is tried again: where nobody knows whether it was taken, and where it was not, for
# there were too many requests in this minute.
_AGAIN = (0.2, 1.0, 3.0)
_SOON_ENOUGH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# How long the end of a cancelled order is waited for before it is asked for, each time.
_WITHDRAWAL_SECONDS = (0.5, 1.0, 2.0, 4.0)
_DUPLICATE, _CLIENT_ID = 40010001, "client_order_id"
_TOO_MANY = object()


class Receipt(NamedTuple):
    """The broker's ids of an order and of its legs, in the order in which they were given."""

    id: str
    legs: tuple[str, ...]


class TurnedDown(Exception):
    """The broker does not take this order; the message is its own."""


class CutOff(NoAnswer):
    """The run was cut off before it was known what became of this and of all that followed it."""


class OnHold(NoAnswer):
    """Nothing goes out for now."""


class Again(NoAnswer):
    """There was no answer the first time, and there is none now that it is gone through once more.

    Attributes:
        cut_off: whether it was a ``CutOff``. ahead: whether exits of other symbols went ahead.
    """

    def __init__(self, message: str, *, cut_off: bool, ahead: bool) -> None:
        super().__init__(message)
        self.cut_off, self.ahead = cut_off, ahead


class _Silence(Exception):
    """Nothing that tells whether a request took effect."""


class _Taken(_Silence):
    """By its code the order's id is taken; a code that other things have, too. The message is the broker's own."""


class _NotThere(Exception):
    """The broker knows no such order."""


class Desk(Protocol):
    """What our picture of the account needs of the broker behind it."""

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        """Send an order with its legs; a ``TurnedDown`` when the broker does not take it.

        A ``NoAnswer`` when the broker does not say whether it has: it may be there, and is to be looked for.
        """

    def find(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt | None:
        """An order that may be there; None where it is not, and a ``NoAnswer`` when the broker says nothing."""

    def withdraw(self, remote_id: str) -> None:
        """Ask for the end of an order, and wait until it is known how it ended; a ``NoAnswer`` where it is not."""

    def take_updates(self) -> list[UpdateMessage]:
        """The trade updates that came since the last call."""

    def catch_up(self, remote_ids: Iterable[str]) -> int:
        """Ask for orders whose updates may have been missed; a ``NoAnswer`` where the broker says nothing."""


class AlpacaDesk:
    """Orders through the SDK's trading client.

    Attributes:
        held: why nothing goes out for now, or empty.
    """

    def __init__(self, client: TradingClient, inbox: Inbox) -> None:
        # A 504 says nothing about whether the order took effect: the SDK must not repeat it by itself.
        client._retry_codes = []
        self._client = client
        self._inbox = inbox
        self._told: dict[str, tuple[str, float]] = {}
        self.held = ""

    def take_updates(self) -> list[UpdateMessage]:
        """The trade updates that came since the last call, by the times at which they happened."""
        messages = self._inbox.take_updates()
        return sorted(messages, key=_moment) if len(messages) > 1 else messages

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        """Send an order; where no answer comes, it is looked for by its client order id before it is sent again.

        Raises:
            TurnedDown: the broker does not take it.
            NoAnswer: nothing goes out for now, or the broker does not say whether it has the order.
            BrokerError: it refuses the keys, or took the order without its legs.
        """
        if self.held:
            raise OnHold(self.held)
        request = _request(order, legs, client_id)
        doubtful = False
        for pause in _AGAIN:
            try:
                found = self._looked_up(legs, client_id) if doubtful else None
                if found is not None:
                    return found
                doubtful = True
                return self._receipt(self._patiently(lambda: self._client.submit_order(request)), legs)
            except (_Silence, _NotThere) as error:
                if isinstance(error, _Taken) and _CLIENT_ID not in str(error) and self._is_unknown(legs, client_id):
                    raise TurnedDown(str(error)) from error
                self._inbox.wait(lambda: False, pause)
                if self._inbox.stopped:
                    break
        raise NoAnswer(f"the broker does not say whether it has taken order {client_id}")

    def find(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt | None:
        """An order that may be there, by its client order id; None where the broker knows of none.

        Raises:
            NoAnswer: the broker does not say whether it has the order.
            BrokerError: it refuses the keys, or took the order without its legs.
        """
        try:
            return self._looked_up(legs, client_id)
        except _Silence as error:
            raise NoAnswer(f"the broker does not say whether it has taken order {client_id}") from error

    def _is_unknown(self, legs: Sequence[Order], client_id: str) -> bool:
        try:
            return self._looked_up(legs, client_id) is None
        except _Silence:
            return False

    def _looked_up(self, legs: Sequence[Order], client_id: str) -> Receipt | None:
        try:
            return self._receipt(self._patiently(lambda: self._client.get_order_by_client_id(client_id)), legs)
        except _NotThere:
            return None
        except TurnedDown as error:
            raise _Silence from error

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """As ``_tried``, again after a while where there were too many requests."""
        for pause in (*_SOON_ENOUGH, 0.0):
            answer = self._tried(call)
            if answer is not _TOO_MANY:
                return answer
            self._inbox.wait(lambda: False, pause)
            if self._inbox.stopped:
                break
        raise _Silence

    def _tried(self, call: Callable[[], Any]) -> Any:
        """The answer, or ``_TOO_MANY`` where there were too many requests, and this one did nothing."""
        try:
            return call()
        except requests.RequestException as error:
            raise _Silence from error
        except APIError as error:
            status, message, code = explained(error)
            if status == UNAUTHORIZED:
                raise BrokerError(f"the broker refuses the keys ({message}); check them") from error
            if status == TOO_MANY:
                return _TOO_MANY
            if status == NOT_FOUND:
                raise _NotThere from error
            if status >= 500:
                raise _Silence from error
            if code == _DUPLICATE:
                raise _Taken(message) from error
            raise TurnedDown(message) from error

    def _receipt(self, answer: Any, legs: Sequence[Order]) -> Receipt:
        try:
            own = str(answer["id"])
            if legs and not answer.get("legs"):
                # Looked up by its own id it comes without them, unless they are asked for.
                whole = GetOrderByIdRequest(nested=True)
                answer = self._patiently(lambda: self._client.get_order_by_id(own, whole))
            found = {
                ("limit" if leg["type"] == "limit" else "stop"): str(leg["id"]) for leg in answer.get("legs") or []
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise _Silence from error
        wanted = ["limit" if leg.type == "limit" else "stop" for leg in legs]
        for kind in wanted:
            if kind not in found:
                raise BrokerError(f"the broker took order {own} without its {kind} leg; look at the account")
        return Receipt(own, tuple(found[kind] for kind in wanted))

    def catch_up(self, remote_ids: Iterable[str]) -> int:
        """Ask for orders whose updates may have been missed, and put what became of them into the inbox.

        The number of orders that have moved on; booking them twice is not possible, since quantities are cumulative.

        Raises:
            NoAnswer: the broker does not answer for one of them; what it said of those before it is in the inbox.
            BrokerError: it refuses the keys.
        """
        asked = list(remote_ids)
        moved = []
        try:
            for remote_id in asked:
                found = self._asked_after(remote_id)
                if found is not None and self._told.get(remote_id) != found[:2]:
                    self._told[remote_id] = found[:2]
                    moved.append(found[2])
        except _Silence as error:
            raise NoAnswer("the broker does not answer for an order whose end is not known") from error
        finally:
            for fields in sorted(moved, key=lambda fields: _nanoseconds(fields["timestamp"])):
                self._inbox.put_update(fields)
        self._told = {remote_id: self._told[remote_id] for remote_id in asked if remote_id in self._told}
        return len(moved)

    def _asked_after(self, remote_id: str) -> tuple[str, float, dict[str, Any]] | None:
        """What became of an order: event, cumulative quantity, and both as a trade update; None: nothing yet."""
        try:
            order: Any = self._tried(lambda: self._client.get_order_by_id(remote_id))
        except (_NotThere, TurnedDown):
            return None
        if order is _TOO_MANY:
            raise _Silence
        try:
            filled = float(order.get("filled_qty") or 0.0)
            event = _EVENTS.get(str(order["status"])) or ("partial_fill" if filled > 0.0 else "")
            told = {
                "event": event,
                "qty": order.get("filled_qty"),
                "price": order.get("filled_avg_price"),
                "timestamp": order.get("updated_at"),
                "reference_price": order.get("reference_price"),
                "order": order,
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _Silence from error
        return (event, filled, told) if event and is_update(told) else None

    def withdraw(self, remote_id: str) -> None:
        """Cancel an order and wait for its last update, since what follows may need what it holds.

        Where the update does not come, the order is asked for.

        Raises:
            NoAnswer: the broker does not say how the order ended.
            BrokerError: it refuses the keys.
        """
        if self.held:
            raise OnHold(self.held)
        taken = False
        for patience in _WITHDRAWAL_SECONDS:
            try:
                if not taken:
                    self._patiently(lambda: self._client.cancel_order_by_id(remote_id))
                taken = True
            except (_NotThere, TurnedDown):
                taken = True  # it has ended by itself, and its update says how
            except _Silence:
                pass
            if self._inbox.wait(lambda: self._has_ended(remote_id), patience, through_stop=True):
                return
            with contextlib.suppress(NoAnswer):
                self.catch_up([remote_id])
            if self._inbox.wait(lambda: self._has_ended(remote_id), 0.0):
                return
            if self._inbox.stopped:
                break
        raise NoAnswer(f"the broker does not say how order {remote_id} ended, which was to be cancelled")

    def _has_ended(self, remote_id: str) -> bool:
        return self._inbox.find_update(
            lambda fields: fields["event"] in ENDED and str(fields["order"]["id"]) == remote_id
        )


def is_update(data: Mapping[str, Any]) -> bool:
    """Whether a trade update says of which order it tells what; what it leaves out, the order is asked for."""
    order = data.get("order")
    if not isinstance(order, dict) or not order.get("id") or not isinstance(data.get("event"), str):
        return False
    told = (data.get("qty"), data.get("price"), order.get("filled_qty"), order.get("filled_avg_price"))
    try:
        return all(math.isfinite(float(number)) for number in told if number is not None)
    except (TypeError, ValueError):
        return False


def _moment(message: UpdateMessage) -> int:
    return _nanoseconds(message.fields.get("timestamp"))


def _nanoseconds(stamp: Any) -> int:
    """UTC ns of a time in ISO 8601, to the last of its digits; 0 for what is none."""
    try:
        whole, _, rest = str(stamp).partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        moment = datetime.fromisoformat(whole + rest[len(digits) :])
    except ValueError:
        return 0
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(zoned.timestamp()) * 1_000_000_000 + int(digits[:9].ljust(9, "0"))


def _request(order: Order, legs: Sequence[Order], client_id: str) -> OrderRequest:
    common: dict[str, Any] = {
        "symbol": order.symbol,
        "qty": order.quantity,
        "side": OrderSide.BUY if order.side == BUY else OrderSide.SELL,
        "time_in_force": TimeInForce.DAY if order.time_in_force == "day" else TimeInForce.GTC,
        "client_order_id": client_id,
    }
    for leg in legs:
        if leg.type == "limit":
            common["take_profit"] = TakeProfitRequest(limit_price=leg.limit_price)
        else:
            limit = None if math.isnan(leg.limit_price) else leg.limit_price
            common["stop_loss"] = StopLossRequest(stop_price=leg.stop_price, limit_price=limit)
    if legs:
        common["order_class"] = OrderClass.BRACKET if len(legs) > 1 else OrderClass.OTO
    if order.type == "market":
        return MarketOrderRequest(**common)
    if order.type == "limit":
        return LimitOrderRequest(**common, limit_price=order.limit_price)
    if order.type == "stop":
        return StopOrderRequest(**common, stop_price=order.stop_price)
    return StopLimitOrderRequest(**common, limit_price=order.limit_price, stop_price=order.stop_price)
