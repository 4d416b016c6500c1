"""What the causality tests run: bars with every irregularity, tiny models, and adapters from both to traces."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import torch
from harness import Subject, Trace, times_of

import strategies
from engine.cerebro.broker import Broker
from engine.cerebro.feed import ArrayFeed, add_feeds
from engine.cerebro.loop import Engine
from engine.config import BrokerConfig, RiskConfig, RunConfig
from engine.data.bars import Bars
from engine.data.calendars import session_hours
from engine.model_sections import MODEL_KINDS
from engine.simulation.simulate import equity_curve, simulate
from engine.trading.ledger import Ledger
from engine.trading.orders import Order
from models.bundle import new_bundle
from models.calibration import calibrated
from models.features import Columns, parse_features
from models.fitting import by_gradients
from models.fitting.bundles import fit_bundle
from models.fitting.task import calibrate_residuals
from models.forecaster import Forecaster
from models.networks import Network, build_network
from models.windows import Windows
from strategies.loading import LoadedStrategy, load_strategy
from strategies.rule import Context, Rule
from strategies.runner import RuleStrategy

FEATURES = ("log_return", "range", "volume_zscore_5", "rsi_4", "weekday")
LOOKBACK = 6
BROKER = {"cash": 100_000.0, "commission": {"bps": 1.0}, "slippage_bps": 2.0, "short": True}


# --- bars ------------------------------------------------------------------------------------------------------------


def make_frame(times: pd.DatetimeIndex, *, seed: int, volatility: float = 0.02) -> pd.DataFrame:
    """A random walk over the given bar ends."""
    random = np.random.default_rng(seed)
    count = len(times)
    close = 50.0 * np.exp(np.cumsum(random.normal(0.0, volatility, count)))
    opening = np.concatenate([[50.0], close[:-1]]) * np.exp(random.normal(0.0, volatility / 3, count))
    return pd.DataFrame(
        {
            "open": opening,
            "high": np.maximum(opening, close) * np.exp(np.abs(random.normal(0.0, volatility / 3, count))),
            "low": np.minimum(opening, close) * np.exp(-np.abs(random.normal(0.0, volatility / 3, count))),
            "close": close,
            "volume": np.round(np.exp(random.normal(11.0, 0.6, count))),
        },
        index=times.rename("time"),
    )


def daily_bars(count: int = 150, *, of_sessions: bool = False) -> Bars:
    """Three symbols: one complete, one listed late, one with gaps; at 21:00 of each working day, or at real closes."""
    days = pd.DatetimeIndex(pd.bdate_range("2020-01-02", periods=count) + pd.Timedelta(hours=21), tz="UTC").as_unit(
        "ns"
    )
    if of_sessions:
        _, closes = session_hours(pd.bdate_range("2020-01-02", periods=2 * count))
        days = closes.dropna()[:count].as_unit("ns")
    kept = np.random.default_rng(5).random(count) > 0.1
    frames = {
        "AAA": make_frame(days, seed=28),
        "BBB": make_frame(days[count // 5 :], seed=2),
        "CCC": make_frame(days[kept], seed=3),
    }
    return _bars(frames, "1d")


def minute_bars(count: int = 150) -> Bars:
    """One symbol of irregular minutes over two sessions, with stretches of equal prices and of no volume."""
    minutes = np.sort(np.random.default_rng(8).choice(2 * 390, size=count, replace=False))
    opens = pd.DatetimeIndex(["2024-03-08 14:30", "2024-03-11 13:30"], tz="UTC")  # the clocks change in between
    times = opens[minutes // 390] + pd.to_timedelta(minutes % 390 + 1, unit="min")
    frame = make_frame(pd.DatetimeIndex(times).as_unit("ns"), seed=4, volatility=0.001)
    frame.iloc[30:60, :4] = 50.0
    frame.loc[frame.index[20:50], "volume"] = 0.0
    return _bars({"MIN": frame}, "1m")


def _bars(frames: Mapping[str, pd.DataFrame], timeframe: str) -> Bars:
    return Bars(frames=frames, timeframe=timeframe, adjustment="none", source="synthetic", synthetic=True)


def one_symbol(bars: Bars) -> Bars:
    """The first symbol of the bars alone."""
    symbol = bars.symbols[0]
    return _bars({symbol: bars.frames[symbol]}, bars.timeframe)


# --- models ----------------------------------------------------------------------------------------------------------


# Members that differ in features, memory and head.
_MEMBERS = [
    {"kind": "last_return"},
    {"kind": "ridge", "features": ["log_return", "rsi_4"], "lookback": 3, "alpha": 1.0},
    {"kind": "lstm", "features": FEATURES, "lookback": 4, "hidden": 3, "layers": 1},
]

# Name -> the values of a model section; every kind that a run file can describe, and every option that changes how a
# forecast comes about. Windows, horizons and sizes are filled in by ``tiny_config``.
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "lstm"},
    "lstm, point": {"kind": "lstm", "head": "point"},
    "lstm, direction": {"kind": "lstm", "head": "direction"},
    "lstm, bidirectional": {"kind": "lstm", "bidirectional": True},
    "lstm, attention": {"kind": "lstm", "pooling": "attention"},
    "lstm, bidirectional, attention": {"kind": "lstm", "bidirectional": True, "pooling": "attention"},
    "rnn": {"kind": "rnn"},
    "gru": {"kind": "gru"},
    "cnn": {"kind": "cnn", "channels": 4, "kernel": 3},
    "tcn": {"kind": "tcn", "channels": 4},
    "cnn_lstm": {"kind": "cnn_lstm", "channels": 4, "kernel": 3},
    "transformer": {"kind": "transformer", "hidden": 8, "heads": 2},
    "mlp": {"kind": "mlp"},
    "ridge": {"kind": "ridge"},
    "elastic net": {"kind": "elastic_net", "alpha": 0.05},
    "boosting": {"kind": "boosting", "least_in_leaf": 5, "trees": 20},
    "boosting, quantile": {"kind": "boosting", "head": "quantile", "least_in_leaf": 5, "trees": 20},
    "ar": {"kind": "ar"},
    "arima": {"kind": "arima"},
    "ets": {"kind": "ets"},
    "ets, additive": {"kind": "ets", "trend": "additive"},
    "ets, no trend": {"kind": "ets", "trend": "none"},
    "zero": {"kind": "zero"},
    "mean": {"kind": "mean"},
    "last return": {"kind": "last_return"},
    "lstm, conformal": {"kind": "lstm", "calibration": "conformal"},
    "lstm, adaptive": {"kind": "lstm", "calibration": "adaptive"},
    "lstm, direction, two horizons": {"kind": "lstm", "head": "direction", "more_horizons": [3]},
    "mean, conformal": {"kind": "mean", "calibration": "conformal"},
    "mean, adaptive": {"kind": "mean", "calibration": "adaptive"},
    "ensemble, mean": {"kind": "ensemble", "members": _MEMBERS},
    "ensemble, weighted": {"kind": "ensemble", "combine": "weighted", "members": _MEMBERS},
    "ensemble, stacked": {"kind": "ensemble", "combine": "stacked", "members": _MEMBERS},
    "ensemble, online": {"kind": "ensemble", "combine": "online", "members": _MEMBERS, "window": 7, "rate": 2.0},
    "ensemble, online over a single outcome": {
        "kind": "ensemble",
        "combine": "online",
        "members": _MEMBERS,
        "window": 1,
        "more_horizons": [5],
    },
}


def tiny_config(name: str, **more: Any) -> RunConfig:
    """A run file with one of ``MODELS``, as small as its options allow."""
    section = MODEL_KINDS[MODELS[name]["kind"]]
    small = {"features": FEATURES, "lookback": LOOKBACK, "horizon": 2, "hidden": 5, "layers": 2}
    small = {name: value for name, value in small.items() if name in section.model_fields} | MODELS[name] | more
    return RunConfig.model_validate(
        {
            "name": "tiny",
            "data": {"source": "files", "symbols": ["AAA"]},
            "spans": {
                "train": ["2020-01-01", "2020-03-31"],
                "validate": ["2020-04-01", "2020-04-30"],
                "test": ["2020-05-01", "2020-12-31"],
            },
            "model": small,
            "training": {"epochs": 2, "accelerator": "cpu"},
            "strategy": {"kind": "strategies.forecast:Forecast"},
            "broker": BROKER,
        }
    )


def tiny_forecaster(
    name: str = "lstm", *, change: Callable[[Network], None] = lambda network: None, **more: Any
) -> Forecaster:
    """A forecaster of one of ``MODELS``: networks with random weights, their scaling fitted on ``daily_bars``.

    ``change`` may put other parts into a network. What is not learned by gradients is fitted.
    """
    config = tiny_config(name, **more)
    bars = daily_bars()
    if not by_gradients(config.model):
        return Forecaster(fit_bundle(config, bars, root=Path("bundles")))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(11)
        network = build_network(config.model)
        with torch.no_grad():
            for at in range(len(network.heads)):
                network.head(at).project.weight.mul_(10.0)  # strong opinions, so that strategies trade on them
            change(network)
    network.eval()
    features = parse_features(config.model.features, close_only=False)
    windows = Windows.build(bars, features, lookback=LOOKBACK, horizons=config.model.horizons)
    longest = max(config.model.horizons)
    rows = windows.rows({symbol: slice(0, len(frame) - longest) for symbol, frame in bars.frames.items()})
    labels = torch.from_numpy(windows.labels[rows])
    network.fit_scaling(torch.from_numpy(windows.features[rows]), labels)
    calibrate_residuals(network, windows, rows)
    bundle = new_bundle(
        config, network, curve=(), bars=bars, train_labels=windows.labels[rows, 0], root=Path("bundles")
    )
    return Forecaster(calibrated(bundle, config, bars))


# --- adapters --------------------------------------------------------------------------------------------------------


def of_columns(function: Callable[[Columns], np.ndarray]) -> Subject:
    """A subject from a function of one symbol's bars, Columns -> [bars] or [bars, outputs]."""

    def subject(bars: Bars) -> Trace:
        trace: dict[int, tuple[object, ...]] = dict.fromkeys(times_of(bars), ())
        for symbol, frame in bars.frames.items():
            columns = Columns.of(frame)
            for time, row in zip(columns.times.tolist(), function(columns).tolist(), strict=True):
                trace[time] += (symbol, row)
        return trace

    return subject


