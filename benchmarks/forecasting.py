"""Forecasting in a backtest: the default network over one series, from bars in memory to the last decision.

The weights are random: nothing here depends on what they forecast.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import torch

from benchmarks.harness import (
    Comparison,
    Contender,
    Disagreement,
    Latency,
    Measured,
    latency,
    rounds,
    seconds_of,
    timed,
)
from benchmarks.market import daily_bars
from engine.cerebro.broker import Broker
from engine.cerebro.feed import ArrayFeed
from engine.cerebro.loop import Engine
from engine.data.bars import Bars
from engine.run_file import load_config
from models.bundle import new_bundle, own_model
from models.bundle_files import load_bundle, write_bundle
from models.curve import EpochLosses
from models.features import Columns, parse_features
from models.forecaster import BATCH, Forecaster
from models.indicator import ForecastIndicator
from models.networks import Network, build_network
from models.windows import Windows

NAME = "forecasting"
QUICKSTART = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"
SIZE = 100


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to measure."""

    bars: int = 4_000
    rounds: int = 15
    slow_rounds: int = 3
    latency_calls: int = 300


class ForecastRule(bt.Strategy):
    """Long while the forecast is positive."""

    params = (("forecaster", None),)

    def __init__(self) -> None:
        self.forecast = ForecastIndicator(self.data, bundle=self.p.forecaster)

    def next(self) -> None:
        decide(self, self.forecast.forecast[0])


class OneCallABar(bt.Strategy):
    """The same rule, its forecast made by one call of the network inside ``next``; the features are given to it."""

    params = (("network", None), ("windows", None), ("memory", 0))

    def __init__(self) -> None:
        self.forecasts: list[float] = []

    def next(self) -> None:
        row = len(self.data) - self.p.memory
        if row < 0:
            return
        with torch.inference_mode():
            forecast = self.p.network.forecast(self.p.windows[row : row + 1])[0, 0].item()
        self.forecasts.append(forecast)
        decide(self, forecast)


def decide(strategy: bt.Strategy, forecast: float) -> None:
    """Long while the forecast is positive."""
    if strategy.position:
        if forecast < 0.0:
            strategy.close()
    elif forecast > 0.0:
        strategy.buy(size=SIZE)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What all contenders share: bars, a forecaster, and the windows that bare torch is given ready-made.

    ``windows`` is [forecasts, lookback, features]; ``batches`` are the same, padded with zeros to whole batches.
    """

    bars: Bars
    forecaster: Forecaster
    network: Network
    windows: torch.Tensor
    batches: list[torch.Tensor]

    @property
    def frame(self) -> pd.DataFrame:
        """The series."""
        return next(iter(self.bars.frames.values()))


def measure(size: Size) -> Iterator[Measured]:
    """Every comparison of forecasting, as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        work = _prepare(daily_bars(size.bars), Path(folder))
        columns = Columns.of(work.frame)
        backtest = timed("nextbar", lambda: _backtest(work, ForecastRule, forecaster=work.forecaster))
        bare = timed("torch", lambda: _bare_forward(work))
        one_call = timed("one call a bar", lambda: _one_call_a_bar(work))
        series = timed("nextbar", lambda: work.forecaster.forecast(columns))
        _agree(work, columns)
        forward = f"torch {torch.__version__}, bare forward in batches of {BATCH}"
        yield _compare("whole backtest", work, backtest, bare, peer=forward, goal=0.8, count=size.rounds)
        yield _compare("Forecaster alone", work, series, bare, peer=forward, goal=None, count=size.rounds)
        single = "one model call a bar, inside next"
        yield _compare("whole backtest", work, backtest, one_call, peer=single, goal=None, count=size.slow_rounds)
        yield _latest(work, columns, calls=size.latency_calls)


def _prepare(bars: Bars, folder: Path) -> _Work:
    """An untrained bundle of the default model, written and read back as a backtest does it."""
    config = load_config(QUICKSTART)
    model = own_model(config)
    features = parse_features(model.features, close_only=False)
    windows = Windows.build(bars, features, lookback=model.lookback, horizons=model.horizons)
    rows = np.arange(windows.memory - 1, len(windows.features))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config.training.seed)
        network = build_network(model)
    labels = windows.labels[rows[: -model.horizon]]
    network.fit_scaling(torch.from_numpy(windows.features[rows]), torch.from_numpy(labels))
    bundle = new_bundle(
        config, network, curve=[EpochLosses(1, 1.0, 1.0)], bars=bars, train_labels=labels[:, 0], root=folder
    )
    bundle = load_bundle(write_bundle(bundle).path)
    gathered = windows.gather(rows)
    batches = []
    for part in gathered.split(BATCH):
        batch = torch.zeros(BATCH, *gathered.shape[1:])
        batch[: len(part)] = part
        batches.append(batch)
    return _Work(bars=bars, forecaster=Forecaster(bundle), network=bundle.network, windows=gathered, batches=batches)


def _backtest(work: _Work, strategy: type[bt.Strategy], **arguments: Any) -> Any:
    engine = Engine()
    engine.setbroker(Broker())
    for symbol, frame in work.bars.frames.items():
        engine.adddata(ArrayFeed(dataname=frame, name=symbol, bars=work.bars.timeframe))
    engine.addstrategy(strategy, **arguments)
    return engine.run()[0]


def _one_call_a_bar(work: _Work) -> list[float]:
    strategy = _backtest(work, OneCallABar, network=work.network, windows=work.windows, memory=work.forecaster.memory)
    forecasts: list[float] = strategy.forecasts
    return forecasts


def _bare_forward(work: _Work) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [work.network(batch) for batch in work.batches]


def _agree(work: _Work, columns: Columns) -> None:
    """All contenders must forecast the same: to the bit in the same batches, nearly so one by one. Also warms up."""
    ours = work.forecaster.forecast(columns)[work.forecaster.memory - 1 :]
    line = np.array(_backtest(work, ForecastRule, forecaster=work.forecaster).forecast.forecast.array)
    with torch.inference_mode():
        bare = torch.cat([work.network.head().forecast(outputs) for (outputs,) in _bare_forward(work)])[: len(ours)]
    single = np.array(_one_call_a_bar(work))
    if not np.array_equal(ours, bare.double().numpy()):
        raise Disagreement(f"{NAME}: Forecaster and the bare forward pass differ")
    if not np.array_equal(ours[:, 0], line[work.forecaster.memory - 1 :]):
        raise Disagreement(f"{NAME}: ForecastIndicator and Forecaster differ")
    if not np.allclose(ours[:, 0], single, rtol=1e-3, atol=1e-6):
        raise Disagreement(f"{NAME}: one call a bar forecasts something else")


def _compare(
    case: str, work: _Work, ours: Contender[Any], theirs: Contender[Any], *, peer: str, goal: float | None, count: int
) -> Comparison:
    our_turns, peer_turns = rounds(ours, theirs, count=count)
    return Comparison(
        benchmark=NAME,
        case=case,
        peer=peer,
        unit="bars",
        amount=len(work.windows),
        ours_seconds=seconds_of(our_turns),
        peer_seconds=seconds_of(peer_turns),
        goal=goal,
    )


def _latest(work: _Work, columns: Columns, *, calls: int) -> Latency:
    last = columns[len(columns) - work.forecaster.memory :]
    return latency(lambda: work.forecaster.latest(last), benchmark=NAME, case="Forecaster.latest, one bar", calls=calls)
