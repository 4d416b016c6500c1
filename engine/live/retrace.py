"""Go through a paper run once more from its journal: the same code, the recorded bars, answers and fills.

Whatever the run writes this time is held against what it wrote the first time, entry by entry; the first difference
is named. This is also how a run that was cut off is brought back to where it was, and goes on from there.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from engine.errors import DataError, NextbarError, StrategyError
from engine.live.desk import LATE, Again, CutOff, Desk, Receipt, TurnedDown
from engine.live.inbox import UpdateMessage
from engine.live.journal import Entry, plain
from engine.live.recorded import closings_of, trades_of
from engine.live.run import LiveRun, Plan
from engine.live.sources import Arrived
from engine.live.venue import Log
from engine.trading.orders import Order, OrderStatus

# What the run makes anew; the rest of the journal is what came from outside.
MADE = (
    "bundles", "forecast", "intent", "withdrawal", "ack", "turned_down", "fill", "interest", "ended", "decision",
    "halt",
)  # fmt: skip
# Of the machine and the moment, not of the run.
_VOLATILE = frozenset({"decide_ms", "send_ms", "received", "at"})
_ORDER = ("features", "lines")
# What a person or the clock on the wall does; nothing in the journal leads to it: it happens when it happened. So do
# the halts that are marked as from outside.
_OUTSIDE = ("pause", "killed", "adopted", "model")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first thing that is not as it was.

    Attributes:
        entry: number of the journal's entry. time: end of the bar that was worked on, UTC ns; 0 before the first.
        what: in words, such as ``feature 3 of AAPL``. recorded, found: the two values.
    """

    entry: int
    time: int
    what: str
    recorded: Any
    found: Any

    def sentence(self) -> str:
        """The difference in one sentence."""
        when = "before the first bar"
        if self.time:
            when = f"at the bar that ends {pd.Timestamp(self.time, tz='UTC'):%Y-%m-%d %H:%M} UTC"
        return f"{when} (entry {self.entry}): {self.what} was {self.recorded!r}, and is {self.found!r} now"


class Differs(NextbarError):
    """Ends a retracing at the first difference; of our own kind, so that it is not taken for a strategy's error."""


@dataclass
class _Step:
    """Bars, or none where the broker's news were booked between them; and what came from outside until the next step.

    ``until`` is the number of the next step's first entry.

    ``taken`` are its updates, by the times at which the run asked for them; ``deferred`` the orders and withdrawals, in
    that sequence, to which the broker did not answer.
    """

    arrived: Arrived
    taken: deque[list[UpdateMessage]] = field(default_factory=lambda: deque([[]]))
    outside: list[Entry] = field(default_factory=list)
    deferred: deque[Entry] = field(default_factory=deque)
    until: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Present:
    """What a run goes on with, once it is where its journal ends: the steps to come, the broker, and the journal."""

    steps: Callable[[], Iterator[Arrived]]
    desk: Desk
    log: Log


