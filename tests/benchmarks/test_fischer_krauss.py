"""The figures of the Fischer-Krauss benchmark by hand, and that its protocol runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks import fischer_krauss
from benchmarks.fischer_krauss import TINY, measure

NAN = np.nan


def test_a_day_is_the_best_less_the_worst_and_turnover_counts_both_sides() -> None:
    days = pd.date_range("2024-01-02", periods=3, tz="UTC")
    scores = pd.DataFrame({"A": [3.0, 1.0, 1.0], "B": [2.0, 3.0, 2.0], "C": [1.0, 2.0, NAN]}, index=days)
    scores.loc[days[2], "A"] = NAN
    ahead = pd.DataFrame({"A": [0.02, 0.01, NAN], "B": [0.01, -0.01, 0.0], "C": [-0.01, 0.0, 0.0]}, index=days)
    found = fischer_krauss._daily(scores, ahead, 1)
    # Long A, short C; then long B, short A; on the third day only B has a score.
    assert found["gross"].tolist() == pytest.approx([0.03, -0.02])
    assert found["half_turns"].tolist() == [2.0, 4.0]  # A 1 and C -1; A -2, B 1, C 1
    assert found["right"].tolist() == [1.0, 0.0]
    earned = fischer_krauss._earned(found)
    assert earned["mean a day, gross, bps"] == pytest.approx(50.0)
    assert earned["mean a day, net, bps"] == pytest.approx(50.0 - 5.0 * 3.0)


def test_who_has_no_next_bar_is_ranked_all_the_same_and_earns_nothing() -> None:
    days = pd.date_range("2024-01-02", periods=2, tz="UTC")
    scores = pd.DataFrame({"A": [3.0, 3.0], "B": [2.0, 2.0], "C": [1.0, 1.0]}, index=days)
    ahead = pd.DataFrame({"A": [NAN, NAN], "B": [0.01, NAN], "C": [-0.01, NAN]}, index=days)
    found = fischer_krauss._daily(scores, ahead, 1)
    assert found["gross"].tolist() == pytest.approx([0.01])  # the short of C alone, not B's; nobody's on the last day


def test_the_protocol_runs_on_one_study_period() -> None:
    cases = [each.case for each in measure(TINY)]
    for name in ("LSTM, at the close", "LSTM, filled at the next open", "reversal, at the close", "equal weight"):
        assert any(case.startswith(name) for case in cases)
    assert all("survivor-biased" in case for case in cases)
