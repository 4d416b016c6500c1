"""Walk-forward training: a model a fold, each on what came before; killed anywhere it goes on, to the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from engine.config import RunConfig
from engine.data.sources import load_bars
from engine.errors import ConfigError, StorageError
from engine.run_file import load_config
from engine.training import TrainingReport, train
from models.bundle_files import load_bundle
from models.features import Columns
from models.fitting.walk_forward import fold_configs, fold_store
from models.forecaster import Forecaster

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FOLDS = {"train": 60, "validate": 20, "test": 18}

RUN: dict[str, Any] = {
    "name": "walk",
    "data": {"source": "sample:tech", "symbols": ["AAPL", "MSFT"]},
    "spans": {"train": ["2010-01-01", "2010-04-30"], "test": ["2010-05-01", "2010-12-31"]},
    "folds": FOLDS,
    "model": {"kind": "lstm", "features": ["log_return", "rsi_5"], "lookback": 4, "hidden": 3, "layers": 1},
    "training": {"epochs": 1, "batch": 64, "accelerator": "cpu", "walk_forward": True},
    "strategy": {"kind": "strategies.forecast:Forecast"},
}
RIDGE = {"kind": "ridge", "features": ["log_return", "rsi_5"], "lookback": 4, "alpha": 1.0}

# A process that dies by SIGKILL while it writes what comes after so many folds: the next one, or all of them together.
DYING = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
import models.bundle_files as files
from engine.run_file import load_config
from engine.training import train

kept, root = int(sys.argv[1]), Path(sys.argv[2])
replace, count = files._replace_folder, 0

def replacing(target, new):
    global count
    if count == kept:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    replace(target, new)

files._replace_folder = replacing
train(load_config(root / "run.yaml"), root=root, now=datetime(2026, 1, 2, tzinfo=UTC))
"""


def config_in(root: Path, **sections: Any) -> RunConfig:
    values = {key: value for key, value in {**RUN, **sections}.items() if value is not None}
    path = root / "run.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return load_config(path)


def trained(root: Path, notes: list[str] | None = None, **sections: Any) -> TrainingReport:
    return train(config_in(root, **sections), root=root, now=NOW, on_note=([] if notes is None else notes).append)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "bundles").iterdir())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> TrainingReport:
    return trained(tmp_path_factory.mktemp("unbroken"))


def test_a_bundle_holds_a_model_a_fold_each_on_what_came_before(unbroken):
    assert len(unbroken.folds) >= 8
    bundle = load_bundle(unbroken.path)
    assert [path.name for path in unbroken.path.parent.iterdir()] == [unbroken.path.name]
    assert bundle.record.takes_over == tuple(fold.takes_over for fold in unbroken.folds)
    for fold, member, later in zip(unbroken.folds, bundle.members, [*unbroken.folds[1:], None], strict=True):
        assert fold.train[0] < fold.train[1] < fold.validate[0] < fold.validate[1] < fold.takes_over == fold.test[0]
        assert member.record.last_seen < fold.takes_over
        assert member.record.evaluation == fold.evaluation
        assert fold.evaluation["n"] == fold.windows["test"]
        assert fold.epochs == 1
        if later is not None:
            assert fold.test[1] < later.test[0]
    # What is known of a test session's end is known in the next fold's first sessions, so that no label is lost there.
    assert unbroken.evaluation["n"] == sum(fold.windows["test"] + 2 for fold in unbroken.folds) - 2
    assert bundle.record.evaluation == unbroken.evaluation


def test_each_bar_is_forecast_by_the_model_that_took_over_last(unbroken, tmp_path):
    bundle = load_bundle(unbroken.path)
    forecaster = Forecaster(bundle)
    bars = load_bars(config_in(tmp_path).data, tmp_path)
    columns = Columns.of(bars.frames["MSFT"].loc["2010-01-01":"2011-01-31"])
    sessions = pd.DatetimeIndex(columns.times, tz="UTC").tz_convert("America/New_York").date
    made = forecaster.forecast(columns)
    assert np.isnan(made[sessions < unbroken.folds[0].takes_over]).all()
    bounds = [*bundle.record.takes_over, date.max]
    for start, stop, member in zip(bounds[:-1], bounds[1:], bundle.members, strict=True):
        rows = (start <= sessions) & (sessions < stop)
        assert rows.any()
        np.testing.assert_array_equal(made[rows], Forecaster(member).forecast(columns)[rows])
    # Bar by bar, and past the last fold's test.
    for position in range(60, len(columns), 7):
        last = columns[position - forecaster.memory + 1 : position + 1]
        np.testing.assert_array_equal(forecaster.latest(last), made[position])
    assert not np.isnan(made[-1]).any()


