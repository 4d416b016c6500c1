"""nextbar tune: what it searches, what it never sees, and that it goes on where it was."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from cli_project import Project

from engine.data.bars import Bars
from engine.data.sources import load_bars
from engine.errors import ConfigError, NextbarError
from engine.run_file import load_config
from engine.tuning import tune
from engine.tuning_folds import in_fold, sealed_bars, tuning_folds
from engine.tuning_space import Space
from engine.tuning_trials import Trial, Trier
from engine.tuning_workers import Workers
from models.fitting.walk_forward import fold_configs

SPANS = {
    "train": ["2020-01-02", "2020-07-31"],
    "validate": ["2020-08-03", "2020-09-15"],
    "test": ["2020-09-16", "2020-12-31"],
}
SPACE: dict[str, Any] = {"model.alpha": {"low": 0.1, "high": 1000.0, "log": True}, "model.lookback": [2, 3, 5]}


@pytest.fixture
def prices(empty: Project) -> Project:
    """A folder with three symbols of one year in files, half of which follow their last return."""
    folder = empty.folder / "prices"
    folder.mkdir()
    days = pd.bdate_range("2020-01-02", "2020-12-31")
    closed = [
        "2020-01-20",
        "2020-02-17",
        "2020-04-10",
        "2020-05-25",
        "2020-07-03",
        "2020-09-07",
        "2020-11-26",
        "2020-12-25",
    ]
    days = days[~days.isin(pd.DatetimeIndex(closed))]
    for seed, symbol in enumerate(("AAA", "BBB", "CCC")):
        random = np.random.default_rng(seed)
        moves = random.normal(0.0, 0.01, len(days))
        moves[1:] -= 0.3 * moves[:-1]
        close = 100.0 * np.exp(np.cumsum(moves))
        table = {"date": days.strftime("%Y-%m-%d"), "open": close, "high": close * 1.01, "low": close * 0.99}
        pd.DataFrame({**table, "close": close, "volume": 1000}).to_csv(folder / f"{symbol}.csv", index=False)
    return empty


def write(project: Project, file: str = "run.yaml", /, tune: Mapping[str, Any] | None = None, **sections: Any) -> Path:
    """A run file with a ridge on two folds, and a search of six trials unless told otherwise."""
    values = {
        "data": {"source": "files", "path": "prices", "symbols": "all"},
        "spans": SPANS,
        "model": {"kind": "ridge", "features": ["log_return"], "lookback": 3},
        "tune": {"trials": 6, "folds": 2, "space": SPACE, **(tune or {})},
        **sections,
    }
    return project.write(file, **values)


def study_of(project: Project) -> Path:
    (found,) = (project.folder / "tuning").iterdir()
    return found


def lines_of(study: Path) -> list[str]:
    return (study / "trials.jsonl").read_text().splitlines()


# --- what it finds --------------------------------------------------------------------------------------------------


def test_the_best_of_all_trials_is_a_run_file_that_trains(prices: Project) -> None:
    result = prices.run("tune", write(prices))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "A new search in tuning/tiny-" in result.stderr
    assert "lowest mae of 6 on 2 validation folds" in " ".join(result.stderr.split())
    study = study_of(prices)
    assert {path.name for path in study.iterdir()} == {
        "best.yaml", "durations.jsonl", "lock", "study.yaml", "trials.jsonl"
    }  # fmt: skip
    trials = [json.loads(line) for line in lines_of(study)]
    assert [trial["number"] for trial in trials] == list(range(6))
    best = min((t for t in trials if t["state"] == "complete"), key=lambda trial: trial["score"])
    text = (study / "best.yaml").read_text()
    assert f"trial {best['number']}, the best of 6" in text
    model = yaml.safe_load(text)["model"]
    assert {f"model.{key}": model[key] for key in ("alpha", "lookback")} == best["parameters"]
    trained = prices.run("train", study / "best.yaml")
    assert trained.exit_code == 0, trained.stderr
    assert "bundles/tiny-tuned-" in trained.stderr


def test_json_is_one_object_that_says_how_many_the_best_is_of(prices: Project) -> None:
    found = prices.json("tune", write(prices, tune={"metric": "rank_ic", "trials": 8}))
    assert found["best_of"] == 8
    assert found["larger_is_better"] is True
    assert found["best"]["score"] == max(trial["score"] or -9.0 for trial in found["trials"])
    assert found["best"]["score"] > 0.0  # a planted reversal
    assert sum(found["states"].values()) == 8
    assert set(found["importances"]) == set(SPACE)
    assert found["folds"][1] == ["2020-08-03", "2020-09-15"]


@pytest.mark.parametrize("metric", ["pinball", "r2_out_of_sample"])
def test_every_metric_of_forecasts_can_be_searched_by(prices: Project, metric: str) -> None:
    found = prices.json("tune", write(prices, tune={"metric": metric, "trials": 2, "sampler": "random"}))
    assert found["best"]["state"] == "complete"


def test_the_kind_of_model_may_be_searched_with_keys_that_only_some_have(prices: Project) -> None:
    space = {
        "model.kind": ["ridge", "elastic_net", "mean"],
        "model.l1_ratio": [0.2, 0.8],
        "model.alpha": [0.01, 10.0],
        "training.learning_rate": [0.1, 0.01],  # none of these kinds has one
    }
    report = tune(load_config(write(prices, tune={"space": space, "trials": 9})), root=prices.folder)
    kinds = {trial.parameters["model.kind"]: set(trial.parameters) for trial in report.trials}
    assert kinds["mean"] == {"model.kind"}
    assert kinds["ridge"] == {"model.kind", "model.alpha"}
    assert kinds["elastic_net"] == {"model.kind", "model.alpha", "model.l1_ratio"}
    repeated = [trial for trial in report.trials if trial.parameters == {"model.kind": "mean"}]
    assert len({trial.scores for trial in repeated}) == 1


def test_a_strategy_is_searched_by_what_it_earns_on_the_folds(prices: Project) -> None:
    rule = {"kind": "strategies.reversal:Reversal", "params": {"k": 1}}
    path = write(
        prices,
        strategy=rule,
        model=None,
        training=None,
        tune={"metric": "sharpe", "space": {"strategy.params.bars": [1, 20], "strategy.params.gross": [0.5, 1.0]}},
    )
    found = prices.json("tune", path)
    assert found["best"]["parameters"]["strategy.params.bars"] == 1  # the planted reversal is of one day
    assert prices.run("backtest", Path(found["best_config"])).exit_code == 0


# --- what it never sees ---------------------------------------------------------------------------------------------


def test_the_test_span_is_sealed(prices: Project) -> None:
    """Other bars in it, fewer of them, or none: the same study, trials and best, to the byte; no ledger is begun."""
    write(prices)
    assert prices.run("tune", "run.yaml").exit_code == 0
    study = study_of(prices)
    before = {name: (study / name).read_bytes() for name in ("trials.jsonl", "best.yaml")}
    study.rename(prices.folder / "elsewhere")
    for path in (prices.folder / "prices").iterdir():
        table = pd.read_csv(path)
        later = table["date"] > "2020-09-15"
        table.loc[later, ["open", "high", "low", "close"]] *= 3.0
        table[~later | (table["date"] < "2020-11-01")].to_csv(path, index=False)
    assert prices.run("tune", "run.yaml").exit_code == 0
    assert study_of(prices).name == study.name
    assert {name: (study / name).read_bytes() for name in before} == before
    assert not (prices.folder / "runs").exists()


def test_what_is_scored_chooses_nothing_and_ends_before_the_test_span(prices: Project) -> None:
    own = {"kind": "sliding", "train": 60, "validate": 20, "test": 30, "step": 20}
    for sections in ({}, {"folds": own}):
        config = load_config(write(prices, **sections))
        report = tune(config, root=prices.folder)
        spans = tuning_folds(config, config.tune, _bars(prices))
        assert [str(each.test[0]) for each in spans] == [fold[0] for fold in report.folds]
        for each in spans:
            assert each.train[1] < each.validate_[0] <= each.validate_[1] < each.test[0]
            assert each.test[1] <= date(2020, 9, 15)
    assert len(spans) == 5  # (176 - 80) // 20 + 1 sessions before the test span


@pytest.mark.parametrize(
    "sections", [{"training": {"walk_forward": True}}, {"models": {"kinds": {"ridge": {"features": ["log_return"]}}}}]
)
def test_what_a_fold_will_test_is_neither_seen_nor_scored(prices: Project, sections: dict[str, Any]) -> None:
    own = {"kind": "sliding", "train": 60, "validate": 20, "test": 30}
    config = load_config(write(prices, folds=own, **sections))
    report = tune(config, root=prices.folder)
    bars = load_bars(config.data, config.folder, root=prices.folder)
    first = fold_configs(config.model_copy(update={"models": None}), bars)[0].spans
    assert len(report.folds) == 2
    assert report.folds[-1] == tuple(map(str, first.validate_))
    assert max(frame.index[-1].date() for frame in _bars(prices).frames.values()) == first.validate_[1] < first.test[0]
    config = load_config(write(prices, folds=own, tune={"folds": 4}, **sections))
    with pytest.raises(ConfigError, match=r"of 80 before the first fold's test; ask for fewer folds, or shorten folds"):
        tune(config, root=prices.folder)


def test_a_trial_keeps_the_purge_and_the_embargo_of_the_folds(prices: Project) -> None:
    own = {"kind": "sliding", "train": 60, "validate": 20, "test": 30, "purge": 3, "embargo": 5}
    config = load_config(write(prices, folds=own, training={"embargo": 2}))
    assert in_fold(config, config.spans).training.embargo == 7  # 3 - 1 + 5, as in a walk-forward
    assert in_fold(config.model_copy(update={"folds": None}), config.spans).training.embargo == 2
    first, second = (
        tune(load_config(write(prices, folds=own | more)), root=prices.folder) for more in ({}, {"embargo": 0})
    )
    assert first.path != second.path


def _bars(project: Project) -> Bars:
    return sealed_bars(load_config(project.folder / "run.yaml"), root=project.folder)


# --- killed, continued, in several processes ------------------------------------------------------------------------

_DIES = """
import os, signal, sys
from engine import tuning_study
append, count = tuning_study.append_line, 0
def dying(path, line):
    global count
    append(path, line)
    count += path.name == "trials.jsonl"
    if count == 3:
        with path.open("a") as file:
            file.write('{"number": 3, "sta')  # torn
        os.kill(os.getpid(), signal.SIGKILL)
