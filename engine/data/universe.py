"""Who belonged to a universe, and when: a file of spells, read point in time.

Trading, or training on, the companies that an index holds today means knowing in advance which ones would do well
enough to join it. A universe says of each bar who was a member *then*.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from engine.data.calendars import ZONE, sessions_of
from engine.errors import ConfigError, DataError

if TYPE_CHECKING:
    from engine.data.bars import Bars

Spell = tuple[date, date | None]

# Lower-case names by which a column is known.
_NAMES = {
    "symbol": ("symbol", "ticker", "name"),
    "start": ("start", "start_date", "from", "added"),
    "end": ("end", "end_date", "to", "removed"),
}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_NEW_YORK = ZoneInfo(ZONE)
# After every day that a bar can have.
_NEVER = date.max.toordinal()
_LAST_NANOSECOND = 2**63 - 1


@dataclass(frozen=True)
class Membership:
    """The spells in which symbols were members.

    A spell begins with its start, the first session inside, and stops before its end, the first session *outside*. That
    is how indices announce changes: on the day of a change the one that joins is in, and the one that leaves is out.

    Attributes:
        spells: symbol -> its spells in the order of time, apart from one another; an end of None is not known yet.
    """

    spells: Mapping[str, tuple[Spell, ...]]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Everyone who was a member at some time, sorted."""
        return tuple(sorted(self.spells))

    def members(self, day: date) -> frozenset[str]:
        """The members on a day; before the first spell there are none."""
        return self._snapshot(bisect_right(self._changes, day.toordinal()))

    def members_at(self, time: int) -> frozenset[str]:
        """The members in the New York session of a bar that ends at this time, UTC ns."""
        return self.members(_session(time))

    def refusal(self, symbol: str, time: int) -> str:
        """Why nothing may be opened in a symbol at a bar that ends at this time (UTC ns), or empty."""
        if symbol in self.members_at(time):
            return ""
        return f"data.universe: {symbol} is no member on {_session(time)}"

    def mask(self, symbol: str, times: pd.DatetimeIndex) -> np.ndarray:
        """Whether the symbol was a member in the New York session of each bar end: booleans, as long as ``times``."""
        midnights = np.array([_midnight(border) for border in self._borders(symbol)], dtype=np.int64)
        # A session's bars end after its midnight; inside after an odd number of borders.
        return np.asarray(np.searchsorted(midnights, times.as_unit("ns").asi8, side="left") % 2 == 1)

    def between(self, start: date, end: date) -> tuple[str, ...]:
        """Everyone who was a member on some day from start to end, both included; sorted."""
        return tuple(
            symbol
            for symbol in self.symbols
            if any(first <= end and (last is None or last > start) for first, last in self.spells[symbol])
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all spells: the same members on the same days give the same one, whatever file they are in."""
        sha = hashlib.sha256()
        for symbol in self.symbols:
            sha.update(f"{symbol}|{self._borders(symbol)}|".encode())
        return sha.hexdigest()

    def _borders(self, symbol: str) -> list[int]:
        """Starts and ends in turn, as ordinal days, spells that touch joined; the last end may be beyond all days."""
        borders: list[int] = []
        for first, last in self.spells.get(symbol, ()):
            if borders and borders[-1] == first.toordinal():
                borders.pop()
            else:
                borders.append(first.toordinal())
            borders.append(_NEVER if last is None else last.toordinal())
        return borders

    @cached_property
    def _changes(self) -> list[int]:
        """The days on which anybody joins or leaves, in order."""
        return sorted({border for symbol in self.spells for border in self._borders(symbol)})

    @cached_property
    def _snapshots(self) -> dict[int, frozenset[str]]:
        return {}

    def _snapshot(self, changes: int) -> frozenset[str]:
        """The members after so many changes; kept, since a run asks at each of its bars."""
        if changes not in self._snapshots:
            day = self._changes[changes - 1] if changes else 0
            inside = (symbol for symbol in self.spells if bisect_right(self._borders(symbol), day) % 2)
            self._snapshots[changes] = frozenset(inside)
        return self._snapshots[changes]


@dataclass(frozen=True, kw_only=True)
class Survivorship:
    """How many of a universe's members in a period have bars in it.

    Attributes:
        members: everyone who was one on some day of the period. with_bars: of them, those with a bar while they were.
        named: the run file names its symbols, so that members without bars may only not have been asked for.
    """

    members: int
    with_bars: int
    named: bool

    @property
    def without_bars(self) -> int:
        """Members of whom nothing is known."""
        return self.members - self.with_bars

    @property
    def sentence(self) -> str:
        """For remarks and stamps."""
        what = "take no part" if self.named else "have no bars"
        return f"{self.without_bars} of {self.members} members {what}"

    def entry(self) -> dict[str, int | float | bool]:
        """For a run's manifest; the share that has no bars in per cent."""
        share = 100.0 * self.without_bars / self.members if self.members else 0.0
        return {
            "members": self.members,
            "with_bars": self.with_bars,
            "without_bars": self.without_bars,
            "without_bars_pct": round(share, 2),
            "named": self.named,
        }


def survivorship(
    membership: Membership, times: Mapping[str, pd.DatetimeIndex], period: tuple[date, date], *, named: bool
) -> Survivorship:
    """Count a period's members, and those of them that have a bar.

    Args:
        times: symbol -> bar ends, UTC.
        period: first and last session, both included.
        named: see ``Survivorship``.
    """
    members = membership.between(*period)
    with_bars = 0
    for symbol in members:
        if symbol in times:
            days = sessions_of(times[symbol])
            within = (days >= pd.Timestamp(period[0])) & (days <= pd.Timestamp(period[1]))
            with_bars += bool((membership.mask(symbol, times[symbol]) & within).any())
    return Survivorship(members=len(members), with_bars=with_bars, named=named)


def survivorship_of(bars: Bars, period: tuple[date, date], *, named: bool) -> Survivorship | None:
    """Of the bars' own universe, see ``survivorship``; None where they have none."""
    if bars.membership is None:
        return None
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in bars.frames.items()}
    return survivorship(bars.membership, times, period, named=named)