@pytest.mark.parametrize("kept", [5, pytest.param(9, marks=pytest.mark.soak)])
def test_a_training_killed_anywhere_goes_on_and_ends_with_the_same_bytes(unbroken, tmp_path, kept):
    assert len(unbroken.folds) == 9  # so that the tenth folder is the one of all
    config_in(tmp_path)
    died = subprocess.run([sys.executable, "-c", DYING, str(kept), str(tmp_path)], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not [name for name in left_in(tmp_path) if not name.startswith(".")]
    notes: list[str] = []
    report = trained(tmp_path, notes)
    assert [fold.reused for fold in report.folds] == [True] * kept + [False] * (9 - kept)
    assert sum("was there already" in note for note in notes) == kept
    assert contents(report.path) == contents(unbroken.path)
    assert left_in(tmp_path) == [report.path.name]


def test_ctrl_c_says_how_many_folds_are_kept_and_the_next_one_goes_on(unbroken, tmp_path):
    config = config_in(tmp_path)

    def interrupt(sentence: str) -> None:
        if sentence.startswith("fold 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="3 of 9 folds are kept, and the same command goes on"):
        train(config, root=tmp_path, now=NOW, on_note=interrupt)
    report = train(config, root=tmp_path, now=NOW)
    assert [fold.reused for fold in report.folds] == [True] * 3 + [False] * 6
    assert contents(report.path) == contents(unbroken.path)


def cut_off_after(root: Path, number: int, **sections: Any) -> list[Path]:
    """The folders of the folds that a training has left."""

    def interrupt(sentence: str) -> None:
        if sentence.startswith(f"fold {number} "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config_in(root, **sections), root=root, now=NOW, on_note=interrupt)
    return sorted(path.parent for path in (root / "bundles").glob(".*.folds/*/bundle.json"))


def test_a_damaged_fold_is_fitted_again(tmp_path):
    folds = cut_off_after(tmp_path, 3, model=RIDGE)
    weights = folds[1] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    report = trained(tmp_path, model=RIDGE)
    assert [fold.reused for fold in report.folds][:4] == [True, False, True, False]
    load_bundle(report.path)
    assert left_in(tmp_path) == [report.path.name]


def csv_in(root: Path, *, changed: str | None = None) -> dict[str, Any]:
    """One symbol's bars as a file; of one day the price may be another."""
    days = pd.bdate_range("2020-01-02", "2020-12-31").drop(pd.DatetimeIndex(["2020-01-20", "2020-02-17"]))
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(3).normal(0.0, 0.01, len(days))))
    if changed is not None:
        close[days.get_loc(changed)] *= 1.02
    table = {"date": days.strftime("%Y-%m-%d"), "open": close, "high": close, "low": close, "close": close}
    pd.DataFrame({**table, "volume": 1000.0}).to_csv(root / "AAA.csv", index=False)
    spans = {"train": ["2020-01-02", "2020-05-31"], "test": ["2020-06-01", "2020-12-31"]}
    return {"data": {"source": "files", "path": "AAA.csv", "symbols": ["AAA"]}, "spans": spans}


def test_folds_whose_bars_have_changed_are_fitted_again(tmp_path):
    sections = {**csv_in(tmp_path), "model": RIDGE}
    cut_off_after(tmp_path, 4, **sections)
    csv_in(tmp_path, changed="2020-02-13")
    report = trained(tmp_path, **sections)
    members = load_bundle(report.path).members
    seen = [member.record.training_bars["AAA"].first.date() <= date(2020, 2, 13) for member in members[:4]]
    assert True in seen
    assert False in seen
    assert [fold.reused for fold in report.folds[:4]] == [not saw for saw in seen]
    assert trained(tmp_path, **sections).reused
    csv_in(tmp_path, changed="2020-03-13")
    assert not trained(tmp_path, **sections).reused


def test_what_is_there_is_reused_and_force_fits_the_same_bits_again(tmp_path):
    first = trained(tmp_path, model=RIDGE)
    kept = contents(first.path)
    again = trained(tmp_path, model=RIDGE)
    assert again.reused
    assert again.evaluation == first.evaluation
    assert [fold.evaluation for fold in again.folds] == [fold.evaluation for fold in first.folds]
    forced = train(config_in(tmp_path, model=RIDGE), root=tmp_path, now=NOW, force=True)
    assert not forced.reused
    assert contents(forced.path) == kept


