"""Cuts: which bars a span holds, and that no label reaches over a cut."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.calendars import session_closes, sessions_of
from engine.data.cuts import check_cuts, decision_slice, labelled_slice
from engine.errors import ConfigError, DataError

WEEK = session_closes(pd.DatetimeIndex(["2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08"]))


def test_a_span_includes_both_of_its_ends():
    assert decision_slice(WEEK, (date(2024, 3, 5), date(2024, 3, 7))) == slice(1, 4)


@pytest.mark.parametrize(
    "span", [(date(2023, 1, 1), date(2023, 12, 31)), (date(2024, 3, 9), date(2024, 3, 20)), (date.min, date.min)]
)
def test_a_span_without_bars_is_empty(span: tuple[date, date]):
    taken = decision_slice(WEEK, span)
    assert taken.start == taken.stop
    assert labelled_slice(WEEK, span, horizon=3) == taken


def test_spans_may_reach_beyond_all_times():
    assert decision_slice(WEEK, (date.min, date.max)) == slice(0, 5)


def test_labels_end_inside_the_span():
    week = (date(2024, 3, 4), date(2024, 3, 8))
    assert labelled_slice(WEEK, week, horizon=1) == slice(0, 4)
    assert labelled_slice(WEEK, week, horizon=2, embargo=1) == slice(0, 2)
    assert labelled_slice(WEEK, week, horizon=9) == slice(0, 0)


@pytest.mark.parametrize(("horizon", "embargo", "named"), [(0, 0, "horizon"), (1, -1, "embargo")])
def test_impossible_numbers_of_bars_are_refused(horizon: int, embargo: int, named: str):
    with pytest.raises(ConfigError, match=named):
        labelled_slice(WEEK, (date(2024, 3, 4), date(2024, 3, 8)), horizon=horizon, embargo=embargo)


def test_a_label_over_the_cut_is_an_error_that_names_it():
    times = {"A": WEEK, "B": WEEK}
    # Each symbol by itself is cut cleanly: only together does B's last label meet A's first decision.
    parts = {
        "train": {"A": slice(0, 1), "B": slice(0, 3)},
        "validate": {"A": slice(2, 4), "B": slice(4, 5)},
    }
    with pytest.raises(DataError, match=r"train \(B\) ends at 2024-03-07 .* validate \(A\) at 2024-03-06"):
        check_cuts(times, parts, horizon=1)


def test_a_label_that_ends_at_the_next_decision_is_an_error():
    with pytest.raises(DataError, match="move the spans apart"):
        check_cuts({"A": WEEK}, {"train": {"A": slice(0, 2)}, "test": {"A": slice(2, 4)}}, horizon=1)
    check_cuts({"A": WEEK}, {"train": {"A": slice(0, 1)}, "test": {"A": slice(2, 4)}}, horizon=1)


def test_parts_that_do_not_touch_their_neighbour_are_checked_too():
    parts = {"train": {"A": slice(0, 4)}, "validate": {"A": slice(2, 2)}, "test": {"A": slice(3, 5)}}
    with pytest.raises(DataError, match=r"train .* test"):
        check_cuts({"A": WEEK}, parts, horizon=1)


def test_a_label_beyond_the_last_bar_is_an_error():
    with pytest.raises(DataError, match="beyond the last bar"):
        check_cuts({"A": WEEK}, {"train": {"A": slice(0, 5)}, "test": {"A": slice(0, 1)}}, horizon=1)


def minute_times(seed: int, count: int) -> pd.DatetimeIndex:
    """Increasing times over some weeks, gaps and the change of clocks included."""
    steps = np.random.default_rng(seed).integers(1, 900, size=count)
    return pd.DatetimeIndex(
        np.datetime64("2024-03-04T14:31", "ns") + np.cumsum(steps).astype("timedelta64[m]"), tz="UTC"
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 150), first=st.integers(-3, 40), days=st.integers(0, 40))
def test_a_slice_holds_just_the_bars_whose_session_is_in_the_span(seed: int, count: int, first: int, days: int):
    times = minute_times(seed, count)
    span = (date(2024, 3, 4) + timedelta(first), date(2024, 3, 4) + timedelta(first + days))
    sessions = sessions_of(times)
    inside = np.flatnonzero((sessions >= pd.Timestamp(span[0])) & (sessions <= pd.Timestamp(span[1])))
    taken = decision_slice(times, span)
    assert list(range(taken.start, taken.stop)) == inside.tolist()


@settings(max_examples=80, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    count=st.integers(0, 150),
    lengths=st.tuples(st.integers(1, 25), st.integers(1, 25), st.integers(1, 25)),
    gaps=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    horizon=st.integers(1, 12),
    embargo=st.integers(0, 5),
)
def test_labels_never_reach_the_next_span(seeds, count, lengths, gaps, horizon, embargo):
    times = {f"S{i}": minute_times(seed, count + 7 * i) for i, seed in enumerate(seeds)}
    spans, start = {}, date(2024, 3, 4)
    for name, length, gap in zip(("train", "validate", "test"), lengths, (*gaps, 0), strict=True):
        spans[name] = (start, start + timedelta(length - 1))
        start = spans[name][1] + timedelta(1 + gap)
    parts = {
        name: {s: labelled_slice(t, span, horizon=horizon, embargo=embargo) for s, t in times.items()}
        for name, span in spans.items()
    }
    check_cuts(times, parts, horizon=horizon)
    # The same promise, written out bar by bar.
    for earlier, later in (("train", "validate"), ("train", "test"), ("validate", "test")):
        ends = [times[s][p + horizon] for s, taken in parts[earlier].items() for p in range(taken.start, taken.stop)]
        starts = [times[s][p] for s, taken in parts[later].items() for p in range(taken.start, taken.stop)]
        assert not ends or not starts or max(ends) < min(starts)
    # No more is given away than the horizon and the embargo ask for.
    for s, t in times.items():
        whole = decision_slice(t, spans["train"])
        kept = parts["train"][s]
        assert kept.stop - kept.start == max(0, whole.stop - whole.start - horizon - embargo)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), horizon=st.integers(1, 5), cut=st.integers(20, 80), overlap=st.integers(1, 5))
def test_a_planted_overlap_is_always_found(seed: int, horizon: int, cut: int, overlap: int):
    times = {"A": minute_times(seed, 100)}
    parts = {"train": {"A": slice(0, cut - horizon + overlap)}, "test": {"A": slice(cut, 100)}}
    with pytest.raises(DataError):
        check_cuts(times, parts, horizon=horizon)
