"""Orders that are rejected late or filled in parts; bars that are late, lost or revised."""

from __future__ import annotations

from typing import Any

import pytest

from engine.exchange.faults import Faults
from tests.exchange.floor import Floor, broker, days, events, flat, frame, minutes

BARS = minutes({"X": [flat(100.0 + n) for n in range(8)]})
TWO = minutes({"X": [flat(100.0 + n) for n in range(8)], "Y": [flat(50.0 + n) for n in range(8)]})


def disturbed(text: str, bars: Any = BARS, **more: Any) -> Floor:
    return Floor(bars, faults=Faults.parse(text), **more)


def shown(floor: Floor, symbol: str = "X") -> list[float]:
    page = floor.get("/v2/stocks/bars", symbols=symbol, timeframe="1Min")["bars"]
    return [bar["c"] for bar in page.get(symbol, [])]


def test_an_accepted_order_is_rejected_when_the_next_step_is_matched() -> None:
    with disturbed("reject@1") as floor:
        updates = floor.updates()
        early = floor.order()
        floor.advance()
        late = floor.order(order_class="oto", stop_loss={"stop_price": 90})
        assert late["status"] == "pending_new"
        floor.advance()
        heard = events(updates, 7)
        assert [(one["event"], one["order"]["id"]) for one in heard[2:]] == [
            ("fill", early["id"]), ("pending_new", late["id"]), ("new", late["id"]), ("rejected", late["id"]),
            ("canceled", late["legs"][0]["id"]),
        ]  # fmt: skip
        assert heard[5]["order"]["status"] == floor.look(late)["status"] == "rejected"
        assert floor.look(late)["failed_at"] == heard[5]["timestamp"]
        assert floor.get("/v2/positions/X")["qty"] == "10"
        floor.order()
        floor.advance()
        assert floor.get("/v2/positions/X")["qty"] == "20"


def test_an_order_that_waits_already_is_not_rejected() -> None:
    with disturbed("reject@1") as floor:
        floor.order(type="limit", limit_price=90)
        floor.advance(3)
        assert floor.exchange.faults_spent == []


def test_an_order_fills_half_in_one_bar_and_the_rest_in_the_next() -> None:
    with disturbed("partial@1", terms=broker(commission={"per_share": 1.0})) as floor:
        updates = floor.updates()
        made = floor.order(qty=5)
        floor.advance()
        between = floor.look(made)
        assert (between["status"], between["filled_qty"], between["filled_avg_price"]) == (
            "partially_filled",
            "2",
            "101",
        )
        assert [order["id"] for order in floor.get("/v2/orders")] == [made["id"]]
        floor.advance()
        partial, fill = events(updates, 4)[2:]
        assert [(one["event"], one["qty"], one["price"], one["position_qty"]) for one in (partial, fill)] == [
            ("partial_fill", "2", "101", "2"), ("fill", "3", "102", "5"),
        ]  # fmt: skip
        after = floor.look(made)
        assert (after["status"], after["filled_qty"]) == ("filled", "5")
        assert float(after["filled_avg_price"]) == pytest.approx((2 * 101 + 3 * 102) / 5)
        assert float(floor.get("/v2/account")["cash"]) == 10_000 - 2 * 101 - 3 * 102 - 5


def test_a_single_share_is_not_divided() -> None:
    with disturbed("partial@1") as floor:
        made = floor.order(qty=1)
        floor.advance()
        assert floor.look(made)["status"] == "filled"
        assert floor.exchange.faults_spent == []


def test_what_is_left_of_a_day_order_expires() -> None:
    bars = minutes({"X": [flat(100.0)] * 3}, first="2024-01-02 15:59")
    with disturbed("partial@1", bars) as floor:
        made = floor.order()
        floor.advance()
        assert (floor.look(made)["status"], floor.look(made)["filled_qty"]) == ("expired", "5")
        assert floor.look(made)["canceled_at"] is None


@pytest.mark.parametrize(
    ("bar", "kind"),
    [((100.0, 101.0, 94.0, 95.0), {"type": "limit", "limit_price": 96}), (flat(95.0), {"type": "market"})],
)
def test_the_rest_never_fills_in_the_same_bar(bar: Any, kind: dict[str, Any]) -> None:
    with disturbed("partial@1", minutes({"X": [flat(100.0), bar, flat(95.0), flat(95.0)]})) as floor:
        made = floor.order(**kind)
        assert [floor.advance() and floor.look(made)["filled_qty"] for _ in range(2)] == ["5", "10"]


