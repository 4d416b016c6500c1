"""When bars begin and end: the grid of a timeframe on New York's sessions."""

from __future__ import annotations

import pandas as pd
import pytest

from engine.data.timeframes import bar_ends, bar_starts, check_spacings, next_bar_end, trading_seconds


@pytest.mark.parametrize(
    ("after", "timeframe", "expected"),
    [
        ("2023-11-21 15:00", "1d", "2023-11-21 21:00"),
        ("2023-11-21 21:00", "1d", "2023-11-22 21:00"),  # at the close: the next session's
        ("2023-11-22 21:00", "1d", "2023-11-24 18:00"),  # over Thanksgiving to a half day
        ("2023-11-24 18:00", "1d", "2023-11-27 21:00"),  # over a weekend
        ("2023-11-03 20:00", "1d", "2023-11-06 21:00"),  # over the change of clocks
        ("2023-11-20 12:00", "1w", "2023-11-24 18:00"),
        ("2023-11-24 18:00", "1w", "2023-12-01 21:00"),
        ("2023-11-20 12:00", "1mo", "2023-11-30 21:00"),
        ("2023-11-30 21:00", "1mo", "2023-12-29 21:00"),  # the last session of a year
        ("2023-12-31 12:00", "1mo", "2024-01-31 21:00"),
        ("2023-11-22 14:30", "5m", "2023-11-22 14:35"),
        ("2023-11-22 14:33", "5m", "2023-11-22 14:35"),
        ("2023-11-22 14:35", "5m", "2023-11-22 14:40"),
        ("2023-11-22 21:00", "5m", "2023-11-24 14:35"),
        ("2023-11-24 17:58", "5m", "2023-11-24 18:00"),
        ("2023-11-22 10:00", "1h", "2023-11-22 16:00"),  # the first whole hour after the open at 9:30 is that to 11:00
        ("2023-11-22 20:00", "1h", "2023-11-22 21:00"),
        ("2023-11-22 12:00", "30m", "2023-11-22 15:00"),
    ],
)
def test_the_next_bar_ends_on_the_sessions_grid(after: str, timeframe: str, expected: str) -> None:
    moment = int(pd.Timestamp(after, tz="UTC").value)
    assert pd.Timestamp(next_bar_end(moment, timeframe), tz="UTC") == pd.Timestamp(expected, tz="UTC")


def test_every_bar_of_a_week_is_met_once() -> None:
    moment, end = (int(pd.Timestamp(day, tz="UTC").value) for day in ("2023-11-20", "2023-11-27"))
    ends = []
    while (moment := next_bar_end(moment, "30m")) < end:
        ends.append(moment)
    assert len(ends) == 3 * 13 + 7  # three whole sessions and a half day
    assert ends == sorted(set(ends))


def test_trading_time_between_bars() -> None:
    assert [trading_seconds(timeframe) for timeframe in ("5m", "1h", "1d", "1w")] == [300.0, 3600.0, 23400.0, 117000.0]


@pytest.mark.parametrize("timeframe", ["1d", "1w", "1mo"])
def test_a_bars_start_leads_back_to_its_end(timeframe: str) -> None:
    moment, ends = int(pd.Timestamp("2023-10-10", tz="UTC").value), []
    for _ in range(15):
        moment = next_bar_end(moment, timeframe)
        ends.append(pd.Timestamp(moment, tz="UTC"))
    index = pd.DatetimeIndex(ends).as_unit("ns")
    starts = bar_starts(index, timeframe)
    assert (starts < index).all()
    assert bar_ends(starts, timeframe).equals(index)
    check_spacings({"A": index}, timeframe, where=lambda symbol: symbol)
