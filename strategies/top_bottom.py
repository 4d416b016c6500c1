"""Trade the ranking of a model's forecasts: hold the symbols expected to do best, sell those expected to do worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.indicator import ForecastIndicator
from strategies.ranking import Ranking
from strategies.rule import Context, needed_forecaster


class TopBottom(Ranking):
    """The rule of Fischer & Krauss (2018, EJOR 270:654): long the top k of the forecasts, short the bottom k."""

    def __init__(self, values: Mapping[str, Any], context: Context) -> None:
        super().__init__(values, context)
        self._forecaster = needed_forecaster(context)

    def score(self, data: Any) -> Any:
        """The forecast of the symbol's log return, or of what it is above the others'."""
        return ForecastIndicator(data, bundle=self._forecaster).lines.forecast
