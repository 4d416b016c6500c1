"""Faults that an exchange is told to make: which, at which step, and each one once.

They prove what a client does when the network or the other side fails. A schedule is written out
(``lose-update@12,500-after@40``) or drawn from a seed (``seed=42,count=8,kinds=lossless``): a run can be repeated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

from engine.errors import ConfigError

# What no careful client loses anything by: the same result must come out as without them.
LOSSLESS = (
    "drop-bars", "drop-trades",
    "lose-update", "lose-bar", "repeat-update", "repeat-bar", "delay-update", "delay-bar", "reorder-updates",
    "429", "500", "504", "500-after", "504-after", "hang-up", "hang-up-after",
    "restart",
)  # fmt: skip
# What a client may only survive: the result is another one, or late.
OTHER = (
    "timeout", "timeout-after", "mute-bars", "mute-trades",
    "reject", "partial", "partial-cancel",
    "late-bar", "lost-bar", "revision",
    "clock-jump", "skewed-clock",
)  # fmt: skip
KINDS = LOSSLESS + OTHER

# These happen inside a step, by the schedule alone, and happen again when a state is restored. Of them, the last three
# change accounts: a state is good with the same ones only.
_REPEATED = ("late-bar", "lost-bar", "revision", "reject", "partial", "partial-cancel")
_CHANGING = ("reject", "partial", "partial-cancel")

_USUAL_COUNT = 8
_GROUPS = {"lossless": LOSSLESS, "all": KINDS}


class Fault(NamedTuple):
    """A fault that is armed when the exchange takes this step; step 0 is before the first."""

    step: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class Faults:
    """A schedule of faults, or the seed that one is drawn from.

    Attributes:
        schedule: in the order of their steps; None while it has not been drawn.
        seed, count, kinds: of a drawing; without a meaning where the schedule was written out.
    """

    schedule: tuple[Fault, ...] | None = None
    seed: int = 0
    count: int = _USUAL_COUNT
    kinds: tuple[str, ...] = LOSSLESS

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read ``kind@step,kind@step``, or ``seed=N`` (or N alone) with ``count=`` and ``kinds=``.

        Args:
            text: kinds are ``lossless`` (without the option), ``all``, or names with ``+`` between them.

        Raises:
            ConfigError: it is neither, or names a kind that there is not.
        """
        parts = [part.strip() for part in text.split(",")]
        if parts[0].startswith("seed=") or parts[0].isdecimal():
            return cls._parse_drawing(parts)
        return cls(schedule=tuple(sorted((_fault(part) for part in parts), key=lambda fault: fault.step)))

    @classmethod
    def _parse_drawing(cls, parts: list[str]) -> Faults:
        made = cls(seed=_whole(parts[0].removeprefix("seed="), "seed"))
        for part in parts[1:]:
            name, _, value = part.partition("=")
            if name == "count":
                made = replace(made, count=_whole(value, "count"))
            elif name == "kinds":
                kinds = _GROUPS.get(value) or tuple(_kind(kind) for kind in value.split("+"))
                made = replace(made, kinds=kinds)
            else:
                raise ConfigError(f"faults: after a seed come count= and kinds= only, found {part!r}")
        return made

    def over(self, steps: int) -> Faults:
        """The schedule for a market of so many steps: the same seed and options give the same one.

        Raises:
            ConfigError: a step is not in the market, or there are more faults to draw than steps.
        """
        if self.schedule is None:
            if self.count > steps:
                raise ConfigError(f"faults: {self.count} faults were asked for, in a market of {steps} steps")
            dice = random.Random(self.seed)
            at = sorted(dice.sample(range(1, steps + 1), self.count))
            return replace(self, schedule=tuple(Fault(step, dice.choice(self.kinds)) for step in at))
        for step, kind in self.schedule:
            if step > steps:
                raise ConfigError(f"faults: {kind}@{step} never comes, the market has {steps} steps")
        return self

    @property
    def changing(self) -> str:
        """The faults that change what an account holds, as text; empty without any."""
        return _text(tuple(fault for fault in self.schedule or () if fault.kind in _CHANGING))

    def __str__(self) -> str:
        """The text that gives this schedule, or this drawing."""
        if self.schedule is not None:
            return _text(self.schedule)
        group = next((name for name, kinds in _GROUPS.items() if kinds == self.kinds), "+".join(self.kinds))
        return f"seed={self.seed},count={self.count},kinds={group}"


class ArmedFaults:
    """The faults of one exchange as it goes: armed by its steps, spent by the first event each can strike.

    Attributes:
        position: the step that was taken last, or is being taken.
        spent: those that have struck, in that order; what a restored state repeats is not listed again.
        repeating: whether actions of a state are being repeated.
    """

    def __init__(self, faults: Faults, spent: list[Fault]) -> None:
        self.position = 0
        self.spent = spent
        self.repeating = False
        self._waiting = list(reversed(faults.schedule or ()))
        self._armed: list[Fault] = []
        self.arm(0)

    def arm(self, step: int) -> None:
        """Arm what is due at a step that is about to be taken."""
        self.position = step
        while self._waiting and self._waiting[-1].step <= step:
            self._armed.append(self._waiting.pop())

    def is_armed(self, *kinds: str) -> bool:
        """Whether ``take`` would give one."""
        return any(fault.kind in kinds for fault in self._armed)

    def take(self, *kinds: str, by: int | None = None) -> str:
        """The kind of the first armed fault of these kinds, which is spent now; empty without one.

        Args:
            by: only faults that were armed at this step or before it.
        """
        for fault in self._armed:
            if fault.kind in kinds and (by is None or fault.step <= by):
                self._armed.remove(fault)
                if not self.repeating:
                    self.spent.append(fault)
                return fault.kind
        return ""

    def end_repeating(self) -> None:
        """Go on after a state was restored: what was armed before and strikes outside of a step counts as spent."""
        self.repeating = False
        if self.position:
            self._armed = [fault for fault in self._armed if fault.kind in _REPEATED]


def _fault(text: str) -> Fault:
    kind, at, step = text.partition("@")
    if not at:
        raise ConfigError(f"faults: expected kind@step, such as lose-update@12, or seed=42; found {text!r}")
    return Fault(_whole(step, f"the step of {kind}"), _kind(kind))


def _kind(name: str) -> str:
    if name not in KINDS:
        raise ConfigError(f"faults: there is no kind {name!r}; the kinds are {', '.join(KINDS)}")
    return name


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ConfigError(f"faults: {name} must be a whole number, found {text!r}")
    return int(text)


def _text(schedule: tuple[Fault, ...]) -> str:
    return ",".join(f"{kind}@{step}" for step, kind in schedule)
