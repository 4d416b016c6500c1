"""Folds: where they lie, what is left out of them, and that none of them leaks."""

from __future__ import annotations

import itertools
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.config import FoldsConfig
from engine.data.calendars import session_hours, sessions_of
from engine.data.folds import Fold, check_fold, folds_of, rows_of, sessions_between
from engine.errors import ConfigError, DataError

EVERYTHING = (date(2000, 1, 1), date(2030, 1, 1))


def days(count: int, *, start: str = "2024-01-01") -> pd.DatetimeIndex:
    """Bar ends at 21:00 UTC of consecutive business days."""
    return (pd.bdate_range(start, periods=count) + pd.Timedelta(hours=21)).tz_localize("UTC").as_unit("ns")


def folds(times: dict[str, pd.DatetimeIndex], **section: Any) -> tuple[Fold, ...]:
    return folds_of(FoldsConfig.model_validate(section), sessions_between(times, EVERYTHING))


def positions(spans: tuple[tuple[date, date], ...], times: pd.DatetimeIndex) -> list[tuple[int, int]]:
    """First and last position of each stretch."""
    known = [day.date() for day in sessions_of(times)]
    return [(known.index(first), known.index(last)) for first, last in spans]


def test_sliding_folds_move_and_expanding_ones_grow() -> None:
    times = days(20)
    sliding = folds({"A": times}, train=6, validate=2, test=3)
    assert [[positions(part, times) for part in fold.named().values()] for fold in sliding] == [
        [[(0, 5)], [(6, 7)], [(8, 10)]],
        [[(3, 8)], [(9, 10)], [(11, 13)]],
        [[(6, 11)], [(12, 13)], [(14, 16)]],
        [[(9, 14)], [(15, 16)], [(17, 19)]],
    ]
    growing = folds({"A": times}, kind="expanding", train=6, test=3, step=5)
    assert [[positions(part, times) for part in fold.named().values()] for fold in growing] == [
        [[(0, 5)], [(6, 8)]],
        [[(0, 10)], [(11, 13)]],
        [[(0, 15)], [(16, 18)]],
    ]


def test_combinatorial_folds_are_all_choices_of_the_tested_parts() -> None:
    times = days(11)
    made = folds({"A": times}, kind="combinatorial", parts=5, test_parts=2)
    assert len(made) == 10
    # Two days a part, the last one takes the rest; neighbours are one stretch.
    assert (positions(made[0].train, times), positions(made[0].test, times)) == ([(4, 10)], [(0, 3)])
    assert (positions(made[5].train, times), positions(made[5].test, times)) == (
        [(0, 1), (4, 5), (8, 10)],
        [(2, 3), (6, 7)],
    )
    assert all(not fold.validate for fold in made)


