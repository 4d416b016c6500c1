"""The training use case: a bundle from a run file, reused when nothing changed, and errors that say where to look."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.config import RunConfig
from engine.errors import ConfigError, StorageError
from engine.training import train
from models.bundle import bundle_hash, find_bundle
from models.bundle_files import load_bundle
from models.fitting.gradient import NetworkModule

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def write_prices(folder: Path, symbol: str, *, seed: int, count: int = 200, scale: float = 1.0) -> None:
    """A CSV of daily bars from 2020 on."""
    random = np.random.default_rng(seed)
    close = scale * 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, count)))
    sessions = pd.bdate_range("2020-01-02", periods=count + 20)
    closed = ["2020-01-20", "2020-02-17", "2020-04-10", "2020-05-25", "2020-07-03", "2020-09-07", "2020-11-26"]
    dates = sessions[~sessions.isin(pd.DatetimeIndex(closed))][:count]
    table = {"date": dates.strftime("%Y-%m-%d"), "open": close, "high": close * 1.01, "low": close * 0.99}
    pd.DataFrame({**table, "close": close, "volume": 1000.0 + random.integers(0, 500, count)}).to_csv(
        folder / f"{symbol}.csv", index=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prices = tmp_path / "prices"
    prices.mkdir()
    write_prices(prices, "AAA", seed=1)
    write_prices(prices, "BBB", seed=2, count=180)
    return tmp_path


def config_in(folder: Path, **sections: dict | None) -> RunConfig:
    values = {
        "name": "tiny",
        "data": {"source": "files", "path": "prices", "symbols": ["AAA", "BBB"]},
        "spans": {
            "train": ["2020-01-02", "2020-05-29"],
            "validate": ["2020-06-01", "2020-07-31"],
            "test": ["2020-08-03", "2020-10-01"],
        },
        "model": {"kind": "lstm", "features": ["log_return", "rsi_5"], "lookback": 5, "hidden": 4, "layers": 1},
        "training": {"epochs": 2, "batch": 64, "accelerator": "cpu"},
        "strategy": {"kind": "strategies.forecast:Forecast"},
        "folder": folder,
    }
    for name, changes in sections.items():
        values[name] = {**values[name], **changes} if changes is not None else None
    return RunConfig.model_validate(values)


def test_it_writes_a_bundle_that_the_run_file_finds_again(folder):
    config = config_in(folder)
    report = train(config, root=folder, now=NOW)
    assert report.path == find_bundle(config, folder / "bundles")
    assert report.path.name == f"tiny-{report.hash[:12]}"
    assert not report.reused
    assert (report.epochs, report.memory) == (2, 10)
    record = load_bundle(report.path).record
    assert record.evaluation == report.evaluation
    assert report.evaluation["n"] == report.windows["test"]
    assert {"mae", "mae_zero", "mae_last_return", "mae_train_mean", "always_up_pct"} <= report.evaluation.keys()
    assert report.training_bars == {"AAA": 147, "BBB": 147}
    # Two symbols: each training bar but the first 9 (no window) and the last (its label ends in validation).
    assert report.windows["train"] == 2 * (103 - 9 - 1)


def test_the_same_request_is_reused_and_force_trains_the_same_bits_again(folder, monkeypatch):
    config = config_in(folder)
    first = train(config, root=folder, now=NOW)
    content = {path.name: path.read_bytes() for path in first.path.iterdir()}
    again = train(config, root=folder, now=NOW, force=True)
    assert not again.reused
    assert {path.name: path.read_bytes() for path in again.path.iterdir()} == content
    monkeypatch.setattr(NetworkModule, "training_step", lambda *_: pytest.fail("trained again"))
    reused = train(config, root=folder, now=NOW)
    assert reused.reused
    assert (reused.path, reused.evaluation, reused.best_epoch) == (first.path, first.evaluation, first.best_epoch)
    # Another run of the same model, data and spans needs no bundle of its own.
    assert train(config.model_copy(update={"name": "sibling"}), root=folder, now=NOW).path == first.path


def test_changed_training_bars_or_a_damaged_bundle_are_trained_again(folder):
    config = config_in(folder)
    first = train(config, root=folder, now=NOW)
    write_prices(folder / "prices", "AAA", seed=3)
    second = train(config, root=folder, now=NOW)
    assert not second.reused
    assert second.path == first.path
    (first.path / "weights.safetensors").write_bytes(b"torn")
    assert not train(config, root=folder, now=NOW).reused
    assert train(config, root=folder, now=NOW).reused


def test_no_label_of_an_earlier_span_reaches_a_later_one(folder):
    for horizon in (1, 5):
        report = train(config_in(folder, model={"horizon": horizon}), root=folder, now=NOW)
        assert report.windows["validate"] == 2 * (44 - horizon)
    report = train(config_in(folder, training={"embargo": 3}), root=folder, now=NOW)
    assert report.windows["validate"] == 2 * (44 - 1 - 3)


def test_a_model_that_cannot_be_trained_is_refused(folder):
    with pytest.raises(ConfigError, match="model: this command needs a model"):
        train(config_in(folder).model_copy(update={"model": None}), root=folder, now=NOW)
    values = config_in(folder).model_dump()
    reference = RunConfig.model_validate({**values, "model": {"bundle": "bundles/x"}, "folder": folder})
    with pytest.raises(ConfigError, match=r"model\.bundle: .*cannot be trained"):
        train(reference, root=folder, now=NOW)


@pytest.mark.parametrize("name", ["train", "validate"])
def test_a_missing_span_is_named(folder, name):
    with pytest.raises(ConfigError, match=rf"spans\.{name}: this command needs the {name} span"):
        train(config_in(folder, spans={name: None}), root=folder, now=NOW)


def test_a_lookback_longer_than_the_data_says_how_many_bars_are_needed_and_found(folder):
    with pytest.raises(ConfigError, match=r"model\.lookback: .*need 306 bars .*longest series, AAA, has 200"):
        train(config_in(folder, model={"lookback": 300}), root=folder, now=NOW)


def test_a_span_without_a_labelled_window_is_named(folder):
    with pytest.raises(ConfigError, match=r"spans\.test: 2031-01-01 to 2031-02-01 holds 0 labelled bars"):
        train(config_in(folder, spans={"test": ["2031-01-01", "2031-02-01"]}), root=folder, now=NOW)
    early = config_in(folder, spans={"train": ["2020-01-02", "2020-01-13"]}, model={"lookback": 50})
    with pytest.raises(ConfigError, match=r"spans\.train: .* holds 14 labelled bars, none of them with the 54 bars"):
        train(early, root=folder, now=NOW)


def test_an_unknown_feature_is_refused_before_anything_is_trained(folder):
    with pytest.raises(ConfigError, match=r"model\.features: unknown feature 'momentum'"):
        train(config_in(folder, model={"features": ["momentum"]}), root=folder, now=NOW)


def test_an_interrupted_or_unwritable_training_leaves_earlier_bundles_untouched(folder, monkeypatch):
    config = config_in(folder)
    first = train(config, root=folder, now=NOW)
    content = {path.name: path.read_bytes() for path in first.path.iterdir()}

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(NetworkModule, "validation_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, root=folder, now=NOW, force=True)
    assert [path.name for path in (folder / "bundles").iterdir()] == [first.path.name]
    assert {path.name: path.read_bytes() for path in first.path.iterdir()} == content
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "bundles").write_text("a file in the folder's place")
    with pytest.raises(StorageError, match="could not be written"):
        train(config, root=folder / "elsewhere", now=NOW)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_two_devices_train_one_bundle_the_same_twice(folder: Path) -> None:
    """Lightning's own flag, with processes of their own: only the caller's writes the bundle."""
    config = config_in(folder, training={"devices": 2})
    first = train(config, root=folder, now=NOW)
    assert len(list((folder / "bundles").iterdir())) == 1
    weights = (first.path / "weights.safetensors").read_bytes()
    again = train(config, root=folder, now=NOW, force=True)
    assert (again.path / "weights.safetensors").read_bytes() == weights


def test_only_bars_at_which_a_symbol_was_a_member_are_trained_chosen_and_scored_on(folder: Path) -> None:
    """AAA is a member for all of the time, BBB from the middle of training to the middle of the test span."""
    (folder / "spells.csv").write_text("symbol,start,end\nAAA,2019-01-02,\nBBB,2020-03-02,2020-09-01\n")
    data = {"source": "files", "path": "prices", "universe": "spells.csv"}
    report = train(config_in(folder, data={**data, "symbols": "all"}), root=folder, now=NOW)
    times = pd.DatetimeIndex(pd.read_csv(folder / "prices" / "BBB.csv")["date"])
    train_bars = times[times <= "2020-05-29"]
    outside = int((train_bars < "2020-03-02").sum())
    whole = train(config_in(folder), root=folder, now=NOW)
    assert report.windows["train"] == 2 * (len(train_bars) - 9 - 1) - (outside - 9)
    assert report.windows["validate"] == whole.windows["validate"]
    left = int((times >= "2020-09-01").sum()) - 1  # the last bar has no label
    assert report.windows["test"] == whole.windows["test"] - left
    assert report.evaluation["n"] == report.windows["test"]


def test_another_universe_is_another_bundle_and_another_file_name_is_not(folder: Path) -> None:
    def hashed(text: str, name: str = "spells.csv") -> str:
        (folder / name).write_text("symbol,start,end\nAAA,2019-01-02,\n" + text)
        return bundle_hash(config_in(folder, data={"universe": name}))

    first = hashed("BBB,2020-03-02,\n")
    assert hashed("BBB,2020-03-02,\n", "other.csv") == first
    assert hashed("BBB,2020-03-03,\n") != first
    assert bundle_hash(config_in(folder)) != first
    (folder / "late.csv").write_text("symbol,start,end\nAAA,2020-06-01,\nBBB,2020-06-01,\n")
    with pytest.raises(ConfigError, match=r"spans.train: .* none of them at which its symbol is a member"):
        train(config_in(folder, data={"universe": "late.csv"}), root=folder, now=NOW)
