"""How long forecasts take: one at a time, as when bars arrive, and a whole series at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

import numpy as np

from engine.data.bars import Bars
from engine.ranking_jobs import Outcome, one_thread
from engine.report.ranking import Speed
from models.features import Columns
from models.forecaster import Forecaster

_CALLS, _WARMING = 300, 30


def speeds_of(outcomes: Sequence[Outcome], bars: Bars) -> dict[str, Speed]:
    """Each kind's durations, measured with its model of the last fold, one after the other, on one thread."""
    longest = Columns.of(max(bars.frames.values(), key=len))
    speeds = {}
    gc.collect()
    with one_thread():
        for label in dict.fromkeys(outcome.job.label for outcome in outcomes):
            own = [outcome for outcome in outcomes if outcome.job.label == label]
            seconds = [outcome.training_seconds for outcome in own if outcome.training_seconds is not None]
            forecaster = Forecaster.load(own[-1].bundle)
            p50, p99 = (np.quantile(_single_calls(forecaster, longest), [0.5, 0.99]) * 1e3).tolist()
            speeds[label] = Speed(
                training_seconds=float(np.mean(seconds)) if len(seconds) == len(own) else None,
                latency_p50_ms=p50,
                latency_p99_ms=p99,
                forecasts_per_second=_throughput(forecaster, longest),
            )
    return speeds


def _single_calls(forecaster: Forecaster, columns: Columns) -> list[float]:
    """Seconds of forecasts at the ends of successive windows."""
    memory = forecaster.memory
    stops = [memory + i % (len(columns) - memory + 1) for i in range(_CALLS + _WARMING)]
    windows = [columns[stop - memory : stop] for stop in stops]
    calls = []
    gc.disable()  # as in a bar loop
    try:
        for window in windows:
            start = time.perf_counter()
            forecaster.latest(window)
            calls.append(time.perf_counter() - start)
    finally:
        gc.enable()
    return calls[_WARMING:]


def _throughput(forecaster: Forecaster, columns: Columns) -> float:
    """Forecasts a second over the whole series, the best of three."""
    took = []
    for _ in range(3):
        start = time.perf_counter()
        forecaster.forecast(columns)
        took.append(time.perf_counter() - start)
    return (len(columns) - forecaster.memory + 1) / min(took)
