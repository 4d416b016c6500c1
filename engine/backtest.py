"""The use case behind ``nextbar backtest``: a run file in, a run folder out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from engine.config import RiskConfig, RunConfig, SpanName
from engine.data.bars import Bars
from engine.data.calendars import sessions_of
from engine.data.cuts import with_history
from engine.data.sources import load_bars, load_benchmark
from engine.data.timeframes import session_ends
from engine.errors import BundleError
from engine.report.recording import record_run, trial_of
from engine.report.run import Metrics, write_run
from engine.report.trials import append_trial
from engine.simulation.simulate import Simulation, simulate
from engine.trading.orders import OrderStatus
from strategies.buy_and_hold import BuyAndHold
from strategies.loading import load_strategy
from strategies.rule import Context
from strategies.runner import RuleStrategy

if TYPE_CHECKING:
    from models.forecaster import Forecaster

Progress = Callable[[int, int], None]
Period = tuple[date, date]
_TURNED_DOWN = (OrderStatus.REJECTED, OrderStatus.REFUSED)


@dataclass(frozen=True, kw_only=True)
class BacktestReport:
    """What a backtest did: the folder it wrote, how it ended, on what bars, and the figures.

    ``status`` is ``completed`` or ``halted``; ``remarks`` are sentences for the user.
    """

    run: Path
    status: str
    in_sample: bool
    synthetic: bool
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
    benchmark = load_benchmark(config.data, config.folder)
    forecaster, remarks = _forecaster(config, bars, root)
    own = [forecaster] if forecaster else []
    _refuse_seen_bars(own, span, period)
    strategy = load_strategy(config, Context.of(config, forecaster))
    warmup = max(config.data.warmup_bars, forecaster.memory if forecaster else 0)
    used, start, absent = with_history(bars, period, warmup=warmup)

    simulation = simulate(
        used,
        strategy.cls,
        strategy.arguments,
        broker=config.broker,
        risk=config.risk,
        start=start,
        session_ends=session_ends(used),
        on_progress=on_progress,
    )
    # A plain strategy may have brought bundles of its own.
    forecasters = [*own, *(forecast.forecaster for forecast in simulation.forecasts)]
    seen = _refuse_seen_bars(forecasters, span, period)
    held = _buy_and_hold(config, used, start)
    in_sample = seen if forecasters else span != "test"
    remarks = (
        *(["IN-SAMPLE: the bars were seen in training, or asked for by the name of their span"] if in_sample else []),
        *(["the bars are synthetic: they prove nothing about a market"] if used.synthetic else []),
        *remarks,
        *_absent(absent, period),
        *_stopped(used, simulation),
        *_turned_down(simulation),
        *_benchmark_remarks(benchmark, simulation),
        *_held_remarks(held, used),
    )
    run = record_run(
        config,
        kind="backtest",
        period=period,
        bars=used,
        start=start,
        benchmark=benchmark,
        simulation=simulation,
        buy_and_hold=held.equity["equity"],
        strategy_hash=strategy.source_hash,
        forecaster=forecaster,
        in_sample=in_sample,
        remarks=remarks,
    )
    if not seen:
        append_trial(root / "runs", trial_of(run, config, now=now, span=span))
    return BacktestReport(
        run=write_run(run, root / "runs", now=now),
        status=run.manifest["status"],
        in_sample=in_sample,
        synthetic=used.synthetic,
        halted=simulation.halted,
        orders_hash=run.manifest["orders_hash"],
        fills_hash=run.manifest["fills_hash"],
        metrics=run.metrics,
        remarks=remarks,
    )


def _forecaster(config: RunConfig, bars: Bars, root: Path) -> tuple[Forecaster | None, tuple[str, ...]]:
    if config.model is None:
        return None, ()
    # Seconds of imports that a run without a model does not pay.
    from models.bundle import check_fit, find_bundle
    from models.forecaster import Forecaster

    forecaster = Forecaster.load(find_bundle(config, root / "bundles"))
    return forecaster, check_fit(forecaster.bundle, config, bars)


def _refuse_seen_bars(forecasters: Iterable[Forecaster], span: SpanName, period: Period) -> bool:
    """Whether a bundle knows bars of the period, or later ones; refused when seen bars were not asked for by name."""
    for forecaster in forecasters:
        last_seen = forecaster.bundle.record.last_seen
        if period[0] > last_seen:
            continue
        if span != "test":
            return True
        raise BundleError(
            f"spans.test: {period[0]} to {period[1]} begins before {last_seen}, the last bar that the bundle "
            f"{forecaster.bundle.path.name} was trained or chosen on; test on later bars, or ask for seen bars by "
            "name with --span train or --span validate"
        )
    return False


def _absent(symbols: Iterable[str], period: Period) -> list[str]:
    return [f"{symbol} has no bars from {period[0]} to {period[1]} and takes no part" for symbol in symbols]


def _stopped(bars: Bars, simulation: Simulation) -> list[str]:
    """Symbols whose bars end before the run's last session."""
    last = sessions_of(pd.DatetimeIndex(simulation.equity.index))[-1]
    ends = {symbol: sessions_of(pd.DatetimeIndex(frame.index[-1:]))[0] for symbol, frame in bars.frames.items()}
    return [
        f"{symbol} has no bars after {end:%Y-%m-%d}; what is held of it stays marked at its last close"
        for symbol, end in ends.items()
        if end < last
    ]


def _turned_down(simulation: Simulation) -> list[str]:
    reasons = [order.reason.split(":")[0] for order in simulation.orders if order.status in _TURNED_DOWN]
    if not reasons:
        return []
    reason, count = Counter(reasons).most_common(1)[0]
    return [f"{len(reasons)} of {len(simulation.orders)} orders were turned down, {count} of them for: {reason}"]


def _benchmark_remarks(benchmark: Bars | None, simulation: Simulation) -> list[str]:
    if benchmark is None:
        return []
    times = pd.DatetimeIndex(simulation.equity.index)
    own = pd.DatetimeIndex(next(iter(benchmark.frames.values())).index)
    if own[0] <= times[0] and times[-1] <= own[-1]:
        return []
    return [f"the benchmark has bars from {own[0]:%Y-%m-%d} to {own[-1]:%Y-%m-%d} only, and is compared where it has"]


def _held_remarks(held: Simulation, bars: Bars) -> list[str]:
    missing = sorted(set(bars.symbols) - {fill.symbol for fill in held.ledger.fills})
    if not missing:
        return []
    return [f"buy-and-hold could not buy {', '.join(missing)}: its share of the account does not pay for one share"]


def _buy_and_hold(config: RunConfig, bars: Bars, start: pd.Timestamp) -> Simulation:
    """The same symbols, costs and account, bought once in equal parts; no limit but the account's own."""
    rule = BuyAndHold({}, replace(Context.of(config, None), max_gross=1.0))
    return simulate(
        bars,
        RuleStrategy,
        {"rule": rule},
        broker=config.broker,
        risk=RiskConfig(),
        start=start,
        session_ends=session_ends(bars),
    )
