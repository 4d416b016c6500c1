"""Bars by hand, a strategy, and both modes without files and run folders: the quick way to many small cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from engine.config import BrokerConfig, RiskConfig, RunConfig
from engine.credentials import Credentials
from engine.data.bars import Bars
from engine.data.calendars import session_closes
from engine.data.timeframes import session_ends
from engine.exchange.account import AccountSpec
from engine.exchange.server import ExchangeServer
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.desk import AlpacaDesk
from engine.live.journal import Journal
from engine.live.recorded import Recorded, read_recorded
from engine.live.run import LiveRun, Plan
from engine.live.sources import LockStep, starts_seen
from engine.live.verifier import Books, Holding, gaps
from engine.report.hashes import fills_hash, orders_hash
from engine.report.records import fills_frame, orders_frame
from engine.simulation.simulate import simulate
from engine.trading.ledger import Ledger
from engine.trading.orders import Order, OrderStatus

Row = tuple[float, float, float, float]
FREE: dict[str, Any] = {"cash": 10_000.0, "borrow_rate_pct": 0.0, "margin_rate_pct": 0.0}


def daily(rows: Mapping[str, Sequence[Row | float | None]], *, first: str = "2024-01-02") -> Bars:
    """Daily bars on New York's sessions; a number is a bar that does not move, None a day without a bar."""
    longest = max(len(own) for own in rows.values())
    dates = pd.bdate_range(first, periods=longest + longest // 10 + 5)
    dates = dates.difference(pd.DatetimeIndex(["2024-01-15", "2024-02-19", "2024-03-29", "2024-05-27", "2024-06-19"]))
    return bars_at(rows, session_closes(dates), "1d")


def minutes(rows: Mapping[str, Sequence[Row | float | None]], *, a_session: int = 8) -> Bars:
    """Minute bars, so many from the open of each session on."""
    longest = max(len(own) for own in rows.values())
    days = pd.bdate_range("2024-01-16", periods=longest // a_session + 1).difference(pd.DatetimeIndex(["2024-02-19"]))
    opens = (days + pd.Timedelta(hours=9, minutes=30)).tz_localize("America/New_York").tz_convert("UTC")
    ends = [opened + pd.Timedelta(minutes=minute) for opened in opens for minute in range(1, a_session + 1)]
    return bars_at(rows, pd.DatetimeIndex(ends), "1m")


def bars_at(rows: Mapping[str, Sequence[Row | float | None]], ends: pd.DatetimeIndex, timeframe: str) -> Bars:
    """Canonical bars of each symbol, row by row with the ends."""
    frames = {}
    for symbol, own in sorted(rows.items()):
        there = [(end, bar) for end, bar in zip(ends, own, strict=False) if bar is not None]
        index = pd.DatetimeIndex([end for end, _ in there]).as_unit("ns").rename("time")
        full = [bar if isinstance(bar, tuple) else (bar,) * 4 for _, bar in there]
        frame = pd.DataFrame(full, columns=["open", "high", "low", "close"], index=index, dtype=np.float64)
        frames[symbol] = frame.assign(volume=1000.0)
    return Bars(frames=frames, timeframe=timeframe, adjustment="none", source="test")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run. ``seen`` is what the strategy wrote down by itself."""

    orders: list[Order]
    ledger: Ledger
    halted: str
    seen: list[Any] = field(default_factory=list)

    @property
    def hashes(self) -> tuple[str, str]:
        """The fingerprints of orders and fills that a run's manifest holds."""
        sent = [order for order in self.orders if order.status is not OrderStatus.REFUSED]
        return orders_hash(orders_frame(sent)), fills_hash(fills_frame(self.ledger.fills))

    @property
    def states(self) -> list[tuple[Any, ...]]:
        """Of each order: what it was, how it stands, and what was filled of it."""
        return [
            (o.id, o.symbol, o.side, o.quantity, o.type, o.time_in_force, o.decided,
             "open" if o.alive else o.status.value, o.filled_quantity)
            for o in self.orders
        ]  # fmt: skip


Strategy = type[bt.Strategy]


def tested(
    bars: Bars, strategy: Strategy, *, broker: BrokerConfig, risk: RiskConfig, start: pd.Timestamp, **arguments: Any
) -> Outcome:
    """The backtest."""
    seen: list[Any] = []
    done = simulate(
        bars,
        strategy,
        {"seen": seen, **arguments},
        broker=broker,
        risk=risk,
        start=start,
        session_ends=session_ends(bars),
    )
    return Outcome(orders=done.orders, ledger=done.ledger, halted=done.halted, seen=seen)


def replayed(
    bars: Bars,
    strategy: Strategy,
    *,
    broker: BrokerConfig,
    risk: RiskConfig,
    start: pd.Timestamp,
    folder: Path,
    on_step: Callable[[LiveRun, Connection], None] = lambda run, connection: None,
    **arguments: Any,
) -> Outcome:
    """The same over alpaca-py and loopback sockets, against the embedded exchange in lock-step, as a replay does it.

    The journal is read back: what counts is what it holds.
    """
    account = AccountSpec(key="replay", secret="a-secret", broker=broker)
    streamed = bars.timeframe == "1m"
    history = Bars(
        frames={symbol: frame[frame.index < start] for symbol, frame in bars.frames.items()},
        timeframe=bars.timeframe,
        adjustment=bars.adjustment,
        source=bars.source,
        membership=bars.membership,
    )
    seen: list[Any] = []
    with ExchangeServer(bars=bars, start=start, accounts=[account]) as exchange:
        credentials = credentials_of(exchange, account)
        with Connection(credentials, config_of(bars, broker, risk), streamed=streamed) as connection:
            connection.check()
            connection.open()
            control = Control(credentials)
            path = folder / f"journal-{len(list(folder.iterdir()))}.sqlite"
            journal = Journal.open(path, {"id": "test"})
            try:
                known = [int(frame.index[-1].value) for frame in history.frames.values() if len(frame)]
                clock = int(control.status()["time"])
                desk = AlpacaDesk(connection.trading, connection.inbox)
                run = LiveRun(
                    Plan(
                        run="20240101T000000Z-parity",
                        venue="replay",
                        strategy=strategy,
                        arguments={"seen": seen, **arguments},
                        history=history,
                        broker=broker,
                        risk=risk.on_bars(),
                    ),
                    source=LockStep(
                        control,
                        connection.inbox,
                        timeframe=bars.timeframe,
                        streamed=streamed,
                        rows=connection.rows,
                        seen=starts_seen(history.frames, bars.timeframe),
                        last=max(known, default=clock),
                        clock=clock,
                        catch_up=lambda: desk.catch_up(run.venue.waiting),
                        waits=lambda: run.venue.has_outgoing,
                        noted=journal.write,
                    ),
                    desk=desk,
                    log=journal,
                    on_step=lambda run: on_step(run, connection),
                    connections=connection.states,
                )
                run.run()
                recorded = read_recorded(journal, cash=broker.cash)
                _books_agree(run, recorded, connection, broker)
            finally:
                journal.close()
                control.close()
    return Outcome(orders=recorded.orders, ledger=recorded.ledger, halted=recorded.halted, seen=seen)


def _books_agree(run: LiveRun, recorded: Recorded, connection: Connection, broker: BrokerConfig) -> None:
    """The run's ledger, the journal's and the exchange's own account say the same."""
    ledger = run.venue.ledger
    assert recorded.ledger.cash == ledger.cash
    assert recorded.ledger.cash_history == ledger.cash_history
    held = {s: Holding(position.quantity, position.average_price) for s, position in ledger.positions.items()}
    books = Books(
        cash=ledger.cash, costs=0.0, held=held, orders=run.venue.at_broker, ended=frozenset(run.venue.waiting)
    )
    assert gaps(connection.holdings(), books, tolerance=0.01) == []
    account: Any = connection.trading.get_account()
    assert float(account["cash"]) == ledger.cash


def credentials_of(exchange: ExchangeServer, account: AccountSpec) -> Credentials:
    """An account's way to an exchange on this machine."""
    return Credentials(
        key=account.key,
        secret=account.secret,
        trading_url=exchange.url,
        data_url=exchange.url,
        trading_stream_url=f"{exchange.url.replace('http:', 'ws:', 1)}/stream",
    )


def config_of(bars: Bars, broker: BrokerConfig, risk: RiskConfig) -> RunConfig:
    """The run file that a connection needs."""
    return RunConfig.model_validate(
        {
            "name": "parity",
            "data": {"source": "files", "symbols": list(bars.symbols), "timeframe": bars.timeframe},
            "spans": {"test": ["2024-01-01", "2024-12-31"]},
            "strategy": {"kind": "a:B"},
            "broker": broker,
            "risk": risk,
        }
    )


def assert_parity(
    bars: Bars,
    strategy: Strategy,
    folder: Path,
    *,
    warmup: int = 0,
    broker: Mapping[str, Any] | None = None,
    risk: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Outcome:
    """Run both and compare everything; what came of the backtest.

    Args:
        warmup: distinct bar ends before the first decision.
    """
    common: dict[str, Any] = {
        "broker": BrokerConfig.model_validate({**FREE, **(broker or {})}),
        "risk": RiskConfig.model_validate({"max_gross": 2.0, **(risk or {})}),
        "start": _times(bars)[warmup],
        **arguments,
    }
    expected = tested(bars, strategy, **common)
    found = replayed(bars, strategy, folder=folder, **common)
    assert found.seen == expected.seen
    assert found.states == expected.states
    assert [_paid(fill) for fill in found.ledger.fills] == [_paid(fill) for fill in expected.ledger.fills]
    assert found.ledger.cash_history == expected.ledger.cash_history
    assert found.ledger.interest_paid == expected.ledger.interest_paid
    assert found.halted == expected.halted
    assert found.hashes == expected.hashes
    return expected


def _paid(fill: Any) -> tuple[Any, ...]:
    return (fill.order_id, fill.symbol, fill.side, fill.quantity, fill.price, fill.reference_price, fill.commission,
            fill.decided, fill.time)  # fmt: skip


def _times(bars: Bars) -> list[pd.Timestamp]:
    return sorted({time for frame in bars.frames.values() for time in frame.index})
