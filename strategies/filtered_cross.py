"""Two timeframes in one rule: moving averages of short bars, followed only while the longer bars' trend is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np

from engine.errors import ConfigError
from strategies.rule import Context, Floats, Rule


class FilteredCrossParams(NamedTuple):
    """Lengths of the averages, the trend's in longer bars, and the smallest change that is worth an order."""

    fast: float = 4.0
    slow: float = 13.0
    trend: float = 5.0
    min_change: float = 0.02


class FilteredCross(Rule):
    """Equal weights on the symbols with the fast average above the slow one and the longer close above its average.

    The longer bars are those of the first timeframe in the run file's ``data.slower``. Before a symbol has ``trend`` of
    them it is not traded.
    """

    Params = FilteredCrossParams
    signals = ("fast", "slow", "longer", "trend")

    @classmethod
    def parameters(cls, values: Mapping[str, float], context: Context) -> FilteredCrossParams:
        """Whole lengths, the fast one shorter."""
        params = FilteredCrossParams(**values)
        lengths = (params.fast, params.slow, params.trend)
        if not all(length.is_integer() and length >= 1.0 for length in lengths) or params.fast >= params.slow:
            raise ConfigError(
                "strategy.params: expected whole lengths with 1 <= fast < slow and trend >= 1, "
                f"found {params.fast:g}, {params.slow:g} and {params.trend:g}"
            )
        return params

    def lines(self, data: Any) -> Sequence[Any]:
        """Two averages of the close, the last longer bar's close, and the average of those."""
        if not data.slower:
            raise ConfigError("data.slower: FilteredCross looks at longer bars too; add some, as in slower: [1d]")
        longer = next(iter(data.slower.values()))
        averages = [bt.ind.SMA(data.close, period=int(period)) for period in (self.params.fast, self.params.slow)]
        return [*averages, longer.close, bt.ind.SMA(longer.close, period=int(self.params.trend))]

    @staticmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: FilteredCrossParams) -> Floats:
        """1/symbols where fast > slow and the longer close is above its average, else 0; see ``Rule.targets``."""
        result = np.zeros(len(weights))
        for i in range(len(weights)):
            if signals[i, 0] > signals[i, 1] and signals[i, 2] > signals[i, 3]:
                result[i] = 1.0 / len(weights)
        return result
