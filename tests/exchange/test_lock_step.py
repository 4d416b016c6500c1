"""The lock-step clock: its answers, its counts, and the same fills as the backtest to the last bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date
from typing import Any

import backtrader as bt
import pandas as pd
import pytest

from engine.cerebro.clock import to_nanoseconds
from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.data.cuts import with_history
from engine.data.samples import load_sample
from engine.data.timeframes import session_ends
from engine.simulation.simulate import simulate
from engine.trading.orders import SIDE_NAMES, OrderStatus
from tests.exchange.floor import Floor, broker, events, flat, frame, minutes


def test_each_answer_names_the_step_and_the_last_one_says_that_there_are_no_more() -> None:
    bars = minutes({"X": [flat(100.0)] * 3, "Y": [flat(50.0), None, flat(50.0)]})
    ends = [int(time.value) for time in bars.frames["X"].index]
    with Floor(bars) as floor:
        status = floor.get("/nextbar/status")
        assert status == {
            "mode": "lock-step", "speed": None, "time": ends[0], "done": False, "step": 0, "bars": 0,
            "trade_updates": 0,
        }  # fmt: skip
        nothing = {"bars": 0, "trade_updates": 0, "shown": 0, "told": [], "hears_trades": False, "hears_bars": False}
        assert floor.advance() == nothing | {
            "time": ends[1], "done": False, "step": 1, "start": ends[0], "moved": True,
        }  # fmt: skip
        assert floor.advance() == nothing | {
            "time": ends[2], "done": False, "step": 2, "start": ends[1], "moved": True,
        }  # fmt: skip
        for _ in range(2):
            assert floor.advance() == nothing | {
                "time": None, "done": True, "step": 2, "start": ends[1], "moved": False,
            }  # fmt: skip
        status = floor.get("/nextbar/status")
        assert (status["time"], status["done"]) == (ends[2], True)


def test_counts_are_of_messages_pushed_to_this_accounts_connections() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 5, "Y": [flat(50.0)] * 5})) as floor:
        floor.order()  # nobody listens: not counted
        moved = floor.advance()
        assert (moved["bars"], moved["trade_updates"], moved["shown"], moved["told"]) == (0, 0, 0, [])
        floor.advance()
        data, updates = floor.data(bars=["X"]), floor.updates()
        floor.order()
        moved = floor.advance()
        assert (moved["bars"], moved["trade_updates"]) == (1, 3)
        assert len(frame(data)) == 1
        assert len(events(updates, 3)) == 3
        assert floor.advance()["bars"] == 2


def test_a_step_that_was_taken_is_answered_again_and_not_taken_twice() -> None:
    bars = minutes({"X": [flat(100.0)] * 4})
    first, second, third, last = [int(time.value) for time in bars.frames["X"].index]
    with Floor(bars) as floor:
        floor.data(bars=["X"])
        floor.updates()

        def after(time: int) -> dict[str, Any]:
            answer = floor.ask("POST", "/nextbar/advance", params={"after": time})
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        floor.order()
        moved = after(first)
        assert (moved["time"], moved["moved"], moved["step"], moved["shown"]) == (second, True, 1, 1)
        assert len(moved["told"]) == 3
        for _ in range(2):
            assert after(first) == moved | {"moved": False}
        assert floor.get("/nextbar/status")["step"] == 1
        answer = floor.ask("POST", "/nextbar/advance", params={"after": third})
        assert answer.status_code == 409
        assert "stands at 2024-01-02T14:32:00Z, before 2024-01-02T14:33:00Z" in answer.json()["message"]
        for nonsense in ("", "soon", "-1", "1e3", "9" * 30):
            answer = floor.ask("POST", "/nextbar/advance", params={"after": nonsense})
            assert answer.status_code == 422, nonsense
        assert (after(second)["time"], after(third)["time"]) == (third, last)
        done = after(last)
        assert (done["time"], done["done"], done["moved"], done["step"]) == (None, True, False, 3)
        assert after(third) == done | {"time": last, "done": False, "moved": False}


def test_an_answer_names_every_update_of_its_step_and_those_since_the_step_before() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 5})) as floor:
        socket = floor.updates()
        resting = floor.order(type="limit", limit_price=90)
        floor.order()
        first = floor.advance()["told"]
        assert first == [one["execution_id"] for one in events(socket, 5)]
        floor.ask("DELETE", f"/v2/orders/{resting['id']}")
        floor.order("sell")
        second = floor.advance()["told"]
        assert second == [one["execution_id"] for one in events(socket, 4)]
        assert not set(first) & set(second)
        assert floor.advance()["told"] == []


def test_updates_and_bars_are_on_their_way_with_the_answer() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3})) as floor:
        data, updates = floor.data(bars=["*"]), floor.updates()
        floor.order()
        floor.advance()
        assert data.recv(timeout=0.5)
        assert [one["event"] for one in events(updates, 3)] == ["pending_new", "new", "fill"]


def test_only_a_lock_step_exchange_can_be_advanced() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3}), speed=1.0) as floor:
        answer = floor.ask("POST", "/nextbar/advance")
        assert answer.status_code == 409
        assert "lock-step" in answer.json()["message"]


# --- parity --------------------------------------------------------------------------------------------------------

Script = dict[int, list[dict[str, Any]]]


def scripted(bars: Bars, times: list[int], seed: int, fractional: bool) -> Script:
    """Random orders at random steps: every type, brackets, cancels; some that no account can pay.

    A fractional account sends fractions of a share, which may only be market orders of a day.
    """
    dice = random.Random(seed)
    script: Script = {}
    for time in times:
        for symbol, frame_ in bars.frames.items():
            known = frame_.loc[: pd.Timestamp(time, tz="UTC")]
            if known.empty or dice.random() > 0.15:
                continue
            last = float(known["close"].iloc[-1])
            side = dice.choice(["buy", "buy", "sell"])
            kind = dice.choice(["market", "market", "limit", "stop", "stop_limit", "bracket", "cancel"])
            away = 1.0 + dice.uniform(-0.002, 0.002)
            order: dict[str, Any] = {
                "symbol": symbol,
                "side": side,
                "type": kind,
                "qty": dice.choice([1, 7, 30, 100, 400]),
                "time_in_force": dice.choice(["day", "gtc"]),
                "limit_price": round(last * away, 2),
                "stop_price": round(last * (2.0 - away), 2),
                "target": round(last * (1.003 if side == "buy" else 0.997), 2),
                "stop": round(last * (0.998 if side == "buy" else 1.002), 2),
            }
            if fractional and kind != "cancel":
                order |= {"type": "market", "time_in_force": "day", "qty": round(dice.uniform(0.1, 90.0), 9)}
            script.setdefault(time, []).append(order)
    return script


class Scripted(bt.Strategy):
    """Sends the script's orders, and keeps what became of each in ``sent``."""

    params = (("script", None), ("sent", None))

    def next(self) -> None:
        now = to_nanoseconds(max(data.datetime[0] for data in self.datas if len(data)))
        for number, order in enumerate(self.p.script.get(now, ())):
            data = self.getdatabyname(order["symbol"])
            if not len(data):
                continue
            if order["type"] == "cancel":
                if self.p.sent:
                    self.cancel(list(self.p.sent.values())[-1][0])
                continue
            self.p.sent[now, number] = self.submit(order, data)

    def submit(self, order: Mapping[str, Any], data: Any) -> list[Any]:
        common = {"data": data, "size": order["qty"], "valid": 0 if order["time_in_force"] == "day" else None}
        go = self.buy if order["side"] == "buy" else self.sell
        if order["type"] == "market":
            return [go(exectype=bt.Order.Market, **common)]
        if order["type"] == "limit":
            return [go(exectype=bt.Order.Limit, price=order["limit_price"], **common)]
        if order["type"] == "stop":
            return [go(exectype=bt.Order.Stop, price=order["stop_price"], **common)]
        if order["type"] == "stop_limit":
            prices = {"price": order["stop_price"], "plimit": order["limit_price"]}
            return [go(exectype=bt.Order.StopLimit, **prices, **common)]
        whole = self.buy_bracket if order["side"] == "buy" else self.sell_bracket
        legs = {"stopprice": order["stop"], "limitprice": order["target"]}
        valid = common["valid"]
        made: list[Any] = whole(
            data=data, size=order["qty"], exectype=bt.Order.Market, valid=valid,
            stopargs={"valid": valid}, limitargs={"valid": valid}, **legs,
        )  # fmt: skip
        return made


