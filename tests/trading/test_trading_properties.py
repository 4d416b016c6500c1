"""Whatever the bars and whatever the orders: what must hold of every account."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from desk import Desk, Prices
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.trading.ledger import Ledger
from engine.trading.orders import BUY, SELL, Fill, Order, OrderStatus
from engine.trading.sizing import rounded_down
from engine.trading.trades import round_trips
from engine.trading.venue import Event

ENDED_WITH_A_REASON = {OrderStatus.REJECTED, OrderStatus.CANCELED, OrderStatus.EXPIRED}
SYMBOLS = ("X", "Y")
MULTIPLES = st.sampled_from([0.8, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.25])


@dataclass(frozen=True)
class Wish:
    """An order in terms of the market at which it is given, so that drawing it needs no knowledge of that."""

    symbol: str
    side: int
    share: float
    type: str
    limit: float
    stop: float
    day: bool
    legs: bool
    cancel_after: int | None


@dataclass(frozen=True)
class Moment:
    """One step of the clock: the bars that complete, as multiples of the last close, and the wishes at their close."""

    moves: dict[str, tuple[float, float, float, float]]
    same_session: bool
    ends: bool
    wishes: list[Wish]


wishes = st.builds(
    Wish,
    symbol=st.sampled_from(SYMBOLS),
    side=st.sampled_from([BUY, SELL]),
    share=st.sampled_from([0.1, 0.5, 1.0, 1.5, 1.99, 3.0]),
    type=st.sampled_from(["market", "limit", "stop", "stop_limit", "close"]),
    limit=MULTIPLES,
    stop=MULTIPLES,
    day=st.booleans(),
    legs=st.booleans(),
    cancel_after=st.sampled_from([None, None, None, 0, 1, 2]),
)
moves = st.tuples(MULTIPLES, MULTIPLES, MULTIPLES, MULTIPLES)
moments = st.builds(
    Moment,
    moves=st.dictionaries(st.sampled_from(SYMBOLS), moves, min_size=1),
    same_session=st.booleans(),
    ends=st.booleans(),
    wishes=st.lists(wishes, max_size=3),
)
accounts = st.fixed_dictionaries(
    {
        "account": st.sampled_from(["margin", "cash"]),
        "fractional": st.booleans(),
        "short": st.booleans(),
        "slippage_bps": st.sampled_from([0.0, 7.0, 300.0]),
        "commission_bps": st.sampled_from([0.0, 5.0, 200.0]),
        "commission_per_share": st.sampled_from([0.0, 0.01, 1.0]),
        "commission_minimum": st.sampled_from([0.0, 1.0, 90.0]),
        "margin_rate_pct": st.sampled_from([0.0, 8.0]),
        "borrow_rate_pct": st.sampled_from([0.0, 4.0]),
    }
)
stories = st.lists(moments, min_size=1, max_size=12)


class WatchedLedger(Ledger):
    """A ledger that is looked at after each fill."""

    def __init__(self, cash: float, after_fill: Callable[[Fill, float], None]) -> None:
        super().__init__(cash)
        self.after_fill = after_fill

    def apply(self, fill: Fill) -> None:
        held = self.quantity(fill.symbol)
        super().apply(fill)
        self.after_fill(fill, held)


class Recorder(Desk):
    """A desk that lives through a story, remembers it, and looks at the account right after each fill."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(**{**settings, "short": settings["short"] and settings["account"] == "margin"})
        self.start = self.ledger.cash
        self.ledger = self.venue.ledger = WatchedLedger(self.start, self._look)
        self.seen: dict[tuple[str, int], Prices] = {}
        self.events: Counter[int] = Counter()
        self.cancels: list[tuple[int, Order]] = []

    def _look(self, fill: Fill, held: float) -> None:
        if self.venue.account == "cash":
            assert self.ledger.cash >= 0.0
        elif held * fill.side >= 0.0:
            opens = {s: self.seen[s, self.time][0] for s in SYMBOLS if (s, self.time) in self.seen}
            marks = {**self.closes, **opens, fill.symbol: fill.price}
            assert self.ledger.gross(marks) <= 2.0 * self.ledger.equity(marks) + 1e-6

    def live(self, story: list[Moment]) -> Recorder:
        ended = True
        for moment in story:
            bars: dict[str, Prices] = {}
            for symbol, multiples in moment.moves.items():
                prices = [self.closes[symbol] * multiple for multiple in multiples]
                bars[symbol] = (prices[0], max(prices), min(prices), prices[3])
                self.seen[symbol, self.time + 1] = bars[symbol]
            self._note(self.bars(bars, ends=moment.ends, same_session=moment.same_session and not ended))
            ended = moment.ends
            for due, order in self.cancels:
                if due == self.time:
                    self._note(self.venue.cancel(order))
            for wish in moment.wishes:
                self._grant(wish)
        return self

    def _note(self, events: list[Event]) -> None:
        self.events.update(event.order.id for event in events)

    def _grant(self, wish: Wish) -> None:
        close, held = self.closes[wish.symbol], self.held(wish.symbol)
        common: dict[str, Any] = {"symbol": wish.symbol, "time_in_force": "day" if wish.day else "gtc"}
        if wish.type == "close":
            order = self.order(SELL if held > 0.0 else BUY, abs(held), **common)
        else:
            quantity = rounded_down(wish.share * max(1.0, self.equity()) / close, self.venue.fractional)
            limit = {"limit_price": close * wish.limit} if "limit" in wish.type else {}
            stop = {"stop_price": close * wish.stop} if "stop" in wish.type else {}
            order = self.order(wish.side, quantity, wish.type, **limit, **stop, **common)
            if wish.legs:
                common |= {"parent": order, "group": 1_000 + order.id}
                self.order(-wish.side, quantity, "stop", stop_price=close * wish.stop, **common)
                self.order(-wish.side, quantity, "limit", limit_price=close * wish.limit, **common)
        if wish.cancel_after == 0:
            self._note(self.venue.cancel(order))
        elif wish.cancel_after is not None:
            self.cancels.append((self.time + wish.cancel_after, order))