def of_indicator(indicator: type[bt.Indicator], *, lean: bool = True, params: Mapping[str, Any], **run: Any) -> Subject:
    """A subject from a backtrader indicator, read by a strategy as the bars go by; ``run`` goes to ``Cerebro.run``."""

    def subject(bars: Bars) -> Trace:
        trace: dict[int, tuple[object, ...]] = dict.fromkeys(times_of(bars), ())
        clock = iter(times_of(bars))

        class Reader(bt.Strategy):
            def __init__(self) -> None:
                self.read = [indicator(data, **params) for data in self.datas]

            def prenext(self) -> None:
                self.next()

            def next(self) -> None:
                time = next(clock)
                for data, values in zip(self.datas, self.read, strict=True):
                    if len(data) and data.datetime[0] == self.datetime[0]:
                        trace[time] += (data._name, tuple(line[0] for line in values.lines))

        _run_cerebro(bars, Reader, {}, Broker(), lean=lean, **run)
        return trace

    return subject


def _run_cerebro(
    bars: Bars,
    strategy: type[bt.Strategy],
    arguments: Mapping[str, Any],
    broker: Any,
    *,
    lean: bool,
    slower: Sequence[str] = (),
    **run: Any,
) -> None:
    cerebro = Engine() if lean else bt.Cerebro(stdstats=False, quicknotify=True)
    cerebro.setbroker(broker)
    add_feeds(cerebro, ArrayFeed, bars, slower)
    cerebro.addstrategy(strategy, **arguments)
    cerebro.run(**run)
    if lean and not run:
        assert not cerebro.stock_reason, "the lean loop was to be tested, and did not run"


