"""What kinds of faults are called, in the words of tables and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from engine.config import CleaningConfig
from engine.data.calendars import ZONE
from engine.data.cleaning.checking import Checked
from engine.data.cleaning.findings import changed_in_hindsight, tallied
from engine.data.quality import EVERY_SYMBOL, KINDS, Finding, Kind
from engine.data.timeframes import is_intraday

MEANINGS: Mapping[Kind, str] = {
    "duplicate": "the same bar more than once",
    "conflict": "several bars of one time that differ",
    "disorder": "bars that are not in the order of time",
    "missing_value": "bars without a price or a volume",
    "impossible": "prices that contradict each other, or are zero or negative",
    "off_session": "bars out of the exchange's sessions",
    "gap": "bars missing between a symbol's first and its last",
    "stale": "the four prices stand still",
    "spike": "prices far from those of both neighbours; may be real",
    "jump": "an opening far from the close before it: a split, a spin-off or news",
    "zero_volume": "bars without volume",
    "late_start": "the first bar is after another symbol's",
    "early_end": "the last bar is before another symbol's",
}


_OF_ONE_BAR: tuple[Kind, ...] = ("missing_value", "impossible", "spike", "jump")
_CROWD = 5


@dataclass(frozen=True, kw_only=True)
class KindRow:
    """One kind that was found: how often, what the run file says of it, what was done, and the worst case."""

    kind: Kind
    policy: str
    refused: bool
    symbols: int
    bars: int
    dropped: int
    repaired: int
    flagged: int
    worst: Finding

    @property
    def done(self) -> str:
        """What was done, in words; where loading fails, what would have been done instead."""
        if self.refused:
            return "REFUSED"
        parts = {"dropped": self.dropped, "repaired": self.repaired, "flagged": self.flagged}
        named = [f"{count:,} {action}" for action, count in parts.items() if count]
        return named[0].split()[1] if len(named) == 1 else ", ".join(named)


def kind_rows(checked: Checked) -> list[KindRow]:
    """The kinds that were found, in the order of ``KINDS``."""
    return [
        KindRow(
            kind=kind,
            policy=getattr(checked.policy, kind),
            refused=kind in checked.refused,
            worst=worst_first(checked, kind)[0],
            **tallied(checked.quality)[kind],
        )
        for kind in KINDS
        if kind in tallied(checked.quality)
    ]


def worst_first(checked: Checked, kind: Kind) -> list[Finding]:
    """The findings of a kind by size, those that are alike by symbol and time."""
    own = [finding for finding in checked.quality.findings if finding.kind == kind]
    return sorted(own, key=lambda finding: (-finding.size, finding.symbol, finding.time))


def choices(kind: Kind) -> tuple[str, ...]:
    """What a run file may say of a kind."""
    return tuple(map(str, get_args(CleaningConfig.model_fields[kind].annotation)))


def whose(finding: Finding) -> str:
    """The symbol of a finding, in words."""
    return "all symbols" if finding.symbol == EVERY_SYMBOL else finding.symbol


def at(time: pd.Timestamp | None, timeframe: str) -> str:
    """A bar's end for a table: the session's date, or on intraday bars the minute in New York."""
    if time is None:
        return "–"
    local = time.tz_convert(ZONE)
    return f"{local:%Y-%m-%d %H:%M}" if is_intraday(timeframe) else f"{local:%Y-%m-%d}"


def where(finding: Finding, timeframe: str) -> str:
    """Which bars a finding is about, in a few words: the bar, or how many there are."""
    return at(finding.time, timeframe) if finding.count == 1 else counted(finding.count, "bar")


def example(finding: Finding, timeframe: str) -> str:
    """One finding in words."""
    bar = f", {at(finding.time, timeframe)}" if finding.count == 1 else ""
    return f"{whose(finding)}{bar}: {finding.detail}"


def verdict(checked: Checked) -> list[str]:
    """What the check says in a few sentences, the most important first."""
    tally = tallied(checked.quality)
    total = sum(len(frame) for frame in checked.raw.frames.values())
    size = f"{counted(total, 'bar')} of {counted(len(checked.raw.frames), 'symbol')}"
    sentences = []
    if checked.refusals:
        sentences.append(f"Loading these bars fails: {checked.refusals[0].sentence}.")
        if len(checked.refusals) > 1:
            sentences.append(f"There are {len(checked.refusals)} reasons for it, listed below.")
    changed = {action: sum(own[action] for own in tally.values()) for action in ("dropped", "repaired")}
    flagged = {kind: own["flagged"] for kind, own in tally.items() if own["flagged"]}
    if any(changed.values()):
        done = " and ".join(f"{action} {counted(count, 'bar')}" for action, count in changed.items() if count)
        sentences.append(f"Of {size}, cleaning {done}.")
    elif checked.frames:
        sentences.append(f"Of {size}, cleaning changed none.")
    if flagged:
        named = ", ".join(f"{kind} {count:,}" for kind, count in flagged.items())
        sentences.append(f"Flagged and left as they are: {named}.")
    sentences.extend(_crowded(checked))
    if not tally and not checked.refusals:
        sentences.append("None of the faults that it knows was found, which does not say that the prices are right.")
    if changed_in_hindsight(checked.quality):
        sentences.append(
            f"Spikes are {'repaired' if checked.policy.spike == 'repair' else 'dropped'} for what the next bar tells, "
            "which live trading cannot know: a backtest on these bars looks one bar ahead."
        )
    unchecked = [kind for kind in KINDS if kind not in checked.quality.checked]
    if unchecked and checked.frames:
        sentences.append(f"Not looked for, because these bars do not allow it: {', '.join(unchecked)}.")
    return sentences


def _crowded(checked: Checked) -> list[str]:
    """Sessions on which many symbols have the same kind of fault: the source's doing, or the market's."""
    sentences = []
    for kind in _OF_ONE_BAR:
        own = [finding for finding in checked.quality.findings if finding.kind == kind]
        symbols = Counter(
            day for day, _ in {(f"{f.time.tz_convert(ZONE):%Y-%m-%d}", f.symbol) for f in own if f.count == 1}
        )
        crowds = [(day, count) for day, count in sorted(symbols.items()) if count >= max(_CROWD, len(own) / 10)]
        if crowds:
            days = ", ".join(f"{count} symbols on {day}" for day, count in crowds[:3])
            sentences.append(f"{kind}: {days}. So many on one day come from the source, or from the whole market.")
    return sentences


def counted(number: int, what: str) -> str:
    """``1 bar``, ``1,200 bars``."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def listed(names: Sequence[str], *, most: int = 8) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
