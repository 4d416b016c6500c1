"""Live trading over loopback: from a bar's arrival to the broker's answer to its order, and steps a second of a replay.

The exchange runs in a process of its own, as Alpaca would. The peer is what alpaca-py's documentation shows: a handler
that sends a market order for each bar. Ours does the same through journal, lines, indicators, risk gate and ledger, and
has each intent on the disk before it is sent.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import yaml
from alpaca.data.live import StockDataStream
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import MarketOrderRequest

from benchmarks.harness import Comparison, Measured, Rate
from benchmarks.market import random_walk
from engine.config import RunConfig
from engine.credentials import Credentials
from engine.data.bars import Bars
from engine.data.calendars import session_hours
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.desk import AlpacaDesk
from engine.live.journal import Journal
from engine.live.run import LiveRun, Plan
from engine.live.sources import LockStep, starts_seen
from engine.run_file import load_config
from strategies.rule import Context
from strategies.runner import RuleStrategy
from strategies.sma_cross import SmaCross

NAME = "live"
SYMBOL = "WALK"
KEYS = ("practice", "practice")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to measure."""

    bars: int = 800
    rounds: int = 3
    replayed: int = 4_000
    daily: int = 1_500


class EveryBar(bt.Strategy):
    """Buys and sells a share in turn, at every bar."""

    def __init__(self) -> None:
        self.average = bt.ind.SMA(self.data.close, period=20)

    def next(self) -> None:
        (self.sell if self.position else self.buy)(size=1)


