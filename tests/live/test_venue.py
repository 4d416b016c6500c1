"""Our picture of the account: what the broker tells is booked once and in full, whatever was missed or repeated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from engine.errors import StorageError
from engine.live.desk import LATE
from engine.live.rest import NoAnswer
from engine.live.venue import LiveVenue
from engine.trading.costs import Costs
from engine.trading.ledger import Ledger
from engine.trading.orders import BUY, SELL, Fill, Order, OrderStatus
from engine.trading.venue import Bar
from tests.live.rig import MemoryDesk

DAY = 86_400_000_000_000
NONE: dict[str, Any] = {"order": {"id": "foreign", "filled_qty": "5", "filled_avg_price": "10"}}


class MemoryLog:
    """Entries in memory, and the commits between them."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.full = False

    def write(self, kind: str, /, **body: Any) -> None:
        self.entries.append((kind, body))

    def commit(self, *, durable: bool = False) -> None:
        if self.full:
            raise StorageError("no space left on the disk")
        if durable:
            self.entries.append(("durable", {}))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.entries]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [body for found, body in self.entries if found == kind]


class Account:
    """A venue over a desk in memory, with steps made short."""

    def __init__(self, **terms: Any) -> None:
        self.log = MemoryLog()
        self.desk = MemoryDesk(self.log.entries)
        self.ids = itertools.count(1)
        self.steps = itertools.count(1)
        self.prices = {"A": 100.0}
        self.venue = LiveVenue(
            ledger=Ledger(cash=100_000.0),
            costs=Costs(),
            prices=self.prices,
            desk=self.desk,
            log=self.log,
            run="run",
            **terms,
        )

    def order(self, side: int = BUY, quantity: float = 10.0, **fields: Any) -> Order:
        made = Order(id=next(self.ids), symbol="A", side=side, quantity=quantity, **fields)
        assert self.venue.submit(made), made.reason
        return made

    def sent(self, side: int = BUY, quantity: float = 10.0, **fields: Any) -> Order:
        made = self.order(side, quantity, **fields)
        self.venue.flush(DAY)
        return made

    def bracket(self) -> tuple[Order, Order, Order]:
        entry = self.order()
        stop = self.order(SELL, type="stop", stop_price=90.0, parent=entry)
        target = self.order(SELL, type="limit", limit_price=110.0, parent=entry)
        self.venue.flush(DAY)
        return entry, stop, target

    def step(self, price: float = 100.0) -> list[tuple[int, str, float]]:
        """Book what was told: number, status and filled quantity of each event."""
        number = next(self.steps)
        events = self.venue.on_bars(
            time=number * DAY, session=number, session_ends=True, bars={"A": Bar(price, price, price, price)}
        )
        return [
            (event.order.id, event.order.status.value, event.fill.quantity if event.fill else 0.0) for event in events
        ]

    @property
    def held(self) -> float:
        return self.venue.ledger.quantity("A")

    @property
    def booked(self) -> list[tuple[float, float]]:
        return [(fill.quantity, fill.price) for fill in self.venue.ledger.fills]


@pytest.fixture
def account() -> Account:
    return Account()


def deferred_entry(withdrawal: str | None) -> dict[str, Any]:
    """What the journal says of the first order, where the broker said nothing."""
    why = "the broker says nothing"
    return {"order": 1, "withdrawal": withdrawal, "finding": None, "cut_off": False, "ahead": False, "reason": why}


# --- what leaves the house -----------------------------------------------------------------------------------------


def test_nothing_is_sent_before_it_is_on_the_disk(account: Account) -> None:
    account.order()
    assert account.desk.sent == []
    assert account.venue.unsent == 1
    assert account.venue.flush(DAY) == 1
    assert account.log.kinds() == ["durable", "sent", "ack"]
    assert account.venue.flush(DAY) == 0


def test_with_a_full_disk_nothing_is_sent(account: Account) -> None:
    account.order()
    account.log.full = True
    with pytest.raises(StorageError):
        account.venue.flush(DAY)
    assert account.desk.sent == []


