"""One paper run: the strategy of the backtest under live bars, everything it sees and does written down.

The thread that calls ``run`` is the only one that changes anything. At each step: bars into the journal, bars into the
lines, the broker's news into the account, the strategy decides, forecasts and decision into the journal, orders out.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import backtrader as bt
import pandas as pd

from engine.cerebro.broker import Broker
from engine.cerebro.clock import to_days_of
from engine.cerebro.feed import LiveFeed, add_feeds
from engine.cerebro.loop import Engine, LiveStep, descendants
from engine.cerebro.running import run_engine
from engine.config import BrokerConfig, RiskConfig
from engine.data.aggregation import SlowerBars
from engine.data.bars import COLUMNS, Bars
from engine.data.calendars import session_number
from engine.live.desk import Desk
from engine.live.sources import Arrived, Source
from engine.live.status import Followed, Status, held_of, open_order
from engine.live.venue import LiveVenue, Log, order_fields
from engine.trading.orders import QUANTITY_EPSILON, SIDE_NAMES, Order, OrderStatus

# A venue that moves on when it is told to: how long its fills take says nothing.
REPLAY = "replay"
_RECENT = 500
_BETWEEN_BARS = 1_000_000  # ns; backtrader's times have milliseconds
_LOG_LINES = 8


class Past(Protocol):
    """What a run has done already.

    Attributes:
        over: whether all of it has been gone through, and what happens now happens for the first time.
    """

    @property
    def over(self) -> bool: ...

    def refusal(self, order: Order) -> str:
        """Why a limit on the wall clock refused this order, or empty."""

    def is_late(self, order: Order) -> bool:
        """Whether this order was given up because its bar was over."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run.

    Attributes:
        run: name of the run's folder.
        venue: where it trades, in words.
        strategy, arguments: as for Cerebro.
        history: the bars before the first decision, of every symbol; frames may be empty.
        forecaster: the run file's model, if any.
        slower: timeframes of longer bars that the strategy may look at.
        ends_when_halted: whether the run ends once a halt has closed everything; a replay goes on, as a backtest does.
            What a broker does not answer to holds up no exit of another symbol then; a replay keeps the sequence.
    """

    run: str
    venue: str
    strategy: type[bt.Strategy]
    arguments: Mapping[str, Any]
    history: Bars
    broker: BrokerConfig
    risk: RiskConfig
    forecaster: Any = None
    slower: tuple[str, ...] = ()
    ends_when_halted: bool = False


class LiveRun:
    """Runs a plan over a source of bars and a desk for orders.

    Attributes:
        broker: the account as the strategy sees it.
        halted: why a limit stopped trading, or empty.
        steps: decided so far.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        source: Source,
        desk: Desk,
        log: Log,
        on_step: Callable[[LiveRun], None] = lambda run: None,
        connections: Callable[[], tuple[str, str, int]] = lambda: ("", "", 0),
        past: Past | None = None,
        check: Callable[[Sequence[Any]], None] = lambda forecasters: None,
        is_late: Callable[[Order], bool] = lambda order: False,
    ) -> None:
        """Prepare the run.

        Args:
            on_step: called after each step; may ask for ``status()``.
            connections: states of feed and broker in words, and how often a connection was made anew.
            check: takes the forecasters that the strategy brought, before the first bar; may refuse them.
            past: what the run has done already, where it goes on or is gone through once more.
            is_late: whether the bar that an order was decided on is over.
        """
        self._plan = plan
        self._source = source
        self._log = log
        self._on_step = on_step
        self._check = check
        self._past = past
        self._has_passed = is_late
        self._connections = connections
        self.steps = 0
        self.sent = self.filled = self.turned_down = 0
        self.latencies: dict[str, deque[float]] = {name: deque(maxlen=_RECENT) for name in ("decide", "send")}
        self.events: deque[str] = deque(maxlen=_LOG_LINES)
        self._alive: dict[int, Order] = {}
        self._symbols = plan.history.symbols
        self._positions = {symbol: position for position, symbol in enumerate(self._symbols)}
        self._closes: dict[str, float] = {
            symbol: float(frame["close"].iloc[-1]) for symbol, frame in plan.history.frames.items() if len(frame)
        }
        self._followed = Followed()
        self._time = 0
        self._session = 0
        self._session_equity = self._last_equity = self._peak = plan.broker.cash
        # Client order ids hold at most 128 characters, and a run's name 80.
        short = plan.run.replace("Z-", "-", 1)[:60]
        self.broker = Broker(
            broker=plan.broker,
            risk=plan.risk,
            venue=partial(
                LiveVenue,
                desk=desk,
                log=log,
                run=short,
                may_open=self._may_open,
                may_close=self._may_close,
                is_late=self._is_late,
            ),
            record=self._decided,
            membership=plan.history.membership,
        )
        self.venue: LiveVenue = self.broker.venue  # type: ignore[assignment]
        self.venue.exits_first = plan.ends_when_halted
        self._engine = Engine(source=self._steps)
        self._engine.setbroker(self.broker)
        add_feeds(self._engine, LiveFeed, plan.history, plan.slower)
        names = [(symbol, timeframe) for timeframe in plan.slower for symbol in self._symbols]
        self._slower = SlowerBars(plan.history, plan.slower)
        self._slower_positions = {name: position for position, name in enumerate(names, start=len(self._symbols))}
        self._engine.addstrategy(plan.strategy, **plan.arguments)
        self._minute: deque[int] = deque()
        self._announced = False
        self._refusal = ""
        self._paused: dict[str, str] = {}
        self._theirs: Mapping[str, float] = {}
        self._ends_when_halted = plan.ends_when_halted

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self._plan.run

    @property
    def halted(self) -> str:
        """Why a limit stopped trading, or empty."""
        return self.broker.gate.halted

    @property
    def paused(self) -> str:
        """Why no position is opened at present, or empty."""
        return "; ".join(self._paused.values())

    @property
    def time(self) -> int:
        """End of the last bar, UTC ns; 0 before the first."""
        return self._time

    def close(self, symbol: str) -> float:
        """Last close of a symbol; NaN before its first bar."""
        return self._closes.get(symbol, math.nan)

    def run(self) -> None:
        """Run to the end of the source, or until it is stopped.

        Raises:
            StrategyError: the strategy raised; names the bar.
            BrokerError: the broker or a connection failed for good.
            StorageError: the journal cannot be written.
        """
        for symbol, frame in self._plan.history.frames.items():
            ends = pd.DatetimeIndex(frame.index).as_unit("ns").asi8.tolist()
            rows = zip(ends, *(frame[column].tolist() for column in COLUMNS), strict=True)
            self._log.write("history", symbol=symbol, bars=[list(row) for row in rows])
        self._log.commit(durable=True)
        run_engine(self._engine, self._plan.strategy.__name__)
        # What has come since the last bar, and what the strategy has asked for in its stop().
        if self._time:
            self._settle()

    # --- steps -----------------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[LiveStep]:
        # The strategy is there once the engine asks for the first step.
        self._strategy = self._engine.runningstrats[0]
        forecasts = [i for i in descendants(self._strategy) if hasattr(i, "forecaster")]
        # Where a strategy has several models, the run file's is the one that is shown and recorded.
        self._forecasts = sorted(forecasts, key=lambda i: not self._is_the_run_files(i.forecaster))
        forecasters = {id(i.forecaster): i.forecaster for i in self._forecasts}
        self._check(list(forecasters.values()))
        self._log.write("bundles", names=sorted({own.turns[0].bundle.path.name for own in forecasters.values()}))
        for arrived in self._source:
            if arrived.bars:
                self._log.write("bars", time=arrived.time, decide=arrived.decide, bars=arrived.bars)
                days = to_days_of(arrived.time)
                self._begin(arrived)
                rows = {self._positions[symbol]: (days, *row) for symbol, row in arrived.bars.items()}
                for name, row in self._slower.take(arrived.time, arrived.bars).items():
                    rows[self._slower_positions[name]] = (days, *row)
                yield LiveStep(days, rows, arrived.decide)
                if arrived.decide:
                    self._after_decision(arrived)
            elif self._time:
                self._settle()
            if self._ends_when_halted and self.halted and self.is_flat:
                break
        self._log.write("stopping")

    def _settle(self) -> None:
        """Book what the broker has told, without a bar: a mute feed must not keep a halted run from ending."""
        self._log.write("settled", time=self._after_the_bar)
        self.broker.settle(self._after_the_bar)
        self._send()
        self._close_orders()
        self._log.commit()
        self._tell()

    def _tell(self) -> None:
        """Call whoever watches; what has been is not told again."""
        if self._is_present:
            self._on_step(self)

    @property
    def _is_present(self) -> bool:
        return self._past is None or self._past.over

    @property
    def _after_the_bar(self) -> int:
        """When news between two bars are booked, UTC ns: after the last bar's decision, before the next bar's end."""
        return self._time + _BETWEEN_BARS

    def _send(self) -> int:
        """Send what was decided; once trading is halted, whatever fails on the way. How many orders went out."""
        sent = self.venue.flush(self._after_the_bar, insist=bool(self.halted))
        self.sent += sent
        if self._is_present:
            self.pause("broker", self.venue.deferred)
        return sent

    def _begin(self, arrived: Arrived) -> None:
        self._time = arrived.time
        self._closes.update((symbol, row[3]) for symbol, row in arrived.bars.items())
        session = session_number(arrived.time)
        if session != self._session:
            self._session, self._session_equity = session, self._last_equity

    def _decided(self, order: Order) -> None:
        """Takes each order as the strategy gives it: the intent is in the journal before anything is sent."""
        self._log.write("intent", **order_fields(order, self.venue.client_id(order)))
        if order.alive:
            self._alive[order.id] = order
        else:
            self.turned_down += 1
            self.events.append(
                f"{SIDE_NAMES[order.side]} {order.quantity:g} {order.symbol} {order.status}: {order.reason}"
            )

    def _after_decision(self, arrived: Arrived) -> None:
        decided = time.monotonic_ns()
        self.steps += 1
        self._write_forecasts(arrived)
        sent = self._send()
        done = time.monotonic_ns()
        if self._is_present:
            self._minute.extend([done] * sent)
            self.latencies["decide"].append((decided - arrived.received) / 1e6)
            if sent:
                self.latencies["send"].append((done - decided) / 1e6)
        self._close_orders()
        self._last_equity = equity = float(self.broker.getvalue())
        self._peak = max(self._peak, equity)
        self._log.write(
            "decision",
            time=arrived.time,
            equity=equity,
            cash=self.broker.getcash(),
            sent=sent,
            decide_ms=(decided - arrived.received) / 1e6,
            send_ms=(done - decided) / 1e6 if sent else None,
            **getattr(self._strategy, "decision", {}),
        )
        self._announce_halt()
        self._log.commit()
        self._tell()

    def _write_forecasts(self, arrived: Arrived) -> None:
        """Write what every indicator forecast: ``lines`` are the run file's model's, if it has one, others ``beside``.

        The first one of a symbol is shown, whosever it is.
        """
        made: dict[str, list[float]] = {}
        beside: dict[str, list[list[float]]] = {}
        features: dict[str, list[float]] = {}
        shown: set[str] = set()
        for indicator in self._forecasts:
            symbol = indicator.data._name
            if symbol not in arrived.bars:
                continue
            values = [float(line[0]) for line in indicator.lines]
            if symbol not in made and self._is_the_run_files(indicator.forecaster):
                made[symbol] = values
            else:
                beside.setdefault(symbol, []).append(values)
            if symbol in shown:
                continue
            shown.add(symbol)
            if getattr(indicator, "features", None) is not None:
                features[symbol] = indicator.features
            if not math.isnan(values[0]):
                self._followed.take(
                    symbol, indicator.forecaster.horizon, values, time=arrived.time, close=self._closes[symbol]
                )
        if shown:
            more = {"beside": beside} if beside else {}
            self._log.write("forecast", time=arrived.time, lines=made, features=features, **more)

    def _is_the_run_files(self, forecaster: Any) -> bool:
        """Whether it forecasts with the run file's model and at its traded horizon; any does where there is none."""
        own = self._plan.forecaster
        if own is None or own is forecaster:
            return True
        return (own.bundle.path.name, own.horizon) == (forecaster.bundle.path.name, forecaster.horizon)

    def _close_orders(self) -> None:
        """Write how the orders ended that have ended since the last step."""
        for order in [order for order in self._alive.values() if not order.alive]:
            del self._alive[order.id]
            self.filled += order.status is OrderStatus.FILLED
            self.turned_down += order.status is OrderStatus.REJECTED
            self._log.write(
                "ended",
                order=order.id,
                status=order.status.value,
                reason=order.reason,
                filled_quantity=order.filled_quantity,
            )
            self._note(order)

    def _note(self, order: Order, more: str = "") -> None:
        if more and more == self._refusal:
            return  # said already: a strategy may ask for the same at every bar
        self._refusal = more or self._refusal
        self.events.append(f"{SIDE_NAMES[order.side]} {order.quantity:g} {order.symbol} {order.status}{more}")

    # --- limits on the wall clock ----------------------------------------------------------------------------------

    def _may_open(self, order: Order) -> str:
        if self._past is not None and not self._past.over:
            return self._past.refusal(order)
        if self._paused:
            return self.paused
        limit = self._plan.risk.max_orders_per_minute
        if limit is None:
            return ""
        now = time.monotonic_ns()
        while self._minute and now - self._minute[0] > 60_000_000_000:
            self._minute.popleft()
        waiting = len(self._minute) + self.venue.unsent
        if waiting >= limit:
            return f"risk.max_orders_per_minute: {waiting} orders in the last minute, the limit is {limit}"
        return ""

    def _may_close(self, order: Order) -> str:
        if self._past is not None and not self._past.over:
            return self._past.refusal(order)
        theirs = self._theirs.get(order.symbol)
        if theirs is None or order.quantity <= -theirs * order.side + QUANTITY_EPSILON:
            return ""
        return f"the broker holds {theirs:g} {order.symbol}: more would be closed than there is; see why entries pause"

    def hold_back(self, theirs: Mapping[str, float]) -> None:
        """Close no more than the broker holds of these symbols (signed quantities), which is not what we hold."""
        self._theirs = theirs

    def _is_late(self, order: Order) -> bool:
        return self._has_passed(order) if self._past is None or self._past.over else self._past.is_late(order)

    def check_feed(self, *, silent_seconds: float, is_open: bool) -> None:
        """Halt when the market is open and no bar has come for longer than ``risk.stale_seconds``."""
        limit = self._plan.risk.stale_seconds
        if limit is None or not is_open or silent_seconds <= limit or self.halted or not self._time:
            return
        self.halt(f"risk.stale_seconds: no bar for {silent_seconds:.0f} seconds, the limit is {limit:g}")

    def halt(self, reason: str, *, ends: bool = False) -> None:
        """Stop trading between two bars: cancel what is open and close every position at once.

        ``ends``: the run ends once nothing is held, also where it would go on after a halt.
        """
        self._ends_when_halted = self._ends_when_halted or ends
        if self.halted:
            return
        self.broker.halt(reason)
        self._announce_halt(outside=True, ends=ends)
        self._send()
        self._log.commit()
        self._tell()

    def take_over(self, closings: Sequence[Mapping[str, Any]]) -> None:
        """Take for ours the orders with which `nextbar kill` has closed positions; see ``LiveVenue.take_over``."""
        orders = self.venue.take_over(closings)
        self.broker.spare([order.id for order in orders])
        self._alive.update((order.id, order) for order in orders)

    def adopt(self, trades: Sequence[Mapping[str, Any]]) -> None:
        """Book what somebody else has traded on the account; see ``LiveVenue.adopt``."""
        self.venue.adopt(trades, decided=self._time, time=self._after_the_bar)
        self.broker.retake({trade["symbol"] for trade in trades})

    def change_model(self, **change: Any) -> None:
        """Note that another bundle decides on the bars to come; see ``engine.paper_models.Change``."""
        self._log.write("model", **change)
        self.events.append(f"{change['new']['name']} decides from here on, in the place of {change['old']['name']}")

    def _announce_halt(self, **more: Any) -> None:
        if self.halted and not self._announced:
            self._announced = True
            self._log.write("halt", time=self._time, reason=self.halted, **more)
            self.events.append(f"HALTED: {self.halted}")

    def pause(self, source: str, reason: str) -> None:
        """Open no position while there is a reason; an empty one lifts the pause of this source."""
        if reason == self._paused.get(source, ""):
            return
        if reason:
            self._paused[source] = reason
        else:
            del self._paused[source]
        self._log.write("pause", source=source, reason=reason)
        self.events.append(f"entries paused: {reason}" if reason else "entries allowed again")

    @property
    def is_left_open(self) -> bool:
        """Whether trading is halted, and something is held that no order is closing: the broker has turned it down."""
        closing = {order.symbol for order in self.venue.open_orders.values() if order.closing}
        held = {symbol for symbol, position in self.venue.ledger.positions.items() if position.quantity}
        return bool(self.halted and held - closing)

    @property
    def is_flat(self) -> bool:
        """Nothing is held, and of no order anything may still come."""
        held = any(position.quantity for position in self.venue.ledger.positions.values())
        return not (held or self.venue.open_orders or self.venue.waiting)

    # --- for whoever watches ---------------------------------------------------------------------------------------

    def status(self) -> Status:
        """A picture of the run as it is now."""
        feed, broker, reconnects = self._connections()
        ledger = self.venue.ledger
        fills = self.venue.fill_latencies
        latencies = {name: sorted(values)[len(values) // 2] for name, values in self.latencies.items() if values}
        if fills and self._plan.venue != REPLAY:
            latencies["fill"] = sorted(fills)[len(fills) // 2] / 1e6
        return Status(
            run=self._plan.run,
            venue=self._plan.venue,
            step=self.steps,
            time=self._time,
            closes=dict(self._closes),
            forecasts=self._followed.newest,
            came=dict(self._followed.came),
            positions=held_of(ledger.positions, self._closes),
            orders=tuple(open_order(order) for order in self._alive.values() if order.alive),
            equity=self._last_equity,
            starting_equity=self._plan.broker.cash,
            peak_equity=self._peak,
            session_equity=self._session_equity,
            cash=ledger.cash,
            sent=self.sent,
            filled=self.filled,
            turned_down=self.turned_down,
            latencies_ms=latencies,
            feed=feed,
            broker=broker,
            reconnects=reconnects,
            halted=self.halted,
            paused=self.paused,
            log=tuple(self.events),
        )
