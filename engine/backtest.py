"""The use case behind ``nextbar backtest``: a run file in, a run folder out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.config import RiskConfig, RunConfig, SpanName, digest, dump
from engine.data.bars import Bars
from engine.data.calendars import session_closes, sessions_of
from engine.data.cuts import decision_slice
from engine.data.sources import load_bars, load_benchmark
from engine.data.timeframes import is_intraday
from engine.errors import BundleError, DataError, NextbarError
from engine.report.hashes import fills_hash, orders_hash
from engine.report.records import bars_frame, fills_frame, orders_frame, trades_frame
from engine.report.run import Metrics, Run, write_run
from engine.report.trade_metrics import run_metrics
from engine.report.trials import append_trial
from engine.simulation.simulate import Simulation, simulate
from engine.trading.orders import OrderStatus
from models.bundle import WEIGHTS, BundleRecord, check_fit, find_bundle
from models.evaluation import forecast_frame, score_frame
from models.forecaster import Forecaster
from strategies.buy_and_hold import BuyAndHold
from strategies.loading import LoadedStrategy, load_strategy
from strategies.rule import Context
from strategies.runner import RuleStrategy

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class BacktestReport:
    """What a backtest did: the folder it wrote, how it ended, and the figures.

    ``status`` is ``completed`` or ``halted``; ``remarks`` are sentences for the user.
    """

    run: Path
    status: str
    halted: str
    orders_hash: str
    fills_hash: str
    metrics: Metrics
    remarks: tuple[str, ...]


def backtest(
    config: RunConfig,
    *,
    root: Path = Path(),
    now: datetime,
    span: SpanName = "test",
    on_progress: Progress | None = None,
) -> BacktestReport:
    """Run the strategy over one span of the run file, beside buy-and-hold, and write the run folder.

    It never trains. A test span whose bars the bundle has seen is refused; ``span="train"`` or ``"validate"`` asks for
    such bars by name, and the report then says IN-SAMPLE on every page.

    Raises:
        ConfigError, BundleError: the run file or its bundle cannot be used.
        DataError: bars are missing or malformed.
        StrategyError: the strategy could not be loaded, or raised.
        StorageError: the run folder could not be written; nothing of it is left.
    """
    period = config.spans.get(span)
    bars = load_bars(config.data, config.folder)
    forecaster, remarks = _forecaster(config, bars, root)
    in_sample = _in_sample(forecaster, bars, span, period)
    strategy = load_strategy(config, Context.of(config, forecaster))
    used, start, dropped = _used_bars(config, bars, period, forecaster)
    remarks += dropped

    ends = _session_ends(used)
    simulation = simulate(
        used,
        strategy.cls,
        strategy.arguments,
        broker=config.broker,
        risk=config.risk,
        start=start,
        session_ends=ends,
        on_progress=on_progress,
    )
    held = _buy_and_hold(config, used, start, ends)
    run = _assemble(config, used, period, simulation, held, strategy, forecaster, in_sample=in_sample)
    if not in_sample:
        append_trial(root / "runs", _trial(run, now, span, period))
    return BacktestReport(
        run=write_run(run, root / "runs", now=now),
        status=run.manifest["status"],
        halted=simulation.halted,
        orders_hash=run.manifest["orders_hash"],
        fills_hash=run.manifest["fills_hash"],
        metrics=run.metrics,
        remarks=remarks,
    )


def _forecaster(config: RunConfig, bars: Bars, root: Path) -> tuple[Forecaster | None, tuple[str, ...]]:
    if config.model is None:
        return None, ()
    forecaster = Forecaster.load(find_bundle(config, root / "bundles"))
    return forecaster, check_fit(forecaster.bundle, config, bars)


def _in_sample(forecaster: Forecaster | None, bars: Bars, span: SpanName, period: Any) -> bool:
    """Whether the span holds bars that the bundle was fitted or chosen on; refused when that was not asked for."""
    if forecaster is None:
        return span != "test"
    seen = _seen(forecaster.bundle.record, period)
    if span != "test":
        return True
    if seen:
        raise BundleError(
            f"spans.test: {period[0]} to {period[1]} holds bars of the bundle's own {seen}; test on later bars, or ask "
            "for seen bars by name with --span train or --span validate"
        )
    return False


def _seen(record: BundleRecord, period: Any) -> str:
    for name in ("train", "validate"):
        own = record.spans.named()[name]
        if own is not None and own[0] <= period[1] and period[0] <= own[1]:
            return f"{name} span ({own[0]} to {own[1]})"
    return ""


def _used_bars(
    config: RunConfig, bars: Bars, period: Any, forecaster: Forecaster | None
) -> tuple[Bars, pd.Timestamp, tuple[str, ...]]:
    """The span's bars with their warm-up before them, and the end of the first decision bar.

    Nothing after the span is loaded into the run at all.
    """
    warmup = max(config.data.warmup_bars, 0 if forecaster is None else forecaster.memory)
    frames, starts, remarks = {}, [], []
    for symbol, frame in bars.frames.items():
        decisions = decision_slice(pd.DatetimeIndex(frame.index), period)
        if decisions.start == decisions.stop:
            remarks.append(f"{symbol} has no bars from {period[0]} to {period[1]} and takes no part")
            continue
        frames[symbol] = frame.iloc[max(0, decisions.start - warmup) : decisions.stop]
        starts.append(frame.index[decisions.start])
    if not frames:
        first = min(frame.index[0] for frame in bars.frames.values())
        last = max(frame.index[-1] for frame in bars.frames.values())
        raise DataError(
            f"no symbol has bars from {period[0]} to {period[1]}: the data run from {first:%Y-%m-%d} to "
            f"{last:%Y-%m-%d}; move the span"
        )
    return replace(bars, frames=frames), min(starts), tuple(remarks)


def _session_ends(bars: Bars) -> Callable[[int], bool]:
    """Whether a session ends with the bar that ends at this time (UTC ns): always, unless bars are intraday."""
    if not is_intraday(bars.timeframe):
        return lambda time: True
    sessions = [sessions_of(pd.DatetimeIndex(frame.index)).unique() for frame in bars.frames.values()]
    closes = session_closes(pd.DatetimeIndex(np.unique(np.concatenate(sessions))))
    ends = frozenset(closes.as_unit("ns").asi8.tolist())
    return ends.__contains__


def _buy_and_hold(
    config: RunConfig, bars: Bars, start: pd.Timestamp, session_ends: Callable[[int], bool]
) -> Simulation:
    """The same symbols, costs and account, bought once in equal parts; no limit but the account's own."""
    rule = BuyAndHold({}, replace(Context.of(config, None), max_gross=1.0))
    return simulate(
        bars,
        RuleStrategy,
        {"rule": rule},
        broker=config.broker,
        risk=RiskConfig(),
        start=start,
        session_ends=session_ends,
    )