@settings(max_examples=400, deadline=None)
@given(accounts, stories)
def test_what_holds_of_every_account(account: dict[str, Any], story: list[Moment]) -> None:
    # Cash and buying power are looked at after each fill, inside.
    desk = Recorder(account).live(story)

    by_id = {order.id: order for order in desk.orders}
    for fill in desk.fills:
        _, high, low, _ = desk.seen[fill.symbol, fill.time]
        assert low <= fill.reference_price <= high
        assert fill.decided < fill.time
        limit = by_id[fill.order_id].limit_price
        assert math.isnan(limit) or fill.side * (fill.price - limit) <= 0.0
        assert fill.side * (fill.price - fill.reference_price) >= 0.0

    for symbol in SYMBOLS:
        traded = sum(fill.signed_quantity for fill in desk.fills if fill.symbol == symbol)
        assert traded == pytest.approx(desk.held(symbol), abs=1e-9)

    trades = round_trips(desk.fills, last_prices=desk.closes, last_time=desk.time)
    earned = sum(trade.pnl for trade in trades) - desk.ledger.interest_paid
    assert desk.equity() == pytest.approx(desk.start + earned, abs=1e-6)
    paid = sum(fill.signed_quantity * fill.price + fill.commission for fill in desk.fills)
    assert desk.ledger.cash == pytest.approx(desk.start - paid - desk.ledger.interest_paid, abs=1e-6)
    assert sum(trade.commission for trade in trades) == pytest.approx(sum(fill.commission for fill in desk.fills))


@settings(max_examples=200, deadline=None)
@given(accounts, stories)
def test_every_order_is_open_or_has_ended_once(account: dict[str, Any], story: list[Moment]) -> None:
    desk = Recorder(account).live(story)
    filled = Counter(fill.order_id for fill in desk.fills)
    for order in desk.orders:
        assert order.alive == (order.id in desk.venue.open_orders)
        assert filled[order.id] <= 1
        assert order.filled_quantity == 0.0 or 0.0 < order.filled_quantity <= order.quantity
        rejected = order.status is OrderStatus.REJECTED
        woken = not rejected and order.parent is not None and order.parent.filled_quantity > 0.0
        ended = not rejected and not order.alive
        # One event for its end; a leg that was still there when its entry filled has one for its waking as well.
        assert desk.events[order.id] - ended in ({0, 1} if woken else {0})
        assert (order.status is OrderStatus.HELD) <= (order.parent is not None and order.parent.alive)
        assert bool(order.reason) == (order.status in ENDED_WITH_A_REASON)


@settings(max_examples=100, deadline=None)
@given(accounts, stories, st.data())
def test_the_same_story_ends_the_same_and_a_later_bar_changes_no_earlier_fill(
    account: dict[str, Any], story: list[Moment], data: st.DataObject
) -> None:
    whole = Recorder(account).live(story)
    assert Recorder(account).live(story).ledger.cash_history == whole.ledger.cash_history
    cut = data.draw(st.integers(0, len(story)))
    start = Recorder(account).live(story[:cut])
    assert start.fills == [fill for fill in whole.fills if fill.time <= cut]
    assert start.ledger.cash_history == [entry for entry in whole.ledger.cash_history if entry[0] <= cut]
