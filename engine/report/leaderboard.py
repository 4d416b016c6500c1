"""The leaderboard: kinds of models on the same bars, folds and seeds, beside the naive forecasts and buy-and-hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.data.bars import Bars
from engine.report.metrics import Figures, finite, performance, periods_per_year, session_returns
from models.evaluation import alarms, judge
from models.evaluation.inference import Test, by_date, diebold_mariano, holm
from models.evaluation.information import by_group, regimes, years
from models.evaluation.scores import errors_of, percent_of

Array = NDArray[np.float64]

RESAMPLES = 1_000
SEED = 7
LEVEL = 0.05
_KEYS = ["time", "symbol"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one kind did with one seed on one fold: its forecasts, and the strategy's equity and traded value."""

    label: str
    fold: int
    seed: int
    forecasts: pd.DataFrame
    train_naive_mae: float
    equity: pd.Series
    traded: float


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A kind on the leaderboard; figures are means over the seeds, ``*_spread`` their standard deviations.

    Attributes:
        baseline: it is one of the naive forecasts, which are always there.
        accuracy: mae, rmse, mase, r2_out_of_sample, hit_rate_pct and the figures of ``models.evaluation.judge``.
        r2_low, r2_high: 95 % interval of r2_out_of_sample, over dates.
        dm_zero, dm_zero_p: Diebold & Mariano against zero, one-sided; dm_best, dm_best_p: against the best, two-sided.
        naive_p: the largest one-sided p against the naive forecasts; holm_p: the same after Holm's correction for the
            number of kinds. beats_naive: holm_p is below 5 %.
        strategy: after costs, folds one after the other; see ``performance``, and turnover_ann.
        groups: symbol, year and regime -> name -> figures, see ``models.evaluation.information.by_group``.
        alarms: what asks for a second look.
        equity: of the first seed, folds one after the other, 1 at the start.
    """

    label: str
    baseline: bool
    seeds: tuple[int, ...]
    accuracy: Figures
    accuracy_spread: Figures
    r2_low: float | None
    r2_high: float | None
    dm_zero: float | None
    dm_zero_p: float | None
    dm_best: float | None
    dm_best_p: float | None
    naive_p: float | None
    holm_p: float | None
    beats_naive: bool
    strategy: Figures
    strategy_spread: Figures
    groups: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    alarms: tuple[str, ...]
    equity: pd.Series


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All entries, the most accurate first (mean squared error).

    Attributes:
        rows: forecasts that every kind was judged on: decision bars at which all forecasts and the outcome are known.
        left_out: decision bars at which one of them is not. dates: of the rows. always_up_pct: rows that rose.
        pairs: label -> label -> p, two-sided, of Diebold & Mariano; the first loses less where the sign is negative:
            (statistic, p).
        buy_and_hold: its figures on the same folds; held: its equity, 1 at the start.
    """

    entries: tuple[Entry, ...]
    rows: int
    left_out: int
    dates: int
    always_up_pct: float | None
    pairs: Mapping[str, Mapping[str, tuple[float, float] | None]]
    buy_and_hold: Figures
    held: pd.Series

    @property
    def best(self) -> Entry:
        """The most accurate one, naive forecasts included."""
        return self.entries[0]


