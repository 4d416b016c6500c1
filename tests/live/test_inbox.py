"""The inbox: order, counts, and waits that end when they should."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from engine.errors import BrokerError
from engine.live.inbox import Inbox


def test_messages_come_out_in_the_order_in_which_they_came_in_and_once() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.put_bar({"n": number})
        inbox.put_update({"n": number})
    assert [message.fields["n"] for message in inbox.take_bars()] == [0, 1, 2]
    assert [message.fields["n"] for message in inbox.take_updates()] == [0, 1, 2]
    assert inbox.take_bars() == inbox.take_updates() == []


def test_bars_that_wait_are_counted_and_of_a_moment_by_symbol() -> None:
    inbox = Inbox()
    for symbol, start, revised in (("A", 1, False), ("B", 1, False), ("A", 1, False), ("B", 2, False), ("C", 1, True)):
        inbox.put_bar({"S": symbol, "t": start}, revised=revised)
    assert inbox.bars_waiting == 5
    assert inbox.count_bars(lambda fields: fields["t"], 1) == 2  # a repeated bar is no other, and a revision is none
    assert inbox.count_bars(lambda fields: fields["t"], 3) == 0
    assert [message.revised for message in inbox.take_bars()] == [False, False, False, False, True]
    assert (inbox.bars_waiting, inbox.has_bars) == (0, False)


def test_executions_are_known_until_they_are_forgotten_also_where_they_were_taken() -> None:
    inbox = Inbox()
    for execution in ("x", "y", "x"):
        inbox.put_update({"execution_id": execution})
    inbox.take_updates()
    assert inbox.executions == {"x", "y"}
    inbox.forget_executions()
    assert inbox.executions == set()


def test_executions_that_nobody_asks_for_take_no_more_and_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.live.inbox._MOST_EXECUTIONS", 10)
    inbox = Inbox()
    for number in range(25):
        inbox.put_update({"execution_id": str(number)})
    assert len(inbox.executions) <= 10
    assert "24" in inbox.executions


def test_whoever_waits_is_woken_by_what_comes() -> None:
    inbox = Inbox()
    waits = threading.Event()

    def ready() -> bool:
        waits.set()
        return inbox.has_bars

    def put() -> None:
        waits.wait(5.0)
        inbox.put_bar({})

    other = threading.Thread(target=put)
    other.start()
    begun = time.monotonic()
    assert inbox.wait(ready, 5.0)
    assert time.monotonic() - begun < 1.0
    other.join()


def test_a_stop_lets_go_of_who_waits_unless_what_he_waits_for_is_on_its_way() -> None:
    inbox = Inbox()
    inbox.stop()
    assert inbox.stopped
    assert not inbox.wait(lambda: False, 5.0)
    asked = iter([False, True])
    assert inbox.wait(lambda: next(asked), 5.0, through_stop=True)


def test_a_signal_that_interrupts_the_wait_itself_ends_it_at_once() -> None:
    inbox = Inbox()
    before = signal.signal(signal.SIGALRM, lambda number, frame: inbox.stop())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        begun = time.monotonic()
        assert not inbox.wait(lambda: False, 30.0)
        assert time.monotonic() - begun < 1.0
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_failure_reaches_who_waits_and_the_first_one_counts() -> None:
    inbox = Inbox()
    inbox.fail(BrokerError("the first"))
    inbox.fail(BrokerError("the second"))
    with pytest.raises(BrokerError, match="the first"):
        inbox.wait(lambda: True, 1.0)


def test_only_a_connection_that_was_lost_is_made_anew() -> None:
    inbox = Inbox()
    inbox.put_event("bars", "lost", "refused")  # before the first: no loss
    inbox.put_event("bars", "connected")
    assert (inbox.connected, inbox.reconnects) == (frozenset({"bars"}), 0)
    inbox.put_event("bars", "error", "slow client")
    assert inbox.connected == frozenset({"bars"})
    inbox.put_event("bars", "lost")
    assert inbox.connected == frozenset()
    inbox.put_event("bars", "connected")
    assert inbox.reconnects == 1
    assert [event.state for event in inbox.take_events()] == ["lost", "connected", "error", "lost", "connected"]
