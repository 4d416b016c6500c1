"""An account by REST alone: look, cancel, close. No stream, no strategy, and each request comes to an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import GetOrderByIdRequest, GetOrdersRequest, MarketOrderRequest

from engine.credentials import Credentials
from engine.errors import BrokerError
from engine.live.rest import FORBIDDEN, NOT_FOUND, TOO_MANY, UNAUTHORIZED, Line, NoAnswer, answered, explained

Order = Mapping[str, Any]
"""Alpaca's own fields of an order."""

_MOST_ORDERS = 500
_MOST_PAGES = 200
_UNPROCESSABLE = 422
_DUPLICATE = 40010001
_NOTHING: Mapping[str, Any] = {}
_OVER = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})


class TurnedDown(Exception):
    """The broker does not take this order; the message is its own."""


@dataclass(frozen=True, kw_only=True)
class Persistence:
    """How long the broker is asked.

    Attributes:
        seconds: for the answer to one request.
        pauses: seconds before a request is made again that had no answer; there are no more tries than these and one.
        busy_pauses: the same, where there were too many requests in this minute.
    """

    seconds: float = 11.0
    pauses: Sequence[float] = (0.3, 1.0, 3.0)
    busy_pauses: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class AccountRest:
    """One account at the broker.

    Raises in all that asks:
        NoAnswer: the broker does not answer, though it was asked as often as ``Persistence`` says.
        BrokerError: it refuses the keys, or to answer.
    """

    def __init__(
        self,
        client: TradingClient,
        *,
        key: str = "",
        persistence: Persistence | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``client`` gives raw answers; ``key``: as it may be shown."""
        self._client = client
        self._key = key
        persistence = persistence or Persistence()
        self._pauses, self._busy_pauses = tuple(persistence.pauses), tuple(persistence.busy_pauses)
        self._sleep = sleep

    # --- looking ---------------------------------------------------------------------------------------------------

    def account(self) -> Mapping[str, Any]:
        """Alpaca's fields of the account."""
        found: Mapping[str, Any] = self._ask("the account", lambda: _mapping(self._client.get_account()))
        return found

    def is_open(self) -> tuple[bool, str]:
        """Whether the market is open, and when it opens next."""
        clock = self._ask("the clock", lambda: _mapping(self._client.get_clock()))
        return bool(clock.get("is_open")), str(clock.get("next_open", ""))

    def held(self) -> dict[str, float]:
        """Symbol -> signed quantity."""

        def positions() -> dict[str, float]:
            found: Any = self._client.get_all_positions()
            return {str(p["symbol"]): float(p["qty"]) for p in found}

        held: dict[str, float] = self._ask("positions", positions)
        return held

    def open_orders(self) -> list[Order]:
        """The orders that may still fill, the legs among them, each as often as the broker lists it."""
        found = []
        for nested in (True, False):  # a held leg is in the one list only, a leg of a filled entry maybe in the other
            request = GetOrdersRequest(status=QueryOrderStatus.OPEN, limit=_MOST_ORDERS, nested=nested)
            found += self._ask("open orders", partial(self._orders, request))
        return [order for order in _with_legs(found) if is_open(order)]

    def every_order(self) -> list[Order]:
        """All orders that the account ever had, legs among them; the newest first."""
        found: dict[str, Order] = {}
        until: datetime | None = None
        for _ in range(_MOST_PAGES):
            request = GetOrdersRequest(status=QueryOrderStatus.ALL, limit=_MOST_ORDERS, nested=True, until=until)
            page = self._ask("its orders", partial(self._orders, request))
            fresh = [order for order in page if str(order["id"]) not in found]
            found.update((str(order["id"]), order) for order in fresh)
            if not fresh or len(page) < _MOST_ORDERS:
                return _with_legs(list(found.values()))
            # Those of the same moment are on both pages.
            until = min(datetime.fromisoformat(str(o["submitted_at"])) for o in fresh) + timedelta(milliseconds=1)
        raise BrokerError(f"the broker lists more than {_MOST_PAGES * _MOST_ORDERS} orders; close the positions there")

    def _orders(self, request: GetOrdersRequest) -> list[Order]:
        found: Any = self._client.get_orders(request)
        return [_mapping(order) for order in found]

    def order(self, broker_id: str) -> Order | None:
        """An order with its legs; None where the broker knows none of this id."""
        nested = GetOrderByIdRequest(nested=True)
        return self._known(lambda: self._client.get_order_by_id(broker_id, nested))

    def by_client_id(self, client_id: str) -> Order | None:
        """An order by its sender's id; None where the broker knows none."""
        return self._known(lambda: self._client.get_order_by_client_id(client_id))

    def _known(self, call: Callable[[], Any]) -> Order | None:
        return self._ask("an order", lambda: _mapping(call()), missing=_NOTHING) or None

    # --- doing -----------------------------------------------------------------------------------------------------

    def cancel(self, broker_id: str) -> bool:
        """Ask for an order's end; False where it has ended by itself, or is ending."""

        def call() -> bool:
            try:
                self._client.cancel_order_by_id(broker_id)
            except APIError as error:
                if explained(error)[0] in (NOT_FOUND, _UNPROCESSABLE):
                    return False
                raise
            return True

        return bool(self._ask("the end of an order", call))

    def close(self, client_id: str, symbol: str, quantity: float) -> Order:
        """Close a position by a market order, once, whatever happens to the answer.

        Args:
            quantity: what is held and is to be closed, signed.

        Raises:
            TurnedDown: the broker does not take the order.
        """
        request = MarketOrderRequest(
            symbol=symbol,
            qty=abs(quantity),
            side=OrderSide.SELL if quantity > 0.0 else OrderSide.BUY,
            time_in_force=TimeInForce.DAY,
            client_order_id=client_id,
        )
        pauses, busy_pauses = [*self._pauses, 0.0], list(self._busy_pauses)
        while pauses:
            # Looked up first, each time: it may be there, though nobody has heard of it.
            found = self.by_client_id(client_id)
            if found is not None:
                return found
            try:
                made: Order = _mapping(self._client.submit_order(request))
                return made
            except (requests.RequestException, TypeError):
                self._sleep(pauses.pop(0))
            except APIError as error:
                status, message, code = explained(error)
                if status == UNAUTHORIZED:
                    raise self._refusal("an order", status, message) from error
                if status < 500 and status != TOO_MANY and code != _DUPLICATE:
                    raise TurnedDown(message) from error
                self._sleep((busy_pauses if status == TOO_MANY and busy_pauses else pauses).pop(0))
        found = self.by_client_id(client_id)
        if found is None:
            raise NoAnswer(f"the broker does not say whether it has taken order {client_id}")
        return found

    # --- asking ----------------------------------------------------------------------------------------------------

    def _ask(self, what: str, call: Callable[[], Any], *, missing: Any = None) -> Any:
        ask = partial(answered, what, call, refusal=self._refusal, rest=self._rests, missing=missing)
        for pause in self._pauses:
            try:
                return ask()
            except NoAnswer:
                self._sleep(pause)
        return ask()

    def _rests(self, tries: int) -> bool:
        """Wait before a question is asked again that came on top of too many; whether it is to be."""
        if tries > len(self._busy_pauses):
            return False
        self._sleep(self._busy_pauses[tries - 1])
        return True

    def _refusal(self, what: str, status: int, message: str) -> BrokerError:
        if status in (UNAUTHORIZED, FORBIDDEN):
            return BrokerError(
                f"the broker refuses the key {self._key} ({status}: {message}); check APCA_API_KEY_ID and "
                "APCA_API_SECRET_KEY, which must be those that the run trades with"
            )
        if status == TOO_MANY or status >= 500:
            return NoAnswer(f"the broker did not answer for {what} ({status}: {message})")
        return BrokerError(f"the broker refuses to answer for {what} ({status}: {message})")


@contextmanager
def account_rest(credentials: Credentials, persistence: Persistence) -> Iterator[AccountRest]:
    """The account of these keys; leaves no thread and no socket behind."""
    line = Line(seconds=persistence.seconds)
    client = line.carry(
        TradingClient(
            credentials.key, credentials.secret, paper=True, raw_data=True, url_override=credentials.trading_url
        )
    )
    try:
        yield AccountRest(client, key=credentials.masked, persistence=persistence)
    finally:
        line.close()
        client._session.close()


def is_open(order: Order) -> bool:
    """Whether an order may still fill."""
    return str(order["status"]) not in _OVER


def filled(order: Order) -> float:
    """How much of an order was filled so far, with the sign of its side."""
    return (1.0 if order["side"] == "buy" else -1.0) * float(order.get("filled_qty") or 0.0)


def _with_legs(orders: Sequence[Order]) -> list[Order]:
    """The orders and their legs, each once; a leg says in ``parent_client_id`` whose it is."""
    found: dict[str, Order] = {}
    for order in orders:
        found.setdefault(str(order["id"]), order)
        for leg in order.get("legs") or []:
            found[str(leg["id"])] = {**leg, "parent_client_id": order["client_order_id"]}
    return list(found.values())


def _mapping(answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise TypeError(f"expected an object, found {type(answer).__name__}")
    return answer