def leaderboard(
    trials: Sequence[Trial],
    *,
    baselines: Sequence[str],
    horizon: int,
    bars: Bars,
    held: Sequence[pd.Series],
) -> Leaderboard:
    """Judge all kinds on the rows that they have in common.

    Args:
        trials: of every kind on every fold; a kind has one seed or several.
        baselines: labels of the naive forecasts among them: the first is the zero forecast.
        horizon: bars ahead.
        bars: all bars, for the volatility regimes.
        held: equity of buy-and-hold on each fold.
    """
    labels = list(dict.fromkeys(trial.label for trial in trials))
    seeds = {label: sorted({t.seed for t in trials if t.label == label}) for label in labels}
    table, left_out = _common(trials, baselines[0])
    dates = pd.DatetimeIndex(table["time"]).asi8
    realised = table["realised"].to_numpy(dtype=np.float64)
    groups = {"symbol": table["symbol"], "year": years(table), "regime": regimes(table, bars)}
    frames = {label: [_frame(table, label, seed) for seed in seeds[label]] for label in labels}
    losses = {label: np.mean([_squares(frame) for frame in own], axis=0) for label, own in frames.items()}
    order = sorted(labels, key=lambda label: (float(losses[label].mean()), label not in baselines, label))
    pairs = {
        one: {other: _pair(losses[one], losses[other], dates, horizon) for other in order if other != one}
        for one in order
    }
    draws = _draws(by_date(realised**2, dates), horizon)
    naive = {label: _naive_p(label, pairs, baselines) for label in labels}
    candidates = [label for label in labels if label not in baselines]
    corrected = dict(zip(candidates, holm([naive[label] for label in candidates]), strict=True))
    known = {"mae_zero": _zero_mae(realised), "always_up_pct": percent_of(realised[realised != 0.0] > 0.0)}
    scale = table["naive_mae"].to_numpy(dtype=np.float64)
    per_year = periods_per_year(bars.timeframe)
    entries = []
    for label in order:
        chains = [_chained([t for t in trials if (t.label, t.seed) == (label, seed)]) for seed in seeds[label]]
        money = [
            _money(equity, [t for t in trials if (t.label, t.seed) == (label, seed)], per_year)
            for equity, seed in zip(chains, seeds[label], strict=True)
        ]
        own = [_accuracy(frame, scale, horizon) for frame in frames[label]]
        accuracy, strategy = _means(own), _means(money)
        low, high = _r2_interval(by_date(losses[label], dates), by_date(realised**2, dates), draws)
        if label == baselines[0]:
            low, high = None, None  # it is what the others are measured against
        zero = pairs[label].get(baselines[0])
        top = pairs[label].get(order[0])
        p = corrected.get(label)
        entries.append(
            Entry(
                label=label,
                baseline=label in baselines,
                seeds=tuple(seeds[label]),
                accuracy=accuracy,
                accuracy_spread=_spreads(own),
                r2_low=low,
                r2_high=high,
                dm_zero=None if zero is None else zero.statistic,
                dm_zero_p=None if zero is None else zero.p_better,
                dm_best=None if top is None else top.statistic,
                dm_best_p=None if top is None else top.p,
                naive_p=naive[label] if label in candidates else None,
                holm_p=p,
                beats_naive=p is not None and p < LEVEL,
                strategy=strategy,
                strategy_spread=_spreads(money),
                groups={name: by_group(frames[label][0], own_groups) for name, own_groups in groups.items()},
                alarms=tuple(alarms({**accuracy, **strategy, **known}, horizon=horizon)),
                equity=chains[0],
            )
        )
    whole = _joined(held)
    return Leaderboard(
        entries=tuple(entries),
        rows=len(table),
        left_out=left_out,
        dates=len(np.unique(dates)),
        always_up_pct=known["always_up_pct"],
        pairs={
            one: {other: None if found is None else (found.statistic, found.p) for other, found in row.items()}
            for one, row in pairs.items()
        },
        buy_and_hold=performance(whole, periods_per_year=per_year),
        held=whole,
    )


def _common(trials: Sequence[Trial], zero: str) -> tuple[pd.DataFrame, int]:
    """The rows that all trials know: time, symbol, realised, last_return, naive_mae, and each one's three columns."""
    parts, left_out = [], 0
    for fold in sorted({trial.fold for trial in trials}):
        own = [trial for trial in trials if trial.fold == fold]
        naive = next(trial.train_naive_mae for trial in own if trial.label == zero)
        table = own[-1].forecasts[[*_KEYS, "realised", "last_return"]].set_index(_KEYS)
        columns = {}
        for trial in own:
            indexed = trial.forecasts.set_index(_KEYS)
            for name in ("forecast", "lower", "upper"):
                columns[_column(trial.label, trial.seed, name)] = indexed[name]
        table = pd.concat([table, pd.DataFrame(columns)], axis=1)
        known = table.dropna(subset=["realised", *columns])
        left_out += len(table) - len(known)
        parts.append(known.assign(naive_mae=naive).reset_index())
    return pd.concat(parts, ignore_index=True).sort_values(_KEYS, kind="stable", ignore_index=True), left_out


def _column(label: str, seed: int, name: str) -> str:
    return f"{label}\n{seed}\n{name}"


def _frame(table: pd.DataFrame, label: str, seed: int) -> pd.DataFrame:
    own = {name: table[_column(label, seed, name)] for name in ("forecast", "lower", "upper")}
    return table[[*_KEYS, "realised", "last_return"]].assign(**own)


def _squares(frame: pd.DataFrame) -> Array:
    squares: Array = (frame["realised"] - frame["forecast"]).to_numpy(dtype=np.float64) ** 2
    return squares


