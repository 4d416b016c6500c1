"""The forecaster: a bundle ready to forecast, the same to the bit over a whole series and at its last bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.bundle import Bundle, load_bundle
from models.features import Columns, Floats, compute
from models.windows import Singles, windows_of

# Matrix products round differently at different batch sizes. One fixed size, padded with zeros, rounds one way.
BATCH = 64


class Forecaster:
    """Forecasts from the bars of one symbol.

    Inference always runs in batches of exactly 64 windows, the missing ones zero, so that a bar's forecast does not
    depend on how many others were asked for: backtest and live agree to the bit on one machine and thread count.

    Attributes:
        bundle: the trained model.
        memory: bars that a forecast depends on: lookback + the longest feature memory - 1.
        horizon: bars ahead.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.memory = bundle.record.memory
        self.horizon = bundle.record.model.horizon
        self._features = bundle.features
        self._lookback = bundle.record.model.lookback
        self._network = bundle.network
        self._padded = torch.zeros(BATCH, self._lookback, len(self._features))

    @classmethod
    def load(cls, path: Path) -> Forecaster:
        """The forecaster of the bundle in a folder.

        Raises:
            BundleError: the bundle is missing or damaged.
        """
        return cls(load_bundle(path))

    def forecast(self, columns: Columns) -> Floats:
        """Forecasts at every bar, float64 [bars, 3]: forecast, lower, upper in log returns over the horizon.

        A row is NaN where fewer than ``memory`` bars are known.
        """
        if len(columns) < self.memory:
            return np.full((len(columns), 3), np.nan)
        return self._forecast(compute(self._features, columns))

    def _forecast(self, values: Singles) -> Floats:
        """Forecasts at every row of the features' values [bars, features]."""
        forecasts = np.full((len(values), 3), np.nan)
        windows = windows_of(values[self.memory - self._lookback :], self._lookback)
        flat = torch.from_numpy(forecasts[self.memory - 1 :])
        with torch.inference_mode():
            for start in range(0, len(windows), BATCH):
                batch = windows[start : start + BATCH]
                flat[start : start + BATCH] = self._forecast_batch(batch)
        return forecasts

    def latest(self, columns: Columns) -> tuple[float, float, float]:
        """Forecast, lower and upper at the last bar of exactly the last ``memory`` bars.

        The same floats as the last row of ``forecast`` over any history that ends with these bars.

        Raises:
            ValueError: the number of bars is not ``memory``.
        """
        return self.latest_of([columns])[0][0]

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[tuple[float, float, float], list[float]]]:
        """``latest`` of several symbols, in one pass of the network, and the features of each one's last bar.

        Raises:
            ValueError: the number of bars of a symbol is not ``memory``.
        """
        values = []
        for columns in several:
            if len(columns) != self.memory:
                raise ValueError(f"expected the last {self.memory} bars, found {len(columns)}")
            values.append(compute(self._features, columns))
        windows = np.stack([own[-self._lookback :].reshape(-1) for own in values])
        with torch.inference_mode():
            forecasts = [
                row
                for start in range(0, len(windows), BATCH)
                for row in self._forecast_batch(windows[start : start + BATCH]).to(torch.float64).tolist()
            ]
        return [
            ((forecast, lower, upper), own[-1].tolist())
            for (forecast, lower, upper), own in zip(forecasts, values, strict=True)
        ]

    def _forecast_batch(self, windows: Singles) -> torch.Tensor:
        """Forecasts [n, 3] of n <= 64 windows [n, lookback * features]."""
        count = len(windows)
        padded = self._padded.numpy().reshape(BATCH, -1)
        padded[:count] = windows
        padded[count:] = 0.0
        forecasts: torch.Tensor = self._network.forecast(self._padded)[:count]
        return forecasts
