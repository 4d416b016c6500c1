"""Session closes and session dates of the New York Stock Exchange."""

import time

import pandas as pd
import pytest

from engine.data.calendars import last_session_closes, session_closes, session_number, sessions_of
from engine.errors import DataError


def closes(*dates: str) -> list[str]:
    return [f"{close:%Y-%m-%d %H:%M}" for close in session_closes(pd.DatetimeIndex(list(dates)))]


def test_a_session_closes_at_four_in_new_york_in_summer_and_winter():
    assert closes("2023-11-03", "2023-11-06", "2024-03-08", "2024-03-11") == [
        "2023-11-03 20:00",
        "2023-11-06 21:00",
        "2024-03-08 21:00",
        "2024-03-11 20:00",
    ]


def test_half_days_close_at_one():
    assert closes("2023-11-24", "2023-07-03", "2012-12-24") == [
        "2023-11-24 18:00",
        "2023-07-03 17:00",
        "2012-12-24 18:00",
    ]


def test_dates_long_before_the_default_range_in_any_order():
    assert closes("1999-01-04", "1990-01-02", "1979-07-05") == [
        "1999-01-04 21:00",
        "1990-01-02 21:00",
        "1979-07-05 20:00",
    ]


@pytest.mark.parametrize("date", ["2023-11-23", "2023-11-25", "2001-09-12"])
def test_a_date_without_a_session_is_named(date: str):
    with pytest.raises(DataError, match=f"{date}: .* no session"):
        closes("2023-11-22", date)


@pytest.mark.parametrize("date", ["1800-01-06", "2250-01-06"])
def test_a_date_beyond_the_calendar_is_named(date: str):
    with pytest.raises(DataError, match=f"{date}: .*calendar is known from"):
        closes(date)


def test_no_dates_have_no_closes():
    assert len(session_closes(pd.DatetimeIndex([]))) == 0


def test_a_week_is_complete_at_its_last_session():
    dates = pd.DatetimeIndex(["2024-03-29", "2024-03-31", "2023-11-24", "1990-01-01"])
    assert [f"{close:%Y-%m-%d %H:%M}" for close in last_session_closes(dates)] == [
        "2024-03-28 20:00",
        "2024-03-28 20:00",
        "2023-11-24 18:00",
        "1989-12-29 21:00",
    ]


def test_the_session_of_a_bar_is_its_date_in_new_york():
    times = pd.DatetimeIndex(
        [
            "2023-11-03 20:00",  # the close
            "2023-11-04 00:00",  # eight in the evening, after hours
            "2023-11-04 04:00",  # midnight: it ends the 3rd
            "2023-11-04 04:01",
            "2023-11-06 05:00",  # midnight, an hour later in UTC since the clocks changed
            "2023-11-06 05:01",
        ],
        tz="UTC",
    )
    found = sessions_of(times)
    assert found.tz is None
    assert [f"{session:%d %H:%M}" for session in found] == [f"{day:02} 00:00" for day in (3, 3, 3, 4, 5, 6)]


def test_sessions_of_closes_are_the_dates():
    dates = pd.DatetimeIndex(["2023-11-03", "2023-11-06", "2023-11-24"])
    assert sessions_of(session_closes(dates)).equals(dates.as_unit("ns"))


def test_sessions_of_many_minutes_are_quick():
    times = pd.date_range("2020-01-01", periods=100_000, freq="min", tz="UTC")
    start = time.perf_counter()
    sessions_of(times)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("ends", "sessions"),
    [
        (["2020-01-06 14:31", "2020-01-06 21:00", "2020-01-07 21:00"], [0, 0, 1]),
        (["2020-07-06 13:31", "2020-07-06 20:00", "2020-07-06 23:59"], [0, 0, 0]),
        (["2020-01-07 00:30", "2020-01-07 14:31"], [0, 1]),  # after hours of the day before
    ],
)
def test_a_session_is_a_day_in_new_york(ends: list[str], sessions: list[int]) -> None:
    numbers = [session_number(time) for time in pd.DatetimeIndex(ends, tz="UTC").as_unit("ns").asi8.tolist()]
    assert [number - numbers[0] for number in numbers] == sessions
