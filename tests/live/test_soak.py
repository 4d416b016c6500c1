"""A long run: two years of minutes through the embedded exchange, and the memory that it takes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.config import BrokerConfig, RiskConfig
from engine.credentials import Credentials
from engine.data.bars import Bars
from engine.data.calendars import session_hours
from engine.exchange.server import AccountSpec, ExchangeServer
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.desk import AlpacaDesk
from engine.live.journal import Journal
from engine.live.run import LiveRun, Plan
from engine.live.sources import LockStep
from engine.live.verifier import Books, Holding, gaps
from engine.report.run import Run  # noqa: F401  what a paper run has imported too
from strategies.rule import Context
from strategies.runner import RuleStrategy
from strategies.sma_cross import SmaCross
from tests.live.rig import config

STEPS = int(os.environ.get("NEXTBAR_SOAK_STEPS", "200000"))
WARM = STEPS // 4
MOST_BYTES_GROWN = 30 * 1024 * 1024


def minutes(count: int) -> Bars:
    """Minutes of real sessions, half days among them, and a price that walks about."""
    days = pd.date_range("2021-01-04", periods=2 + count // 200, freq="D")
    opens, closes = session_hours(days)
    ends = np.concatenate(
        [
            np.arange(opened.value + 60_000_000_000, closed.value + 1, 60_000_000_000)
            for opened, closed in zip(opens, closes, strict=True)
            if not pd.isna(opened)
        ]
    )[:count]
    random = np.random.default_rng(7)
    close = np.round(100.0 * np.exp(np.cumsum(random.normal(0.0, 5e-4, count) - 1e-7)), 2)
    opening = np.concatenate([[100.0], close[:-1]])
    frame = pd.DataFrame(
        {
            "open": opening,
            "high": np.maximum(opening, close),
            "low": np.minimum(opening, close),
            "close": close,
            "volume": random.integers(100, 10_000, count).astype(float),
        },
        index=pd.DatetimeIndex(ends, tz="UTC", name="time").as_unit("ns"),
    )
    return Bars(frames={"A": frame}, timeframe="1m", adjustment="none", source="soak")


def memory() -> int:
    """Bytes that the process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def sockets() -> int:
    return sum("socket" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd))


def _is_open(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")


@pytest.mark.soak
def test_two_years_of_minutes_leave_no_trace_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars = minutes(STEPS)
    start = bars.frames["A"].index[50]
    terms = BrokerConfig(cash=100_000.0)
    rules = config(symbols=["A"], broker=terms.model_dump())
    rule = SmaCross({"fast": 5.0, "slow": 12.0}, Context.of(rules, None))
    threads, open_sockets = set(threading.enumerate()), sockets()
    figures: dict[int, int] = {}
    begun = time.perf_counter()

    def look(run: LiveRun) -> None:
        if run.steps % 10_000 == 0:
            figures[run.steps] = memory()

    with ExchangeServer(bars=bars, start=start, accounts=[AccountSpec(key="k", secret="s", broker=terms)]) as exchange:
        credentials = Credentials(
            key="k",
            secret="s",
            trading_url=exchange.url,
            data_url=exchange.url,
            trading_stream_url=f"{exchange.url.replace('http:', 'ws:', 1)}/stream",
        )
        journal = Journal.open(tmp_path / "journal.sqlite", {"id": "soak", "run": "soak"})
        with Connection(credentials, rules, streamed=True) as connection:
            connection.check()
            connection.open()
            control = Control(credentials)
            history = bars.between(end=start - pd.Timedelta(minutes=1))
            run = LiveRun(
                Plan(
                    run="soak",
                    venue="replay",
                    strategy=RuleStrategy,
                    arguments={"rule": rule},
                    history=history,
                    broker=terms,
                    risk=RiskConfig(),
                ),
                source=LockStep(
                    control,
                    connection.inbox,
                    timeframe="1m",
                    streamed=True,
                    rows=connection.rows,
                    seen={},
                    last=int(history.frames["A"].index[-1].value),
                    clock=int(control.status()["time"]),
                    catch_up=lambda: run.venue.desk.catch_up(run.venue.waiting),
                    waits=lambda: run.venue.has_outgoing,
                    noted=journal.write,
                ),
                desk=AlpacaDesk(connection.trading, connection.inbox),
                log=journal,
                on_step=look,
                connections=connection.states,
            )
            run.run()
            seconds = time.perf_counter() - begun
            ledger = run.venue.ledger
            held = {symbol: Holding(p.quantity, p.average_price) for symbol, p in ledger.positions.items()}
            books = Books(cash=ledger.cash, costs=0.0, held=held, orders=run.venue.at_broker)
            assert gaps(connection.holdings(), books, tolerance=0.01) == []
            control.close()
        journal.close()
    with capsys.disabled():
        print(
            f"\n{run.steps} steps, {run.sent} orders, {run.steps / seconds:.0f} steps/s; MB: "
            + ", ".join(f"{step // 1000}k {size / 1e6:.0f}" for step, size in figures.items())
        )
    assert run.steps == STEPS - 50
    assert run.sent > STEPS // 20
    early = min(size for step, size in figures.items() if step >= WARM)
    assert figures[max(figures)] - early < MOST_BYTES_GROWN
    assert set(threading.enumerate()) <= threads
    assert sockets() == open_sockets
