"""Where orders leave the house: through alpaca-py to Alpaca, and nowhere else.

An order is never sent twice. Its client order id is made from run, decision bar, symbol and number, and stands in the
journal before the order goes out; when no answer comes, the order is looked up by that id.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderClass, OrderSide, TimeInForce
from alpaca.trading.requests import (
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
from engine.trading.orders import BUY, Order

# Events after which nothing more comes for an order.
ENDED = frozenset({"fill", "canceled", "expired", "rejected", "replaced", "done_for_day"})

_EVENTS = {
    "filled": "fill",
    "canceled": "canceled",
    "expired": "expired",
    "rejected": "rejected",
    "done_for_day": "done_for_day",
}
_TRIES = 3
_WITHDRAWAL_SECONDS = 10.0
_NOT_FOUND, _UNAUTHORIZED, _TOO_MANY = 404, 401, 429
_DUPLICATE = 40010001


class Receipt(NamedTuple):
    """The broker's ids of an order and of its legs, in the order in which they were given."""

    id: str
    legs: tuple[str, ...]


class TurnedDown(Exception):
    """The broker does not take this order; the message is its own."""


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
        client._retry_codes = [_TOO_MANY]
        self._client = client
        self._inbox = inbox

    def take_updates(self) -> list[UpdateMessage]:
        """The trade updates that came since the last call."""
        return self._inbox.take_updates()

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        """Send an order; when no answer comes, find out by its client order id before it is sent again.

        Raises:
            TurnedDown: the broker does not take it.
            BrokerError: the broker could not be reached, or refuses the keys.
        """
        request = _request(order, legs, client_id)
        for _ in range(_TRIES):
            answer = self._tried(lambda: self._client.submit_order(request))
            if answer is None:
                answer = self._tried(lambda: self._found(client_id))
            if answer is not None:
                return _receipt(answer, legs)
        raise BrokerError(
            f"the broker did not answer to order {client_id} and does not know it after {_TRIES} tries; trading stops "
            "here: look at the account before you start again"
        )

    def _tried(self, call: Callable[[], Any]) -> Any:
        """The answer, or None where there was none that tells whether the order took effect."""
        try:
            return call()
        except requests.RequestException:
            return None
        except APIError as error:
            status, message, code = explained(error)
            if status == _UNAUTHORIZED:
                raise BrokerError(f"the broker refuses the keys ({message}); check them") from error
            if status in (_NOT_FOUND, _TOO_MANY) or status >= 500 or code == _DUPLICATE:
                return None
            raise TurnedDown(message) from error

    def _found(self, client_id: str) -> Any:
        return self._client.get_order_by_client_id(client_id)

    def catch_up(self, remote_ids: Sequence[str]) -> int:
        """Ask for orders whose updates may have been missed, and put what became of them into the inbox.

        The number of orders that have moved on; booking them twice is not possible, since quantities are cumulative.
        """
        moved = 0
        for remote_id in remote_ids:
            order: Any = self._tried(lambda remote_id=remote_id: self._client.get_order_by_id(remote_id))  # type: ignore[misc]
            if order is None:
                continue
            event = _EVENTS.get(str(order["status"]))
            filled = float(order.get("filled_qty") or 0.0)
            if event is None and filled > 0.0:
                event = "partial_fill"
            if event is not None:
                moved += 1
                self._inbox.put_update(
                    {
                        "event": event,
                        "qty": order.get("filled_qty"),
                        "price": order.get("filled_avg_price"),
                        "timestamp": order.get("updated_at"),
                        "order": order,
                    }
                )
        return moved

    def withdraw(self, remote_id: str) -> None:
        """Cancel an order and wait for its last update, since what follows may need what it holds.

        Raises:
            BrokerError: the broker could not be reached, or does not say how the order ended.
        """
        try:
            self._client.cancel_order_by_id(remote_id)
        except requests.RequestException as error:
            raise BrokerError(f"order {remote_id} could not be cancelled: {type(error).__name__}") from error
        except APIError as error:
            status, message, _ = explained(error)
            if status not in (_NOT_FOUND, 422):  # it has ended by itself: its update says how
                raise BrokerError(f"order {remote_id} could not be cancelled: {message}") from error
            return

        def ended() -> bool:
            return self._inbox.find_update(
                lambda fields: fields["event"] in ENDED and str(fields["order"]["id"]) == remote_id
            )

        if not self._inbox.wait(ended, _WITHDRAWAL_SECONDS) and not self._inbox.stopped:
            raise BrokerError(
                f"order {remote_id} was cancelled and the broker does not confirm it; look at the account"
            )


def explained(error: APIError) -> tuple[int, str, int]:
    """Status, message and code of the SDK's error, whose own properties fail on some bodies."""
    status = error.status_code or 0
    try:
        body = json.loads(str(error))
    except ValueError:
        return status, str(error)[:200] or f"status {status}", 0
    if not isinstance(body, dict):
        return status, f"status {status}", 0
    code = body.get("code")
    return status, str(body.get("message", f"status {status}")), code if isinstance(code, int) else 0


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


def _receipt(answer: Any, legs: Sequence[Order]) -> Receipt:
    found = {("limit" if leg["type"] == "limit" else "stop"): str(leg["id"]) for leg in answer.get("legs") or []}
    missing = [leg for leg in legs if ("limit" if leg.type == "limit" else "stop") not in found]
    if missing:
        raise BrokerError(
            f"the broker took order {answer['id']} without its {missing[0].type} leg; look at the account"
        )
    return Receipt(str(answer["id"]), tuple(found["limit" if leg.type == "limit" else "stop"] for leg in legs))