def measure(size: Size) -> Iterator[Measured]:
    """The latency beside a bare handler's, then the rates of replays."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ours, peers = [], []
        for number in range(size.rounds):
            turns = [(ours, _our_latencies), (peers, _bare_latencies)]
            for seconds, turn in turns if number % 2 else reversed(turns):
                seconds.append(turn(place / f"{turn.__name__}{number}", size.bars))
        yield _latency(ours, peers, size)
        yield _rate(place / "minutes", "1m", size.replayed)
        yield _rate(place / "days", "1d", size.daily)


def _latency(ours: Sequence[np.ndarray], peers: Sequence[np.ndarray], size: Size) -> Comparison:
    def quantiles(rounds: Sequence[np.ndarray], share: float) -> tuple[float, ...]:
        return tuple(float(np.quantile(seconds, share)) for seconds in rounds)

    return Comparison(
        benchmark=NAME,
        case="bar arrival to the broker's answer, p50",
        peer="bare alpaca-py handler",
        unit="orders",
        amount=1,
        ours_seconds=quantiles(ours, 0.5),
        peer_seconds=quantiles(peers, 0.5),
        goal=0.5,
        facts={
            "ours_p50_ms": min(quantiles(ours, 0.5)) * 1e3,
            "ours_p99_ms": min(quantiles(ours, 0.99)) * 1e3,
            "peer_p50_ms": min(quantiles(peers, 0.5)) * 1e3,
            "peer_p99_ms": min(quantiles(peers, 0.99)) * 1e3,
            "orders_a_round": size.bars,
        },
    )


# --- the exchange ----------------------------------------------------------------------------------------------------


def _bars(count: int, timeframe: str) -> pd.DataFrame:
    """A random walk on the real sessions of New York."""
    days = pd.bdate_range("2012-01-03", periods=2 * count if timeframe == "1d" else count // 380 + 30)
    opens, closes = session_hours(days)
    held = ~pd.isna(opens)
    if timeframe == "1d":
        times = closes[held]
    else:
        parts = [
            pd.date_range(start + pd.Timedelta(minutes=1), end, freq="min")
            for start, end in zip(opens[held], closes[held], strict=True)
        ]
        times = pd.DatetimeIndex(np.concatenate([part.asi8 for part in parts]), tz="UTC")
    times = times[-count - 800 :]
    walk = random_walk(len(times), seed=5, frequency="1min")
    return walk.round(2).set_axis(times.as_unit("ns").rename("time"))


def _config(place: Path, count: int, timeframe: str) -> RunConfig:
    """A run file over the last ``count`` bars of a CSV."""
    place.mkdir()
    frame = _bars(count, timeframe)
    frame.to_csv(place / f"{SYMBOL}.csv", index_label="time", date_format="%Y-%m-%dT%H:%M:%S%z")
    first, last = frame.index[-count], frame.index[-1]
    values = {
        "name": "bench",
        "data": {"source": "files", "path": f"{SYMBOL}.csv", "symbols": [SYMBOL], "timeframe": timeframe},
        "spans": {"test": [f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"]},
        "strategy": {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 10, "slow": 30}},
        "broker": {"commission": {"bps": 1.0}, "slippage_bps": 1.0},
    }
    (place / "run.yaml").write_text(yaml.safe_dump(values))
    return load_config(place / "run.yaml")


@contextmanager
def _exchange(place: Path) -> Iterator[Credentials]:
    """``nextbar exchange`` in lock-step, in a process of its own."""
    command = [sys.executable, "-m", "engine.cli", "exchange", str(place / "run.yaml"), "--port", "0"]
    with subprocess.Popen([*command, "--speed", "lock-step"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = next(found[0] for line in process.stderr if (found := re.findall(r"http://[\d.:]+", line)))
            yield Credentials(
                key=KEYS[0],
                secret=KEYS[1],
                trading_url=url,
                data_url=url,
                trading_stream_url=f"{url.replace('http', 'ws', 1)}/stream",
            )
        finally:
            process.terminate()
            process.communicate()


# --- the contenders --------------------------------------------------------------------------------------------------


def _bare_latencies(place: Path, count: int) -> np.ndarray:
    """Seconds from each bar's arrival to the answer to its order, in the handler of alpaca-py's examples."""
    _config(place, count, "1m")
    with _exchange(place) as credentials:
        client = TradingClient(*KEYS, url_override=credentials.trading_url)
        control = Control(credentials)
        seconds: list[float] = []
        done = threading.Event()

        class Timed(StockDataStream):
            async def _dispatch(self, msg: dict[str, Any]) -> None:
                self.arrived = time.perf_counter()
                await super()._dispatch(msg)
                if msg.get("T") == "subscription":
                    done.set()

        stream = Timed(*KEYS, url_override=credentials.data_stream("iex"))

        async def on_bar(bar: Any) -> None:
            side = OrderSide.SELL if len(seconds) % 2 else OrderSide.BUY
            client.submit_order(MarketOrderRequest(symbol=bar.symbol, qty=1, side=side, time_in_force=TimeInForce.GTC))
            seconds.append(time.perf_counter() - stream.arrived)
            done.set()

        stream.subscribe_bars(on_bar, SYMBOL)
        thread = threading.Thread(target=stream.run, daemon=True)
        thread.start()
        _wait(done)
        clock = int(control.status()["time"])
        for _ in range(count):
            clock = control.advance(clock).time or clock
            _wait(done)
        loop = stream._loop
        asyncio.run_coroutine_threadsafe(stream.stop_ws(), loop).result(10)
        asyncio.run_coroutine_threadsafe(stream.close(), loop).result(10)
        thread.join(10)
        control.close()
    return np.array(seconds[count // 10 :])


def _wait(done: threading.Event) -> None:
    if not done.wait(30.0):
        raise TimeoutError("the bar did not reach the handler within 30 seconds")
    done.clear()


def _our_latencies(place: Path, count: int) -> np.ndarray:
    """Seconds from each bar's arrival to the answer to its order, through all of nextbar."""
    config = _config(place, count, "1m")
    with _exchange(place) as credentials:
        _run(place, config, credentials, EveryBar, {}, count)
    journal = Journal.read_only(place / "journal.sqlite")
    bodies = [entry.body for entry in journal.entries("decision")]
    journal.close()
    total = [(body["decide_ms"] + body["send_ms"]) / 1e3 for body in bodies if body["send_ms"] is not None]
    return np.array(total[count // 10 :])


def _run(
    place: Path, config: RunConfig, credentials: Credentials, strategy: type[Any], arguments: dict[str, Any], count: int
) -> float:
    """A lock-step run of ``count`` steps at most; steps a second, from the first bar asked for to the last decision."""
    streamed = config.data.timeframe == "1m"
    frame = _bars(count, config.data.timeframe)
    history = Bars(frames={SYMBOL: frame.iloc[:0]}, timeframe=config.data.timeframe, adjustment="none", source="bench")
    with Connection(credentials, config, streamed=streamed) as connection:
        connection.check()
        connection.open()
        journal = Journal.open(place / "journal.sqlite", {"id": "bench", "run": "bench"})
        control = Control(credentials)
        clock = int(control.status()["time"])
        desk = AlpacaDesk(connection.trading, connection.inbox)
        source = LockStep(
            control,
            connection.inbox,
            timeframe=config.data.timeframe,
            streamed=streamed,
            rows=connection.rows,
            seen=starts_seen(history.frames, config.data.timeframe),
            last=clock,
            clock=clock,
            catch_up=lambda: desk.catch_up(run.venue.waiting),
            waits=lambda: run.venue.has_outgoing,
            noted=journal.write,
        )

        def enough(run: LiveRun) -> None:
            if run.steps >= count:
                connection.inbox.stop()

        run = LiveRun(
            Plan(
                run="bench",
                venue="bench",
                strategy=strategy,
                arguments=arguments,
                history=history,
                broker=config.broker,
                risk=config.risk,
            ),
            source=source,
            desk=desk,
            log=journal,
            on_step=enough,
        )
        begin = time.perf_counter()
        run.run()
        seconds = time.perf_counter() - begin
        journal.close()
        control.close()
        return run.steps / seconds


def _rate(place: Path, timeframe: str, count: int) -> Rate:
    """Steps a second of a lock-step replay: one symbol, sma_cross."""
    config = _config(place, count, timeframe)
    context = Context.of(config, None)
    rule = SmaCross(config.strategy.params, context)  # type: ignore[arg-type]
    with _exchange(place) as credentials:
        rate = _run(place, config, credentials, RuleStrategy, {"rule": rule}, count)
    how = "bars from the stream" if timeframe == "1m" else "bars fetched after each step"
    return Rate(
        benchmark=NAME,
        case=f"lock-step replay, sma_cross, {timeframe} ({how})",
        unit="steps",
        per_second=rate,
        goal=500.0,
    )
