"""Layouts that are more than their columns' usual names: those of vendors, told by the columns that only they have.

What a layout says goes beyond the names: that bars are stamped with their start, how numbers and dates are written,
what has been adjusted already. A file that fits none of them is read by the usual names alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from engine.data.calendars import ZONE

_SCALES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_WRITTEN = re.compile(r"([+-]?)[$€£]?([0-9][0-9,]*(?:\.[0-9]+)?)([KMBT]?)")
_UNDEFINED_PRICE = float(np.iinfo(np.int64).max)  # how Databento writes a price that there is not

_DATE = re.compile(r"\d{1,2}/\d{1,2}/\d{4}|\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2})?)?")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a vendor writes bars.

    Attributes:
        name: of the vendor.
        marks: columns, in lower case, all of which a file must have to be the vendor's.
        lacks: columns, none of which it may have.
        in_order: two columns of which the first must come before the second.
        columns: canonical name -> the vendor's, in lower case, where it is not a usual one.
        stamp: whether times are the starts of their bars; None where it is not known.
        zone: of times that carry none; None where it is not known.
        dates: which comes first in a date such as 01/02/2024; None where it is not known.
        epoch: whether times are nanoseconds since 1970, UTC.
        written: whether numbers are written for people, as $1,234.50 or 1.2M.
        fixed_point: whether whole numbers in all of the prices are billionths.
        newest_first: whether the vendor writes the last bar first.
        adjustment: what the vendor has done to the prices; see ``Bars``.
    """

    name: str
    marks: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    in_order: tuple[str, str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    stamp: Literal["start", "end"] | None = None
    zone: str | None = None
    dates: Literal["month", "day"] | None = None
    epoch: bool = False
    written: bool = False
    fixed_point: bool = False
    newest_first: bool = False
    adjustment: str = "none"

    def fits(self, header: Sequence[str]) -> bool:
        """Whether a file with these columns, in lower case, is the vendor's."""
        if not self.marks <= set(header) or self.lacks & set(header):
            return False
        first, second = self.in_order or ("", "")
        return self.in_order is None or (second in header and header.index(first) < header.index(second))


PLAIN = Layout(name="plain")

# yfinance adjusts everything, and leaves the adjusted close out, unless it is told not to.
YFINANCE = Layout(
    name="yfinance",
    marks=frozenset({"dividends", "stock splits"}),
    lacks=frozenset({"adj close"}),
    stamp="start",
    adjustment="all",
)

LAYOUTS = (
    # Yahoo's closes are adjusted for splits. Until 2017 they were not, and the adjusted close came after the volume.
    Layout(
        name="Yahoo",
        marks=frozenset({"adj close"}),
        in_order=("adj close", "volume"),
        stamp="start",
        adjustment="split",
    ),
    YFINANCE,
    Layout(
        name="Stooq",
        marks=frozenset({"ticker", "per", "date", "time", "vol", "openint"}),
        columns={"symbol": "ticker", "volume": "vol"},
    ),
    Layout(name="Alpha Vantage", marks=frozenset({"timestamp", "adjusted_close"}), newest_first=True),
    Layout(
        name="Alpha Vantage", marks=frozenset({"timestamp", "adjusted close", "dividend amount"}), newest_first=True
    ),
    Layout(name="Tiingo", marks=frozenset({"adjclose", "adjopen", "divcash", "splitfactor"})),
    Layout(
        name="Nasdaq",
        marks=frozenset({"close/last"}),
        columns={"close": "close/last"},
        dates="month",
        written=True,
        newest_first=True,
    ),
    Layout(
        name="Investing.com",
        marks=frozenset({"price", "vol.", "change %"}),
        columns={"close": "price", "volume": "vol."},
        written=True,
        newest_first=True,
    ),
    Layout(
        name="Polygon",
        marks=frozenset({"ticker", "window_start"}),
        columns={"time": "window_start", "symbol": "ticker"},
        epoch=True,
        stamp="start",
    ),
    Layout(name="Alpaca", marks=frozenset({"timestamp", "trade_count", "vwap"}), stamp="start"),
    Layout(
        name="Databento",
        marks=frozenset({"ts_event", "rtype", "instrument_id"}),
        columns={"time": "ts_event"},
        epoch=True,
        fixed_point=True,
        stamp="start",
    ),
)

KIBOT = Layout(name="Kibot", stamp="start", zone=ZONE, dates="month")
FIRST_RATE = Layout(name="FirstRate", stamp="start", zone=ZONE)


def tidy(name: str) -> str:
    """A column's name as layouts are told by it: lower case, without spaces around it or angle brackets."""
    return name.strip().lower().removeprefix("<").removesuffix(">")


def layout_of(header: Sequence[str]) -> Layout:
    """The layout of a file with these columns; ``PLAIN`` where it is nobody's in particular."""
    names = [tidy(name) for name in header]
    return next((layout for layout in LAYOUTS if layout.fits(names)), PLAIN)


def without_header(rows: Sequence[Sequence[str]]) -> tuple[Layout, list[str]] | None:
    """The layout and columns of a file that has no header, where its first rows leave no doubt; else None.

    They do not where every row is a date, at most a time of day, and five numbers of which the second is the highest
    and the third the lowest of the first four.
    """
    full = [row for row in rows if any(field.strip() for field in row)]
    if not full or len({len(row) for row in full}) != 1 or len(full[0]) not in (6, 7):
        return None
    clocked = len(full[0]) == 7
    for row in full:
        times, numbers = row[: 1 + clocked], [value.strip() for value in row[1 + clocked :]]
        if not _DATE.fullmatch(times[0].strip()) or (clocked and not _CLOCK.fullmatch(times[1].strip())):
            return None
        if not all(_NUMBER.fullmatch(value) for value in numbers):
            return None
        opened, high, low, close = map(float, numbers[:4])
        if high < max(opened, close) or low > min(opened, close):
            return None
    columns = ["date", *(["time"] if clocked else []), "open", "high", "low", "close", "volume"]
    return (KIBOT if "/" in full[0][0] else FIRST_RATE), columns


def header_of_download(rows: Sequence[Sequence[str]]) -> list[str] | None:
    """The columns of what yfinance's ``download`` gives of one symbol, which has three rows of names; else None."""
    if len(rows) < 3 or [row[0] if row else "" for row in rows[:2]] != ["Price", "Ticker"]:
        return None
    time = rows[2][0] if rows[2] else ""
    if time not in ("Date", "Datetime") or any(rows[2][1:]) or len(set(rows[1][1:])) != 1:
        return None
    return [time, *rows[0][1:]]


def written_numbers(column: pd.Series) -> np.ndarray:
    """Numbers written for people as float64: $1,234.50, 1.2M, -; NaN where none is there or it cannot be read.

    Scaled ones are rounded: a volume of 1.13M is 1,130,000 shares.
    """

    def value(text: object) -> float:
        match = _WRITTEN.fullmatch(str(text).strip())
        if match is None:
            return np.nan
        number = float(match[1] + match[2].replace(",", ""))
        return round(number * _SCALES[match[3]]) if match[3] else number

    return np.array([value(text) for text in column], dtype=np.float64)


def from_fixed_point(prices: np.ndarray) -> np.ndarray:
    """Prices in billionths as prices, NaN where the vendor has none."""
    return np.where(prices >= _UNDEFINED_PRICE, np.nan, prices / 1e9)
