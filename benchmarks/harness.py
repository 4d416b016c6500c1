"""Two contenders over the same work, turn by turn, and what came of it."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
OtherResult = TypeVar("OtherResult")
Fact = float | int | str


class Disagreement(Exception):
    """The contenders of a comparison did not do the same work, so that their times say nothing."""


@dataclass(frozen=True)
class Turn(Generic[Result]):
    """One timed execution: seconds of the work itself, and what it gave."""

    seconds: float
    result: Result


@dataclass(frozen=True)
class Contender(Generic[Result]):
    """Somebody who can do the work: a name, and a call that does it once and times itself."""

    name: str
    turn: Callable[[], Turn[Result]]


def timed(
    name: str, work: Callable[[], Result], *, clock: Callable[[], float] = time.perf_counter
) -> Contender[Result]:
    """A contender whose whole call is the work.

    Args:
        clock: in seconds. ``time.thread_time`` for work in a single thread that waits for nothing: there it shows what
            the wall clock would on an idle machine, and other programs do not enter.
    """

    def turn() -> Turn[Result]:
        start = clock()
        result = work()
        return Turn(clock() - start, result)

    return Contender(name, turn)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours against a peer over the same amount of work.

    Attributes:
        benchmark, case: what was measured, as ``bar loop`` and ``4 symbols``.
        peer: who else did it.
        unit, amount: the work, as ``bars`` and 100,000.
        ours_seconds, peer_seconds: of each round, in the order of rounds.
        goal: the ratio to reach, or None where there is none.
        facts: what else is worth knowing, as the number of fills.
    """

    benchmark: str
    case: str
    peer: str
    unit: str
    amount: int
    ours_seconds: tuple[float, ...]
    peer_seconds: tuple[float, ...]
    goal: float | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def ours_per_second(self) -> float:
        """Our speed in the best round: noise only ever adds time."""
        return self.amount / min(self.ours_seconds)

    @property
    def peer_per_second(self) -> float:
        """The peer's speed in its best round."""
        return self.amount / min(self.peer_seconds)

    @property
    def ratio(self) -> float:
        """Our speed over the peer's, best round against best round: above 1 we are faster."""
        return min(self.peer_seconds) / min(self.ours_seconds)

    @property
    def round_ratios(self) -> tuple[float, ...]:
        """The same ratio within each round. Where they spread widely, the machine was busy with something else."""
        return tuple(peer / ours for ours, peer in zip(self.ours_seconds, self.peer_seconds, strict=True))

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        return None if self.goal is None else self.ratio >= self.goal

    def as_json(self) -> dict[str, Any]:
        """Plain values: what was measured and the ratios drawn from it."""
        return {
            **asdict(self),
            "facts": dict(self.facts),
            "ours_per_second": self.ours_per_second,
            "peer_per_second": self.peer_per_second,
            "ratio": self.ratio,
            "ratio_median": statistics.median(self.round_ratios),
            "round_ratios": self.round_ratios,
            "reached": self.reached,
        }


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long one call takes, in milliseconds: the median, and what 99 of 100 calls stay below.

    ``goal_ms`` is what the latter should not be above; None where there is no goal.
    """

    benchmark: str
    case: str
    calls: int
    p50_ms: float
    p99_ms: float
    goal_ms: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        return None if self.goal_ms is None else self.p99_ms <= self.goal_ms

    def as_json(self) -> dict[str, Any]:
        """Plain values, and whether the goal is reached."""
        return {**asdict(self), "reached": self.reached}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How much is done in a second where there is no peer; ``goal`` is what is to be reached."""

    benchmark: str
    case: str
    unit: str
    per_second: float
    goal: float

    def as_json(self) -> dict[str, Any]:
        """Plain values, and whether the goal is reached."""
        return {**asdict(self), "reached": self.per_second >= self.goal}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A quantity that should not be above a limit."""

    benchmark: str
    case: str
    unit: str
    value: float
    at_most: float

    def as_json(self) -> dict[str, Any]:
        """Plain values, and whether the limit is kept."""
        return {**asdict(self), "reached": self.value <= self.at_most}


@dataclass(frozen=True, kw_only=True)
class Level:
    """A quantity that should not be below a limit; ``at_least`` is None where there is no limit."""

    benchmark: str
    case: str
    unit: str
    value: float
    at_least: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the limit is reached; None where there is none."""
        return None if self.at_least is None else self.value >= self.at_least

    def as_json(self) -> dict[str, Any]:
        """Plain values, and whether the limit is reached."""
        return {**asdict(self), "reached": self.reached}


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A comparison that could not be made, and why."""

    benchmark: str
    case: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


Measured = Comparison | Latency | Rate | Bound | Level | LeftOut


def rounds(
    ours: Contender[Result], peer: Contender[OtherResult], *, count: int
) -> tuple[list[Turn[Result]], list[Turn[OtherResult]]]:
    """Let both take ``count`` turns. Who goes first alternates, so that a busy or warming machine favours neither.

    Garbage is collected before each turn, so that nobody pays for the other's.
    """
    ours_turns: list[Turn[Result]] = []
    peer_turns: list[Turn[OtherResult]] = []
    for number in range(count):
        if number % 2:
            peer_turns.append(_collected(peer))
            ours_turns.append(_collected(ours))
        else:
            ours_turns.append(_collected(ours))
            peer_turns.append(_collected(peer))
    return ours_turns, peer_turns


def _collected(contender: Contender[Result]) -> Turn[Result]:
    gc.collect()
    return contender.turn()


def seconds_of(turns: list[Turn[Any]]) -> tuple[float, ...]:
    """The seconds of each turn."""
    return tuple(turn.seconds for turn in turns)


def latency(
    work: Callable[[], object],
    *,
    benchmark: str,
    case: str,
    calls: int,
    goal_ms: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time one call many times, after a tenth as many to warm up; for ``clock``, see ``timed``."""
    for _ in range(max(1, calls // 10)):
        work()
    gc.collect()
    milliseconds = []
    for _ in range(calls):
        start = clock()
        work()
        milliseconds.append((clock() - start) * 1e3)
    milliseconds.sort()
    return Latency(
        benchmark=benchmark,
        case=case,
        calls=calls,
        p50_ms=statistics.median(milliseconds),
        p99_ms=milliseconds[min(calls - 1, int(calls * 0.99))],
        goal_ms=goal_ms,
    )
