"""Where everything that comes from the network waits for the one thread that acts on it.

The SDK's threads only put things in. What is in here is taken out, and acted on, by the thread that runs the strategy.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engine.errors import NextbarError

_MOST_EXECUTIONS = 100_000


class BarMessage(NamedTuple):
    """A bar as it came: Alpaca's own fields, and when (monotonic ns). ``revised``: it replaces one sent before."""

    fields: Mapping[str, Any]
    received: int
    revised: bool = False


class UpdateMessage(NamedTuple):
    """A trade update as it came: Alpaca's own fields, and when (monotonic ns)."""

    fields: Mapping[str, Any]
    received: int


class ConnectionEvent(NamedTuple):
    """``stream`` (``bars`` or ``trades``) was ``connected`` or ``lost``, or had an ``error``; ``detail`` says why."""

    stream: str
    state: str
    detail: str
    received: int


class Inbox:
    """Messages by kind, in the order in which they came, and how many there have been of each.

    Attributes:
        executions: ids of the trade updates that have come, until ``forget_executions``.
        last_bar: when the last bar came, monotonic ns.
        connected: streams that are connected now. reconnects: how often one was made anew.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._bars: deque[BarMessage] = deque()
        self._updates: deque[UpdateMessage] = deque()
        self._events: deque[ConnectionEvent] = deque()
        self.executions: set[str] = set()
        self.last_bar = time.monotonic_ns()
        self.connected: frozenset[str] = frozenset()
        self.reconnects = 0
        self._lost: set[str] = set()
        self._failure: NextbarError | None = None
        self._stopped = False
        self.finished = False

    # --- from the SDK's threads ------------------------------------------------------------------------------------

    def put_bar(self, fields: Mapping[str, Any], *, revised: bool = False) -> None:
        """A bar of the market data stream."""
        message = BarMessage(fields, time.monotonic_ns(), revised)
        with self._changed:
            self._bars.append(message)
            self.last_bar = message.received
            self._changed.notify_all()

    def put_update(self, fields: Mapping[str, Any]) -> None:
        """A trade update: of the trading stream, or made of what the broker said when it was asked."""
        with self._changed:
            self._updates.append(UpdateMessage(fields, time.monotonic_ns()))
            if len(self.executions) >= _MOST_EXECUTIONS:
                self.executions.clear()  # nobody asks for them
            self.executions.add(str(fields.get("execution_id")))
            self._changed.notify_all()

    def put_event(self, stream: str, state: str, detail: str = "") -> None:
        """What happened to a connection."""
        with self._changed:
            self._events.append(ConnectionEvent(stream, state, detail, time.monotonic_ns()))
            if state == "connected":
                self.connected |= {stream}
                self.reconnects += stream in self._lost
                self._lost.discard(stream)
            elif state == "lost":
                self._lost |= self.connected & {stream}
                self.connected -= {stream}
            self._changed.notify_all()

    def fail(self, error: NextbarError) -> None:
        """Whoever waits gets this error; the first one counts."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def stop(self) -> None:
        """Whoever waits is let go: the run is to end. Safe to be called from a signal handler's thread."""
        self._stopped = True
        # A signal handler runs in the thread that may hold the lock: it only sets the flag, and waits are short.
        if self._changed.acquire(blocking=False):
            try:
                self._changed.notify_all()
            finally:
                self._changed.release()

    def finish(self) -> None:
        """Whoever waits is let go: there is nothing more to come."""
        self.finished = True
        self.stop()

    # --- for the thread that acts ----------------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether the run is to end."""
        return self._stopped

    def wait(self, ready: Callable[[], bool], timeout: float, *, through_stop: bool = False) -> bool:
        """Wait until ``ready`` (asked with the lock held), the time-out in seconds, or a stop; whether it is ready.

        Args:
            through_stop: a stop is no reason to leave: what is waited for is on its way.

        Raises:
            NextbarError: a connection failed for good.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._failure is not None:
                    raise self._failure
                if ready():
                    return True
                left = deadline - time.monotonic()
                if left <= 0.0 or (self._stopped and not through_stop):
                    return False
                # In slices, so that a signal that could not wake the condition is noticed soon.
                self._changed.wait(min(left, 0.5))

    @property
    def has_bars(self) -> bool:
        """Whether a bar waits."""
        return bool(self._bars)

    @property
    def has_updates(self) -> bool:
        """Whether a trade update waits."""
        return bool(self._updates)

    @property
    def has_events(self) -> bool:
        """Whether something happened to a connection."""
        return bool(self._events)

    def count_bars(self, start: Callable[[Mapping[str, Any]], int], moment: int) -> int:
        """How many symbols have a waiting bar that starts at a moment, UTC ns; to be used inside ``wait``."""
        return len({m.fields["S"] for m in self._bars if not m.revised and start(m.fields) == moment})

    @property
    def bars_waiting(self) -> int:
        """How many bars wait, revisions included."""
        return len(self._bars)

    def forget_executions(self) -> None:
        """Let go of the ids of the trade updates so far."""
        with self._changed:
            self.executions.clear()

    def find_update(self, wanted: Callable[[Mapping[str, Any]], bool]) -> bool:
        """Whether a waiting update is the wanted one; it stays where it is. To be used inside ``wait``."""
        return any(wanted(message.fields) for message in self._updates)

    def take_bars(self) -> list[BarMessage]:
        """The bars that wait."""
        return _taken(self._bars)

    def take_updates(self) -> list[UpdateMessage]:
        """The trade updates that wait."""
        return _taken(self._updates)

    def take_events(self) -> list[ConnectionEvent]:
        """The connection events that wait."""
        return _taken(self._events)


def _taken(messages: deque[Any]) -> list[Any]:
    # Appending and popping at the ends of a deque are atomic; what comes meanwhile is taken next time.
    return [messages.popleft() for _ in range(len(messages))]
