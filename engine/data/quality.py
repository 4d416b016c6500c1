"""What was wrong, or looked odd, with the bars of a source, and what was done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd

Kind = Literal[
    "duplicate",
    "conflict",
    "disorder",
    "missing_value",
    "impossible",
    "off_session",
    "gap",
    "stale",
    "spike",
    "jump",
    "zero_volume",
    "late_start",
    "early_end",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

EVERY_SYMBOL = "*"
"""In the place of the symbol of a finding that is about all of them."""

Action = Literal["dropped", "repaired", "flagged"]

REPAIR_COLUMNS = ("time", "symbol", "column", "before", "after", "rule")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong or odd with one symbol's bars.

    Attributes:
        kind: what it is; see ``Kind`` and docs/data.md.
        symbol: whose bars; ``*`` for a gap that all symbols have.
        time: UTC end of the first bar, or of the first missing one, that it is about.
        last: of the last one; the same where there is one.
        count: bars that it is about.
        action: what was done.
        size: how bad it is beside others of its kind: larger is worse, in the unit that ``detail`` names.
        detail: a sentence with the figures, for the table and the page.
        times: ``[count]``, int64 UTC nanoseconds, increasing: the end of each bar that it is about; empty where that is
            not kept.
    """

    kind: Kind
    symbol: str
    time: pd.Timestamp
    last: pd.Timestamp
    count: int
    action: Action
    size: float
    detail: str
    times: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64), compare=False, repr=False)


def no_repairs() -> pd.DataFrame:
    """An empty record of changes."""
    text, number = pd.Series(dtype=str), pd.Series(dtype="float64")
    time = pd.Series(dtype="datetime64[ns, UTC]")
    return pd.DataFrame({"time": time, "symbol": text, "column": text, "before": number, "after": number, "rule": text})


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What cleaning found in a set of bars, and everything that it changed.

    Attributes:
        findings: sorted by kind in the order of ``KINDS``, symbol, time.
        repairs: every change, one row a value: ``REPAIR_COLUMNS``, sorted by symbol, time, column. A bar that was
            dropped has a row for each of its five columns with ``after`` NaN. ``rule`` is the kind and the policy, as
            in ``impossible: drop``. Sorting moves bars and changes none: its finding alone tells of it.
        checked: kinds that could be looked for; without a calendar, some cannot.
    """

    findings: tuple[Finding, ...] = ()
    repairs: pd.DataFrame = field(default_factory=no_repairs)
    checked: tuple[Kind, ...] = KINDS

    def counts(self) -> Mapping[Kind, int]:
        """Bars that each kind was found in, kinds without any left out."""
        found = dict.fromkeys(KINDS, 0)
        for finding in self.findings:
            found[finding.kind] += finding.count
        return {kind: count for kind, count in found.items() if count}
