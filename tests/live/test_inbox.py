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


def test_revisions_and_answers_that_were_asked_for_do_not_count_as_pushed() -> None:
    inbox = Inbox()
    inbox.put_bar({})
    inbox.put_bar({}, revised=True)
    inbox.put_update({})
    inbox.put_update({}, pushed=False)
    assert (inbox.bars_received, inbox.updates_received) == (1, 1)
    assert [message.revised for message in inbox.take_bars()] == [False, True]


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
