"""An account by REST: pages, too many requests, and orders whose answer is lost; the broker is a table in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient

from engine.errors import BrokerError
from engine.live.account_rest import AccountRest, Persistence, TurnedDown
from engine.live.rest import NoAnswer


def refusal(status: int, code: int = 0, message: str = "no") -> APIError:
    answer = requests.Response()
    answer.status_code = status
    error = requests.HTTPError(response=answer)
    return APIError(json.dumps({"code": code, "message": message}), error)


class Table:
    """Orders by their sender's ids; each call to ``submit_order`` and ``get_account`` first does what a test wants."""

    def __init__(self, *disturbances: Callable[[], None]) -> None:
        self.orders: dict[str, dict[str, Any]] = {}
        self.disturbances = list(disturbances)
        self.submitted = 0
        self.pages = 0

    def _disturb(self) -> None:
        if self.disturbances:
            self.disturbances.pop(0)()

    def get_account(self) -> Any:
        self._disturb()
        return {"cash": "1"}

    def get_order_by_client_id(self, client_id: str) -> Any:
        if client_id not in self.orders:
            raise refusal(404)
        return self.orders[client_id]

    def submit_order(self, request: Any) -> Any:
        self.submitted += 1
        if request.client_order_id in self.orders:
            raise refusal(422, 40010001)
        made = {"id": str(len(self.orders)), "client_order_id": request.client_order_id, "side": request.side.value}
        late = self.disturbances and self.disturbances[0].__name__ == "lost"
        if not late:
            self._disturb()
        self.orders[request.client_order_id] = made
        if late:
            self._disturb()
        return made

    def get_orders(self, request: Any) -> Any:
        self.pages += 1
        found = [
            o for o in self.orders.values() if request.until is None or o["submitted_at"] < f"{request.until:%FT%T.%f}"
        ]
        return sorted(found, key=lambda o: o["submitted_at"], reverse=True)[: request.limit]


def raises(error: Exception, name: str = "refused") -> Callable[[], None]:
    def disturb() -> None:
        raise error

    disturb.__name__ = name
    return disturb


def rest(table: Table, slept: list[float] | None = None) -> AccountRest:
    persistence = Persistence(pauses=(1.0, 2.0), busy_pauses=(10.0, 20.0))
    sleep = (slept if slept is not None else []).append
    return AccountRest(cast(TradingClient, table), key="PK…", persistence=persistence, sleep=sleep)


@pytest.mark.parametrize(
    ("trouble", "pauses"),
    [
        ([raises(requests.ConnectionError(), "lost")], [1.0]),
        ([raises(refusal(504), "lost"), raises(refusal(500))], [1.0]),
        ([raises(requests.ConnectionError())] * 2, [1.0, 2.0]),
        ([raises(refusal(429))] * 2, [10.0, 20.0]),
    ],
)
def test_an_order_gets_through_once(trouble: list[Callable[[], None]], pauses: list[float]) -> None:
    table, slept = Table(*trouble), list[float]()
    assert rest(table, slept).close("kill-1", "A", 5.0)["side"] == "sell"
    assert list(table.orders) == ["kill-1"]
    assert slept == pauses


def test_an_order_that_is_there_already_is_not_sent() -> None:
    table = Table()
    table.orders["kill-1"] = {"id": "1", "side": "buy"}
    assert rest(table).close("kill-1", "A", -5.0)["id"] == "1"
    assert table.submitted == 0


def test_a_refusal_is_told_at_once_and_a_silence_after_a_while() -> None:
    with pytest.raises(TurnedDown, match="insufficient"):
        rest(Table(raises(refusal(403, 40310000, "insufficient qty")))).close("kill-1", "A", 5.0)
    with pytest.raises(NoAnswer, match="kill-1"):
        rest(Table(*[raises(requests.ConnectionError())] * 9)).close("kill-1", "A", 5.0)
    with pytest.raises(BrokerError, match="refuses the key PK"):
        rest(Table(raises(refusal(401)))).account()
    with pytest.raises(NoAnswer, match="could not be reached"):
        rest(Table(*[raises(requests.ConnectionError())] * 9)).account()


def test_too_many_requests_are_waited_out() -> None:
    slept: list[float] = []
    assert rest(Table(raises(refusal(429)), raises(refusal(429))), slept).account() == {"cash": "1"}
    assert slept == [10.0, 20.0]


def test_every_order_is_listed_also_those_of_one_moment_on_two_pages() -> None:
    table = Table()
    for number in range(1_200):
        moment = f"2026-11-24T10:{number // 300:02d}:00.000000"
        table.orders[str(number)] = {
            "id": str(number),
            "client_order_id": str(number),
            "submitted_at": moment,
            "status": "filled",
        }
    assert {order["id"] for order in rest(table).every_order()} == set(table.orders)
    assert table.pages > 2
