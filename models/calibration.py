"""Intervals that hold as often as they say, whatever made them: conformal calibration, once or bar by bar.

Both widen or narrow the interval that a model gives, and leave its forecast alone. Each end is calibrated by itself, so
that a tenth of the outcomes should lie below the interval and a tenth above it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.errors import ConfigError
from models.features import Columns, Floats
from models.memory import ADAPTIVE_SCORES, ADAPTIVE_STEPS, adaptive_memory
from models.predictor import Predictor, Row

if TYPE_CHECKING:
    from models.bundle import Bundle, BundleRecord

Margins = tuple[float, float]

TAIL = 0.1
"""Share of the outcomes that should lie beyond an end of an interval; with both ends, 80% nominal coverage."""

ADAPTIVE_RATE = 0.02
"""How far one outcome moves the level of the next interval."""


def scores_of(lower: Floats, upper: Floats, outcomes: Floats) -> Floats:
    """How far each outcome lies below its interval and above it, [n, 2]; negative inside.

    The scores of conformalised quantile regression, an end each (Romano, Patterson & Candes 2019, theorem 2).
    """
    return np.stack([lower - outcomes, outcomes - upper], axis=1)


def conformal_margins(lower: Floats, upper: Floats, outcomes: Floats) -> Margins:
    """By how much to move the two ends outwards, so that the next outcome lies beyond each one time in ten.

    It is the ceil((n + 1) 0.9)-th smallest of an end's n scores: beyond it lies one in ten at most, whatever the model
    is, where the outcomes are exchangeable. Negative where the intervals were too wide.

    Args:
        lower, upper, outcomes: of n intervals whose outcomes are known, [n], log returns.

    Raises:
        ValueError: fewer than 9 outcomes, of which none is rare enough.
    """
    scores = np.sort(scores_of(lower, upper, outcomes), axis=0)
    rank = math.ceil((len(scores) + 1) * (1.0 - TAIL))
    if rank > len(scores):
        raise ValueError(f"expected at least {math.ceil(1.0 / TAIL) - 1} outcomes, found {len(scores)}")
    below, above = scores[rank - 1].tolist()
    return below, above


class Conformal(Predictor):
    """A predictor whose intervals are moved by two numbers, found on the validation span.

    Args:
        inner: what forecasts.
        margins: how far its lower and its upper ends move outwards, log returns.
    """

    def __init__(self, inner: Predictor, margins: Margins) -> None:
        self.memory, self.width = inner.memory, inner.width
        self._inner = inner
        self._margins = margins

    def series(self, columns: Columns) -> Floats:
        """See ``Predictor.series``."""
        rows = self._inner.series(columns)
        _move_ends(rows, *self._margins)
        return rows

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """See ``Predictor.latest_of``; all symbols together, where the inner one can."""
        made = self._inner.latest_of(several)
        rows = np.array([row for row, _ in made])
        _move_ends(rows, *self._margins)
        return [(tuple(row), features) for row, (_, features) in zip(rows.tolist(), made, strict=True)]


class Adaptive(Predictor):
    """A predictor whose intervals follow its own errors (adaptive conformal inference, Gibbs & Candes 2021).

    Each end moves by a quantile of the last 50 scores whose outcome is known. The quantile's level, 90% at first, rises
    by ``ADAPTIVE_RATE`` times 0.9 after an outcome beyond that end, and falls by a ninth of that after another:
    alpha[t + 1] = alpha[t] + rate (0.1 - error[t]). An outcome is known ``horizon`` bars after its forecast, and no
    sooner. Beyond the largest of the scores there is nothing to go by: it is the widest that an interval gets.

    The recursion starts anew 50 known outcomes back at each bar, so that the interval depends on a finite number of
    bars, and is the same to the bit wherever the series begins.

    Args:
        inner: what forecasts.
        horizon: bars from a forecast to its outcome.
        memory: bars that an interval may depend on, where it is to be more than it needs.
    """

    def __init__(self, inner: Predictor, *, horizon: int, memory: int = 0) -> None:
        self._needed = inner.memory + adaptive_memory(horizon)
        self.memory, self.width = max(memory, self._needed), inner.width
        self._inner = inner
        self._horizon = horizon

    def series(self, columns: Columns) -> Floats:
        """See ``Predictor.series``."""
        rows = self._inner.series(columns)
        first = self._needed - 1
        if len(rows) > first:
            ends = rows[first:]
            margins = self._margins(rows, columns.close)
            _move_ends(ends, margins[:, 0], margins[:, 1])
        rows[: self.memory - 1] = np.nan
        return rows

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """See ``Predictor.latest_of``; the features are those of the last forecast."""
        seen = self._inner.latest_of([columns[-self._inner.memory :] for columns in several])
        return [
            (tuple(self.series(columns)[-1].tolist()), features)
            for columns, (_, features) in zip(several, seen, strict=True)
        ]

    def _margins(self, rows: Floats, close: Floats) -> Floats:
        """How far both ends move outwards at the bars from the ``_needed``-th on, [bars, 2]."""
        horizon, count = self._horizon, len(rows) - self._needed + 1
        made = slice(self._inner.memory - 1, len(rows) - horizon)  # the forecasts whose outcome is known at the end
        outcomes = np.log(close[horizon:] / close[:-horizon])[made]
        scores = scores_of(rows[made, 1], rows[made, 2], outcomes)
        # Sets of scores, sorted; the set of a bar is the 50 that are known at it.
        sets = np.sort(np.lib.stride_tricks.sliding_window_view(scores, ADAPTIVE_SCORES, axis=0), axis=2)
        alpha = np.full((count, 2), TAIL)
        errors: list[Floats] = []
        for step in range(ADAPTIVE_STEPS):
            if step >= horizon:
                alpha += ADAPTIVE_RATE * (TAIL - errors[step - horizon])
            asked = slice(ADAPTIVE_SCORES + horizon - 1 + step, ADAPTIVE_SCORES + horizon - 1 + step + count)
            errors.append((scores[asked] > _quantiles(sets[step : step + count], alpha)).astype(np.float64))
        for known in errors[max(0, ADAPTIVE_STEPS - horizon) :]:
            alpha += ADAPTIVE_RATE * (TAIL - known)
        now = ADAPTIVE_STEPS + horizon - 1
        return _quantiles(sets[now : now + count], alpha)


def _quantiles(sets: Floats, alpha: Floats) -> Floats:
    """The ceil((n + 1) (1 - alpha))-th smallest of n sorted scores, [bars, 2] of [bars, 2, n]; the n-th at most."""
    ranks = np.clip(np.ceil((ADAPTIVE_SCORES + 1) * (1.0 - alpha)), 1, ADAPTIVE_SCORES).astype(np.int64)
    return np.take_along_axis(sets, ranks[:, :, None] - 1, axis=2)[:, :, 0]


def _move_ends(rows: Floats, below: Floats | float, above: Floats | float) -> None:
    """Move the ends of intervals outwards, in place; they keep holding their forecast."""
    rows[:, 1] = np.minimum(rows[:, 1] - below, rows[:, 0])
    rows[:, 2] = np.maximum(rows[:, 2] + above, rows[:, 0])


def with_calibration(inner: Predictor, record: BundleRecord, at: int) -> Predictor:
    """A bundle's predictor of a horizon with the intervals that its model section asks for.

    A conformal one that has no numbers yet, since they are to be found with it, is left as it is.
    """
    model = record.model
    horizon = model.horizons[at]
    if model.calibration == "adaptive":
        return Adaptive(inner, horizon=horizon, memory=record.memory)
    if record.calibration is None:
        return inner
    below, above = record.calibration[str(horizon)]
    return Conformal(inner, (below, above))


def calibrated(bundle: Bundle, config: RunConfig, bars: Bars) -> Bundle:
    """The fitted bundle with the numbers that its intervals are set by, if its model asks for conformal ones.

    They are found at the decision bars that models are chosen on: those of the validation span, of all symbols, whose
    labels of all horizons end within it, less ``training.embargo``.

    Args:
        config: the run file that the bundle was fitted by; its spans say what the validation span is.
        bars: all of its bars.

    Raises:
        ConfigError: too few outcomes in the validation span.
    """
    record = bundle.record
    if record.model.calibration != "conformal":
        return bundle
    from models.evaluation import forecast_frame
    from models.fitting.bundles import decisions_of
    from models.forecaster import Forecaster

    decisions = decisions_of(config, record.model, bars)["validate"]
    last = {symbol: frame.index[decisions[symbol]].max() for symbol, frame in bars.frames.items()}
    found: dict[str, Margins] = {}
    for horizon in record.model.horizons:
        frame = forecast_frame(bars, Forecaster(bundle, horizon=horizon), config.spans.get("validate"))
        known = frame[frame["time"] <= frame["symbol"].map(last)].dropna(subset=["forecast", "realised"])
        lower, upper, came = (known[name].to_numpy(dtype=np.float64) for name in ("lower", "upper", "realised"))
        try:
            found[str(horizon)] = conformal_margins(lower, upper, came)
        except ValueError as error:
            raise ConfigError(
                f"model.calibration: conformal: spans.validate holds too few outcomes of {horizon} bars ({error}); "
                "lengthen the span, or use calibration: none"
            ) from None
    return replace(bundle, record=record.model_copy(update={"calibration": found}))
