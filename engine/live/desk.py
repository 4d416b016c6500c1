"""Where orders leave the house: through alpaca-py to Alpaca, and nowhere else.

An order is never sent twice. Its client order id is made from run, decision bar, symbol and number, and stands in the
journal before the order goes out; when no answer comes, the order is looked up by that id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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
from engine.live.rest import NOT_FOUND, TOO_MANY, UNAUTHORIZED, explained
from engine.trading.orders import BUY, Order

# Events after which nothing more comes for an order.
ENDED = frozenset({"fill", "canceled", "expired", "rejected", "replaced"})

_EVENTS = {
    "filled": "fill",
    "canceled": "canceled",
    "expired": "expired",
    "rejected": "rejected",
    "replaced": "replaced",
}
# Seconds to wait before an order is tried again: where nobody knows whether it was taken, and where it was not, for
# there were too many requests in this minute.
_AGAIN = (0.5, 2.0, 5.0)
_SOON_ENOUGH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_WITHDRAWAL_SECONDS, _GONE_SECONDS = 10.0, 1.0
_DUPLICATE = 40010001


class Receipt(NamedTuple):
    """The broker's ids of an order and of its legs, in the order in which they were given."""

    id: str
    legs: tuple[str, ...]


class TurnedDown(Exception):
    """The broker does not take this order; the message is its own."""


class _TooMany(Exception):
    """There were too many requests; this one did nothing."""


class Desk(Protocol):
    """What our picture of the account needs of the broker behind it."""

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        """Send an order with its legs; a ``TurnedDown`` when the broker does not take it."""

    def withdraw(self, remote_id: str) -> None:
        """Ask for the end of an order, and wait until it is known how it ended."""

    def take_updates(self) -> list[UpdateMessage]:
        """The trade updates that came since the last call."""


