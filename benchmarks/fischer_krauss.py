"""Fischer & Krauss (2018, EJOR 270:654): an LSTM that picks stocks, beside reversal without a model and equal weight.

The protocol is that of ``configs/fischer_krauss.yaml``: study periods of 750 sessions to learn from and 250 to trade.
Each day the k stocks that are expected to do best are bought and the k that are expected to do worst sold short, at the
close that decides and until the next, as in the paper, where 5 bps are paid for each half-turn. nextbar itself fills at
the next open: what that earns is shown beside it, from the engine's own backtest, for a gross exposure of 1.

The paper's figures, of members of the S&P 500 as they were, 1992-2015: 0.46% a day and a Sharpe ratio of 5.8 before
costs, 0.26% a day after them, about nothing after 2010; reversal 0.23% a day before costs. Bars of those who are
members today are survivor-biased, so that no figure here is evidence of a profit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import Level, Measured
from engine.config import DataConfig, RunConfig
from engine.data.bars import Bars
from engine.data.cuts import with_history
from engine.data.sources import load_bars
from engine.preparation import simulated
from engine.report.metrics import session_returns, sharpe_ratio
from engine.run_file import load_config
from models.evaluation import forecast_frame
from models.fitting.bundles import fit_bundle
from models.fitting.walk_forward import fold_configs
from models.forecaster import Forecaster
from strategies.loading import load_strategy
from strategies.rule import Context

NAME = "fischer krauss"
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "fischer_krauss.yaml"
HALF_TURN_BPS = 5.0
_SESSIONS_A_YEAR = 252
_UNITS = ("bps", "%", "s")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to measure.

    Attributes:
        path: bars of many stocks as one file; the run file's own 20 without.
        periods: study periods at most.
        symbols: of them at most.
        learned: symbols that the network is trained on at most; it forecasts all of them.
        epochs: at most.
        lookback: days that it reads.
    """

    path: Path | None = None
    periods: int = 4
    symbols: int | None = None
    learned: int = 50
    epochs: int = 3
    lookback: int = 240


QUICK = Size(periods=1, symbols=40, learned=10, epochs=1)
TINY = Size(periods=1, symbols=6, epochs=1, lookback=5)