def test_an_order_that_the_broker_turns_down_is_told_of_at_the_next_step(account: Account) -> None:
    account.desk.refuse = "insufficient buying power"
    order = account.sent()
    assert account.log.of("turned_down") == [{"order": order.id, "reason": "insufficient buying power"}]
    assert account.step() == [(order.id, "rejected", 0.0)]
    assert order.reason == "turned down by the broker: insufficient buying power"
    assert account.venue.waiting == []


def test_an_order_that_is_cancelled_before_it_was_sent_stays_at_home(account: Account) -> None:
    account.venue.cancel(account.order())
    assert account.venue.flush(DAY) == 0
    assert (account.desk.sent, account.desk.withdrawn) == ([], [])


def test_a_bracket_goes_out_as_one_order(account: Account) -> None:
    entry, stop, target = account.bracket()
    ((sent, legs, _),) = account.desk.sent
    assert (sent, legs) == (entry, [stop, target])


def test_a_pair_that_cancels_one_another_is_not_sent(account: Account) -> None:
    order = Order(id=1, symbol="A", side=BUY, quantity=1.0, group=7)
    assert not account.venue.submit(order)
    assert "use a bracket" in order.reason


def test_client_order_ids_are_the_same_again_and_differ_by_order(account: Account) -> None:
    first, second = account.order(decided=DAY), account.order(decided=DAY)
    assert account.venue.client_id(first) == account.venue.client_id(first) == "run-19700102T000000-A-1"
    assert account.venue.client_id(second) != account.venue.client_id(first)


def test_limits_stop_what_opens_a_position_and_nothing_that_closes_one() -> None:
    account = Account(may_open=lambda order: "too many")
    order = Order(id=1, symbol="A", side=BUY, quantity=1.0)
    assert not account.venue.submit(order)
    assert (order.status, order.reason) == (OrderStatus.REFUSED, "too many")
    price = {"price": 100.0, "reference_price": 100.0, "commission": 0.0}
    account.venue.ledger.apply(Fill(order_id=0, symbol="A", side=BUY, quantity=5.0, decided=0, time=0, **price))
    assert account.venue.submit(Order(id=2, symbol="A", side=SELL, quantity=5.0))


# --- what the broker does not answer -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_an_order_that_nobody_answers_to_is_deferred_and_looked_for_before_it_is_sent_again(
    account: Account, fault: str
) -> None:
    account.desk.faults.append(fault)
    order = account.sent()
    assert account.venue.deferred == "the broker says nothing"
    silent = {
        "order": 1,
        "withdrawal": None,
        "finding": None,
        "cut_off": False,
        "ahead": False,
        "reason": "the broker says nothing",
    }
    assert account.log.of("deferred") == [silent]
    assert (order.status, account.venue.unsent, account.venue.waiting) == (OrderStatus.ACCEPTED, 1, [])
    assert account.venue.doubtful_ids == {account.venue.client_id(order)}
    assert account.venue.flush(DAY) == 1
    client_id = account.venue.client_id(order)
    again = [("send", client_id)] if fault == "lost" else []
    assert account.desk.asked == [("send", client_id), ("find", client_id), *again]
    assert [kind for kind in account.log.kinds() if kind == "sent"] == ["sent"]
    assert account.log.of("ack") == [{"order": 1, "broker_id": "r1", "legs": []}]
    assert (account.venue.deferred, account.venue.has_outgoing, account.venue.doubtful_ids) == ("", False, frozenset())
    # What it told before we knew the order.
    assert account.desk.caught_up == ([["r1"]] if fault == "taken" else [])


def test_what_was_told_of_an_order_before_it_was_known_to_be_there_is_booked(account: Account) -> None:
    account.desk.faults.append("taken")
    order = account.sent()
    account.desk.tell("r1", "fill", 10.0, 101.0)
    assert account.step() == []  # whose order that is, nobody knows yet
    last = account.log.of("update")[-1]
    assert (last["order"], last["broker_id"]) == (None, "r1")
    account.venue.flush(DAY)
    assert account.step() == [(order.id, "filled", 10.0)]
    assert account.booked == [(10.0, 101.0)]