def _pair(own: Array, other: Array, dates: NDArray[np.int64], horizon: int) -> Test | None:
    return diebold_mariano(own, other, dates, horizon=horizon)


def _naive_p(label: str, pairs: Mapping[str, Mapping[str, Test | None]], baselines: Sequence[str]) -> float | None:
    """Better than *each* of the naive forecasts: the largest of the p, which needs no correction of its own."""
    found = [pairs[label][name] for name in baselines if name != label]
    known = [test.p_better for test in found if test is not None]
    return max(known) if known and len(known) == len(found) else None


def _accuracy(frame: pd.DataFrame, scale: Array, horizon: int) -> Figures:
    y, f, low, high = (frame[name].to_numpy(dtype=np.float64) for name in ("realised", "forecast", "lower", "upper"))
    figures: Figures = {"n": len(y), **errors_of(y, f, naive_mae=0.0)}
    if not f.any():
        figures["hit_rate_pct"] = None  # it has no sign
    # Each fold's errors against the naive ones of its own training span.
    figures["mase"] = float(np.mean(np.abs(y - f) / scale)) if len(y) and (scale > 0.0).all() else None
    figures["coverage_pct"] = percent_of((low <= y) & (y <= high))
    return finite({**figures, **judge(frame, horizon=horizon)})


def _zero_mae(realised: Array) -> float | None:
    return float(np.abs(realised).mean()) if len(realised) else None


def _draws(squares: Array, horizon: int) -> Array:
    """How often each date is drawn in each resample of a stationary bootstrap, [resamples, dates]."""
    count = len(squares)
    if count < 2:
        return np.zeros((0, count))
    from arch.bootstrap import StationaryBootstrap, optimal_block_length

    best = float(optimal_block_length(squares)["stationary"].iloc[0]) if count > 30 and squares.std() > 0.0 else 1.0
    block = round(min(max(1.0, float(horizon), best if math.isfinite(best) else 1.0), count / 2))
    samples = StationaryBootstrap(block, np.arange(count), seed=np.random.default_rng(SEED))
    drawn = [np.bincount(data[0][0], minlength=count) for data in samples.bootstrap(RESAMPLES)]
    return np.array(drawn, dtype=np.float64)


def _r2_interval(own: Array, zero: Array, draws: Array) -> tuple[float | None, float | None]:
    """The 2.5 % and 97.5 % quantiles of 1 - sum of own / sum of zero, both by date."""
    if not len(draws):
        return None, None
    below = draws @ zero
    if not (below > 0.0).all():
        return None, None
    low, high = np.quantile(1.0 - (draws @ own) / below, [0.025, 0.975]).tolist()
    return low, high


def _chained(trials: Sequence[Trial]) -> pd.Series:
    return _joined([trial.equity for trial in sorted(trials, key=lambda trial: trial.fold)])


def _joined(curves: Sequence[pd.Series]) -> pd.Series:
    """Curves one after the other, each going on from where the one before it ended; 1 at the start."""
    parts, level = [], 1.0
    for curve in curves:
        own = curve / float(curve.iloc[0]) * level
        level = float(own.iloc[-1])
        parts.append(own)
    joined: pd.Series = pd.concat(parts)
    return joined


def _money(equity: pd.Series, trials: Sequence[Trial], per_year: float) -> Figures:
    """What the strategy made after costs; turnover as in ``cost_figures``, over all folds."""
    figures = performance(equity, periods_per_year=per_year)
    sessions = len(session_returns(equity))
    exchanged = sum(trial.traded / 2.0 / float(trial.equity.mean()) for trial in trials)
    turnover = exchanged / (sessions / per_year) if sessions else None
    return finite({**figures, "turnover_ann": turnover})


def _means(several: Sequence[Figures]) -> Figures:
    means = {key: None if (own := _known(several, key)) is None else float(np.mean(own)) for key in several[0]}
    if "echo_lag" in means and len({figures["echo_lag"] for figures in several}) > 1:
        means["echo_lag"] = None  # a place, not a size
    return means


def _spreads(several: Sequence[Figures]) -> Figures:
    """Standard deviations over the seeds; None where there is one seed, or a figure is not defined."""
    if len(several) < 2:
        return dict.fromkeys(several[0])
    return {key: None if (own := _known(several, key)) is None else float(np.std(own, ddof=1)) for key in several[0]}


def _known(several: Sequence[Figures], key: str) -> list[float] | None:
    values = [figures.get(key) for figures in several]
    known = [float(value) for value in values if value is not None]
    return known if len(known) == len(values) else None
