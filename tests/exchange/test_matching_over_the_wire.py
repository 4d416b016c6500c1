"""Orders through the wire, with fills computed by hand; what each account hears, in which order."""

from typing import Any

import pytest

from tests.exchange.floor import Floor, broker, days, events, flat, minutes


def names(heard: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one["event"], one["order"]["status"]) for one in heard]


def test_a_market_order_fills_at_the_next_open_with_slippage_and_the_books_pay_commission() -> None:
    terms = broker(slippage_bps=10.0, commission={"per_share": 0.01, "minimum": 1.0})
    with Floor(minutes({"X": [flat(100.0), (101.0, 103.0, 100.0, 102.0), flat(104.0)]}), terms=terms) as floor:
        socket = floor.updates()
        made = floor.order(qty=10)
        assert (made["status"], made["filled_qty"], made["filled_avg_price"]) == ("pending_new", "0", None)
        assert floor.advance()["trade_updates"] == 3
        pending, new, fill = events(socket, 3)
        assert names([pending, new, fill]) == [("pending_new", "pending_new"), ("new", "new"), ("fill", "filled")]
        price = 101.0 * (1.0 + 10.0 * 1e-4)
        assert (float(fill["price"]), fill["qty"], fill["position_qty"]) == (price, "10", "10")
        assert float(fill["order"]["filled_avg_price"]) == price
        assert fill["timestamp"] == fill["order"]["filled_at"] == "2024-01-02T14:32:00Z"
        account = floor.get("/v2/account")
        cash = 10_000.0 - (10 * price + 1.0)
        assert float(account["cash"]) == cash
        assert float(account["equity"]) == cash + 10 * 102.0


@pytest.mark.parametrize(
    ("order", "bar", "price"),
    [
        ({"type": "limit", "limit_price": 99}, (100.0, 101.0, 99.0, 100.0), 99.0),
        ({"type": "limit", "limit_price": 99}, (98.0, 101.0, 97.0, 100.0), 98.0),
        ({"type": "limit", "limit_price": 99}, (100.0, 101.0, 99.5, 100.0), None),
        ({"type": "stop", "stop_price": "101.50"}, (100.0, 102.0, 99.0, 100.0), 101.5),
        ({"type": "stop", "stop_price": 101.5}, (103.0, 104.0, 99.0, 100.0), 103.0),
        ({"type": "stop", "stop_price": 101.5}, (100.0, 101.0, 99.0, 100.0), None),
        ({"type": "stop_limit", "stop_price": 101, "limit_price": 102}, (100.0, 103.0, 99.0, 100.0), 101.0),
        ({"type": "stop_limit", "stop_price": 101, "limit_price": 102}, (103.0, 104.0, 101.0, 103.0), 102.0),
        ({"type": "stop_limit", "stop_price": 101, "limit_price": 102}, (103.0, 104.0, 102.5, 103.0), None),
    ],
)
def test_limit_stop_and_stop_limit_buys(order: dict[str, Any], bar: Any, price: float | None) -> None:
    with Floor(minutes({"X": [flat(100.0), bar]})) as floor:
        made = floor.order(time_in_force="gtc", **order)
        floor.advance()
        now = floor.look(made)
    if price is None:
        assert (now["status"], now["filled_avg_price"]) == ("new", None)
    else:
        assert (now["status"], float(now["filled_avg_price"])) == ("filled", price)


BRACKET = {"order_class": "bracket", "take_profit": {"limit_price": 110}, "stop_loss": {"stop_price": 95}}


