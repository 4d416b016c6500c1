"""Go through a paper run once more from its journal: the same code, the recorded bars, answers and fills.

Whatever the run writes this time is held against what it wrote the first time, entry by entry; the first difference
is named. This is also how a run that was cut off is brought back to where it was.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from engine.errors import DataError, NextbarError, StrategyError
from engine.live.desk import Receipt, TurnedDown
from engine.live.inbox import UpdateMessage
from engine.live.journal import Entry, plain
from engine.live.run import LiveRun, Plan
from engine.live.sources import Arrived
from engine.trading.orders import Order, OrderStatus

# What the run makes anew; the rest of the journal is what came from outside.
MADE = (
    "bundles", "forecast", "intent", "withdrawal", "ack", "turned_down", "fill", "interest", "ended", "decision",
    "halt",
)  # fmt: skip
# How the reason of a halt on the wall clock begins. Nothing in the journal leads to it: it happens when it happened.
_WALL_CLOCK = "risk.stale_seconds"
# Of the machine and the moment, not of the run.
_VOLATILE = frozenset({"decide_ms", "send_ms", "received", "at"})
_ORDER = ("features", "lines")


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


class _Differs(NextbarError):
    """Ends a retracing at the first difference; of our own kind, so that it is not taken for a strategy's error."""


@dataclass
class _Step:
    """Bars, or none where the broker's news were booked between them; and what came from outside until the next step.

    ``taken`` are its updates, by the times at which the run asked for them.
    """

    arrived: Arrived
    taken: deque[list[UpdateMessage]] = field(default_factory=lambda: deque([[]]))
    outside: list[Entry] = field(default_factory=list)


class Retrace:
    """A journal's run, made anew.

    Attributes:
        difference: the first one, or None.
        compared: kind -> entries that were found the same.
        steps: bars gone through.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._steps: list[_Step] = []
        self._answers: dict[int, Entry] = {}
        self._refusals: dict[int, str] = {}
        for entry in entries:
            try:
                self._sort(entry)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise DataError(f"the journal's entry {entry.number} ({entry.kind}) is damaged: {error!r}") from error
        self._expected = iter([entry for entry in entries if entry.kind in MADE])
        # A run that failed did so in the middle of something: its journal is as good as cut off there.
        self._ended = any(entry.kind == "end" and entry.body.get("how") != "failed" for entry in entries)
        self._present: _Step | None = None
        # With the last news a run ends by itself, after the strategy's stop().
        closes = self._ended and bool(self._steps) and not self._steps[-1].arrived.bars
        self._closing = self._steps[-1] if closes else None
        self.difference: Difference | None = None
        self.compared: dict[str, int] = {}
        self.steps = 0

    def _sort(self, entry: Entry) -> None:
        body = entry.body
        if entry.kind == "bars":
            bars = {symbol: tuple(row) for symbol, row in body["bars"].items()}
            self._steps.append(_Step(Arrived(body["time"], bars, body["decide"], 0)))
        elif entry.kind == "settled":
            self._steps.append(_Step(Arrived(body["time"], {}, False, 0)))
        elif entry.kind == "taken" and self._steps:
            self._steps[-1].taken.append([])
        elif entry.kind == "update" and self._steps:
            self._steps[-1].taken[-1].append(_update(body))
        elif entry.kind in ("ack", "turned_down"):
            self._answers[body["order"]] = entry
        elif entry.kind == "intent" and body["status"] == OrderStatus.REFUSED.value:
            self._refusals[body["order"]] = body["reason"]
        elif self._steps and (entry.kind == "pause" or _on_the_wall_clock(entry)):
            self._steps[-1].outside.append(entry)

    def run(self, plan: Plan) -> None:
        """Go through it; the plan is that of the first time."""
        live = LiveRun(plan, source=self._Source(self), desk=self, log=self, limits=self._limits)
        self._live = live
        try:
            live.run()
            left = next(self._expected, None)
            if left is not None:
                self._note(left, f"the {left.kind}", left.body, "nothing")
        except _Differs:
            return
        except StrategyError:
            # What made the run fail makes it fail again; its journal ends there.
            if self._ended or next(self._expected, None) is not None:
                raise

    class _Source:
        def __init__(self, retrace: Retrace) -> None:
            self._retrace = retrace

        def __iter__(self) -> Iterator[Arrived]:
            retrace = self._retrace
            for step in retrace._steps:
                retrace._present = step
                if step is retrace._closing:
                    return
                retrace.steps += bool(step.arrived.bars)
                yield step.arrived
                for entry in step.outside:
                    retrace._from_outside(entry)

    def _from_outside(self, entry: Entry) -> None:
        """What the clock on the wall did: it does so again."""
        if entry.kind == "pause":
            self._live.pause(entry.body["reason"])
        elif not self._live.halted:
            self._live.halt(entry.body["reason"])

    def _limits(self, order: Order) -> str:
        """Limits on the wall clock refused what they refused."""
        reason = self._refusals.get(order.id, "")
        return reason if reason.startswith(("risk.max_orders_per_minute", "the account differs")) else ""

    # --- as a desk: the broker answers what it answered ------------------------------------------------------------

    def send(self, order: Order, legs: Sequence[Order], client_id: str) -> Receipt:
        """The recorded answer."""
        answer = self._answers.get(order.id)
        if answer is None:
            return Receipt(f"unanswered-{order.id}", tuple(f"unanswered-{leg.id}" for leg in legs))
        if answer.kind == "turned_down":
            raise TurnedDown(answer.body["reason"])
        return Receipt(answer.body["broker_id"], tuple(answer.body["legs"]))

    def withdraw(self, remote_id: str) -> None:
        """What came of it is among the updates."""

    def take_updates(self) -> list[UpdateMessage]:
        """The updates that were taken at this time of this step."""
        return self._present.taken.popleft() if self._present is not None and self._present.taken else []

    # --- as a log: what is written must be what was written --------------------------------------------------------

    def commit(self, *, durable: bool = False) -> None:
        """Nothing is kept."""

    def write(self, kind: str, /, **body: Any) -> None:
        """Hold an entry against the recorded one."""
        if kind not in MADE:
            return
        expected = next(self._expected, None)
        if expected is None:
            if self._ended:
                self._fail(0, f"a {kind}", "nothing", body)
            raise _Differs  # the journal was cut off here
        found = json.loads(json.dumps(plain(body)))
        if expected.kind != kind:
            self._note(expected, "what was done", f"{expected.kind} {_short(expected.body)}", f"{kind} {_short(found)}")
        for key in sorted({*expected.body, *found} - _VOLATILE, key=lambda key: (key not in _ORDER, key)):
            recorded, now = expected.body.get(key), found.get(key)
            if recorded != now:
                path, recorded, now = _first(recorded, now)
                self._note(expected, f"{kind}: {key}{path}", recorded, now)
        self.compared[kind] = self.compared.get(kind, 0) + 1

    def _note(self, entry: Entry, what: str, recorded: Any, found: Any) -> None:
        self._fail(entry.number, what, recorded, found)

    def _fail(self, number: int, what: str, recorded: Any, found: Any) -> None:
        time = 0 if self._present is None else self._present.arrived.time
        self.difference = Difference(entry=number, time=time, what=what, recorded=recorded, found=found)
        raise _Differs


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


def _on_the_wall_clock(entry: Entry) -> bool:
    return entry.kind == "halt" and str(entry.body["reason"]).startswith(_WALL_CLOCK)


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
