"""Our picture of the account: what the broker tells is booked once and in full, whatever was missed or repeated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from engine.errors import StorageError
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
