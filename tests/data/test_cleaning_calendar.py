"""Bars that are not there or should not be: gaps, halts, bars out of the session, wrong zones and stamps."""

import numpy as np
import pandas as pd
import pytest
from cleaning_bars import cleaned, days, found, minutes, without

from engine.errors import DataError

WEEK = ("2023-11-20", "2023-11-21", "2023-11-22", "2023-11-24", "2023-11-27")  # Thanksgiving, and a half day after it


def moved(frame: pd.DataFrame, zone: str, *, read_in: str = "UTC") -> pd.DataFrame:
    """The frame as it is read where its New York times, written in one zone, are taken to be another one's."""
    wall = pd.DatetimeIndex(frame.index).tz_convert(zone).tz_localize(None)
    return frame.set_axis(wall.tz_localize(read_in).tz_convert("UTC").rename("time"))


# --- gaps -------------------------------------------------------------------------------------------------------------


def test_missing_sessions_are_counted():
    frame = days()
    _, quality = cleaned(without(frame, 10, 20, 21, 22))
    (gap,) = found(quality, "gap")
    assert (gap.count, gap.size, gap.action) == (4, 3.0, "flagged")
    assert (gap.time, gap.last) == (frame.index[10], frame.index[22])
    assert "4 of 120 bars are missing; the longest hole has 3" in gap.detail
    with pytest.raises(DataError, match=r"files, ACME: 4 of 120 bars are missing.*set data.cleaning.gap: flag"):
        cleaned(without(frame, 10, 20, 21, 22), gap="refuse")


def test_holidays_and_half_days_are_no_gaps():
    assert found(cleaned(minutes(*WEEK), "1m")[1], "gap") == []
    assert found(cleaned(minutes(*WEEK, step=15), "15m")[1], "gap") == []
    assert found(cleaned(days(250))[1], "gap") == []


def test_a_session_whose_bar_was_dropped_is_told_once():
    frame = days()
    frame.iloc[10, 3] = np.nan
    assert dict(cleaned(frame)[1].counts()) == {"missing_value": 1}


def test_missing_weeks_are_counted():
    frame = days(300)
    weekly = frame.groupby((frame.index - pd.to_timedelta(frame.index.day_of_week, unit="D")).normalize()).tail(1)
    assert cleaned(weekly, "1w")[1].findings == ()
    (gap,) = found(cleaned(without(weekly, 5, 6), "1w")[1], "gap")
    assert gap.count == 2


def test_missing_minutes_are_counted_and_none_is_invented():
    frame = minutes(*WEEK)
    holed = without(frame, 0, 100, 101, 102, 389, 400, len(frame) - 1)
    frames, quality = cleaned(holed, "1m")
    pd.testing.assert_frame_equal(frames["ACME"], holed, check_freq=False)
    (gap,) = found(quality, "gap")
    assert (gap.count, gap.size) == (5, 3.0)  # what is before the first and after the last bar is not missing
    assert (gap.time, gap.last) == (frame.index[100], frame.index[400])
    assert f"{frame.index[100]:%Y-%m-%d %H:%M} to {frame.index[102]:%Y-%m-%d %H:%M} UTC" in gap.detail


def test_whole_sessions_without_a_minute_are_told():
    frame = minutes(*WEEK)
    (gap,) = found(cleaned(frame.drop(frame.loc["2023-11-24"].index), "1m")[1], "gap")
    assert gap.count == 210
    assert "1 whole session among them" in gap.detail


@pytest.mark.parametrize("step", [15, 30, 60, 120])
def test_a_short_last_bar_is_a_bar(step: int):
    frame = minutes(*WEEK, step=step)
    closes = minutes(*WEEK).groupby(lambda time: time.date()).tail(1)
    whole = pd.concat([frame, closes[~closes.index.isin(frame.index)]]).sort_index()
    whole = whole[whole.index - pd.Timedelta(minutes=step) >= whole.index.normalize()]
    assert found(cleaned(whole, f"{step}m")[1], "gap") == []
    assert found(cleaned(without(whole, 4), f"{step}m")[1], "gap")[0].count == 1


def test_hours_on_the_clock_have_no_gap_at_the_open():
    opens = [pd.date_range(f"{day} 11:00", f"{day} 16:00", freq="h", tz="America/New_York") for day in WEEK[:3]]
    time = opens[0].append(opens[1:]).tz_convert("UTC").as_unit("ns")
    frame = minutes(*WEEK).iloc[: len(time)].set_axis(time)
    assert cleaned(frame, "1h")[1].findings == ()


