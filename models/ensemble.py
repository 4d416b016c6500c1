"""Ensembles: forecasts of several members as one, by weights that are fixed, or that follow from the last errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.errors import BundleError
from engine.model_sections import EnsembleConfig
from models.bundle import BundleRecord
from models.features import Columns, Floats
from models.memory import online_reach
from models.predictor import Predictor, Row


class Combined(Predictor):
    """Members combined by fixed weights.

    The forecast is the sum of weight times forecast. The interval is that of averaged quantiles (Vincent 1912; Ratcliff
    1979): the members' distances from their own forecasts, weighted by the same weights scaled to a sum of one.

    Args:
        members: of the same horizon; memories and features may differ.
        weights: one a member, at least 0. They need not sum to one: less than that trusts all of them less.
    """

    def __init__(self, members: Sequence[Predictor], weights: Sequence[float]) -> None:
        self.memory = max(member.memory for member in members)
        self._members = members
        self._weights = list(weights)
        total = sum(self._weights)
        self._shares = [weight / total if total > 0.0 else 1.0 / len(members) for weight in self._weights]

    def series(self, columns: Columns) -> Floats:
        """See ``Predictor.series``."""
        return self._together([member.series(columns) for member in self._members])

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """See ``Predictor.latest_of``; each member sees the bars that it needs, of all symbols at once."""
        made = []
        for member in self._members:
            latest = member.latest_of([columns[len(columns) - member.memory :] for columns in several])
            made.append(np.array([values for values, _ in latest], dtype=np.float64))
        return [(tuple(row), []) for row in self._together(made).tolist()]

    def _together(self, forecasts: Sequence[Floats]) -> Floats:
        return combine(forecasts, self._weights, self._shares)


class OnlineCombined(Predictor):
    """Members weighted anew at each bar by their errors at the last bars whose outcome is known there.

    With h the horizon, the bars s are the last ``window`` ones up to t - h. A member's loss L is the sum over them of
    (y[s] - f[s])^2, and its weight is proportional to exp(-rate L / M), where M is the mean squared error of all
    members at those bars: the exponentially weighted forecaster (Vovk 1990; Cesa-Bianchi & Lugosi 2006, chapter 2),
    begun anew a fixed number of bars back. Scaled by M, the rate has no unit; at 0.5 the weights are those of Bayesian
    averaging over normal errors of that variance.

    Args:
        members: of the same horizon; memories and features may differ.
        horizon: theirs, in bars.
        longest: the longest horizon of the model, so that it has one memory for all of them.
        window: outcomes that enter, at least 1.
        rate: how sharply errors turn into weights, above 0.
    """

    def __init__(self, members: Sequence[Predictor], *, horizon: int, longest: int, window: int, rate: float) -> None:
        self.memory = max(member.memory for member in members) + online_reach(horizon=longest, window=window)
        self._members = members
        self._horizon = horizon
        self._window = window
        self._rate = rate

    def series(self, columns: Columns) -> Floats:
        """See ``Predictor.series``. No member forecasts a bar that no weight asks for."""
        known = np.full((len(columns), 3), np.nan)
        if len(columns) < self.memory:
            return known
        reach = online_reach(horizon=self._horizon, window=self._window)
        forecasts = []  # of each member, from ``reach`` bars before the first bar with a forecast on
        for member in self._members:
            needed = columns[self.memory - reach - member.memory :]
            forecasts.append(member.series(needed)[member.memory - 1 :])
        close = columns.close[self.memory - 1 - reach :]
        weights = self._weights_at([own[:, 0] for own in forecasts], close)
        known[self.memory - 1 :] = combine([own[reach:] for own in forecasts], weights, weights)
        return known

    def _weights_at(self, forecasts: Sequence[Floats], close: Floats) -> list[Floats]:
        """Each member's weights [bars - reach], from forecasts [bars] and closes [bars]."""
        outcomes = np.log(close[self._horizon :] / close[: -self._horizon])
        count = len(outcomes) - self._window + 1
        losses = []
        for forecast in forecasts:
            squares = (outcomes - forecast[: -self._horizon]) ** 2
            loss = squares[self._window - 1 :].copy()
            for back in range(1, self._window):  # in one order at every bar, whatever lies before the window
                loss += squares[self._window - 1 - back :][:count]
            losses.append(loss)
        total, least = losses[0].copy(), losses[0]
        for loss in losses[1:]:
            total += loss
            least = np.minimum(least, loss)
        # The best member has exponent 0, so that their sum is at least 1. All errors zero: all weights the same.
        unit = np.where(total > 0.0, total, 1.0)
        sharpness = self._rate * (len(losses) * self._window)
        grown = [np.exp(-(sharpness * ((loss - least) / unit))) for loss in losses]
        mass = grown[0].copy()
        for one in grown[1:]:
            mass += one
        return [one / mass for one in grown]


def combine(forecasts: Sequence[Floats], weights: Sequence[float | Floats], shares: Sequence[float | Floats]) -> Floats:
    """Members' forecasts [bars, 3] as one, [bars, 3]; NaN where a member has none.

    Args:
        weights: of the forecasts, a number or [bars] a member.
        shares: of the intervals, summing to one.
    """
    bars = len(forecasts[0])
    centre, below, above = np.zeros(bars), np.zeros(bars), np.zeros(bars)
    for forecast, weight, share in zip(forecasts, weights, shares, strict=True):
        centre += weight * forecast[:, 0]
        below += share * (forecast[:, 1] - forecast[:, 0])
        above += share * (forecast[:, 2] - forecast[:, 0])
    return np.stack([centre, centre + below, centre + above], axis=1)


def ensemble_of(record: BundleRecord, members: Sequence[Predictor], at: int) -> Predictor:
    """What forecasts with an ensemble's bundle, from its members' predictors of the horizon with that place.

    Raises:
        BundleError: the bundle lacks the weights of its members.
    """
    model = record.model
    if not isinstance(model, EnsembleConfig):
        raise TypeError(f"expected the record of an ensemble, found that of {model.kind}")
    horizon, count = model.horizons[at], len(members)
    if model.combine == "online":
        longest = max(model.horizons)
        return OnlineCombined(members, horizon=horizon, longest=longest, window=model.window, rate=model.rate)
    if model.combine == "mean":
        return Combined(members, [1.0 / count] * count)
    weights = (record.combination or {}).get(str(horizon), ())
    if len(weights) != count or min(weights) < 0.0:
        raise BundleError(
            f"an ensemble of {count} members: expected a weight of at least 0 for each at horizon {horizon}, found "
            f"{list(weights)}; run `nextbar train CONFIG --force`"
        )
    return Combined(members, weights)
