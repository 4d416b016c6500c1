"""Bundles: what is written comes back, every changed byte is noticed, nothing is executed, nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from synthetic import make_bars, make_bundle, make_config, make_frame

from engine.config import CleaningConfig, RunConfig
from engine.errors import BundleError, ConfigError, StorageError
from engine.report.recording import portable
from engine.sections import digest
from models.bundle import bundle_hash, check_fit, evaluated, find_bundle
from models.bundle_files import load_bundle, write_bundle


def rewrite_record(path: Path, **changes) -> None:
    """Change bundle.json and make its own hash right again."""
    values = json.loads((path / "bundle.json").read_text())
    values.pop("sha256")
    values.update(changes)
    (path / "bundle.json").write_text(json.dumps({**values, "sha256": digest(values)}))


def test_what_is_written_comes_back(tmp_path):
    written = evaluated(make_bundle(tmp_path), {"mae": 0.1 + 0.2, "hit_rate_pct": None})
    written = write_bundle(written)
    loaded = load_bundle(written.path)
    assert loaded.record == written.record
    assert loaded.record.evaluation == {"mae": 0.1 + 0.2, "hit_rate_pct": None}
    assert loaded.curve == written.curve
    assert loaded.record.memory == 10
    assert loaded.record.symbols == ("AAA", "BBB")
    assert not loaded.network.training
    before, after = written.network.state_dict(), loaded.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before | after)
    assert sorted(path.name for path in tmp_path.iterdir()) == [written.path.name]
    assert (written.path / "training.csv").read_text() == ("epoch,train_loss,validation_loss\n1,0.5,0.25\n2,0.4,0.3\n")


def test_the_same_content_gives_the_same_bytes(tmp_path):
    first, second = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")
    for name in ("weights.safetensors", "bundle.json", "training.csv"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


def test_loading_leaves_the_users_seed_alone(tmp_path):
    path = make_bundle(tmp_path).path
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    load_bundle(path)
    assert torch.equal(torch.rand(1), expected)


def test_the_hash_is_of_what_training_depends_on():
    config = make_config()
    asked = bundle_hash(config)
    same = [
        {"name": "another"},
        {"data": config.data.model_copy(update={"symbols": ("BBB", "AAA")})},
        {"data": config.data.model_copy(update={"benchmark": "sample:sp500", "warmup_bars": 5})},
        {"broker": config.broker.model_copy(update={"cash": 5.0})},
        {"strategy": config.strategy.model_copy(update={"kind": "strategies.other:Other"})},
    ]
    other = [
        {"data": config.data.model_copy(update={"symbols": ("AAA",)})},
        {"data": config.data.model_copy(update={"path": Path("x.csv")})},
        {"data": config.data.model_copy(update={"base": "1m"})},
        {"data": config.data.model_copy(update={"cleaning": CleaningConfig(spike="drop")})},
        {"model": config.model.model_copy(update={"hidden": 5})},
        {"training": config.training.model_copy(update={"seed": 1})},
        {"spans": config.spans.model_copy(update={"test": config.spans.train})},
    ]
    assert {bundle_hash(config.model_copy(update=change)) for change in same} == {asked}
    assert len({asked, *(bundle_hash(config.model_copy(update=change)) for change in other)}) == len(other) + 1


def test_a_runs_own_copy_of_the_run_file_finds_the_bundle(tmp_path):
    """Its paths are absolute; those of the file itself may be relative."""
    config = make_config()
    data = config.data.model_copy(update={"source": "files", "path": Path("bars")})
    own = config.model_copy(update={"data": data, "folder": tmp_path})
    copied = RunConfig.model_validate({**portable(own), "folder": tmp_path / "run"})
    assert copied.data.path == tmp_path / "bars"
    assert bundle_hash(copied) == bundle_hash(own)


def test_a_bundle_is_found_by_hash_under_any_name_and_by_path(tmp_path):
    config = make_config()
    with pytest.raises(BundleError, match="run `nextbar train CONFIG` first"):
        find_bundle(config, tmp_path)
    path = make_bundle(tmp_path).path
    assert find_bundle(config, tmp_path) == path
    assert find_bundle(config.model_copy(update={"name": "sibling"}), tmp_path) == path
    by_path = RunConfig.model_validate({**config.model_dump(), "model": {"bundle": path.name}, "folder": tmp_path})
    assert find_bundle(by_path, tmp_path / "elsewhere") == path
    gone = RunConfig.model_validate({**config.model_dump(), "model": {"bundle": "gone"}, "folder": tmp_path})
    with pytest.raises(BundleError, match=r"model\.bundle: .*gone: no such bundle"):
        find_bundle(gone, tmp_path)
    with pytest.raises(ConfigError, match="the run file has none"):
        find_bundle(config.model_copy(update={"model": None}), tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "bundle.json", "training.csv"])
def test_a_damaged_file_is_noticed_and_named(tmp_path, name):
    path = make_bundle(tmp_path).path
    content = (path / name).read_bytes()
    for damaged in (content[: len(content) // 2], content[:-1] + b"~", content + b"\n1", b""):
        (path / name).write_bytes(damaged)
        with pytest.raises(BundleError, match=name):
            load_bundle(path)
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: the bundle lacks this file"):
        load_bundle(path)


def test_an_edited_record_is_noticed(tmp_path):
    path = make_bundle(tmp_path).path
    record = path / "bundle.json"
    record.write_text(record.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(BundleError, match=r"bundle\.json: edited since it was written"):
        load_bundle(path)


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "{}", "[" * 100_000])
def test_json_that_is_no_record_is_noticed(tmp_path, text):
    path = make_bundle(tmp_path).path
    (path / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match="not a bundle's record"):
        load_bundle(path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("name", ["weights.safetensors", "extra.pt", "model.ckpt", "notes.txt"])
@pytest.mark.parametrize("form", ["pickle", "archive"])
def test_a_pickle_is_refused_and_never_loaded(tmp_path, name, form):
    path = make_bundle(tmp_path).path
    if form == "pickle":
        (path / name).write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"weights": Bomb()}, path / name)
    with pytest.raises(BundleError, match=f"{name}: a pickle or an archive"):
        load_bundle(path)


def test_weights_of_another_model_are_refused_even_with_the_right_hashes(tmp_path):
    bundle = make_bundle(tmp_path)
    weights = dict(bundle.network.state_dict())
    weights["heads.0.project.bias"] = torch.zeros(1)
    content = safetensors.torch.save(weights)
    (bundle.path / "weights.safetensors").write_bytes(content)
    files = {**bundle.record.files, "weights.safetensors": hashlib.sha256(content).hexdigest()}
    rewrite_record(bundle.path, files=files)
    with pytest.raises(BundleError, match=r"heads\.0\.project\.bias: expected shape \(3,\), found \(1,\)"):
        load_bundle(bundle.path)


def resign(bundle, name: str, content: bytes) -> None:
    """Change a file and make the record's hashes right again."""
    (bundle.path / name).write_bytes(content)
    rewrite_record(bundle.path, files={**bundle.record.files, name: hashlib.sha256(content).hexdigest()})