def measure(size: Size) -> Iterator[Measured]:
    """What each way of picking earned, all study periods together, and how long a period took to learn."""
    config, bars = _asked(size)
    k = max(1, min(10, len(bars.symbols) // 10))
    folds = fold_configs(config, bars)[: size.periods]
    scores: dict[str, list[pd.DataFrame]] = {"LSTM": [], "reversal": []}
    fills: dict[str, list[pd.Series]] = {"LSTM": [], "reversal": []}
    seconds = []
    closes = pd.DataFrame({symbol: frame["close"] for symbol, frame in bars.frames.items()})
    for fold in folds:
        start = time.perf_counter()
        # Excesses are over the median of all of them.
        learned = _some(bars, size.learned).symbols
        bundle = fit_bundle(fold, bars, root=Path("bundles"), learned=learned)
        seconds.append(time.perf_counter() - start)
        forecaster = Forecaster(bundle)
        frame = forecast_frame(bars, forecaster, fold.spans.test)
        scores["LSTM"].append(frame.pivot(index="time", columns="symbol", values="forecast"))
        reversal = -closes.pct_change(fill_method=None).loc[scores["LSTM"][-1].index]
        scores["reversal"].append(reversal)
        for name, kind in (("LSTM", "top_bottom:TopBottom"), ("reversal", "reversal:Reversal")):
            fills[name].append(_filled_at_the_open(fold, bars, kind, k, forecaster))
    ahead = closes.shift(-1) / closes - 1.0
    about = f"{len(folds)} periods, {len(bars.symbols)} symbols, k {k}, survivor-biased"
    yield from _figures("LSTM", {"to learn a period, s": float(np.mean(seconds))}, about)
    for name, parts in scores.items():
        days = _daily(pd.concat(parts), ahead, k)
        yield from _figures(f"{name}, at the close", _earned(days), about)
        yield from _figures(f"{name}, filled at the next open", _sharpes("net", pd.concat(fills[name])), about)
    times = pd.concat(scores["LSTM"]).index
    held = ahead.loc[times].mean(axis=1).dropna()
    yield from _figures("equal weight", {"mean a day, gross, bps": 1e4 * held.mean()} | _sharpes("gross", held), about)


def _asked(size: Size) -> tuple[RunConfig, Bars]:
    config = load_config(CONFIG)
    if size.path is not None:
        section = {"source": "files", "path": size.path, "symbols": "all", "cleaning": {"conflict": "drop"}}
        config = config.model_copy(update={"data": DataConfig.model_validate(section)})
    bars = _some(load_bars(config.data, config.folder), size.symbols)
    if size.path is not None:
        bars = replace(bars, survivor_biased=True)
        days = [frame.index for frame in bars.frames.values() if len(frame)]
        first, last = min(own[0] for own in days).date(), max(own[-1] for own in days).date()
        spans = config.spans.model_copy(update={"train": (first, first), "validate_": None, "test": (last, last)})
        config = config.model_copy(update={"spans": spans})
    model = config.model.model_copy(update={"lookback": size.lookback}) if config.model is not None else None
    training = config.training.model_copy(update={"epochs": size.epochs, "batch": 1024})
    return config.model_copy(update={"model": model, "training": training}), bars


def _some(bars: Bars, count: int | None) -> Bars:
    """Symbols at equal distances in their order, ``count`` at most."""
    every = 1 if count is None else -(-len(bars.symbols) // count)
    return replace(bars, frames={symbol: bars.frames[symbol] for symbol in bars.symbols[::every]})


def _daily(scores: pd.DataFrame, ahead: pd.DataFrame, k: int) -> pd.DataFrame:
    """Day by day: gross return of 1 long and 1 short, its turnover in half-turns, and the share of right picks.

    Args:
        scores: [days, symbols], the higher the better; NaN is not ranked.
        ahead: [days, symbols], simple returns until the next close; who has none is ranked all the same, and earns 0.
            A day on which nobody has one is left out.
    """
    rows, before = [], pd.Series(0.0, index=scores.columns)
    for moment, row in scores.iterrows():
        known = ahead.loc[moment, scores.columns]
        came = known.fillna(0.0)
        ranked = row.dropna().sort_values(kind="stable").index
        if len(ranked) < 2 * k or known.isna().all():
            continue
        weights = pd.Series(0.0, index=scores.columns)
        best, worst = ranked[-k:], ranked[:k]
        weights[best], weights[worst] = 1.0 / k, -1.0 / k
        middle = came[ranked].median()
        right = (came[best] > middle).sum() + (came[worst] < middle).sum()
        turned = (weights - before).abs().sum()
        rows.append((float((weights * came).sum()), float(turned), right / (2 * k)))
        before = weights
    return pd.DataFrame(rows, columns=["gross", "half_turns", "right"])


def _earned(days: pd.DataFrame) -> Mapping[str, float]:
    net = days["gross"] - HALF_TURN_BPS * 1e-4 * days["half_turns"]
    return {
        "mean a day, gross, bps": 1e4 * float(days["gross"].mean()),
        "mean a day, net, bps": 1e4 * float(net.mean()),
        **_sharpes("gross", days["gross"]),
        **_sharpes("net", net),
        "half-turns a day": float(days["half_turns"].mean()),
        "picks on the right side of the median, %": 100.0 * float(days["right"].mean()),
    }


def _sharpes(name: str, returns: pd.Series) -> Mapping[str, float]:
    found = sharpe_ratio(returns.to_numpy(dtype=np.float64), _SESSIONS_A_YEAR)
    nan = float("nan")
    return {
        f"Sharpe ratio, {name}": nan if found.value is None else found.value,
        f"Sharpe ratio, {name}, 95% from": nan if found.low is None else found.low,
        f"Sharpe ratio, {name}, 95% to": nan if found.high is None else found.high,
    }


def _filled_at_the_open(fold: RunConfig, bars: Bars, kind: str, k: int, forecaster: Forecaster) -> pd.Series:
    """Daily returns after costs of the engine's own backtest, gross exposure 1."""
    strategy = fold.strategy.model_copy(update={"kind": f"strategies.{kind}", "params": {"k": k}})
    config = fold.model_copy(update={"strategy": strategy})
    loaded = load_strategy(config, Context.of(config, forecaster))
    used, start, _ = with_history(bars, fold.spans.test, warmup=forecaster.memory)
    equity = simulated(config, used, loaded.cls, loaded.arguments, start=start).equity["equity"]
    return session_returns(equity)


def _figures(case: str, figures: Mapping[str, float], about: str) -> Iterator[Measured]:
    for name, value in figures.items():
        words, _, unit = name.rpartition(", ")
        shown = (words, unit) if unit in _UNITS else (name, "")
        yield Level(benchmark=NAME, case=f"{case}: {shown[0]} ({about})", unit=shown[1], value=value)
