"""What turns bars into forecasts, each with a finite memory: a row depends on the last ``memory`` bars alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from models.features import Columns, Feature, Floats, compute
from models.networks import Network
from models.windows import Singles, windows_of

# Matrix products round differently at different batch sizes. One fixed size, padded with zeros, rounds one way.
BATCH = 64

Row = tuple[float, float, float]


class Predictor(ABC):
    """Forecasts of one horizon from the bars of one symbol.

    Attributes:
        memory: bars that a forecast depends on.
    """

    memory: int

    @abstractmethod
    def series(self, columns: Columns) -> Floats:
        """Forecasts at every bar, float64 [bars, 3]: forecast, lower, upper in log returns over the horizon.

        A row is NaN where fewer than ``memory`` bars are known. To the bit the same whatever bars lie before those.
        """

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """The forecast at the last bar of exactly ``memory`` bars, of several symbols, and the features seen there."""
        rows = [self.series(columns)[-1].tolist() for columns in several]
        return [((row[0], row[1], row[2]), []) for row in rows]


class Windowed(Predictor):
    """A network over windows of features, always in batches of exactly 64 windows, the missing ones zero.

    So a bar's forecast does not depend on how many others were asked for: backtest and live agree to the bit on one
    machine and thread count.

    Args:
        network: on the CPU, in evaluation mode.
        features: of a row of a window.
        lookback: rows of a window.
        memory: bars that a forecast depends on.
        at: which of the network's horizons.
    """

    def __init__(
        self, network: Network, features: Sequence[Feature], *, lookback: int, memory: int, at: int = 0
    ) -> None:
        self.memory = memory
        self._network = network
        self._features = features
        self._lookback = lookback
        self._at = at
        self._padded = torch.zeros(BATCH, lookback, len(features))

    def series(self, columns: Columns) -> Floats:
        """See ``Predictor.series``."""
        forecasts = np.full((len(columns), 3), np.nan)
        if len(columns) < self.memory:
            return forecasts
        values = compute(self._features, columns)
        windows = windows_of(values[self.memory - self._lookback :], self._lookback)
        flat = torch.from_numpy(forecasts[self.memory - 1 :])
        with torch.inference_mode():
            for start in range(0, len(windows), BATCH):
                batch = windows[start : start + BATCH]
                flat[start : start + BATCH] = self._forecast_batch(batch)
        return forecasts

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """See ``Predictor.latest_of``; all symbols in one pass of the network."""
        values = [compute(self._features, columns) for columns in several]
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
        return self._network.forecast(self._padded, self._at)[:count]