def test_a_bracket_waits_wakes_and_its_stop_cancels_its_target() -> None:
    prices = [flat(100.0), (100.0, 101.0, 99.0, 100.0), (100.0, 101.0, 94.0, 95.0)]
    with Floor(minutes({"X": prices})) as floor:
        socket = floor.updates()
        entry = floor.order(time_in_force="gtc", **BRACKET)
        target, stop = entry["legs"]
        assert (target["type"], target["limit_price"], target["status"]) == ("limit", "110", "held")
        assert (stop["type"], stop["stop_price"], stop["status"], stop["side"]) == ("stop", "95", "held", "sell")
        assert len({entry["id"], target["id"], stop["id"]}) == 3
        floor.advance()
        assert names(events(socket, 4)) == [
            ("pending_new", "pending_new"), ("new", "new"), ("fill", "filled"), ("new", "new"),
        ]  # fmt: skip
        assert floor.look(target)["status"] == "new"
        assert floor.look(stop)["status"] == "held"
        assert [order["id"] for order in floor.get("/v2/orders", status="open")] == [target["id"]]
        (parent,) = floor.get("/v2/orders", status="open", nested="true")
        assert parent["id"] == entry["id"]
        assert [leg["id"] for leg in parent["legs"]] == [target["id"], stop["id"]]
        floor.advance()
        fill, canceled = events(socket, 2)
        assert (fill["event"], fill["order"]["id"], fill["price"]) == ("fill", stop["id"], "95")
        assert (fill["qty"], fill["position_qty"]) == ("10", "0")
        assert (canceled["event"], canceled["order"]["id"]) == ("canceled", target["id"])
        assert floor.get("/v2/positions") == []


def test_a_bracket_that_wakes_and_is_stopped_in_one_bar_is_told_in_order() -> None:
    with Floor(minutes({"X": [flat(100.0), (100.0, 111.0, 94.0, 100.0)]})) as floor:
        socket = floor.updates()
        entry = floor.order(**BRACKET)
        floor.advance()
        heard = events(socket, 6)
        target, stop = entry["legs"]
        assert [(one["event"], one["order"]["id"]) for one in heard[2:]] == [
            ("fill", entry["id"]), ("new", target["id"]), ("fill", stop["id"]), ("canceled", target["id"]),
        ]  # fmt: skip
        assert heard[3]["order"]["status"] == "new"
        assert [one.get("position_qty") for one in heard[2:]] == ["10", None, "0", None]


def test_the_target_of_a_bracket_fills_at_its_price_and_cancels_the_stop() -> None:
    prices = [flat(100.0), (100.0, 101.0, 99.0, 100.0), (100.0, 112.0, 99.0, 111.0)]
    with Floor(minutes({"X": prices})) as floor:
        target, stop = floor.order(**BRACKET)["legs"]
        floor.advance(2)
        assert (floor.look(target)["status"], floor.look(target)["filled_avg_price"]) == ("filled", "110")
        assert floor.look(stop)["status"] == "canceled"
        assert floor.get("/v2/account")["cash"] == "10100"


def test_one_exit_is_an_oto_and_its_stop_is_new_once_the_entry_is_filled() -> None:
    prices = [flat(100.0), (100.0, 101.0, 99.0, 100.0), (100.0, 101.0, 94.0, 95.0)]
    with Floor(minutes({"X": prices})) as floor:
        entry = floor.order(order_class="oto", stop_loss={"stop_price": 95, "limit_price": 94.5})
        (stop,) = entry["legs"]
        assert (stop["order_class"], stop["type"], stop["status"]) == ("oto", "stop_limit", "held")
        floor.advance()
        assert floor.look(stop)["status"] == "new"
        floor.advance()
        assert floor.look(stop)["filled_avg_price"] == "95"


def test_cancelling_an_entry_cancels_its_legs() -> None:
    with Floor(minutes({"X": [flat(100.0), flat(100.0)]})) as floor:
        socket = floor.updates()
        entry = floor.order(type="limit", limit_price=90, **BRACKET | {"stop_loss": {"stop_price": 85}})
        assert floor.ask("DELETE", f"/v2/orders/{entry['id']}").status_code == 204
        assert names(events(socket, 5)[2:]) == [("canceled", "canceled")] * 3
        assert floor.get("/v2/orders") == []


