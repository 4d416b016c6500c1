"""Times that tell events apart, several fills of one order, and shares that come from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.exchange.account import Account, AccountSpec
from engine.exchange.exchange import Exchange
from engine.exchange.listed import Listed
from engine.exchange.market import Market
from engine.trading.orders import Fill, OrderStatus
from engine.trading.venue import Event
from tests.exchange.floor import Floor, broker, events, flat, minutes

BARS = minutes({"X": [flat(100.0)] * 4, "Y": [None, None, flat(50.0), flat(50.0)]})
ORDER = {"symbol": "X", "qty": 10, "side": "buy", "type": "market", "time_in_force": "day"}


def test_each_event_has_a_time_of_its_own_and_the_order_names_it() -> None:
    with Floor(BARS) as floor:
        socket = floor.updates()
        first = floor.order(type="limit", limit_price=90)
        floor.order()
        floor.ask("DELETE", f"/v2/orders/{first['id']}")
        floor.advance()
        heard = events(socket, 6)
        assert [(one["event"], one["timestamp"][17:]) for one in heard] == [
            ("pending_new", "00Z"), ("new", "00.000000001Z"), ("pending_new", "00.000000002Z"),
            ("new", "00.000000003Z"), ("canceled", "00.000000004Z"), ("fill", "00Z"),
        ]  # fmt: skip
        assert [one["timestamp"] for one in heard] == [one["order"]["updated_at"] for one in heard]
        assert heard[4]["order"]["canceled_at"] == heard[4]["timestamp"] == floor.look(first)["updated_at"]
        assert heard[5]["order"]["filled_at"] == heard[5]["timestamp"] == "2024-01-02T14:32:00Z"
        assert floor.look(first)["submitted_at"] == "2024-01-02T14:31:00Z"


def test_the_times_are_the_same_whether_somebody_listens_or_not_and_after_a_restart(tmp_path: Path) -> None:
    def played(floor: Floor) -> list[Any]:
        made = floor.order(type="limit", limit_price=90)
        floor.ask("PATCH", f"/v2/orders/{made['id']}", json={"limit_price": 91})
        floor.order()
        floor.advance()
        orders: list[Any] = floor.get("/v2/orders", status="all")
        return orders

    with Floor(BARS, state=tmp_path / "state") as floor:
        expected = played(floor)
    with Floor(BARS, state=tmp_path / "state") as floor:
        assert floor.get("/v2/orders", status="all") == expected
    with Floor(BARS) as floor:
        floor.updates()
        assert played(floor) == expected


def test_the_price_before_slippage_is_on_the_order_once_it_is_filled() -> None:
    with Floor(BARS, terms=broker(slippage_bps=10.0)) as floor:
        made = floor.order()
        assert made["reference_price"] is None
        floor.advance()
        assert (floor.look(made)["reference_price"], floor.look(made)["filled_avg_price"]) == ("100", "100.1")


# --- several fills -------------------------------------------------------------------------------------------------


def accepted() -> tuple[Exchange, Account, Listed]:
    exchange = Exchange(Market(BARS, BARS.frames["X"].index[1]), [AccountSpec(key="k", secret="s", broker=broker())])
    account = exchange.clients[0].account
    return exchange, account, exchange.submit(account, ORDER)


def fill(listed: Listed, quantity: float, price: float) -> Event:
    order = listed.order
    order.filled_quantity += quantity
    if order.remaining == 0.0:
        order.status = OrderStatus.FILLED
    made = Fill(
        order_id=order.id, symbol="X", side=1, quantity=quantity, price=price, reference_price=price - 1.0,
        commission=0.0, decided=0, time=7,
    )  # fmt: skip
    return Event(order, made)


def test_an_order_that_fills_in_two_parts_adds_them_up_and_is_open_in_between() -> None:
    _, account, listed = accepted()
    told: list[str] = []
    account.tell = lambda execution, message: told.append(execution)
    account.report([fill(listed, 4.0, 100.0)], 7)
    assert (listed.status, listed.open, listed.filled) == ("partially_filled", True, None)
    account.report([fill(listed, 6.0, 110.0)], 7)
    shown = listed.to_json()
    assert (shown["status"], shown["filled_qty"], shown["filled_avg_price"]) == ("filled", "10", "106")
    assert (shown["reference_price"], shown["filled_at"]) == ("109", "1970-01-01T00:00:00.000000008Z")
    assert len(set(told)) == 2


def test_what_is_left_of_a_partly_filled_order_can_be_canceled_or_replaced() -> None:
    exchange, account, listed = accepted()
    account.report([fill(listed, 4.0, 100.0)], 7)
    made = exchange.replace(account, listed, {"qty": 3})
    assert (listed.status, listed.filled_quantity) == ("replaced", 4.0)
    assert (made.quantity, made.filled_quantity, made.order.remaining) == (3.0, 0.0, 3.0)
    account.report([fill(made, 1.0, 100.0)], 7)
    exchange.cancel(account, made)
    assert (made.status, made.to_json()["filled_qty"]) == ("canceled", "1")


def test_an_order_that_fills_in_part_and_expires_in_the_same_bar_is_not_canceled_too() -> None:
    _, account, listed = accepted()
    happened = [fill(listed, 4.0, 100.0), Event(listed.order, None)]
    listed.order.status = OrderStatus.EXPIRED
    account.report(happened, 7)
    assert (listed.status, listed.canceled) == ("expired", None)


# --- from outside --------------------------------------------------------------------------------------------------


def test_shares_from_outside_change_position_and_cash_and_are_remembered(tmp_path: Path) -> None:
    with Floor(BARS, state=tmp_path / "state", terms=broker(commission={"per_share": 1.0})) as floor:
        socket = floor.updates()
        answer = floor.ask("POST", "/nextbar/transfer", json={"symbol": "X", "qty": "5", "price": 90})
        assert (answer.status_code, answer.json()) == (200, {"symbol": "X", "qty": "5", "cash": "9550"})
        answer = floor.ask("POST", "/nextbar/transfer", json={"symbol": "X", "qty": -2, "price": "100"})
        assert answer.json() == {"symbol": "X", "qty": "3", "cash": "9750"}
        shown = floor.get("/v2/positions/X")
        assert (shown["qty"], shown["avg_entry_price"]) == ("3", "90")
        floor.order(qty=1)
        assert floor.advance()["trade_updates"] == 3
        assert events(socket, 3)[2]["position_qty"] == "4"
        expected = floor.get("/v2/account"), floor.get("/v2/positions")
    with Floor(BARS, state=tmp_path / "state", terms=broker(commission={"per_share": 1.0})) as floor:
        assert (floor.get("/v2/account"), floor.get("/v2/positions")) == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "JSON object"),
        ({"symbol": "X", "qty": 0, "price": 1}, "qty must be > 0"),
        ({"symbol": "X", "qty": "many", "price": 1}, "qty must be a number"),
        ({"symbol": "X", "qty": 1}, "price must be a number"),
        ({"symbol": "X", "qty": 1, "price": -1}, "price must be > 0"),
        ({"symbol": "Z", "qty": 1, "price": 1}, "not found"),
        ({"symbol": "Y", "qty": 1, "price": 1}, "Y has no price yet"),
        ({"symbol": "X", "qty": 1.5, "price": 1}, "whole number"),
        ({"symbol": "X", "qty": -1, "price": 1}, "short selling is off"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(body: Any, words: str) -> None:
    with Floor(BARS) as floor:
        answer = floor.ask("POST", "/nextbar/transfer", json=body)
        assert answer.status_code == 422
        assert words in answer.json()["message"]
        assert floor.get("/v2/account")["cash"] == "10000"
        assert floor.ask("GET", "/nextbar/transfer").status_code == 405
