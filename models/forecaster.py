"""The forecaster: a bundle ready to forecast, the same to the bit over a whole series and at its last bar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.errors import ConfigError
from models.bundle import Bundle
from models.bundle_files import load_bundle
from models.calibration import with_calibration
from models.ensemble import ensemble_of
from models.features import Columns, Floats
from models.memory import forecast_memory
from models.predictor import BATCH, Predictor, Row, Windowed
from models.walk_forward import Stitched, before_session

__all__ = ["BATCH", "Forecaster", "Turn", "predictor_of"]


class Turn(NamedTuple):
    """A bundle, and since when it decides: after a moment, UTC ns, that is from a session on."""

    bundle: Bundle
    after: int = 0
    begins: date = date.min


class Forecaster:
    """Forecasts from the bars of one symbol.

    Attributes:
        bundle: the trained model; of several the newest.
        turns: the bundles that decide one after another, nearly always one.
        memory: bars that a forecast depends on. needed: bars before the first one; fewer in ``models.succession`` only.
        horizon: bars ahead.
    """

    def __init__(self, bundle: Bundle, *, horizon: int | None = None, classes: bool = False) -> None:
        """Takes the traded horizon, or another one of the bundle's; with ``classes`` a row has their probabilities too.

        Raises:
            ConfigError: the bundle does not forecast that horizon, or no classes.
        """
        self.bundle = bundle
        horizons = bundle.record.model.horizons
        self.horizon = horizons[0] if horizon is None else horizon
        if self.horizon not in horizons:
            known = ", ".join(str(ahead) for ahead in sorted(horizons))
            raise ConfigError(
                f"{bundle.path.name}: expected a horizon that it forecasts ({known} bars), found {horizon}; add it to "
                "model.more_horizons, and train again"
            )
        self._predictor = predictor_of(bundle, horizons.index(self.horizon), classes=classes)
        self.memory = self.needed = self._predictor.memory
        self.turns: tuple[Turn, ...] = (Turn(bundle),)
        self._others: dict[int, Forecaster] = {}
        self._with_classes: Forecaster | None = None

    @classmethod
    def load(cls, path: Path) -> Forecaster:
        """The forecaster of the bundle in a folder.

        Raises:
            BundleError: the bundle is missing or damaged.
        """
        return cls(load_bundle(path))

    def at(self, horizon: int) -> Forecaster:
        """The same bundle's forecaster of another horizon, one for all who ask; a ConfigError where it has none."""
        if horizon == self.horizon:
            return self
        if horizon not in self._others:
            self._others[horizon] = Forecaster(self.bundle, horizon=horizon)
        return self._others[horizon]

    @property
    def with_classes(self) -> Forecaster:
        """One whose rows have the probabilities of down, flat and up beside; a ConfigError where there are none."""
        if self._with_classes is None:
            self._with_classes = Forecaster(self.bundle, horizon=self.horizon, classes=True)
        return self._with_classes

    def forecast(self, columns: Columns) -> Floats:
        """Forecasts at every bar, float64 [bars, 3]: forecast, lower, upper in log returns over the horizon.

        With classes [bars, 6]: then the probabilities of down, flat and up. A row is NaN where fewer than ``memory``
        bars are known.
        """
        if len(columns) < self.memory:
            return np.full((len(columns), self._predictor.width), np.nan)
        return self._predictor.series(columns)

    def latest(self, columns: Columns) -> Row:
        """Forecast, lower and upper at the last bar of exactly the last ``memory`` bars.

        The same floats as the last row of ``forecast`` over any history that ends with these bars.

        Raises:
            ValueError: the number of bars is not ``memory``.
        """
        return self.latest_of([columns])[0][0]

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """``latest`` of several symbols, together where the model can, and the features of each one's last bar.

        Raises:
            ValueError: the number of bars of a symbol is not ``memory``.
        """
        for columns in several:
            if len(columns) != self.memory:
                raise ValueError(f"expected the last {self.memory} bars, found {len(columns)}")
        return self._predictor.latest_of(several)


def predictor_of(bundle: Bundle, at: int = 0, *, classes: bool = False) -> Predictor:
    """What forecasts with a bundle, of the horizon with that place among the model's.

    Args:
        classes: whether a row holds the probabilities of down, flat and up too.

    Raises:
        ConfigError: classes are asked for, and the model has none.
    """
    record = bundle.record
    if record.takes_over is not None:
        # Each member has intervals of its own.
        members = [predictor_of(member, at, classes=classes) for member in bundle.members]
        return Stitched(members, after=[before_session(day) for day in record.takes_over])
    return with_calibration(_uncalibrated(bundle, at, classes=classes), record, at)


def _uncalibrated(bundle: Bundle, at: int, *, classes: bool) -> Predictor:
    """A network's predictor, or one that is made of the members'."""
    network, model = bundle.network, bundle.record.model
    if classes and getattr(model, "head", None) != "direction":
        raise ConfigError(
            f"{bundle.path.name}: expected a model that forecasts classes, found one without; use head: direction, "
            "or a ForecastIndicator"
        )
    if network is None:
        return ensemble_of(bundle.record, [predictor_of(member, at) for member in bundle.members], at)
    memory = forecast_memory(model, close_only=bundle.record.close_only)
    return Windowed(network, bundle.features, lookback=model.lookback, memory=memory, at=at, classes=classes)
