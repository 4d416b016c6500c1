"""A bad way from the exchange to an account's connections: messages are lost, repeated, late or swapped."""

from __future__ import annotations

from engine.exchange.faults import ArmedFaults

STEPS_MUTE = 5


class FaultyLine:
    """What becomes of one account's messages. ``told`` and the counts of a client are of what was sent into it.

    Each method takes a message and gives those that come out at its other end now.
    """

    def __init__(self, faults: ArmedFaults) -> None:
        self._faults = faults
        self._mute_until = {"update": 0, "bar": 0}
        self._late: dict[str, list[tuple[int, bytes]]] = {"update": [], "bar": []}
        self._first: bytes | None = None
        self._in_step = False

    def bar(self, message: bytes) -> list[bytes]:
        """A bar goes in."""
        return self._through(message, "bar", "mute-bars")

    def update(self, message: bytes) -> list[bytes]:
        """A trade update goes in."""
        first, self._first = self._first, None
        if first is not None:
            self._faults.take("reorder-updates")
            return [*self._through(message, "update", "mute-trades"), first]
        if self._in_step and self._faults.is_armed("reorder-updates"):
            self._first = message
            return []
        return self._through(message, "update", "mute-trades")

    def begin_step(self) -> None:
        """Updates come from matching now, several to a step."""
        self._in_step = True

    def end_matching(self) -> list[bytes]:
        """The update that waited for a second one to be swapped with, which did not come."""
        self._in_step = False
        first, self._first = self._first, None
        return [] if first is None else [first]

    def end_step(self, kind: str) -> list[bytes]:
        """The messages, ``update`` or ``bar``, that were held back in the step before."""
        position = self._faults.position
        due = [message for step, message in self._late[kind] if step < position]
        self._late[kind] = [(step, message) for step, message in self._late[kind] if step >= position]
        return due

    def _through(self, message: bytes, kind: str, mute: str) -> list[bytes]:
        position = self._faults.position
        if position < self._mute_until[kind]:
            return []
        struck = self._faults.take(f"lose-{kind}", f"repeat-{kind}", f"delay-{kind}", mute)
        if not struck:
            return [message]
        if struck.startswith("repeat"):
            return [message, message]
        if struck.startswith("delay"):
            self._late[kind].append((position, message))
        elif struck == mute:
            self._mute_until[kind] = position + STEPS_MUTE
        return []
