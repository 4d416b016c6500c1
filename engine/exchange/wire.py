"""Numbers, times and ids as Alpaca writes them. A number on the wire reads back to the same bits."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from engine.data.calendars import ZONE

_NANOSECONDS = 1_000_000_000
_NAMESPACE = uuid.UUID("7f0c8b1e-5b0f-5d3b-9a5e-6e65787462ab")
_NEW_YORK = ZoneInfo(ZONE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def number(value: float) -> str:
    """The shortest text that reads back to this float, whole numbers without ``.0``: never rounded."""
    text = repr(float(value))
    return text[:-2] if text.endswith(".0") else text


@lru_cache(maxsize=4096)
def moment(time: int) -> str:
    """RFC 3339 in UTC, from UTC nanoseconds."""
    seconds, rest = divmod(time, _NANOSECONDS)
    text = f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
    return f"{text}.{rest:09d}".rstrip("0") + "Z" if rest else f"{text}Z"


def new_york_moment(time: int) -> str:
    """RFC 3339 with New York's offset, whole seconds, as Alpaca's clock has it."""
    return (_EPOCH + timedelta(seconds=time // _NANOSECONDS)).astimezone(_NEW_YORK).isoformat()


def nanoseconds(text: str) -> int:
    """UTC nanoseconds of an RFC 3339 moment or an ISO date (its midnight in UTC); finer than microseconds is cut off.

    Raises:
        ValueError: it is neither.
    """
    # A plus sign that was not escaped arrives as a space.
    when = datetime.fromisoformat(text[:11] + text[11:].replace(" ", "+"))
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return (when - _EPOCH) // timedelta(microseconds=1) * 1_000


def identity(*parts: object) -> str:
    """The same parts give the same UUID, in every run."""
    return str(uuid.uuid5(_NAMESPACE, "|".join(str(part) for part in parts)))


@lru_cache(maxsize=4096)
def asset_id(symbol: str) -> str:
    """Id of a symbol's asset."""
    return identity("asset", symbol)
