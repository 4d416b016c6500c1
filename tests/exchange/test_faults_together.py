"""All faults at once, drawn from seeds: the exchange itself never breaks, and its state brings everything back."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed

from engine.exchange.faults import KINDS, Faults
from tests.exchange.floor import Floor, broker, minutes

STEPS = 60
DICE = random.Random(0)
BARS = minutes(
    {
        symbol: [(p, p + 1.0, p - 1.0, p + 0.5) for p in (100.0 + DICE.randint(-5, 5) for _ in range(STEPS + 1))]
        for symbol in ("X", "Y")
    }
)
# A request that is never answered costs the test the time of its time-out, and is tested alone.
QUICK = "+".join(kind for kind in KINDS if not kind.startswith("timeout"))


def patiently(floor: Floor, method: str, path: str, **more: Any) -> requests.Response:
    """Ask until there is an answer that is no fault's."""
    while True:
        with suppress(requests.ConnectionError):
            answer = floor.ask(method, path, **more)
            if answer.status_code not in (429, 500, 504):
                return answer


def listening(floor: Floor) -> None:
    """Connect again, as a client does whose connections were cut."""
    with suppress(ConnectionClosed, OSError, AssertionError):  # 406 while the connection before it is still there
        floor.data(bars=["*"], updatedBars=["*"])
    with suppress(ConnectionClosed, OSError):
        floor.updates()


@pytest.mark.parametrize("seed", range(6))
def test_orders_are_taken_once_and_the_state_brings_all_of_it_back(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults.parse(f"seed={seed},count=30,kinds={QUICK}")
    terms = broker(cash=1e6, short=True, slippage_bps=1.0, commission={"per_share": 0.01})
    dice = random.Random(seed)
    now, sent, step = int(BARS.frames["X"].index[0].value), 0, 0
    with Floor(BARS, terms=terms, faults=faults, state=tmp_path / "state") as floor:
        while step < STEPS:
            listening(floor)
            moved = patiently(floor, "POST", "/nextbar/advance", params={"after": now}).json()
            assert moved["step"] > step
            assert moved["step"] - step <= 5
            now, step = moved["time"], moved["step"]
            for _ in range(dice.randint(0, 2)):
                sent += 1
                body = {
                    "symbol": dice.choice("XY"), "qty": dice.randint(1, 5), "side": "buy", "time_in_force": "day",
                    "type": "limit", "limit_price": dice.randint(97, 103), "client_order_id": str(sent),
                }  # fmt: skip
                answer = patiently(floor, "POST", "/v2/orders", json=body)
                assert answer.status_code in (200, 422), answer.text  # 422: it was taken, and the answer was a fault's
        orders = patiently(floor, "GET", "/v2/orders", params={"status": "all", "limit": 500}).json()
        assert sorted(int(order["client_order_id"]) for order in orders) == list(range(1, sent + 1))
        expected = [patiently(floor, "GET", path).json() for path in ("/v2/account", "/v2/positions")]
        assert len(floor.exchange.faults_spent) > 15
        drawn = floor.exchange.faults
    with Floor(BARS, terms=terms, faults=drawn, state=tmp_path / "state") as floor:
        assert patiently(floor, "GET", "/v2/orders", params={"status": "all", "limit": 500}).json() == orders
        assert [patiently(floor, "GET", path).json() for path in ("/v2/account", "/v2/positions")] == expected
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