def test_legs_wake_when_their_entry_is_filled_in_full() -> None:
    exits = {"take_profit": {"limit_price": 120}, "stop_loss": {"stop_price": 90}}
    with disturbed("partial@1") as floor:
        made = floor.order(order_class="bracket", time_in_force="gtc", **exits)
        target, _ = made["legs"]
        states = [floor.advance() and floor.look(target)["status"] for _ in range(2)]
        assert states == ["held", "new"]
        assert floor.look(target)["qty"] == "10"


def test_half_of_an_exit_leaves_its_partner_for_the_rest() -> None:
    exits = {"take_profit": {"limit_price": 102}, "stop_loss": {"stop_price": 95}}
    prices = [flat(100.0), flat(100.0), flat(103.0), (96.0, 96.0, 94.0, 94.0), flat(94.0)]
    with disturbed("partial@2", minutes({"X": prices})) as floor:
        target, stop = floor.order(order_class="bracket", time_in_force="gtc", **exits)["legs"]
        floor.advance(3)
        assert (floor.look(target)["status"], floor.look(target)["filled_qty"]) == ("canceled", "5")
        assert (floor.look(stop)["filled_qty"], floor.look(stop)["filled_avg_price"]) == ("5", "95")
        assert floor.get("/v2/positions") == []


def test_half_is_filled_and_the_rest_is_canceled() -> None:
    with disturbed("partial-cancel@1") as floor:
        updates = floor.updates()
        made = floor.order(qty=7)
        floor.advance()
        assert [(one["event"], one["order"]["status"]) for one in events(updates, 4)[2:]] == [
            ("partial_fill", "partially_filled"), ("canceled", "canceled"),
        ]  # fmt: skip
        assert (floor.look(made)["status"], floor.look(made)["filled_qty"]) == ("canceled", "3")
        assert floor.get("/v2/orders") == []


# --- bars ----------------------------------------------------------------------------------------------------------


def test_a_bar_is_known_one_step_late_and_never_pushed() -> None:
    with disturbed("late-bar@2") as floor:
        data = floor.data(bars=["X"])
        floor.advance()
        moved = floor.advance()
        assert moved["shown"] == 0
        assert shown(floor) == [100.0, 101.0]
        assert floor.get("/v2/stocks/bars/latest", symbols="X")["bars"]["X"]["c"] == 101.0
        floor.advance()
        assert shown(floor) == [100.0, 101.0, 102.0, 103.0]
        assert [bar["c"] for _ in range(2) for bar in frame(data)] == [101.0, 103.0]


def test_a_bar_never_comes_and_orders_fill_in_it_all_the_same() -> None:
    with disturbed("lost-bar@1", TWO) as floor:
        data = floor.data(bars=["*"])
        made = floor.order(symbol="Y")
        assert floor.advance()["shown"] == 1
        assert floor.look(made)["filled_avg_price"] == "51"
        assert floor.get("/v2/positions/Y")["current_price"] == "51"
        floor.advance()
        assert (shown(floor, "X"), shown(floor, "Y")) == ([100.0, 101.0, 102.0], [50.0, 52.0])
        page = floor.get("/v2/stocks/bars", symbols="Y", timeframe="1Min", limit=1)
        rest = floor.get("/v2/stocks/bars", symbols="Y", timeframe="1Min", page_token=page["next_page_token"])
        assert [bar["c"] for bar in page["bars"]["Y"] + rest["bars"]["Y"]] == [50.0, 52.0]
        down = floor.get("/v2/stocks/bars", symbols="Y", timeframe="1Min", sort="desc")
        assert [bar["c"] for bar in down["bars"]["Y"]] == [52.0, 50.0]
        assert [bar["S"] for bar in frame(data)] == ["X"]


def test_a_minute_bar_is_revised_after_it_was_pushed() -> None:
    with disturbed("revision@1") as floor:
        data = floor.data(bars=["X"], updatedBars=["X"])
        made = floor.order()
        assert floor.advance()["shown"] == 1
        pushed = frame(data)
        pushed += [] if len(pushed) == 2 else frame(data)
        assert [(bar["T"], bar["c"], bar["h"], bar["l"]) for bar in pushed] == [
            ("b", 101.0, 101.0, 101.0), ("u", 101.01, 101.01, 101.0),
        ]  # fmt: skip
        assert pushed[0]["t"] == pushed[1]["t"]
        floor.advance()
        assert shown(floor) == [100.0, 101.01, 102.0]
        assert floor.look(made)["filled_avg_price"] == "101"


def test_only_minute_bars_are_revised() -> None:
    bars = days({"X": [flat(100.0)] * 3}, dates=["2024-01-02", "2024-01-03", "2024-01-04"])
    with disturbed("revision@1", bars) as floor:
        floor.advance(2)
        assert floor.exchange.faults_spent == []
