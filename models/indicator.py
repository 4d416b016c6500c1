"""The forecast as a backtrader indicator, for any plain strategy.

self.forecast = ForecastIndicator(self.data, bundle="bundles/quickstart-0123456789ab")
...
if self.forecast.lower[0] > 0.0: self.buy()
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import numpy as np

from engine.errors import ConfigError
from models.features import Columns, Floats
from models.forecaster import Forecaster
from models.predictor import Row

_LINES = ("datetime", "open", "high", "low", "close", "volume")
_EPOCH_DAY = 719_163  # 1970-01-01 in backtrader's days, which count from 0001-01-01 as day 1
_MILLISECONDS_A_DAY = 86_400_000


class ForecastIndicator(bt.Indicator):
    """Lines ``forecast``, ``lower`` and ``upper``: log returns over the bundle's horizon, known at the bar's close.

    NaN until ``memory`` bars have passed; the indicator adds that to its strategy's minimum period. With ``runonce``
    the lines are filled from the whole arrays, else bar by bar from the last ``memory`` bars: the same to the bit.

    The data needs open, high, low, close, volume and a datetime in UTC at the end of the bar, as nextbar's feed gives.

    Params:
        bundle: the folder of a bundle, or a ``models.forecaster.Forecaster``. Indicators on the same folder share one.
        horizon: bars ahead, one of those that the bundle forecasts; the forecaster's own, if None.
    """

    lines: Any = ("forecast", "lower", "upper")
    params = (("bundle", None), ("horizon", None))

    forecaster: Forecaster
    features: list[float] | None  # the newest row of the window that the last forecast was made from
    _last_bar: tuple[float, ...]  # what the last forecast was made at
    _source: Forecaster  # gives the lines

    if TYPE_CHECKING:  # backtrader's metaclass takes the datas and params out of the call before __init__ sees it

        def __init__(self, *data: Any, bundle: str | Path | Forecaster, horizon: int | None = None) -> None: ...

    else:

        def __init__(self) -> None:
            given = self.p.bundle
            given = given if isinstance(given, Forecaster) else _forecaster(given)
            self.forecaster = given if self.p.horizon is None else given.at(self.p.horizon)
            self._source = self._source_of(self.forecaster)
            self.addminperiod(self.forecaster.needed)
            self._last_bar = ()
            self.features = None
            self._ahead: dict[int, Row] = {}

    def _source_of(self, forecaster: Forecaster) -> Forecaster:
        """What gives the lines, a number each."""
        return forecaster

    def next(self) -> None:
        """Forecast from the last ``memory`` bars."""
        # Another data's bar calls this too, even after this data has ended and a saving buffer has lost a bar.
        bar = (len(self), *(line[0] for line in self._inputs()))
        if bar == self._last_bar:
            return
        values = self._ahead.pop(len(self), None) or self._forecast_now()
        for line, value in zip(self.lines, values, strict=True):
            line[0] = value
        self._last_bar = bar

    def _forecast_now(self) -> Row:
        """The forecast at the present bar; at bars that lie ready after it, at the same time and for later.

        That is the history before the first live bar. Each forecast is made from its own last bars all the same.
        """
        lines = self._inputs()
        now = lines[0].idx
        if len(lines[0].array) - 1 <= now:
            ((values, self.features),) = self._source.latest_of([self._last_bars()])
            return values
        first = max(0, now - self.forecaster.memory + 1)
        columns = _columns(*(np.array(line.array[first:], dtype=np.float64) for line in lines))
        rows = self._source.forecast(columns)[now - first :].tolist()
        self._ahead = {len(self) + number: tuple(row) for number, row in enumerate(rows)}
        return self._ahead.pop(len(self))

    def _last_bars(self) -> Columns:
        """The last ``memory`` bars; the first ones of a forecaster that needs fewer are not as many."""
        lines = self._inputs()
        size = min(self.forecaster.memory, lines[0].idx + 1)
        return _columns(*(np.array(line.get(size=size), dtype=np.float64) for line in lines))

    @staticmethod
    def forecast_together(indicators: Sequence[ForecastIndicator]) -> None:
        """Forecast for several datas that have a new bar, in one pass of the network where they share a forecaster.

        To be called once the datas have moved on, before their indicators do: these find the forecast made.
        """
        groups: dict[int, list[tuple[ForecastIndicator, Columns]]] = {}
        for indicator in indicators:
            bars = indicator._inputs()[0]
            if len(bars) >= indicator.forecaster.needed and len(bars.array) - 1 == bars.idx:
                groups.setdefault(id(indicator._source), []).append((indicator, indicator._last_bars()))
        for group in groups.values():
            made = group[0][0]._source.latest_of([columns for _, columns in group])
            for (indicator, _), (values, features) in zip(group, made, strict=True):
                indicator._ahead = {len(indicator.data): values}
                indicator.features = features

    def once(self, start: int, end: int) -> None:
        """Forecast bars start to end at once; each from its own last ``memory`` bars."""
        first = max(0, start - self.forecaster.memory + 1)
        columns = _columns(*(np.array(line.array[first:end], dtype=np.float64) for line in self._inputs()))
        forecasts = self._source.forecast(columns)[start - first :]
        for line, values in zip(self.lines, forecasts.T, strict=True):
            # A series shorter than the memory has no bar to fill.
            for position, value in enumerate(values.tolist(), start):
                line.array[position] = value

    def _inputs(self) -> list[Any]:
        """The data's lines in the order of Columns: datetime, then prices and volume."""
        return [getattr(self.data.lines, name) for name in _LINES]


class DirectionIndicator(ForecastIndicator):
    """The same, and lines ``down``, ``flat`` and ``up``: the probabilities of the classes of a direction head.

    Flat is what the model section calls so: a return of ``flat_bps`` at most, or the middle third of those trained on.

    self.direction = DirectionIndicator(self.data, bundle="bundles/horizons-0123456789ab", horizon=5)
    ...
    if self.direction.up[0] - self.direction.down[0] > 0.1: self.buy()
    """

    lines: Any = ("down", "flat", "up")

    def _source_of(self, forecaster: Forecaster) -> Forecaster:
        return forecaster.with_classes


def _columns(days: Floats, *prices: Floats) -> Columns:
    """Columns from backtrader's lines; float days resolve ten microseconds, so times are rounded to milliseconds."""
    milliseconds = np.rint((days - _EPOCH_DAY) * _MILLISECONDS_A_DAY).astype(np.int64)
    return Columns(milliseconds * 1_000_000, *prices)


def _forecaster(given: object) -> Forecaster:
    """The forecaster of a folder, loaded once for as long as the folder holds the same bundle."""
    if not isinstance(given, str | Path):
        raise ConfigError(f"ForecastIndicator: bundle: expected a bundle's folder or a Forecaster, found {given!r}")
    resolved = Path(given).resolve()
    try:
        changed = (resolved / "bundle.json").stat().st_mtime_ns
    except OSError:
        changed = 0  # loading says what is wrong
    return _loaded(resolved, changed)


@lru_cache(maxsize=8)
def _loaded(path: Path, changed: int) -> Forecaster:
    return Forecaster.load(path)