def of_strategy(make: Callable[[], Any], **broker: Any) -> Subject:
    """A subject from a strategy, run by ``simulate``: at each bar its orders, fills, equity and cash.

    ``make`` gives a fresh LoadedStrategy, or a class and its arguments; ``broker`` changes the run file's section.
    """

    def subject(bars: Bars) -> Trace:
        strategy, arguments = _unpacked(made := make())
        section = BrokerConfig.model_validate({**BROKER, **broker})
        done = simulate(bars, strategy, arguments, broker=section, risk=RiskConfig(), slower=_slower(made))
        return _trace(bars, done.orders, done.ledger)

    return subject


def of_strategy_on_stock_loop(make: Callable[[], Any], **run: Any) -> Subject:
    """The same on backtrader's own Cerebro; ``run`` goes to ``Cerebro.run``."""

    def subject(bars: Bars) -> Trace:
        strategy, arguments = _unpacked(made := make())
        broker = Broker(broker=BrokerConfig.model_validate(BROKER), risk=RiskConfig())
        _run_cerebro(bars, strategy, arguments, broker, lean=False, slower=_slower(made), **run)
        return _trace(bars, broker.submitted, broker.venue.ledger)

    return subject


def _unpacked(made: Any) -> tuple[type[bt.Strategy], Mapping[str, Any]]:
    return (made.cls, made.arguments) if isinstance(made, LoadedStrategy) else made