@pytest.mark.parametrize(
    "text", [b"epoch\n1\n", b"epoch,train_loss,validation_loss\none,1,1\n", b"\xff\xfe", b"epoch,"]
)
def test_a_curve_that_cannot_be_read_is_named_even_with_the_right_hashes(tmp_path, text):
    bundle = make_bundle(tmp_path)
    resign(bundle, "training.csv", text + b"\n1\n")
    with pytest.raises(BundleError, match=r"training\.csv: not the losses of a training"):
        load_bundle(bundle.path)


@pytest.mark.parametrize(("change", "said"), [
    (lambda bias: bias * np.nan, "numbers that are not finite"),
    (lambda bias: bias + np.inf, "numbers that are not finite"),
    (lambda bias: bias.double(), r"expected torch\.float32, found torch\.float64"),
])  # fmt: skip
def test_weights_that_are_no_numbers_or_of_another_type_are_refused(tmp_path, change, said):
    bundle = make_bundle(tmp_path)
    weights = dict(bundle.network.state_dict())
    weights["heads.0.project.bias"] = change(weights["heads.0.project.bias"])
    resign(bundle, "weights.safetensors", safetensors.torch.save(weights))
    with pytest.raises(BundleError, match=rf"heads\.0\.project\.bias: .*{said}"):
        load_bundle(bundle.path)


@pytest.mark.parametrize("calibration", [{}, {"1": []}, {"1": [0.1]}, {"1": [0.1, 0.2, 0.3]}, {"2": [0.1, 0.2]}])
def test_a_calibration_without_two_numbers_for_a_horizon_is_refused(tmp_path, calibration):
    bundle = make_bundle(tmp_path)
    rewrite_record(bundle.path, calibration=calibration)
    with pytest.raises(BundleError, match="calibration: expected two numbers for horizon 1"):
        load_bundle(bundle.path)


def test_a_record_of_a_huge_model_builds_nothing(tmp_path):
    bundle = make_bundle(tmp_path)
    model = bundle.record.model.model_dump(mode="json")
    rewrite_record(bundle.path, model={**model, "hidden": 10**10})
    with pytest.raises(BundleError, match=r"hidden: input should be less than or equal to 4096"):
        load_bundle(bundle.path)
    rewrite_record(bundle.path, model={**model, "hidden": 4096, "layers": 64})  # 34 GB
    with pytest.raises(BundleError, match=r"expected shape .*; these weights belong to another model"):
        load_bundle(bundle.path)