def read_universe(path: Path) -> Membership:
    """The spells of a CSV file with the columns symbol (or ticker), start (or start_date) and end (or end_date).

    Days are written as 2004-09-01; ``end`` is the first day outside, and empty for who is still a member.

    Raises:
        ConfigError: there is no such file.
        DataError: columns are missing, or a row says what cannot be; names the file and the row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        raise ConfigError(f"data.universe: there is no file {path}; correct the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problem = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise DataError(f"{path}: the universe could not be read ({problem}); expected a CSV file in UTF-8") from error
    positions = _columns(rows[0] if rows else [], path)
    found: dict[str, list[tuple[date, date | None, int]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row):
            symbol, start, end = _spell(row, positions, f"{path}, row {number}")
            found.setdefault(symbol, []).append((start, end, number))
    if not found:
        raise DataError(f"{path}: the universe has no members; expected one row a spell")
    return Membership({symbol: _apart(symbol, spells, path) for symbol, spells in sorted(found.items())})


def _columns(header: list[str], path: Path) -> dict[str, int]:
    known = [name.strip().lower() for name in header]
    positions = {}
    for column, names in _NAMES.items():
        there = [known.index(name) for name in names if name in known]
        if not there:
            raise DataError(
                f"{path}: no column for the {column} of spells; expected {' or '.join(names)}, "
                f"found {', '.join(header) or 'an empty file'}"
            )
        positions[column] = there[0]
    return positions


def _spell(row: list[str], positions: Mapping[str, int], where: str) -> tuple[str, date, date | None]:
    if len(row) <= max(positions.values()):
        raise DataError(f"{where}: expected {max(positions.values()) + 1} columns, found {len(row)}")
    symbol, start, end = (row[positions[column]].strip() for column in _NAMES)
    if not symbol or re.search(r"[\s,#?%]", symbol):
        raise DataError(f"{where}: expected a symbol without spaces and without , # ? %, found {symbol!r}")
    first = _day(start, f"{where}: the start of {symbol}")
    last = _day(end, f"{where}: the end of {symbol}") if end else None
    if last is not None and last <= first:
        raise DataError(
            f"{where}: {symbol} leaves on {last}, which must be after {first}, the day on which it joins; "
            "the end is the first day outside"
        )
    return symbol, first, last


def _day(text: str, what: str) -> date:
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise DataError(f"{what} is no day: expected one such as 2004-09-01, found {text!r}")


def _apart(symbol: str, spells: Iterable[tuple[date, date | None, int]], path: Path) -> tuple[Spell, ...]:
    """The spells in the order of time, none of them inside another."""
    ordered = sorted(spells, key=lambda spell: (spell[0], spell[2]))
    for (_, end, row), (start, _, later) in itertools.pairwise(ordered):
        if end is None or end > start:
            raise DataError(
                f"{path}, row {later}: {symbol} joins on {start}, when by row {row} it is a member "
                f"{'still' if end is None else f'until {end}'}; correct one of them"
            )
    return tuple((start, end) for start, end, _ in ordered)


@cache
def _midnight(day: int) -> int:
    """The New York midnight that begins an ordinal day, UTC ns; days out of their reach are moved to its end."""
    if day >= _NEVER:
        return _LAST_NANOSECOND
    moment = datetime.combine(date.fromordinal(day), datetime.min.time(), tzinfo=_NEW_YORK)
    return max(-_LAST_NANOSECOND, min(_LAST_NANOSECOND, round(moment.timestamp()) * 1_000_000_000))


def _session(time: int) -> date:
    """The New York day of a bar end, UTC ns; one that ends at midnight belongs to the day that ends with it."""
    return datetime.fromtimestamp((time - 1) // 1_000_000_000, tz=UTC).astimezone(_NEW_YORK).date()
