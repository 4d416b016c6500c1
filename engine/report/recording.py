"""From what a run did to the run that is written: frames, metrics, manifest, trial."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.config import ALL, RunConfig, SpanName
from engine.data.bars import Bars
from engine.data.cleaning.findings import changed_in_hindsight, findings_frame, tallied
from engine.data.universe import survivorship_of
from engine.errors import NextbarError
from engine.model_sections import BundleReference
from engine.report.hashes import fills_hash, orders_hash
from engine.report.records import bars_frame, fills_frame, orders_frame, trades_frame
from engine.report.run import Run
from engine.report.trade_metrics import run_metrics
from engine.sections import digest, dump
from engine.simulation.simulate import Simulation
from engine.trading.costs import Costs, slipped
from engine.trading.orders import OrderStatus

if TYPE_CHECKING:
    from models.forecaster import Forecaster


def record_run(
    config: RunConfig,
    *,
    kind: str,
    period: tuple[date, date],
    bars: Bars,
    start: pd.Timestamp,
    benchmark: Bars | None,
    simulation: Simulation,
    buy_and_hold: pd.Series,
    strategy_hash: str,
    forecaster: Forecaster | None,
    in_sample: bool,
    remarks: Sequence[str],
    more: Mapping[str, Any] | None = None,
    own_costs: bool = True,
    averaged: Collection[int] = (),
) -> Run:
    """Everything a run folder holds, from what was done.

    Args:
        bars: the bars of the run, warm-up included; ``start`` is the end of the first decision bar.
        buy_and_hold: its equity at the run's bar ends.
        forecaster: the run file's model, if it has one; other forecasts of the strategy are named, not scored.
        remarks: sentences that belong on the report.
        more: further entries of the manifest.
        own_costs: whether fills paid the run file's slippage, as everywhere but at a broker of flesh and blood.
        averaged: numbers of orders of which only the average price is known, not what each execution paid.

    Raises:
        NextbarError: the audit found what must not be.
    """
    equity = simulation.equity.assign(
        buy_and_hold=buy_and_hold, benchmark=_scaled(benchmark, simulation.equity.index, config.broker.cash)
    )
    orders, fills, trades = (
        orders_frame(simulation.orders),
        fills_frame(simulation.ledger.fills),
        trades_frame(simulation.trades, bars),
    )
    forecasts, forecast_figures, suspicious = pd.DataFrame(), None, list[str]()
    if forecaster is not None:
        from models.evaluation import alarms, forecast_frame, judge, score_frame

        record = forecaster.bundle.record
        known = {own.symbol: own.lines for own in simulation.forecasts if own.forecaster is forecaster}
        forecasts = forecast_frame(bars, forecaster, period, known=known).assign(in_sample=in_sample)
        forecast_figures = {
            **score_frame(forecasts, train_mean=record.train_mean, train_naive_mae=record.train_naive_mae),
            **judge(forecasts, horizon=forecaster.horizon),
        }
    metrics = run_metrics(
        equity=equity,
        orders=orders,
        fills=fills,
        trades=trades,
        timeframe=bars.timeframe,
        borrow_and_margin_paid=simulation.ledger.interest_paid,
        forecast=forecast_figures,
    )
    if forecaster is not None and not in_sample:
        shown = {**metrics["forecast"], "sharpe_ratio": metrics["strategy"].get("sharpe_ratio")}
        suspicious = [f"the forecast is suspicious: {alarm}" for alarm in alarms(shown, horizon=forecaster.horizon)]
    missing = survivorship_of(bars, period, named=config.data.symbols != (ALL,))
    return Run(
        manifest={
            "kind": kind,
            "name": config.name,
            "status": "halted" if simulation.halted else "completed",
            "halted": simulation.halted,
            "hashes": {
                "config": digest(dump(config)),
                # What was decided on; the warm-up before it has a hash of its own.
                "data": bars.between(start).content_hash,
                "data_with_warmup": bars.content_hash,
                "benchmark": None if benchmark is None else benchmark.content_hash,
                "universe": None if bars.membership is None else bars.membership.digest,
                "model": None if forecaster is None else forecaster.bundle.record.weights_hash,
                "strategy": strategy_hash,
            },
            "bundle": None if forecaster is None else forecaster.bundle.path.name,
            "bundles": sorted({own.forecaster.bundle.path.name for own in simulation.forecasts}),
            "remarks": [*remarks, *suspicious],
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
            "universe": None if missing is None else missing.entry(),
            "quality": tallied(bars.quality),
            "hindsight": bool(changed_in_hindsight(bars.quality)),
            "orders_hash": orders_hash(orders[orders["status"] != OrderStatus.REFUSED.value]),
            "fills_hash": fills_hash(fills),
            "audit": audit(simulation, config, own_costs=own_costs, averaged=averaged),
            **(more or {}),
        },
        config=portable(config),
        metrics=metrics,
        equity=equity,
        orders=orders,
        fills=fills,
        trades=trades,
        forecasts=forecasts,
        bars=bars_frame(bars, start),
        findings=findings_frame(bars.quality),
        repairs=bars.quality.repairs,
    )


def audit(
    simulation: Simulation, config: RunConfig, *, own_costs: bool = True, averaged: Collection[int] = ()
) -> dict[str, str]:
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
    costs = Costs.of(config.broker)
    kinds = {order.id: order.type for order in simulation.orders}
    for fill in ledger.fills if own_costs else ():
        slipped_price = slipped(fill.reference_price, fill.side, costs.slippage_bps)
        paid = fill.price == slipped_price or kinds[fill.order_id] in ("limit", "stop_limit")
        if fill.order_id not in averaged and (
            not paid or fill.commission != costs.commission(fill.quantity, fill.price)
        ):
            raise NextbarError(
                f"audit: order {fill.order_id} did not pay the run file's costs; the strategy may have changed them"
            )
    return {
        "fills_after_decision": "passed",
        "cash_from_fills": "passed",
        "costs_of_fills": "passed" if own_costs else "measured",
        "indicators_causal": simulation.indicators,
    }


def trial_of(run: Run, config: RunConfig, *, now: datetime, span: SpanName) -> Mapping[str, Any]:
    """The line that a run adds to the ledger of trials.

    ``subject`` is the hash of what was tried: model, strategy, costs, limits, data and span, but not the run's name.
    The same subject twice is the same trial.
    """
    start, end = run.manifest["period"]
    resolved = dump(config)
    tried = {key: resolved.get(key) for key in ("data", "model", "training", "strategy", "broker", "risk")}
    return {
        "time": now.isoformat(),
        "kind": run.manifest["kind"],
        "name": run.name,
        "subject": digest(tried, [start, end], run.manifest["hashes"]["model"], run.manifest["hashes"]["strategy"]),
        "hashes": run.manifest["hashes"],
        "span": {"name": span, "start": start, "end": end},
        "orders_hash": run.manifest["orders_hash"],
        "sharpe_ratio": run.metrics["strategy"].get("sharpe_ratio"),
    }


def portable(config: RunConfig) -> dict[str, Any]:
    """The resolved run file with absolute paths, so that it runs from the run's folder too."""
    resolved = dump(config)
    place, name = config.strategy.kind.rsplit(":", 1)
    if place.endswith(".py"):
        resolved["strategy"]["kind"] = f"{config.resolve(Path(place)).resolve()}:{name}"
    if config.data.path is not None:
        resolved["data"]["path"] = str(config.resolve(config.data.path).resolve())
    if config.data.universe is not None:
        resolved["data"]["universe"] = str(config.resolve(config.data.universe).resolve())
    if config.data.benchmark is not None and config.resolve(Path(config.data.benchmark)).is_file():
        resolved["data"]["benchmark"] = str(config.resolve(Path(config.data.benchmark)).resolve())
    if isinstance(config.model, BundleReference):
        from models.bundle import find_bundle  # it is loaded anyway where there is a model

        resolved["model"]["bundle"] = str(find_bundle(config).resolve())
    return resolved


def _scaled(benchmark: Bars | None, times: pd.Index, cash: float) -> pd.Series | float:
    """The benchmark's closes scaled to ``cash`` at its first bar among the times; NaN where it has none."""
    if benchmark is None:
        return float("nan")
    close = next(iter(benchmark.frames.values()))["close"]
    aligned = close.reindex(times, method="ffill")
    aligned = aligned.where(times <= close.index[-1])
    covered = aligned.dropna()
    scaled: pd.Series = aligned / covered.iloc[0] * cash if len(covered) else aligned
    return scaled


def _threads(forecaster: Forecaster | None) -> int | None:
    if forecaster is None:
        return None
    import torch

    return torch.get_num_threads()


def _versions() -> dict[str, str]:
    packages = ("nextbar", "backtrader", "numpy", "pandas", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
