"""Trade a forecast in classes: buy what is likelier to rise than to fall by a margin, while a longer look agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.errors import ConfigError
from models.indicator import DirectionIndicator
from strategies.rule import Context, Floats, Rule, needed_forecaster


class DirectionParams(NamedTuple):
    """Parameters of the direction rule.

    Attributes:
        margin: by how much the probability of a rise must be above that of a fall to enter; the other way to sell.
        longer: the longer horizon, in bars, whose likelier direction must agree with an entry; 0 asks none.
        cap: weight of one symbol, as a fraction of equity.
        max_bars: bars after which a position is closed whatever is likely.
        max_gross: largest sum of absolute weights; entries are scaled down to it.
        short: 1 when falls may be sold; follows from the broker section.
    """

    margin: float = 0.1
    longer: float = 0.0
    cap: float = 0.25
    max_bars: float = 10.0
    max_gross: float = 1.0
    short: float = 0.0


class Direction(Rule):
    """The rule of ``configs/horizons.yaml``; its model has ``head: direction``.

    A position is held while its direction is still the likelier one of the two.
    """

    Params = DirectionParams
    signals = ("down", "up", "longer_down", "longer_up")

    def __init__(self, values: Mapping[str, Any], context: Context) -> None:
        super().__init__(values, context)
        self._forecaster = needed_forecaster(context)

    @classmethod
    def parameters(cls, values: Mapping[str, float], context: Context) -> DirectionParams:
        """Permission to sell short comes from the account, unless the run file says otherwise."""
        for name in ("cap", "max_gross"):
            if not values.get(name, 1.0) > 0.0:
                raise ConfigError(f"strategy.params.{name}: expected a number above 0, found {values[name]:g}")
        if not values.get("margin", 0.0) >= 0.0:
            raise ConfigError(f"strategy.params.margin: expected 0 or more, found {values['margin']:g}")
        longer = values.get("longer", 0.0)
        if longer < 0.0 or not float(longer).is_integer():
            raise ConfigError(f"strategy.params.longer: expected a number of bars, or 0, found {longer:g}")
        return DirectionParams(**{"short": float(context.short), **values})

    def lines(self, data: Any) -> Sequence[Any]:
        """Probabilities of a fall and of a rise, at the traded horizon and at the longer one."""
        near = DirectionIndicator(data, bundle=self._forecaster).lines
        if not self.params.longer:
            return near.down, near.up, near.down, near.up
        far = DirectionIndicator(data, bundle=self._forecaster, horizon=int(self.params.longer)).lines
        return near.down, near.up, far.down, far.up

    @staticmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: DirectionParams) -> Floats:
        """Enter where both looks agree, hold while the nearer one does and time is left; see ``Rule.targets``."""
        result = np.zeros(len(weights))
        held, opened = 0.0, 0.0
        for i in range(len(weights)):
            near, far = signals[i, 1] - signals[i, 0], signals[i, 3] - signals[i, 2]
            if np.isnan(near) or np.isnan(far):
                result[i] = weights[i]
            elif weights[i] != 0.0:
                agrees = near * weights[i] > 0.0 and bars_held[i] < params.max_bars
                result[i] = weights[i] if agrees else 0.0
            elif abs(near) > params.margin and near * far > 0.0 and (near > 0.0 or params.short > 0.0):
                result[i] = np.sign(near) * params.cap
            if weights[i] != 0.0:
                held += abs(result[i])
            else:
                opened += abs(result[i])
        # Positions that are held stay as they are; new ones share what is left of the gross limit.
        if opened > 0.0 and held + opened > params.max_gross:
            scale = max(0.0, params.max_gross - held) / opened
            for i in range(len(weights)):
                if weights[i] == 0.0:
                    result[i] *= scale
        return result