def body_of(order: Mapping[str, Any]) -> dict[str, Any]:
    """The script's order as Alpaca takes it."""
    body = {name: order[name] for name in ("symbol", "side", "qty", "time_in_force")}
    kind = order["type"]
    if kind == "bracket":
        exits = {"take_profit": {"limit_price": order["target"]}, "stop_loss": {"stop_price": order["stop"]}}
        return body | {"type": "market", "order_class": "bracket", **exits}
    prices = {"limit": ("limit_price",), "stop": ("stop_price",), "stop_limit": ("limit_price", "stop_price")}
    return body | {"type": kind} | {name: order[name] for name in prices.get(kind, ())}


COSTS = {"bps": 0.7, "per_share": 0.003, "minimum": 0.35}
CASES = {
    "margin, minutes": (
        ("minutes", ("SYN_CALM", "SYN_THIN", "SYN_WILD"), (date(2023, 11, 22), date(2023, 11, 24))),
        broker(cash=50_000.0, short=True, slippage_bps=1.3, commission=COSTS),
    ),
    "cash, minutes": (
        ("minutes", ("SYN_CALM", "SYN_THIN", "SYN_WILD"), (date(2023, 11, 22), date(2023, 11, 24))),
        broker(cash=20_000.0, account="cash", slippage_bps=0.9, commission=COSTS),
    ),
    "margin, days": (
        ("tech", ("AAPL", "IBM", "MSFT"), (date(2010, 1, 4), date(2011, 6, 30))),
        broker(cash=50_000.0, short=True, slippage_bps=2.0, commission=COSTS),
    ),
    "fractions, days": (
        ("tech", ("AAPL", "IBM", "MSFT"), (date(2010, 1, 4), date(2011, 6, 30))),
        broker(cash=50_000.0, short=True, fractional=True, slippage_bps=2.0, commission=COSTS),
    ),
}