def test_a_day_order_expires_with_its_session_and_a_gtc_order_stays() -> None:
    bars = minutes({"X": [flat(100.0)] * 4}, first="2024-01-02 15:57")
    with Floor(bars) as floor:
        socket = floor.updates()
        day = floor.order(type="limit", limit_price=90)
        gtc = floor.order(type="limit", limit_price=90, time_in_force="gtc")
        floor.advance(2)
        assert floor.look(day)["status"] == "new"
        floor.advance()
        assert events(socket, 5)[-1]["event"] == "expired"
        assert floor.look(day)["status"] == "expired"
        assert floor.look(day)["expired_at"] == "2024-01-02T21:00:00Z"
        assert floor.look(gtc)["status"] == "new"


def test_a_day_order_sent_after_the_close_is_accepted_for_the_next_session() -> None:
    dates = ["2024-01-02", "2024-01-03", "2024-01-04"]
    with Floor(days({"X": [flat(100.0), flat(101.0), flat(102.0)]}, dates=dates)) as floor:
        made = floor.order()
        assert made["status"] == "accepted"
        floor.advance()
        assert floor.look(made)["filled_avg_price"] == "101"
        assert floor.look(made)["filled_at"] == "2024-01-03T21:00:00Z"


def test_what_the_account_cannot_pay_after_a_gap_is_cut_off() -> None:
    terms = broker(cash=1_000.0, account="cash")
    with Floor(minutes({"X": [flat(100.0), flat(125.0)]}), terms=terms) as floor:
        socket = floor.updates()
        made = floor.order(qty=10)
        floor.advance()
        partial, canceled = events(socket, 4)[2:]
        assert (partial["event"], partial["order"]["status"]) == ("partial_fill", "partially_filled")
        assert (partial["qty"], partial["price"], partial["position_qty"]) == ("8", "125", "8")
        assert (canceled["event"], canceled["order"]["status"], canceled["order"]["filled_qty"]) == (
            "canceled", "canceled", "8",
        )  # fmt: skip
        assert floor.look(made)["qty"] == "10"
        assert floor.get("/v2/account")["cash"] == "0"


def test_the_legs_of_a_cut_entry_close_what_was_filled() -> None:
    terms = broker(cash=1_000.0, account="cash")
    prices = [flat(100.0), flat(125.0), flat(160.0)]
    with Floor(minutes({"X": prices}), terms=terms) as floor:
        entry = floor.order(order_class="oto", time_in_force="gtc", take_profit={"limit_price": 150})
        floor.advance()
        assert floor.look(entry["legs"][0])["qty"] == "8"
        floor.advance()
        leg = floor.look(entry["legs"][0])
        assert (leg["status"], leg["filled_qty"], leg["filled_avg_price"]) == ("filled", "8", "160")


def test_fractions_of_a_share_on_a_fractional_account() -> None:
    with Floor(minutes({"X": [flat(100.0), flat(100.0)]}), terms=broker(fractional=True)) as floor:
        made = floor.order(qty="0.123456789")
        floor.advance()
        assert floor.look(made)["filled_qty"] == "0.123456789"
        assert floor.get("/v2/positions/X")["qty"] == "0.123456789"


def test_a_replaced_order_lives_on_under_a_new_id() -> None:
    with Floor(minutes({"X": [flat(100.0), (100.0, 100.0, 96.0, 98.0)]})) as floor:
        socket = floor.updates()
        old = floor.order(type="limit", limit_price=90, client_order_id="mine")
        answer = floor.ask("PATCH", f"/v2/orders/{old['id']}", json={"limit_price": 97, "qty": 5})
        new = answer.json()
        assert answer.status_code == 200
        assert (new["replaces"], new["limit_price"], new["qty"]) == (old["id"], "97", "5")
        gone = floor.look(old)
        assert (gone["status"], gone["replaced_by"]) == ("replaced", new["id"])
        assert [one["event"] for one in events(socket, 5)[2:]] == ["replaced", "pending_new", "new"]
        floor.advance()
        assert floor.look(new)["filled_avg_price"] == "97"
        again = floor.ask("PATCH", f"/v2/orders/{new['id']}", json={"limit_price": 98})
        assert (again.status_code, again.json()["code"]) == (422, 42210000)


