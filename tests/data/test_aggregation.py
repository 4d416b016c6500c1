"""Longer bars made of shorter ones: sessions, half days, clocks, gaps, and the same as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from engine.config import DataConfig
from engine.data.aggregation import (
    SlowerBars,
    aggregate,
    aggregated,
    check_timeframes,
    next_stretch_end,
    slower_frames,
)
from engine.data.bars import COLUMNS, Bars
from engine.data.samples import load_sample
from engine.data.sources import load_bars
from engine.errors import ConfigError, DataError


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def minutes(first: str, last: str, *, zone: str = "America/New_York") -> pd.DatetimeIndex:
    """Ends of all minutes between two local times, both included."""
    return pd.date_range(first, last, freq="1min", tz=zone).tz_convert("UTC").as_unit("ns").rename("time")


def frame(index: pd.DatetimeIndex) -> pd.DataFrame:
    """Bars whose close is their number, so that what they make can be counted."""
    number = np.arange(1.0, len(index) + 1.0)
    return pd.DataFrame(
        {"open": number - 0.5, "high": number + 1.0, "low": number - 0.75, "close": number, "volume": number},
        index=index,
    )


def last(frame: pd.DataFrame) -> int:
    return int(frame.index[-1].value)


def bars_of(frames: dict[str, pd.DataFrame], timeframe: str = "1m") -> Bars:
    return Bars(frames=frames, timeframe=timeframe, adjustment="none", source="test")


def test_a_quarter_of_an_hour_holds_its_minutes() -> None:
    whole = frame(minutes("2023-11-22 09:31", "2023-11-22 10:00"))
    made = aggregate(whole, "15m", until=last(whole))
    assert list(made.index) == [utc("2023-11-22 14:45"), utc("2023-11-22 15:00")]
    assert made.iloc[0].tolist() == [0.5, 16.0, 0.25, 15.0, float(sum(range(1, 16)))]
    assert made.iloc[1].tolist() == [15.5, 31.0, 15.25, 30.0, float(sum(range(16, 31)))]


def test_a_session_is_counted_from_its_open_and_cut_at_its_close() -> None:
    half_day = frame(minutes("2023-11-24 09:31", "2023-11-24 13:00"))
    hours = aggregate(half_day, "1h", until=last(half_day))
    assert [f"{end:%H:%M}" for end in hours.index.tz_convert("America/New_York")] == [
        "10:30",
        "11:30",
        "12:30",
        "13:00",
    ]
    assert hours["volume"].iloc[-1] == sum(range(181, 211))
    day = aggregate(half_day, "1d", until=last(half_day))
    assert list(day.index) == [utc("2023-11-24 18:00")]
    assert day["open"].iloc[0] == 0.5
    assert day["close"].iloc[0] == 210.0


def test_bars_stay_on_new_yorks_clock_when_it_changes() -> None:
    days = ["2023-11-03", "2023-11-06"]
    both = minutes(f"{days[0]} 09:31", f"{days[0]} 16:00").append(minutes(f"{days[1]} 09:31", f"{days[1]} 16:00"))
    made = aggregate(frame(both), "30m", until=int(both[-1].value))
    local = made.index.tz_convert("America/New_York")
    assert [f"{time:%H:%M}" for time in local[:13]] == [f"{time:%H:%M}" for time in local[13:]]
    assert made.index[0] == utc("2023-11-03 14:00")
    assert made.index[13] == utc("2023-11-06 15:00")


def test_a_week_ends_with_its_last_session() -> None:
    tech = load_sample("tech", ("IBM",)).frames["IBM"].loc["2012-10-22":"2012-11-09"]  # closed for a storm, 29 and 30
    weeks = aggregate(tech, "1w", until=last(tech))
    assert [f"{end:%a %d}" for end in weeks.index] == ["Fri 26", "Fri 02", "Fri 09"]
    storm = tech.loc["2012-10-31":"2012-11-02"]
    assert weeks["volume"].iloc[1] == storm["volume"].sum()
    assert weeks["low"].iloc[1] == storm["low"].min()


def test_a_month_ends_with_its_last_session() -> None:
    tech = load_sample("tech", ("IBM",)).frames["IBM"].loc["2012-10-01":"2013-01-10"]
    months = aggregate(tech, "1mo", until=last(tech))
    ends = ["2012-10-31 20:00", "2012-11-30 21:00", "2012-12-31 21:00"]
    assert [f"{end:%Y-%m-%d %H:%M}" for end in months.index] == ends
    assert months["high"].iloc[1] == tech.loc["2012-11-01":"2012-11-30 23:00", "high"].max()
    assert months["open"].iloc[2] == tech.loc["2012-12-03":, "open"].iloc[0]


def test_no_bar_is_invented_and_an_open_one_is_not_told() -> None:
    whole = frame(minutes("2023-11-22 09:31", "2023-11-22 12:00"))
    thin = whole.drop(whole.loc[utc("2023-11-22 14:46") : utc("2023-11-22 16:00")].index)
    made = aggregate(thin.iloc[:-1], "15m", until=last(thin.iloc[:-1]))
    # 9:45, nothing from 10:00 to 11:00, and 12:00 is not over at 11:59.
    assert [f"{end:%H:%M}" for end in made.index] == ["14:45", "16:15", "16:30", "16:45"]


def test_a_bar_outside_of_the_session_is_refused() -> None:
    early = frame(minutes("2023-11-22 09:30", "2023-11-22 10:00"))
    with pytest.raises(DataError, match=r"2023-11-22 14:30 UTC lies outside .* data.cleaning.off_session: drop"):
        aggregate(early, "15m", until=last(early))


@pytest.mark.parametrize(
    ("base", "timeframe"),
    [
        ("1m", "1m"),
        ("15m", "5m"),
        ("2m", "15m"),
        ("45m", "90m"),
        ("1d", "1d"),
        ("1d", "1h"),
        ("1w", "1d"),
        ("1w", "1mo"),
        ("7m", "14m"),
    ],
)
def test_what_cannot_be_made_is_refused(base: str, timeframe: str) -> None:
    with pytest.raises(ConfigError, match=f"data.base: bars of {timeframe} cannot be made of bars of {base}"):
        check_timeframes(base, timeframe, key="data.base")


@pytest.mark.parametrize(
    ("base", "timeframe"), [("1m", "7m"), ("5m", "1h"), ("15m", "1d"), ("1h", "1w"), ("1d", "1w"), ("1d", "1mo")]
)
def test_what_can_be_made(base: str, timeframe: str) -> None:
    check_timeframes(base, timeframe, key="data.base")


@pytest.mark.parametrize("timeframe", ["5m", "15m", "45m", "1h", "4h"])
def test_the_end_of_the_next_one_is_that_of_the_next_minute(timeframe: str) -> None:
    whole = frame(
        minutes("2023-11-22 09:31", "2023-11-22 16:00").append(minutes("2023-11-24 09:31", "2023-11-24 13:00"))
    )
    ends = aggregate(whole, timeframe, until=last(whole)).index
    assert len(set(ends)) == len(ends)
    moment, met = int(utc("2023-11-22 14:30").value), []
    while moment < last(whole):
        moment = next_stretch_end(moment, timeframe)
        met.append(pd.Timestamp(moment, tz="UTC"))
    assert met == list(ends)


@st.composite
def markets(draw: st.DrawFn) -> Bars:
    """Minutes of a few symbols over sessions with a half day between them, most of them missing at times."""
    days = [minutes(f"{day} 09:31", f"{day} {end}") for day, end in (("2023-11-22", "16:00"), ("2023-11-24", "13:00"))]
    clock = days[0].append(days[1]).append(minutes("2023-11-27 09:31", "2023-11-27 10:40"))
    frames = {}
    for symbol in draw(st.sampled_from([("A",), ("A", "B"), ("A", "B", "C")])):
        seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1.0, 0.5, 0.05, 0.01]))
        random = np.random.default_rng(seed)
        there = random.random(len(clock)) < share
        there[random.integers(0, len(clock), size=3)] = True
        prices = 10.0 + random.random((int(there.sum()), 2))
        low, high = prices.min(axis=1) - random.random(len(prices)), prices.max(axis=1) + random.random(len(prices))
        volume = random.random(len(prices)) * 1000.0
        values = {"open": prices[:, 0], "high": high, "low": low, "close": prices[:, 1], "volume": volume}
        frames[symbol] = pd.DataFrame(values, index=clock[there])
    return bars_of(frames)


TIMEFRAMES = st.sampled_from(["5m", "15m", "1h", "1d", "1w", "1mo"])


@given(market=markets(), timeframe=TIMEFRAMES, share=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_of_a_beginning_is_a_beginning(market: Bars, timeframe: str, share: float) -> None:
    clock = sorted({time for own in market.frames.values() for time in own.index})
    cut = clock[int(share * (len(clock) - 1))]
    for own in market.frames.values():
        whole = aggregate(own, timeframe, until=int(clock[-1].value))
        part = aggregate(own.loc[:cut], timeframe, until=int(cut.value))
        pd.testing.assert_frame_equal(part, whole.iloc[: len(part)], check_exact=True, check_freq=False)
        assert list(part.index) == [end for end in whole.index if end <= cut]
        assert part["low"].le(part[["open", "close"]].min(axis=1)).all()
        assert part["high"].ge(part[["open", "close"]].max(axis=1)).all()


@given(
    market=markets(),
    timeframes=st.sampled_from([("15m",), ("1d", "1h"), ("1w", "5m"), ("1mo",)]),
    share=st.floats(0.0, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_as_they_come_they_are_those_of_the_history(market: Bars, timeframes: tuple[str, ...], share: float) -> None:
    clock = sorted({time for own in market.frames.values() for time in own.index})
    cut = clock[int(share * (len(clock) - 1))]
    history = market.between(end=cut)
    found: dict[tuple[str, str], list[tuple[pd.Timestamp, list[float]]]] = {}
    for timeframe in timeframes:
        for symbol, own in slower_frames(history, timeframe).items():
            found[symbol, timeframe] = [
                (time, row) for time, row in zip(own.index, own.to_numpy().tolist(), strict=True)
            ]
    slower = SlowerBars(history, timeframes)
    for time in (time for time in clock if time > cut):
        rows = {s: own.loc[time].tolist() for s, own in market.frames.items() if time in own.index}
        for key, row in slower.take(int(time.value), rows).items():
            found[key].append((time, list(row)))
    for timeframe in timeframes:
        for symbol, own in slower_frames(market, timeframe).items():
            assert found[symbol, timeframe] == list(zip(own.index, own.to_numpy().tolist(), strict=True))


def test_a_day_that_has_lost_its_morning_is_not_shown() -> None:
    both = minutes("2023-11-22 10:31", "2023-11-22 16:00").append(minutes("2023-11-24 09:31", "2023-11-24 13:00"))
    days = slower_frames(bars_of({"A": frame(both)}), "1d")["A"]
    assert list(days.index) == [utc("2023-11-24 18:00")]
    assert days["open"].iloc[0] == frame(both).loc[utc("2023-11-24 14:31"), "open"]


def test_a_thin_symbols_day_is_known_with_the_next_step_of_any_symbol() -> None:
    busy = frame(
        minutes("2023-11-22 09:31", "2023-11-22 16:00").append(minutes("2023-11-24 09:31", "2023-11-24 13:00"))
    )
    thin = busy.loc[[utc("2023-11-22 14:31"), utc("2023-11-22 15:00"), utc("2023-11-24 16:00")]]
    together = slower_frames(bars_of({"BUSY": busy, "THIN": thin}), "1d")["THIN"]
    assert list(together.index) == [utc("2023-11-22 21:00"), utc("2023-11-24 18:00")]
    alone = slower_frames(bars_of({"THIN": thin}), "1d")["THIN"]
    assert list(alone.index) == [utc("2023-11-24 16:00")]  # the first bar after that day; the second day is not over
    assert alone["close"].tolist() == [30.0]


def test_a_run_file_asks_for_longer_bars() -> None:
    data = {"source": "sample:minutes", "symbols": ("SYN_CALM", "SYN_THIN")}
    asked = load_bars(DataConfig(**data, timeframe="15m", base="1m"), Path())
    made = aggregated(load_bars(DataConfig(**data, timeframe="1m"), Path()), "15m")
    assert asked.timeframe == "15m"
    assert asked.content_hash == made.content_hash
    assert len(asked.frames["SYN_CALM"]) == 19 * 26 + 14  # 20 sessions, one of them a half day
    assert list(asked.frames["SYN_CALM"].columns) == list(COLUMNS)


def test_a_base_that_makes_no_such_bars_is_a_config_error() -> None:
    data = DataConfig(source="sample:minutes", symbols=("SYN_CALM",), timeframe="1m", base="5m")
    with pytest.raises(ConfigError, match=r"data.base: bars of 1m cannot be made of bars of 5m"):
        load_bars(data, Path())


def test_bars_that_begin_in_the_midst_of_a_stretch_begin_with_the_next_one() -> None:
    """So that another first day changes no bar that both have."""
    tech = load_sample("tech", ("AAPL", "IBM")).frames
    whole = aggregated(bars_of({s: f.loc["2010-01-04":"2010-03-31"] for s, f in tech.items()}, "1d"), "1w")
    later = aggregated(
        bars_of({s: f.loc["2010-01-14":"2010-03-31"] for s, f in tech.items()}, "1d"), "1w"
    )  # a Thursday
    for symbol, own in later.frames.items():
        assert own.index[0] == utc("2010-01-22 21:00")
        pd.testing.assert_frame_equal(own, whole.frames[symbol].loc[own.index[0] :], check_freq=False)


def test_a_symbol_that_is_listed_in_the_midst_of_a_stretch_begins_with_what_there_is() -> None:
    tech = load_sample("tech", ("AAPL", "IBM")).frames
    listed = tech["IBM"].loc["2010-01-14":"2010-03-31"]
    weeks = aggregated(bars_of({"AAPL": tech["AAPL"].loc["2010-01-04":"2010-03-31"], "IBM": listed}, "1d"), "1w")
    assert weeks.frames["IBM"].index[0] == utc("2010-01-15 21:00")
    assert weeks.frames["IBM"]["open"].iloc[0] == listed["open"].iloc[0]


@pytest.mark.parametrize(
    ("given", "key"),
    [({"timeframe": "1h", "slower": ("1d",)}, "timeframe"), ({"timeframe": "1d", "base": "1h"}, "base")],
)
def test_no_days_are_made_of_alpacas_hours(given: dict[str, Any], key: str) -> None:
    data = DataConfig(source="alpaca", symbols=("SPY",), start=pd.Timestamp("2023-11-01").date(), **given)
    with pytest.raises(ConfigError, match=rf"data.{key}: Alpaca's bars of 1h lie on the clock"):
        load_bars(data, Path())
