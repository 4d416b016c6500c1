"""A plain backtrader strategy that is never content: every kind of order, cancels, closes, drawn from its own state."""

from __future__ import annotations

import random
from typing import Any

import backtrader as bt


class Restless(bt.Strategy):
    """Draws what to do from its seed, its step and what it was told; the same past makes it do the same."""

    params = (("seed", 1), ("eager", 0.35))

    def __init__(self) -> None:
        self.told = 0
        self.given: list[Any] = []

    def prenext(self) -> None:
        self.next()

    def notify_order(self, order: Any) -> None:
        # What it is told, and in which order, changes what it does: a missed or doubled notice is seen in the hashes.
        self.told = (self.told * 31 + int(order.status) * 7 + int(order.executed.size * 3)) % 1_000_003
        if order.status == order.Completed and not order.alive() and self.told % 5 == 0 and order.parent is None:
            held = self.getposition(order.data).size
            if held:
                self.close(data=order.data)

    def next(self) -> None:
        draw = random.Random(f"{self.p.seed} {len(self)} {self.told}")
        for data in self.datas:
            if not len(data) or draw.random() > self.p.eager:
                continue
            close, held = data.close[0], self.getposition(data).size
            size = draw.randint(2, 20)
            what = draw.choice(("market", "limit", "stop", "bracket", "cancel", "close", "bracket", "cancel"))
            if what == "cancel" and self.given:
                self.cancel(self.given.pop(draw.randrange(len(self.given))))
            elif what == "close" and held:
                self.close(data=data)
            elif what == "market":
                self.given.append(self.buy(data=data, size=size))
            elif what == "limit":
                price = round(close * draw.uniform(0.97, 1.0), 2)
                self.given.append(self.buy(data=data, size=size, exectype=bt.Order.Limit, price=price))
            elif what == "stop" and held > 0:
                price = round(close * draw.uniform(0.96, 0.995), 2)
                self.given.append(self.sell(data=data, size=held, exectype=bt.Order.Stop, price=price))
            elif what == "bracket":
                stop, target = round(close * draw.uniform(0.95, 0.99), 2), round(close * draw.uniform(1.01, 1.05), 2)
                self.given += self.buy_bracket(
                    data=data, size=size, exectype=bt.Order.Market, stopprice=stop, limitprice=target
                )
