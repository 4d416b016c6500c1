"""Run a strategy over bars: history, decisions, orders, fills, equity."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.cerebro.broker import Broker
from engine.cerebro.clock import to_days, to_nanoseconds
from engine.cerebro.feed import ArrayFeed, add_feeds
from engine.cerebro.loop import Engine, descendants
from engine.cerebro.running import run_engine
from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.errors import DataError, LookAheadError
from engine.trading.ledger import Ledger
from engine.trading.orders import QUANTITY_PLACES, Order
from engine.trading.trades import Trade, round_trips

if TYPE_CHECKING:
    from models.forecaster import Forecaster


@dataclass(frozen=True, kw_only=True)
class RecordedForecasts:
    """The lines of one ``ForecastIndicator``: [bars, 3] forecast, lower, upper, row by row with the symbol's bars."""

    forecaster: Forecaster
    symbol: str
    lines: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What came of a run.

    Attributes:
        orders: every order in the sequence in which the strategy gave it.
        ledger: the account at the end, with all fills.
        trades: round trips, the open ones last and marked at the last close.
        equity: index ``time`` (bar ends of the decided span, UTC); columns equity, cash (account currency) and
            gross_exposure (fraction of equity).
        halted: why a risk limit stopped trading, or empty.
        indicators: whether the strategy's own indicators were found causal: ``passed``, ``own`` or ``not checked``.
        forecasts: what each ``ForecastIndicator`` of the strategy showed it.
    """

    orders: list[Order]
    ledger: Ledger
    trades: list[Trade]
    equity: pd.DataFrame
    halted: str
    forecasts: tuple[RecordedForecasts, ...]
    indicators: str


def simulate(
    bars: Bars,
    strategy: type[bt.Strategy],
    arguments: Mapping[str, Any],
    *,
    broker: BrokerConfig,
    risk: RiskConfig,
    start: pd.Timestamp | None = None,
    session_ends: Callable[[int], bool] = lambda time: True,
    slower: Sequence[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Run a backtrader strategy over bars with our broker and bar loop.

    Args:
        start: end of the first decision bar; earlier bars are history for indicators only.
        session_ends: says of a bar end (UTC ns) whether its session ends with it.
        slower: timeframes of longer bars that the strategy may look at, as ``data.slower["1d"]``.
        on_progress: called now and then with (steps done, steps in all).

    Raises:
        DataError: a symbol without bars, or with fewer than an indicator needs.
        StrategyError: the strategy raised; names the bar.
    """
    times = _decision_times(bars, start)
    engine = Engine(start=float(to_days(times[:1])[0]), on_progress=on_progress)
    venue_broker = Broker(broker=broker, risk=risk, session_ends=session_ends, membership=bars.membership)
    engine.setbroker(venue_broker)
    add_feeds(engine, ArrayFeed, bars, slower)
    engine.addstrategy(strategy, **arguments)
    run_engine(engine, strategy.__name__)
    try:
        indicators = _check_indicators(engine, bars, slower, strategy, arguments)
    except LookAheadError as error:
        raise LookAheadError(f"{strategy.__name__}: {error}") from error
    venue = venue_broker.venue
    closes = {symbol: frame["close"] for symbol, frame in bars.frames.items()}
    return Simulation(
        orders=venue_broker.submitted,
        ledger=venue.ledger,
        trades=round_trips(
            venue.ledger.fills,
            last_prices={symbol: float(close.iloc[-1]) for symbol, close in closes.items()},
            last_time=int(times.asi8[-1]),
        ),
        equity=equity_curve(times, closes, venue.ledger, broker.cash),
        halted=venue_broker.gate.halted,
        forecasts=_forecasts(engine.runningstrats[0]),
        indicators=indicators,
    )


def _check_indicators(
    engine: Engine, bars: Bars, slower: Sequence[str], strategy: type[bt.Strategy], arguments: Mapping[str, Any]
) -> str:
    """Compute a user's indicators again without the last bars: no earlier value may change.

    backtrader hands an indicator's own ``once`` the whole arrays, so it is held to this instead.

    Returns:
        ``passed``; ``own`` where all indicators are backtrader's or ours, which have tests; ``not checked`` where no
        part of the bars is long enough for all of them.
    """
    computed = engine.runningstrats[0]
    if all(_trusted(indicator) for indicator in descendants(computed)):
        return "own"
    times = _decision_times(bars, pd.Timestamp(to_nanoseconds(engine.start or 0.0), tz="UTC"))
    for share in (0.5, 0.75, 0.9):
        cut = times[int(share * (len(times) - 1))]
        probe = Engine(start=engine.start, compute_only=True)
        probe.setbroker(Broker())
        add_feeds(probe, ArrayFeed, bars.between(end=cut), slower)
        probe.addstrategy(strategy, **arguments)
        try:
            probe.run()
        except DataError:
            continue
        _compare(computed, probe.runningstrats[0], cut)
        return "passed"
    return "not checked"


