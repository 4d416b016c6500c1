"""The rival everyone knows: hold a symbol while its fast moving average is above its slow one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np

from engine.errors import ConfigError
from strategies.rule import Context, Floats, Rule


class SmaCrossParams(NamedTuple):
    """Lengths of the averages in bars, and the smallest change of a target that is worth an order."""

    fast: float = 20.0
    slow: float = 50.0
    min_change: float = 0.02


class SmaCross(Rule):
    """Equal weights on the symbols whose fast average is above the slow one; the others' share stays in cash."""

    Params = SmaCrossParams
    signals = ("fast", "slow")

    @classmethod
    def parameters(cls, values: Mapping[str, float], context: Context) -> SmaCrossParams:
        """Whole lengths, the fast one shorter."""
        params = SmaCrossParams(**values)
        if not (params.fast.is_integer() and params.slow.is_integer() and 1.0 <= params.fast < params.slow):
            raise ConfigError(
                "strategy.params: expected whole lengths with 1 <= fast < slow, "
                f"found {params.fast:g} and {params.slow:g}"
            )
        return params

    def lines(self, data: Any) -> Sequence[Any]:
        """Both moving averages of the close."""
        return [bt.ind.SMA(data.close, period=int(period)) for period in (self.params.fast, self.params.slow)]

    @staticmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: SmaCrossParams) -> Floats:
        """1/symbols where fast > slow, else 0; see ``Rule.targets``."""
        result = np.zeros(len(weights))
        for i in range(len(weights)):
            if np.isnan(signals[i, 1]):
                result[i] = weights[i]
            elif signals[i, 0] > signals[i, 1]:
                result[i] = 1.0 / len(weights)
        return result
