"""Bars that may be real: stale ones, spikes, jumps and bars without volume."""

import numpy as np
import pandas as pd
import pytest
from cleaning_bars import changed, cleaned, days, found, minutes

from engine.data.cleaning.findings import changed_in_hindsight
from engine.errors import DataError

PRICES = ["open", "high", "low", "close"]


def scaled(frame: pd.DataFrame, factor: float, *, start: int, end: int | None = None) -> pd.DataFrame:
    """The frame with the prices of some bars multiplied."""
    result = frame.copy()
    result.iloc[start:end, :4] *= factor
    return result


def still(frame: pd.DataFrame, start: int, length: int) -> pd.DataFrame:
    """The frame with the prices of some bars standing still; volumes go on."""
    result = frame.copy()
    result.iloc[start : start + length, :4] = frame.iloc[start, :4].to_numpy()
    return result


# --- stale ------------------------------------------------------------------------------------------------------------


def test_prices_that_stand_still_are_told():
    frame = still(days(), 50, 6)
    frames, quality = cleaned(frame)
    pd.testing.assert_frame_equal(frames["ACME"], frame, check_freq=False)
    (stale,) = found(quality, "stale")
    assert (stale.time, stale.last, stale.count, stale.size) == (frame.index[50], frame.index[55], 6, 6.0)
    assert "for 6 bars" in stale.detail
    assert found(cleaned(still(days(), 50, 4))[1], "stale") == []
    with pytest.raises(DataError, match=r"the four prices stand still .* data.cleaning.stale: flag"):
        cleaned(frame, stale="refuse")


def test_minutes_may_stand_still_for_longer():
    frame = minutes("2023-11-21")
    assert found(cleaned(still(frame, 50, 9), "1m")[1], "stale") == []
    assert found(cleaned(still(frame, 50, 10), "1m")[1], "stale")[0].count == 10


def test_stale_bars_are_dropped_from_when_they_are_known_to_be():
    frame = still(days(), 50, 8)
    frames, quality = cleaned(frame, stale="drop")
    assert list(frames["ACME"].index) == list(frame.index.delete([54, 55, 56, 57]))
    assert [f.action for f in found(quality, "stale")] == ["dropped"]
    assert len(quality.repairs) == 4 * 5


# --- spikes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.15, 10.0])
def test_a_bar_apart_from_both_neighbours_is_a_spike(factor: float):
    frame = scaled(days(), factor, start=60, end=61)
    frames, quality = cleaned(frame)
    pd.testing.assert_frame_equal(frames["ACME"], frame, check_freq=False)
    (spike,) = found(quality, "spike")
    assert (spike.time, spike.count, spike.action) == (frame.index[60], 1, "flagged")
    assert "are apart from" in spike.detail
    assert found(quality, "jump") == []
    assert spike.size > 2.5
    with pytest.raises(DataError, match=r"bar 61 .*apart from .* data.cleaning.spike: flag"):
        cleaned(frame, spike="refuse")


@pytest.mark.parametrize(("column", "factor", "words"), [("high", 1.4, "its high of"), ("low", 0.6, "its low of")])
def test_a_wick_far_from_all_around_it_is_a_spike(column: str, factor: float, words: str):
    frame = days()
    spoilt = changed(frame, 60, **{column: frame.iloc[60][column] * factor})
    (spike,) = found(cleaned(spoilt)[1], "spike")
    assert spike.time == frame.index[60]
    assert words in spike.detail
    assert spike.size > 15.0


def test_a_close_that_comes_back_with_the_next_open_is_a_spike():
    frame = days()
    spoilt = changed(frame, 60, close=frame.iloc[60]["close"] / 2, low=frame.iloc[60]["close"] / 2)
    (spike,) = found(cleaned(spoilt)[1], "spike")
    assert spike.time == frame.index[60]
    frames, _ = cleaned(spoilt, spike="repair")
    assert frames["ACME"].iloc[60]["close"] > 0.9 * frame.iloc[60]["close"]


def test_spikes_are_measured_against_the_symbols_own_moves():
    calm, wild = days(), days()
    wild.iloc[:, :4] = 100.0 * (wild.iloc[:, :4] / 100.0) ** 8
    assert found(cleaned(scaled(calm, 1.1, start=60, end=61))[1], "spike")
    assert not found(cleaned(scaled(wild, 1.1, start=60, end=61))[1], "spike")


def test_crashes_and_ordinary_bars_are_no_spikes():
    for seed in range(20):
        assert found(cleaned(days(500, start="2020-01-02", seed=seed))[1], "spike") == []
    assert found(cleaned(scaled(days(), 0.5, start=60))[1], "spike") == []


def test_a_storm_is_measured_by_itself():
    frame = days(400)
    storm = 100.0 * np.exp(np.cumsum(np.random.default_rng(5).normal(0.0, 0.06, 64)))
    ratio = storm / frame["close"].iloc[192:256].to_numpy()
    frame.iloc[192:256, :4] = frame.iloc[192:256, :4].to_numpy() * ratio[:, None]
    frame.iloc[256:, :4] *= storm[-1] / frame["close"].iloc[255]
    assert found(cleaned(frame)[1], "spike") == []


def test_a_spike_is_dropped_where_that_is_asked_for_and_counts_as_hindsight():
    frame = scaled(days(), 1.5, start=60, end=61)
    frames, quality = cleaned(frame, spike="drop")
    assert list(frames["ACME"].index) == list(frame.index.delete(60))
    assert found(quality, "spike")[0].action == "dropped"
    assert changed_in_hindsight(quality) == 1
    assert changed_in_hindsight(cleaned(frame)[1]) == 0


