"""The yardstick: buy every symbol once, in equal parts, and hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from strategies.rule import Floats, Rule


class BuyAndHoldParams(NamedTuple):
    """Share of the equity that is invested."""

    invested: float = 1.0


class BuyAndHold(Rule):
    """Equal weights at each symbol's first bar, never changed."""

    Params = BuyAndHoldParams
    signals = ("close",)

    def lines(self, data: Any) -> Sequence[Any]:
        """The close, which says that the symbol is listed."""
        return [data.close]

    @staticmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: BuyAndHoldParams) -> Floats:
        """invested/symbols for every symbol that has a price; see ``Rule.targets``."""
        result = np.full(len(weights), params.invested / len(weights))
        for i in range(len(weights)):
            if weights[i] != 0.0:
                result[i] = weights[i]
        return result