def test_a_replacement_that_is_turned_down_leaves_the_order_alone() -> None:
    with Floor(minutes({"X": [flat(100.0), (100.0, 100.0, 89.0, 98.0)]})) as floor:
        old = floor.order(type="limit", limit_price=90)
        answer = floor.ask("PATCH", f"/v2/orders/{old['id']}", json={"qty": 100_000})
        assert (answer.status_code, answer.json()["code"]) == (403, 40310000)
        floor.advance()
        assert floor.look(old)["filled_avg_price"] == "90"


def test_the_stop_of_a_live_bracket_can_be_moved_and_still_cancels_its_partner() -> None:
    prices = [flat(100.0), (100.0, 101.0, 99.0, 100.0), (100.0, 101.0, 97.0, 98.0)]
    with Floor(minutes({"X": prices})) as floor:
        entry = floor.order(time_in_force="gtc", **BRACKET)
        target, stop = entry["legs"]
        floor.advance()
        moved = floor.ask("PATCH", f"/v2/orders/{stop['id']}", json={"stop_price": 98}).json()
        assert moved["status"] == "held"
        assert [leg["id"] for leg in floor.look(entry, nested="true")["legs"]] == [target["id"], moved["id"]]
        floor.advance()
        assert floor.look(moved)["filled_avg_price"] == "98"
        assert floor.look(target)["status"] == "canceled"


def test_an_entry_replaced_before_it_fills_keeps_its_legs_in_its_new_size() -> None:
    prices = [flat(100.0), (100.0, 101.0, 97.0, 100.0), (100.0, 112.0, 99.0, 111.0)]
    with Floor(minutes({"X": prices})) as floor:
        entry = floor.order(
            type="limit", limit_price=90, time_in_force="gtc", **BRACKET | {"stop_loss": {"stop_price": 85}}
        )
        new = floor.ask("PATCH", f"/v2/orders/{entry['id']}", json={"limit_price": 98, "qty": 20}).json()
        assert [leg["qty"] for leg in new["legs"]] == ["20", "20"]
        floor.advance(2)
        assert floor.look(new["legs"][0])["filled_qty"] == "20"
        assert floor.get("/v2/positions") == []


def test_a_position_is_closed_in_parts_and_all_at_once() -> None:
    prices = {symbol: [flat(100.0)] * 5 for symbol in ("X", "Y")}
    with Floor(minutes(prices)) as floor:
        floor.order(qty=10)
        floor.order(qty=4, symbol="Y")
        floor.advance()
        half = floor.ask("DELETE", "/v2/positions/X", params={"percentage": 50}).json()
        assert (half["side"], half["qty"], half["type"]) == ("sell", "5", "market")
        assert floor.get("/v2/positions/X")["qty_available"] == "5"
        floor.advance()
        two = floor.ask("DELETE", "/v2/positions/X", params={"qty": 2}).json()
        rest = floor.ask("DELETE", "/v2/positions", params={"cancel_orders": True})
        assert rest.status_code == 207
        assert [(one["symbol"], one["status"], one["body"]["qty"]) for one in rest.json()] == [
            ("X", 200, "5"), ("Y", 200, "4"),
        ]  # fmt: skip
        assert floor.look(two)["status"] == "canceled"
        floor.advance()
        assert floor.get("/v2/positions") == []


def test_a_short_position_is_shown_negative_and_bought_back() -> None:
    prices = [flat(100.0), flat(100.0), flat(90.0), flat(90.0)]
    with Floor(minutes({"X": prices}), terms=broker(short=True)) as floor:
        floor.order("sell", 10)
        floor.advance(2)
        shown = floor.get("/v2/positions/X")
        assert (shown["side"], shown["qty"], shown["qty_available"]) == ("short", "-10", "-10")
        assert (shown["market_value"], shown["unrealized_pl"]) == ("-900", "100")
        assert floor.ask("DELETE", "/v2/positions/X").json()["side"] == "buy"
        floor.advance()
        assert floor.get("/v2/positions") == []
