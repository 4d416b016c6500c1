"""Bundles of bundles: every byte of a member counts, and what lies in one cannot lead out of it or go on for ever."""

from __future__ import annotations

import json
import pickle
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from synthetic import make_bars, make_config, make_frame

from engine.config import RunConfig
from engine.errors import BundleError
from engine.sections import digest
from models.bundle import Bundle, check_fit
from models.bundle_files import load_bundle, write_bundle
from models.fitting.bundles import fit_bundle
from models.forecaster import Forecaster

FILES = ("weights.safetensors", "bundle.json", "training.csv")


def config_of(**more: object) -> RunConfig:
    members = [{"kind": "mean"}, {"kind": "ridge", "features": ["log_return", "range"], "lookback": 3, "alpha": 1.0}]
    model = {"kind": "ensemble", "combine": "weighted", "members": members, **more}
    return RunConfig.model_validate(make_config().model_dump() | {"model": model})


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    return write_bundle(fit_bundle(config_of(), make_bars(), root=tmp_path))


def rewrite(path: Path, **changes: object) -> None:
    """Change a record and make its own hash right again."""
    values = json.loads((path / "bundle.json").read_text())
    values.pop("sha256")
    values.update(changes)
    (path / "bundle.json").write_text(json.dumps({**values, "sha256": digest(values)}))


def test_members_lie_in_it_whole(written: Bundle) -> None:
    names = sorted(str(path.relative_to(written.path)) for path in written.path.rglob("*") if path.is_file())
    assert names == sorted(["bundle.json", *(f"members/{number}/{name}" for number in (0, 1) for name in FILES)])
    loaded = load_bundle(written.path)
    assert [member.record.model.kind for member in loaded.members] == ["mean", "ridge"]
    assert loaded.record.weights_hash == written.record.weights_hash
    assert set(loaded.record.files) == set(names) - {"bundle.json"}
    # A member is a bundle of its own.
    assert load_bundle(written.path / "members" / "1").record == loaded.members[1].record


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_of_a_member_is_noticed_and_named(written: Bundle, name: str) -> None:
    path = written.path / "members" / "1" / name
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:-1] + b"~", content + b"\n1", b""):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=rf"members/1/{name}"):
            load_bundle(written.path)
    path.unlink()
    with pytest.raises(BundleError, match=rf"members/1/{name}: the bundle lacks this file"):
        load_bundle(written.path)


def test_a_member_that_was_put_in_later_is_noticed(written: Bundle, tmp_path: Path) -> None:
    """Whole and right by itself, and still not the one that was written."""
    other = config_of()
    ridge = other.model.members[1].model_copy(update={"alpha": 2.0})
    for model in (ridge, other.model.members[1]):
        config = other.model_copy(update={"model": model})
        if model is not ridge:
            config = config.model_copy(update={"training": config.training.model_copy(update={"seed": 1})})
        alone = write_bundle(fit_bundle(config, make_bars(), root=tmp_path / "other"))
        shutil.rmtree(written.path / "members" / "1")
        shutil.copytree(alone.path, written.path / "members" / "1")
        with pytest.raises(BundleError, match=r"members/1/.*truncated or edited"):
            load_bundle(written.path)


def test_members_that_are_not_those_of_the_model_are_refused(written: Bundle) -> None:
    path = written.path
    files = json.loads((path / "bundle.json").read_text())["files"]
    first = {name: sha for name, sha in files.items() if name.startswith("members/0/")}
    for listed, count in (({}, 0), (first, 1), ({**files, "members/7/bundle.json": "x"}, 3)):
        rewrite(path, files=listed)
        with pytest.raises(BundleError, match=f"expected 2 members, found {count}"):
            load_bundle(path)
    swapped = {
        name.replace("/0/", "/x/").replace("/1/", "/0/").replace("/x/", "/1/"): sha for name, sha in files.items()
    }
    rewrite(path, files=swapped)
    (path / "members" / "0").rename(path / "members" / "x")
    (path / "members" / "1").rename(path / "members" / "0")
    (path / "members" / "x").rename(path / "members" / "1")
    with pytest.raises(
        BundleError, match=r"members/0/bundle\.json: not the member that the bundle around it is made of"
    ):
        load_bundle(path)


def test_a_bundle_inside_itself_without_end_is_refused(written: Bundle) -> None:
    path = written.path
    inner = path / "members" / "0"
    shutil.rmtree(inner)
    shutil.copytree(path, path.parent / "copy")
    shutil.move(path.parent / "copy", inner)
    files = json.loads((path / "bundle.json").read_text())["files"]
    deep = {f"members/0/{name}": sha for name, sha in files.items() if not name.startswith("members/0/")}
    deep["members/0/bundle.json"] = sha256((inner / "bundle.json").read_bytes()).hexdigest()
    ours = {name: sha for name, sha in files.items() if name.startswith("members/1/")}
    rewrite(path, files={**ours, **deep})
    with pytest.raises(BundleError, match=r"members/0/bundle\.json: not the member"):
        load_bundle(path)


@pytest.mark.parametrize(
    "name",
    ["../outside.txt", "members/../../x.txt", "members/0/../../../x.txt", "/etc/passwd", "members/12345/x.txt",
     "members/0/a/b.txt", "members/0/.hidden"],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(written: Bundle, name: str) -> None:
    rewrite(written.path, files={**written.record.files, name: "0" * 64})
    with pytest.raises(BundleError, match="is no name of a bundle's file"):
        load_bundle(written.path)


@pytest.mark.parametrize("name", ["weights.pt", "notes.txt"])
def test_a_pickle_in_a_member_is_refused(written: Bundle, name: str) -> None:
    (written.path / "members" / "0" / name).write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BundleError, match=rf"members/0/{name}: a pickle or an archive"):
        load_bundle(written.path)


def test_it_fits_the_bars_that_its_members_fit(written: Bundle) -> None:
    config, bars = config_of(), make_bars()
    assert check_fit(written, config, bars) == ()
    frames = {symbol: frame.copy() for symbol, frame in bars.frames.items()}
    frames["AAA"].iloc[20, 3] *= 1.001
    (remark,) = check_fit(written, config, make_bars(frames))
    assert "bars of AAA have changed" in remark
    with pytest.raises(BundleError, match="closes only"):
        check_fit(written, config, make_bars(close_only=True))
    with pytest.raises(BundleError, match="bundle of another model, data or spans"):
        check_fit(written, config_of(combine="mean"), bars)
    by_path = config.model_copy(update={"model": None})
    (remark,) = check_fit(written, by_path, make_bars({"CCC": make_frame(50)}))
    assert "was not trained on CCC" in remark


def test_what_was_learned_has_a_hash_of_its_own(written: Bundle, tmp_path: Path) -> None:
    again = write_bundle(fit_bundle(config_of(), make_bars(), root=tmp_path / "again"))
    assert again.record.weights_hash == written.record.weights_hash
    mean = write_bundle(fit_bundle(config_of(combine="mean"), make_bars(), root=tmp_path))
    assert mean.record.weights_hash != written.record.weights_hash
    assert Forecaster.load(mean.path).memory == Forecaster(written).memory
