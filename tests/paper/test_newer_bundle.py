"""A paper run whose file names a newer bundle when it goes on: a bar is decided on by the one of its time."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from engine.data.bars import Bars
from engine.data.sources import load_bars
from engine.errors import BundleError
from engine.live.journal import FILE, Journal
from engine.paper import PaperReport, paper
from engine.reporting import rewrite_report
from engine.run_file import load_config
from engine.training import train
from engine.twin import twin
from models.bundle_files import load_bundle
from models.features import Columns
from models.forecaster import Forecaster

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TEST = ["2011-01-01", "2011-03-11"]
DATA = {"source": "sample:tech", "symbols": ["AAPL", "IBM"], "warmup_bars": 5}
STRATEGY = {"kind": "strategies.forecast:Forecast", "params": {"margin_bps": -5, "full_size": 0.001}}
RIDGE = {"kind": "ridge", "features": ["log_return", "range"], "lookback": 5, "alpha": 1.0}


def write(root: Path, **sections: Any) -> Path:
    path = root / "run.yaml"
    path.write_text(yaml.safe_dump({"name": "run", "data": DATA, "strategy": STRATEGY, **sections}))
    return path


def bundle_in(root: Path, name: str, *, until: str, **model: Any) -> Path:
    """A bundle that was chosen on the bars of the two months until a day."""
    end = pd.Timestamp(until)
    spans = {
        "train": ["2010-01-01", str((end - pd.Timedelta(days=61)).date())],
        "validate": [str((end - pd.Timedelta(days=60)).date()), until],
        "test": ["2011-06-01", "2011-06-30"],
    }
    path = write(root, name=name, spans=spans, model={**RIDGE, **model})
    return train(load_config(path), root=root, now=NOW).path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    return {
        "old": bundle_in(root, "old", until="2010-12-31"),
        "new": bundle_in(root, "new", until="2011-01-20"),
        "longer": bundle_in(root, "longer", until="2011-01-20", lookback=12, features=["log_return", "rsi_14"]),
        "late": bundle_in(root, "late", until="2011-02-15"),
        "ahead": bundle_in(root, "ahead", until="2011-01-20", horizon=5),
    }


def go(root: Path, bundle: Path, *, until: str | None = None, remarks: list[str] | None = None) -> PaperReport | None:
    """Replay, and be cut off after the bar of a session, if there is one."""
    config = load_config(write(root, spans={"test": TEST}, model={"bundle": str(bundle)}))

    def look(status: Any) -> None:
        if until is not None and pd.Timestamp(status().time, tz="UTC") >= pd.Timestamp(until, tz="UTC"):
            raise KeyboardInterrupt

    told = [] if remarks is None else remarks
    try:
        return paper(config, root=root, now=NOW, replay=True, on_status=look, on_remark=told.append)
    except KeyboardInterrupt:
        return None


def forecasts(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "forecasts.parquet").sort_values(["symbol", "time"], ignore_index=True)


def expected(bars: Bars, frame: pd.DataFrame, bundle: Path) -> np.ndarray:
    forecaster = Forecaster(load_bundle(bundle))
    parts = []
    for symbol, own in frame.groupby("symbol"):
        series = bars.frames[symbol]
        made = forecaster.forecast(Columns.of(series))[:, 0]
        parts.append(pd.Series(made, index=series.index).reindex(pd.DatetimeIndex(own["time"])).to_numpy())
    return np.concatenate(parts)


@pytest.mark.parametrize("newer", ["new", "longer"])
def test_each_bar_is_decided_on_by_the_bundle_of_its_time(tmp_path, bundles, newer):
    assert go(tmp_path, bundles["old"], until="2011-02-02") is None
    remarks: list[str] = []
    report = go(tmp_path, bundles[newer], remarks=remarks)
    assert report is not None
    assert report.status == "completed"
    assert len(list(tmp_path.glob("runs/*/journal.sqlite"))) == 1
    old, new = bundles["old"].name, bundles[newer].name
    assert f"{new} decides from here on, in the place of {old}" in remarks

    frame = forecasts(report.run)
    bars = load_bars(load_config(tmp_path / "run.yaml").data, tmp_path)
    late = (frame["time"] >= pd.Timestamp("2011-02-03", tz="UTC")).to_numpy()
    before, after = expected(bars, frame, bundles["old"]), expected(bars, frame, bundles[newer])
    np.testing.assert_array_equal(frame["forecast"].to_numpy()[~late], before[~late])
    np.testing.assert_array_equal(frame["forecast"].to_numpy()[late], after[late])

    journal = Journal.read_only(report.run / FILE)
    (change,) = [entry.body for entry in journal.entries("model")]
    journal.close()
    assert (change["old"]["name"], change["new"]["name"], change["begins"]) == (old, new, "2011-02-03")
    assert [change[which]["hash"] for which in ("old", "new")] == [
        load_bundle(path).record.weights_hash for path in (bundles["old"], bundles[newer])
    ]
    manifest = json.loads((report.run / "manifest.json").read_text())
    sentence = next(remark for remark in manifest["remarks"] if remark.startswith("from 2011-02-03 on the bundle"))
    assert old in sentence
    assert new in sentence
    assert sentence in (report.run / "report.html").read_text()

    found = twin(report.run.name, root=tmp_path / "runs")
    assert (found.verdict, found.difference) == ("identical", "")
    assert (found.same_orders, found.same_fills) == (True, True)


def test_it_may_be_cut_off_and_exchanged_once_more(tmp_path, bundles):
    go(tmp_path, bundles["old"], until="2011-01-26")
    go(tmp_path, bundles["longer"], until="2011-02-08")
    go(tmp_path, bundles["longer"], until="2011-02-14")
    report = go(tmp_path, bundles["new"])
    assert report is not None
    manifest = json.loads((report.run / "manifest.json").read_text())
    assert [change["begins"] for change in manifest["models"]] == ["2011-01-27", "2011-02-15"]
    frame = forecasts(report.run)
    bars = load_bars(load_config(tmp_path / "run.yaml").data, tmp_path)
    third = (frame["time"] >= pd.Timestamp("2011-02-15", tz="UTC")).to_numpy()
    np.testing.assert_array_equal(frame["forecast"].to_numpy()[third], expected(bars, frame, bundles["new"])[third])
    assert twin(report.run.name, root=tmp_path / "runs").verdict == "identical"


def test_the_report_of_a_run_that_was_cut_off_after_the_change_knows_both(tmp_path, bundles):
    go(tmp_path, bundles["old"], until="2011-02-02")
    go(tmp_path, bundles["new"], until="2011-02-10")
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/manifest.json"))
    page = rewrite_report(folder.name, root=tmp_path / "runs").report.read_text()
    assert "from 2011-02-03 on the bundle" in page
    assert twin(folder.name, root=tmp_path / "runs").verdict == "identical"


def test_one_that_has_seen_bars_that_are_still_to_come_is_refused_and_the_old_one_goes_on(tmp_path, bundles):
    go(tmp_path, bundles["old"], until="2011-02-02")
    with pytest.raises(BundleError, match=r"2011-02-03 to 2011-03-11 begins before 2011-02-15, .* late-"):
        go(tmp_path, bundles["late"])
    report = go(tmp_path, bundles["old"])
    assert report is not None
    assert report.status == "completed"
    assert json.loads((report.run / "manifest.json").read_text())["models"] == []


def test_one_of_another_horizon_is_refused(tmp_path, bundles):
    go(tmp_path, bundles["old"], until="2011-02-02")
    with pytest.raises(BundleError, match=r"forecasts the return over 5 bars, .* the return over 1 bars"):
        go(tmp_path, bundles["ahead"])


def test_the_old_one_must_still_be_there_as_it_was(tmp_path, bundles):
    old = tmp_path / "bundles" / bundles["old"].name
    shutil.copytree(bundles["old"], old)
    go(tmp_path, old, until="2011-02-02")
    away = old.rename(tmp_path / "away")
    with pytest.raises(BundleError, match=r"has decided with the bundle old-.* cannot be read .*; put it back"):
        go(tmp_path, bundles["new"])
    shutil.copytree(bundles["longer"], old)
    with pytest.raises(BundleError, match=r"has decided with a bundle of hash .*; put that back"):
        go(tmp_path, bundles["new"])
    shutil.rmtree(old)
    away.rename(old)
    report = go(tmp_path, bundles["new"])
    assert report is not None
    assert report.status == "completed"
