"""The bar loop: one rule over one-minute bars, from frames in memory to the last fill.

Both sides of a pair with backtrader use the same strategy class and the same kind of broker, and must give identical
fills; feed and loop are what differs. Analyzers and observers are off on both sides, although backtrader's default has
observers, which slow it down. Everything is single-threaded and in memory, so it is timed by the processor's clock of
its thread, which other programs hardly disturb.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from benchmarks.harness import (
    Comparison,
    Contender,
    Disagreement,
    Fact,
    LeftOut,
    Measured,
    Turn,
    rounds,
    seconds_of,
    timed,
)
from benchmarks.market import one_minute_bars, several_one_minute_bars
from engine.cerebro.broker import Broker
from engine.cerebro.clock import to_days
from engine.cerebro.feed import ArrayFeed
from engine.cerebro.loop import Engine
from engine.config import BrokerConfig

NAME = "bar loop"
PERIOD = 60
SIZE = 100
CASH = 100_000.0
PEER_PYTHON = Path(__file__).resolve().parents[1] / ".venv-bench" / "bin" / "python"

Frames = Mapping[str, pd.DataFrame]
# Time in backtrader's float days, symbol, signed size, price.
Fills = list[tuple[float, str, float, float]]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to measure."""

    bars: int = 100_000
    symbols: int = 4
    bars_a_symbol: int = 25_000
    rounds: int = 4
    peer_rounds: int = 7


class SmaRule(bt.Strategy):
    """Long while the close is above its average, else flat."""

    def __init__(self) -> None:
        self.average = bt.indicators.SimpleMovingAverage(self.data.close, period=PERIOD)

    def next(self) -> None:
        close, average = self.data.close[0], self.average[0]
        if self.position:
            if close < average:
                self.close()
        elif close > average:
            self.buy(size=SIZE)


class SmaRuleOfSeveral(bt.Strategy):
    """The same for each symbol by itself, at its own bars."""

    def __init__(self) -> None:
        self.averages = [bt.indicators.SimpleMovingAverage(data.close, period=PERIOD) for data in self.datas]

    def next(self) -> None:
        now = self.datetime[0]
        for data, average in zip(self.datas, self.averages, strict=True):
            if data.datetime[0] != now:
                continue
            if self.getposition(data):
                if data.close[0] < average[0]:
                    self.close(data)
            elif data.close[0] > average[0]:
                self.buy(data, size=SIZE)


def measure(size: Size) -> Iterator[Measured]:
    """Every comparison of the bar loop, as it comes."""
    frame = one_minute_bars(size.bars)
    frames = {"WALK": frame}
    yield _pair("same broker: ours", frames, SmaRule, broker=_our_broker, fills=_our_fills, count=size.rounds)
    yield _pair("same broker: BackBroker", frames, SmaRule, broker=_back_broker, fills=_back_fills, count=size.rounds)
    several = several_one_minute_bars(size.bars_a_symbol, symbols=size.symbols)
    case = f"{size.symbols} symbols, same broker: ours"
    yield _pair(case, several, SmaRuleOfSeveral, broker=_our_broker, fills=_our_fills, count=size.rounds)
    yield _against_backtesting(frame, count=size.peer_rounds)


# --- backtrader ----------------------------------------------------------------------------------------------------


def _our_broker() -> Any:
    return Broker(broker=BrokerConfig(cash=CASH))


def _back_broker() -> Any:
    return bt.brokers.BackBroker(cash=CASH)


def _our_fills(broker: Any) -> Fills:
    times = to_days(pd.DatetimeIndex([fill.time for fill in broker.venue.ledger.fills]))
    return [
        (float(time), fill.symbol, fill.signed_quantity, fill.price)
        for time, fill in zip(times, broker.venue.ledger.fills, strict=True)
    ]


def _back_fills(broker: Any) -> Fills:
    return [(bit.dt, order.data._name, bit.size, bit.price) for order in broker.orders for bit in order.executed.exbits]


def run_ours(frames: Frames, strategy: type[bt.Strategy], broker: Any) -> Any:
    """Our feed and our loop; the broker as the run leaves it."""
    engine = Engine()
    engine.setbroker(broker)
    for symbol, frame in frames.items():
        engine.adddata(ArrayFeed(dataname=frame, name=symbol, bars="1m"))
    engine.addstrategy(strategy)
    engine.run()
    if engine.stock_reason:
        raise Disagreement(f"our loop was not used: {engine.stock_reason}")
    return broker


