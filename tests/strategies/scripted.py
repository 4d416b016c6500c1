"""A stage for strategies: bars written by hand, and rules and forecasters that follow a script.

The script is the volume column: at each bar it holds the weight that ``Follow`` wants, or the log return that
``ScriptedForecaster`` forecasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd

from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.simulation.simulate import Simulation, simulate
from engine.trading.costs import Costs
from engine.trading.orders import SIDE_NAMES
from models.features import Columns, Floats
from models.forecaster import Forecaster
from strategies.rule import Context, Rule
from strategies.runner import RuleStrategy

FREE = {"cash": 10_000.0, "commission": {"bps": 0.0}, "slippage_bps": 0.0}


class FollowParams(NamedTuple):
    min_change: float = 0.0


class Follow(Rule):
    """Wants what the script says, and keeps what it was shown: (signals, weights, bars_held) of each call."""

    Params = FollowParams
    signals = ("wanted",)
    shown: list[tuple[list[float], list[float], list[float]]]

    def __init__(self, values: Mapping[str, Any], context: Context) -> None:
        super().__init__(values, context)
        self.shown = []
        self.targets = self._targets

    def lines(self, data: Any) -> Sequence[Any]:
        return [data.volume]

    @staticmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: Any) -> Floats:
        return signals[:, 0]

    def _targets(self, signals: Floats, weights: Floats, bars_held: Floats, params: Any) -> Floats:
        self.shown.append((signals[:, 0].tolist(), weights.tolist(), bars_held.tolist()))
        return Follow.targets(signals, weights, bars_held, params)

    def weights(self, symbol: int = 0) -> list[float]:
        """The last targets that it was shown for a symbol, one a bar."""
        return [weights[symbol] for _, weights, _ in self.shown]

    def bars_held(self, symbol: int = 0) -> list[float]:
        """The bars held that it was shown for a symbol, one a bar."""
        return [held[symbol] for _, _, held in self.shown]


class ScriptedForecaster(Forecaster):
    """Forecasts what the script says, with an interval of +-``half_width``, from the second bar on."""

    def __init__(self, half_width: float = 0.01) -> None:
        self.memory = self.needed = 2
        self.horizon = 1
        self.half_width = half_width

    def forecast(self, columns: Columns) -> Floats:
        rows = columns.volume[:, None] + np.array([0.0, -self.half_width, self.half_width])
        rows[:1] = np.nan
        return rows


def make_bars(
    script: Mapping[str, Sequence[float | None]], prices: Mapping[str, Sequence[float]] | None = None
) -> Bars:
    """Daily bars with a script.

    Args:
        script: symbol -> what the script says at each day; None where the symbol has no bar.
        prices: symbol -> price of each day (open, high, low and close); 100 unless given.
    """
    frames = {}
    for symbol, said in sorted(script.items()):
        days = pd.bdate_range("2024-01-02", periods=len(said)) + pd.Timedelta(hours=21)
        price = np.asarray((prices or {}).get(symbol, [100.0] * len(said)), dtype=np.float64)
        frame = pd.DataFrame(
            {
                **dict.fromkeys(("open", "high", "low", "close"), price),
                "volume": [np.nan if v is None else v for v in said],
            },
            index=pd.DatetimeIndex(days, tz="UTC", name="time").as_unit("ns"),
            dtype=float,
        )
        frames[symbol] = frame[[v is not None for v in said]]
    return Bars(frames=frames, timeframe="1d", adjustment="none", source="stage", synthetic=True)


def run(bars: Bars, strategy: type[bt.Strategy], arguments: Mapping[str, Any], **broker: Any) -> Simulation:
    """Run a strategy without costs, unless ``broker`` says otherwise; ``risk`` is a section of its own."""
    risk = RiskConfig.model_validate(broker.pop("risk", {"max_gross": 2.0}))
    return simulate(bars, strategy, arguments, broker=BrokerConfig.model_validate({**FREE, **broker}), risk=risk)


def follow(bars: Bars, *, min_change: float = 0.0, **broker: Any) -> tuple[Follow, Simulation]:
    """Run ``Follow`` over the bars."""
    section = BrokerConfig.model_validate({**FREE, **{name: v for name, v in broker.items() if name != "risk"}})
    context = Context(
        costs=Costs.of(section),
        account=section.account,
        fractional=section.fractional,
        short=section.short,
        max_gross=broker.get("risk", {}).get("max_gross", 2.0),
    )
    rule = Follow({"min_change": min_change}, context)
    return rule, run(bars, RuleStrategy, {"rule": rule}, **broker)


def orders(simulation: Simulation, bars: Bars) -> list[tuple[Any, ...]]:
    """(day from 1, side, quantity, symbol) of each order."""
    days = {time: day for day, time in enumerate(_days(bars), start=1)}
    return [(days[o.decided], SIDE_NAMES[o.side], o.quantity, o.symbol) for o in simulation.orders]


def _days(bars: Bars) -> list[int]:
    return sorted({int(t) for frame in bars.frames.values() for t in pd.DatetimeIndex(frame.index).asi8})
