"""Does each kind of model find what is there, and nothing where nothing is? Fitted as always, on planted returns.

A share is the R2 of a kind's forecasts over that of the best forecast there is, on the same bars after those that the
kind was fitted on. R2 is 1 - sum (y - f)^2 / sum y^2: against the forecast of zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Bound, Level, Measured
from benchmarks.planted import Floats, Planted, autoregression, reversal, volatility_only, white_noise
from engine.config import TrainingConfig
from engine.model_sections import MODEL_KINDS, ModelSection
from models.evaluation.inference import diebold_mariano
from models.features import parse_features
from models.fitting import fit
from models.fitting.task import Task
from models.windows import Windows

NAME = "signals"
NETWORKS = ("rnn", "gru", "lstm", "cnn", "tcn", "cnn_lstm", "transformer", "mlp")
OTHERS = ("ridge", "elastic_net", "boosting", "ar", "arima")
LINEAR = ("ridge", "elastic_net", "ar", "arima")  # of a reversal they see what a line can
LEVEL = 0.05
NORMAL_95 = 1.6448536
FEWEST_SHARE = 0.8
FEWEST_WIDTH_CORRELATION = 0.8


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Bars to fit on, to validate on and to judge on, and how networks are trained."""

    train: int
    validation: int
    test: int
    lookback: int
    training: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


FULL = Sample(
    train=8_000,
    validation=2_000,
    test=4_000,
    lookback=5,
    training={"epochs": 40, "patience": 8, "batch": 256, "learning_rate": 0.005},
)
TINY = Sample(
    train=300,
    validation=100,
    test=250,
    lookback=5,
    training={"epochs": 3, "patience": 3, "batch": 64, "learning_rate": 0.01},
    model={"hidden": 8, "heads": 2, "layers": 1, "channels": 8, "trees": 20},
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to measure; ``seeds`` series of noise for each kind."""

    planted: Sample = FULL
    noise: Sample = TINY
    seeds: int = 100
    kinds: Sequence[str] = (*NETWORKS, *OTHERS)


@dataclass(frozen=True, eq=False)
class Judged:
    """The test bars of a fitted model.

    Attributes:
        realised, forecast, lower, upper: [bars], log returns over the next bar.
        mean, deviation: what could be known of them.
    """

    realised: Floats
    forecast: Floats
    lower: Floats
    upper: Floats
    mean: Floats
    deviation: Floats

    @property
    def share(self) -> float:
        """R2 of the forecasts over that of the best ones."""
        return _r2(self.realised, self.forecast) / _r2(self.realised, self.mean)

    @property
    def width_correlation(self) -> float:
        """Rank correlation (Spearman) of the intervals' width and the true volatility."""
        ranks = [np.argsort(np.argsort(values)) for values in (self.upper - self.lower, self.deviation)]
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])

    @property
    def coverage(self) -> float:
        """Share of the returns that are inside of their intervals; 0.8 was asked for."""
        return float(np.mean((self.lower <= self.realised) & (self.realised <= self.upper)))

    @property
    def better_than_zero(self) -> bool:
        """Diebold-Mariano, HLN, one-sided at 5%: lower squared errors than the forecast of zero."""
        own, zero = np.square(self.realised - self.forecast), np.square(self.realised)
        found = diebold_mariano(own, zero, np.arange(len(own)), horizon=1)
        return found is not None and found.p_better < LEVEL

    @property
    def better_than_nested_zero(self) -> bool:
        """Clark & West (2007), one-sided at 5%: the test above favours zero, which has nothing to estimate.

        The adjusted difference y^2 - (y - f)^2 + f^2 is 2 y f; of noise its t is standard normal, whatever f.
        """
        products = self.realised * self.forecast
        deviation = products.std(ddof=1)
        return bool(deviation > 0.0 and products.mean() / deviation * np.sqrt(len(products)) > NORMAL_95)