def _assemble(
    config: RunConfig,
    bars: Bars,
    period: Any,
    simulation: Simulation,
    held: Simulation,
    strategy: LoadedStrategy,
    forecaster: Forecaster | None,
    *,
    in_sample: bool,
) -> Run:
    equity = simulation.equity.assign(
        buy_and_hold=held.equity["equity"], benchmark=_benchmark(config, simulation.equity.index)
    )
    orders, fills, trades = (
        orders_frame(simulation.orders),
        fills_frame(simulation.ledger.fills),
        trades_frame(simulation.trades, bars),
    )
    forecasts, forecast_figures = pd.DataFrame(), None
    if forecaster is not None:
        record = forecaster.bundle.record
        forecasts = forecast_frame(bars, forecaster, period, known=simulation.forecasts).assign(in_sample=in_sample)
        forecast_figures = score_frame(forecasts, train_mean=record.train_mean, train_naive_mae=record.train_naive_mae)
    return Run(
        manifest={
            "kind": "backtest",
            "name": config.name,
            "status": "halted" if simulation.halted else "completed",
            "halted": simulation.halted,
            "hashes": {
                "config": digest(dump(config)),
                "data": bars.content_hash,
                "model": None if forecaster is None else forecaster.bundle.record.files[WEIGHTS],
                "strategy": strategy.source_hash,
            },
            "bundle": None if forecaster is None else forecaster.bundle.path.name,
            "strategy": config.strategy.kind,
            "seed": config.training.seed if forecaster is not None else None,
            "threads": _threads(forecaster),
            "versions": _versions(),
            "period": [str(period[0]), str(period[1])],
            "symbols": list(bars.symbols),
            "source": bars.source,
            "timeframe": bars.timeframe,
            "adjustment": bars.adjustment,
            "in_sample": in_sample,
            "synthetic": bars.synthetic,
            "survivor_biased": bars.survivor_biased,
            "close_only": bars.close_only,
            "orders_hash": orders_hash(orders[orders["status"] != OrderStatus.REFUSED.value]),
            "fills_hash": fills_hash(fills),
            "audit": audit(simulation, config),
        },
        config=dump(config),
        metrics=run_metrics(
            equity=equity,
            orders=orders,
            fills=fills,
            trades=trades,
            timeframe=bars.timeframe,
            borrow_and_margin_paid=simulation.ledger.interest_paid,
            forecast=forecast_figures,
        ),
        equity=equity,
        orders=orders,
        fills=fills,
        trades=trades,
        forecasts=forecasts,
        bars=bars_frame(bars, equity.index[0]),
    )


def audit(simulation: Simulation, config: RunConfig) -> dict[str, str]:
    """Check on every run what must hold on every run; an error here is a defect of nextbar, and nothing is written."""
    early = [fill for fill in simulation.ledger.fills if fill.time <= fill.decided]
    if early:
        raise NextbarError(
            f"audit: order {early[0].order_id} filled on or before the bar that decided it; please report"
        )
    ledger = simulation.ledger
    cash = config.broker.cash - ledger.interest_paid
    for fill in ledger.fills:
        cash -= fill.signed_quantity * fill.price + fill.commission
    if abs(cash - ledger.cash) > 1e-6 * config.broker.cash:
        raise NextbarError(
            f"audit: the fills leave {cash:.2f} in cash and the ledger says {ledger.cash:.2f}; please report"
        )
    return {"fills_after_decision": "passed", "cash_from_fills": "passed"}


def _benchmark(config: RunConfig, times: pd.Index) -> pd.Series | float:
    """The benchmark's closes scaled to the starting cash at the first decision; NaN where the run file names none."""
    benchmark = load_benchmark(config.data, config.folder)
    if benchmark is None:
        return float("nan")
    close = next(iter(benchmark.frames.values()))["close"].reindex(times, method="ffill")
    scaled: pd.Series = close / close.iloc[0] * config.broker.cash
    return scaled


def _threads(forecaster: Forecaster | None) -> int | None:
    if forecaster is None:
        return None
    import torch

    return torch.get_num_threads()


def _versions() -> dict[str, str]:
    packages = ("nextbar", "backtrader", "numpy", "pandas", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _trial(run: Run, now: datetime, span: SpanName, period: Any) -> Mapping[str, Any]:
    return {
        "time": now.isoformat(),
        "kind": "backtest",
        "name": run.name,
        "hashes": run.manifest["hashes"],
        "span": {"name": span, "start": str(period[0]), "end": str(period[1])},
        "orders_hash": run.manifest["orders_hash"],
        "sharpe_ratio": run.metrics["strategy"].get("sharpe_ratio"),
    }
