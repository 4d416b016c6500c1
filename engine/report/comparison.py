"""Runs side by side: which is better at what, by how much, and whether they may be compared at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.report.catalogue import SECTIONS, best
from engine.report.metrics import Figures, periods_per_year, session_returns
from engine.report.run import Run, plain

RESAMPLES = 1_000
SEED = 7
MINIMUM_COMMON_SESSIONS = 30

# What trading costs; the rest of the broker section is about the account.
_COST_KEYS = ("commission", "slippage_bps", "borrow_rate_pct", "margin_rate_pct")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A difference to the baseline and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A run less the baseline, on the sessions both have; None where there are too few to say.

    ``daily_return_bps``: mean session return, in basis points. ``sharpe_ratio``: annualised.
    """

    sessions: int
    daily_return_bps: Interval | None
    sharpe_ratio: Interval | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric over the columns: the runs, then the passive curves; ``best`` holds positions among the runs."""

    section: str
    key: str
    values: tuple[float | int | None, ...]
    best: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the page and the terminal show of a set of runs.

    Attributes:
        labels: one a run, distinct.
        baseline: position of the run the others are measured against.
        unlike: a run's badges, ``OTHER DATA``, ``OTHER PERIOD``, ``OTHER COSTS`` against the baseline; a run with one
            wins nothing.
        passive: columns after the runs: buy-and-hold and benchmark, each distinct one once.
        rows: metric by metric.
        differences: a run's difference to the baseline; None for the baseline itself.
        configs: dotted key -> one value a run, for the keys that differ.
    """

    labels: tuple[str, ...]
    baseline: int
    unlike: tuple[tuple[str, ...], ...]
    passive: tuple[tuple[str, Figures], ...]
    rows: tuple[Row, ...]
    differences: tuple[Difference | None, ...]
    configs: Mapping[str, tuple[Any, ...]]


def compare_runs(runs: Sequence[Run], *, labels: Sequence[str], baseline: int = 0) -> Comparison:
    """Put the runs side by side; only runs that share the baseline's data, period and costs can be marked as best."""
    unlike = tuple(_unlike(run, runs[baseline]) for run in runs)
    passive = _passive(runs, labels)
    return Comparison(
        labels=tuple(labels),
        baseline=baseline,
        unlike=unlike,
        passive=passive,
        rows=_rows(runs, [figures for _, figures in passive], alike=[not badges for badges in unlike]),
        differences=tuple(None if i == baseline else difference(run, runs[baseline]) for i, run in enumerate(runs)),
        configs=config_differences([run.config for run in runs]),
    )


def difference(run: Run, baseline: Run) -> Difference:
    """The run less the baseline, in mean session return and in Sharpe ratio, with stationary-bootstrap intervals.

    Both runs' returns of a session are drawn together (paired), in blocks whose mean length is Politis and White's for
    their difference; 1,000 resamples, percentile interval, fixed seed.
    """
    own, other = (session_returns(r.equity["equity"]) for r in (run, baseline))
    for returns in (own, other):
        returns.index = pd.DatetimeIndex(returns.index).floor("D")
    paired = pd.concat([own, other], axis=1, join="inner").to_numpy(dtype=float)
    if len(paired) < MINIMUM_COMMON_SESSIONS:
        return Difference(sessions=len(paired), daily_return_bps=None, sharpe_ratio=None)
    scale = math.sqrt(periods_per_year(run.timeframe))
    observed = _statistics(paired, scale)
    low, high = _bootstrap(paired, scale)
    intervals = [
        Interval(value=float(v), low=float(a), high=float(b)) if np.isfinite([v, a, b]).all() else None
        for v, a, b in zip(observed, low, high, strict=True)
    ]
    return Difference(sessions=len(paired), daily_return_bps=intervals[0], sharpe_ratio=intervals[1])


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The dotted keys on which the run files differ, with each one's value; None where a file lacks the key."""
    flat = [_flat(plain(config)) for config in configs]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    rows = {key: tuple(config.get(key) for config in flat) for key in keys}
    return {key: values for key, values in rows.items() if any(v != values[0] for v in values) and key != "name"}


def distinct_labels(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The runs' names, or their folders' names where a name would stand for two runs."""
    return [name if list(names).count(name) == 1 else folder for name, folder in zip(names, folders, strict=True)]


def _statistics(paired: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """[sessions, 2] returns -> difference of means in bps, difference of annualised Sharpe ratios (NaN: undefined)."""
    means, deviations = paired.mean(axis=0), paired.std(axis=0, ddof=1)
    sharpe = np.full(2, np.nan)
    np.divide(means * scale, deviations, out=sharpe, where=deviations > 1e-12)
    return np.array([(means[0] - means[1]) * 1e4, sharpe[0] - sharpe[1]])


def _bootstrap(paired: NDArray[np.float64], scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from arch.bootstrap import StationaryBootstrap, optimal_block_length

    gap = paired[:, 0] - paired[:, 1]
    if gap.std() < 1e-12:
        constant = _statistics(paired, scale)
        return constant, constant
    block = max(1, round(float(optimal_block_length(gap)["stationary"].iloc[0])))
    samples = StationaryBootstrap(block, paired, seed=np.random.default_rng(SEED))
    draws = samples.apply(lambda rows: _statistics(rows, scale), RESAMPLES)
    # A statistic that any resample leaves undefined (a run that hardly moved) gets no interval: the NaN says so.
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high


def _unlike(run: Run, baseline: Run) -> tuple[str, ...]:
    checks = {
        "OTHER DATA": (run.manifest.get("hashes", {}).get("data"), baseline.manifest.get("hashes", {}).get("data")),
        "OTHER PERIOD": (_period(run), _period(baseline)),
        "OTHER COSTS": (_costs(run), _costs(baseline)),
    }
    return tuple(badge for badge, (own, other) in checks.items() if own != other)


def _period(run: Run) -> tuple[Any, ...]:
    index = run.equity.index
    return (run.timeframe, index[0], index[-1]) if len(index) else (run.timeframe,)


def _costs(run: Run) -> dict[str, Any]:
    broker = run.config.get("broker") or {}
    return _flat({key: broker[key] for key in _COST_KEYS if key in broker})


def _passive(runs: Sequence[Run], labels: Sequence[str]) -> tuple[tuple[str, Figures], ...]:
    columns: list[tuple[str, Figures]] = []
    for key, title in (("buy_and_hold", "Buy and hold"), ("benchmark", "Benchmark")):
        distinct: list[tuple[str, Figures]] = []
        for run, label in zip(runs, labels, strict=True):
            figures = run.metrics.get(key) or {}
            if figures and all(figures != other for _, other in distinct):
                distinct.append((label, figures))
        several = len(distinct) > 1
        columns.extend((f"{title} ({label})" if several else title, figures) for label, figures in distinct)
    return tuple(columns)


def _rows(runs: Sequence[Run], passive: Sequence[Figures], *, alike: Sequence[bool]) -> tuple[Row, ...]:
    columns = [run.metrics.get("strategy", {}) for run in runs]
    rows = []
    for section, metrics in SECTIONS.items():
        for metric in metrics:
            if not any(metric.key in column for column in columns):
                continue
            values = tuple(column.get(metric.key) for column in (*columns, *passive))
            fair = [v if ok else None for v, ok in zip(values, alike, strict=False)]
            rows.append(Row(section=section, key=metric.key, values=values, best=frozenset(best(metric.key, fair))))
    return tuple(rows)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
