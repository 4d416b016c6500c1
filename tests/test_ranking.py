"""Ranking kinds of models: the same folds and rows for all, naive forecasts always in, what is fitted is kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from engine.cli import app
from engine.config import RunConfig
from engine.errors import ConfigError
from engine.ranking import rank
from engine.terminal_ranking import print_ranking

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SHARED = {"features": ["log_return"], "lookback": 3}


def write_prices(folder: Path, symbol: str, *, seed: int, echo: float, count: int = 680, skewed: bool = False) -> None:
    """Daily bars from 2019 on whose log return is ``echo`` times the one before it, and noise."""
    random = np.random.default_rng(seed)
    returns = 0.01 * (random.exponential(1.0, count) - 1.0) if skewed else random.normal(0.0, 0.01, count)
    for bar in range(1, count):
        returns[bar] += echo * returns[bar - 1]
    close = 100.0 * np.exp(np.cumsum(returns))
    dates = pd.bdate_range("2019-01-02", periods=count).strftime("%Y-%m-%d")
    table = {"date": dates, "open": close, "high": close * 1.01, "low": close * 0.99, "close": close}
    pd.DataFrame({**table, "volume": 1000.0 + random.integers(0, 500, count)}).to_csv(
        folder / f"{symbol}.csv", index=False
    )


def prices_in(folder: Path, *, echo: float) -> Path:
    (folder / "prices").mkdir(parents=True)
    for seed, symbol in enumerate(("AAA", "BBB"), start=1):
        write_prices(folder / "prices", symbol, seed=seed, echo=echo)
    return folder


@pytest.fixture(scope="module")
def echoing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prices_in(tmp_path_factory.mktemp("echoing"), echo=0.4)


def values_of(kinds: dict[str, Any], **sections: Any) -> dict[str, Any]:
    values = {
        "name": "tiny",
        "data": {"source": "files", "path": "prices", "symbols": ["AAA", "BBB"]},
        "spans": {"train": ["2019-01-02", "2019-12-31"], "test": ["2020-01-02", "2021-12-31"]},
        "folds": {"train": 200, "validate": 60, "test": 120},
        "models": {"shared": SHARED, "kinds": kinds},
        "training": {"epochs": 1},
        "strategy": {"kind": "strategies.forecast:Forecast", "params": {"margin_bps": 0}},
        "broker": {"cash": 100_000, "commission": {"bps": 1.0}, "slippage_bps": 2.0},
    }
    return {**values, **sections}


def config_in(folder: Path, kinds: dict[str, Any], **sections: Any) -> RunConfig:
    return RunConfig.model_validate({**values_of(kinds, **sections), "folder": folder})


def ranked(folder: Path, root: Path, kinds: dict[str, Any], **more: Any) -> Any:
    sections = more.pop("sections", {})
    return rank(config_in(folder, kinds, **sections), root=root, now=NOW, processes=1, **more)


def lasting(report: Any) -> str:
    written = json.loads((report.path.parent / "models.json").read_text())
    assert set(written.pop("durations")) == {entry["label"] for entry in written["entries"]}
    return json.dumps(written, sort_keys=True)


@pytest.fixture(scope="module")
def done(echoing: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    root = tmp_path_factory.mktemp("root")
    return ranked(echoing, root, {"ar": None, "ridge": {}, "long": {"kind": "ar", "lookback": 40}}), root


def test_a_model_that_knows_something_is_called_better_and_the_naive_ones_are_there(done: tuple[Any, Path]) -> None:
    board = done[0].ranking.board
    entries = {entry.label: entry for entry in board.entries}
    assert set(entries) == {"zero", "mean", "last_return", "ar", "ridge", "long"}
    assert {label for label, entry in entries.items() if entry.baseline} == {"zero", "mean", "last_return"}
    assert board.best.label in ("ar", "ridge")
    assert entries["ar"].beats_naive
    assert entries["ar"].r2_low > 0.0
    assert 0.05 < entries["ar"].accuracy["r2_out_of_sample"] < 0.3
    assert entries["ar"].holm_p >= entries["ar"].naive_p >= entries["ar"].dm_zero_p
    assert not any(entry.beats_naive for entry in entries.values() if entry.baseline)
    assert "ar" in done[0].ranking.to_json()["headline"][0]


def test_every_kind_is_judged_on_the_same_rows(done: tuple[Any, Path]) -> None:
    ranking = done[0].ranking
    assert len(ranking.folds) == 3
    for entry in ranking.board.entries:
        assert entry.accuracy["n"] == ranking.board.rows
        assert sum(figures["n"] for figures in entry.groups["symbol"].values()) == ranking.board.rows
    # The last bar of each fold has no outcome within it.
    assert ranking.board.rows == 2 * 3 * 119
    assert ranking.board.left_out == 2 * 3
    assert ranking.board.dates == 3 * 119


def test_money_is_after_costs_beside_buy_and_hold_with_folds_one_after_the_other(done: tuple[Any, Path]) -> None:
    board = done[0].ranking.board
    zero = next(entry for entry in board.entries if entry.label == "zero")
    assert zero.strategy["total_return_pct"] == 0.0
    assert zero.strategy["turnover_ann"] == 0.0
    ar = next(entry for entry in board.entries if entry.label == "ar")
    assert ar.strategy["turnover_ann"] > 1.0
    assert len(ar.equity) == len(board.held) == 3 * 120
    assert ar.equity.index.equals(board.held.index)
    assert 100 * (ar.equity.iloc[-1] - 1.0) == pytest.approx(ar.strategy["total_return_pct"])


def test_the_second_time_fits_nothing_and_says_the_same(echoing: Path, done: tuple[Any, Path]) -> None:
    first, root = done
    again = ranked(echoing, root, {"ar": None, "ridge": {}, "long": {"kind": "ar", "lookback": 40}})
    assert (first.fitted, first.reused) == (18, 0)
    assert (again.fitted, again.reused) == (0, 18)
    assert lasting(again) == lasting(first)
    speeds = again.ranking.speeds["ar"], first.ranking.speeds["ar"]
    assert speeds[0].training_seconds == speeds[1].training_seconds > 0.0
    assert again.path != first.path


def test_each_look_at_a_test_span_is_a_trial(done: tuple[Any, Path]) -> None:
    lines = [json.loads(line) for line in (done[1] / "runs" / "trials.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"models"}
    assert len({line["subject"] for line in lines}) == 18
    assert {line["span"]["start"] for line in lines} == {fold["test"][0] for fold in done[0].ranking.folds}


def test_the_page_is_complete_without_a_network(done: tuple[Any, Path]) -> None:
    page = done[0].path.read_text()
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    for label in ("zero", "last_return", "long", "better than naive", "not better", "Buy and hold"):
        assert label in page
    assert "http://" not in page.split("<script>")[0]


def test_a_ranking_that_is_cut_off_goes_on(echoing: Path, tmp_path: Path) -> None:
    def interrupt(count: int, total: int) -> None:
        if count == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        ranked(echoing, tmp_path, {"ar": None}, on_progress=interrupt)
    assert not (tmp_path / "runs" / "rankings").exists()
    resumed = ranked(echoing, tmp_path, {"ar": None})
    assert (resumed.fitted, resumed.reused) == (7, 5)
    assert lasting(resumed) == lasting(ranked(echoing, tmp_path / "unbroken", {"ar": None}))


def test_noise_is_not_called_better(tmp_path: Path) -> None:
    board = ranked(prices_in(tmp_path, echo=0.0), tmp_path, {"ar": None, "ridge": None}).ranking.board
    assert not any(entry.beats_naive for entry in board.entries)


def test_skewed_noise_is_not_better_where_excesses_are_forecast(tmp_path: Path) -> None:
    (tmp_path / "prices").mkdir()
    names = [f"S{number:02d}" for number in range(10)]
    for seed, name in enumerate(names):
        write_prices(tmp_path / "prices", name, seed=seed, echo=0.0, skewed=True)
    sections = {
        "data": {"source": "files", "path": "prices", "symbols": names},
        "models": {"shared": {**SHARED, "target": "excess"}, "kinds": {"ridge": None}},
        "folds": {"train": 300, "validate": 60, "test": 200},
    }
    entries = {entry.label: entry for entry in ranked(tmp_path, tmp_path, {}, sections=sections).ranking.board.entries}
    assert not entries["ridge"].beats_naive
    # The mean of a right-skewed return is above its median: so is the mean excess, and the naive forecast knows it.
    assert entries["mean"].accuracy["mz_p"] is None
    assert entries["mean"].accuracy["r2_out_of_sample"] > 0.02
    assert entries["zero"].accuracy["mase"] == pytest.approx(1.0, abs=0.15)
    assert 65.0 < entries["zero"].accuracy["coverage_pct"] < 95.0
    assert entries["last_return"].accuracy["echo_lag"] == 1


def test_several_seeds_give_a_mean_and_a_spread(echoing: Path, tmp_path: Path) -> None:
    models = {"shared": SHARED, "kinds": {"lstm": {"hidden": 2, "layers": 1}, "ar": None}, "seeds": [1, 2]}
    sections = {
        "models": models,
        "spans": {
            "train": ["2019-01-02", "2019-12-31"],
            "validate": ["2020-01-01", "2020-06-30"],
            "test": ["2020-07-01", "2021-06-30"],
        },
        "folds": None,
    }
    ranking = ranked(echoing, tmp_path, {}, sections=sections).ranking
    entries = {entry.label: entry for entry in ranking.board.entries}
    assert len(ranking.folds) == 1
    assert entries["lstm"].seeds == (1, 2)
    assert entries["lstm"].accuracy_spread["r2_out_of_sample"] > 0.0
    assert entries["ar"].seeds == (1,)
    assert entries["ar"].accuracy_spread["r2_out_of_sample"] is None


@pytest.mark.soak
def test_two_processes_change_no_figure(echoing: Path, tmp_path: Path, done: tuple[Any, Path]) -> None:
    config = config_in(echoing, {"ar": None, "ridge": {}, "long": {"kind": "ar", "lookback": 40}})
    report = rank(config, root=tmp_path, now=NOW, processes=2)
    assert lasting(report) == lasting(done[0])


def test_what_cannot_be_ranked_is_said_with_its_place(echoing: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="models: the run file does not say"):
        rank(config_in(echoing, {"ar": None}, models=None), root=tmp_path, now=NOW)
    with pytest.raises(ConfigError, match="--processes: expected at least 1"):
        rank(config_in(echoing, {"ar": None}), root=tmp_path, now=NOW, processes=0)
    with pytest.raises(ConfigError, match=r"models\.kinds\.zero: the label is that of the naive forecast"):
        ranked(echoing, tmp_path, {"zero": {"kind": "ar"}})
    with pytest.raises(ConfigError, match=r"models\.kinds\.long, fold 1, seed 7: .*lookback"):
        ranked(echoing, tmp_path, {"long": {"kind": "ar", "lookback": 5000}})


def test_the_tables_fit_a_terminal_and_say_what_was_kept(
    done: tuple[Any, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    print_ranking(done[0])
    shown = capsys.readouterr().err
    assert "18 models fitted, 0 kept from before" in " ".join(shown.split())
    assert "better than naive" in shown
    assert all(len(line) <= 120 for line in shown.splitlines() if line.startswith(("ar ", "buy and hold ")))


def test_the_command_prints_one_object(echoing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = values_of({"ar": None}, folds={"train": 200, "validate": 60, "test": 200})
    values["data"]["path"] = str(echoing / "prices")
    (tmp_path / "run.yaml").write_text(json.dumps(values))
    result = CliRunner().invoke(app, ["models", "run.yaml", "--processes", "1", "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert Path(printed["report"]).name == "models.html"
    assert [entry["place"] for entry in printed["entries"]] == [1, 2, 3, 4]