def measure(size: Size) -> Iterator[Measured]:
    """Shares of both signals, widths where only volatility is to be known, then rejections on noise."""
    total = size.planted.train + size.planted.validation + size.planted.test
    for name, planted, unreachable in (
        ("AR(1)", autoregression(total, seed=1), ()),
        ("reversal after large moves", reversal(total, seed=2), LINEAR),
    ):
        for kind in size.kinds:
            share = judged(kind, planted, size.planted, seed=3).share
            goal = None if kind in unreachable else FEWEST_SHARE
            yield Level(benchmark=NAME, case=f"{name}: {kind}", unit="of the R2 there is", value=share, at_least=goal)
    planted = volatility_only(total, seed=4)
    for kind in size.kinds:
        if kind in NETWORKS:
            found = judged(kind, planted, size.planted, seed=3)
            yield Level(
                benchmark=NAME,
                case=f"volatility only: {kind}",
                unit=f"rank correlation of width and volatility, coverage {found.coverage:.2f}",
                value=found.width_correlation,
                at_least=FEWEST_WIDTH_CORRELATION,
            )
    for kind in size.kinds:
        yield from rejections(kind, size.noise, seeds=size.seeds)


def rejections(kind: str, sample: Sample, *, seeds: int) -> Iterator[Bound]:
    """In how many of so many series of noise a kind seems to beat zero, by either test."""
    total = sample.train + sample.validation + sample.test
    found = [judged(kind, white_noise(total, seed=1_000 + seed), sample, seed=seed) for seed in range(seeds)]
    # 99% of all samples of 100 have at most 11 where the level is what it says.
    most = 11 if seeds == 100 else seeds
    for test, count in (
        ("Diebold-Mariano", sum(each.better_than_zero for each in found)),
        ("Clark-West", sum(each.better_than_nested_zero for each in found)),
    ):
        yield Bound(
            benchmark=NAME, case=f"noise, {test}: {kind}", unit=f"of {seeds} at 5%", value=count, at_most=float(most)
        )


def judged(kind: str, planted: Planted, sample: Sample, *, seed: int) -> Judged:
    """Fit a kind as it is by default, but for the sample's sizes, and forecast the bars after those it has seen."""
    model = section(kind, sample)
    windows = Windows.build(
        planted.bars(),
        parse_features(model.features, close_only=False),
        lookback=model.lookback,
        horizons=model.horizons,
    )
    cuts = sample.train, sample.train + sample.validation, sample.train + sample.validation + sample.test
    # The last label of a part is known before the next part begins.
    train, validation, test = (
        np.arange(max(start, windows.memory - 1), end - 1) for start, end in zip((0, *cuts), cuts, strict=False)
    )
    training = TrainingConfig.model_validate({"seed": seed, "accelerator": "cpu", "devices": 1} | dict(sample.training))
    task = Task(model=model, windows=windows, train_rows=train, validation_rows=validation, training=training)
    network = fit(task).network
    with torch.inference_mode():
        forecasts = network.forecast(windows.gather(test)).double().numpy()
    return Judged(
        realised=windows.labels[test, 0].astype(np.float64),
        forecast=forecasts[:, 0],
        lower=forecasts[:, 1],
        upper=forecasts[:, 2],
        mean=planted.mean[test + 1],
        deviation=planted.deviation[test + 1],
    )


def section(kind: str, sample: Sample) -> ModelSection:
    """A kind's section, of log returns alone, with the sample's sizes where it has them."""
    known = MODEL_KINDS[kind].model_fields
    asked = {"features": ("log_return",), "lookback": sample.lookback, **sample.model}
    if kind in ("ar", "arima", "boosting"):
        del asked["lookback"]  # they have defaults of their own
    return MODEL_KINDS[kind].model_validate(
        {"kind": kind, **{name: value for name, value in asked.items() if name in known}}
    )


def _r2(realised: Floats, forecast: Floats) -> float:
    return 1.0 - float(np.sum(np.square(realised - forecast)) / np.sum(np.square(realised)))