def test_a_spike_is_repaired_to_the_close_before_it_or_to_what_its_neighbours_reach():
    frame = days()
    spoilt = scaled(changed(frame, 90, high=frame.iloc[90]["high"] * 2), 1.5, start=60, end=61)
    frames, quality = cleaned(spoilt, spike="repair")
    repaired = frames["ACME"]
    assert repaired.iloc[60].tolist() == [frame.iloc[59]["close"]] * 4 + [frame.iloc[60]["volume"]]
    assert repaired.iloc[90]["high"] <= max(frame["high"].iloc[89:92])
    untouched = [bar for bar in range(len(frame)) if bar not in (60, 90)]
    pd.testing.assert_frame_equal(repaired.iloc[untouched], frame.iloc[untouched], check_freq=False)
    assert list(quality.repairs["column"]) == [*PRICES, "high"]
    assert set(quality.repairs["rule"]) == {"spike: repair"}
    assert changed_in_hindsight(quality) == 2


def test_a_short_history_says_nothing_of_what_is_usual():
    assert found(cleaned(scaled(days(10), 2.0, start=5, end=6))[1], "spike") == []


# --- jumps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "split"),
    [(1 / 2, "2:1"), (1 / 4, "4:1"), (2 / 3, "3:2"), (4 / 5, "5:4"), (10.0, "1:10"), (1 / 20, "20:1")],
)
def test_an_unadjusted_split_is_flagged_with_its_ratio(factor: float, split: str):
    frame = scaled(days(), factor, start=60)
    frames, quality = cleaned(frame)
    pd.testing.assert_frame_equal(frames["ACME"], frame, check_freq=False)
    (jump,) = found(quality, "jump")
    assert (jump.time, jump.action, jump.count) == (frame.index[60], "flagged", 1)
    assert f"about a split of {split}," in jump.detail
    assert jump.size == pytest.approx(abs(np.log(factor)), abs=0.02)
    with pytest.raises(DataError, match=r"bar 61 .*it opens at .* data.cleaning.jump: flag"):
        cleaned(frame, jump="refuse")


def test_a_spin_off_is_near_no_split():
    (jump,) = found(cleaned(scaled(days(), 0.45, start=60))[1], "jump")
    assert "no usual split is near" in jump.detail


def test_a_jump_at_the_last_bar_is_told_as_far_as_it_is_known():
    frame = scaled(days(), 0.5, start=119)
    assert found(cleaned(frame)[1], "jump")[0].time == frame.index[-1]


def test_what_comes_back_or_is_usual_is_no_jump():
    frame = days()
    assert found(cleaned(scaled(frame, 0.9, start=60))[1], "jump") == []
    half_back = scaled(scaled(frame, 0.6, start=60), 1.5, start=61)
    assert [f"{jump.time:%m-%d}" for jump in found(cleaned(half_back)[1], "jump")] == []


def actions(time: pd.Timestamp, *, split: float = 1.0, dividend: float = 0.0) -> dict:
    index = pd.DatetimeIndex([time], name="time")
    return {"ACME": pd.DataFrame({"split": [split], "dividend": [dividend]}, index=index)}


def test_known_splits_and_dividends_are_no_jumps():
    frame = scaled(days(), 0.5, start=60)
    assert found(cleaned(frame, raw={"actions": actions(frame.index[60], split=2.0)})[1], "jump") == []
    assert len(found(cleaned(frame, raw={"actions": actions(frame.index[61], split=2.0)})[1], "jump")) == 1
    assert len(found(cleaned(frame, raw={"actions": actions(frame.index[60], split=5.0)})[1], "jump")) == 1
    special = frame["close"].iloc[59] / 2
    assert found(cleaned(frame, raw={"actions": actions(frame.index[60], dividend=special)})[1], "jump") == []


def test_a_known_split_of_minutes_is_found_on_its_morning():
    frame = scaled(minutes("2023-11-20", "2023-11-21"), 0.5, start=390)
    assert len(found(cleaned(frame, "1m")[1], "jump")) == 1
    assert found(cleaned(frame, "1m", raw={"actions": actions(frame.index[-1], split=2.0)})[1], "jump") == []


# --- volume -----------------------------------------------------------------------------------------------------------


def test_bars_without_volume_are_told():
    frame = changed(changed(days(), 5, volume=0.0), 9, volume=0.0)
    (finding,) = found(cleaned(frame)[1], "zero_volume")
    assert (finding.count, finding.time, finding.last) == (2, frame.index[5], frame.index[9])
    frames, quality = cleaned(frame, zero_volume="drop")
    assert list(frames["ACME"].index) == list(frame.index.delete([5, 9]))
    assert set(quality.repairs["rule"]) == {"zero_volume: drop"}
    with pytest.raises(DataError, match=r"bar 6 .*without volume.* data.cleaning.zero_volume: flag"):
        cleaned(frame, zero_volume="refuse")


def test_a_symbol_without_any_volume_is_told_once_and_kept():
    index = days().assign(volume=0.0)
    for policy in ("flag", "drop"):
        frames, quality = cleaned({"ACME": days(seed=2), "INDEX": index}, zero_volume=policy)
        (finding,) = found(quality, "zero_volume")
        assert (finding.symbol, finding.count, finding.action) == ("INDEX", 120, "flagged")
        assert len(frames["INDEX"]) == 120


def test_a_source_without_volumes_has_nothing_to_tell():
    assert cleaned(days().assign(volume=0.0))[1].findings == ()
    frame = changed(days(), 5, volume=0.0)
    assert cleaned(frame, raw={"close_only": True})[1].findings == ()


def test_bars_before_the_first_volume_are_never_dropped():
    frame = days()
    frame.iloc[:10, 4] = 0.0
    frame.iloc[20, 4] = 0.0
    frames, _ = cleaned(frame, zero_volume="drop")
    assert list(frames["ACME"].index) == list(frame.index.delete(20))
