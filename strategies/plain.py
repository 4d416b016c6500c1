"""A plain backtrader strategy, as one would write it without knowing nextbar: three lines bring the forecast in."""

from __future__ import annotations

import backtrader as bt

from models.indicator import ForecastIndicator


class Plain(bt.Strategy):
    """Buys when a symbol's forecast is above a threshold, with a stop below; sells when it turns negative.

    A parameter named ``forecaster`` is given the run file's bundle.
    """

    params = (("forecaster", None), ("threshold_bps", 5.0), ("weight", 0.2), ("stop_pct", 8.0))

    def __init__(self) -> None:
        self.forecasts = [ForecastIndicator(data, bundle=self.p.forecaster) for data in self.datas]
        self.stops: dict[str, bt.Order] = {}

    def next(self) -> None:
        """Decide for each symbol by itself."""
        for data, forecast in zip(self.datas, self.forecasts, strict=True):
            if data.datetime[0] < self.datetime[0]:
                continue  # no new bar of its own: what was ordered at its last one still waits
            if self.getposition(data):
                if forecast.forecast[0] < 0.0:
                    self.cancel(self.stops[data._name])
                    self.close(data)
            elif forecast.forecast[0] > self.p.threshold_bps * 1e-4:
                size = int(self.p.weight * self.broker.getvalue() / data.close[0])
                if size:
                    entry = self.buy(data, size=size)
                    self.stops[data._name] = self.sell(
                        data,
                        size=size,
                        exectype=bt.Order.Stop,
                        price=data.close[0] * (1.0 - self.p.stop_pct / 100.0),
                        parent=entry,
                    )
