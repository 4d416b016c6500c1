"""Boosting: LightGBM's trees and its own forecasts, kept as its text, and no text can do harm."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import lightgbm
import numpy as np
import pytest
from fits import config_of, fitted, forecasts, frame_of, task_of
from synthetic import make_bars

from engine.errors import BundleError
from engine.sections import digest
from models.bundle import Bundle
from models.bundle_files import load_bundle, write_bundle
from models.fitting.bundles import fit_bundle
from models.networks.boosting import BoostedNetwork
from models.networks.trees import parse_trees

COUNT = 1560
SMALL = {"lookback": 3, "trees": 60, "leaves": 6, "rate": 0.1, "least_in_leaf": 20}


def reversing(*, seed: int = 3) -> np.ndarray:
    """Log returns of which a large one is followed by its opposite, by half: what no line can follow."""
    noise = np.random.default_rng(seed).normal(0.0, 0.01, COUNT)
    returns = noise.copy()
    for position in range(1, COUNT):
        before = returns[position - 1]
        returns[position] -= 0.5 * before if abs(before) > 0.012 else 0.0
    return returns


@pytest.fixture(scope="module")
def bars():
    return make_bars({"AAA": frame_of(reversing()), "BBB": frame_of(reversing(seed=4), seed=5)})


def test_it_finds_a_reversal_after_large_moves(bars):
    found, task = fitted(config_of("boosting", **SMALL), bars)
    rows = task.validation_rows
    ours, labels = forecasts(found, task, rows), task.windows.labels[rows, 0].astype(np.float64)
    windows = task.windows.gather(rows)[:, -1, 0].double().numpy()
    best = np.where(np.abs(windows) > 0.012, -0.5 * windows, 0.0)
    attainable = 1.0 - np.square(labels - best).sum() / np.square(labels).sum()
    assert 1.0 - np.square(labels - ours[:, 0]).sum() / np.square(labels).sum() > 0.7 * attainable > 0.0
    assert np.mean((labels >= ours[:, 1]) & (labels <= ours[:, 2])) == pytest.approx(0.8, abs=0.01)


def test_quantiles_hold_the_share_they_name_and_never_cross(bars):
    found, task = fitted(config_of("boosting", head="quantile", more_horizons=[4], **SMALL), bars)
    for at in range(2):
        ours = forecasts(found, task, task.validation_rows, at)
        labels = task.windows.labels[task.validation_rows, at]
        assert (ours[:, 1] <= ours[:, 0]).all()
        assert (ours[:, 0] <= ours[:, 2]).all()
        assert np.mean(labels < ours[:, 1]) == pytest.approx(0.1, abs=0.05)
        assert np.mean(labels > ours[:, 2]) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("head", ["point", "quantile"])
def test_its_trees_say_what_lightgbm_says(bars, head):
    found, task = fitted(config_of("boosting", head=head, more_horizons=[4], **SMALL), bars)
    network = found.network
    assert isinstance(network, BoostedNetwork)
    windows = task.windows.gather(task.validation_rows)
    ours = network.body(network.scaling(windows)).numpy()
    inputs = network.scaling(windows).flatten(1).numpy()
    assert len(network.texts()) == ours.shape[1] == (2 if head == "point" else 6)
    for column, text in enumerate(network.texts().values()):
        booster = lightgbm.Booster(model_str=text.decode())
        theirs = booster.predict(inputs, num_threads=1)
        assert booster.num_trees() >= 1
        np.testing.assert_allclose(ours[:, column], theirs.astype(np.float32), rtol=1e-6, atol=1e-9)


def test_the_validation_span_says_when_to_stop(bars):
    noise = make_bars({"AAA": frame_of(np.random.default_rng(1).normal(0.0, 0.01, COUNT))})

    def trees(of) -> int:
        (text,) = fitted(config_of("boosting", **{**SMALL, "trees": 200}), of)[0].network.texts().values()
        return text.count(b"\nTree=")

    assert trees(noise) < trees(bars) < 200


def test_the_same_task_gives_the_same_bytes_and_later_bars_change_no_scaling(bars):
    config = config_of("boosting", head="quantile", **SMALL)
    first, again = (fitted(config, bars)[0].network for _ in range(2))
    assert first.texts() == again.texts()
    changed = {symbol: frame.copy() for symbol, frame in bars.frames.items()}
    for frame in changed.values():
        frame.loc["2015-01-01":] *= 1.5
    assert fitted(config, make_bars(changed))[0].network.texts() == first.texts()


def test_a_span_too_short_for_a_split_gives_a_constant(bars):
    found, task = fitted(config_of("boosting", least_in_leaf=5000), bars)
    ours = forecasts(found, task, task.validation_rows)[:, 0]
    assert np.ptp(ours) == 0.0


# --- kept and read ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(bars, tmp_path_factory) -> Bundle:
    return write_bundle(fit_bundle(config_of("boosting", **SMALL), bars, root=tmp_path_factory.mktemp("bundles")))


NAME = "boosting-1-point.txt"


def test_a_bundle_holds_the_text_and_forecasts_the_same(bundle, bars):
    loaded = load_bundle(bundle.path)
    assert {file.name for file in bundle.path.iterdir()} == {
        "bundle.json",
        "weights.safetensors",
        "training.csv",
        NAME,
    }
    task = task_of(config_of("boosting", **SMALL), bars)
    windows = task.windows.gather(task.validation_rows)
    assert loaded.network.forecast(windows).equal(bundle.network.forecast(windows))
    assert loaded.parameters == bundle.parameters > 20
    other = fitted(config_of("boosting", **SMALL), bars)[0].network
    assert other.texts() == bundle.network.texts()
    assert bundle.record.weights_hash != bundle.record.files["weights.safetensors"], "trees are no tensors"


def test_lightgbm_is_needed_for_fitting_only(bundle):
    code = (
        "import sys; from pathlib import Path; from models.forecaster import Forecaster; "
        f"Forecaster.load(Path({str(bundle.path)!r})); "
        "print([name for name in ('lightgbm', 'sklearn', 'statsmodels', 'scipy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def rewritten(text: bytes, old: bytes, new: bytes) -> bytes:
    assert old in text
    return text.replace(old, new, 1)


def _line(text: bytes, name: bytes) -> bytes:
    return next(line for line in text.splitlines() if line.startswith(name + b"="))


DAMAGES = {
    "truncated": lambda t: t[: len(t) // 4],
    "empty": lambda t: b"",
    "not text": lambda t: b"\xff\xfe" + t,
    "another format": lambda t: rewritten(t, b"version=v4", b"version=v5"),
    "of more inputs": lambda t: rewritten(t, b"max_feature_idx=23", b"max_feature_idx=99"),
    "a tree left out": lambda t: rewritten(t, b"Tree=1\n", b"Tre=1\n"),
    "many leaves": lambda t: rewritten(t, b"num_leaves=6", b"num_leaves=2000000000"),
    "leaves that are no number": lambda t: rewritten(t, b"num_leaves=6", b"num_leaves=six"),
    "fewer leaves": lambda t: rewritten(t, b"num_leaves=6", b"num_leaves=5"),
    "categories": lambda t: rewritten(t, b"decision_type=2", b"decision_type=3"),
    "linear leaves": lambda t: rewritten(t, b"is_linear=0", b"is_linear=1"),
    "an input beyond the window": lambda t: rewritten(t, b"split_feature=", b"split_feature=9"),
    "a loop": lambda t: rewritten(t, _line(t, b"left_child"), b"left_child=0 0 0 0 0"),
    "a node out of range": lambda t: rewritten(t, _line(t, b"right_child"), b"right_child=900000 -2 -3 -4 -5"),
    "a leaf that is nothing": lambda t: rewritten(t, _line(t, b"leaf_value"), b"leaf_value=nan 0 0 0 0 0"),
    "a line missing": lambda t: rewritten(t, _line(t, b"threshold") + b"\n", b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_text_is_refused_even_where_all_hashes_fit(bundle, damage, tmp_path):
    """As whoever wants to do harm would write it: the record's own hashes are those of the damaged files."""
    folder = tmp_path / bundle.path.name
    folder.mkdir()
    for file in bundle.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    text = DAMAGES[damage]((folder / NAME).read_bytes())
    (folder / NAME).write_bytes(text)
    record = json.loads((folder / "bundle.json").read_text())
    del record["sha256"]
    record["files"][NAME] = hashlib.sha256(text).hexdigest()
    (folder / "bundle.json").write_text(json.dumps({**record, "sha256": digest(record)}))
    with pytest.raises(BundleError, match=NAME):
        load_bundle(folder)


def test_a_cut_anywhere_is_refused_or_changes_no_tree(bundle):
    text = (bundle.path / NAME).read_bytes()
    whole = parse_trees(text, inputs=24, most_trees=60, most_leaves=6)
    for end in range(0, len(text), 97):
        try:
            assert parse_trees(text[:end], inputs=24, most_trees=60, most_leaves=6) == whole
        except ValueError:
            assert end < text.index(b"end of trees") + len(b"end of trees\n")


def test_random_bytes_in_the_text_never_crash_it(bundle):
    text = (bundle.path / NAME).read_bytes()
    random = np.random.default_rng(2)
    for _ in range(300):
        broken = bytearray(text)
        for place in random.integers(0, len(text), 5):
            broken[place] = random.choice(list(b"0123456789-.=e \nxTn\xff"))
        try:
            trees = parse_trees(bytes(broken), inputs=24, most_trees=60, most_leaves=6)
        except ValueError:
            continue
        assert all(np.isfinite(tree.values).all() for tree in trees)
