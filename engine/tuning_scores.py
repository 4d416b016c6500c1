"""What a trial is worth on one fold: a forecast's errors there, or the strategy's Sharpe ratio."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.cuts import with_history
from engine.errors import NextbarError
from engine.preparation import simulated
from engine.report.metrics import performance, periods_per_year
from engine.sections import digest, dump
from engine.tune_section import Metric
from strategies.loading import load_strategy
from strategies.rule import Context

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.forecaster import Forecaster

LARGER_IS_BETTER: dict[Metric, bool] = {
    "mae": False, "pinball": False, "r2_out_of_sample": True, "rank_ic": True, "sharpe": True,
}  # fmt: skip
_KEPT_FITS = 32
_LEVELS = {"lower": 0.1, "forecast": 0.5, "upper": 0.9}


class Scorer:
    """Scores run files on folds of the same bars; the same model on the same fold is fitted once.

    Args:
        bars: no bar of them is later than the last validation session.
        metric: what is scored.
    """

    def __init__(self, bars: Bars, metric: Metric) -> None:
        self._bars = bars
        self._metric = metric
        self._fits: OrderedDict[str, Bundle] = OrderedDict()

    def score(self, config: RunConfig) -> float:
        """The metric on the test span of a fold's run file, which is the fold's validation part.

        Raises:
            NextbarError: what is tried cannot be fitted or run, or its score is no finite number.
        """
        value = self._sharpe(config) if self._metric == "sharpe" else self._of_forecasts(config)
        if value is None or not np.isfinite(value):
            raise NextbarError(f"{self._metric} is not defined on {config.spans.test[0]} to {config.spans.test[1]}")
        return float(value)

    def _of_forecasts(self, config: RunConfig) -> float | None:
        from models.evaluation import forecast_frame, score_frame
        from models.evaluation.information import information
        from models.evaluation.intervals import pinball

        bundle = self._fitted(config)
        forecaster = _forecaster(bundle)
        frame = forecast_frame(self._bars, forecaster, config.spans.test)
        if self._metric == "rank_ic":
            ranked = information(frame, horizon=forecaster.horizon, ranks=True)
            return 0.0 if ranked is None else ranked.mean  # who forecasts the same for all ranks nobody
        if self._metric == "pinball":
            known = frame[["realised", *_LEVELS]].dropna().to_numpy(dtype=np.float64)
            parts = [pinball(known[:, 0], known[:, at], level=level) for at, level in enumerate(_LEVELS.values(), 1)]
            return float(np.mean(parts)) if len(known) else None
        record = bundle.record
        figures = score_frame(frame, train_mean=record.train_mean, train_naive_mae=record.train_naive_mae)
        return figures[self._metric]

    def _sharpe(self, config: RunConfig) -> float:
        """Of the daily returns after costs, a year; 0 where nothing was traded."""
        forecaster = None if config.model is None else _forecaster(self._fitted(config))
        strategy = load_strategy(config, Context.of(config, forecaster))
        warmup = max(config.data.warmup_bars, forecaster.memory if forecaster else 0)
        period = config.spans.test
        used, start, _ = with_history(self._bars.among(*period), period, warmup=warmup)
        done = simulated(config, used, strategy.cls, strategy.arguments, start=start)
        a_year = periods_per_year(used.timeframe)
        value = performance(done.equity["equity"], periods_per_year=a_year).get("sharpe_ratio")
        return 0.0 if value is None else float(value)

    def _fitted(self, config: RunConfig) -> Bundle:
        """The fold's model; where only the strategy is searched, that of an earlier trial."""
        from models.fitting.bundles import fit_bundle

        key = digest(dump(config.spans), None if config.model is None else dump(config.model), dump(config.training))
        if key not in self._fits:
            self._fits[key] = fit_bundle(config, self._bars, root=Path("bundles"))
        self._fits.move_to_end(key)
        while len(self._fits) > _KEPT_FITS:
            self._fits.popitem(last=False)
        return self._fits[key]


def _forecaster(bundle: Bundle) -> Forecaster:
    from models.forecaster import Forecaster

    return Forecaster(bundle)
