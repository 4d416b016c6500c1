"""A stage for strategies: made-up bars, one strategy on our loop and on backtrader's, and what each of them saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from engine.cerebro.broker import Broker
from engine.cerebro.clock import to_nanoseconds
from engine.cerebro.feed import ArrayFeed
from engine.cerebro.loop import Engine
from engine.config import BrokerConfig, RiskConfig

Row = tuple[float, float, float, float]
CASH = 10_000.0


def days(count: int, start: str = "2020-01-06") -> pd.DatetimeIndex:
    """Ends of business days at 21:00 UTC, from a Monday on."""
    ends = pd.bdate_range(start, periods=count) + pd.Timedelta(hours=21)
    return pd.DatetimeIndex(ends, tz="UTC").as_unit("ns").rename("time")


def frame(rows: Sequence[Row | float], times: pd.DatetimeIndex | None = None) -> pd.DataFrame:
    """Bars from (open, high, low, close), or from a price that does not move inside its bar."""
    full = [row if isinstance(row, tuple) else (row,) * 4 for row in rows]
    index = days(len(full)) if times is None else times
    return pd.DataFrame(full, columns=["open", "high", "low", "close"], index=index, dtype=float).assign(volume=1000.0)


def walk(times: pd.DatetimeIndex, *, seed: int, volatility: float = 0.02) -> pd.DataFrame:
    """A random walk, rounded to cents so that limits, stops and equal closes are met."""
    random = np.random.default_rng(seed)
    count = len(times)
    close = np.round(50.0 * np.exp(np.cumsum(random.normal(0.0, volatility, count))), 2)
    opening = np.round(np.concatenate([[50.0], close[:-1]]) * np.exp(random.normal(0.0, volatility / 2, count)), 2)
    spread = np.round(np.abs(random.normal(0.0, volatility * 25.0, (2, count))), 2)
    return pd.DataFrame(
        {
            "open": opening,
            "high": np.maximum(opening, close) + spread[0],
            "low": np.minimum(opening, close) - spread[1],
            "close": close,
            "volume": np.round(np.exp(random.normal(9.0, 0.5, count))),
        },
        index=times,
    )


def market(symbols: int, count: int, *, seed: int) -> dict[str, pd.DataFrame]:
    """Symbols with staggered starts and ends and missing bars; the first is complete."""
    random = np.random.default_rng(seed)
    times = days(count)
    frames = {"A": walk(times, seed=seed)}
    for position in range(1, symbols):
        first, last = int(random.integers(0, count // 3)), int(random.integers(2 * count // 3, count + 1))
        kept = times[first:last][random.random(last - first) > random.choice([0.0, 0.15])]
        frames["ABCD"[position]] = walk(kept, seed=seed + position)
    return frames


def broker(
    *, risk: RiskConfig | None = None, session_ends: Callable[[int], bool] = lambda time: True, **section: Any
) -> Broker:
    """Our broker with 10,000 in cash, no costs and short sales, unless told otherwise."""
    section = {"cash": CASH, "short": section.get("account") != "cash", "borrow_rate_pct": 0.0, **section}
    return Broker(broker=BrokerConfig(**section), risk=risk, session_ends=session_ends)


def stock_broker(**options: Any) -> bt.brokers.BackBroker:
    """backtrader's own broker with 10,000 in cash."""
    return bt.brokers.BackBroker(cash=CASH, **options)


def pandas_feed(bars: pd.DataFrame, symbol: str) -> Any:
    """backtrader's own feed of the same bars."""
    naive = bars.set_axis(pd.DatetimeIndex(bars.index).tz_localize(None).as_unit("us"))
    return bt.feeds.PandasData(dataname=naive, name=symbol)


def array_feed(bars: pd.DataFrame, symbol: str) -> Any:
    """Our feed."""
    return ArrayFeed(dataname=bars, name=symbol, bars="1d")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A loop with a feed and Cerebro's settings."""

    cerebro: type[bt.Cerebro] = bt.Cerebro
    feed: Callable[[pd.DataFrame, str], Any] = array_feed
    settings: Mapping[str, Any] | None = None


LEAN = Loop(cerebro=Engine)
STOCK = Loop()
STOCK_PANDAS = Loop(feed=pandas_feed)
STOCK_BAR_BY_BAR = Loop(settings={"preload": False, "runonce": False})
STOCK_PANDAS_BAR_BY_BAR = Loop(feed=pandas_feed, settings={"preload": False, "runonce": False})