class AlpacaDesk:
    """Orders through the SDK's trading client."""

    def __init__(self, client: TradingClient, inbox: Inbox) -> None:
        # A 504 says nothing about whether the order took effect: the SDK must not repeat it by itself.
        client._retry_codes = []
        self._client = client
        self._inbox = inbox
        self._told: dict[str, tuple[str, float]] = {}

    def take_updates(self) -> list[UpdateMessage]:
        """The trade updates that came since the last call."""
        return self._inbox.take_updates()

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        """Send an order; when no answer comes, find out by its client order id before it is sent again.

        Raises:
            TurnedDown: the broker does not take it.
            BrokerError: the broker could not be reached, refuses the keys, or did not answer before a stop.
        """
        request = _request(order, legs, client_id)
        for pause in (*_AGAIN, 0.0):
            answer = self._patiently(lambda: self._client.submit_order(request))
            if answer is None and not self._inbox.stopped:
                answer = self._patiently(lambda: self._client.get_order_by_client_id(client_id))
            if answer is not None:
                return self._receipt(answer, legs)
            self._inbox.wait(lambda: False, pause)
            if self._inbox.stopped:
                raise BrokerError(
                    f"the run was stopped before the broker answered to order {client_id}, which it may have taken; "
                    "look at the account before you start again"
                )
        raise BrokerError(
            f"the broker did not answer to order {client_id} and does not know it after {len(_AGAIN) + 1} tries; "
            "trading stops here: look at the account before you start again"
        )

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """As ``_tried``, again after a while where there were too many requests."""
        for pause in (*_SOON_ENOUGH, 0.0):
            try:
                return self._tried(call)
            except _TooMany:
                self._inbox.wait(lambda: False, pause)
                if self._inbox.stopped:
                    break
        return None

    def _tried(self, call: Callable[[], Any]) -> Any:
        """The answer, or None where there was none that tells whether the order took effect."""
        try:
            return call()
        except requests.RequestException:
            return None
        except APIError as error:
            status, message, code = explained(error)
            if status == UNAUTHORIZED:
                raise BrokerError(f"the broker refuses the keys ({message}); check them") from error
            if status == TOO_MANY:
                raise _TooMany from error
            if status == NOT_FOUND or status >= 500 or code == _DUPLICATE:
                return None
            raise TurnedDown(message) from error

    def _receipt(self, answer: Any, legs: Sequence[Order]) -> Receipt:
        if legs and not answer.get("legs"):
            # Looked up by its own id it comes without them, unless they are asked for.
            whole = GetOrderByIdRequest(nested=True)
            answer = self._patiently(lambda: self._client.get_order_by_id(str(answer["id"]), whole)) or answer
        found = {("limit" if leg["type"] == "limit" else "stop"): str(leg["id"]) for leg in answer.get("legs") or []}
        wanted = ["limit" if leg.type == "limit" else "stop" for leg in legs]
        for kind in wanted:
            if kind not in found:
                raise BrokerError(f"the broker took order {answer['id']} without its {kind} leg; look at the account")
        return Receipt(str(answer["id"]), tuple(found[kind] for kind in wanted))

    def catch_up(self, remote_ids: Iterable[str]) -> int:
        """Ask for orders whose updates may have been missed, and put what became of them into the inbox.

        The number of orders that have moved on; booking them twice is not possible, since quantities are cumulative.
        It gives up at the first question that is not answered: there will be another time.
        """
        moved = 0
        asked = list(remote_ids)
        for remote_id in asked:
            try:
                order: Any = self._client.get_order_by_id(remote_id)
            except requests.RequestException:
                break
            except APIError as error:
                status, message, _ = explained(error)
                if status == UNAUTHORIZED:
                    raise BrokerError(f"the broker refuses the keys ({message}); check them") from error
                if status == TOO_MANY or status >= 500:
                    break
                continue
            filled = float(order.get("filled_qty") or 0.0)
            event = _EVENTS.get(str(order["status"])) or ("partial_fill" if filled > 0.0 else "")
            if not event or self._told.get(remote_id) == (event, filled):
                continue
            self._told[remote_id] = (event, filled)
            moved += 1
            self._inbox.put_update(
                {
                    "event": event,
                    "qty": order.get("filled_qty"),
                    "price": order.get("filled_avg_price"),
                    "timestamp": order.get("updated_at"),
                    "order": order,
                },
                pushed=False,
            )
        self._told = {remote_id: self._told[remote_id] for remote_id in asked if remote_id in self._told}
        return moved

    def withdraw(self, remote_id: str) -> None:
        """Cancel an order and wait for its last update, since what follows may need what it holds.

        Where the update does not come, the order is asked for.

        Raises:
            BrokerError: the broker could not be reached, or does not say how the order ended.
        """
        patience = _WITHDRAWAL_SECONDS
        for pause in (*_AGAIN, 0.0):
            try:
                self._client.cancel_order_by_id(remote_id)
                break
            except requests.RequestException:
                pass
            except APIError as error:
                status, message, _ = explained(error)
                if status == UNAUTHORIZED:
                    raise BrokerError(f"the broker refuses the keys ({message}); check them") from error
                if status != TOO_MANY and status < 500:
                    patience = _GONE_SECONDS  # it has ended by itself, and its update says how
                    break
            if self._inbox.wait(lambda: self._has_ended(remote_id), pause):
                break
        if self._inbox.wait(lambda: self._has_ended(remote_id), patience) or self._inbox.stopped:
            return
        self.catch_up([remote_id])
        if patience == _WITHDRAWAL_SECONDS and not self._inbox.wait(lambda: self._has_ended(remote_id), 0.0):
            raise BrokerError(
                f"order {remote_id} was cancelled and the broker does not confirm it; look at the account"
            )

    def _has_ended(self, remote_id: str) -> bool:
        return self._inbox.find_update(
            lambda fields: fields["event"] in ENDED and str(fields["order"]["id"]) == remote_id
        )


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
