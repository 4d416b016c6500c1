"""Runs a rule as a backtrader strategy: reads its signals, turns changed targets into orders."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import numpy as np

from engine.trading.sizing import changes, rounded_down, target_quantity
from strategies.rule import Rule


class RuleStrategy(bt.Strategy):
    """The same class runs every rule, in backtest and paper alike.

    A symbol is decided on at its own bars only: one that is not listed yet, has stopped, or has no bar now keeps its
    target. Sells go out before buys, then symbols in order. A reversal is two orders on two bars: the position is
    closed first. A target whose order the broker turns down does not count as ordered, and is tried again at the next
    bar.
    """

    params = (("rule", None),)

    def __init__(self) -> None:
        rule: Rule = self.p.rule
        self._rule = rule
        self._lines = [list(rule.lines(data)) for data in self.datas]
        self._signals = np.full((len(self.datas), len(rule.signals)), np.nan)
        self._weights = np.zeros(len(self.datas))
        self._bars_held = np.zeros(len(self.datas))
        self._min_change = float(getattr(rule.params, "min_change", 0.0))

    def prenext(self) -> None:
        """Decide from the first bar of any symbol on: a late listing must not silence the others."""
        self.next()

    def nextstart(self) -> None:
        """As every other bar."""
        self.next()

    def next(self) -> None:
        """Ask the rule, and order what has changed."""
        now = self.datetime[0]
        fresh = [i for i, data in enumerate(self.datas) if len(data) and data.datetime[0] == now]
        for i in fresh:
            self._signals[i] = [line[0] for line in self._lines[i]]
            self._bars_held[i] = self._bars_held[i] + 1.0 if self._weights[i] else 0.0
        targets = self._rule.targets(
            self._signals.copy(), self._weights.copy(), self._bars_held.copy(), self._rule.params
        )
        wanted = []
        for i in fresh:
            target = float(targets[i])
            if np.isfinite(target) and changes(target, self._weights[i], self._min_change):
                wanted.append(self._wanted(i, target))
        self._free_cash = self.broker.getcash()
        for i, target, delta in sorted(wanted, key=lambda order: (order[2] > 0.0, order[0])):
            if self._order(i, delta):
                self._weights[i] = target

    def _wanted(self, i: int, target: float) -> tuple[int, float, float]:
        """Symbol, the target that this order is for, and the signed quantity it takes."""
        data = self.datas[i]
        context = self._rule.context
        held = self.getposition(data).size
        unit_cost = context.costs.unit_cost(data.close[0])
        quantity = target_quantity(target, self.broker.getvalue(), unit_cost, context.fractional)
        if held * quantity < 0.0:
            return i, 0.0, -held
        return i, target, quantity - held

    def _order(self, i: int, delta: float) -> bool:
        """Send the order; whether the target counts as ordered."""
        data, context = self.datas[i], self._rule.context
        if delta > 0.0 and context.account == "cash":
            # Pending sales have not paid yet: buys share what is there.
            affordable = rounded_down(
                max(0.0, self._free_cash) / context.costs.unit_cost(data.close[0]), context.fractional
            )
            delta = min(delta, affordable)
            self._free_cash -= delta * context.costs.unit_cost(data.close[0])
        if delta == 0.0:
            return True
        order: Any = self.buy(data, size=delta) if delta > 0.0 else self.sell(data, size=-delta)
        return bool(order.alive())
