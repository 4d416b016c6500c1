"""Two timeframes in one rule: moving averages of short bars, traded only on days whose trend is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np

from engine.errors import ConfigError
from strategies.rule import Context, Floats, Rule


class FilteredCrossParams(NamedTuple):
    """Lengths of the averages in bars, of the daily average in days, and the smallest change that is worth an order."""

    fast: float = 4.0
    slow: float = 13.0
    days: float = 5.0
    min_change: float = 0.02


class FilteredCross(Rule):
    """Equal weights on the symbols with the fast average above the slow one and the last day above its average.

    The run file needs ``data.slower: [1d]``. Before a symbol has ``days`` whole days it is not traded.
    """

    Params = FilteredCrossParams
    signals = ("fast", "slow", "day", "days")

    @classmethod
    def parameters(cls, values: Mapping[str, float], context: Context) -> FilteredCrossParams:
        """Whole lengths, the fast one shorter."""
        params = FilteredCrossParams(**values)
        lengths = (params.fast, params.slow, params.days)
        if not all(length.is_integer() and length >= 1.0 for length in lengths) or params.fast >= params.slow:
            raise ConfigError(
                "strategy.params: expected whole lengths with 1 <= fast < slow and days >= 1, "
                f"found {params.fast:g}, {params.slow:g} and {params.days:g}"
            )
        return params

    def lines(self, data: Any) -> Sequence[Any]:
        """Two averages of the close, the close of the last whole day, and the average of the days' closes."""
        if "1d" not in data.slower:
            raise ConfigError("data.slower: FilteredCross looks at days too; add slower: [1d]")
        day = data.slower["1d"]
        averages = [bt.ind.SMA(data.close, period=int(period)) for period in (self.params.fast, self.params.slow)]
        return [*averages, day.close, bt.ind.SMA(day.close, period=int(self.params.days))]

    @staticmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: FilteredCrossParams) -> Floats:
        """1/symbols where fast > slow and the day is above its average, else 0; see ``Rule.targets``."""
        result = np.zeros(len(weights))
        for i in range(len(weights)):
            if signals[i, 0] > signals[i, 1] and signals[i, 2] > signals[i, 3]:
                result[i] = 1.0 / len(weights)
        return result