def test_a_broker_that_says_nothing_of_what_became_of_an_order_has_taken_it_all_the_same(account: Account) -> None:
    def mute(ids: Any) -> int:
        raise NoAnswer("the broker says nothing")

    account.desk.catch_up = mute  # type: ignore[method-assign]
    account.desk.faults.append("taken")
    account.sent()
    assert account.venue.flush(DAY) == 1
    assert (account.venue.waiting, account.venue.deferred) == (["r1"], "")


def test_what_follows_an_order_that_nobody_answers_to_waits_with_it_and_keeps_its_place(account: Account) -> None:
    limit = account.sent(type="limit", limit_price=50.0)
    first = account.order()
    account.venue.cancel(limit)
    second = account.order()
    account.desk.faults.append("lost")
    assert account.venue.flush(DAY) == 0
    assert len(account.desk.asked) == 2  # the limit, and the one that failed
    assert (account.venue.unsent, account.desk.withdrawn) == (2, [])
    account.venue.flush(DAY)
    assert [order for order, _, _ in account.desk.sent] == [limit, first, second]
    assert account.desk.withdrawn == ["r1"]
    ids = [account.venue.client_id(order) for order in (first, second)]
    # The second was not tried, and cannot be there.
    assert account.desk.asked[2:] == [("find", ids[0]), ("send", ids[0]), ("send", ids[1])]


@pytest.mark.parametrize("first", [True, False])
def test_an_exit_of_another_symbol_goes_ahead_of_what_nobody_answers_to_where_the_market_does_not_wait(
    first: bool,
) -> None:
    account = Account(exits_first=first)
    account.prices["B"] = 50.0
    stop = Order(id=next(account.ids), symbol="B", side=BUY, quantity=5.0)
    assert account.venue.submit(stop)
    account.venue.flush(DAY)
    account.desk.tell("r1", "fill", quantity=5.0, price=50.0)
    account.step()
    protect = Order(id=next(account.ids), symbol="B", side=SELL, quantity=5.0, type="stop", stop_price=45.0)
    assert account.venue.submit(protect)
    account.venue.flush(DAY)
    entry = account.order()
    account.venue.cancel(protect)
    leave = Order(id=next(account.ids), symbol="B", side=SELL, quantity=5.0)
    assert account.venue.submit(leave)
    account.desk.faults.append("lost")
    account.venue.flush(DAY)
    sent = [order for order, _, _ in account.desk.sent]
    assert (leave in sent, entry in sent) == (first, False)
    assert account.desk.withdrawn == (["r2"] if first else [])
    assert account.venue.deferred
    account.venue.flush(DAY)
    assert {entry, leave} <= {order for order, _, _ in account.desk.sent}


def test_after_a_second_one_without_an_answer_nothing_more_is_tried() -> None:
    account = Account(exits_first=True)
    for symbol in "BCD":
        account.prices[symbol] = 50.0
        assert account.venue.submit(Order(id=next(account.ids), symbol=symbol, side=BUY, quantity=5.0))
        account.venue.flush(DAY)
        account.desk.tell(f"r{len(account.desk.sent)}", "fill", quantity=5.0, price=50.0)
    account.step()
    account.order()
    for symbol in "BCD":
        assert account.venue.submit(Order(id=next(account.ids), symbol=symbol, side=SELL, quantity=5.0))
    account.desk.faults.extend(["lost", "lost"])
    begun = len(account.desk.asked)
    account.venue.flush(DAY)
    assert len(account.desk.asked) == begun + 2
    assert account.venue.flush(DAY) == 4


def test_as_long_as_nobody_answers_it_is_deferred_again(account: Account) -> None:
    account.desk.faults.extend(["taken", "lost", "lost", "taken"])
    account.sent()
    for _ in range(3):
        assert account.venue.flush(DAY) == 0
        assert account.venue.deferred
    assert account.venue.flush(DAY) == 1
    assert len(account.desk.sent) == 1
    assert [entry["finding"] for entry in account.log.of("deferred")] == [None, 1, 1, 1]


