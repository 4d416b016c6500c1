"""Trade a model's forecast: enter when it clears the costs, size it by its certainty, leave on a change of sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.errors import ConfigError
from models.indicator import ForecastIndicator
from strategies.rule import Context, Floats, Rule, needed_forecaster


class ForecastParams(NamedTuple):
    """Parameters of the forecast rule.

    Attributes:
        margin_bps: how far a forecast must clear the round-trip cost, in basis points.
        cap: largest weight of one symbol, as a fraction of equity.
        max_bars: bars after which a position is closed whatever the forecast says.
        min_change: smallest change of a target that is worth an order.
        full_size: forecast over interval width at which the cap is reached; weights are proportional below.
        max_gross: largest sum of absolute weights; more is scaled down.
        cost_bps: proportional cost of a round trip; follows from the broker section.
        short: 1 when negative forecasts may be sold; follows from the broker section.
    """

    margin_bps: float = 5.0
    cap: float = 0.25
    max_bars: float = 10.0
    min_change: float = 0.02
    full_size: float = 0.05
    max_gross: float = 1.0
    cost_bps: float = 0.0
    short: float = 0.0


class Forecast(Rule):
    """The rule of ``configs/quickstart.yaml``."""

    Params = ForecastParams
    signals = ("forecast", "lower", "upper")

    def __init__(self, values: Mapping[str, Any], context: Context) -> None:
        super().__init__(values, context)
        self._forecaster = needed_forecaster(context)

    @classmethod
    def parameters(cls, values: Mapping[str, float], context: Context) -> ForecastParams:
        """Costs and permission to sell short come from the account, unless the run file names others."""
        for name in ("cap", "full_size", "max_gross"):
            if not values.get(name, 1.0) > 0.0:
                raise ConfigError(f"strategy.params.{name}: expected a number above 0, found {values[name]:g}")
        own = {"cost_bps": context.costs.round_trip_bps, "short": float(context.short)}
        return ForecastParams(**{**own, **values})

    def lines(self, data: Any) -> Sequence[Any]:
        """Forecast, lower and upper bound of the symbol's log return over the horizon."""
        lines = ForecastIndicator(data, bundle=self._forecaster).lines
        return lines.forecast, lines.lower, lines.upper

    @staticmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: ForecastParams) -> Floats:
        """Enter beyond the hurdle, hold while the sign agrees and time is left, else leave; see ``Rule.targets``."""
        hurdle = (params.cost_bps + params.margin_bps) * 1e-4
        result = np.zeros(len(weights))
        for i in range(len(weights)):
            forecast, width = signals[i, 0], signals[i, 2] - signals[i, 1]
            if np.isnan(forecast):
                result[i] = weights[i]
            elif weights[i] != 0.0:
                agrees = forecast * weights[i] > 0.0 and bars_held[i] < params.max_bars
                result[i] = weights[i] if agrees else 0.0
            elif abs(forecast) > hurdle and (forecast > 0.0 or params.short > 0.0):
                certainty = 1.0
                if width > 0.0:
                    certainty = min(1.0, abs(forecast) / (width * params.full_size))
                result[i] = np.sign(forecast) * params.cap * certainty
        # Positions that are held stay as they are; new ones share what is left of the gross limit.
        held, opened = 0.0, 0.0
        for i in range(len(weights)):
            if weights[i] != 0.0:
                held += abs(result[i])
            else:
                opened += abs(result[i])
        if opened > 0.0 and held + opened > params.max_gross:
            scale = max(0.0, params.max_gross - held) / opened
            for i in range(len(weights)):
                if weights[i] == 0.0:
                    result[i] *= scale
        return result
