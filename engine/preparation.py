"""What a backtest and a paper run have in common before the first bar: bars, bundle, strategy, period."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engine.config import RiskConfig, RunConfig, SpanName
from engine.data.bars import Bars
from engine.data.cuts import with_history
from engine.data.sources import load_bars, load_benchmark
from engine.data.timeframes import session_ends
from engine.data.timeline import timeline
from engine.errors import BundleError
from engine.simulation.simulate import Simulation, equity_curve, simulate
from strategies.buy_and_hold import BuyAndHold
from strategies.loading import LoadedStrategy, load_strategy
from strategies.rule import Context
from strategies.runner import RuleStrategy

if TYPE_CHECKING:
    from models.forecaster import Forecaster

Period = tuple[date, date]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that can begin.

    Attributes:
        bars: all bars of the run file's source.
        benchmark: the bars that results are compared with, if any.
        forecaster: the run file's model, if any.
        strategy: its class and arguments.
        warmup: bars before the first decision that the indicators see.
        remarks: what does not quite fit the bundle, one sentence each.
    """

    config: RunConfig
    bars: Bars
    benchmark: Bars | None
    forecaster: Forecaster | None
    strategy: LoadedStrategy
    warmup: int
    remarks: tuple[str, ...]

    def cut(self, period: Period) -> tuple[Bars, pd.Timestamp, tuple[str, ...]]:
        """The period's bars with their warm-up, the end of its first bar, and the symbols that have none in it.

        Of a universe, of those who are members on some day of the period.
        """
        return with_history(self.bars.among(*period), period, warmup=self.warmup)

    @cached_property
    def timeline(self) -> dict[str, Any]:
        """Bars, spans and folds in time, for the report; raises where the run file's folds do not fit or leak."""
        return timeline(self.config, self.bars, horizon=self.forecaster.horizon if self.forecaster else 0)

    @property
    def by_name(self) -> RunConfig:
        """The run file where symbols are asked for by name, as at a broker: they are the ones that the source had."""
        return self.config.model_copy(
            update={"data": self.config.data.model_copy(update={"symbols": self.bars.symbols})}
        )


def prepare(config: RunConfig, *, root: Path) -> Prepared:
    """Load what the run file names and check that it fits together.

    Raises:
        ConfigError, BundleError: the run file or its bundle cannot be used.
        DataError: bars are missing or malformed.
        StrategyError: the strategy could not be loaded.
    """
    bars = load_bars(config.data, config.folder, root=root, within=config.spans.extent)
    forecaster = forecaster_of(config, root)
    remarks: tuple[str, ...] = ()
    if forecaster is not None:
        from models.bundle import check_fit

        remarks = check_fit(forecaster.bundle, config, bars)
    return Prepared(
        config=config,
        bars=bars,
        benchmark=load_benchmark(config.data, config.folder),
        forecaster=forecaster,
        strategy=load_strategy(config, Context.of(config, forecaster)),
        warmup=max(config.data.warmup_bars, forecaster.memory if forecaster else 0),
        remarks=remarks,
    )


def base_bars(config: RunConfig, *, root: Path = Path()) -> Bars | None:
    """The shorter bars that the run file's are made of, as an exchange tells them; None where there are none."""
    if config.data.base is None:
        return None
    data = config.data.model_copy(update={"timeframe": config.data.base, "base": None, "slower": None})
    return load_bars(data, config.folder, root=root, within=config.spans.extent)


def forecaster_of(config: RunConfig, root: Path) -> Forecaster | None:
    """The run file's model, if it has one; ``root`` holds ``bundles/``."""
    if config.model is None:
        return None
    # Seconds of imports that a run without a model does not pay.
    from models.bundle import find_bundle
    from models.forecaster import Forecaster

    return Forecaster.load(find_bundle(config, root / "bundles"))


def refuse_seen_bars(forecasters: Iterable[Forecaster], span: SpanName, period: Period) -> bool:
    """Whether a bundle knows bars of the period, or later ones; refused when seen bars were not asked for by name."""
    for turn in (turn for forecaster in forecasters for turn in forecaster.turns):
        record, begins = turn.bundle.record, max(period[0], turn.begins)
        if begins > record.last_seen:
            continue
        if span != "test":
            return True
        if record.takes_over:
            raise BundleError(
                f"spans.test: {begins} to {period[1]} begins before {record.takes_over[0]}, when the walk-forward "
                f"{turn.bundle.path.name} begins to decide on what it has not seen; begin the span there"
            )
        raise BundleError(
            f"spans.test: {begins} to {period[1]} begins before {record.last_seen}, the last bar that the bundle "
            f"{turn.bundle.path.name} was trained or chosen on; test on later bars, or ask for seen bars by "
            "name with --span train or --span validate"
        )
    return False


def simulated(
    config: RunConfig,
    bars: Bars,
    strategy: type[Any],
    arguments: Mapping[str, Any],
    *,
    start: pd.Timestamp,
    **more: Any,
) -> Simulation:
    """The strategy on these bars with the run file's account and limits; see ``simulate``."""
    return simulate(
        bars,
        strategy,
        arguments,
        broker=config.broker,
        risk=config.risk,
        start=start,
        session_ends=session_ends(bars),
        slower=config.data.slower or (),
        **more,
    )


def buy_and_hold(config: RunConfig, bars: Bars, start: pd.Timestamp) -> Simulation:
    """The same symbols, costs and account, bought once in equal parts; no limit but the account's own.

    Of a universe those who are members at the start, and they are held when they have left it.
    """
    rule = BuyAndHold({}, replace(Context.of(config, None), max_gross=1.0))
    unlimited = config.model_copy(update={"risk": RiskConfig()})
    bought = bars.first_members(start)
    held = simulated(unlimited, bought, RuleStrategy, {"rule": rule}, start=start)
    if bought is bars:
        return held
    ends = np.unique(np.concatenate([pd.DatetimeIndex(frame.index).asi8 for frame in bars.frames.values()]))
    times = pd.DatetimeIndex(ends, tz="UTC").rename("time")
    closes = {symbol: frame["close"] for symbol, frame in bought.frames.items()}
    return replace(held, equity=equity_curve(times[times >= start], closes, held.ledger, config.broker.cash))
