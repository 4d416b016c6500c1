"""The use case behind ``nextbar backtest``: a run file in, a run folder out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engine.config import RunConfig, SpanName
from engine.preparation import buy_and_hold, prepare, refuse_seen_bars, simulated
from engine.remarks import absences, missing_members, observations
from engine.report.recording import record_run, trial_of
from engine.report.run import Metrics, write_run
from engine.report.trials import append_trial

Progress = Callable[[int, int], None]


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
    prepared = prepare(config, root=root)
    forecaster, strategy, benchmark = prepared.forecaster, prepared.strategy, prepared.benchmark
    own = [forecaster] if forecaster else []
    refuse_seen_bars(own, span, period)
    used, start, absent = prepared.cut(period)
    laid_out = prepared.timeline

    simulation = simulated(config, used, strategy.cls, strategy.arguments, start=start, on_progress=on_progress)
    # A plain strategy may have brought bundles of its own.
    forecasters = [*own, *(forecast.forecaster for forecast in simulation.forecasts)]
    seen = refuse_seen_bars(forecasters, span, period)
    held = buy_and_hold(config, used, start)
    in_sample = seen if forecasters else span != "test"
    remarks = (
        *(["IN-SAMPLE: the bars were seen in training, or asked for by the name of their span"] if in_sample else []),
        *prepared.remarks,
        *absences(absent, period),
        *missing_members(used, period, config.data),
        *observations(used, simulation, held, benchmark),
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
        more={"timeline": laid_out},
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
