"""Cleaning as a whole: what comes out is canonical, written down, the same the second time, and causal."""

import itertools
import time

import numpy as np
import pandas as pd
import pytest
from cleaning_bars import changed, cleaned, days, found, minutes, without
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import CleaningConfig
from engine.data.bars import COLUMNS, bars_of
from engine.data.cleaning.pipeline import clean
from engine.data.quality import KINDS, REPAIR_COLUMNS
from engine.data.raw import Raw
from engine.data.samples import SAMPLES, load_sample, read_sample
from engine.data.validation import validated
from engine.errors import DataError

EXPECTED = {
    "tech": {"jump": 1, "late_start": 1},
    "large20": {"stale": 672, "spike": 1, "jump": 32},
    "sp500": {},
    "minutes": {"gap": 5052, "late_start": 1},
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_come_through_unchanged_to_the_bit(name: str):
    symbols = SAMPLES[name].symbols
    raw = read_sample(name, symbols)
    frames, quality = clean(raw, CleaningConfig())
    assert bars_of(raw, frames, quality).content_hash == load_sample(name, symbols).content_hash
    assert quality.repairs.empty
    assert {finding.action for finding in quality.findings} <= {"flagged"}
    assert dict(quality.counts()) == EXPECTED[name]


def test_a_real_crash_is_flagged_at_most():
    frames, quality = clean(read_sample("tech", ("AAPL",)), CleaningConfig())
    (jump,) = found(quality, "jump")
    assert f"{jump.time:%Y-%m-%d}" == "2000-09-29"
    assert len(frames["AAPL"]) == len(load_sample("tech", ("AAPL",)).frames["AAPL"])


def test_clean_bars_have_no_findings():
    frame = days()
    frames, quality = cleaned({"ACME": frame, "OTHER": days(seed=2)})
    pd.testing.assert_frame_equal(frames["ACME"], frame, check_freq=False)
    assert quality.findings == ()
    assert quality.repairs.empty
    assert quality.checked == KINDS


def test_what_was_given_stays_as_it_was():
    frame = changed(days(), 5, high=np.nan, close=float(days().iloc[5]["close"]))
    before = frame.copy(deep=True)
    frames, _ = cleaned(frame, missing_value="repair", spike="repair")
    frames["ACME"].iloc[0, 0] = 1.0
    pd.testing.assert_frame_equal(frame, before)


def test_columns_in_another_order_and_of_other_types():
    frame = days().round(0)
    messy = frame[list(reversed(COLUMNS))].astype(object).assign(note="x")
    messy.index = messy.index.tz_convert("Asia/Tokyo").as_unit("s")
    frames, _ = cleaned(messy, impossible="repair")
    assert tuple(frames["ACME"].columns) == COLUMNS
    np.testing.assert_array_equal(frames["ACME"]["close"], frame["close"])
    assert str(frames["ACME"].index.dtype) == "datetime64[ns, UTC]"


def test_every_change_is_a_row():
    frame = changed(changed(days(), 5, close=-1.0), 7, high=1.0)
    _, quality = cleaned(frame)
    assert tuple(quality.repairs.columns) == REPAIR_COLUMNS
    assert list(quality.repairs["column"]) == [*COLUMNS, *COLUMNS]
    assert list(quality.repairs["time"]) == [frame.index[5]] * 5 + [frame.index[7]] * 5
    assert set(quality.repairs["rule"]) == {"impossible: drop"}
    assert quality.repairs["before"].iloc[3] == -1.0
    assert quality.repairs["after"].isna().all()


def test_fewer_than_two_bars_are_refused():
    for count, message in ((0, "found 0"), (1, "found 1")):
        with pytest.raises(DataError, match=f"ACME: at least two bars are needed, {message}"):
            cleaned(days(5).iloc[:count])
    with pytest.raises(DataError, match="at least two bars are needed, found 1 after 2 were dropped"):
        cleaned(changed(changed(days(3), 0, close=-1.0), 2, close=-1.0))


def test_what_is_no_frame_of_bars_is_refused():
    with pytest.raises(DataError, match="no column for low, volume"):
        cleaned(days().drop(columns=["low", "volume"]))
    with pytest.raises(DataError, match="times without a zone"):
        cleaned(days().tz_localize(None))
    with pytest.raises(DataError, match="the close is not a number, found 'x'"):
        cleaned(days().astype({"close": object}).assign(close="x"))
    with pytest.raises(DataError, match="bar 3: the time is missing"):
        cleaned(days().set_axis(days().index[:2].append([pd.DatetimeIndex([pd.NaT], tz="UTC"), days().index[3:]])))


# --- order and repetition ---------------------------------------------------------------------------------------------


def test_bars_are_sorted():
    frame = days()
    frames, quality = cleaned(frame.iloc[::-1])
    pd.testing.assert_frame_equal(frames["ACME"], frame, check_freq=False)
    (finding,) = found(quality, "disorder")
    assert (finding.action, finding.count) == ("repaired", len(frame) - 1)
    assert "the newest bar came first" in finding.detail
    shuffled = frame.iloc[[0, 2, 1, *range(3, len(frame))]]
    (finding,) = found(cleaned(shuffled)[1], "disorder")
    assert (finding.count, finding.time) == (1, frame.index[1])
    with pytest.raises(DataError, match=r"bar 3 \(2023-01-04 .*earlier than the bar before it; .*disorder: repair"):
        cleaned(shuffled, disorder="refuse")


def test_a_bar_that_is_there_twice_is_kept_once():
    frame = days()
    twice = frame.iloc[[0, 1, 1, *range(2, len(frame)), 5]]
    frames, quality = cleaned(twice)
    pd.testing.assert_frame_equal(frames["ACME"], frame, check_freq=False)
    (finding,) = found(quality, "duplicate")
    assert (finding.count, finding.action, finding.time, finding.last) == (2, "dropped", frame.index[1], frame.index[5])
    with pytest.raises(DataError, match=r"the same time as row 11, with the same values; .*duplicate: drop"):
        cleaned(twice.iloc[:8], raw={"rows": {"ACME": np.arange(10, 18)}}, duplicate="refuse")


def test_bars_of_one_time_that_differ_are_refused_or_the_last_one_is_kept():
    frame = days()
    other = frame.iloc[[1]] * [1, 1, 1, 1, 2]
    both = pd.concat([frame.iloc[:2], other, frame.iloc[2:]])
    raw = {"rows": {"ACME": np.arange(2, 123)}, "origins": {"ACME": "acme.csv"}}
    message = (
        r"acme.csv, ACME, row 4 \(2023-01-04 21:00 UTC\): the same time as row 3, with other values "
        r"\(volume .* and .*\); remove one, or set data.cleaning.conflict: drop, which keeps the last"
    )
    with pytest.raises(DataError, match=message):
        cleaned(both, raw=raw)
    frames, quality = cleaned(both, raw=raw, conflict="drop")
    assert frames["ACME"]["volume"].iloc[1] == other["volume"].iloc[0]
    assert len(frames["ACME"]) == len(frame)
    assert found(quality, "conflict")[0].count == 1
    assert set(quality.repairs["rule"]) == {"conflict: drop"}


def test_a_bad_bar_does_not_contradict_the_good_one_of_its_time():
    frame = days()
    both = pd.concat([frame.iloc[:2], changed(frame, 1, close=np.nan).iloc[[1]], frame.iloc[2:]])
    frames, quality = cleaned(both)
    pd.testing.assert_frame_equal(frames["ACME"], frame, check_freq=False)
    assert dict(quality.counts()) == {"missing_value": 1}


# --- properties -------------------------------------------------------------------------------------------------------

POLICIES = {
    name: st.sampled_from([value for value in values if value != "refuse"])
    for name, values in {
        "conflict": ("drop",),
        "missing_value": ("drop", "repair"),
        "impossible": ("drop", "repair"),
        "off_session": ("drop", "flag"),
        "stale": ("flag", "drop"),
        "spike": ("flag", "drop", "repair"),
        "zero_volume": ("flag", "drop"),
    }.items()
}
YEAR = pd.Timedelta(days=364)
NUMBERS = st.one_of(
    st.floats(),
    st.floats(min_value=90.0, max_value=110.0),
    st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, 5e-324, 1e-300, 100.0, 100.0 + 1e-7]),
)


