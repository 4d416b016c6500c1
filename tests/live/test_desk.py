"""The desk: whatever happens to a request, an order is at the broker once, and the run knows its id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from alpaca.trading.client import TradingClient

from engine.errors import BrokerError
from engine.live.desk import AlpacaDesk, Receipt, TurnedDown
from engine.live.rest import Line, NoAnswer
from engine.trading.orders import BUY, SELL, Order
from tests.live.rig import KEY, SECRET, FakeBroker, HastyInbox, update


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as made:
        yield made


@pytest.fixture
def inbox() -> HastyInbox:
    return HastyInbox()


@pytest.fixture
def desk(fake: FakeBroker, inbox: HastyInbox) -> Iterator[AlpacaDesk]:
    line = Line(lambda: inbox.stopped, seconds=0.5)
    client = line.carry(TradingClient(KEY, SECRET, paper=True, raw_data=True, url_override=fake.url))
    yield AlpacaDesk(client, inbox)
    fake.released.set()
    line.close()
    client._session.close()


def order(**fields: Any) -> Order:
    return Order(**{"id": 1, "symbol": "A", "side": BUY, "quantity": 10.0, **fields})


def legs_of(entry: Order) -> list[Order]:
    target = Order(id=2, symbol="A", side=SELL, quantity=entry.quantity, type="limit", limit_price=110.0, parent=entry)
    stop = Order(id=3, symbol="A", side=SELL, quantity=entry.quantity, type="stop", stop_price=90.0, parent=entry)
    return [stop, target]


FAULTS = ["504", "504 after", "500", "500 after", "503", "reset", "reset after", "mute", "mute after", "garbage after"]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_order_whose_answer_is_lost_is_at_the_broker_once(fake: FakeBroker, desk: AlpacaDesk, fault: str) -> None:
    fake.faults.append(("POST", "/v2/orders", fault))
    receipt = desk.send(order(), [], "run-A-1")
    assert [o["client_order_id"] for o in fake.orders.values()] == ["run-A-1"]
    assert receipt == Receipt(next(iter(fake.orders)), ())
    posts = fake.requests("POST")
    assert len(posts) == (1 if fault.endswith("after") else 2)  # found by its client order id, not sent again


@pytest.mark.parametrize("lookup", ["504", "reset", "mute", "garbage"])
def test_where_the_search_fails_too_it_is_searched_for_again_and_not_sent_again(
    fake: FakeBroker, desk: AlpacaDesk, lookup: str
) -> None:
    fake.faults += [("POST", "/v2/orders", "504 after"), ("GET", "/v2/orders:by", lookup)]
    receipt = desk.send(order(), [], "run-A-1")
    assert list(fake.orders) == [receipt.id]
    assert len(fake.requests("POST")) == 1


def test_an_order_that_turns_out_to_be_a_duplicate_is_the_one_that_is_there(fake: FakeBroker, desk: AlpacaDesk) -> None:
    there = fake.take({"client_order_id": "run-A-1"})
    assert there is not None
    assert desk.send(order(), [], "run-A-1").id == there["id"]
    assert list(fake.orders) == [there["id"]]


def test_an_order_that_nobody_answers_to_may_be_asked_for_later_and_is_named(
    fake: FakeBroker, desk: AlpacaDesk
) -> None:
    fake.faults += [("POST", "/v2/orders", "500")] * 10 + [("GET", "/v2/orders:by", "500")] * 10
    with pytest.raises(NoAnswer, match="does not say whether it has taken order run-A-1"):
        desk.send(order(), [], "run-A-1")
    fake.faults.clear()
    assert desk.find(order(), [], "run-A-1") is None
    receipt = desk.send(order(), [], "run-A-1")
    assert list(fake.orders) == [receipt.id]


# --- orders that may be there already ------------------------------------------------------------------------------


def test_a_doubtful_order_is_looked_up_by_its_client_id_and_nothing_is_sent(fake: FakeBroker, desk: AlpacaDesk) -> None:
    there = fake.take({"client_order_id": "run-A-1"})
    assert there is not None
    assert desk.find(order(), [], "run-A-1") == Receipt(there["id"], ())
    ((_, path, query, _),) = fake.seen
    assert (path, query["client_order_id"]) == ("/v2/orders:by_client_order_id", ["run-A-1"])


@pytest.mark.parametrize("with_legs", [True, False])
def test_a_doubtful_bracket_is_found_with_its_legs(fake: FakeBroker, desk: AlpacaDesk, with_legs: bool) -> None:
    fake.by_client_id_with_legs = with_legs
    entry = order()
    receipt = desk.send(entry, legs_of(entry), "run-A-1")
    assert desk.find(entry, legs_of(entry), "run-A-1") == receipt
    assert len(receipt.legs) == 2
    assert len(fake.requests("POST")) == 1


def test_a_doubtful_bracket_that_is_there_without_its_legs_is_an_error(fake: FakeBroker, desk: AlpacaDesk) -> None:
    assert fake.take({"client_order_id": "run-A-1"}) is not None
    entry = order()
    with pytest.raises(BrokerError, match="without its stop leg"):
        desk.find(entry, legs_of(entry), "run-A-1")


def test_a_doubtful_order_that_is_not_there_is_not_sent_by_looking_for_it(fake: FakeBroker, desk: AlpacaDesk) -> None:
    assert desk.find(order(), [], "run-A-1") is None
    assert fake.requests("POST") == []
    receipt = desk.send(order(), [], "run-A-1")
    assert list(fake.orders) == [receipt.id]
    assert [method for method, _, _, _ in fake.seen] == ["GET", "POST"]


@pytest.mark.parametrize("fault", ["500", "504", "403", "422", "reset", "mute", "garbage"])
def test_a_doubtful_order_that_cannot_be_looked_up_is_neither_there_nor_not(
    fake: FakeBroker, desk: AlpacaDesk, fault: str
) -> None:
    fake.mute_seconds = 0.6
    fake.faults += [("GET", "/v2/orders:by", fault)]
    with pytest.raises(NoAnswer):
        desk.find(order(), [], "run-A-1")
    assert fake.requests("POST") == []
    assert len(fake.seen) == 1  # it is asked again at the next occasion


def test_a_search_that_comes_on_top_of_too_many_requests_is_made_again(fake: FakeBroker, desk: AlpacaDesk) -> None:
    there = fake.take({"client_order_id": "run-A-1"})
    assert there is not None
    fake.faults.append(("GET", "/v2/orders:by", "429"))
    assert desk.find(order(), [], "run-A-1") == Receipt(there["id"], ())


def test_a_search_ends_with_the_run(fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox) -> None:
    fake.faults += [("GET", "/v2/orders:by", "500")] * 3
    inbox.stop()
    with pytest.raises(NoAnswer):
        desk.find(order(), [], "run-A-1")
    assert len(fake.seen) <= 1


def test_keys_that_are_refused_end_the_run_at_a_search_too(fake: FakeBroker, desk: AlpacaDesk) -> None:
    fake.faults.append(("GET", "/v2/orders:by", "401"))
    with pytest.raises(BrokerError, match="refuses the keys"):
        desk.find(order(), [], "run-A-1")


@pytest.mark.parametrize("fault", ["504", "504 after", "reset", "reset after", "mute after"])
def test_a_doubtful_order_whose_second_sending_is_not_answered_is_there_once(
    fake: FakeBroker, desk: AlpacaDesk, fault: str
) -> None:
    assert desk.find(order(), [], "run-A-1") is None
    fake.faults.append(("POST", "/v2/orders", fault))
    receipt = desk.send(order(), [], "run-A-1")
    assert list(fake.orders) == [receipt.id]


def test_an_order_that_did_not_arrive_the_first_time_is_known_not_to_be_there(
    fake: FakeBroker, desk: AlpacaDesk
) -> None:
    fake.faults += [("POST", "/v2/orders", "reset")] + [("GET", "/v2/orders:by", "500")] * 2
    with pytest.raises(NoAnswer):
        desk.send(order(), [], "run-A-1")
    assert desk.find(order(), [], "run-A-1") is None
    assert fake.orders == {}


def test_while_it_is_held_nothing_goes_out_and_questions_do(fake: FakeBroker, desk: AlpacaDesk) -> None:
    remote_id = sent(fake, desk)
    before = len(fake.seen)
    desk.held = "the account has not been compared"
    with pytest.raises(NoAnswer, match="has not been compared"):
        desk.send(order(), [], "run-A-2")
    with pytest.raises(NoAnswer, match="has not been compared"):
        desk.withdraw(remote_id)
    assert len(fake.seen) == before
    assert desk.find(order(), [], "run-A-2") is None
    assert fake.requests("POST") == ["/v2/orders"]
    fake.orders[remote_id].update(status="filled", filled_qty="10", filled_avg_price="49")
    assert desk.catch_up([remote_id]) == 1
    desk.held = ""
    desk.send(order(), [], "run-A-2")
    assert len(fake.orders) == 2


def test_too_many_requests_are_waited_for_and_the_order_goes_out_once(
    fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox
) -> None:
    fake.faults += [("POST", "/v2/orders", "429")] * 4
    receipt = desk.send(order(), [], "run-A-1")
    assert list(fake.orders) == [receipt.id]
    assert inbox.waits == sorted(inbox.waits)
    assert sum(inbox.waits) >= 10.0
    assert fake.requests("GET") == []  # it is known that nothing was done


@pytest.mark.parametrize("status", ["403", "422"])
def test_what_the_broker_turns_down_is_not_tried_again(fake: FakeBroker, desk: AlpacaDesk, status: str) -> None:
    fake.faults.append(("POST", "/v2/orders", status))
    with pytest.raises(TurnedDown, match=f"fault {status}"):
        desk.send(order(), [], "run-A-1")
    assert len(fake.seen) == 1


def test_keys_that_are_refused_end_the_run(fake: FakeBroker, desk: AlpacaDesk) -> None:
    fake.faults.append(("POST", "/v2/orders", "401"))
    with pytest.raises(BrokerError, match="refuses the keys") as caught:
        desk.send(order(), [], "run-A-1")
    assert SECRET not in str(caught.value)


def test_a_stop_while_nobody_answers_says_that_the_order_may_have_been_taken(
    fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox
) -> None:
    fake.faults += [("POST", "/v2/orders", "mute after")]
    inbox.stop()
    with pytest.raises(NoAnswer, match="does not say whether it has taken order run-A-1"):
        desk.send(order(), [], "run-A-1")
    assert len(fake.seen) == 1


def test_a_bracket_is_one_order_and_its_legs_are_known_by_their_kind(fake: FakeBroker, desk: AlpacaDesk) -> None:
    entry = order()
    receipt = desk.send(entry, legs_of(entry), "run-A-1")
    (made,) = fake.orders.values()
    assert made["order_class"] == "bracket"
    by_type = {leg["type"]: leg["id"] for leg in made["legs"]}
    assert receipt == Receipt(made["id"], (by_type["stop"], by_type["limit"]))


def test_one_leg_alone_is_an_oto(fake: FakeBroker, desk: AlpacaDesk) -> None:
    entry = order()
    desk.send(entry, legs_of(entry)[:1], "run-A-1")
    (made,) = fake.orders.values()
    assert (made["order_class"], made["stop_loss"], "take_profit" in made) == ("oto", {"stop_price": 90.0}, False)


def test_a_bracket_that_is_found_without_its_legs_is_asked_for_with_them(fake: FakeBroker, desk: AlpacaDesk) -> None:
    fake.by_client_id_with_legs = False
    fake.faults.append(("POST", "/v2/orders", "504 after"))
    entry = order()
    receipt = desk.send(entry, legs_of(entry), "run-A-1")
    assert len(receipt.legs) == 2
    assert [query for _, path, query, _ in fake.seen if path.endswith(receipt.id)] == [{"nested": ["True"]}]


# --- withdrawals ---------------------------------------------------------------------------------------------------


def sent(fake: FakeBroker, desk: AlpacaDesk) -> str:
    return desk.send(order(type="limit", limit_price=50.0), [], "run-A-1").id


@pytest.mark.parametrize("fault", ["", "504", "504 after", "reset after", "mute", "429"])
def test_a_withdrawal_waits_for_the_orders_last_update(
    fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox, fault: str
) -> None:
    remote_id = sent(fake, desk)
    fake.on_cancel = lambda remote_id: inbox.put_update(update(fake.orders[remote_id], "canceled"))
    if fault:
        fake.faults.append(("DELETE", "/v2/orders", fault))
    desk.withdraw(remote_id)
    assert "canceled" in [message.fields["event"] for message in inbox.take_updates()]


def test_a_withdrawal_whose_update_does_not_come_is_asked_for(
    fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox
) -> None:
    remote_id = sent(fake, desk)
    fake.on_cancel = lambda remote_id: fake.orders[remote_id].update(status="canceled")
    desk.withdraw(remote_id)
    assert [message.fields["event"] for message in inbox.take_updates()] == ["canceled"]
    assert fake.requests("DELETE") == [f"/v2/orders/{remote_id}"]


def test_an_order_that_ended_by_itself_is_no_fault(fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox) -> None:
    remote_id = sent(fake, desk)
    inbox.put_update(update(fake.orders[remote_id], "fill"))
    fake.faults.append(("DELETE", "/v2/orders", "422"))
    desk.withdraw(remote_id)
    assert [message.fields["event"] for message in inbox.take_updates()] == ["fill"]


def test_a_cancel_that_is_never_confirmed_is_asked_for_later(
    fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox
) -> None:
    remote_id = sent(fake, desk)
    with pytest.raises(NoAnswer, match=rf"does not say how order {remote_id} ended"):
        desk.withdraw(remote_id)
    fake.orders[remote_id].update(status="canceled")
    desk.withdraw(remote_id)
    assert [message.fields["event"] for message in inbox.take_updates()] == ["canceled"]


@pytest.mark.parametrize("fault", ["500", "mute", "reset"])
def test_a_cancel_that_nobody_answers_to_is_asked_for_later(fake: FakeBroker, desk: AlpacaDesk, fault: str) -> None:
    fake.mute_seconds = 0.6
    remote_id = sent(fake, desk)
    fake.faults += [("DELETE", "/v2/orders", fault), ("GET", "/v2/orders/", fault)] * 4
    with pytest.raises(NoAnswer, match=remote_id):
        desk.withdraw(remote_id)


def test_keys_that_are_refused_end_the_run_at_a_cancel_too(fake: FakeBroker, desk: AlpacaDesk) -> None:
    remote_id = sent(fake, desk)
    fake.faults.append(("DELETE", "/v2/orders", "401"))
    with pytest.raises(BrokerError, match="refuses the keys") as caught:
        desk.withdraw(remote_id)
    assert not isinstance(caught.value, NoAnswer)


# --- catching up ---------------------------------------------------------------------------------------------------


def test_orders_that_moved_on_unheard_are_told_of_once(fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox) -> None:
    remote_id = sent(fake, desk)
    assert desk.catch_up([remote_id]) == 0
    fake.orders[remote_id].update(status="partially_filled", filled_qty="4", filled_avg_price="50")
    assert desk.catch_up([remote_id]) == 1
    assert desk.catch_up([remote_id]) == 0  # said already
    fake.orders[remote_id].update(status="filled", filled_qty="10", filled_avg_price="49")
    assert desk.catch_up([remote_id]) == 1
    told = [(m.fields["event"], m.fields["qty"], m.fields["price"]) for m in inbox.take_updates()]
    assert told == [("partial_fill", "4", "50"), ("fill", "10", "49")]


@pytest.mark.parametrize("fault", ["429", "500", "mute", "reset"])
def test_a_broker_that_does_not_answer_is_asked_one_question_not_all(
    fake: FakeBroker, desk: AlpacaDesk, fault: str
) -> None:
    remote_id = sent(fake, desk)
    before = len(fake.seen)
    fake.faults.append(("GET", "/v2/orders/", fault))
    with pytest.raises(NoAnswer):
        desk.catch_up([remote_id] * 20)
    assert len(fake.seen) == before + 1


def test_what_was_said_before_the_broker_fell_silent_is_kept_and_told_once(
    fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox
) -> None:
    remote_id = sent(fake, desk)
    fake.orders[remote_id].update(status="filled", filled_qty="10", filled_avg_price="49")
    other = desk.send(order(id=2), [], "run-A-2").id
    fake.faults.append(("GET", f"/v2/orders/{other}", "500"))
    with pytest.raises(NoAnswer):
        desk.catch_up([remote_id, other])
    assert [message.fields["event"] for message in desk.take_updates()] == ["fill"]
    assert desk.catch_up([remote_id, other]) == 0


def test_orders_that_moved_on_unheard_are_told_of_by_the_times_at_which_they_did(
    fake: FakeBroker, desk: AlpacaDesk
) -> None:
    ids = [desk.send(order(id=number), [], f"run-A-{number}").id for number in (1, 2, 3)]
    stamps = ["2024-01-02T15:00:00.123456789Z", "2024-01-02T15:00:00.123456788Z", "2024-01-02T10:00:00-04:00"]
    for remote_id, stamp in zip(ids, stamps, strict=True):
        fake.orders[remote_id].update(status="filled", filled_qty="10", filled_avg_price="49", updated_at=stamp)
    assert desk.catch_up(ids) == 3
    assert [message.fields["order"]["id"] for message in desk.take_updates()] == [ids[2], ids[1], ids[0]]


@pytest.mark.parametrize("spoilt", [{"filled_qty": "many"}, {"filled_qty": "nan", "status": "filled"}, {"status": 5}])
def test_an_order_that_cannot_be_read_is_not_booked(
    fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox, spoilt: dict[str, Any]
) -> None:
    remote_id = sent(fake, desk)
    fake.orders[remote_id].update(spoilt)
    with contextlib.suppress(NoAnswer):
        assert desk.catch_up([remote_id]) == 0
    assert not inbox.has_updates


def test_a_day_that_is_done_is_no_end_for_an_order_that_waits_longer(
    fake: FakeBroker, desk: AlpacaDesk, inbox: HastyInbox
) -> None:
    remote_id = sent(fake, desk)
    fake.orders[remote_id]["status"] = "done_for_day"
    assert desk.catch_up([remote_id]) == 0
    assert not inbox.has_updates


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "limit", "limit_price": 99.5}, {"type": "limit", "limit_price": 99.5}),
        ({"type": "stop", "stop_price": 101.0}, {"type": "stop", "stop_price": 101.0}),
        (
            {"type": "stop_limit", "stop_price": 101.0, "limit_price": 102.0},
            {"type": "stop_limit", "stop_price": 101.0, "limit_price": 102.0},
        ),
        ({"quantity": 0.123456789, "time_in_force": "day"}, {"qty": 0.123456789, "time_in_force": "day"}),
        ({"side": SELL}, {"side": "sell", "time_in_force": "gtc", "type": "market"}),
    ],
)
def test_an_order_goes_out_as_it_was_decided(
    fake: FakeBroker, desk: AlpacaDesk, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    desk.send(order(**fields), [], "run-A-1")
    body = fake.seen[-1][3]
    assert {name: body[name] for name in expected} == expected
    assert body["client_order_id"] == "run-A-1"


def test_a_refusal_with_the_code_of_a_duplicate_that_is_none_is_a_refusal(
    fake: FakeBroker, desk: AlpacaDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond = fake._respond

    def refusing(method: str, *args: Any) -> tuple[int, Any]:
        if method == "POST":
            return 422, {"code": 40010001, "message": "invalid limit price"}
        return respond(method, *args)

    monkeypatch.setattr(fake, "_respond", refusing)
    with pytest.raises(TurnedDown, match="invalid limit price"):
        desk.send(order(), [], "run-A-1")
    there = fake.take({"client_order_id": "run-A-1"})
    assert there is not None
    assert desk.send(order(), [], "run-A-1").id == there["id"]  # it is there, whatever the words