def test_all_that_may_be_there_is_looked_for_before_anything_goes_out(account: Account) -> None:
    limit = account.sent(type="limit", limit_price=50.0)
    first, second = account.order(), account.order()
    account.desk.faults.append("cut")
    account.venue.flush(DAY)  # nobody knows whether the first was sent, nor the second after it
    account.venue.cancel(limit)
    new = account.order()
    account.desk.faults.extend(["", "lost"])
    begun = len(account.desk.asked)
    assert account.venue.flush(DAY) == 0
    looks = [("find", account.venue.client_id(order)) for order in (first, second)]
    assert account.desk.asked[begun:] == looks
    assert (account.desk.withdrawn, [order for order, _, _ in account.desk.sent]) == ([], [limit])
    deferred = account.log.of("deferred")[-1]
    assert (deferred["order"], deferred["finding"]) == (first.id, second.id)
    assert account.venue.flush(DAY) == 3
    assert [order for order, _, _ in account.desk.sent] == [limit, first, second, new]
    assert account.desk.withdrawn == ["r1"]
    assert not account.venue.has_outgoing


def test_what_was_found_before_the_broker_fell_silent_is_not_sent_again(account: Account) -> None:
    first, second = account.order(), account.order()
    account.desk.faults.extend(["taken"])
    account.venue.flush(DAY)
    account.desk.faults.extend(["", "lost"])  # the first is found, and of the second nobody says a word
    assert account.venue.flush(DAY) == 1
    assert account.venue.doubtful_ids == {account.venue.client_id(second)}
    assert account.venue.flush(DAY) == 1
    assert [order for order, _, _ in account.desk.sent] == [first, second]
    assert [entry["order"] for entry in account.log.of("ack")] == [1, 2]


def test_only_an_entry_that_is_not_there_is_given_up_for_its_time_and_what_is_new_is_sent() -> None:
    late: set[int] = set()
    account = Account(is_late=lambda order: order.id in late)
    account.desk.faults.append("lost")
    first, second = account.order(), account.order()
    account.venue.flush(DAY)
    late.add(first.id)
    third = account.order()
    assert account.venue.flush(DAY) == 2
    assert account.log.of("turned_down") == [{"order": first.id, "reason": LATE}]
    assert [order for order, _, _ in account.desk.sent] == [second, third]


def test_an_entry_whose_bar_is_over_is_turned_down_unless_it_is_there() -> None:
    for fault, there in (("lost", False), ("taken", True)):
        account = Account(is_late=lambda order: True)
        account.desk.faults.append(fault)
        order = account.sent()
        assert account.venue.flush(DAY) == there
        assert account.desk.asked[1:] == [("find", account.venue.client_id(order))]
        assert len(account.desk.sent) == there
        assert order.alive == there
        assert account.step() == ([] if there else [(1, "rejected", 0.0)])
        assert account.log.of("turned_down") == ([] if there else [{"order": 1, "reason": LATE}])
        assert account.venue.waiting == (["r1"] if there else [])
        assert not account.venue.has_outgoing


def test_an_exit_is_sent_however_late_it_is() -> None:
    account = Account(is_late=lambda order: True)
    account.sent()
    account.desk.tell("r1", "fill", 10.0, 100.0)
    account.step()
    account.desk.faults.append("lost")
    leave = account.sent(SELL)
    assert account.venue.flush(DAY) == 1
    assert account.desk.asked[-2:] == [(what, account.venue.client_id(leave)) for what in ("find", "send")]
    account.desk.tell("r2", "fill", 10.0, 100.0)
    account.step()
    assert account.held == 0.0


def test_an_order_of_its_own_time_is_not_late_however_that_is_asked(account: Account) -> None:
    """Nobody asks for the time of an order that goes out for the first time."""
    account.venue.is_late = lambda order: True
    account.sent()
    assert account.desk.asked == [("send", "run-19700101T000000-A-1")]


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_a_doubtful_order_that_is_cancelled_is_looked_for_and_cancelled_where_it_is(
    account: Account, fault: str
) -> None:
    account.desk.faults.append(fault)
    order = account.sent()
    account.venue.cancel(order)
    assert account.venue.doubtful_ids == {account.venue.client_id(order)}
    for _ in range(3):
        account.venue.flush(DAY)
        account.step()
    assert account.desk.asked == [(what, account.venue.client_id(order)) for what in ("send", "find")]
    assert account.desk.withdrawn == (["r1"] if fault == "taken" else [])
    assert len(account.desk.sent) == (fault == "taken")
    assert (order.status, order.reason) == (OrderStatus.CANCELED, "canceled by the strategy")
    assert (account.venue.waiting, account.venue.has_outgoing, account.held) == ([], False, 0.0)


