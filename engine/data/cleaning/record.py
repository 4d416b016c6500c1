"""What cleaning writes down while it works: findings, and every change of a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from engine.data.bars import COLUMNS
from engine.data.cleaning.stack import Stack
from engine.data.quality import KINDS, REPAIR_COLUMNS, Action, Finding, Kind, Quality, no_repairs

# Names one symbol's bars out of those that were found: their positions in the stack -> a sentence and a size.
Telling = Callable[[np.ndarray], tuple[str, float]]


@dataclass(kw_only=True)
class Record:
    """Findings and changes, in the order in which they are made."""

    findings: list[Finding] = field(default_factory=list)
    changes: list[pd.DataFrame] = field(default_factory=list)

    def found(self, kind: Kind, stack: Stack, mask: np.ndarray, action: Action, *, tell: Telling) -> None:
        """One finding for each symbol that has bars in the mask."""
        bars = np.flatnonzero(mask)
        owners = stack.owner[bars]
        for own in np.split(bars, np.flatnonzero(np.diff(owners)) + 1) if len(bars) else []:
            detail, size = tell(own)
            self.tell(kind, stack, own, action, detail=detail, size=size)

    def tell(self, kind: Kind, stack: Stack, bars: np.ndarray, action: Action, *, detail: str, size: float) -> None:
        """One finding on some bars of one symbol."""
        times = np.sort(stack.time[bars])
        self.findings.append(
            Finding(
                kind=kind,
                symbol=stack.symbols[int(stack.owner[bars[0]])],
                time=pd.Timestamp(int(times[0]), tz="UTC"),
                last=pd.Timestamp(int(times[-1]), tz="UTC"),
                count=len(bars),
                action=action,
                size=size,
                detail=detail,
                times=times,
            )
        )

    def dropped(self, stack: Stack, mask: np.ndarray, rule: str) -> Stack:
        """The stack without the bars of the mask, each of whose values is written down."""
        bars = np.flatnonzero(mask)
        before = stack.values[:, bars]
        self._write(stack, bars, before, np.full_like(before, np.nan), rule, every=True)
        return stack.kept(~mask)

    def changed(self, stack: Stack, bars: np.ndarray, after: np.ndarray, rule: str) -> None:
        """Set bars to other values, ``[5, bars]``, and write down those that differ."""
        self._write(stack, bars, stack.values[:, bars], after, rule, every=False)
        stack.values[:, bars] = after

    def _write(
        self, stack: Stack, bars: np.ndarray, before: np.ndarray, after: np.ndarray, rule: str, *, every: bool
    ) -> None:
        if not len(bars):
            return
        differs = ~((before == after) | (np.isnan(before) & np.isnan(after))) | every
        column, which = np.nonzero(differs)
        self.changes.append(
            pd.DataFrame(
                {
                    "time": pd.DatetimeIndex(stack.time[bars[which]], dtype="datetime64[ns, UTC]"),
                    "symbol": pd.Series(np.asarray(stack.symbols, dtype=object)[stack.owner[bars[which]]], dtype=str),
                    "column": pd.Series(np.asarray(COLUMNS, dtype=object)[column], dtype=str),
                    "before": before[column, which],
                    "after": after[column, which],
                    "rule": pd.Series([rule] * len(which), dtype=str),
                }
            )
        )

    def quality(self, checked: tuple[Kind, ...]) -> Quality:
        """All that was written down, in order."""
        changes = pd.concat(self.changes, ignore_index=True) if self.changes else no_repairs()
        if self.changes:
            column = changes["column"].map({name: at for at, name in enumerate(COLUMNS)})
            order = changes.assign(column=column).sort_values(["symbol", "time", "column"], kind="stable").index
            changes = changes.loc[order, list(REPAIR_COLUMNS)].reset_index(drop=True)
        return Quality(
            findings=tuple(sorted(self.findings, key=lambda f: (KINDS.index(f.kind), f.symbol, f.time))),
            repairs=changes,
            checked=checked,
        )