def test_sessions_are_those_of_any_symbol_inside_the_span() -> None:
    times = {"A": days(4), "B": days(3, start="2024-01-04"), "C": days(0)}
    assert sessions_between(times, (date(2024, 1, 2), date(2024, 1, 5))) == tuple(
        date(2024, 1, d) for d in (2, 3, 4, 5)
    )
    assert sessions_between({}, EVERYTHING) == ()


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        (
            {"train": 6, "validate": 2, "test": 13},
            "one fold needs 21 sessions .train 6, validate 2, test 13., and the ",
        ),
        (
            {"kind": "combinatorial", "parts": 21, "test_parts": 1},
            "21 parts need 21 sessions, and the data have 20 from",
        ),
        ({"kind": "combinatorial", "parts": 20, "test_parts": 10}, "184,756 folds, expected 1,000 at most"),
    ],
)
def test_folds_that_do_not_fit(section: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        folds({"A": days(20)}, **section)
    with pytest.raises(ConfigError, match="none within the spans"):
        folds({}, train=2, test=1)


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"test": 3}, "sliding folds need train and test, found no train"),
        ({"kind": "combinatorial", "parts": 5}, "combinatorial folds need parts and test_parts, found no test_parts"),
        ({"train": 3, "test": 3, "parts": 5}, "sliding folds have no parts"),
        ({"kind": "combinatorial", "parts": 5, "test_parts": 2, "step": 1}, "have no step"),
        ({"kind": "combinatorial", "parts": 5, "test_parts": 5}, "found 5 of 5"),
        ({"train": 0, "test": 3}, "greater than or equal to 1"),
    ],
)
def test_what_folds_cannot_be(section: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        FoldsConfig.model_validate(section)


# --- what is left out -----------------------------------------------------------------------------------------------


def test_a_label_ends_before_the_next_part_begins() -> None:
    times = {"A": days(20)}
    (fold,) = folds(times, train=10, validate=5, test=5)
    rows = rows_of(fold, times, horizon=2, purge=2, embargo=1)
    assert rows["train"]["A"].tolist() == list(range(7))
    assert rows["validate"]["A"].tolist() == [10, 11]
    assert rows["test"]["A"].tolist() == [15, 16, 17]  # the last two have no label


def test_combinatorial_folds_are_cut_on_both_sides_of_what_is_tested() -> None:
    times = {"A": days(30)}
    fold = folds(times, kind="combinatorial", parts=3, test_parts=1)[1]
    rows = rows_of(fold, times, horizon=2, purge=2, embargo=3)
    # 10 to 19 are tested; the labels of 8 and 9 end among them, those of 18 and 19 at 20 and 21.
    assert rows["test"]["A"].tolist() == list(range(10, 20))
    assert rows["train"]["A"].tolist() == [*range(8), 25, 26, 27]


def test_a_thin_symbol_holds_back_the_others() -> None:
    """Its last tested label ends later than theirs, in time."""
    whole = days(30)
    times = {"A": whole, "THIN": whole[[0, 4, 9, 12, 18, 24, 26, 28, 29]]}
    fold = folds(times, kind="combinatorial", parts=3, test_parts=1)[1]
    rows = rows_of(fold, times, horizon=1, purge=1)
    # THIN's bar of day 18 is tested, and its label ends on day 24.
    assert rows["test"]["THIN"].tolist() == [3, 4]
    assert rows["train"]["A"].tolist() == [*range(9), *range(25, 29)]
    # The label of THIN's bar of day 9 ends on day 12, among what is tested.
    assert rows["train"]["THIN"].tolist() == [0, 1, 6, 7]


def test_only_members_are_taken() -> None:
    times = {"A": days(20), "B": days(20)}
    (fold,) = folds(times, train=10, test=10)
    inside = {"A": np.ones(20, dtype=bool), "B": np.arange(20) % 2 == 0}
    rows = rows_of(fold, times, horizon=1, purge=1, inside=inside)
    assert rows["train"]["B"].tolist() == [0, 2, 4, 6, 8]
    assert rows["test"]["A"].tolist() == list(range(10, 19))


@pytest.mark.parametrize("section", [{"train": 10, "test": 10}, {"kind": "combinatorial", "parts": 4, "test_parts": 2}])
def test_a_purge_below_the_horizon_leaks_and_is_an_error(section: dict[str, Any]) -> None:
    times = {"A": days(40), "B": days(30)}
    for fold in folds(times, **section):
        rows_of(fold, times, horizon=5, purge=5)
        with pytest.raises(DataError, match=r"a fold leaks: the label of train .* set folds.purge"):
            rows_of(fold, times, horizon=5, purge=4)


# --- the check, by itself -------------------------------------------------------------------------------------------


def taken(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def test_hand_made_leaks_are_found() -> None:
    times = {"A": days(20), "B": days(20)}
    good = {"train": {"A": taken(0, 1, 2)}, "test": {"B": taken(6, 7)}}
    check_fold(times, good, horizon=3, forward=True)
    with pytest.raises(DataError, match=r"train \(A\) decided at 2024-01-03 21:00 UTC ends at 2024-01-09 21:00 UTC"):
        check_fold(times, good, horizon=4, forward=True)
    with pytest.raises(DataError, match="leaks: the label of validate"):
        check_fold(times, {"train": {}, "validate": {"B": taken(7)}, "test": {"A": taken(8)}}, horizon=1, forward=True)
    # Training after testing is what combinatorial folds do, and a leak elsewhere.
    after = {"train": {"A": taken(10)}, "test": {"B": taken(6, 7)}}
    check_fold(times, after, horizon=2, forward=False)
    with pytest.raises(DataError, match="leaks"):
        check_fold(times, after, horizon=2, forward=True)
    # The label of B's bar 7 ends at bar 10, that of bar 6 at 9.
    with pytest.raises(DataError, match="leaks"):
        check_fold(times, after, horizon=3, forward=False)
    check_fold(times, after, horizon=2, embargo=0, forward=False)
    with pytest.raises(DataError, match="leaks"):
        check_fold(times, after, horizon=2, embargo=1, forward=False)
    # In between two tested stretches.
    check_fold(times, {"train": {"A": taken(8)}, "test": {"B": taken(2, 14)}}, horizon=5, forward=False)
    with pytest.raises(DataError, match="leaks"):
        check_fold(times, {"train": {"A": taken(9)}, "test": {"B": taken(2, 14)}}, horizon=5, forward=False)
    # A long stretch that begins before a short one is not hidden by it.
    thin = {"A": days(20), "B": days(20)[[1, 15, 16]]}
    with pytest.raises(DataError, match="leaks"):
        check_fold(thin, {"train": {"A": taken(9)}, "test": {"A": taken(4), "B": taken(0)}}, horizon=1, forward=False)


def test_a_label_beyond_the_last_bar_is_an_error() -> None:
    times = {"A": days(4), "B": days(9)}
    with pytest.raises(DataError, match=r"train, A: the label of the bar at 2024-01-03 .* beyond the last bar"):
        check_fold(times, {"train": {"A": taken(2)}, "test": {"B": taken(6)}}, horizon=2, forward=True)


SECTIONS = st.one_of(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["sliding", "expanding"]),
            "train": st.integers(4, 20),
            "validate": st.integers(0, 6),
            "test": st.integers(1, 10),
            "step": st.integers(1, 9),
        }
    ),
    st.fixed_dictionaries(
        {"kind": st.just("combinatorial"), "parts": st.integers(3, 5), "test_parts": st.integers(1, 2)}
    ),
)