def test_a_doubtful_order_that_was_filled_before_it_was_cancelled_is_booked(account: Account) -> None:
    account.desk.faults.append("taken")
    order = account.sent()
    account.venue.cancel(order)
    account.venue.flush(DAY)
    account.desk.withdraw = lambda remote_id: account.desk.tell(remote_id, "fill", 10.0, 99.0)  # type: ignore[method-assign]
    account.venue.flush(DAY)
    account.step()
    assert (account.held, account.booked, order.status) == (10.0, [(10.0, 99.0)], OrderStatus.CANCELED)


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_a_doubtful_bracket_is_looked_for_as_one(account: Account, fault: str) -> None:
    account.desk.faults.append(fault)
    entry, stop, target = account.bracket()
    account.venue.flush(DAY)
    ((sent, legs, _),) = account.desk.sent
    assert (sent, legs) == (entry, [stop, target])
    assert account.venue.waiting == ["r1", "r2", "r3"]
    assert account.desk.caught_up == ([["r1", "r2", "r3"]] if fault == "taken" else [])


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_a_leg_that_is_cancelled_while_its_bracket_is_doubtful_is_not_left_at_the_broker(
    account: Account, fault: str
) -> None:
    account.desk.faults.append(fault)
    entry, stop, target = account.bracket()
    account.venue.cancel(stop)
    for _ in range(3):
        account.venue.flush(DAY)
        account.step()
    (_, legs, _) = account.desk.sent[0]
    assert stop not in legs or account.desk.withdrawn == ["r2"]
    assert (entry.alive, stop.alive, target.alive) == (True, False, True)
    assert "r2" not in account.venue.waiting


def test_a_bracket_that_is_cancelled_while_it_is_doubtful_leaves_nothing(account: Account) -> None:
    account.desk.faults.append("taken")
    entry, _, _ = account.bracket()
    account.venue.cancel(entry)
    account.venue.flush(DAY)
    account.venue.flush(DAY)
    assert account.desk.withdrawn == ["r1"]
    for leg in ("r2", "r3"):  # with it, at the broker
        account.desk.tell(leg, "canceled")
    account.step()
    assert (account.venue.waiting, account.venue.open_orders) == ([], {})


def test_a_close_that_a_fill_has_overtaken_while_it_was_doubtful_is_looked_for_and_not_sent(account: Account) -> None:
    account.sent()
    account.desk.tell("r1", "fill", 10.0, 100.0)
    account.step()
    for fault in ("lost", "taken"):
        account.desk.faults.append(fault)
        leave = account.sent(SELL)
        sent = len(account.desk.sent)
        account.venue.ledger.positions["A"].quantity = 0.0  # closed in some other way
        for _ in range(3):
            account.venue.flush(DAY)
            account.step()
        assert account.desk.asked[-1] == ("find", account.venue.client_id(leave))
        assert len(account.desk.sent) == sent
        assert account.desk.withdrawn == (["r3"] if fault == "taken" else [])
        assert leave.reason == "overtaken by a fill: 0 were left to close"
        assert not account.venue.has_outgoing
        account.venue.ledger.positions["A"].quantity = 10.0


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_a_cancel_that_nobody_answers_to_is_deferred_with_what_follows_it(account: Account, fault: str) -> None:
    limit = account.sent(type="limit", limit_price=50.0)
    account.venue.cancel(limit)
    other = account.order()
    account.desk.faults.append(fault)
    assert account.venue.flush(DAY) == 0
    silent = {
        "order": 1,
        "withdrawal": "r1",
        "finding": None,
        "cut_off": False,
        "ahead": False,
        "reason": "the broker says nothing",
    }
    assert account.log.of("deferred") == [silent]
    assert (account.venue.unsent, account.venue.has_outgoing, limit.alive) == (1, True, False)
    account.venue.flush(DAY)
    assert [order for order, _, _ in account.desk.sent] == [limit, other]
    account.step()
    assert account.venue.waiting == ["r2"]