def test_another_feature_set_is_refused(tmp_path):
    bundle = make_bundle(tmp_path)
    model = bundle.record.model.model_dump(mode="json")
    rewrite_record(bundle.path, model={**model, "features": [*model["features"][:-1], "volatility_60"]})
    with pytest.raises(BundleError, match="need 65 bars, and it says 10"):
        load_bundle(bundle.path)
    rewrite_record(bundle.path, model={**model, "features": ["tea_leaves"]})
    with pytest.raises(BundleError, match="unknown feature 'tea_leaves'"):
        load_bundle(bundle.path)
    rewrite_record(bundle.path, model=model, horoscope="good")
    with pytest.raises(BundleError, match="another version of nextbar: horoscope"):
        load_bundle(bundle.path)


def test_a_missing_folder_names_the_command(tmp_path):
    with pytest.raises(BundleError, match="nextbar train"):
        load_bundle(tmp_path / "none")


def test_a_new_bundle_takes_the_place_of_the_old_one(tmp_path):
    bundle = make_bundle(tmp_path)
    (bundle.path / "stray.txt").write_text("old")
    write_bundle(evaluated(bundle, {"mae": 1.0}))
    assert load_bundle(bundle.path).record.evaluation == {"mae": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == [bundle.path.name]
    assert len(list(bundle.path.iterdir())) == 3


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["while writing", "at the last rename"])
def test_a_failed_write_leaves_the_old_bundle_and_nothing_else(tmp_path, monkeypatch, error, moment):
    bundle = make_bundle(tmp_path)
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    rename = Path.rename

    def fail(*_):
        raise error

    def fail_at_last(self, target):
        if self.name.endswith(".new"):
            raise error
        return rename(self, target)

    if moment == "while writing":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "rename", fail_at_last)
    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        write_bundle(evaluated(bundle, {"mae": 1.0}))
    assert [path.name for path in tmp_path.iterdir()] == [bundle.path.name]
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "bundles").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="could not be written"):
        make_bundle(tmp_path / "bundles")


def test_check_fit_is_silent_on_the_same_bars_and_on_new_ones_after_training(tmp_path):
    bundle, config, bars = make_bundle(tmp_path), make_config(), make_bars()
    assert check_fit(bundle, config, bars) == ()
    cut = config.spans.get("test")[0].isoformat()
    later = {symbol: frame.copy() for symbol, frame in bars.frames.items()}
    for frame in later.values():
        frame.loc[cut:] *= 2.0
    assert check_fit(bundle, config, make_bars(later)) == ()


def test_check_fit_says_how_training_bars_have_changed(tmp_path):
    bundle, config, bars = make_bundle(tmp_path), make_config(), make_bars()
    frames = {symbol: frame.copy() for symbol, frame in bars.frames.items()}
    frames["AAA"].iloc[20, 3] *= 1.001
    frames["BBB"] = frames["BBB"].drop(frames["BBB"].index[30])
    first, second = check_fit(bundle, config, make_bars(frames))
    assert "bars of AAA have changed" in first
    assert "other prices or volumes" in first
    assert "BBB" in second
    assert "87 bars then (2020-02-13 to 2020-06-12), 86 now" in second


def test_check_fit_allows_new_symbols_and_refuses_what_cannot_work(tmp_path):
    bundle, config = make_bundle(tmp_path), make_config()
    by_path = config.model_copy(update={"model": None})
    (remark,) = check_fit(bundle, by_path, make_bars({"CCC": make_frame(50)}))
    assert "was not trained on CCC" in remark
    with pytest.raises(BundleError, match="bundle of another model, data or spans"):
        check_fit(bundle, make_config(training={"seed": 9}), make_bars())
    with pytest.raises(BundleError, match="closes only"):
        check_fit(bundle, config, make_bars(close_only=True))
    minutes = make_bars()
    object.__setattr__(minutes, "timeframe", "5m")
    with pytest.raises(BundleError, match=r"trained on 1d bars, and data\.timeframe is 5m"):
        check_fit(bundle, config, minutes)


def test_the_bundle_holds_the_naive_figures_of_its_training_labels(tmp_path):
    bundle = make_bundle(tmp_path)
    labels = []
    for frame in make_bars().frames.values():
        # Decision bars with a full window whose next bar is in the training span too.
        closes = frame["close"].loc[:"2020-04-30"].to_numpy()[9:]
        labels += np.log(closes[1:] / closes[:-1]).tolist()
    assert bundle.record.train_naive_mae == pytest.approx(np.mean(np.abs(labels)), rel=1e-6)
    assert bundle.record.train_mean == pytest.approx(np.mean(labels), rel=1e-5)


@pytest.mark.parametrize("start", [b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"])
def test_weights_whose_header_is_as_long_as_a_pickle_starts_are_no_pickle(tmp_path, start):
    """A safetensors file starts with the length of its header: 640 is the mark of a pickle of protocol 2."""
    path = make_bundle(tmp_path).path
    length = int.from_bytes(start, "little")
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    (path / "more.safetensors").write_bytes(length.to_bytes(8, "little") + header + b"\0\0\0\0")
    assert list(safetensors.torch.load((path / "more.safetensors").read_bytes())) == ["a"]
    assert load_bundle(path).path == path
