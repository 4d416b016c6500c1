"""Hundreds of random requests, good and bad: no internal error, no loose end, and a restart repeats it all."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.exchange.floor import Floor, broker, minutes
from tests.exchange.test_state import picture

ODD: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, -0.0, 10**30, "", "x", "X", "NaN", "1e5", "0.1", "gtc", "bracket", [], {}, [1],
    {"limit_price": None}, {"stop_price": 95}, "é\ud800", "1" * 39,
]  # fmt: skip
GOOD: dict[str, list[Any]] = {
    "symbol": ["X", "Y"],
    "qty": [1, 5, "3", 100, 0.5],
    "side": ["buy", "sell"],
    "type": ["market", "limit", "stop", "stop_limit"],
    "time_in_force": ["day", "gtc"],
    "limit_price": [99, 100.5, 110],
    "stop_price": [99, 100.5, 110],
    "order_class": ["simple", "bracket", "oto"],
    "client_order_id": [None, "a", "b"],
}


def order(dice: random.Random) -> Any:
    body = {name: dice.choice(values) for name, values in GOOD.items()}
    for name in ("limit", "stop"):
        if name not in body["type"]:
            del body[f"{name}_price"]
    if body["order_class"] != "simple":
        body["stop_loss"] = {"stop_price": 95}
    if body["order_class"] == "bracket":
        body["take_profit"] = {"limit_price": 110}
    if dice.random() < 0.3:
        body[dice.choice(list(body))] = dice.choice(ODD)
    return body if dice.random() < 0.98 else dice.choice(ODD)


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_breaks_it(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    opens = [100.0 + dice.uniform(-5.0, 5.0) for _ in range(200)]
    rows = [(price, price + 3.0, price - 3.0, price + 1.0) for price in opens]
    thin = [row if dice.random() < 0.7 else None for row in rows]
    bars, terms = minutes({"X": rows, "Y": thin}), broker(short=True, fractional=seed == 2)
    state = tmp_path / "exchange.db"
    with Floor(bars, terms=terms, state=state) as floor:
        updates = floor.updates()
        ids = ["none"]
        for _ in range(400):
            kind = dice.random()
            if kind < 0.5:
                answer = floor.ask("POST", "/v2/orders", json=order(dice))
                if answer.status_code == 200:
                    made = answer.json()
                    ids += [made["id"], *(leg["id"] for leg in made["legs"] or [])]
            elif kind < 0.6:
                names = dice.sample(["qty", "limit_price", "stop_price", "time_in_force", "client_order_id"], 2)
                changes = {name: dice.choice([1, 2, 97.5, 101.25, "day", *ODD]) for name in names}
                answer = floor.ask("PATCH", f"/v2/orders/{dice.choice(ids[-9:])}", json=changes)
                ids += [answer.json()["id"]] if answer.status_code == 200 else []
            elif kind < 0.68:
                answer = floor.ask("DELETE", f"/v2/orders/{dice.choice(ids[-9:])}")
            elif kind < 0.72:
                share = {dice.choice(["qty", "percentage"]): dice.choice(["1", "50", "100", "0", "x", "1e9"])}
                answer = floor.ask("DELETE", f"/v2/positions/{dice.choice('XYZ')}", params=share)
            elif kind < 0.8:
                path = dice.choice(["/v2/orders", "/v2/stocks/bars", "/v2/calendar", "/v2/positions", "/v2/account"])
                names = dice.sample(["status", "limit", "after", "symbols", "start", "timeframe", "page_token"], 3)
                answer = floor.ask(
                    "GET", path, params={name: dice.choice(["all", "1Min", "X", "5", "é"]) for name in names}
                )
            else:
                answer = floor.ask("POST", "/nextbar/advance")
            assert answer.status_code < 500, answer.text
        updates.close()
        account = floor.exchange._exchange.clients[0].account
        assert {one.order.id for one in account.listed.values() if one.open} == set(account.venue.open_orders)
        assert {one.status for one in account.listed.values()} <= {
            "new", "held", "filled", "canceled", "expired", "replaced",
        }  # fmt: skip
        assert sum(one.status == "filled" for one in account.listed.values()) > 10
        expected = picture(floor)
    with Floor(bars, terms=terms, state=state) as floor:
        found = picture(floor)
        found[5]["trade_updates"] = expected[5]["trade_updates"]  # counted since the start
        assert found == expected