def _slower(made: Any) -> tuple[str, ...]:
    """Weeks beside the days, for who asks for longer bars."""
    return ("1w",) if isinstance(made, LoadedStrategy) and made.name == "FilteredCross" else ()


def _trace(bars: Bars, orders: list[Order], ledger: Ledger) -> Trace:
    times = pd.DatetimeIndex(times_of(bars), tz="UTC")
    closes = {symbol: frame["close"] for symbol, frame in bars.frames.items()}
    equity = equity_curve(times, closes, ledger, BROKER["cash"])
    trace: dict[int, tuple[object, ...]] = {
        time: tuple(row) for time, row in zip(times_of(bars), equity.to_numpy().tolist(), strict=True)
    }
    for order in orders:
        refused = order.reason if order.status in ("refused", "rejected") else ""
        prices = order.limit_price, order.stop_price
        what = order.symbol, order.side, order.quantity, order.type, *prices, order.time_in_force, refused
        trace[order.decided] += (("order", order.id, *what),)
    for fill in ledger.fills:
        trace[fill.time] += (
            ("fill", fill.order_id, fill.symbol, fill.side, fill.quantity, fill.price, fill.commission),
        )
    return trace


def orders_in(trace: Trace) -> list[tuple[Any, ...]]:
    """The orders of a strategy's trace, with their decision bars before them."""
    return [(time, *e[1:]) for time, row in trace.items() for e in row if isinstance(e, tuple) and e[0] == "order"]


def fills_in(trace: Trace) -> list[tuple[Any, ...]]:
    """The fills of a strategy's trace, with their bars before them."""
    return [(time, *e[1:]) for time, row in trace.items() for e in row if isinstance(e, tuple) and e[0] == "fill"]


# --- what is shipped -------------------------------------------------------------------------------------------------


def shipped_strategies() -> list[str]:
    """Every strategy in the strategies package, as a run file names it. ``RuleStrategy`` is what runs the rules."""
    found = []
    for module_info in pkgutil.iter_modules(strategies.__path__):
        module = importlib.import_module(f"strategies.{module_info.name}")
        for name, member in inspect.getmembers(module, inspect.isclass):
            own = member.__module__ == module.__name__ and member is not RuleStrategy
            if own and issubclass(member, Rule | bt.Strategy) and not inspect.isabstract(member):
                found.append(f"{module.__name__}:{name}")
    return found


@cache
def _forecaster_of_classes() -> Forecaster:
    def lean_neither_way(network: Network) -> None:
        for at in range(len(network.heads)):
            network.head(at).project.bias.zero_()

    return tiny_forecaster("lstm, direction, two horizons", change=lean_neither_way)


def load(kind: str, forecaster: Forecaster | None, folder: Path = Path(), **params: float) -> LoadedStrategy:
    """The strategy that a run file names; one that trades classes has a forecaster of its own."""
    if kind == "strategies.direction:Direction":
        forecaster, params = _forecaster_of_classes(), {"longer": 3.0, "margin": 0.02, **params}
    config = tiny_config("lstm").model_copy(update={"folder": folder})
    section = config.strategy.model_copy(update={"kind": kind, "params": params})
    config = config.model_copy(update={"strategy": section})
    return load_strategy(config, Context.of(config, forecaster))
