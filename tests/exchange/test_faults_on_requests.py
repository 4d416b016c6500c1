"""Requests that fail before or after their effect, and an exchange that dies and comes back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import requests

from engine.errors import StorageError
from engine.exchange.faults import Faults
from tests.exchange.floor import KEY, SECRET, Floor, broker, events, flat, minutes
from tests.exchange.test_faults_on_messages import closes, cut

BARS = minutes({"X": [flat(100.0 + n) for n in range(40)]})
BODY = {"symbol": "X", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"}


def disturbed(text: str, **more: Any) -> Floor:
    return Floor(BARS, faults=Faults.parse(text), **more)


def orders(floor: Floor) -> list[Any]:
    found: list[Any] = floor.get("/v2/orders", status="all")
    return found


@pytest.mark.parametrize(("kind", "status"), [("429", 429), ("500", 500), ("504", 504)])
def test_a_request_is_refused_and_had_no_effect(kind: str, status: int) -> None:
    with disturbed(f"{kind}@1") as floor:
        floor.order()
        assert floor.advance()["moved"]  # no fault ever touches the clock's own calls
        answer = floor.try_order()
        assert answer.status_code == status
        assert (answer.headers.get("x-ratelimit-remaining") == "0") == (status == 429)
        assert answer.headers["content-type"] == ("text/html" if status == 504 else "application/json")
        assert len(orders(floor)) == 1
        assert floor.try_order().status_code == 200
        assert floor.exchange.faults_spent == [(1, kind)]


@pytest.mark.parametrize("path", ["/v2/account", "/v2/clock", "/v2/stocks/bars?symbols=X&timeframe=1Min"])
def test_any_route_of_alpacas_is_struck(path: str) -> None:
    with disturbed("500@0") as floor:
        assert floor.ask("GET", "/nextbar/status").status_code == 200
        assert [floor.ask("GET", path).status_code for _ in range(2)] == [500, 200]


@pytest.mark.parametrize(("kind", "status"), [("500-after", 500), ("504-after", 504)])
def test_an_order_is_taken_and_answered_with_a_failure(kind: str, status: int) -> None:
    with disturbed(f"{kind}@0") as floor:
        assert floor.get("/v2/account")["cash"] == "10000"  # nothing but a change is struck
        assert floor.try_order(qty=100_000).status_code == 403  # a refusal had no effect
        assert floor.try_order(client_order_id="mine").status_code == status
        assert floor.get("/v2/orders:by_client_order_id", client_order_id="mine")["status"] == "new"
        assert floor.try_order(client_order_id="mine").status_code == 422
        assert floor.exchange.faults_spent == [(0, kind)]


def test_changes_and_cancels_are_struck_as_well() -> None:
    with disturbed("500-after@1,504-after@2") as floor:
        made = floor.order(type="limit", limit_price=90, time_in_force="gtc")
        floor.advance()
        answer = floor.ask("PATCH", f"/v2/orders/{made['id']}", json={"limit_price": 91})
        assert answer.status_code == 500
        (changed,) = floor.get("/v2/orders")
        assert changed["limit_price"] == "91"
        floor.advance()
        assert floor.ask("DELETE", f"/v2/orders/{changed['id']}").status_code == 504
        assert floor.look(changed)["status"] == "canceled"


@pytest.mark.parametrize(("kind", "count"), [("hang-up", 0), ("hang-up-after", 1)])
def test_the_line_is_broken_off_before_or_after_the_effect(kind: str, count: int) -> None:
    with disturbed(f"{kind}@0") as floor:
        with pytest.raises(requests.ConnectionError):
            floor.try_order()
        assert len(orders(floor)) == count
        assert floor.try_order().status_code == 200


@pytest.mark.parametrize(("kind", "count"), [("timeout", 0), ("timeout-after", 1)])
def test_no_answer_ever_comes_before_or_after_the_effect(kind: str, count: int) -> None:
    with disturbed(f"{kind}@0") as floor:
        with pytest.raises(requests.ReadTimeout):
            floor.http.post(floor.exchange.url + "/v2/orders", json=BODY, timeout=0.2)
        assert len(orders(floor)) == count
        assert floor.try_order().status_code == 200


def test_the_clock_is_an_hour_ahead_once() -> None:
    with disturbed("skewed-clock@1") as floor:
        floor.advance()
        shown = [floor.get("/v2/clock")["timestamp"] for _ in range(2)]
        assert shown == ["2024-01-02T10:32:00-05:00", "2024-01-02T09:32:00-05:00"]


def test_five_steps_are_taken_at_once() -> None:
    with disturbed("clock-jump@2") as floor:
        data, updates = floor.data(bars=["X"]), floor.updates()
        floor.advance()
        far, near = floor.order(type="stop", stop_price=105), floor.order(type="stop", stop_price=103)
        moved = floor.advance()
        assert (moved["step"], moved["shown"], len(moved["told"])) == (6, 1, 6)
        assert moved["start"] == int(BARS.frames["X"].index[5].value)
        heard = events(updates, 6)[4:]
        assert [one["order"]["id"] for one in heard] == [near["id"], far["id"]]
        assert [one["price"] for one in heard] == ["103", "105"]
        assert closes(data, 2) == [101.0, 106.0]
        assert floor.ask("POST", f"/nextbar/advance?after={int(BARS.frames['X'].index[1].value)}").json() == moved | {
            "moved": False
        }


def test_a_jump_ends_with_the_bars() -> None:
    with disturbed("clock-jump@38") as floor:
        assert floor.advance(38)["step"] == 39
        assert floor.advance()["done"]


def test_the_exchange_dies_in_a_step_and_comes_back_from_its_state(tmp_path: Path) -> None:
    with disturbed("restart@2,429@2,lose-update@3", state=tmp_path / "state") as floor:
        url = floor.exchange.url
        data, updates = floor.data(bars=["X"]), floor.updates()
        floor.advance()
        made = floor.order()
        before = int(BARS.frames["X"].index[1].value)
        with pytest.raises(requests.ConnectionError):
            floor.ask("POST", f"/nextbar/advance?after={before}")
        assert (cut(data), cut(updates)) == (True, True)
        assert floor.exchange.url == url
        again = floor.ask("POST", f"/nextbar/advance?after={before}").json()
        assert (again["moved"], again["step"], len(again["told"]), again["bars"]) == (False, 2, 1, 0)
        assert again["start"] == before
        assert floor.look(made)["filled_avg_price"] == "102"
        data, updates = floor.data(bars=["X"]), floor.updates()
        floor.order()
        assert len(floor.advance()["told"]) == 3  # nothing of the step before
        assert closes(data, 1) == [103.0]
        assert [one["event"] for one in events(updates, 2)] == ["pending_new", "new"]  # the fill's update is lost
        assert floor.exchange.faults_spent == [(2, "restart"), (3, "lose-update")]  # 429@2 died with it


def test_the_exchange_does_not_die_without_a_state_but_as_soon_as_it_has_one(tmp_path: Path) -> None:
    with disturbed("restart@0") as floor:
        floor.exchange.keep(tmp_path / "state")
        with pytest.raises(requests.ConnectionError):
            floor.advance()
        assert floor.get("/nextbar/status")["step"] == 1
        floor.order()
        assert floor.advance()["step"] == 2
    with disturbed("restart@1") as floor:
        assert floor.advance(5)["step"] == 5
        assert floor.exchange.faults_spent == []


def test_it_dies_and_comes_back_as_often_as_it_is_told_to(tmp_path: Path) -> None:
    with disturbed("restart@1,restart@2,restart@4", state=tmp_path / "state") as floor:
        deaths = 0
        while floor.get("/nextbar/status")["step"] < 6:
            try:
                floor.advance()
            except requests.ConnectionError:
                deaths += 1
        assert deaths == 3
        assert [step for step, _ in floor.exchange.faults_spent] == [1, 2, 4]


def test_an_exchange_with_a_clock_of_its_own_dies_too_and_waits_to_be_called(tmp_path: Path) -> None:
    with disturbed("restart@5", speed=math.inf, state=tmp_path / "state") as floor:
        headers = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
        for _ in range(1_000):
            try:
                status = requests.get(floor.exchange.url + "/nextbar/status", headers=headers, timeout=5).json()
            except requests.ConnectionError:
                continue
            if status["done"]:
                break
        assert status["step"] == 39
        assert floor.exchange.faults_spent == [(5, "restart")]


ALIKE = ["reject@0", "partial@1", "partial-cancel@0", "clock-jump@2", "late-bar@2,lost-bar@1,revision@3"]


@pytest.mark.parametrize("text", ALIKE)
def test_what_faults_did_to_the_account_and_the_bars_is_the_same_after_a_restart(tmp_path: Path, text: str) -> None:
    def picture(floor: Floor) -> list[Any]:
        paths = ("/v2/account", "/v2/positions", "/v2/orders?status=all", "/nextbar/status")
        return [*map(floor.get, paths), floor.get("/v2/stocks/bars", symbols="X", timeframe="1Min")]

    with disturbed(text, state=tmp_path / "state") as floor:
        for quantity in (7, 8):
            floor.order(qty=quantity, time_in_force="gtc")
            floor.advance()
        floor.advance(2)
        expected = picture(floor)
        assert floor.exchange.faults_spent
    with disturbed(text, state=tmp_path / "state") as floor:
        assert picture(floor) == expected
        assert floor.exchange.faults_spent == []
        floor.advance()


def test_a_state_is_good_with_the_same_changing_faults_only(tmp_path: Path) -> None:
    with disturbed("partial@1,429@3", state=tmp_path / "state") as floor:
        floor.advance(2)
    with disturbed("504@9,partial@1", state=tmp_path / "state") as floor:
        floor.advance()
    for other in (disturbed("partial@2", state=tmp_path / "state"), Floor(BARS, state=tmp_path / "state")):
        with pytest.raises(StorageError, match="belongs to another exchange"):
            other.exchange.start()
    with Floor(BARS, terms=broker(), state=tmp_path / "other") as floor:
        floor.advance()
    with disturbed("429@1,restart@30,clock-jump@30", state=tmp_path / "other") as floor:
        assert floor.get("/nextbar/status")["step"] == 1
