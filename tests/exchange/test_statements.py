"""Account, positions, clock, calendar, assets, the list of orders and the history of the account."""

from __future__ import annotations

import pytest

from tests.exchange.floor import Floor, broker, days, flat, minutes

DATES = ["2024-01-02", "2024-01-03", "2024-01-04"]


def test_a_position_is_marked_at_the_last_close_and_compared_with_the_session_before() -> None:
    with Floor(days({"X": [flat(100.0), (101.0, 110.0, 99.0, 110.0), flat(121.0)]}, dates=DATES)) as floor:
        floor.order(qty=10)
        floor.advance(2)
        (shown,) = floor.get("/v2/positions")
        assert shown == floor.get(f"/v2/positions/{shown['asset_id']}")
        assert {name: shown[name] for name in ("qty", "avg_entry_price", "cost_basis", "market_value")} == {
            "qty": "10",
            "avg_entry_price": "101",
            "cost_basis": "1010",
            "market_value": "1210",
        }
        assert (shown["current_price"], shown["lastday_price"], shown["unrealized_pl"]) == ("121", "110", "200")
        assert float(shown["change_today"]) == pytest.approx(0.1)
        assert shown["unrealized_intraday_pl"] == "110"
        account = floor.get("/v2/account")
        assert (account["cash"], account["equity"], account["last_equity"]) == ("8990", "10200", "10090")
        assert (account["buying_power"], account["multiplier"]) == ("19190", "2")
        history = floor.get("/v2/account/portfolio/history")
        assert history["equity"] == [10_000.0, 10_090.0, 10_200.0]
        assert history["profit_loss"] == [0.0, 90.0, 200.0]
        assert history["timestamp"][-1] == 1704402000  # 2024-01-04 21:00 UTC


def test_what_open_orders_hold_is_not_available() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3})) as floor:
        floor.order(
            qty=10, time_in_force="gtc",
            order_class="bracket", take_profit={"limit_price": 110}, stop_loss={"stop_price": 90},
        )  # fmt: skip
        floor.advance()
        assert floor.get("/v2/positions/X")["qty_available"] == "0"


def test_a_cash_account() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3}), terms=broker(account="cash")) as floor:
        account = floor.get("/v2/account")
        assert (account["buying_power"], account["multiplier"], account["shorting_enabled"]) == ("10000", "1", False)
        assert floor.get("/v2/assets/X")["marginable"] is False


def test_the_clock_stands_at_the_last_step() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 4}, first="2024-01-02 15:57")) as floor:
        assert floor.get("/v2/clock") == {
            "timestamp": "2024-01-02T15:57:00-05:00",
            "is_open": True,
            "next_open": "2024-01-03T09:30:00-05:00",
            "next_close": "2024-01-02T16:00:00-05:00",
        }
        floor.advance(3)
        clock = floor.get("/v2/clock")
        assert (clock["timestamp"], clock["is_open"]) == ("2024-01-02T16:00:00-05:00", False)
        assert clock["next_close"] == "2024-01-03T16:00:00-05:00"


def test_the_clock_before_the_first_bar_of_all_stands_at_its_start() -> None:
    bars = minutes({"X": [flat(100.0)] * 4})
    with Floor(bars, start=bars.frames["X"].index[0]) as floor:
        assert floor.get("/v2/clock")["timestamp"] == "2024-01-02T09:30:00-05:00"
        assert floor.get("/v2/clock")["is_open"] is True
        answer = floor.try_order()
        assert (answer.status_code, answer.json()["message"]) == (422, "X has no price yet; wait for its first bar")


def test_the_calendar_knows_half_days_holidays_and_both_sides_of_daylight_saving() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3})) as floor:
        rows = floor.get("/v2/calendar", start="2023-11-22", end="2023-11-27")
        assert [(row["date"], row["open"], row["close"]) for row in rows] == [
            ("2023-11-22", "09:30", "16:00"), ("2023-11-24", "09:30", "13:00"), ("2023-11-27", "09:30", "16:00"),
        ]  # fmt: skip
        assert [row["open"] for row in floor.get("/v2/calendar", start="2024-03-08", end="2024-03-11")] == ["09:30"] * 2
        assert floor.get("/v2/calendar", start="2024-01-06", end="2024-01-07") == []
        every = floor.get("/v2/calendar")
        assert (every[0]["date"], every[-1]["date"]) == ("1970-01-02", "2029-12-31")


def test_assets_say_what_the_account_may_do() -> None:
    terms = broker(short=True, fractional=True)
    with Floor(minutes({"X": [flat(100.0)] * 3, "Y.B": [flat(1.0)] * 3}), terms=terms) as floor:
        first, second = floor.get("/v2/assets")
        assert (first["symbol"], second["symbol"]) == ("X", "Y.B")
        assert floor.get("/v2/assets/Y.B") == floor.get(f"/v2/assets/{second['id']}") == second
        assert all(first[name] for name in ("tradable", "marginable", "shortable", "easy_to_borrow", "fractionable"))
        assert floor.get("/v2/assets", asset_class="crypto") == []


def test_orders_are_listed_by_status_symbol_side_time_and_number() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 4, "Y": [flat(100.0)] * 4})) as floor:
        filled = floor.order(client_order_id="first")
        floor.advance()
        resting = floor.order(type="limit", limit_price=90)
        other = floor.order("sell", 5, type="limit", limit_price=190)
        floor.advance()
        third = floor.order(symbol="Y", type="limit", limit_price=90)

        def ids(**query: object) -> list[str]:
            return [order["id"] for order in floor.get("/v2/orders", **query)]

        assert ids() == [third["id"], other["id"], resting["id"]]
        assert ids(direction="asc", limit=2) == [resting["id"], other["id"]]
        assert ids(status="closed") == [filled["id"]]
        assert ids(status="all", symbols="Y,Z") == [third["id"]]
        assert ids(side="sell") == [other["id"]]
        assert ids(status="all", after=resting["submitted_at"]) == [third["id"]]
        assert ids(status="all", until=filled["submitted_at"]) == [filled["id"]]
        assert ids(status="all", until="2024-01-02T09:31:00-05:00") == [filled["id"]]
        by_client = floor.get("/v2/orders:by_client_order_id", client_order_id="first")
        assert by_client["id"] == filled["id"]
        answer = floor.ask("DELETE", "/v2/orders")
        assert answer.status_code == 207
        assert [one["status"] for one in answer.json()] == [200, 200, 200]
        assert ids() == []
