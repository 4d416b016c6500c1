"""``nextbar data check``, and what runs on bars with faults say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from cli_project import Project

from engine.data.samples import load_sample

SPANS = {"test": ["2011-01-01", "2011-06-30"]}
HOLD = {"kind": "strategies.buy_and_hold:BuyAndHold"}


def write_bars(folder: Path, *, conflict: bool = False) -> dict[str, object]:
    """Files of two symbols with an impossible bar in the test span, one long before it, and a missing session."""
    (folder / "bars").mkdir()
    for symbol, frame in load_sample("tech", ("IBM", "MSFT")).frames.items():
        frame = frame.loc["2009":"2012"].copy()
        frame.loc[frame.index[[20]], "high"] = 0.5
        if symbol == "IBM":
            inside = frame.loc["2011-03-01":].index
            frame.loc[inside[0], "close"] = frame.loc[inside[0], "high"] * 2.0
            frame = frame.drop(inside[[5]])
        if conflict:
            frame = pd.concat([frame, frame.iloc[[700]] * 1.01]).sort_index(kind="stable")
        frame.reset_index().to_parquet(folder / "bars" / f"{symbol}.parquet", index=False)
    return {"source": "files", "path": "bars", "symbols": "all"}


def run_file(project: Project, **data: object) -> Path:
    return project.write(data=data, spans=SPANS, model=None, training=None, strategy=HOLD)


def test_a_table_for_people(empty: Project) -> None:
    result = empty.run("data", "check", run_file(empty, **write_bars(empty.folder)))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    for words in ("impossible", "drop", "the worst of them", "of the worst one", "missing, %", "check.html"):
        assert words in result.stderr
    assert (empty.folder / "checks").is_dir()


def test_one_object_for_machines(empty: Project) -> None:
    told = empty.json("data", "check", run_file(empty, **write_bars(empty.folder)))
    assert told["counts"]["impossible"]["bars"] == 3
    assert told["counts"]["gap"]["symbols"] == 1
    assert {own["symbol"]: own["missing"] for own in told["coverage"]} == {"IBM": 1, "MSFT": 0}
    assert Path(told["page"]).is_file()
    assert len(pd.read_parquet(told["repairs"])) == 15


def test_what_loading_would_refuse_ends_with_exit_code_3_after_everything_was_told(empty: Project) -> None:
    path = run_file(empty, **write_bars(empty.folder, conflict=True))
    result = empty.run("data", "check", path, "--json")
    assert result.exit_code == 3, result.stderr
    told = json.loads(result.stdout)
    assert told["status"] == "refused"
    assert [refusal["kind"] for refusal in told["refusals"]] == ["conflict"]
    assert told["counts"]["impossible"]["bars"] == 3
    assert "conflict" in empty.fails(3, "backtest", path)
    table = empty.run("data", "check", path)
    assert "REFUSED" in table.stderr
    mended = empty.run("data", "check", path, "--set", "data.cleaning.conflict=drop")
    assert mended.exit_code == 0, mended.stderr


def test_a_source_that_is_not_there_is_one_sentence(empty: Project) -> None:
    assert "nowhere" in empty.fails(2, "data", "check", run_file(empty, source="files", path="nowhere", symbols="all"))
    assert not (empty.folder / "checks").exists()


# --- runs -------------------------------------------------------------------------------------------------------------


def test_backtest_and_replay_tell_the_faults_of_their_bars_alone_and_the_same(empty: Project) -> None:
    path = run_file(empty, **write_bars(empty.folder), warmup_bars=50)
    empty.json("backtest", path)
    empty.json("paper", path, "--replay")
    backtest, paper = empty.runs
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (backtest, paper)]
    for manifest in manifests:
        assert manifest["quality"]["impossible"] == {
            "bars": 1,
            "symbols": 1,
            "dropped": 1,
            "repaired": 0,
            "flagged": 0,
        }
        assert manifest["quality"]["gap"]["bars"] == 1
        assert manifest["hindsight"] is False
        assert any("cleaning dropped 1 bar of 1 symbol (impossible)" in remark for remark in manifest["remarks"])
    for name in ("metrics.json", "findings.parquet", "repairs.parquet", "fills.parquet"):
        assert (backtest / name).read_bytes() == (paper / name).read_bytes()
    assert "repairs.parquet" in (backtest / "report.html").read_text()


@pytest.mark.parametrize("policy", ["drop", "repair"])
def test_a_run_on_spikes_that_were_cleaned_away_says_so_on_top(empty: Project, policy: str) -> None:
    (empty.folder / "bars").mkdir()
    frame = load_sample("tech", ("IBM",)).frames["IBM"].loc["2009":"2012"].copy()
    frame.loc[frame.loc["2011-03-01":].index[0], ["open", "high", "low", "close"]] *= 3.0
    frame.reset_index().to_parquet(empty.folder / "bars" / "IBM.parquet", index=False)
    data = {"source": "files", "path": "bars", "symbols": ["IBM"], "cleaning": {"spike": policy}}
    report = empty.json("backtest", run_file(empty, **data))
    assert any("CLEANED IN HINDSIGHT" in remark for remark in report["remarks"])
    page = (Path(report["run"]) / "report.html").read_text()
    assert page.index("CLEANED IN HINDSIGHT") < page.index("Equity, drawdown")
    flagged = empty.json("backtest", run_file(empty, **{**data, "cleaning": {"spike": "flag"}}))
    assert "CLEANED IN HINDSIGHT" not in (Path(flagged["run"]) / "report.html").read_text()


def test_training_tells_the_faults_of_the_bars_that_it_fits(empty: Project) -> None:
    data = write_bars(empty.folder)
    remarks = empty.json("train", empty.write(data=data))["remarks"]
    assert len(remarks) == 1
    assert "cleaning dropped 2 bars of 2 symbols (impossible)" in remarks[0]
    assert "gap" not in remarks[0]


def test_a_run_on_clean_bars_writes_no_more_files_than_before(empty: Project) -> None:
    data = {"source": "sample:tech", "symbols": ["IBM", "MSFT"]}
    report = empty.json("backtest", run_file(empty, **data))
    names = {path.name for path in Path(report["run"]).iterdir()}
    assert not names & {"findings.parquet", "repairs.parquet"}
    assert json.loads((Path(report["run"]) / "manifest.json").read_text())["quality"] == {}
