"""Bad input: one sentence with the place of the mistake, the exit code of its kind, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_project import Bars, Project

FILES = {"source": "files", "path": "bars", "symbols": ["ABC"]}
SMA = {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 5, "slow": 20}}
TEST_ONLY = {"test": ["2009-06-01", "2010-06-30"]}


def sma_file(project: Project, **sections: Any) -> Path:
    """A run file that needs no model, on a file of bars."""
    return project.write("files.yaml", **{"data": FILES, "spans": TEST_ONLY, "model": None, "strategy": SMA} | sections)


# --- the run file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("broker.cahs=5", "broker.cahs"),
        ("broker.cash=[1]", "broker.cash"),
        ("broker.cash=lots", "broker.cash"),
        ("spans.test=[2011-06-30, 2011-01-01]", "spans.test"),
        ("spans.test=[2010-01-01, 2011-01-01]", "spans"),
        ("data.symbols=[AAPL, NOPE]", "data.symbols"),
        ("data.timeframe=1m", "data.timeframe"),
        ("data.source=nowhere", "data.source"),
        ("data.benchmark=sample:nothing", "data.benchmark"),
        ("strategy.kind=strategies.nothing:Nothing", "strategy.kind"),
        ("strategy.kind=./missing.py:Mine", "missing.py"),
        ("strategy.params.margn_bps=5", "strategy.params.margn_bps"),
        ("strategy.params.cap=much", "strategy.params.cap"),
        ("model={bundle: nowhere}", "model.bundle"),
        ("nonsense", "--set"),
    ],
)
def test_what_the_run_file_cannot_say(project: Project, override: str, expected: str) -> None:
    assert expected in project.fails(2, "backtest", "run.yaml", "--set", override)
    assert project.runs == []


def test_a_missing_run_file_and_an_unknown_run(project: Project) -> None:
    assert "nowhere.yaml" in project.fails(2, "backtest", "nowhere.yaml")
    assert "no such run" in project.fails(2, "report", "nothing")
    assert "no such run" in project.fails(2, "compare", "latest", "nothing")


def test_usage_errors_exit_with_2(project: Project) -> None:
    for arguments in (["backtest"], ["backtest", "run.yaml", "--nonsense"], ["nonsense"]):
        assert project.run(*arguments).exit_code == 2
    assert "--span" in project.fails(2, "backtest", "run.yaml", "--span", "future")


def test_an_error_with_json_is_one_object_too(project: Project) -> None:
    result = project.run("backtest", "nowhere.yaml", "--json")
    assert result.exit_code == 2
    value = json.loads(result.stdout)
    assert (value["status"], value["exit_code"]) == ("failed", 2)


# --- bars -----------------------------------------------------------------------------------------------------------


def _row(number: int, change: Callable[[list[str]], list[str]]) -> Callable[[list[str]], list[str]]:
    def changed(rows: list[str]) -> list[str]:
        return [",".join(change(row.split(","))) if i == number else row for i, row in enumerate(rows)]

    return changed


REFUSE = dict.fromkeys(("duplicate", "disorder", "missing_value", "impossible", "off_session"), "refuse")

FAULTS: dict[str, tuple[Callable[[list[str]], list[str]], list[str]]] = {
    "NaN": (_row(9, lambda r: [*r[:4], "", r[5]]), ["row 11", "close", "missing_value"]),
    "negative": (_row(9, lambda r: [*r[:4], "-3", r[5]]), ["row 11", "impossible"]),
    "zero": (_row(9, lambda r: [*r[:4], "0", r[5]]), ["row 11", "impossible"]),
    "high below low": (_row(9, lambda r: [r[0], r[1], r[3], r[2], *r[4:]]), ["row 11", "high", "impossible"]),
    "duplicate": (lambda rows: [*rows[:9], rows[8], *rows[9:]], ["row 11", "duplicate"]),
    "unsorted": (lambda rows: [*rows[:9], rows[10], rows[9], *rows[11:]], ["row 12", "disorder"]),
    "a Sunday": (_row(10, lambda r: ["2009-01-18", *r[1:]]), ["row 12", "off_session"]),
}


@pytest.mark.parametrize(("change", "words"), FAULTS.values(), ids=FAULTS)
def test_bars_that_cannot_be_are_mended_and_told_or_refused(
    empty: Project, bars_file: Bars, change: Callable[[list[str]], list[str]], words: list[str]
) -> None:
    bars_file(change)
    run = sma_file(empty, data={**FILES, "cleaning": REFUSE})
    sentence = empty.fails(3, "backtest", run)
    for word in ["ABC.csv", *words]:
        assert word in sentence, sentence
    assert not (empty.folder / "runs").exists()
    done = empty.run("backtest", sma_file(empty))
    assert done.exit_code == 0, done.stderr
    assert words[-1] in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [], ["ABC.csv"]),
        (lambda rows: rows[:1], ["ABC.csv", "one"]),
        (_row(9, lambda r: [*r[:4], "soon", r[5]]), ["ABC.csv", "row 11"]),
        (lambda rows: [*rows[:9], rows[8] + "0", *rows[9:]], ["ABC.csv", "row 11", "conflict: drop"]),
        (lambda rows: [row.rsplit(",", 2)[0] + ",," for row in rows], ["ABC.csv", "row 2", "data.columns"]),
    ],
    ids=["empty", "one bar", "text", "conflict", "mixed up"],
)
def test_bars_that_are_refused(
    empty: Project, bars_file: Bars, change: Callable[[list[str]], list[str]], words: list[str]
) -> None:
    bars_file(change)
    sentence = empty.fails(3, "backtest", sma_file(empty))
    for word in words:
        assert word in sentence, sentence
    assert not (empty.folder / "runs").exists()


def test_times_without_a_zone(empty: Project, bars_file: Bars) -> None:
    def minutes(rows: list[str]) -> list[str]:
        return [f"2009-06-01 {10 + i // 60:02}:{i % 60:02}," + row.split(",", 1)[1] for i, row in enumerate(rows[:120])]

    bars_file(minutes)
    data = {**FILES, "timeframe": "1m"}
    assert "zone" in empty.fails(3, "backtest", sma_file(empty, data=data))


def test_good_bars_run(empty: Project, bars_file: Bars) -> None:
    bars_file()
    assert empty.json("backtest", sma_file(empty))["status"] == "completed"


def test_a_span_without_bars(empty: Project, bars_file: Bars) -> None:
    bars_file()
    assert "2009-01-02" in empty.fails(3, "backtest", sma_file(empty, spans={"test": ["2019-01-01", "2019-12-31"]}))


def test_an_indicator_longer_than_the_data(empty: Project, bars_file: Bars) -> None:
    bars_file(count=30)
    strategy = {"kind": SMA["kind"], "params": {"fast": 5, "slow": 50}}
    sentence = empty.fails(
        3, "backtest", sma_file(empty, spans={"test": ["2009-01-01", "2010-01-01"]}, strategy=strategy)
    )
    assert "50 bars" in sentence
    assert "30" in sentence


def test_a_lookback_longer_than_the_data(empty: Project, bars_file: Bars) -> None:
    bars_file(count=100)
    run = empty.write(
        data=FILES,
        spans={
            "train": ["2009-01-01", "2009-03-31"],
            "validate": ["2009-04-01", "2009-04-30"],
            "test": ["2009-05-01", "2009-05-20"],
        },
    )
    assert "model.lookback" in empty.fails(2, "train", run, "--set", "model.lookback=500")
    assert not (empty.folder / "bundles").exists()


def test_a_feature_that_close_only_bars_do_not_have(empty: Project) -> None:
    run = empty.write(
        data={"source": "sample:large20", "symbols": ["AAPL", "KO"]},
        model={"kind": "lstm", "features": ["log_return", "range"], "lookback": 5, "hidden": 4, "layers": 1},
    )
    assert "model.features" in empty.fails(2, "train", run)


# --- bundles --------------------------------------------------------------------------------------------------------


def _truncate(bundle: Path) -> None:
    weights = bundle / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def _edit(bundle: Path) -> None:
    record = bundle / "bundle.json"
    record.write_text(record.read_text().replace('"seed": 7', '"seed": 8'))


def _other_features(bundle: Path) -> None:
    record = bundle / "bundle.json"
    record.write_text(record.read_text().replace("volatility_5", "volatility_6"))


def _pickle_weights(bundle: Path) -> None:
    (bundle / "weights.safetensors").write_bytes(pickle.dumps({"weights": [1.0]}))


def _pickle_beside(bundle: Path) -> None:
    (bundle / "weights.pt").write_bytes(pickle.dumps({"weights": [1.0]}))


def _no_record(bundle: Path) -> None:
    (bundle / "bundle.json").unlink()


@pytest.mark.parametrize("damage", [_truncate, _edit, _other_features, _pickle_weights, _pickle_beside, _no_record])
def test_a_bundle_that_is_not_what_it_was(project: Project, damage: Callable[[Path], None]) -> None:
    bundle = next((project.folder / "bundles").iterdir())
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    damage(bundle)
    assert before != {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert bundle.name in project.fails(2, "backtest", "run.yaml")
    assert project.runs == []


def test_no_bundle_names_the_command_that_makes_it(empty: Project) -> None:
    assert "nextbar train" in empty.fails(2, "backtest", empty.write())


def test_a_bundle_of_another_model_is_not_found_by_hash(project: Project) -> None:
    assert "nextbar train" in project.fails(2, "backtest", "run.yaml", "--set", "model.features=[log_return]")


# --- strategies -----------------------------------------------------------------------------------------------------

PLAIN = "import backtrader as bt\nclass Mine(bt.Strategy):\n    def next(self):\n        "


def mine(project: Project, code: str) -> Path:
    """A run file whose strategy is this code."""
    (project.folder / "mine.py").write_text(code)
    spans = {"test": ["2004-09-01", "2010-06-30"]}
    return project.write("mine.yaml", model=None, spans=spans, strategy={"kind": "./mine.py:Mine"})


def test_a_strategy_that_does_not_import(empty: Project) -> None:
    assert "line 1" in empty.fails(1, "backtest", mine(empty, "class Mine(:\n"))
    assert "no_such_module" in empty.fails(1, "backtest", mine(empty, "import no_such_module\n"))
    assert "Mine" in empty.fails(2, "backtest", mine(empty, "x = 1\n"))


def test_a_strategy_that_raises_at_bar_500_names_the_bar(empty: Project) -> None:
    sentence = empty.fails(1, "backtest", mine(empty, PLAIN + "1 / (500 - len(self))\n"))
    assert "bar 500" in sentence
    assert "ZeroDivisionError" in sentence
    assert not empty.runs


def test_a_strategy_that_peeks(empty: Project) -> None:
    assert "future" in empty.fails(1, "backtest", mine(empty, PLAIN + "self.data.close[1]\n"))


def test_debug_shows_where(empty: Project) -> None:
    result = empty.run("backtest", mine(empty, PLAIN + "1 / 0\n"), "--debug")
    assert result.exit_code != 0
    assert result.exc_info is not None


# --- the folder and the keyboard ------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written(project: Project) -> None:
    shutil.rmtree(project.folder / "runs")
    (project.folder / "runs").write_text("a file is in the way")
    project.fails(1, "backtest", "run.yaml")
    assert (project.folder / "runs").read_text() == "a file is in the way"


def test_a_full_disk_leaves_earlier_runs_untouched(project: Project) -> None:
    first = project.folder / project.json("backtest", "run.yaml")["run"]
    before = {path.name: path.read_bytes() for path in first.iterdir()}

    def full() -> None:
        # The report alone is larger than this: the write fails half way, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "backtest", "run.yaml"],
        capture_output=True,
        text=True,
        preexec_fn=full,
    )
    assert done.returncode == 1, done.stderr
    assert "nextbar: " in done.stderr
    assert "Traceback" not in done.stderr
    assert project.runs == [first]
    assert before == {path.name: path.read_bytes() for path in first.iterdir()}
    assert not list((project.folder / "runs").glob(".*"))


def test_ctrl_c_in_a_backtest(project: Project) -> None:
    project.json("backtest", "run.yaml")
    before = project.runs
    code = "import os, signal\n" + PLAIN + "len(self) == 300 and os.kill(os.getpid(), signal.SIGINT)\n"
    run = mine(project, code)
    done = subprocess.run([sys.executable, "-m", "engine.cli", "backtest", str(run)], capture_output=True, text=True)
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
    assert project.runs == before
    assert not list((project.folder / "runs").glob(".*"))


def test_ctrl_c_in_training(empty: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.fitting.gradient import NetworkModule

    def interrupted(self: Any, batch: Any, batch_index: int) -> Any:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(NetworkModule, "training_step", interrupted)
    assert "interrupted" in empty.fails(130, "train", empty.write())
    assert not (empty.folder / "bundles").exists()


def test_strategies_that_end_the_run_or_the_process(empty: Project) -> None:
    assert "stopped the run" in empty.fails(1, "backtest", mine(empty, PLAIN + "self.env.runstop()\n"))
    assert "ended the process" in empty.fails(1, "backtest", mine(empty, "import sys\n" + PLAIN + "sys.exit(0)\n"))


def test_a_strategy_that_changes_its_costs_is_caught_by_the_audit(empty: Project) -> None:
    code = (
        "import dataclasses\n" + PLAIN + "venue = self.broker.venue\n"
        "        venue.costs = dataclasses.replace(venue.costs, slippage_bps=0.0)\n"
        "        len(self) == 5 and self.buy(size=1)\n"
    )
    assert "audit" in empty.fails(1, "backtest", mine(empty, code))


def test_bars_that_overlap_without_ending_together(empty: Project) -> None:
    folder = empty.folder / "bars"
    folder.mkdir()
    for symbol, minute in (("AAA", 0), ("BBB", 30)):
        rows = [f"2009-06-0{d}T{h:02}:{minute:02}:00-04:00,100,101,99,100,10" for d in (1, 2, 3) for h in range(11, 16)]
        (folder / f"{symbol}.csv").write_text("\n".join(["time,open,high,low,close,volume", *rows]) + "\n")
    data = {"source": "files", "path": "bars", "symbols": ["AAA", "BBB"], "timeframe": "1h"}
    sentence = empty.fails(3, "backtest", sma_file(empty, data=data, spans={"test": ["2009-06-01", "2009-06-03"]}))
    assert "overlap" in sentence
    assert "BBB" in sentence


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("metrics.json", lambda text: text.replace('"total_return_pct": ', '"total_return_pct": "x", "y": ', 1)),
        ("config.yaml", lambda text: text.replace("data:", "data: 3\nother:", 1)),
        ("manifest.json", lambda text: text.replace('"fills_hash": "', '"fills_hash": "0', 1)),
        ("manifest.json", lambda text: text[: len(text) // 2]),
    ],
)
def test_a_run_folder_that_was_changed(project: Project, file: str, change: Callable[[str], str]) -> None:
    path = project.folder / project.json("backtest", "run.yaml")["run"] / file
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    project.fails(3, "report", "latest")
