"""A run whose bundle was exchanged for a newer one: each bar is decided on by the one that was there then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.features import Columns, Floats
from models.forecaster import Forecaster, Turn
from models.predictor import Row
from models.walk_forward import Stitched


class Successive(Forecaster):
    """The forecaster of several bundles that decide one after another.

    The first one says how many bars a forecast needs, as it did when it was alone; a later one that needs more says
    NaN where there are not so many.

    Args:
        turns: in the order of time; all forecast the horizon.
    """

    def __init__(self, turns: Sequence[Turn], *, horizon: int | None = None, classes: bool = False) -> None:
        super().__init__(turns[-1].bundle, horizon=horizon, classes=classes)
        each = [Forecaster(turn.bundle, horizon=self.horizon, classes=classes) for turn in turns]
        self._predictor = Stitched([own._predictor for own in each], after=[turn.after for turn in turns])
        self.turns = tuple(turns)
        self.memory, self.needed = self._predictor.memory, each[0].memory

    def at(self, horizon: int) -> Forecaster:
        """See ``Forecaster.at``."""
        if horizon != self.horizon and horizon not in self._others:
            self._others[horizon] = Successive(self.turns, horizon=horizon)
        return super().at(horizon)

    @property
    def with_classes(self) -> Forecaster:
        """See ``Forecaster.with_classes``."""
        if self._with_classes is None:
            self._with_classes = Successive(self.turns, horizon=self.horizon, classes=True)
        return self._with_classes

    def forecast(self, columns: Columns) -> Floats:
        """See ``Forecaster.forecast``; NaN where fewer bars are known than the bundle of the bar needs."""
        if not len(columns):
            return np.full((0, self._predictor.width), np.nan)
        return self._predictor.series(columns)

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """See ``Forecaster.latest_of``; of ``needed`` to ``memory`` bars."""
        return self._predictor.latest_of(several)