def test_a_cancel_of_an_order_that_has_ended_meanwhile_is_not_asked_for_again(account: Account) -> None:
    limit = account.sent(type="limit", limit_price=50.0)
    account.venue.cancel(limit)
    account.desk.faults.append("taken")
    account.venue.flush(DAY)
    account.step()  # its end was told
    assert account.desk.withdrawn == ["r1"]
    account.venue.flush(DAY)
    assert (account.desk.withdrawn, account.venue.has_outgoing) == (["r1"], False)


def test_where_positions_are_to_be_closed_a_cancel_that_nobody_answers_to_holds_nothing_up(account: Account) -> None:
    limit = account.sent(type="limit", limit_price=50.0)
    account.venue.cancel(limit)
    account.order()
    account.desk.faults.append("lost")
    assert account.venue.flush(DAY, insist=True) == 1
    failed = {"order": 1, "withdrawal": "r1", "reason": "the broker says nothing"}
    assert account.log.of("withdrawal_failed") == [failed]
    assert account.venue.has_outgoing
    account.venue.flush(DAY, insist=True)
    assert account.desk.withdrawn == ["r1"]  # tried again: it holds what the close needs
    assert not account.venue.has_outgoing


# --- orders that the strategy has not given ------------------------------------------------------------------------


def closing(quantity: float = 10.0, remote_id: str = "k1") -> dict[str, Any]:
    return {"broker_id": remote_id, "symbol": "A", "side": SELL, "quantity": quantity, "decided": DAY}


def test_orders_that_closed_in_the_runs_name_are_booked_as_ours(account: Account) -> None:
    account.sent()
    account.desk.tell("r1", "fill", 10.0, 100.0)
    account.step()
    orders = account.venue.take_over([closing(6.0), closing(4.0, "k2")])
    assert [order.id for order in orders] == [-1, -2]
    assert account.venue.waiting == ["k1", "k2"]
    assert {remote: order.quantity for remote, order in account.venue.at_broker.items()} == {"k1": 6.0, "k2": 4.0}
    account.desk.tell("k1", "fill", 6.0, 99.0)
    account.desk.tell("k2", "fill", 4.0, 98.0)
    assert account.step() == [(-1, "filled", 6.0), (-2, "filled", 4.0)]
    assert (account.held, account.venue.waiting, account.venue.open_orders) == (0.0, [], {})
    assert [(fill["order"], fill["price"]) for fill in account.log.of("fill")] == [(1, 100.0), (-1, 99.0), (-2, 98.0)]


def test_what_an_order_in_the_runs_name_closes_cannot_be_closed_twice(account: Account) -> None:
    account.sent()
    account.desk.tell("r1", "fill", 10.0, 100.0)
    account.step()
    account.venue.take_over([closing()])
    order = Order(id=9, symbol="A", side=SELL, quantity=10.0)
    assert not account.venue.submit(order)
    assert "insufficient quantity" in order.reason


def test_what_somebody_else_has_traded_is_booked_at_its_price(account: Account) -> None:
    account.sent()
    account.desk.tell("r1", "fill", 10.0, 100.0)
    account.step()
    account.venue.take_over([closing()])
    trades = [{"symbol": "A", "side": SELL, "quantity": 4.0, "price": 90.0}]
    account.venue.adopt(trades, decided=DAY, time=DAY + 1)
    assert account.held == 6.0
    fill = account.log.of("fill")[-1]
    assert (fill["order"], fill["side"], fill["quantity"], fill["price"], fill["commission"]) == (-2, "sell", 4, 90, 0)
    assert (fill["decided"], fill["time"]) == (DAY, DAY + 1)


# --- fills ---------------------------------------------------------------------------------------------------------