tuning_study.append_line = dying
sys.argv = ["nextbar", "tune", "run.yaml"]
from engine.cli import main
main()
"""


def test_a_killed_search_goes_on_and_ends_as_if_it_had_not_been(prices: Project) -> None:
    write(prices)
    killed = subprocess.run([sys.executable, "-c", _DIES], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    study = study_of(prices)
    assert len(lines_of(study)) == 4
    result = prices.run("tune", "run.yaml")
    assert result.exit_code == 0, result.stderr
    assert f"tuning/{study.name}/trials.jsonl: a line is left out, torn" in " ".join(result.stderr.split())
    assert f"Going on with tuning/{study.name}, which has 3 trials." in " ".join(result.stderr.split())
    after = [line for line in lines_of(study) if line.endswith("}")]
    assert len(after) == 6
    study.rename(prices.folder / "elsewhere")
    assert prices.run("tune", "run.yaml").exit_code == 0
    assert lines_of(study) == after
    best = (prices.folder / "elsewhere" / "best.yaml").read_bytes()
    assert (study / "best.yaml").read_bytes() == best


def test_more_trials_go_on_and_another_space_is_another_search(prices: Project) -> None:
    path = write(prices)
    first = prices.json("tune", path, "--set", "tune.trials=3")
    more = prices.json("tune", path)
    assert more["study"] == first["study"]
    assert more["trials"][:3] == first["trials"]
    assert more["resumed"] == 3
    result = prices.run("tune", path, "--set", "tune.space={model.lookback: [2, 4]}", "--set", "tune.trials=2")
    said = " ".join(result.stderr.split())
    assert f"{Path(first['study']).name} searched another space, model, folds or bars" in said
    assert len(list((prices.folder / "tuning").iterdir())) == 2


def test_two_processes_find_what_one_finds_in_rounds_of_two(prices: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(prices, tune={"workers": 2, "trials": 3})
    found = prices.json("tune", path)
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2]
    study_of(prices).rename(prices.folder / "elsewhere")
    config = load_config(path)
    assert config.tune is not None
    trier = Trier(
        Space.of(config, config.tune), config.tune, _bars(prices), tuning_folds(config, config.tune, _bars(prices))
    )
    monkeypatch.setattr("engine.tuning._runner", lambda *_: nullcontext(lambda jobs: map(trier.run, jobs)))
    assert prices.json("tune", path)["trials"] == found["trials"]


@pytest.mark.soak
def test_a_worker_that_dies_ends_the_search_with_a_sentence_and_its_trials_are_kept(
    prices: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Workers.run

    def killed(self: Workers, jobs: Any) -> Any:
        if jobs and jobs[0].number == 2:
            self._processes[1].kill()
            self._processes[1].join()
        yield from run(self, jobs)

    monkeypatch.setattr(Workers, "run", killed)
    result = prices.run("tune", write(prices, tune={"workers": 2, "trials": 4}))
    assert result.exit_code == 1
    assert "a worker of the search ended by itself (exit code -9" in " ".join(result.stderr.split())
    assert len(lines_of(study_of(prices))) >= 2


# --- trials that come to nothing ------------------------------------------------------------------------------------


def test_what_falls_behind_is_given_up_half_way_and_what_fails_is_recorded(
    prices: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse_each_time(self: Any, config: Any) -> float:
        if config.model.lookback == 9:
            raise NextbarError("there was no finite result")
        return float(config.model.lookback)

    monkeypatch.setattr("engine.tuning_trials.Scorer.score", worse_each_time)
    space = {"model.lookback": {"low": 1, "high": 10}}
    path = write(prices, tune={"space": space, "trials": 20, "sampler": "random"})
    found = prices.json("tune", path)
    assert found["best"]["score"] == min(trial["scores"][0] for trial in found["trials"] if trial["scores"])
    assert found["states"]["pruned"] > 0
    assert all(len(trial["scores"]) == 1 for trial in found["trials"] if trial["state"] == "pruned")
    failed = [trial for trial in found["trials"] if trial["state"] == "failed"]
    assert failed
    assert all(t["reason"] == "there was no finite result" and t["parameters"] == {"model.lookback": 9} for t in failed)
    kept = prices.json("tune", path, "--set", "tune.prune=false")
    assert kept["states"]["pruned"] == 0


def test_without_a_complete_trial_the_first_reason_is_said(prices: Project) -> None:
    model = {"kind": "transformer", "features": ["log_return"], "lookback": 3, "hidden": 8, "heads": 2}
    path = write(prices, model=model, tune={"space": {"model.hidden": [10], "model.heads": [4]}, "trials": 1})
    assert "none of 1 trials was complete; the first: model: hidden must be" in prices.fails(1, "tune", path)


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("space", "said"), [
    ({"model.lokback": [3]}, "tune.space.model.lokback: 3 cannot be: model.lokback: unknown key; did you mean"),
    ({"model.lookback": [3, 0]}, "tune.space.model.lookback: 0 cannot be: model.lookback: input should be greater"),
    ({"model.lookback": {"low": 5, "high": 2}}, "tune.space.model.lookback: low must be below high, found 5 and 2"),
    ({"model.lookback": {"low": 5}}, "tune.space.model.lookback.high: required, and missing"),
    ({"model.lookback": [500]}, "tune.space.model.lookback: 500 cannot be: model.lookback: one window and its label"),
    ({"model.features": [["momentum"]]}, "tune.space.model.features: ['momentum'] cannot be: model.features: unknown"),
    ({"model.kind": ["rigde"]}, "tune.space.model.kind: 'rigde' cannot be: model.kind: expected bundle: PATH, or a"),
    ({"model.hidden": [8]}, "tune.space.model.hidden: 8 cannot be: model.hidden: unknown key"),
    ({"data.source": ["files"]}, "tune.space.data.source: expected a key of model, training, strategy or risk"),
    ({"training.seed": [1, 2]}, "tune.space.training.seed: not to be searched: the best of several seeds is luck"),
    ({"model.horizon": [1, 5]}, "tune.space.model.horizon: errors of another horizon are larger or smaller"),
    ({"strategy.params.cap": [0.1]}, "tune.space.strategy.params.cap: it changes nothing about mae"),
    ({}, "tune.space: expected at least one key of the run file, found none"),
])  # fmt: skip
def test_a_space_that_cannot_be_is_refused_before_anything_runs(prices: Project, space: Any, said: str) -> None:
    sentence = prices.fails(2, "tune", write(prices, tune={"space": space}))
    assert said in sentence
    assert not (prices.folder / "tuning").exists()


def test_strategy_parameters_are_checked_too(prices: Project) -> None:
    space = {"strategy.params.capp": [0.1]}
    sentence = prices.fails(2, "tune", write(prices, tune={"metric": "sharpe", "space": space}))
    assert "tune.space.strategy.params.capp: 0.1 cannot be: strategy.params.capp: unknown to Forecast" in sentence


def test_what_is_missing_is_named(prices: Project) -> None:
    path = write(prices)
    values = yaml.safe_load(path.read_text())
    without = {key: value for key, value in values.items() if key != "tune"}
    path.write_text(yaml.safe_dump(without))
    assert "tune: this command needs a space to search" in prices.fails(2, "tune", path)
    path = write(prices, model=None, tune={"space": {"training.epochs": [1, 2]}})
    assert "tune.metric: mae judges forecasts, and the run file has no model" in prices.fails(2, "tune", path)
    assert "tune.folds: 9 folds of" in prices.fails(2, "tune", write(prices, tune={"folds": 9}))
    data = {"source": "files", "path": "prices", "symbols": ["AAA", "BBB"]}
    path = write(prices, data=data, tune={"metric": "rank_ic"})
    assert "tune.metric: rank_ic ranks 3 symbols or more against each other, found 2" in prices.fails(2, "tune", path)
    combinatorial = {"kind": "combinatorial", "parts": 6, "test_parts": 2}
    assert "folds: a search is scored on the validation parts" in prices.fails(
        2, "tune", write(prices, folds=combinatorial)
    )


def test_the_shipped_example_is_checked_as_it_is(empty: Project) -> None:
    """Its space fits its data and model; one trial of it is tried."""
    path = Path(__file__).parents[2] / "configs" / "tune.yaml"
    found = empty.json("tune", path, "--set", "tune.trials=1", "--set", "tune.space={model.kind: [ridge]}")
    assert found["best"]["state"] == "complete"
    assert re.match(r"tuning/tune-[0-9a-f]{12}$", found["study"])


def test_trials_know_their_means() -> None:
    trial = Trial(number=0, state="complete", parameters={}, scores=(1.0, 2.0, 6.0))
    assert trial.means == (1.0, 1.5, 3.0)
    assert trial.score == 3.0
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial
