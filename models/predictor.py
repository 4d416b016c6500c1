"""What turns bars into forecasts, each with a finite memory: a row depends on the last ``memory`` bars alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from models.features import Columns, Feature, Floats, compute
from models.networks import Network
from models.windows import Singles, windows_of

# Matrix products round differently at different batch sizes. One fixed size, padded with zeros, rounds one way. It is a
# size at which a single forecast is quick, since a live one pays for the whole batch.
BATCH = 8

Row = tuple[float, ...]


class Predictor(ABC):
    """Forecasts of one horizon from the bars of one symbol.

    Attributes:
        memory: bars that a forecast depends on.
        width: numbers of a row: forecast, lower and upper in log returns over the horizon; where classes are asked for
            also the probabilities of down, flat and up.
    """

    memory: int
    width: int = 3

    @abstractmethod
    def series(self, columns: Columns) -> Floats:
        """Forecasts at every bar, float64 [bars, width]: forecast, lower, upper in log returns over the horizon.

        A row is NaN where fewer than ``memory`` bars are known. To the bit the same whatever bars lie before those.
        """

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """The forecast at the last bar of exactly ``memory`` bars, of several symbols, and the features seen there."""
        rows = [self.series(columns)[-1].tolist() for columns in several]
        return [(tuple(row), []) for row in rows]


class Windowed(Predictor):
    """A network over windows of features, always in batches of exactly 8 windows, the missing ones zero.

    So a bar's forecast does not depend on how many others were asked for: backtest and live agree to the bit on one
    machine and thread count.

    Args:
        network: on the CPU, in evaluation mode.
        features: of a row of a window.
        lookback: rows of a window.
        memory: bars that a forecast depends on.
        at: which of the network's horizons.
        classes: give the probabilities of the classes too; the network's head is a ``DirectionHead``.
    """

    def __init__(
        self,
        network: Network,
        features: Sequence[Feature],
        *,
        lookback: int,
        memory: int,
        at: int = 0,
        classes: bool = False,
    ) -> None:
        self.memory, self.width = memory, 6 if classes else 3
        self._ask = network.classes if classes else network.forecast
        self._features = features
        self._lookback = lookback
        self._at = at
        self._padded = torch.zeros(BATCH, lookback, len(features))

    def series(self, columns: Columns) -> Floats:
        """See ``Predictor.series``."""
        forecasts = np.full((len(columns), self.width), np.nan)
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
        return [(tuple(row), own[-1].tolist()) for row, own in zip(forecasts, values, strict=True)]

    def _forecast_batch(self, windows: Singles) -> torch.Tensor:
        """Forecasts [n, width] of n <= 8 windows [n, lookback * features]."""
        count = len(windows)
        padded = self._padded.numpy().reshape(BATCH, -1)
        padded[:count] = windows
        padded[count:] = 0.0
        return self._ask(self._padded, self._at)[:count]