def test_partial_fills_are_this_fill_not_the_sum(account: Account) -> None:
    order = account.sent()
    account.desk.tell("r1", "new")
    account.desk.tell("r1", "partial_fill", 3.0, 100.0)
    account.desk.tell("r1", "partial_fill", 4.0, 101.0)
    assert account.step() == [(order.id, "accepted", 3.0), (order.id, "accepted", 4.0)]
    account.desk.tell("r1", "fill", 3.0, 102.0)
    assert account.step() == [(order.id, "filled", 3.0)]
    assert account.booked == [(3.0, 100.0), (4.0, 101.0), (3.0, 102.0)]
    assert account.venue.ledger.cash == 100_000.0 - 300.0 - 404.0 - 306.0
    assert [entry["order"] for entry in account.log.of("fill")] == [1, 1, 1]


def test_a_repeated_fill_is_booked_once(account: Account) -> None:
    account.sent()
    account.desk.tell("r1", "partial_fill", 4.0, 100.0, execution="x")
    account.desk.updates *= 3
    account.step()
    account.desk.tell("r1", "fill", 6.0, 100.0)
    last = list(account.desk.updates)
    account.step()
    account.desk.updates = last
    assert account.step() == []
    assert account.booked == [(4.0, 100.0), (6.0, 100.0)]


def test_missed_fills_are_booked_with_the_next_one_at_what_they_cost(account: Account) -> None:
    account.sent()
    account.desk.tell("r1", "partial_fill", 2.0, 100.0)
    account.step()
    account.desk.tell("r1", "partial_fill", 4.0, 101.0)
    account.desk.updates.clear()  # lost on the way
    account.desk.tell("r1", "fill", 4.0, 103.0)
    account.step()
    assert account.held == 10.0
    assert account.venue.ledger.cash == pytest.approx(100_000.0 - 200.0 - 404.0 - 412.0)


@pytest.mark.parametrize("event", ["canceled", "expired", "rejected", "replaced"])
def test_fills_that_were_missed_before_the_end_of_an_order_are_booked_with_its_end(
    account: Account, event: str
) -> None:
    order = account.sent()
    account.desk.tell("r1", "partial_fill", 4.0, 101.0)
    account.desk.updates.clear()
    account.desk.tell("r1", event)
    assert account.step() == [(1, "canceled", 4.0), (1, "canceled", 0.0)]
    assert (account.booked, order.filled_quantity) == ([(4.0, 101.0)], 4.0)


def test_an_answer_that_was_asked_for_and_the_update_that_comes_later_are_one_fill(account: Account) -> None:
    order = account.sent()
    asked = {"event": "fill", "qty": "10", "price": "100.5", "timestamp": None,
             "order": {"id": "r1", "filled_qty": "10", "filled_avg_price": "100.5"}}  # fmt: skip
    account.desk.updates.append(asked)
    assert account.step() == [(order.id, "filled", 10.0)]
    account.desk.tell("r1", "partial_fill", 5.0, 100.0)
    account.desk.tell("r1", "fill", 5.0, 101.0)
    assert account.step() == []
    assert account.booked == [(10.0, 100.5)]


def test_floats_that_do_not_add_up_leave_nothing_open() -> None:
    account = Account(fractional=True)
    order = account.sent(quantity=0.3, time_in_force="day")
    for event in ("partial_fill", "partial_fill", "fill"):
        account.desk.tell("r1", event, 0.1, 100.0)
    account.step()
    assert (order.status, account.held, len(account.booked)) == (OrderStatus.FILLED, 0.3, 3)


def test_a_fill_for_an_order_that_was_just_cancelled_is_booked(account: Account) -> None:
    order = account.sent(type="limit", limit_price=99.0)
    account.venue.cancel(order)
    account.desk.withdraw = lambda remote_id: account.desk.tell(remote_id, "fill", 10.0, 99.0)  # type: ignore[method-assign]
    account.venue.flush(DAY)
    assert account.step() == [(order.id, "canceled", 10.0)]
    assert account.held == 10.0
    assert account.log.of("withdrawal") == [{"order": 1, "broker_id": "r1"}]


