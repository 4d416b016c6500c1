"""Bars that come late, never, or are revised: what clients are shown then. Matching and prices see the true ones."""

from __future__ import annotations

import numpy as np

from engine.exchange.faults import ArmedFaults
from engine.exchange.market import Market, Step
from engine.trading.orders import on_tick


class FlawedBars:
    """The differences between the market's bars and those that are shown, by symbol and position in its series.

    Attributes:
        unshown: symbols whose bar of this step is not pushed.
        revised: symbols whose bar of this step was revised, and the rows after it.
    """

    def __init__(self, market: Market, faults: ArmedFaults) -> None:
        self.unshown: set[str] = set()
        self.revised: dict[str, list[float]] = {}
        self._market = market
        self._faults = faults
        self._late: set[tuple[str, int]] = set()
        self._lost: set[tuple[str, int]] = set()
        self._rows: dict[tuple[str, int], list[float]] = {}

    def take(self, step: Step) -> None:
        """Let the faults that are armed strike a step's bars; what came late in the step before is known now."""
        self._late.clear()
        self.unshown.clear()
        self.revised.clear()
        symbol = step.symbols[self._faults.position % len(step.symbols)]
        at = int(np.searchsorted(self._market.series[symbol].ends, step.time))
        kind = self._faults.take("late-bar", "lost-bar")
        if kind:
            self.unshown.add(symbol)
            (self._late if kind == "late-bar" else self._lost).add((symbol, at))
        elif self._market.timeframe == "1m" and self._faults.take("revision"):
            open_, high, low, close, volume = step.rows[step.symbols.index(symbol)]
            close = on_tick(close + (0.01 if close >= 1.0 else 0.0001))
            row = [open_, max(high, close), low, close, volume]
            self.revised[symbol] = self._rows[symbol, at] = row

    def hides(self, symbol: str, at: int) -> bool:
        """Whether the history leaves a bar out."""
        return (symbol, at) in self._late or (symbol, at) in self._lost

    def row(self, symbol: str, at: int) -> list[float] | None:
        """Open, high, low, close and volume of a bar that was revised; None for any other."""
        return self._rows.get((symbol, at))
