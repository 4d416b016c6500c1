"""How long a forecast takes at the moment of use: every kind of network as it is by default, on one core.

The weights are random: nothing here depends on what they forecast. Times are those of the thread's processor clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.forecasting import QUICKSTART
from benchmarks.harness import Comparison, Disagreement, Measured, rounds, seconds_of, timed
from benchmarks.harness import latency as timed_calls
from benchmarks.market import daily_bars
from benchmarks.signals import NETWORKS
from engine.config import RunConfig
from engine.data.bars import Bars
from engine.model_sections import MODEL_KINDS
from engine.run_file import load_config
from models.bundle import new_bundle, own_model
from models.features import Columns, parse_features
from models.forecaster import BATCH, Forecaster
from models.networks import Network, build_network
from models.windows import Windows

NAME = "latency"
GOAL_MS = 5.0
GOAL_RATIO = 1 / 1.3  # the bare forward pass takes at least 1 / 1.3 of our time


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to measure."""

    bars: int = 2_000
    rounds: int = 5
    calls: int = 400
    kinds: Sequence[str] = NETWORKS


@dataclass(frozen=True, kw_only=True)
class _Work:
    """``batches`` are the windows of all bars, padded with zeros to whole batches."""

    forecaster: Forecaster
    network: Network
    columns: Columns
    count: int
    batches: list[torch.Tensor]


def measure(size: Size) -> Iterator[Measured]:
    """One bar, then a whole series, of each kind; torch has one thread meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bars = daily_bars(size.bars)
        for kind in size.kinds:
            work = _prepare(kind, bars)
            last = work.columns[len(work.columns) - work.forecaster.memory :]
            yield timed_calls(
                lambda work=work, last=last: work.forecaster.latest(last),  # type: ignore[misc]
                benchmark=NAME,
                case=f"one bar: {kind} ({work.forecaster.bundle.parameters:,} parameters)",
                calls=size.calls,
                goal_ms=GOAL_MS,
                clock=time.thread_time,
            )
            yield _series(kind, work, count=size.rounds)
    finally:
        torch.set_num_threads(threads)


def _prepare(kind: str, bars: Bars) -> _Work:
    """An untrained bundle of the kind, with the quickstart's features and the kind's own sizes."""
    config = load_config(QUICKSTART)
    section = MODEL_KINDS[kind].model_validate({"kind": kind, "features": own_model(config).features})
    config = RunConfig.model_validate(config.model_copy(update={"model": section}).model_dump())
    features = parse_features(section.features, close_only=False)
    windows = Windows.build(bars, features, lookback=section.lookback, horizons=section.horizons)
    rows = windows.rows({symbol: slice(0, len(frame)) for symbol, frame in bars.frames.items()})
    labels = windows.labels[rows[: -section.horizon]]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        network = build_network(section)
    network.fit_scaling(torch.from_numpy(windows.features[rows]), torch.from_numpy(labels))
    bundle = new_bundle(config, network, bars=bars, train_labels=labels[:, 0], root=Path("bundles"))
    gathered = windows.gather(rows)
    batches = []
    for part in gathered.split(BATCH):
        batch = torch.zeros(BATCH, *gathered.shape[1:])
        batch[: len(part)] = part
        batches.append(batch)
    return _Work(
        forecaster=Forecaster(bundle),
        network=network.eval(),
        columns=Columns.of(next(iter(bars.frames.values()))),
        count=len(rows),
        batches=batches,
    )


def _series(kind: str, work: _Work, *, count: int) -> Comparison:
    def bare() -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([work.network.forecast(batch) for batch in work.batches])[: work.count]

    ours = timed("nextbar", lambda: work.forecaster.forecast(work.columns), clock=time.thread_time)
    theirs = timed("torch", bare, clock=time.thread_time)
    our_turns, peer_turns = rounds(ours, theirs, count=count)
    if not (our_turns[-1].result[-work.count :] == peer_turns[-1].result.double().numpy()).all():
        raise Disagreement(f"{NAME}: Forecaster and the bare forward pass of {kind} differ")
    return Comparison(
        benchmark=NAME,
        case=f"series: {kind}",
        peer=f"torch {torch.__version__}, bare forward in batches of {BATCH}",
        unit="bars",
        amount=work.count,
        ours_seconds=seconds_of(our_turns),
        peer_seconds=seconds_of(peer_turns),
        goal=GOAL_RATIO,
        facts={"parameters": work.forecaster.bundle.parameters, "multiply_adds": work.network.multiply_adds},
    )
