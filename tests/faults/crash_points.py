"""Named moments at which a process may die, and how it is made to die there: by SIGKILL, at the nth time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from alpaca.trading.client import TradingClient

from engine.live.control import Control
from engine.live.desk import AlpacaDesk
from engine.live.journal import Journal
from engine.live.retrace import Retrace
from engine.live.run import LiveRun
from engine.live.venue import LiveVenue
from engine.live.verifier import Verifier


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def _before(owner: Any, name: str, when: Callable[..., bool] = lambda *a, **k: True) -> Callable[[int], None]:
    """Die when the method is called for the nth time."""

    def arm(nth: int) -> None:
        original, count = getattr(owner, name), [0]

        def dying(*args: Any, **kwargs: Any) -> Any:
            count[0] += when(*args, **kwargs)
            if count[0] == nth:
                _die()
            return original(*args, **kwargs)

        setattr(owner, name, dying)

    return arm


def _after(owner: Any, name: str) -> Callable[[int], None]:
    """Die when the method has done its work for the nth time, and nobody knows yet."""

    def arm(nth: int) -> None:
        original, count = getattr(owner, name), [0]

        def dying(*args: Any, **kwargs: Any) -> Any:
            answer = original(*args, **kwargs)
            count[0] += 1
            if count[0] == nth:
                _die()
            return answer

        setattr(owner, name, dying)

    return arm


def _during_a_journal_write(nth: int) -> None:
    original, count = Journal._insert, [0]

    def dying(self: Journal, *, durable: bool) -> None:
        count[0] += 1
        if count[0] == nth:
            # In the middle of a transaction: some of its rows are in the file's log, and no commit.
            self._connection.execute("PRAGMA cache_spill = 1")
            self._connection.execute("PRAGMA cache_size = 1")
            self._connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", self._pending[:-1] or self._pending)
            _die()
        original(self, durable=durable)

    Journal._insert = dying  # type: ignore[method-assign]


def _is_live(retrace: Retrace, *args: Any, **kwargs: Any) -> bool:
    return retrace.over


POINTS: dict[str, Callable[[int], None]] = {
    "after the exchange moved": _after(Control, "advance"),
    "before an intent": _before(LiveRun, "_decided"),
    "after an intent, before its POST": _before(TradingClient, "submit_order"),
    "after a POST, before its answer": _after(TradingClient, "submit_order"),
    "after an ack": _after(LiveVenue, "_learn"),
    "after a cancel, before its answer": _after(TradingClient, "cancel_order_by_id"),
    "after a withdrawal": _after(AlpacaDesk, "withdraw"),
    "during a fill": _after(LiveVenue, "_book"),
    "during a journal write": _during_a_journal_write,
    "after a step": _after(LiveRun, "_after_decision"),
    "during recovery, while it is gone through": _before(
        Retrace, "write", lambda self, *a, **k: not self.over and bool(self._steps)
    ),
    "during recovery, when it is over": _before(Retrace, "_go_on", lambda self, *a, **k: bool(self._steps)),
    "during recovery, before it is compared": _before(Verifier, "reconcile"),
    "during recovery, after it is compared": _after(Verifier, "reconcile"),
    "at the end, before the report": _after(Verifier, "at_the_end"),
}
RECOVERY = frozenset(name for name in POINTS if name.startswith("during recovery"))
