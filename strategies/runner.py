"""Runs a rule as a backtrader strategy: reads its signals, turns changed targets into orders."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import numpy as np

from engine.cerebro.loop import feed_position
from engine.errors import StrategyError
from engine.trading.sizing import changes, rounded_down, target_quantity
from strategies.rule import Floats, Rule


class RuleStrategy(bt.Strategy):
    """The same class runs every rule, in backtest and paper alike.

    A symbol is decided on at its own bars only: one that is not listed yet, has stopped, or has no bar now keeps its
    target. Sells go out before buys, then symbols in order. A reversal is two orders on two bars: the position is
    closed first. A target whose order the broker turns down, at once or later, does not count as ordered, and is tried
    again at the next bar; so is the part of one that there was no room for, or that an order left when it ended. While
    an order is under way, as a slow broker may leave it beyond its bar, its symbol is not ordered again.

    Where the run has a universe, the rule is asked about those who are members at the bar; the target of the others
    is 0, so that what is held of a symbol is closed at its first bar outside.
    """

    params = (("rule", None),)

    def __init__(self) -> None:
        rule: Rule = self.p.rule
        self._rule = rule
        self._traded = [data for data in self.datas if not _is_slower(data)]
        self._lines = [list(rule.lines(data)) for data in self._traded]
        self._signals = np.full((len(self._traded), len(rule.signals)), np.nan)
        self._weights = np.zeros(len(self._traded))
        self._bars_held = np.zeros(len(self._traded))
        self._min_change = float(getattr(rule.params, "min_change", 0.0))
        # The universe's members at the last bar, and whether each symbol is one of them.
        self._members: frozenset[str] | None = None
        self._inside: Any = slice(None)
        # Symbol -> the feeds of its signals' longer bars, of which there is none yet.
        self._unseen = {i: feeds for i, lines in enumerate(self._lines) if (feeds := self._slower_feeds(lines))}
        # Symbol -> the order that is under way, and the target before it.
        self._under_way: dict[int, tuple[Any, float]] = {}

    @property
    def decision(self) -> dict[str, Any]:
        """What the last decision was made from and what it was: signals and target weights, in the symbols' order."""
        return {"signals": self._signals.tolist(), "weights": self._weights.tolist()}

    def prenext(self) -> None:
        """Decide from the first bar of any symbol on: a late listing must not silence the others."""
        self.next()

    def nextstart(self) -> None:
        """As every other bar."""
        self.next()

    def next(self) -> None:
        """Ask the rule, and order what has changed."""
        now = self.datetime[0]
        fresh = [i for i, data in enumerate(self._traded) if len(data) and data.datetime[0] == now]
        if self._under_way:
            self._take_back()
        for i in fresh:
            self._signals[i] = self._seen(i) if i in self._unseen else [line[0] for line in self._lines[i]]
            self._bars_held[i] = self._bars_held[i] + 1.0 if self._weights[i] else 0.0
        targets = self._targets()
        self._equity = self.broker.getvalue()
        wanted = []
        for i in fresh:
            target = float(targets[i])
            if (
                i not in self._under_way
                and not np.isnan(target)
                and changes(target, self._weights[i], self._min_change)
            ):
                wanted.append(self._wanted(i, target))
        if not wanted:
            return
        room = self._room(wanted)
        for i, target, delta in sorted(wanted, key=lambda order: (order[2] > 0.0, order[0])):
            if delta == 0.0:  # less than a share, or what is held already
                self._weights[i] = target
                continue
            fitted, room = self._fitted(i, delta, room)
            last = self._weights[i]
            # An order that was cut counts for its part of the way: the rest is tried again when there is room.
            ordered = target if fitted == delta else last + (target - last) * fitted / delta
            if changes(ordered, last, self._min_change):
                order = self._send(i, fitted)
                if order.alive():
                    self._weights[i] = ordered
                    self._under_way[i] = (order, last)

    def _slower_feeds(self, lines: list[Any]) -> list[Any]:
        """Of each line the feed that it follows, where that holds longer bars, else None; empty where none does."""
        if len(self._traded) == len(self.datas):
            return []
        feeds = [self.datas[feed_position(line, self.datas) or 0] for line in lines]
        slower = [feed if _is_slower(feed) else None for feed in feeds]
        return slower if any(feed is not None for feed in slower) else []

    def _seen(self, i: int) -> list[float]:
        """A symbol's signals while some of its longer bars are still to come: theirs are NaN."""
        feeds = self._unseen[i]
        if all(feed is None or len(feed) for feed in feeds):
            del self._unseen[i]
        lines = zip(self._lines[i], feeds, strict=True)
        return [line[0] if feed is None or len(feed) else np.nan for line, feed in lines]

    def _targets(self) -> Floats:
        """The rule's answer for all symbols; 0 for who is no member of the universe."""
        name = type(self._rule).__name__
        inside = self._who_is_inside()
        signals, weights, bars_held = (
            values[inside].copy() for values in (self._signals, self._weights, self._bars_held)
        )
        if not len(weights):
            return np.zeros(len(self._weights))
        try:
            targets = self._rule.targets(signals, weights, bars_held, self._rule.params)
        except Exception as error:
            raise StrategyError(f"{name}.targets raised {type(error).__name__}: {error}") from error
        if np.shape(targets) != weights.shape:
            raise StrategyError(
                f"{name}.targets: expected an array of {len(weights)} weights, one a symbol, "
                f"found the shape {np.shape(targets)}"
            )
        if len(weights) == len(self._weights):
            return targets
        everyone = np.zeros(len(self._weights))
        everyone[inside] = targets
        return everyone

    def _who_is_inside(self) -> Any:
        """What selects the universe's members of this bar from arrays of all symbols."""
        members = self.broker.members()
        if members is not self._members:
            self._members = members
            self._inside = slice(None)
            if members is not None:
                self._inside = np.array([data._name in members for data in self._traded])
        return self._inside

    def _wanted(self, i: int, target: float) -> tuple[int, float, float]:
        """Symbol, the target that this order is for, and the signed quantity it takes."""
        data = self._traded[i]
        context = self._rule.context
        held = self.getposition(data).size
        unit_cost = context.costs.unit_cost(data.close[0])
        quantity = target_quantity(target, self._equity, unit_cost, context.fractional)
        if held * quantity < 0.0:
            return i, 0.0, -held
        return i, target, quantity - held

    def _room(self, wanted: list[tuple[int, float, float]]) -> float:
        """Money that may be put to work at this bar.

        Up to the gross limit, counting what the closing orders of this bar set free; in a cash account no more than the
        cash that is there, since pending sales have not paid yet.
        """
        gross = 0.0
        deltas = {i: delta for i, _, delta in wanted}
        for i, data in enumerate(self._traded):
            held = self.getposition(data).size
            if held:
                after = held + deltas.get(i, 0.0)
                gross += min(abs(held), abs(after)) * data.close[0]
        room = float(self._rule.context.max_gross * self._equity - gross)
        if self._rule.context.account == "cash":
            room = min(room, self.broker.getcash())
        return max(0.0, room)

    def _fitted(self, i: int, delta: float, room: float) -> tuple[float, float]:
        """The order cut to the room that is left, and the room after it. What reduces a position is never cut."""
        held = self.getposition(self._traded[i]).size
        if held * delta < 0.0:
            return delta, room
        context = self._rule.context
        unit_cost = context.costs.unit_cost(self._traded[i].close[0])
        budget = max(0.0, room - context.costs.commission_minimum)
        quantity = min(abs(delta), rounded_down(budget / unit_cost, context.fractional))
        return float(np.copysign(quantity, delta)), budget - quantity * unit_cost

    def _send(self, i: int, delta: float) -> Any:
        """Give the order; it is alive if the broker took it."""
        data = self._traded[i]
        return self.buy(data, size=delta) if delta > 0.0 else self.sell(data, size=-delta)

    def _take_back(self) -> None:
        """Take back the targets of orders that have ended and were not filled, or for the part that was not."""
        for i, (order, before) in list(self._under_way.items()):
            if order.alive():
                continue
            del self._under_way[i]
            if order.status != bt.Order.Completed:
                done = order.executed.size / order.size
                self._weights[i] = before + (self._weights[i] - before) * done


def _is_slower(data: Any) -> bool:
    """Whether a feed, of whatever kind, holds longer bars that are only looked at."""
    return bool(getattr(data, "is_slower", False))