def _compare(computed: Any, probed: Any, cut: pd.Timestamp) -> None:
    for whole, part in zip(descendants(computed), descendants(probed), strict=True):
        for line, shorter in zip(whole.lines, part.lines, strict=True):
            found = np.array(shorter.array)
            expected = np.array(line.array)[: len(found)]
            differs = np.flatnonzero(~((expected == found) | (np.isnan(expected) & np.isnan(found))))
            if len(differs):
                raise LookAheadError(
                    f"the indicator {type(whole).__name__} looks ahead: its value at its bar {differs[0] + 1} changes "
                    f"when the bars after {cut:%Y-%m-%d %H:%M} UTC are cut off"
                )


def _trusted(indicator: Any) -> bool:
    """backtrader's own indicators, and the forecast's, which have tests of their own."""
    return type(indicator).__module__.startswith("backtrader.") or hasattr(indicator, "forecaster")


def _forecasts(strategy: Any) -> tuple[RecordedForecasts, ...]:
    # Known by its attribute: importing the class would import torch, also for strategies without a forecast.
    return tuple(
        RecordedForecasts(
            forecaster=indicator.forecaster,
            symbol=indicator.data._name,
            lines=np.column_stack([np.array(line.array) for line in itertools.islice(indicator.lines, 3)]),
        )
        for indicator in descendants(strategy)
        if hasattr(indicator, "forecaster")
    )


def _decision_times(bars: Bars, start: pd.Timestamp | None) -> pd.DatetimeIndex:
    for symbol, frame in bars.frames.items():
        if frame.empty:
            raise DataError(f"{symbol}: there are no bars in the period of this run; choose another span or symbol")
    times = pd.DatetimeIndex(
        np.unique(np.concatenate([pd.DatetimeIndex(f.index).as_unit("ns").asi8 for f in bars.frames.values()]))
    )
    times = times.tz_localize("UTC").rename("time")
    times = times if start is None else times[times >= start]
    if times.empty:
        raise DataError(f"no symbol has a bar at or after {start}; choose another span")
    return times


def equity_curve(
    times: pd.DatetimeIndex, closes: Mapping[str, pd.Series], ledger: Ledger, starting_cash: float
) -> pd.DataFrame:
    """Equity, cash and gross exposure at each bar end, from the fills and the closes.

    Positions are added to cash in symbol order, as the ledger does it, so that both give the same bits. A symbol
    without a bar is valued at its last close.
    """
    cash = _steps(times, ledger.cash_history, starting_cash)
    equity, gross = cash.copy(), np.zeros(len(times))
    histories: dict[str, list[tuple[int, float]]] = {}
    for fill in ledger.fills:
        history = histories.setdefault(fill.symbol, [])
        before = history[-1][1] if history else 0.0
        history.append((fill.time, round(before + fill.signed_quantity, QUANTITY_PLACES)))
    for symbol in sorted(histories):
        held = _steps(times, histories[symbol], 0.0)
        price = closes[symbol].reindex(times, method="ffill").to_numpy(dtype=np.float64)
        value = np.where(held == 0.0, 0.0, held * np.nan_to_num(price))
        equity += value
        gross += np.abs(value)
    exposure = np.divide(gross, equity, out=np.zeros(len(times)), where=equity > 0.0)
    return pd.DataFrame({"equity": equity, "cash": cash, "gross_exposure": exposure}, index=times)


def _steps(times: pd.DatetimeIndex, history: list[tuple[int, float]], before: float) -> NDArray[np.float64]:
    """The last value at or before each time."""
    at = np.array([time for time, _ in history], dtype=np.int64)
    values = np.array([before, *(value for _, value in history)])
    return values[np.searchsorted(at, times.as_unit("ns").asi8, side="right")]