def test_what_no_symbol_has_is_the_markets():
    frames = {name: minutes(*WEEK, seed=seed) for seed, name in enumerate(("A", "B", "C"))}
    halt = frames["A"].index[100:115]
    frames = {name: frame.drop(halt) for name, frame in frames.items()}
    frames["B"] = without(frames["B"], 500, 501)
    _, quality = cleaned(frames, "1m")
    everywhere, own = found(quality, "gap")
    assert (everywhere.symbol, everywhere.count, everywhere.size) == ("*", 15, 15.0)
    assert (everywhere.time, everywhere.last) == (halt[0], halt[-1])
    assert "no symbol has them" in everywhere.detail
    assert (own.symbol, own.count) == ("B", 2)


def test_thin_symbols_do_not_make_a_halt():
    random = np.random.default_rng(3)
    frame = minutes(*WEEK)
    frames = {name: frame[random.random(len(frame)) < 0.3] for name in ("A", "B")}
    gaps = found(cleaned(frames, "1m")[1], "gap")
    assert [gap.symbol for gap in gaps] == ["A", "B"]
    inside = [frame.loc[f.index[0] : f.index[-1]] for f in frames.values()]
    assert [gap.count for gap in gaps] == [
        len(whole) - len(own) for whole, own in zip(inside, frames.values(), strict=True)
    ]


# --- late and early ---------------------------------------------------------------------------------------------------


def test_symbols_that_start_late_or_stop_early_are_told():
    frame = days()
    frames = {"FULL": frame, "LATE": frame.iloc[7:], "GONE": frame.iloc[:-3]}
    _, quality = cleaned(frames)
    (late,), (early,) = found(quality, "late_start"), found(quality, "early_end")
    assert (late.symbol, late.size, late.time) == ("LATE", 7.0, frame.index[7])
    assert late.detail == "its first bar is of 2023-01-12, 7 sessions after that of 2023-01-03"
    assert (early.symbol, early.size, early.time) == ("GONE", 3.0, frame.index[-4])
    with pytest.raises(DataError, match=r"LATE: its first bar .* data.cleaning.late_start: flag"):
        cleaned(frames, late_start="refuse")
    with pytest.raises(DataError, match=r"GONE: its last bar .* data.cleaning.early_end: flag"):
        cleaned(frames, early_end="refuse")


def test_a_thin_first_hour_is_no_late_start():
    frame = minutes(*WEEK)
    assert found(cleaned({"A": frame, "B": frame.iloc[40:-40]}, "1m")[1], "late_start") == []


# --- out of the session -----------------------------------------------------------------------------------------------


def test_bars_of_days_without_a_session_are_dropped():
    frame = days(60, start="2023-10-16")
    thanksgiving = frame.iloc[[20]].set_axis(pd.DatetimeIndex(["2023-11-24 05:00"], tz="UTC").as_unit("ns"))
    both = pd.concat([frame, thanksgiving]).sort_index()
    frames, quality = cleaned(both)
    pd.testing.assert_frame_equal(frames["ACME"], frame, check_freq=False, check_names=False)
    (finding,) = found(quality, "off_session")
    assert (finding.count, finding.action, finding.time) == (1, "dropped", thanksgiving.index[0])
    assert set(quality.repairs["rule"]) == {"off_session: drop"}
    assert len(cleaned(both, off_session="flag")[0]["ACME"]) == len(both)
    with pytest.raises(DataError, match=r"ACME, bar 29 .*of a day without a session.*off_session: drop"):
        cleaned(both, off_session="refuse")


def test_trading_before_and_after_the_session_is_dropped():
    frame = minutes(*WEEK)
    extended = [pd.date_range(f"{day} 04:01", f"{day} 20:00", freq="min", tz="America/New_York") for day in WEEK]
    time = extended[0].append(extended[1:]).tz_convert("UTC").as_unit("ns")
    whole = pd.DataFrame(1.0, index=time, columns=frame.columns)
    whole.loc[frame.index] = frame
    frames, quality = cleaned(whole, "1m", stale="flag")
    assert list(frames["ACME"].index) == list(frame.index)
    assert found(quality, "off_session")[0].count == len(whole) - len(frame)


