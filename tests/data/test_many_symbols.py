"""Spacing and alignment of many symbols at once: what is told is what looking at them one by one tells."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from engine.data.calendars import ZONE, session_closes, sessions_of
from engine.data.timeframes import check_alignment, check_spacing, check_spacings, duration, is_intraday
from engine.errors import DataError

Times = Mapping[str, pd.DatetimeIndex]
DAYS = session_closes(pd.DatetimeIndex([d for d in pd.bdate_range("2024-03-04", "2024-05-10") if d.day != 29]))
MINUTES = pd.DatetimeIndex(
    np.concatenate([pd.date_range(f"2024-03-{day} 09:31", periods=45, freq="min") for day in ("07", "08", "11")])
).tz_localize(ZONE)


def some(ends: pd.DatetimeIndex, random: np.random.Generator, *, share: float) -> pd.DatetimeIndex:
    kept = np.flatnonzero(random.random(len(ends)) < share)
    return pd.DatetimeIndex(ends[kept if len(kept) > 1 else [0, 1]]).tz_convert("UTC").as_unit("ns")


def many(timeframe: str, seed: int) -> Times:
    """A few symbols of which some are thin, some are too far apart and some are off the others."""
    random = np.random.default_rng(seed)
    times = {}
    for name in "ABCDE":
        ends = MINUTES if is_intraday(timeframe) else DAYS
        step = int(random.choice([1, 1, 1, 5]))
        own = some(ends[step - 1 :: step], random, share=float(random.choice([0.05, 0.5, 1.0])))
        shift = int(random.choice([0, 0, 0, 0, 1]))
        times[name] = own + pd.Timedelta(minutes=shift)
    return times


def complaint(check, *arguments, **named) -> str | None:
    try:
        check(*arguments, **named)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("timeframe", ["1m", "5m", "30m", "4h", "1d", "1w"])
def test_spacing_is_told_as_of_one_symbol_after_the_other(timeframe: str):
    told = set()
    for seed in range(40):
        times = many(timeframe, seed)
        singly = (complaint(check_spacing, own, timeframe, where=f"the file, {s}") for s, own in times.items())
        expected = next((found for found in singly if found is not None), None)
        assert complaint(check_spacings, times, timeframe, where=lambda symbol: f"the file, {symbol}") == expected
        told.add(expected is None)
    assert timeframe not in ("1m", "1d") or told == {True, False}


def one_bar_after_the_other(times: Times, timeframe: str) -> str | None:
    """The first bar that ends off an earlier symbol's, by a loop over all bars: the two symbols' names."""
    seen: dict[object, tuple[str, int]] = {}
    for symbol, own in times.items():
        days = sessions_of(own)
        for position, end in enumerate(own):
            if is_intraday(timeframe):
                if position + 1 == len(own) or days[position + 1] != days[position]:
                    continue  # the last bar of a session may be cut short
                local = end.tz_convert(ZONE)
                key, value = "grid", (local.hour * 60 + local.minute) % (duration(timeframe) // pd.Timedelta(minutes=1))
            else:
                key, value = days[position], end.value
            other, expected = seen.setdefault(key, (symbol, value))
            if value != expected:
                return f"{symbol} has one that ends at {end:%Y-%m-%d %H:%M} UTC, off the bars of {other}"
    return None


@pytest.mark.parametrize("timeframe", ["1m", "5m", "1d"])
def test_alignment_is_told_as_by_a_loop_over_all_bars(timeframe: str):
    told = set()
    for seed in range(40):
        times = many(timeframe, seed)
        expected = one_bar_after_the_other(times, timeframe)
        found = complaint(check_alignment, times, timeframe)
        assert (found is None) == (expected is None)
        assert expected is None or expected in str(found)
        told.add(expected is None)
    assert timeframe != "1d" or told == {True, False}


def test_no_symbol_is_no_complaint():
    check_alignment({}, "1d")
    check_spacings({}, "1m", where=str)
