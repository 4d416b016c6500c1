"""Our broker in backtrader's clothes: a thin shell over a venue of ``engine.trading``, the same in backtest and paper.

backtrader's own ``BackBroker`` is not used: what it does wrong (see the tests) cannot happen here, because matching,
cash and positions are not decided here at all.
"""

from __future__ import annotations

import datetime
import math
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import backtrader as bt

from engine.cerebro.clock import to_nanoseconds
from engine.cerebro.shown import shown_order, snapshot
from engine.config import BrokerConfig, RiskConfig
from engine.data.calendars import session_number
from engine.data.universe import Membership
from engine.errors import StrategyError
from engine.trading.costs import Costs
from engine.trading.ledger import Ledger
from engine.trading.orders import BUY, SELL, Fill, Order, OrderStatus, OrderType, TimeInForce, on_tick
from engine.trading.risk import RiskGate
from engine.trading.venue import Bar, Event, Venue

_STATUSES = {
    OrderStatus.HELD: bt.Order.Accepted,
    OrderStatus.ACCEPTED: bt.Order.Accepted,
    OrderStatus.FILLED: bt.Order.Completed,
    OrderStatus.CANCELED: bt.Order.Canceled,
    OrderStatus.EXPIRED: bt.Order.Expired,
    OrderStatus.REJECTED: bt.Order.Rejected,
    OrderStatus.REFUSED: bt.Order.Rejected,
}
_TYPES: dict[int, OrderType] = {
    bt.Order.Market: "market",
    bt.Order.Limit: "limit",
    bt.Order.Stop: "stop",
    bt.Order.StopLimit: "stop_limit",
}


