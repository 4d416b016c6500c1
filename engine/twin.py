"""The use case behind ``nextbar twin``: a paper run's decisions once more, and its fills beside the model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.errors import ConfigError, StrategyError
from engine.live.journal import FILE, Journal
from engine.live.recorded import Recorded
from engine.live.retrace import Retrace
from engine.live.run import Plan
from engine.paper_models import forecaster_of_run
from engine.paper_record import read_paper, recorded_bars, with_bars
from engine.preparation import simulated
from engine.report.hashes import fills_hash, orders_hash
from engine.report.records import fills_frame, orders_frame
from engine.report.run import find_run
from engine.simulation.simulate import Simulation
from engine.trading.orders import Fill, OrderStatus
from strategies.loading import LoadedStrategy, load_strategy
from strategies.rule import Context

if TYPE_CHECKING:
    from models.forecaster import Forecaster

IDENTICAL, DIFFERS = "identical", "differs"


@dataclass(frozen=True, kw_only=True)
class TwinReport:
    """What the twin found.

    Attributes:
        verdict: ``identical``: given the recorded bars, answers and fills, every feature, forecast, decision and order
            is the same to the bit; or ``differs``.
        difference: the first one in a sentence, or empty.
        steps: bars gone through. compared: kind -> entries that are the same.
        modelled: whether a backtest over the recorded bars could be made.
        same_orders, same_fills: whether a backtest over the recorded bars gives the same orders, and the same fills.
        fills: the recorded fills beside that backtest's, those of one decision, symbol and side together: how many such
            are ``matched``, and ``unmatched_recorded`` or ``unmatched_modelled``; and what the matched ones cost beyond
            the modelled price: ``cost_bps_mean``, ``cost_bps_worst`` (None without).
        remarks: one sentence each.
    """

    run: Path
    verdict: str
    difference: str
    steps: int
    compared: Mapping[str, int]
    modelled: bool
    same_orders: bool
    same_fills: bool
    fills: Mapping[str, float | int | None]
    remarks: tuple[str, ...]


def twin(reference: str, *, root: Path) -> TwinReport:
    """Go through a paper run once more from its journal, and compare.

    Args:
        reference: a run's folder or name, or ``latest``; ``root`` is the folder of runs.

    Raises:
        ConfigError: no such run, or not a paper run; its bundle or strategy is gone.
        DataError: the journal is damaged, or nothing was decided yet.
        StrategyError: the strategy could not be loaded, or raised, which it did not do the first time.
    """
    folder = find_run(reference, root=root)
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder}: only paper runs have a twin, and this run has no journal; name a paper run")
    config, manifest, recorded = read_paper(folder)
    bars, start = recorded_bars(recorded, manifest, config)
    forecaster = forecaster_of_run(folder, manifest, config, root.parent)
    strategy = load_strategy(config, Context.of(config, forecaster))

    retrace = _retraced(folder, config, recorded, bars, strategy, forecaster)
    model, doubts = _modelled(config, bars, start, forecaster)
    difference = retrace.difference.sentence() if retrace.difference else ""
    return TwinReport(
        run=folder,
        verdict=DIFFERS if difference else IDENTICAL,
        difference=difference,
        steps=retrace.steps,
        compared=dict(sorted(retrace.compared.items())),
        modelled=model is not None,
        same_orders=model is not None and _orders_hash(recorded.orders) == _orders_hash(model.orders),
        same_fills=model is not None and _fills_hash(recorded.ledger.fills) == _fills_hash(model.ledger.fills),
        fills=_beside(recorded.ledger.fills, [] if model is None else model.ledger.fills),
        remarks=(*_remarks(manifest, recorded, strategy, forecaster), *_universe(manifest, bars), *doubts),
    )


def _retraced(
    folder: Path,
    config: RunConfig,
    recorded: Recorded,
    bars: Bars,
    strategy: LoadedStrategy,
    forecaster: Forecaster | None,
) -> Retrace:
    journal = Journal.read_only(folder / FILE)
    try:
        retrace = Retrace(list(journal.entries()))
        run = str(journal.about["run"])  # the name that it had then: its order ids are made from it
    finally:
        journal.close()
    first = pd.Timestamp(recorded.steps[0][0], tz="UTC") - pd.Timedelta(1, unit="ns")
    retrace.run(
        Plan(
            run=run,
            venue="its journal",
            strategy=strategy.cls,
            arguments=strategy.arguments,
            history=bars.between(end=first),
            broker=config.broker,
            risk=config.risk,
            forecaster=forecaster,
            slower=config.data.slower or (),
        )
    )
    return retrace


def _modelled(
    config: RunConfig, bars: Bars, start: pd.Timestamp, forecaster: Forecaster | None
) -> tuple[Simulation | None, list[str]]:
    """A backtest over the recorded bars, and what makes it unlike the run; None where the strategy raises in it."""
    fresh = load_strategy(config, Context.of(config, forecaster))  # a rule may keep a state of its own
    shown, absent = with_bars(bars, start)
    doubts = [f"{sentence}: a backtest leaves it out, and may trade the others otherwise" for sentence in absent]
    try:
        return simulated(config, shown, fresh.cls, fresh.arguments, start=start), doubts
    except StrategyError as error:
        return None, [*doubts, f"a backtest over the recorded bars fails: {error}"]


def _fills_hash(fills: Sequence[Fill]) -> str:
    return fills_hash(fills_frame(fills))


def _orders_hash(orders: Sequence[Any]) -> str:
    frame = orders_frame(orders)
    return orders_hash(frame[frame["status"] != OrderStatus.REFUSED.value])


def _beside(recorded: Sequence[Fill], modelled: Sequence[Fill]) -> dict[str, float | int | None]:
    """Fills by what was decided: one order that the broker turned down shifts the numbers of those after it."""
    own, model = _mean_prices(recorded), _mean_prices(modelled)
    costs = [key.side * (own[key] / model[key] - 1.0) * 1e4 for key in own if key in model]
    return {
        "matched": len(costs),
        "unmatched_recorded": len(own.keys() - model.keys()),
        "unmatched_modelled": len(model.keys() - own.keys()),
        "cost_bps_mean": float(np.mean(costs)) if costs else None,
        "cost_bps_worst": float(np.max(costs)) if costs else None,
    }


class _Decision(NamedTuple):
    decided: int
    symbol: str
    side: int


def _mean_prices(fills: Sequence[Fill]) -> dict[_Decision, float]:
    """Decision -> price of its fills, weighted with their quantities."""
    together: dict[_Decision, list[Fill]] = {}
    for fill in fills:
        together.setdefault(_Decision(fill.decided, fill.symbol, fill.side), []).append(fill)
    return {
        key: sum(fill.quantity * fill.price for fill in found) / sum(fill.quantity for fill in found)
        for key, found in together.items()
    }


def _universe(manifest: Mapping[str, Any], bars: Bars) -> list[str]:
    digest = None if bars.membership is None else bars.membership.digest
    return ["the universe has changed since the run"] if manifest["hashes"].get("universe") != digest else []


def _remarks(
    manifest: Mapping[str, Any], recorded: Recorded, strategy: LoadedStrategy, forecaster: Forecaster | None
) -> tuple[str, ...]:
    remarks = []
    if strategy.source_hash != manifest["strategy_hash"]:
        remarks.append("the strategy's source has changed since the run")
    if forecaster is not None and manifest["model"]["name"] != forecaster.turns[0].bundle.path.name:
        used = forecaster.turns[0].bundle.path.name
        remarks.append(f"the run traded with the bundle {manifest['model']['name']}, and {used} is used")
    if recorded.ended == "failed":
        remarks.append("the run failed: compared as far as its journal goes")
    elif not recorded.ended:
        remarks.append("the run is going on, or was cut off: compared as far as its journal goes")
    return tuple(remarks)