@st.composite
def frames_of_any_kind(draw: st.DrawFn, *, timeframe: str) -> pd.DataFrame:
    base = days(70, seed=draw(st.integers(0, 3))) if timeframe != "5m" else minutes("2023-11-22", "2023-11-24", step=5)
    frame = base.iloc[: draw(st.sampled_from([70, 200, 20, 40, 3, 2, 1, 0]))].copy()
    if len(frame):
        for bar, column, value in draw(
            st.lists(st.tuples(st.integers(0, len(frame) - 1), st.integers(0, 4), NUMBERS), max_size=8)
        ):
            frame.iloc[bar, column] = value
        for bar, length in draw(st.lists(st.tuples(st.integers(0, len(frame) - 1), st.integers(1, 15)), max_size=2)):
            frame.iloc[bar : bar + length] = frame.iloc[bar].to_numpy()
        some = st.lists(st.integers(0, len(frame) - 1), max_size=6)
        order = list(range(len(frame)))
        for bar in draw(some):
            order.insert(draw(st.integers(0, len(order))), bar)
        frame = frame.iloc[[bar for bar in order if bar not in draw(st.just(draw(some)))]]
    years = draw(st.sampled_from([0] * 9 + [200, -130, -200]))
    return frame.set_axis(frame.index + pd.Timedelta(hours=draw(st.sampled_from([0] * 6 + [1, 24]))) + years * YEAR)