def run_stock(frames: Frames, strategy: type[bt.Strategy], broker: Any) -> Any:
    """backtrader as it comes: PandasData and Cerebro, preloaded and run at once; the broker as the run leaves it."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.setbroker(broker)
    for symbol, frame in frames.items():
        feed = bt.feeds.PandasData(dataname=frame, name=symbol, timeframe=bt.TimeFrame.Minutes, openinterest=None)
        cerebro.adddata(feed)
    cerebro.addstrategy(strategy)
    cerebro.run()
    return broker


def _pair(
    case: str,
    frames: Frames,
    strategy: type[bt.Strategy],
    *,
    broker: Callable[[], Any],
    fills: Callable[[Any], Fills],
    count: int,
) -> Comparison:
    ours = timed("nextbar", lambda: run_ours(frames, strategy, broker()), clock=time.thread_time)
    # A feed of frames with a time zone would be slowed by pandas; bar ends in UTC without one are the peer's habit.
    naive = {symbol: frame.tz_localize(None) for symbol, frame in frames.items()}
    peer = timed("backtrader", lambda: run_stock(naive, strategy, broker()), clock=time.thread_time)
    our_turns, peer_turns = rounds(ours, peer, count=count)
    number = _same_fills(case, fills(our_turns[-1].result), fills(peer_turns[-1].result))
    return Comparison(
        benchmark=NAME,
        case=case,
        peer=f"backtrader {bt.__version__}",
        unit="bars",
        amount=sum(len(frame) for frame in frames.values()),
        ours_seconds=seconds_of(our_turns),
        peer_seconds=seconds_of(peer_turns),
        goal=4.0,
        facts={"fills": number, "fills_identical": "yes"},
    )


def _same_fills(case: str, ours: Fills, peers: Fills) -> int:
    """The number of fills; raises unless both have the same, in time, symbol, size and price, to the bit.

    backtrader reads its times from datetimes, so they are compared to the millisecond.
    """
    if len(ours) != len(peers):
        raise Disagreement(f"{NAME}, {case}: {len(ours)} fills of ours, {len(peers)} of the peer")
    for own, other in zip(ours, peers, strict=True):
        if own[1:] != other[1:] or abs(own[0] - other[0]) * 86_400_000 >= 1.0:
            raise Disagreement(f"{NAME}, {case}: our fill {own} is the peer's {other}")
    return len(ours)


# --- backtesting.py ------------------------------------------------------------------------------------------------


@contextmanager
def _backtesting_program(frame: pd.DataFrame) -> Iterator[subprocess.Popen[str]]:
    """The peer's program, waiting for its turns with the bars loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.npz"
        times = pd.DatetimeIndex(frame.index).as_unit("ns").asi8
        columns = {name: frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
        np.savez(path, times=times, **columns)
        script = Path(__file__).with_name("peer_backtesting.py")
        # -P: the folder of the script holds modules of ours, and the peer must not find them.
        command = [str(PEER_PYTHON), "-P", str(script), str(path), str(PERIOD)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            try:
                yield program
            finally:
                program.stdin.close() if program.stdin else None
                program.wait(timeout=60)


def _against_backtesting(frame: pd.DataFrame, *, count: int) -> Comparison | LeftOut:
    case = "own brokers"
    if not PEER_PYTHON.exists():
        return LeftOut(
            benchmark=NAME, case=case, reason=f"peer not installed ({PEER_PYTHON} is missing; `make bench` makes it)"
        )
    frames = {"WALK": frame}
    ours = timed("nextbar", lambda: run_ours(frames, SmaRule, _our_broker()), clock=time.thread_time)
    with _backtesting_program(frame) as program:

        def turn() -> Turn[dict[str, Any]]:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write("run\n")
            program.stdin.flush()
            line = program.stdout.readline()
            if not line:
                raise Disagreement(f"{NAME}, {case}: the peer's program ended; see its message above")
            answer = json.loads(line)
            return Turn(answer["seconds"] - answer["statistics_seconds"], answer)

        our_turns, peer_turns = rounds(ours, Contender("backtesting.py", turn), count=count)
    answer = peer_turns[-1].result
    number = len(our_turns[-1].result.venue.ledger.fills)
    # The peer begins to decide a bar later, and its average is rounded in another way.
    if abs(number - answer["fills"]) > 2:
        raise Disagreement(f"{NAME}, {case}: {number} fills of ours, {answer['fills']} of the peer")
    facts: dict[str, Fact] = {
        "fills": number,
        "peer_fills": answer["fills"],
        "peer_statistics_seconds": min(turn.result["statistics_seconds"] for turn in peer_turns),
    }
    return Comparison(
        benchmark=NAME,
        case=case,
        peer=f"backtesting.py {answer['version']}",
        unit="bars",
        amount=len(frame),
        ours_seconds=seconds_of(our_turns),
        peer_seconds=seconds_of(peer_turns),
        facts=facts,
    )