@settings(max_examples=50, deadline=None)
@given(
    section=SECTIONS,
    kept=st.lists(st.integers(0, 2**45 - 1), min_size=1, max_size=3),
    horizon=st.integers(0, 4),
    more=st.integers(0, 2),
    embargo=st.integers(0, 3),
)
def test_no_fold_of_any_data_leaks(
    section: dict[str, Any], kept: list[int], horizon: int, more: int, embargo: int
) -> None:
    """Pair by pair: no training label shares a moment with a tested one, and every part lies in its own spans."""
    whole = days(45)
    masks = [np.array([bool(bits >> at & 1) for at in range(45)]) for bits in kept]
    times = {f"S{number}": whole[mask] for number, mask in enumerate(masks)} | {"WHOLE": whole}
    for fold in folds(times, **section):
        rows = rows_of(fold, times, horizon=horizon, purge=horizon + more, embargo=embargo)
        assert rows["test"]["WHOLE"].size or horizon
        for (earlier, later), symbol, other in itertools.product(itertools.combinations(rows, 2), times, times):
            own, theirs = times[symbol].asi8, times[other].asi8
            row, tested = rows[earlier][symbol][:, None], rows[later][other][None, :]
            apart = own[row + horizon] < theirs[tested]
            if not fold.forward:
                apart |= own[np.maximum(0, row - embargo)] > theirs[tested + horizon]
            assert apart.all()
        for name, spans in fold.named().items():
            for symbol, found in rows[name].items():
                dates = [day.date() for day in sessions_of(times[symbol][found])]
                assert all(any(first <= day <= last for first, last in spans) for day in dates)


def test_on_one_symbol_they_are_skfolios() -> None:
    from skfolio.model_selection import CombinatorialPurgedCV

    times = {"A": days(103)}
    for parts, tested, purge, embargo in ((5, 2, 3, 0), (6, 2, 2, 4), (4, 3, 0, 1), (10, 2, 1, 1)):
        theirs = CombinatorialPurgedCV(parts, tested, purged_size=purge, embargo_size=embargo)
        ours = folds({"A": times["A"]}, kind="combinatorial", parts=parts, test_parts=tested)
        for fold, (train, tests) in zip(ours, theirs.split(np.zeros((103, 1))), strict=True):
            rows = rows_of(fold, times, horizon=0, purge=purge, embargo=embargo)
            assert rows["test"]["A"].tolist() == np.concatenate(tests).tolist()
            assert rows["train"]["A"].tolist() == train.tolist(), (parts, tested, purge, embargo)


def test_a_symbol_that_is_listed_after_a_tested_stretch_is_embargoed_like_the_others() -> None:
    sessions = session_hours(pd.bdate_range("2019-01-02", "2019-12-31"))[1].dropna().as_unit("ns")
    days = [time.date() for time in sessions_of(sessions)]
    times = {"OLD": sessions, "NEW": sessions[102:], "LATE": sessions[150:]}
    fold = Fold(
        train=((days[0], days[49]), (days[101], days[-1])), validate=(), test=((days[50], days[100]),), forward=False
    )
    rows = rows_of(fold, times, horizon=1, purge=1, embargo=20)["train"]
    first = {symbol: min(times[symbol][taken[times[symbol][taken] > sessions[100]]]) for symbol, taken in rows.items()}
    assert first["NEW"] == first["OLD"]
    assert first["LATE"] == times["LATE"][0]