@settings(max_examples=120, deadline=None)
@given(data=st.data(), timeframe=st.sampled_from(["1d", "5m", "1w"]))
def test_any_frames_become_canonical_and_stay_so_or_are_refused(data: st.DataObject, timeframe: str):
    frames = {
        s: data.draw(frames_of_any_kind(timeframe=timeframe)) for s in ("ACME", "OTHER")[: data.draw(st.integers(1, 2))]
    }
    policy = {name: data.draw(values) for name, values in POLICIES.items()}
    market = {"market": data.draw(st.booleans())}
    try:
        once, quality = cleaned(frames, timeframe, raw=market, **policy)
    except DataError:
        return
    for symbol, frame in once.items():
        assert validated(frame, symbol=symbol, origin="").equals(frame)
    again, second = cleaned(once, timeframe, raw=market, **policy)
    for symbol, frame in once.items():
        pd.testing.assert_frame_equal(again[symbol], frame, check_exact=True)
    assert second.repairs.empty
    lost = sum(map(len, frames.values())) - sum(map(len, once.values()))
    dropped = quality.repairs[quality.repairs["after"].isna() & (quality.repairs["column"] == "volume")]
    assert len(dropped) == lost == sum(f.count for f in quality.findings if f.action == "dropped")


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_cutting_the_future_changes_no_bar(data: st.DataObject):
    frame = data.draw(frames_of_any_kind(timeframe="1d"))
    frame = frame.iloc[np.argsort(frame.index, kind="stable")]
    policy = {name: data.draw(values) for name, values in POLICIES.items() if name != "spike"}
    end = data.draw(st.integers(0, max(len(frame) - 1, 0)))
    try:
        whole, _ = cleaned(frame, **policy)
        part, _ = cleaned(frame[frame.index <= frame.index[end]], **policy)
    except DataError:
        return
    expected = whole["ACME"].loc[: frame.index[end]]
    pd.testing.assert_frame_equal(part["ACME"], expected, check_exact=True)


def test_faults_of_one_symbol_do_not_touch_another():
    good, bad = days(seed=2), changed(days(), 3, close=np.nan).iloc[::-1]
    alone, _ = cleaned({"GOOD": good})
    for names in itertools.permutations(("AAA", "GOOD", "ZZZ")):
        frames, _ = cleaned({name: good if name == "GOOD" else bad for name in sorted(names)})
        pd.testing.assert_frame_equal(frames["GOOD"], alone["GOOD"], check_exact=True)


def test_without_a_calendar_the_kinds_that_need_it_are_not_checked():
    holed = without(days(), 5, 6)
    _, quality = cleaned(holed, raw={"market": False})
    assert not set(quality.checked) & {"gap", "off_session", "late_start", "early_end"}
    assert quality.findings == ()
    _, quality = cleaned({"A": holed, "B": holed}, raw={"close_only": True})
    assert set(KINDS) - set(quality.checked) == {"zero_volume"}


def test_hundreds_of_symbols_are_cleaned_in_a_moment():
    frame = days(1200, start="2018-01-02")
    raw = Raw(frames={f"S{n:03}": frame for n in range(300)}, timeframe="1d", adjustment="none", source="files")
    start = time.process_time()
    clean(raw, CleaningConfig())
    # About 0.2 s on two idle cores; far from what a loop over the rows would take.
    assert time.process_time() - start < 3.0