@pytest.mark.parametrize(("replayed", "terms"), CASES.values(), ids=CASES)
def test_the_same_orders_give_the_backtests_fills_and_cash_to_the_last_bit(
    replayed: tuple[str, tuple[str, ...], tuple[date, date]], terms: BrokerConfig
) -> None:
    name, symbols, span = replayed
    bars, start, _ = with_history(load_sample(name, symbols), span, warmup=30)
    times = sorted({int(t.value) for f in bars.frames.values() for t in f.index if t >= start})
    script = scripted(bars, times, seed=11, fractional=terms.fractional)
    sent: dict[tuple[int, int], list[Any]] = {}
    backtest = simulate(
        bars,
        Scripted,
        {"script": script, "sent": sent},
        broker=terms,
        risk=RiskConfig(max_gross=2.0),
        start=start,
        session_ends=session_ends(bars),
    )
    with Floor(bars, start=start, terms=terms) as floor:
        socket = floor.updates()
        heard: list[dict[str, Any]] = []
        asked = rejected = 0
        placed: dict[str, Any] | None = None
        while (moved := floor.advance())["time"] is not None:
            heard += events(socket, moved["trade_updates"] - len(heard))
            for number, order in enumerate(script.get(moved["time"], ())):
                key = (moved["time"], number)
                if order["type"] == "cancel":
                    if asked and placed is not None:
                        floor.ask("DELETE", f"/v2/orders/{placed['id']}")
                    continue
                if key not in sent or sent[key][0].info.get("reason", "").startswith(("risk.", "its entry")):
                    placed = None if key in sent else placed
                    continue  # our own risk gate kept it at home
                asked += 1
                answer = floor.ask("POST", "/v2/orders", json=body_of(order))
                assert answer.status_code in (200, 403), answer.text
                placed = answer.json() if answer.status_code == 200 else None
                rejected += placed is None
        heard += events(socket, floor.get("/nextbar/status")["trade_updates"] - len(heard))
        account = floor.get("/v2/account")
    fills = [
        (
            one["order"]["symbol"],
            one["order"]["side"],
            float(one["qty"]),
            float(one["price"]),
            one["timestamp"][:19],
            float(one["position_qty"]),
        )
        for one in heard
        if one["event"] in ("fill", "partial_fill")
    ]
    expected = []
    held: dict[str, float] = {}
    for fill in backtest.ledger.fills:
        held[fill.symbol] = round(held.get(fill.symbol, 0.0) + fill.signed_quantity, 9)
        time = pd.Timestamp(fill.time, tz="UTC").strftime("%Y-%m-%dT%H:%M:%S")
        expected.append((fill.symbol, SIDE_NAMES[fill.side], fill.quantity, fill.price, time, held[fill.symbol]))
    assert len(fills) > 100
    assert fills == expected
    assert float(account["cash"]) == backtest.ledger.cash
    turned_down = [order for order in backtest.orders if order.status is OrderStatus.REJECTED and order.parent is None]
    assert rejected == len(turned_down) > 3
    kinds = {"fill"} if terms.fractional else {"fill", "canceled", "expired"}
    assert {one["event"] for one in heard} >= kinds
    assert len({one["execution_id"] for one in heard}) == len(heard)
    stamps = [pd.Timestamp(one["timestamp"]).value for one in heard]
    assert stamps == sorted(set(stamps))