class Retrace:
    """A journal's run, made anew; source, desk and log of a ``LiveRun``.

    Where there is a ``present``, the run goes on with it after the last entry. What the journal does not tell (whether
    an order that it was to send has reached the broker) is left to the present: it is deferred, and looked for there.

    Attributes:
        difference: the first one, or None.
        compared: kind -> entries that were found the same.
        steps: bars gone through.
        over: whether the run is where its journal ends.
    """

    def __init__(self, entries: Sequence[Entry], present: Present | None = None) -> None:
        self._steps: list[_Step] = []
        self._before: list[Entry] = []
        self._refusals: dict[int, str] = {}
        self._ended = self._stops = False
        self._stopped_at = 0
        # The first order that the strategy gave, or took back, in its stop().
        self._farewell = 0
        for entry in entries:
            try:
                self._sort(entry)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise DataError(f"the journal's entry {entry.number} ({entry.kind}) is damaged: {error!r}") from error
        self._expected = deque(entry for entry in entries if entry.kind in MADE)
        self._live: LiveRun | None = None
        self._now: _Step | None = None
        self._after = present
        # With the last news a run ends by itself, after the strategy's stop(); it may have been cut off then.
        ends = self._ended or (self._stops and len(self._steps) > self._stopped_at)
        closes = present is None and ends and bool(self._steps) and not self._steps[-1].arrived.bars
        self._closing = self._steps[-1] if closes else None
        if present is not None and self._farewell:
            raise NextbarError(
                f"the strategy gave orders in its stop(), when the run was stopped (entry {self._farewell}): it cannot "
                "go on as if it had not; close its positions with nextbar kill, and begin another run with --new"
            )
        self.over = present is not None and not entries
        # A run that failed before its first bar has not written down what was before that; it does so when it goes on.
        self._has_history = any(entry.kind == "history" for entry in entries)
        # Whether the present's steps have begun; what the last recorded step has left to send waits for them.
        self._begun = False
        self.difference: Difference | None = None
        self.compared: dict[str, int] = {}
        self.steps = 0

    def _sort(self, entry: Entry) -> None:
        body = entry.body
        # A run that failed did so in the middle of something: its journal is as good as cut off there.
        self._ended = entry.kind == "end" and body["how"] != "failed"
        if entry.kind in ("bars", "settled") and self._steps:
            self._steps[-1].until = entry.number
        if entry.kind == "bars":
            bars = {symbol: tuple(row) for symbol, row in body["bars"].items()}
            self._steps.append(_Step(Arrived(body["time"], bars, body["decide"], 0)))
        elif entry.kind == "settled":
            self._steps.append(_Step(Arrived(body["time"], {}, False, 0)))
        elif entry.kind == "taken" and self._steps:
            self._steps[-1].taken.append([])
        elif entry.kind == "update" and self._steps:
            self._steps[-1].taken[-1].append(_update(body))
        elif entry.kind in ("intent", "withdrawal"):
            if self._stops and not self._farewell:
                self._farewell = entry.number
            if body.get("status") == OrderStatus.REFUSED.value:
                self._refusals[body["order"]] = body["reason"]
        elif entry.kind in ("stopping", "resumed"):
            self._stops, self._stopped_at = entry.kind == "stopping", len(self._steps)
        elif entry.kind in ("deferred", "withdrawal_failed"):
            self._steps[-1].deferred.append(entry)
        elif entry.kind in _OUTSIDE or (entry.kind == "halt" and body.get("outside")):
            (self._steps[-1].outside if self._steps else self._before).append(entry)

    def run(self, plan: Plan) -> None:
        """Go through it; the plan is that of the first time."""
        live = LiveRun(plan, source=self, desk=self, log=self, past=self)
        self.follow(live)
        try:
            live.run()
            if self._expected:
                left = self._expected[0]
                self._fail(left.number, f"the {left.kind}", left.body, "nothing")
        except Differs:
            return
        except StrategyError:
            # What made the run fail makes it fail again; its journal ends there.
            if self._ended or self._expected:
                raise

    def follow(self, live: LiveRun) -> None:
        """The run that this is the source, the desk and the log of."""
        self._live = live

    # --- as a source: the recorded steps, and then those to come ---------------------------------------------------

    def __iter__(self) -> Iterator[Arrived]:
        for entry in self._before:
            self._from_outside(entry)
        for step in self._steps:
            self._now = step
            if step is self._closing:
                return
            self.steps += bool(step.arrived.bars)
            yield step.arrived._replace(received=time.monotonic_ns())
            for entry in step.outside:
                self._from_outside(entry)
        if self._after is not None:
            self._go_on()
            self._begun = True
            yield from self._after.steps()

    def _from_outside(self, entry: Entry) -> None:
        """What came from outside: a person, the clock on the wall."""
        assert self._live is not None
        body = entry.body
        if entry.kind == "pause":
            self._live.pause(body["source"], body["reason"])
        elif entry.kind == "killed":
            self._live.take_over(closings_of(body))
        elif entry.kind == "model":
            self._live.change_model(**body)
        elif entry.kind == "adopted":
            self._live.adopt(trades_of(body))
        else:
            self._live.halt(body["reason"], ends=bool(body.get("ends")))

    def _go_on(self) -> None:
        """From here on everything happens for the first time."""
        if not self.over and (self._expected or self._now is not (self._steps[-1] if self._steps else None)):
            left = self._expected[0] if self._expected else None
            number, what = (0, "a step") if left is None else (left.number, f"the {left.kind}")
            self._fail(number, what, {} if left is None else left.body, "nothing")
        self.over = True
        if self._live is not None:
            # The journal may end between what was deferred, or sent after all, and the pause that follows from it.
            self._live.pause("broker", self._live.venue.deferred)

    # --- as the past: what limits on the wall clock refused --------------------------------------------------------

    def refusal(self, order: Order) -> str:
        """Why this order was refused, or empty."""
        return self._refusals.get(order.id, "")

    def is_late(self, order: Order) -> bool:
        """Whether it was given up because its bar was over."""
        return self._answers_next(order, "turned_down") and self._expected[0].body["reason"] == LATE

    # --- as a desk: the broker answers what it answered ------------------------------------------------------------

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        """The recorded answer, which is the next thing in the journal."""
        if self.over and self._after is not None:
            return self._after.desk.send(order, legs, client_id)
        self._defer(order.id, None)
        if self._answers_next(order, "turned_down"):
            raise TurnedDown(self._expected[0].body["reason"])
        if self._answers_next(order, "ack"):
            return self._recorded_receipt()
        if self._after is not None:
            self._go_on()
            raise CutOff("the run was cut off before the broker's answer was known")
        return Receipt(f"unanswered-{order.id}", tuple(f"unanswered-{leg.id}" for leg in legs))

    def find(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt | None:
        """The order, if it was found then."""
        if self.over and self._after is not None:
            return self._after.desk.find(order, legs, client_id)
        if self._answers_next(order, "ack"):
            return self._recorded_receipt()
        self._defer(order.id, None, finding=order.id)
        if self._after is not None and self._is_the_end:
            self._go_on()
            raise CutOff("the run was cut off before it was known whether the broker had an order")
        return None

    @property
    def _is_the_end(self) -> bool:
        """Whether nothing more is known of this step, and there is no other: what it did next is not in the journal."""
        is_last = self._now is (self._steps[-1] if self._steps else None)
        return is_last and not self._expected and not (self._now and self._now.deferred)

    def _answers_next(self, order: Order, kind: str) -> bool:
        """Whether the next thing that this step did was to take this answer to the order."""
        if not self._expected or (self._now is not None and self._expected[0].number >= self._now.until):
            return False
        return (self._expected[0].kind, self._expected[0].body.get("order")) == (kind, order.id)

    def _recorded_receipt(self) -> Receipt:
        body = self._expected[0].body
        return Receipt(body["broker_id"], tuple(body["legs"]))

    def withdraw(self, remote_id: str) -> None:
        """What came of it is among the updates."""
        if self.over and self._after is not None:
            self._wait_for_the_present()
            self._after.desk.withdraw(remote_id)
            return
        self._defer(None, remote_id)
        if self._after is not None and self._now is not None and not self._now.taken:
            self._go_on()
            raise CutOff("the run was cut off before the end of an order that it cancelled was known")

    def _wait_for_the_present(self) -> None:
        """In the midst of the last recorded step nothing goes out: whoever goes on compares the account before."""
        if not self._begun:
            raise CutOff("the run was cut off, and does not go on yet")

    def _defer(self, order: int | None, withdrawal: str | None, finding: int | None = None) -> None:
        """Where nothing more could be sent the first time, nothing more is sent this time."""
        if self._now is None or not self._now.deferred:
            return
        body = self._now.deferred[0].body
        here = finding == body.get("finding") and withdrawal == body["withdrawal"] and order in (None, body["order"])
        if here if finding is None else finding == body.get("finding"):
            self._now.deferred.popleft()
            raise Again(body["reason"], cut_off=bool(body.get("cut_off")), ahead=bool(body.get("ahead")))

    def take_updates(self) -> list[UpdateMessage]:
        """The updates that were taken at this time of this step."""
        if self.over and self._after is not None:
            return self._after.desk.take_updates()
        return self._now.taken.popleft() if self._now is not None and self._now.taken else []

    def catch_up(self, remote_ids: Iterable[str]) -> int:
        """What came of it is among the updates."""
        return self._after.desk.catch_up(remote_ids) if self.over and self._after is not None else 0

    # --- as a log: what is written must be what was written --------------------------------------------------------

    def commit(self, *, durable: bool = False) -> None:
        """What is there already is not kept again."""
        if self.over and self._after is not None:
            self._after.log.commit(durable=durable)

    def write(self, kind: str, /, **body: Any) -> None:
        """Hold an entry against the recorded one; after the last of them, write it."""
        if self.over and self._after is not None:
            self._after.log.write(kind, **body)
            return
        if kind not in MADE:
            if kind == "history" and self._after is not None and not self._has_history:
                self._after.log.write(kind, **body)
            return
        if not self._expected:
            if self._after is not None:
                self._go_on()
                self._after.log.write(kind, **body)
                return
            if self._ended:
                self._fail(0, f"a {kind}", "nothing", body)
            raise Differs  # the journal was cut off here
        expected = self._expected.popleft()
        found = json.loads(json.dumps(plain(body)))
        if expected.kind != kind:
            was, is_now = f"{expected.kind} {_short(expected.body)}", f"{kind} {_short(found)}"
            self._fail(expected.number, "what was done", was, is_now)
        for key in sorted({*expected.body, *found} - _VOLATILE, key=lambda key: (key not in _ORDER, key)):
            recorded, now = expected.body.get(key), found.get(key)
            if recorded != now:
                path, recorded, now = _first(recorded, now)
                self._fail(expected.number, f"{kind}: {key}{path}", recorded, now)
        self.compared[kind] = self.compared.get(kind, 0) + 1

    def _fail(self, number: int, what: str, recorded: Any, found: Any) -> None:
        time = 0 if self._now is None else self._now.arrived.time
        self.difference = Difference(entry=number, time=time, what=what, recorded=recorded, found=found)
        raise Differs(self.difference.sentence())


def _first(recorded: Any, found: Any) -> tuple[str, Any, Any]:
    """Where two values differ first: the way there, and both values."""
    if isinstance(recorded, Mapping) and isinstance(found, Mapping):
        for key in sorted({*recorded, *found}):
            if recorded.get(key) != found.get(key):
                path, a, b = _first(recorded.get(key), found.get(key))
                return f" of {key}{path}", a, b
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for position, (a, b) in enumerate(zip(recorded, found, strict=True)):
            if a != b:
                path, a, b = _first(a, b)
                return f" [{position}]{path}", a, b
    return "", recorded, found


def _short(body: Mapping[str, Any]) -> str:
    shown = {key: body[key] for key in ("order", "symbol", "side", "quantity", "time", "reason") if body.get(key)}
    return json.dumps(shown or body)[:200]


def _update(body: Mapping[str, Any]) -> UpdateMessage:
    return UpdateMessage(
        {
            "event": body["event"],
            "execution_id": body["execution"],
            "qty": body["quantity"],
            "price": body["price"],
            "timestamp": body["at"],
            "reference_price": body["reference_price"],
            "order": {
                "id": body["broker_id"],
                "client_order_id": body["client_id"],
                "symbol": body["symbol"],
                "filled_qty": body["filled_quantity"],
                "filled_avg_price": body["average_price"],
                "replaced_by": body.get("replaced_by"),
            },
        },
        body["received"],
    )
