"""A strategy that follows a script of orders of every kind, and writes down all that it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import backtrader as bt


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What to do at a bar; prices are fractions of the last close, so that a script can be drawn without the bars.

    So is the size where ``share`` is not 0: a fraction of the equity, in whole shares where ``size`` is whole.

    Attributes:
        kind: market, limit, stop, stop_limit, close, cancel (an order given before) or cancel_leg.
        which: of a cancel: how many orders back.
        legs: of an entry: any of ``s`` (stop), ``l`` (stop-limit) and ``t`` (target), in the sequence in which they are
            given; ``late`` gives them after the bar's other entries.
        cancel_now: cancel it again in the same ``next``.
        on_fill: send a market order back as soon as it is heard that it was filled.
    """

    symbol: int = 0
    kind: str = "market"
    side: int = 1
    size: float = 10.0
    share: float = 0.0
    limit: float = 1.0
    stop: float = 1.0
    day: bool = False
    legs: str = ""
    leg_stop: float = 0.95
    leg_target: float = 1.05
    late: bool = False
    which: int = 1
    cancel_now: bool = False
    on_fill: bool = False


Script = dict[int, list[Wish]]


class Wishes(bt.Strategy):
    """Grants the wishes of ``script`` (step -> wishes). ``seen`` takes what it was told and what it saw, in order."""

    params = (("script", None), ("seen", None), ("at_stop", ""))

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.legs: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.answered: set[int] = set()
        self.returns: set[int] = set()
        self.step = 0

    def prenext(self) -> None:
        self.next()

    def nextstart(self) -> None:
        self.next()

    def next(self) -> None:
        held = tuple((self.getposition(d).size, self.getposition(d).price) for d in self.datas)
        closes = tuple(d.close[0] if len(d) else 0.0 for d in self.datas)
        self.p.seen.append(
            ("next", len(self), self.datetime[0], closes, held, self.broker.getcash(), self.broker.getvalue())
        )
        late: list[tuple[Wish, Any]] = []
        for wish in self.p.script.get(self.step, ()):
            entry = self.grant(wish)
            if entry is None:
                continue
            if wish.late:
                late.append((wish, entry))
            else:
                self.protect(wish, entry)
        for wish, entry in late:
            self.protect(wish, entry)
        self.step += 1

    def grant(self, wish: Wish) -> Any:
        data = self.datas[wish.symbol % len(self.datas)]
        if wish.kind in ("cancel", "cancel_leg"):
            among = self.given if wish.kind == "cancel" else self.legs
            if among:
                self.cancel(among[-min(wish.which, len(among))])
            return None
        if not len(data):
            return None
        if wish.kind == "close":
            self.keep(self.close(data))
            return None
        close = data.close[0]
        prices: dict[str, Any] = {
            "market": {"exectype": bt.Order.Market},
            "limit": {"exectype": bt.Order.Limit, "price": close * wish.limit},
            "stop": {"exectype": bt.Order.Stop, "price": close * wish.stop},
            "stop_limit": {"exectype": bt.Order.StopLimit, "price": close * wish.stop, "plimit": close * wish.limit},
        }[wish.kind]
        go = self.buy if wish.side > 0 else self.sell
        size = wish.size
        if wish.share:
            size = wish.share * self.broker.getvalue() / close
            size = size if wish.size % 1 else float(int(size))
        order = self.keep(go(data, size=size, valid=0 if wish.day else None, **prices))
        if order is not None and wish.on_fill:
            self.returns.add(order.ref)
        if order is not None and wish.cancel_now and not wish.legs:
            self.cancel(order)
        return order

    def protect(self, wish: Wish, entry: Any) -> None:
        close = entry.data.close[0]
        go = self.sell if wish.side > 0 else self.buy
        # Of a short entry the stop lies above, and the target below.
        stop = close * (wish.leg_stop if wish.side > 0 else 2.0 - wish.leg_stop)
        target = close * (wish.leg_target if wish.side > 0 else 2.0 - wish.leg_target)
        common = {
            "data": entry.data,
            "size": abs(entry.created.size),
            "valid": 0 if wish.day else None,
            "parent": entry,
        }
        for leg in wish.legs:
            if leg == "t":
                order = go(exectype=bt.Order.Limit, price=target, **common)
            elif leg == "s":
                order = go(exectype=bt.Order.Stop, price=stop, **common)
            else:
                bound = stop * (0.99 if wish.side > 0 else 1.01)
                order = go(exectype=bt.Order.StopLimit, price=stop, plimit=bound, **common)
            if order is not None:
                self.legs.append(self.keep(order))
        if wish.cancel_now and wish.legs:
            self.cancel(entry)

    def keep(self, order: Any) -> Any:
        if order is not None:
            self.given.append(order)
            self.numbers[order.ref] = len(self.given)
            self.p.seen.append(("gave", len(self.given), order.getstatusname()))
        return order

    def notify_order(self, order: Any) -> None:
        done = order.executed
        number = self.numbers.get(order.ref, 0)
        self.p.seen.append(
            ("order", number, order.data._name, order.getstatusname(), order.created.size, order.created.price,
             done.size, done.price, done.value, done.comm, done.pnl, done.remsize, len(order.data), self.step)
        )  # fmt: skip
        if order.status == bt.Order.Completed and order.ref in self.returns:
            self.returns.discard(order.ref)
            back = self.sell if order.isbuy() else self.buy
            self.keep(back(order.data, size=abs(done.size)))

    def notify_trade(self, trade: Any) -> None:
        self.p.seen.append(
            ("trade", trade.data._name, trade.status, trade.size, trade.price, trade.value, trade.pnl, trade.pnlcomm,
             trade.commission, trade.barlen, trade.isclosed)
        )  # fmt: skip

    def notify_cashvalue(self, cash: float, value: float) -> None:
        self.p.seen.append(("cash", cash, value))

    def stop(self) -> None:
        if "cancel" in self.p.at_stop:
            for order in self.given:
                self.cancel(order)
        if "buy" in self.p.at_stop:
            self.keep(self.buy(self.datas[0], size=1))
