"""A paper run's folder from its journal: the same records, figures and pages as a backtest's, finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.calendars import sessions_of
from engine.data.cleaning.findings import within
from engine.data.sources import load_benchmark, load_universe
from engine.data.universe import Membership
from engine.errors import DataError
from engine.live.journal import FILE, Journal
from engine.live.recorded import Recorded, read_recorded
from engine.preparation import buy_and_hold
from engine.remarks import missing_members, observations
from engine.report.recording import record_run
from engine.report.run import RUNNING, Run, load_manifest, load_quality
from engine.run_file import load_config
from engine.simulation.simulate import RecordedForecasts, Simulation, equity_curve
from engine.trading.ledger import Ledger
from engine.trading.trades import round_trips

if TYPE_CHECKING:
    from models.forecaster import Forecaster


# What the manifest says from the start.
_KEPT = ("mode", "journal", "account", "folder", "strategy", "strategy_hash", "preparation", "model", "identity")


def read_paper(folder: Path) -> tuple[RunConfig, dict[str, Any], Recorded]:
    """Run file, manifest and journal of a paper run's folder.

    Raises:
        DataError: the journal is missing, damaged, or another run's.
        ConfigError: the folder's run file is damaged.
    """
    manifest = load_manifest(folder)
    missing = sorted({*_KEPT, "period", "timeframe", "adjustment", "source", "hashes"} - manifest.keys())
    if missing:
        raise DataError(f"{folder / 'manifest.json'}: expected that of a paper run, and {', '.join(missing)} missing")
    config = load_config(folder / "config.yaml")
    journal = Journal.read_only(folder / FILE, identity=manifest["journal"])
    try:
        return config, manifest, read_recorded(journal, cash=config.broker.cash)
    finally:
        journal.close()


def recorded_bars(recorded: Recorded, manifest: dict[str, Any], config: RunConfig) -> tuple[Bars, pd.Timestamp]:
    """The bars that a run has seen, history included, and the end of the first one that was decided on."""
    universe = load_universe(config.data, config.folder)
    return seen_bars(recorded, manifest, universe), pd.Timestamp(recorded.first_decision, tz="UTC")


def seen_bars(recorded: Recorded, manifest: dict[str, Any], universe: Membership | None) -> Bars:
    """The bars that a run has seen, history included."""
    return Bars(
        frames=recorded.frames(),
        timeframe=manifest["timeframe"],
        adjustment=manifest["adjustment"],
        source=manifest["source"],
        close_only=manifest["close_only"],
        synthetic=manifest["synthetic"],
        survivor_biased=manifest["survivor_biased"],
        membership=universe,
    )


def record_paper(folder: Path, *, forecaster: Forecaster | None) -> Run | None:
    """Everything that a run's folder holds, from its journal; None before the first decision.

    Args:
        forecaster: the model that the run traded with, if any.

    Raises:
        DataError: the journal is damaged.
    """
    config, manifest, recorded = read_paper(folder)
    if not recorded.decided:
        return None
    bars, start = recorded_bars(recorded, manifest, config)
    # Of the history as it was loaded at the start: what a feed tells is not cleaned.
    bars, absent = with_bars(replace(bars, quality=load_quality(folder)), start)
    simulation = _as_simulation(recorded, bars, start, config, forecaster)
    held = buy_and_hold(config, bars, start)
    benchmark = load_benchmark(config.data, config.folder)
    replayed = manifest["mode"] == "replay"
    period = _period(manifest, bars, start)
    run = record_run(
        config,
        kind="paper",
        period=period,
        bars=bars,
        start=start,
        benchmark=benchmark,
        simulation=simulation,
        buy_and_hold=held.equity["equity"],
        strategy_hash=manifest["strategy_hash"],
        forecaster=forecaster,
        in_sample=False,
        remarks=[
            *manifest["preparation"],
            *absent,
            *missing_members(bars, period, config.data),
            *observations(bars, simulation, held, benchmark),
            *_ending(recorded, replayed=replayed),
        ],
        more={
            **{key: manifest[key] for key in _KEPT},
            "timeline": manifest.get("timeline"),
            "bundles": list(recorded.bundles),
            "models": list(recorded.models),
            "journal_entries": recorded.counts,
            # Of the machine, not of the run: they stay out of the metrics, which repeat to the byte.
            "latency_ms": {name: _quantiles(values) for name, values in sorted(recorded.latencies_ms.items())},
        },
        own_costs=replayed and not recorded.counts.get("adopted"),
        averaged=recorded.averaged,
    )
    run.manifest["status"] = recorded.ended or RUNNING
    # Of the run file as it was given: in the folder, its paths are absolute.
    run.manifest["hashes"]["config"] = manifest["hashes"]["config"]
    return run


def with_bars(bars: Bars, start: pd.Timestamp) -> tuple[Bars, list[str]]:
    """The symbols that have had a bar since the start, as a backtest would have it, and a sentence on the others."""
    absent = [symbol for symbol, frame in bars.frames.items() if not len(frame.loc[start:])]
    frames = {symbol: frame for symbol, frame in bars.frames.items() if symbol not in absent}
    there = replace(bars, frames=frames, quality=within(bars.quality, frames))
    return there, [f"{symbol} had no bar while the run went on" for symbol in absent]


def _as_simulation(
    recorded: Recorded, bars: Bars, start: pd.Timestamp, config: RunConfig, forecaster: Forecaster | None
) -> Simulation:
    times = pd.DatetimeIndex([time for time, _, _ in recorded.steps], tz="UTC").as_unit("ns").rename("time")
    times = times[times >= start]
    closes = {symbol: frame["close"] for symbol, frame in bars.frames.items()}
    forecasts: tuple[RecordedForecasts, ...] = ()
    if forecaster is not None:
        forecasts = tuple(
            RecordedForecasts(
                forecaster=forecaster,
                symbol=symbol,
                lines=recorded.forecast_lines(symbol, pd.DatetimeIndex(bars.frames[symbol].index)),
            )
            for symbol in recorded.forecasts
        )
    return Simulation(
        orders=recorded.orders,
        ledger=recorded.ledger,
        trades=round_trips(
            recorded.ledger.fills,
            last_prices={symbol: float(close.iloc[-1]) for symbol, close in closes.items() if len(close)},
            last_time=int(times.asi8[-1]),
        ),
        equity=equity_curve(times, closes, _until(recorded.ledger, int(times.asi8[-1])), config.broker.cash),
        halted=recorded.halted,
        forecasts=forecasts,
        indicators="live",
    )


def _until(ledger: Ledger, last: int) -> Ledger:
    """The ledger as the last bar shows it: what was booked after it belongs to it."""
    return replace(
        ledger,
        fills=[replace(fill, time=min(fill.time, last)) for fill in ledger.fills],
        cash_history=[(min(time, last), cash) for time, cash in ledger.cash_history],
    )


def _period(manifest: dict[str, Any], bars: Bars, start: pd.Timestamp) -> tuple[date, date]:
    """Of a replay the span that was asked for; else the sessions that were seen."""
    if manifest["period"] is not None:
        asked = [date.fromisoformat(day) for day in manifest["period"]]
        return asked[0], asked[1]
    last = max(frame.index[-1] for frame in bars.frames.values() if len(frame))
    first, end = sessions_of(pd.DatetimeIndex([start, last]))
    return first.date(), end.date()


def left_behind(recorded: Recorded) -> str:
    """What stays at the broker when a run ends, in one sentence; empty where nothing does."""
    held = [
        f"{position.quantity:g} {symbol}"
        for symbol, position in sorted(recorded.ledger.positions.items())
        if position.quantity
    ]
    waiting = [order for order in recorded.orders if order.alive]
    left = [
        *([f"holds {', '.join(held)}"] if held else []),
        *([f"has {_counted(len(waiting), 'open order')}"] if waiting else []),
    ]
    if not left:
        return ""
    return f"by its journal the run {' and '.join(left)}; the same command goes on from there, nextbar kill closes it"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _ending(recorded: Recorded, *, replayed: bool) -> list[str]:
    left = "" if replayed or not recorded.ended else left_behind(recorded)
    undecided = sum(1 for _, decide, _ in recorded.steps if not decide)
    late = recorded.counts.get("late", 0)
    revised = recorded.counts.get("revision", 0)
    resumed = recorded.counts.get("resumed", 0)
    return [
        *([f"the run is going on, or was cut off, after {len(recorded.steps)} bars"] if not recorded.ended else []),
        *([f"the run was interrupted and went on {_counted(resumed, 'time')}"] if resumed else []),
        *(_change(change) for change in recorded.models),
        *(f"accepted as the broker had it: {sentence}" for sentence in recorded.accepted),
        *(f"when the account was last compared with our ledger: {sentence}" for sentence in recorded.differences),
        *([f"{_counted(undecided, 'step')} came late or were caught up with, and not decided on"] if undecided else []),
        *([f"{_counted(late, 'bar')} came after the others of their minute"] if late else []),
        *([f"{_counted(revised, 'bar')} had been decided on before they were revised"] if revised else []),
        *([left] if left else []),
    ]


def _change(change: Mapping[str, Any]) -> str:
    old, new = (f"{change[which]['name']} ({change[which]['hash'][:12]})" for which in ("old", "new"))
    return f"from {change['begins']} on the bundle {new} decided, before that {old}"


def _quantiles(values: list[float]) -> dict[str, float]:
    return {"p50": float(np.quantile(values, 0.5)), "p99": float(np.quantile(values, 0.99)), "steps": len(values)}