def test_bars_of_another_market_are_refused():
    frame = days(60)
    every_day = pd.date_range(frame.index[0], periods=60, freq="D")
    with pytest.raises(DataError, match=r"of 60 bars are of a day without a session .*off_session: flag"):
        cleaned(frame.set_axis(every_day))
    assert len(cleaned(frame.set_axis(every_day), off_session="flag")[0]["ACME"]) == 60
    around = pd.date_range("2023-11-20", "2023-11-22", freq="5min", tz="UTC").as_unit("ns")
    whole = pd.concat([days(len(around) // 2), days(len(around) - len(around) // 2)]).set_axis(around)
    with pytest.raises(DataError, match=r"of 577 bars are out of the regular session .*data.timezone"):
        cleaned(whole, "5m")


@pytest.mark.parametrize("year", [1700, 1884, 2200, 2250])
def test_times_out_of_the_calendars_reach_are_refused_by_their_place(year: int):
    frame = days(10)
    far = frame.set_axis(
        frame.index[:4].insert(4, pd.Timestamp(f"{year}-03-04 21:00", tz="UTC")).append(frame.index[5:])
    )
    with pytest.raises(
        DataError, match=rf"ACME, bar 5 \({year}-03-04 21:00 UTC\): the exchange's calendar is known from"
    ):
        cleaned(far)


# --- zones and stamps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read", "message"),
    [
        ("America/New_York", "UTC", "data.timezone: America/New_York$"),
        ("UTC", "America/New_York", "data.timezone: UTC$"),
        ("America/Chicago", "America/New_York", "data.timezone: America/Chicago$"),
        ("America/New_York", "America/Los_Angeles", "data.timezone: America/New_York$"),
    ],
)
@pytest.mark.parametrize("step", [1, 15])
def test_bars_that_fit_another_zone_are_refused(written: str, read: str, message: str, step: int):
    frame = moved(minutes(*WEEK, step=step), written, read_in=read)
    with pytest.raises(DataError, match=f"lie out of New York's sessions as they are.*{message}"):
        cleaned(frame, f"{step}m", raw={"timezone": read})


def test_offsets_that_are_wrong_are_to_be_left_out():
    frame = moved(minutes(*WEEK), "America/New_York")
    with pytest.raises(DataError, match=r"America/New_York, and write the times without their offset"):
        cleaned(frame, "1m")


def test_the_zone_is_not_asked_where_such_bars_are_kept():
    frame = moved(minutes(*WEEK), "America/New_York")
    assert len(cleaned(frame, "1m", off_session="flag")[0]["ACME"]) == len(frame)


def started(frame: pd.DataFrame, step: int) -> pd.DataFrame:
    return frame.set_axis(frame.index - pd.Timedelta(minutes=step))


@pytest.mark.parametrize("step", [1, 5, 15, 30])
def test_bars_stamped_with_their_start_are_refused(step: int):
    frame = started(minutes(*WEEK, step=step), step)
    with pytest.raises(DataError, match=r"the first of 2023-11-20 is at 09:30 .*set data.stamp: start"):
        cleaned(frame, f"{step}m")
    assert len(cleaned(frame, f"{step}m", raw={"stamp": "end"})[0]["ACME"]) == len(frame) - len(WEEK)


@pytest.mark.parametrize("step", [1, 15])
def test_ends_that_are_read_as_starts_are_refused(step: int):
    frame = started(minutes(*WEEK, step=step), -step)
    with pytest.raises(DataError, match=r"end after the close, .*set data.stamp: end"):
        cleaned(frame, f"{step}m", raw={"stamp": "start"})
    right = minutes(*WEEK, step=step)
    assert len(cleaned(right, f"{step}m", raw={"stamp": "start"})[0]["ACME"]) == len(right)


def test_a_thin_symbol_among_others_does_not_hide_the_stamps():
    frame = started(minutes(*WEEK), 1)
    thin = frame[np.random.default_rng(1).random(len(frame)) < 0.1]
    with pytest.raises(DataError, match=r"set data.stamp: start"):
        cleaned({"A": thin, "B": frame}, "1m")


def test_hours_stamped_with_their_start_are_refused_on_the_clock_too():
    time = [pd.date_range(f"{day} 09:00", f"{day} 15:00", freq="h", tz="America/New_York") for day in WEEK[:3]]
    ends = time[0].append(time[1:]).tz_convert("UTC").as_unit("ns")
    with pytest.raises(DataError, match=r"is at 09:00 .*set data.stamp: start"):
        cleaned(minutes(*WEEK).iloc[: len(ends)].set_axis(ends), "1h")


def test_extended_hours_stamped_with_their_start_are_refused():
    time = [pd.date_range(f"{day} 04:00", f"{day} 19:59", freq="min", tz="America/New_York") for day in WEEK[:3]]
    starts = time[0].append(time[1:]).tz_convert("UTC").as_unit("ns")
    frame = pd.DataFrame(1.0, index=starts, columns=days(2).columns)
    with pytest.raises(DataError, match=r"is at 04:00 .*set data.stamp: start"):
        cleaned(frame, "1m")
    assert len(cleaned(frame.set_axis(starts + pd.Timedelta(minutes=1)), "1m")[0]["ACME"]) == 3 * 390


def test_a_start_in_another_zone_is_told_with_both_settings():
    frame = moved(started(minutes(*WEEK), 1), "America/New_York")
    with pytest.raises(DataError, match=r"data.timezone: America/New_York"):
        cleaned(frame, "1m", raw={"timezone": "UTC"})


def test_good_bars_are_not_asked_about_their_stamps():
    frame = minutes(*WEEK)
    for thinned in (frame, frame.iloc[1:], frame[np.random.default_rng(2).random(len(frame)) < 0.05], frame.iloc[:30]):
        assert len(cleaned(thinned, "1m")[0]["ACME"]) == len(thinned)