def test_legs_of_an_entry_that_was_filled_although_cancelled_are_withdrawn(account: Account) -> None:
    entry, _, _ = account.bracket()
    account.venue.cancel(entry)
    account.desk.withdraw = lambda remote_id: account.desk.tell(remote_id, "fill", 10.0, 100.0)  # type: ignore[method-assign]
    account.venue.flush(DAY)
    del account.desk.withdraw
    account.step()
    account.venue.flush(DAY)
    assert account.desk.withdrawn == ["r2", "r3"]
    account.step()
    assert account.venue.waiting == []


def test_a_filled_entry_wakes_its_legs_and_the_first_leg_ends_the_other(account: Account) -> None:
    entry, stop, target = account.bracket()
    account.desk.tell("r1", "fill", 10.0, 100.0)
    assert account.step() == [(1, "filled", 10.0), (2, "accepted", 0.0), (3, "accepted", 0.0)]
    account.desk.tell("r3", "fill", 10.0, 110.0)
    account.desk.tell("r2", "canceled")
    assert account.step() == [(3, "filled", 10.0), (2, "canceled", 0.0)]
    assert (account.held, entry.alive, stop.alive, target.alive) == (0.0, False, False, False)


def test_an_order_that_the_broker_ends_is_told_of(account: Account) -> None:
    account.sent(time_in_force="day")
    account.sent()
    account.desk.tell("r1", "expired")
    account.desk.tell("r2", "rejected")
    assert account.step() == [(1, "expired", 0.0), (2, "rejected", 0.0)]


def test_a_day_that_is_done_does_not_end_an_order_that_waits_longer(account: Account) -> None:
    order = account.sent()
    account.desk.tell("r1", "done_for_day")
    assert account.step() == []
    account.desk.tell("r1", "fill", 10.0, 100.0)
    assert account.step() == [(order.id, "filled", 10.0)]


def test_somebody_elses_orders_are_seen_and_left_alone(account: Account) -> None:
    account.desk.updates.append({"event": "fill", "qty": "5", "price": "10", **NONE})
    assert account.step() == []
    assert (account.booked, account.held) == ([], 0.0)
    assert account.log.of("update")[0]["order"] is None


def test_a_fill_without_a_price_is_not_guessed(account: Account) -> None:
    account.sent()
    order: Mapping[str, Any] = {"id": "r1", "filled_qty": "10", "filled_avg_price": None}
    account.desk.updates.append({"event": "fill", "qty": "10", "price": None, "order": order})
    with pytest.raises(Exception, match="does not say at what price"):
        account.step()


def test_what_has_ended_is_let_go_of(account: Account) -> None:
    for number in range(1, 501):
        side = BUY if number % 2 else SELL
        account.sent(side)
        account.desk.tell(f"r{number}", "fill", 10.0, 100.0)
        account.step()
    venue = account.venue
    assert venue.waiting == []
    assert max(map(len, (venue._remote, venue._ids, venue._sent, venue._paid, venue.open_orders))) == 0
    assert len(account.booked) == 500
    assert venue.commission_paid == 0.0


def test_what_was_missed_of_an_order_that_was_changed_costs_what_its_own_average_says() -> None:
    account = Account()
    account.sent()
    account.desk.tell("r1", "partial_fill", 4.0, 100.0)
    account.desk.tell("r1", "replaced")
    account.desk.updates[-1]["order"]["replaced_by"] = "n1"
    account.desk.tell("n1", "partial_fill", 3.0, 102.0)
    account.desk.updates.pop()  # lost
    account.desk.tell("n1", "fill", 3.0, 100.0)
    account.step()
    assert account.booked == [(4.0, 100.0), (6.0, 101.0)]


def test_what_may_not_be_closed_is_refused_and_legs_are_not_asked_for() -> None:
    account = Account(may_close=lambda order: "the broker holds 0 A")
    account.bracket()
    account.desk.tell("r1", "fill", 10.0, 100.0)
    account.step()
    refused = Order(id=9, symbol="A", side=SELL, quantity=10.0)
    assert not account.venue.submit(refused)
    assert (refused.status, refused.reason) == (OrderStatus.REFUSED, "the broker holds 0 A")
