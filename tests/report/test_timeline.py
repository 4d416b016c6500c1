"""The drawing of bars, spans and folds, and the stamp of who is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sample_run import sample_run

from engine.compare import compare
from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.timeline import timeline
from engine.data.universe import Membership
from engine.errors import ConfigError, DataError
from engine.report.run import write_run
from engine.report.tear_sheet import render_report
from engine.report.timeline import folds_figure

NOW = datetime(2026, 11, 23, 7, 44, 6, tzinfo=UTC)
UNIVERSE = {"members": 612, "with_bars": 505, "without_bars": 107, "without_bars_pct": 17.48, "named": False}


def bars(**counts: int) -> Bars:
    """Daily bars from 2024-01-01 on, every business day."""
    frames = {}
    for symbol, count in counts.items():
        ends = pd.bdate_range("2024-01-01", periods=count, tz="UTC", name="time").shift(21, "h").as_unit("ns")
        frames[symbol] = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0), index=ends)
    return Bars(frames=frames, timeframe="1d", adjustment="none", source="test")


def config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "drawn",
            "data": {"source": "files", "symbols": ["A"]},
            "spans": {"train": ["2024-01-01", "2024-01-19"], "test": ["2024-01-22", "2024-02-09"]},
            "strategy": {"kind": "a:B"},
            **sections,
        }
    )


def test_spans_and_folds_with_what_is_left_out() -> None:
    walk = {"train": 15, "validate": 5, "test": 10, "embargo": 1}
    found = timeline(config(folds=walk), bars(A=40, B=12), horizon=2)
    assert found["months"] == [["2024-01-01", 2], ["2024-02-01", 1]]
    assert found["spans"] == {"train": ["2024-01-01", "2024-01-19"], "test": ["2024-01-22", "2024-02-09"]}
    assert found["folds"] == [
        {
            "train": [["2024-01-01", "2024-01-19"]],
            "validate": [["2024-01-22", "2024-01-26"]],
            "test": [["2024-01-29", "2024-02-09"]],
            "purged": [["2024-01-18", "2024-01-19"], ["2024-01-25", "2024-01-26"]],
            "embargoed": [["2024-01-17", "2024-01-17"], ["2024-01-24", "2024-01-24"]],
        }
    ]
    combined = {"kind": "combinatorial", "parts": 3, "test_parts": 1, "embargo": 2}
    middle = timeline(config(folds=combined), bars(A=60), horizon=1)["folds"][1]
    assert middle["train"] == [["2024-01-01", "2024-01-12"], ["2024-01-29", "2024-02-09"]]
    assert middle["purged"] == [["2024-01-12", "2024-01-12"], ["2024-01-29", "2024-01-29"]]
    assert middle["embargoed"] == [["2024-01-30", "2024-01-31"]]


def test_folds_that_do_not_fit_or_leak_are_errors() -> None:
    with pytest.raises(
        ConfigError, match=r"one fold needs 31 sessions .* the data have 30 from 2024-01-01 to 2024-02-09"
    ):
        timeline(config(folds={"train": 30, "test": 1}), bars(A=60), horizon=0)
    with pytest.raises(DataError, match="a fold leaks"):
        timeline(config(folds={"train": 10, "test": 10, "purge": 1}), bars(A=60), horizon=2)


def test_of_a_universe_members_are_counted_and_those_with_bars() -> None:
    spells = {
        "A": ((date(2024, 1, 1), date(2024, 2, 1)),),
        "B": ((date(2024, 1, 1), None),),
        "GONE": ((date(2024, 2, 15), None),),
    }
    known = replace(bars(A=40, B=40), membership=Membership(spells))
    assert timeline(config(), known, horizon=0)["months"] == [["2024-01-01", 2, 2], ["2024-02-01", 1, 2]]


def drawn(figure: dict[str, Any]) -> dict[str, list[tuple[str, str, str]]]:
    """Part -> (row, from, up to) of its strips."""
    found = {}
    for trace in figure["data"]:
        if trace.get("yaxis") != "y2":
            x, y = trace["x"], trace["y"]
            found[trace["name"]] = [(y[at], x[at], x[at + 1]) for at in range(0, len(x), 3)]
    return found


def test_the_figure_has_a_row_of_strips_for_the_spans_and_each_fold() -> None:
    made = timeline(config(folds={"train": 15, "validate": 5, "test": 10, "embargo": 1}), bars(A=40, B=12), horizon=2)
    figure = folds_figure(made)
    assert drawn(figure) == {
        "Train": [("Spans", "2024-01-01", "2024-01-20"), ("Fold 1", "2024-01-01", "2024-01-20")],
        "Validate": [("Fold 1", "2024-01-22", "2024-01-27")],
        "Test": [("Spans", "2024-01-22", "2024-02-10"), ("Fold 1", "2024-01-29", "2024-02-10")],
        "Purged": [("Fold 1", "2024-01-18", "2024-01-20"), ("Fold 1", "2024-01-25", "2024-01-27")],
        "Embargoed": [("Fold 1", "2024-01-17", "2024-01-18"), ("Fold 1", "2024-01-24", "2024-01-25")],
    }
    assert figure["layout"]["yaxis"]["categoryarray"] == ["Fold 1", "Spans"]
    counts = [trace for trace in figure["data"] if trace.get("yaxis") == "y2"]
    assert [(trace["name"], trace["x"], trace["y"]) for trace in counts] == [
        ("With bars", ["2024-01-01", "2024-02-01"], [2, 1])
    ]
    assert "Purged bars" in " ".join(figure["notes"])


def test_many_folds_are_cut_short_and_it_says_so() -> None:
    made = timeline(config(folds={"train": 5, "test": 5, "step": 1}), bars(A=40), horizon=0)
    many = made | {"folds": made["folds"] * 5}
    figure = folds_figure(many)
    assert len(figure["layout"]["yaxis"]["categoryarray"]) == 41
    assert figure["notes"][-1] == f"The first 40 of {len(many['folds'])} folds are drawn."
    assert "Purged" not in drawn(figure)


def test_the_report_draws_it_and_stamps_who_is_missing(tmp_path: Path) -> None:
    made = timeline(config(folds={"train": 10, "test": 10}), bars(A=40), horizon=1)
    page = render_report(sample_run(bars=60, forecasts=False, timeline=made, universe=UNIVERSE))
    assert "Bars, spans and folds" in page
    assert '"Fold 1"' in page
    assert "SURVIVORSHIP: 107 of 612 members have no bars" in page
    plain = render_report(sample_run(bars=60, forecasts=False, universe={**UNIVERSE, "without_bars": 0}))
    assert "Bars, spans and folds" not in plain
    assert "SURVIVORSHIP" not in plain
    for name, more in (("base", {}), ("other", {"universe": UNIVERSE})):
        write_run(sample_run(name=name, bars=60, forecasts=False, **more), tmp_path, now=NOW)
    report = compare(["base", "other"], root=tmp_path, now=NOW)
    assert "SURVIVORSHIP: 107 of 612 members have no bars" in report.path.read_text()
