"""What is turned down, in Alpaca's bodies and codes; a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.exchange.floor import Floor, broker, flat, minutes


@pytest.fixture(scope="module")
def floor() -> Iterator[Floor]:
    with Floor(minutes({"X": [flat(100.0)] * 3})) as made:
        yield made


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"qty": -1}, "qty must be > 0"),
        ({"qty": 0}, "qty must be > 0"),
        ({"qty": None}, "qty must be a number"),
        ({"qty": True}, "qty must be a number"),
        ({"qty": "ten"}, "qty must be a number"),
        ({"qty": "NaN"}, "qty must be a number"),
        ({"qty": "1" * 50}, "qty must be a number"),
        ({"qty": "1e400"}, "qty must be a number"),
        ({"qty": [1]}, "qty must be a number"),
        ({"qty": 1.5}, "whole number of shares"),
        ({"qty": 0.30000000000000004}, "at most 9 decimal places"),
        ({"qty": None, "notional": 100}, "notional"),
        ({"symbol": "NONE"}, "asset 'NONE' not found"),
        ({"symbol": None}, "symbol is required"),
        ({"symbol": 7}, "symbol is required"),
        ({"side": "hold"}, "invalid side"),
        ({"side": ["buy"]}, "invalid side"),
        ({"type": "trailing_stop", "trail_price": 1}, "trailing_stop"),
        ({"type": "best"}, "invalid type"),
        ({"time_in_force": None}, "invalid time_in_force"),
        ({"time_in_force": "ioc"}, "invalid time_in_force"),
        ({"time_in_force": "opg"}, "invalid time_in_force"),
        ({"extended_hours": True}, "extended_hours"),
        ({"type": "limit"}, "limit orders require limit_price"),
        ({"limit_price": 100}, "market orders take no limit_price"),
        ({"type": "limit", "limit_price": 100.001}, "sub-penny"),
        ({"type": "limit", "limit_price": "0.99999"}, "sub-penny"),
        ({"type": "limit", "limit_price": -1}, "limit_price must be > 0"),
        ({"type": "stop", "stop_price": "1e-400"}, "sub-penny"),
        ({"order_class": "oco", "take_profit": {"limit_price": 1}}, "oco"),
        ({"order_class": "mleg", "legs": []}, "mleg"),
        ({"order_class": "bracket", "take_profit": {"limit_price": 110}}, "bracket orders take 2"),
        ({"order_class": "oto"}, "oto orders take 1"),
        ({"take_profit": {"limit_price": 110}}, "use order_class bracket or oto"),
        ({"order_class": "oto", "stop_loss": {}}, "stop_loss orders require stop_price"),
        ({"order_class": "oto", "stop_loss": 95}, "stop_loss must be a JSON object"),
        (
            {"order_class": "bracket", "take_profit": {"limit_price": 90}, "stop_loss": {"stop_price": 95}},
            "take_profit.limit_price must be above stop_loss.stop_price",
        ),
        ({"client_order_id": "x" * 129}, "client_order_id"),
        ({"client_order_id": 5}, "client_order_id"),
        ({"position_intent": "sell_to_open"}, "position_intent"),
    ],
)
def test_a_malformed_or_unsupported_order(floor: Floor, body: dict[str, Any], words: str) -> None:
    answer = floor.try_order(**body)
    assert (answer.status_code, answer.json()["code"]) == (422, 42210000)
    assert words in answer.json()["message"]
    assert floor.get("/v2/orders", status="all") == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"qty": NaN}', b"[" * 100_000, b"9" * 5_000])
def test_what_is_no_json(floor: Floor, body: bytes) -> None:
    assert floor.ask("POST", "/v2/orders", data=body).status_code == 400


@pytest.mark.parametrize("body", [[], "order", 1, None, {}])
def test_json_that_is_no_order(floor: Floor, body: Any) -> None:
    assert floor.ask("POST", "/v2/orders", json=body).status_code in (400, 422)


def test_a_body_without_end_is_cut_off(floor: Floor) -> None:
    assert floor.ask("POST", "/v2/orders", data=b" " * 300_000).status_code == 413


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v2/orders/00000000-0000-0000-0000-000000000000", "order not found"),
        ("/v2/orders:by_client_order_id?client_order_id=none", "order not found"),
        ("/v2/positions/X", "position does not exist: X"),
        ("/v2/positions/NONE", "position does not exist: NONE"),
        ("/v2/assets/NONE", "asset not found for NONE"),
        ("/v2/watchlists", "endpoint not found"),
        ("/", "endpoint not found"),
    ],
)
def test_what_is_not_there(floor: Floor, path: str, message: str) -> None:
    answer = floor.ask("GET", path)
    assert (answer.status_code, answer.json()["code"]) == (404, 40410000)
    assert message in answer.json()["message"]


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v2/orders"), ("POST", "/v2/account"), ("DELETE", "/v2/clock")])
def test_a_method_that_a_path_does_not_have(floor: Floor, method: str, path: str) -> None:
    answer = floor.ask(method, path, json={})
    assert (answer.status_code, answer.json()["message"]) == (405, "method not allowed")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v2/orders", {"status": "some"}),
        ("/v2/orders", {"limit": "0"}),
        ("/v2/orders", {"limit": "501"}),
        ("/v2/orders", {"limit": "000000005" + "0" * 5_000}),
        ("/v2/orders", {"limit": "0000000050"}),
        ("/v2/orders", {"after": "yesterday"}),
        ("/v2/calendar", {"start": "soon"}),
        ("/v2/account/portfolio/history", {"start": "soon"}),
        ("/v2/stocks/bars", {"timeframe": "1Min"}),
        ("/v2/stocks/bars", {"symbols": "X"}),
        ("/v2/stocks/bars", {"symbols": "X", "timeframe": "1Day"}),
        ("/v2/stocks/bars", {"symbols": "X", "timeframe": "1Min", "limit": "many"}),
        ("/v2/stocks/bars", {"symbols": "X", "timeframe": "1Min", "limit": "000000005" + "0" * 5_000}),
        ("/v2/stocks/bars", {"symbols": "X", "timeframe": "1Min", "sort": "up"}),
        ("/v2/stocks/bars", {"symbols": "X", "timeframe": "1Min", "page_token": "!"}),
        ("/v2/stocks/bars", {"symbols": "X", "timeframe": "1Min", "start": "2024-13-01"}),
        ("/v2/stocks/bars/latest", {}),
    ],
)
def test_a_query_that_says_nothing(floor: Floor, path: str, query: dict[str, str]) -> None:
    answer = floor.ask("GET", path, params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, 42210000)


@pytest.mark.parametrize("path", ["/v2/account", "/v2/nothing", "/nextbar/advance", "/nextbar/status"])
@pytest.mark.parametrize("keys", [("", ""), ("key", ""), ("key", "wrong"), ("other", "secret-word"), ("key", "sécret")])
def test_every_route_needs_keys(floor: Floor, path: str, keys: tuple[str, str]) -> None:
    headers = {"APCA-API-KEY-ID": keys[0], "APCA-API-SECRET-KEY": keys[1].encode("latin-1")}
    answer = requests.get(floor.exchange.url + path, headers=headers, timeout=5)
    assert (answer.status_code, answer.json()) == (401, {"message": "unauthorized."})


def test_keys_are_needed(floor: Floor) -> None:
    assert requests.get(floor.exchange.url + "/v2/account", timeout=5).status_code == 401


def test_more_than_the_account_can_pay(floor: Floor) -> None:
    answer = floor.try_order(qty=201)
    assert (answer.status_code, answer.json()["code"]) == (403, 40310000)
    assert answer.json()["message"].startswith("insufficient buying power: 20100.00 needed, 20000.00 free")


def test_short_selling_that_is_off(floor: Floor) -> None:
    answer = floor.try_order("sell")
    assert (answer.status_code, answer.json()["code"]) == (403, 40310000)
    assert "not allowed to short" in answer.json()["message"]


def test_long_to_short_in_one_order_and_an_id_used_twice() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3}), terms=broker(short=True)) as floor:
        floor.order(client_order_id="once")
        floor.advance()
        answer = floor.try_order("sell", 20, client_order_id="sold")
        assert (answer.status_code, answer.json()["code"]) == (403, 40310000)
        assert answer.json()["message"].startswith("insufficient qty available for order (requested: 20)")
        assert answer.json()["existing_qty"] == "10"
        # A refused order is no order: its id is free.
        resting = floor.order("sell", 10, type="limit", limit_price=200, client_order_id="sold")
        floor.ask("DELETE", f"/v2/orders/{resting['id']}")
        for used in ("once", "sold"):
            answer = floor.try_order("buy", 1, client_order_id=used)
            assert answer.status_code == 422
            assert answer.json() == {"code": 40010001, "message": "client_order_id must be unique"}


def test_an_order_that_is_over_can_be_neither_cancelled_nor_replaced() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3})) as floor:
        made = floor.order()
        assert floor.ask("PATCH", f"/v2/orders/{made['id']}", json={}).status_code == 422
        assert floor.ask("PATCH", f"/v2/orders/{made['id']}", json={"limit_price": 5}).status_code == 422
        assert floor.ask("PATCH", f"/v2/orders/{made['id']}", json=[]).status_code == 422
        floor.advance()
        for answer in (
            floor.ask("DELETE", f"/v2/orders/{made['id']}"),
            floor.ask("PATCH", f"/v2/orders/{made['id']}", json={"qty": 5}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (422, 42210000)
            assert '"filled" state' in answer.json()["message"]


def test_fractions_only_as_market_day_orders() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3}), terms=broker(fractional=True)) as floor:
        for more in ({"time_in_force": "gtc"}, {"type": "limit", "limit_price": 100}):
            answer = floor.try_order(qty=1.5, **more)
            assert (answer.status_code, answer.json()["code"]) == (422, 42210000)
            assert "fractional orders must be market orders with time_in_force day" in answer.json()["message"]
        assert floor.try_order(qty=1.5).status_code == 200


def test_a_replacement_follows_the_rules_of_an_order() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3}), terms=broker(fractional=True)) as floor:
        made = floor.order(type="limit", limit_price=90)
        for changes, words in (
            ({"qty": 1.5}, "fractional orders must be market orders"),
            ({"limit_price": 90.001}, "sub-penny"),
            ({"stop_price": 90}, "limit orders take no stop_price"),
            ({"time_in_force": "ioc"}, "invalid time_in_force"),
            ({"trail": 1}, "trailing_stop"),
            ({"limit_price": 90}, "nothing to replace"),
            ({"qty": 2, "client_order_id": made["client_order_id"]}, "must be unique"),
        ):
            answer = floor.ask("PATCH", f"/v2/orders/{made['id']}", json=changes)
            assert answer.status_code == 422
            assert words in answer.json()["message"]
        assert floor.look(made)["status"] == "new"


def test_too_many_requests_in_a_minute() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3}), rate_limit=3) as floor:
        answers = [floor.ask("GET", "/v2/account") for _ in range(8)]
        # The minute of the wall clock may change once in between.
        assert 429 in [answer.status_code for answer in answers]
        last = next(answer for answer in answers if answer.status_code == 429)
        assert last.headers["X-RateLimit-Limit"] == "3"
        assert last.headers["X-RateLimit-Remaining"] == "0"
        assert int(last.headers["X-RateLimit-Reset"]) > 0
        assert floor.advance()["done"] is False
    with Floor(minutes({"X": [flat(100.0)] * 3})) as floor:
        assert "X-RateLimit-Remaining" in floor.ask("GET", "/v2/account").headers