class Broker(bt.BrokerBase):
    """Takes a strategy's orders through the risk gate to a venue, and tells the strategy what became of them.

    A simulated venue fills them from the feeds' bars; the live side gives one that passes them on.

    Attributes:
        venue: takes the orders and keeps the account.
        gate: the risk gate every order passes.
        submitted: all orders in the sequence in which the strategy gave them, refused ones included; empty where
            ``record`` takes them instead.
    """

    def __init__(
        self,
        *,
        broker: BrokerConfig | None = None,
        risk: RiskConfig | None = None,
        session_ends: Callable[[int], bool] = lambda time: True,
        venue: Callable[..., Venue] = Venue,
        record: Callable[[Order], None] | None = None,
        membership: Membership | None = None,
    ) -> None:
        """A broker of the account that the run file describes.

        Args:
            session_ends: says of a bar end (UTC ns) whether its session ends with it: always, for daily bars.
            venue: makes the venue from ``Venue``'s keywords.
            record: takes each order that was decided on, once it is accepted, rejected or refused.
            membership: of the run's universe: nothing is opened in who is no member. Everyone is one, if None.
        """
        super().__init__()
        self._membership = membership
        broker = broker or BrokerConfig()
        self._feeds: dict[str, Any] = {}
        # Last closes, refreshed once a step when somebody asks.
        self._prices: dict[str, float] = {}
        self._priced_at = 0.0
        self.venue = venue(
            ledger=Ledger(cash=broker.cash),
            costs=Costs.of(broker),
            prices=self._prices,
            account=broker.account,
            fractional=broker.fractional,
            short=broker.short,
        )
        self.gate = RiskGate(risk or RiskConfig(max_gross=2.0), peak=broker.cash)
        if membership is not None:
            self.gate.outside = membership.refusal
        self.submitted: list[Order] = []
        self._record = record or self.submitted.append
        self._decided = 0
        self.startingcash = self.startingvalue = broker.cash
        self._session_ends = session_ends
        self._notifications: deque[Any] = deque()
        # Live orders by id, as backtrader's; those know ours as ``.ours``. Ended ones are let go.
        self._shown: dict[int, Any] = {}
        self._borrows = False
        self._watches = self.gate.watches_equity
        self._halt_orders: set[int] = set()
        self._held: dict[str, tuple[float, float]] = {}
        self.positions: dict[Any, Any] = {}

    # --- what strategies ask ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Meet the feeds."""
        super().start()
        for data in self.cerebro.datas:
            self.positions[data] = bt.Position()
            if not getattr(data, "is_slower", False):
                self._feeds[data._name] = data

    def getcash(self) -> float:
        """Cash of the account; negative when the margin account owes."""
        return self.venue.ledger.cash

    def getvalue(self, datas: Any = None) -> float:
        """Equity, or the market value of the positions in ``datas``."""
        if datas is None:
            return self.venue.ledger.equity(self._refreshed(self._now()))
        held = [(self.venue.ledger.quantity(data._name), data) for data in datas]
        return float(sum(quantity * data.close[0] for quantity, data in held if quantity))

    get_cash = getcash
    get_value = getvalue

    def getposition(self, data: Any, clone: bool = True) -> Any:
        """Position of a feed: a picture of the ledger's, made anew at each fill. Changing it changes nothing."""
        return self.positions[data]

    def members(self) -> frozenset[str] | None:
        """The symbols in which a position may be opened at the present bar; None where the run has no universe."""
        return None if self._membership is None else self._membership.members_at(to_nanoseconds(self._now()))

    def setcommission(self, *args: Any, **kwargs: Any) -> None:
        """Refused: what trading costs is said in one place."""
        raise StrategyError("costs are not set from a strategy; write them in the run file, under broker")

    addcommissioninfo = setcommission

    def orderstatus(self, order: Any) -> int:
        """Present status of an order, as backtrader's number."""
        return int(_STATUSES[order.ours.status])

    # --- orders ----------------------------------------------------------------------------------------------------

    def buy(self, owner: Any, data: Any, size: float, **kwargs: Any) -> Any:
        """Submit a buy; the order that comes back is accepted or rejected already, with ``order.info.reason``."""
        return self._submit(BUY, owner, data, size, **kwargs)

    def sell(self, owner: Any, data: Any, size: float, **kwargs: Any) -> Any:
        """Submit a sell; see ``buy``."""
        return self._submit(SELL, owner, data, size, **kwargs)

    def _submit(
        self,
        side: int,
        owner: Any,
        data: Any,
        size: float,
        *,
        price: float | None = None,
        plimit: float | None = None,
        exectype: int | None = None,
        valid: Any = None,
        tradeid: int = 0,
        oco: Any = None,
        parent: Any = None,
        **kwargs: Any,
    ) -> Any:
        now = self._now()
        exectype = bt.Order.Market if exectype is None else exectype
        order_type, time_in_force = _order_type(exectype), _time_in_force(valid)
        if data._name not in self._feeds:
            raise StrategyError(f"{data._name} holds longer bars to look at; order the symbol itself")
        if not len(data):
            raise StrategyError(f"an order for {data._name} before its first bar has no price; check len(data) first")
        for name in ("trailamount", "trailpercent", "transmit", "histnotify"):
            kwargs.pop(name, None)
        family = bt.BuyOrder if side == BUY else bt.SellOrder
        shown = shown_order(
            family, owner=owner, data=data, size=size, price=price, pricelimit=plimit, exectype=exectype, valid=valid,
            tradeid=tradeid, oco=oco, parent=parent,
        )  # fmt: skip
        shown.addinfo(**kwargs)
        shown.addcomminfo(self.getcommissioninfo(data))
        self._decided += 1
        order = Order(
            id=self._decided,
            symbol=data._name,
            side=side,
            quantity=float(size) if math.isfinite(size) else math.nan,
            type=order_type,
            limit_price=_price(price if exectype == bt.Order.Limit else plimit, exectype, "limit"),
            stop_price=_price(price, exectype, "stop"),
            # Fractions cannot wait at Alpaca: without a word they are for the day.
            time_in_force="day" if order_type == "market" and size % 1 else time_in_force,
            decided=to_nanoseconds(now),
        )
        if parent is not None:
            order.parent = parent.ours
            # Negative, so that it never meets the group of a pair whose first order has this id.
            order.group = -order.parent.id
        elif oco is not None:
            partner = oco.ours
            partner.group = order.group = partner.group or partner.id
        shown.ours = order
        shown.submit(self)
        reason = self.gate.refuses(
            order, ledger=self.venue.ledger, prices=self._refreshed(now), open_orders=self.venue.open_orders.values()
        )
        if reason:
            order.status, order.reason = OrderStatus.REFUSED, reason
        elif self.venue.submit(order):
            self._shown[order.id] = shown
            shown.accept(self)
        if order.reason:
            shown.reject(self)
            shown.addinfo(reason=order.reason)
        self._record(order)
        self._notify(shown)
        if order.reason and order.parent is not None:
            # An entry without the protection it was given must not fill.
            self._report(self.venue.cancel(order.parent, f"its leg was turned down: {order.reason}"), now)
        return shown

    def cancel(self, order: Any) -> None:
        """Cancel a live order at once, one given in the same ``next`` included; a dead one is left alone.

        The orders of a halt are the risk gate's, and are not cancelled.
        """
        if order.ours.id in self._halt_orders:
            return
        self._report(self.venue.cancel(order.ours), self._now())

    # --- the bar ---------------------------------------------------------------------------------------------------

    def next(self) -> None:
        """Called when a step's bars are there, before the strategy decides on them."""
        if self._borrows or self.venue.open_orders or self.venue.news:
            self._step(self._now())
        elif self._watches:
            self._observe(self._now())

    def settle(self, time: int) -> None:
        """Book between two bars what the venue has been told; ``time`` is UTC ns, after the last bar's end."""
        events = self.venue.on_bars(time=time, session=session_number(time), session_ends=False, bars={})
        self._report(events, self._now())
        self._borrows = self.venue.ledger.borrows
        self._close_rest(self._now())

    def _now(self) -> float:
        """Float days of the present step; the lean loop knows it, the stock loop leaves it to the feeds."""
        known = getattr(self.cerebro, "time", 0.0)
        return known or float(max((data.datetime[0] for data in self.cerebro.datas if len(data)), default=0.0))

    def _refreshed(self, now: float) -> dict[str, float]:
        if now != self._priced_at:
            self._prices.update((symbol, data.close[0]) for symbol, data in self._feeds.items() if len(data))
            self._priced_at = now
        return self._prices

    def _step(self, now: float) -> None:
        bars = {
            data._name: Bar(data.open[0], data.high[0], data.low[0], data.close[0])
            for data in self._feeds.values()
            if len(data) and data.datetime[0] == now
        }
        time = to_nanoseconds(now)
        self._refreshed(now)
        events = self.venue.on_bars(
            time=time, session=session_number(time), session_ends=self._session_ends(time), bars=bars
        )
        self._report(events, now)
        self._withdraw_strangers(time, now)
        self._borrows = self.venue.ledger.borrows
        self._observe(now)
        self._close_rest(now)

    def _withdraw_strangers(self, time: int, now: float) -> None:
        """Cancel what would still open a position in a symbol that has left the universe."""
        for order in list(self.venue.open_orders.values()) if self._membership is not None else ():
            reason = self.gate.outside(order.symbol, time)
            if reason and order.alive and not order.closing:
                self._report(self.venue.cancel(order, reason), now)

    def _observe(self, now: float) -> None:
        if not (self._borrows or self._watches):
            return
        ledger, prices = self.venue.ledger, self._refreshed(now)
        # Only who borrows can owe more than there is.
        gross = ledger.gross(prices) if self._borrows else 0.0
        session = session_number(to_nanoseconds(now))
        if self.gate.observe(ledger.equity(prices), gross, session=session):
            self._close_all(now)

    def halt(self, reason: str) -> None:
        """Stop trading for a reason from outside: cancel what is open, close every position, open nothing more."""
        if self.gate.halt(reason):
            self._close_all(self._now())

    def _close_all(self, now: float) -> None:
        """Cancel what is open and close every position at the next bar; the gate refuses what would open more."""
        self._watches = False
        for order in list(self.venue.open_orders.values()):
            if order.id not in self._halt_orders:
                self._report(self.venue.cancel(order, self.gate.halted), now)
        self._close_rest(now)

    def spare(self, orders: Collection[int]) -> None:
        """These orders close positions for a halt already: nothing cancels them."""
        self._halt_orders.update(orders)

    def retake(self, symbols: Collection[str]) -> None:
        """Show the strategy the ledger's positions of these symbols: they have changed without an order of its own."""
        for symbol in symbols:
            self._take_position(symbol)
        self._borrows = self.venue.ledger.borrows

    def _close_rest(self, now: float) -> None:
        """Once trading is halted: close what is still held and no order is closing, as after one that expired."""
        if self.gate.halted:
            closing = {order.symbol for order in self.venue.open_orders.values() if order.closing}
            self._close_positions(now, left_out=closing)

    def _close_positions(self, now: float, *, left_out: Collection[str] = ()) -> None:
        for symbol, data in sorted(self._feeds.items()):
            quantity = self.venue.ledger.quantity(symbol)
            if quantity and symbol not in left_out:
                self._halt_orders.add(self._decided + 1)
                self._submit(SELL if quantity > 0 else BUY, None, data, abs(quantity))

    def _report(self, events: list[Event], now: float) -> None:
        """Tell backtrader's orders what happened to ours."""
        last = {order.id: position for position, (order, _) in enumerate(events)}
        # An order carries its present status: of several fills the last one completes it.
        last_fill = {order.id: position for position, (order, fill) in enumerate(events) if fill is not None}
        for position, (order, fill) in enumerate(events):
            shown = self._shown.get(order.id)
            if shown is None:
                # Filled after the strategy had cancelled it: it is not told of, but the position is what it is.
                if fill is not None:
                    self._take_position(fill.symbol)
                continue
            if fill is not None:
                completes = order.status is OrderStatus.FILLED and last_fill[order.id] == position
                self._execute(shown, fill, now, completes=completes)
                self._notify(shown)
            if order.status is OrderStatus.FILLED or last[order.id] != position:
                # So one that woke and ended in this bar is told of once, at its end.
                continue
            if order.status is OrderStatus.ACCEPTED:
                shown.activate()
                if fill is not None:
                    continue  # told of above
                shown.created.size = shown.size = order.side * order.remaining
            elif order.status is OrderStatus.EXPIRED:
                shown.status = bt.Order.Expired
            else:
                shown.cancel()
            if order.reason:
                shown.addinfo(reason=order.reason)
            self._notify(shown)
        for order in {id(event.order): event.order for event in events}.values():
            if not order.alive:
                self._shown.pop(order.id, None)

    def _execute(self, shown: Any, fill: Fill, now: float, *, completes: bool) -> None:
        before, average = self._held.get(fill.symbol, (0.0, 0.0))
        held = self._take_position(fill.symbol)
        signed = fill.signed_quantity
        closed = math.copysign(min(abs(signed), abs(before)), signed) if before * signed < 0.0 else 0.0
        opened = signed - closed
        closed_part = closed / signed
        shown.execute(
            now, signed, fill.price,
            closed, abs(closed) * average, fill.commission * closed_part,
            opened, abs(opened) * fill.price, fill.commission * (1.0 - closed_part),
            None, -closed * (fill.price - average), *held,
        )  # fmt: skip
        if completes:
            # Floats may leave a rest of 1e-17: the venue's word counts.
            shown.completed()

    def _take_position(self, symbol: str) -> tuple[float, float]:
        """Show the ledger's position; its quantity and average price."""
        position = self.venue.ledger.positions[symbol]
        held = self._held[symbol] = (position.quantity, position.average_price)
        self.positions[self._feeds[symbol]] = bt.Position(*held)
        return held

    def _notify(self, shown: Any) -> None:
        self._notifications.append(snapshot(shown))

    def get_notification(self) -> Any:
        """The next change of an order, or None."""
        return self._notifications.popleft() if self._notifications else None


def _order_type(exectype: int) -> OrderType:
    if exectype in _TYPES:
        return _TYPES[exectype]
    known = dict(enumerate(bt.Order.ExecTypes))
    raise StrategyError(
        f"orders of type {known.get(exectype, exectype)} are not supported: a bar does not tell what they would do "
        "inside it; use Market, Limit, Stop or StopLimit"
    )


def _price(value: float | None, exectype: int, role: str) -> float:
    wanted = {
        "limit": (bt.Order.Limit, bt.Order.StopLimit),
        "stop": (bt.Order.Stop, bt.Order.StopLimit),
    }[role]
    return on_tick(float(value)) if exectype in wanted and value is not None else math.nan


def _time_in_force(valid: Any) -> TimeInForce:
    """None is good till cancelled; 0 or an empty timedelta is a day order."""
    if valid is None:
        return "gtc"
    if valid == 0 or valid == datetime.timedelta(0):
        return "day"
    raise StrategyError(f"valid={valid!r} is not supported: use None (good till cancelled) or 0 (day order)")
