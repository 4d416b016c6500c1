"""Our way of making and copying backtrader's orders gives what its own way gives."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import pytest
from stage import array_feed, days, walk

from engine.cerebro.loop import Engine
from engine.cerebro.shown import shown_order, snapshot

Order = bt.Order
ORDERS: dict[str, dict[str, Any]] = {
    "market": {},
    "limit": {"exectype": Order.Limit, "price": 99.0},
    "stop": {"exectype": Order.Stop, "price": 98.0},
    "stop limit": {"exectype": Order.StopLimit, "price": 98.0, "pricelimit": 97.0},
    "only a limit": {"exectype": Order.StopLimit, "pricelimit": 97.0},
    "leg": {"parent": "entry"},
}


def state(order: Any) -> dict[str, Any]:
    """Everything an order holds, but its number and its end of session."""
    values = {name: value for name, value in vars(order).items() if name not in ("ref", "dteos", "params", "p")}
    values["params"] = {name: getattr(order.p, name) for name in order.p._getkeys()}
    for name in ("created", "executed"):
        values[name] = vars(values[name])
    return values


@pytest.mark.parametrize("family", [bt.BuyOrder, bt.SellOrder])
@pytest.mark.parametrize("kind", ORDERS)
def test_an_order_and_its_copy_are_those_of_backtrader(kind: str, family: Any) -> None:
    seen: list[tuple[Any, Any]] = []

    class Makes(bt.Strategy):
        def next(self) -> None:
            values = {"price": None, "pricelimit": None, "exectype": Order.Market, "parent": None, **ORDERS[kind]}
            values |= {"owner": self, "data": self.data, "size": 5, "valid": None, "tradeid": 0, "oco": None}
            theirs, ours = family(**values), shown_order(family, **values)
            for order in (theirs, ours):
                order.addcomminfo(self.broker.getcommissioninfo(self.data))
                order.submit(self.broker)
                order.accept(self.broker)
            seen.append((theirs, ours))
            for order in (theirs, ours):
                order.execute(1.0, order.size, 100.0, 0, 0.0, 0.0, order.size, 500.0, 1.0, None, 0.0, 5, 100.0)
            seen.append((theirs.clone(), snapshot(ours)))
            assert ours.alive() == theirs.alive()
            assert (ours.isbuy(), ours.getordername()) == (theirs.isbuy(), theirs.getordername())
            self.env.runstop()

    engine = Engine()
    engine.adddata(array_feed(walk(days(3), seed=1), "A"))
    engine.addstrategy(Makes)
    engine.run()
    assert len(seen) == 2
    for theirs, ours in seen:
        expected, found = state(theirs), state(ours)
        for name in ("created", "executed"):
            expected[name] = {**expected[name], "exbits": len(expected[name]["exbits"])}
            found[name] = {**found[name], "exbits": len(found[name]["exbits"])}
        assert found == expected
