"""The run folder: what is written is read back, all of it or nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sample_run import changed, sample_run

from engine.errors import ConfigError, DataError, StorageError
from engine.report.hashes import fills_hash, orders_hash
from engine.report.run import (
    Run,
    close_run,
    find_run,
    finish_run,
    list_runs,
    load_manifest,
    load_run,
    open_run,
    write_run,
)
from engine.report.trials import append_trial, read_trials

NOW = datetime(2026, 11, 23, 7, 44, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def run() -> Run:
    return sample_run(bars=80)


def orders_of(**columns: Any) -> pd.DataFrame:
    base = {"symbol": ["AAPL"], "side": ["buy"], "quantity": [10.0], "type": ["market"]}
    prices = {"limit_price": [np.nan], "stop_price": [np.nan]}
    return pd.DataFrame({"time": pd.to_datetime(["2011-01-03T21:00:00Z"]), **base, **prices, **columns})


def test_orders_hash_is_pinned() -> None:
    times = pd.to_datetime(["2011-01-03T21:00:00Z", "2011-01-04T14:31:00.250Z"], format="ISO8601")
    orders = pd.DataFrame(
        {
            "time": times,
            "symbol": ["AAPL", "IBM"],
            "side": ["buy", "sell"],
            "quantity": [10.0, 0.125],
            "type": ["market", "stop_limit"],
            "limit_price": [np.nan, 150.5],
            "stop_price": [np.nan, 151.00006],
        }
    )
    text = (
        "2011-01-03T21:00:00Z,AAPL,buy,10.000000000,market,,\n"
        "2011-01-04T14:31:00.250000Z,IBM,sell,0.125000000,stop_limit,150.5000,151.0001\n"
    )
    assert orders_hash(orders) == hashlib.sha256(text.encode()).hexdigest()
    assert orders_hash(orders) == "560bd2dc1f4854296b5e009a28e67eae62c2935bf7941ede1e313119591c0101"


def test_fills_hash_is_pinned() -> None:
    fills = pd.DataFrame(
        {
            "time": pd.to_datetime(["2011-01-04T21:00:00Z"]),
            "symbol": ["AAPL"],
            "side": ["buy"],
            "quantity": [10.0],
            "price": [331.2562],
            "commission": [0.33125620012],
        }
    )
    text = "2011-01-04T21:00:00Z,AAPL,buy,10.000000000,331.256200000,0.331256200\n"
    assert fills_hash(fills) == hashlib.sha256(text.encode()).hexdigest()
    assert fills_hash(fills) == "98e199371f38db6cbf7ac24555e32ec4671a942892f031538dbada54576249a6"


def test_hashes_see_the_zone_and_not_the_sign_of_zero() -> None:
    new_york = orders_of(time=pd.to_datetime(["2011-01-03T21:00:00Z"]).tz_convert("America/New_York"))
    assert orders_hash(new_york) == orders_hash(orders_of())
    assert orders_hash(orders_of(limit_price=[-0.0])) == orders_hash(orders_of(limit_price=[0.0]))
    assert orders_hash(orders_of(quantity=[10.000000001])) != orders_hash(orders_of())


def test_no_orders_hash_as_nothing(run: Run) -> None:
    assert orders_hash(run.orders[:0]) == fills_hash(pd.DataFrame()) == hashlib.sha256(b"").hexdigest()


def test_round_trip(run: Run, tmp_path: Path) -> None:
    folder = write_run(run, tmp_path, now=NOW)
    assert folder.name == "20261123T074406Z-sample"
    loaded = load_run(folder)
    for field in fields(Run):
        before, after = getattr(run, field.name), getattr(loaded, field.name)
        if isinstance(before, pd.DataFrame):
            pd.testing.assert_frame_equal(before, after, check_freq=False)
        else:
            assert before == after
    assert orders_hash(loaded.orders) == run.manifest["orders_hash"]


def test_round_trip_of_a_run_without_trades(run: Run, tmp_path: Path) -> None:
    nothing = pd.DataFrame({"status": []})
    bare = Run(
        manifest={**run.manifest, "orders_hash": orders_hash(nothing), "fills_hash": fills_hash(nothing)},
        config=run.config,
        metrics=run.metrics,
        equity=run.equity[["equity", "cash", "gross_exposure"]],
        bars=run.bars,
        **{name: pd.DataFrame() for name in ("orders", "fills", "trades", "forecasts")},
    )
    loaded = load_run(write_run(bare, tmp_path, now=NOW))
    assert loaded.trades.empty
    assert list(loaded.trades.columns) == list(run.trades.columns)
    assert loaded.equity["benchmark"].isna().all()


def test_same_run_same_bytes_and_a_counter_in_the_same_second(run: Run, tmp_path: Path) -> None:
    first, second, third = (write_run(run, tmp_path, now=NOW) for _ in range(3))
    assert [p.name for p in (second, third)] == ["20261123T074406Z-sample-2", "20261123T074406Z-sample-3"]
    for name in ("metrics.json", "manifest.json", "config.yaml", "report.html"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_undefined_figures_are_null(run: Run, tmp_path: Path) -> None:
    odd = changed(run, note=float("nan"), when=pd.Timestamp("2024-01-02T21:00Z"), count=np.int64(3))
    folder = write_run(odd, tmp_path, now=NOW)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["note"], manifest["when"], manifest["count"]) == (None, "2024-01-02T21:00:00Z", 3)
    assert list(manifest) == sorted(manifest)


def test_a_hostile_name_stays_inside_the_root(run: Run, tmp_path: Path) -> None:
    folder = write_run(changed(run, name="../../etc/<x>"), tmp_path / "runs", now=NOW)
    assert folder.parent == tmp_path / "runs"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_failed_write_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    earlier = write_run(run, tmp_path, now=NOW)
    before = {p.name: p.read_bytes() for p in earlier.iterdir()}
    monkeypatch.setattr(pd.DataFrame, "to_parquet", _raiser(error, after=3))
    with pytest.raises(StorageError, match=error.strerror):
        write_run(run, tmp_path, now=NOW)
    assert list(tmp_path.iterdir()) == [earlier]
    assert {p.name: p.read_bytes() for p in earlier.iterdir()} == before


def test_ctrl_c_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pd.DataFrame, "to_parquet", _raiser(KeyboardInterrupt(), after=2))
    with pytest.raises(KeyboardInterrupt):
        write_run(run, tmp_path, now=NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_a_storage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(StorageError, match="could not be written"):
        write_run(run, tmp_path / "runs", now=NOW)


def _raiser(error: BaseException, *, after: int) -> Any:
    original = pd.DataFrame.to_parquet
    calls = []

    def to_parquet(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) > after:
            raise error
        original(*args, **kwargs)

    return to_parquet


def test_runs_are_found_by_path_folder_name_and_latest(run: Run, tmp_path: Path) -> None:
    older = write_run(run, tmp_path, now=NOW)
    newer = write_run(run, tmp_path, now=NOW.replace(minute=45))
    (tmp_path / "comparisons").mkdir()
    assert list_runs(tmp_path) == [newer, older]
    assert find_run("latest", root=tmp_path) == newer
    assert find_run("sample", root=tmp_path) == newer
    assert find_run(older.name, root=tmp_path) == find_run(older, root=tmp_path) == older


def test_no_such_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds none yet"):
        load_run("quickstart", root=tmp_path / "runs")
    folder = write_run(run, tmp_path, now=NOW)
    with pytest.raises(ConfigError, match=f"nope: no such run; the newest are {folder.name}"):
        load_run("nope", root=tmp_path)


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml", "equity.parquet", "trades.parquet", "bars.parquet"])
def test_damage_is_named(run: Run, tmp_path: Path, name: str) -> None:
    folder = write_run(run, tmp_path, now=NOW)
    file = folder / name
    file.write_bytes(b"{[" + file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=f"{name}: the file is damaged"):
        load_run(folder)
    file.unlink()
    with pytest.raises(DataError, match=f"{name}: the run is incomplete"):
        load_run(folder)


def test_a_table_with_other_columns_is_damage(run: Run, tmp_path: Path) -> None:
    folder = write_run(run, tmp_path, now=NOW)
    run.fills.drop(columns="price").to_parquet(folder / "fills.parquet")
    with pytest.raises(DataError, match=r"fills: expected the columns .* price missing"):
        load_run(folder)


def test_trials_are_appended_and_a_torn_line_spoils_nothing(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert read_trials(root) == ([], 0)
    append_trial(root, {"sharpe_ratio": float("nan"), "config": "a"})
    append_trial(root, {"config": "b"})
    with (root / "trials.jsonl").open("a") as file:
        file.write('{"config": "torn')
    assert read_trials(root) == ([{"config": "a", "sharpe_ratio": None}, {"config": "b"}], 1)
    append_trial(root, {"config": "c"})
    trials, torn = read_trials(root)
    assert ([t["config"] for t in trials], torn) == (["a", "b", "c"], 1)


def test_trials_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").mkdir()
    with pytest.raises(StorageError, match="could not be recorded"):
        append_trial(tmp_path, {})


# --- a run that goes on for long -------------------------------------------------------------------------------------


def test_a_long_run_has_its_folder_from_the_start_and_is_finished_in_it(tmp_path: Path, run: Run) -> None:
    folder = open_run(tmp_path, run.name, {"kind": "paper"}, run.config, now=NOW)
    assert load_manifest(folder)["status"] == "running"
    assert list_runs(tmp_path) == [folder]
    with pytest.raises(DataError, match=f"this paper run is going on, or was cut off; `nextbar report {folder.name}`"):
        load_run(folder)
    (folder / "journal.sqlite").write_bytes(b"its own")
    finish_run(run, folder)
    assert load_run(folder).manifest == run.manifest
    assert (folder / "journal.sqlite").read_bytes() == b"its own"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    again = open_run(tmp_path, run.name, {"kind": "paper"}, run.config, now=NOW)
    assert again.name == f"{folder.name}-2"


def test_a_run_without_anything_to_report_says_how_it_ended(tmp_path: Path, run: Run) -> None:
    folder = open_run(tmp_path, run.name, {"kind": "paper", "mode": "replay"}, run.config, now=NOW)
    close_run(folder, "stopped")
    manifest = load_manifest(folder)
    assert (manifest["status"], manifest["mode"]) == ("stopped", "replay")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "manifest.json"]