def play(
    loop: Loop,
    frames: Mapping[str, pd.DataFrame],
    strategy: type[bt.Strategy] | None,
    used: Any,
    *,
    prepare: Callable[[bt.Cerebro], None] = lambda cerebro: None,
    quicknotify: bool = True,
    start: float | None = None,
    **arguments: Any,
) -> Any:
    """Run the strategy and return it; its ``cerebro`` and ``broker`` are at hand there."""
    settings = {"stdstats": False, "quicknotify": quicknotify, **(loop.settings or {})}
    if start is not None:
        settings["start"] = start
    cerebro = loop.cerebro(**settings)
    cerebro.setbroker(used)
    for symbol, bars in frames.items():
        cerebro.adddata(loop.feed(bars, symbol))
    prepare(cerebro)
    if strategy is not None:
        cerebro.addstrategy(strategy, **arguments)
    return cerebro.run()[0]


class Recorder(bt.Strategy):
    """Writes down what it is told and what it sees; subclasses decide in ``act``, called at every bar.

    Times are nanoseconds, rounded to milliseconds, because feeds differ in the last bits of a float day. Orders are
    numbered in the sequence in which they are heard of.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self._numbers: dict[int, int] = {}

    def act(self) -> None:
        """What the strategy does at a bar."""

    def values(self) -> tuple[float, ...]:
        """More numbers to write down at a bar."""
        return ()

    def prenext(self) -> None:
        self._bar("prenext")

    def nextstart(self) -> None:
        self._bar("nextstart")

    def next(self) -> None:
        self._bar("next")

    def _bar(self, kind: str) -> None:
        prices = tuple((len(d), d.close[0], d.volume[0]) if len(d) else (0,) for d in self.datas)
        # backtrader's broker, once asked for a position, values it at every bar: also where there is no price yet.
        held = tuple((self.getposition(d).size, self.getposition(d).price) for d in self.datas if len(d))
        money = (self.broker.getcash(), self.broker.getvalue())
        time = to_nanoseconds(self.datetime[0])
        self.seen.append((kind, len(self), time, prices, held, money, self.values()))
        self.act()

    def number(self, order: Any) -> int:
        """Number of an order in this run."""
        return self._numbers.setdefault(order.ref, len(self._numbers))

    def notify_order(self, order: Any) -> None:
        done = order.executed
        filled = (done.size, done.price, done.value, done.comm, done.pnl) if done.size else ()
        self.seen.append(("order", self.number(order), order.getstatusname(), len(order.data), *filled))

    def notify_trade(self, trade: Any) -> None:
        self.seen.append(
            ("trade", trade.status, trade.size, trade.price, trade.pnl, trade.pnlcomm, trade.commission, trade.barlen)
        )

    def notify_cashvalue(self, cash: float, value: float) -> None:
        self.seen.append(("cash", cash, value))

    def heard(self, kind: str = "order") -> list[tuple[Any, ...]]:
        """What was written down of one kind."""
        return [row[1:] for row in self.seen if row[0] == kind]

    def bars(self) -> list[tuple[Any, ...]]:
        """What was written down at each bar."""
        return [row for row in self.seen if row[0] in ("prenext", "nextstart", "next")]


class Scripted(Recorder):
    """Follows a script: bar number -> what to do with the strategy."""

    params = (("script", {}),)

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[Any] = []

    def act(self) -> None:
        made = self.p.script.get(len(self), lambda strategy: None)(self)
        self.orders += made if isinstance(made, list) else [made] if made is not None else []


def fills(strategy: Any) -> list[tuple[Any, ...]]:
    """(symbol, signed quantity, price, bars of the symbol) of all fills, from either broker."""
    ours = getattr(strategy.broker, "venue", None)
    if ours is not None:
        return [(fill.symbol, fill.signed_quantity, fill.price, fill.time) for fill in ours.ledger.fills]
    bits = [
        (order.data._name, bit.size, bit.price, to_nanoseconds(bit.dt))
        for order in strategy.broker.orders
        for bit in order.executed.exbits
    ]
    return sorted(bits, key=lambda bit: bit[3])


def same(a: Any, b: Any) -> bool:
    """Equality in which NaN equals NaN, through tuples and lists."""
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def assert_same(a: Sequence[Any], b: Sequence[Any]) -> None:
    """Fail at the first row that differs."""
    for position, (x, y) in enumerate(zip(a, b, strict=False)):
        assert same(x, y), f"row {position}:\n{x}\n{y}"
    assert len(a) == len(b)