def test_with_a_warm_start_each_fold_goes_on_from_the_one_before(unbroken, tmp_path, tmp_path_factory):
    warm = {**RUN["training"], "warm_start": True}
    whole = trained(tmp_path, training=warm)
    cold, members = load_bundle(unbroken.path).members, load_bundle(whole.path).members
    assert cold[0].record.weights_hash == members[0].record.weights_hash
    assert all(a.record.weights_hash != b.record.weights_hash for a, b in zip(cold[1:], members[1:], strict=True))

    root = tmp_path_factory.mktemp("warm")
    folds = cut_off_after(root, 5, training=warm)
    (folds[2] / "bundle.json").write_text("{}")
    report = trained(root, training=warm)
    assert [fold.reused for fold in report.folds] == [True] * 2 + [False] * 7
    assert contents(report.path) == contents(whole.path)


def test_purge_and_embargo_of_the_folds_are_left_out_at_the_ends_of_their_parts(tmp_path):
    bars = load_bars(config_in(tmp_path).data, tmp_path)

    def windows(**folds: int) -> list[int]:
        config = config_in(tmp_path, model=RIDGE, folds={**FOLDS, **folds})
        report = train(config, root=tmp_path, now=NOW)
        return [report.folds[0].windows[name] for name in ("train", "validate", "test")]

    usual = windows()
    # Two symbols, of which each leaves out so many bars at the end of both parts.
    assert windows(purge=4) == [usual[0] - 6, usual[1] - 6, usual[2]]
    assert windows(purge=4, embargo=2) == [usual[0] - 10, usual[1] - 10, usual[2]]
    expanding = fold_configs(config_in(tmp_path, folds={**FOLDS, "kind": "expanding"}), bars)
    assert len({own.spans.train[0] for own in expanding}) == 1
    every_nine = fold_configs(config_in(tmp_path, folds={**FOLDS, "step": 9}), bars)
    assert len(every_nine) == 18  # for the 9 of every 18 sessions


def test_a_session_that_two_folds_test_counts_once(tmp_path):
    report = trained(tmp_path, model=RIDGE, folds={**FOLDS, "step": 9})
    sessions = len(report.folds) - 1
    assert report.evaluation["n"] == 2 * (9 * sessions + FOLDS["test"] - 1)
    apart = trained(tmp_path, model=RIDGE, folds={**FOLDS, "step": 30})
    assert apart.evaluation["n"] == sum(fold.windows["test"] for fold in apart.folds)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"folds": None}, "folds: training.walk_forward trains a model a fold, and the run file has no folds"),
        ({"folds": {"kind": "combinatorial", "parts": 5, "test_parts": 2}}, "folds.kind: .* found combinatorial"),
        ({"folds": {"train": 60, "test": 20}}, "folds.validate: .* expected at least 1, found none"),
        ({"folds": {**FOLDS, "purge": 0}}, "folds.purge: labels reach 1 bars ahead, .* found 0"),
        ({"folds": {**FOLDS, "train": 900}}, "folds: one fold needs 938 sessions"),
        ({"folds": {**FOLDS, "train": 1}}, "folds: of fold 1 of 12, spans.train: .* 0 labelled bars"),
        ({"training": {"warm_start": True}, "folds": None}, "training.warm_start: .* set training.walk_forward"),
        (
            {"training": {"warm_start": True, "walk_forward": True}, "model": RIDGE},
            "training.warm_start: ridge is fitted anew each time",
        ),
    ],
)
def test_what_cannot_be_walked_is_refused_at_its_place_in_the_run_file(tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        trained(tmp_path, **sections)
    assert not list((tmp_path / "bundles").glob("[!.]*")) if (tmp_path / "bundles").exists() else True


def test_two_processes_do_not_train_the_same_walk_forward(tmp_path, unbroken):
    with (
        fold_store(tmp_path / "bundles" / unbroken.path.name),
        pytest.raises(StorageError, match="another process trains this walk-forward"),
    ):
        trained(tmp_path)


def test_an_ensemble_walks_too(tmp_path):
    model = {"kind": "ensemble", "combine": "mean", "members": [RIDGE, {"kind": "mean"}]}
    report = trained(tmp_path, model=model)
    bundle = load_bundle(report.path)
    assert [len(member.members) for member in bundle.members] == [2] * 9
    assert report.evaluation["n"] > 0
