"""A search's trials.jsonl that was edited or damaged: its lines are left out, and the search ends as it would have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import RunConfig
from engine.tuning_space import Space
from engine.tuning_study import TRIALS, Study

GOOD: dict[str, Any] = {
    "number": 1,
    "state": "complete",
    "parameters": {"model.alpha": 2.5, "model.lookback": 3},
    "scores": [0.5, 0.25],
    "reason": "",
}


def space() -> Space:
    values = {
        "name": "tiny",
        "data": {"source": "files", "path": "prices", "symbols": ["AAA"]},
        "spans": {"train": ["2020-01-02", "2020-07-31"], "test": ["2020-09-16", "2020-12-31"]},
        "model": {"kind": "ridge", "features": ["log_return"]},
        "strategy": {"kind": "strategies.forecast:Forecast"},
        "broker": {"cash": 100000},
        "tune": {"space": {"model.alpha": {"low": 0.5, "high": 9.5, "step": 0.5}, "model.lookback": [2, 3, 5]}},
    }
    config = RunConfig.model_validate({**values, "folder": Path()})
    assert config.tune is not None
    return Space.of(config, config.tune)


def read(folder: Path, *lines: str | dict[str, Any]) -> tuple[list[int], int]:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / TRIALS).write_text("\n".join(texts) + "\n")
    trials, left_out = Study(folder).read(space(), folds=2)
    return [trial.number for trial in trials], left_out


@pytest.mark.parametrize(
    "edit",
    [
        {"state": "running"},
        {"state": ["complete"]},
        {"number": -1},
        {"number": 1.5},
        {"number": float("inf")},
        {"scores": [0.5, float("nan")]},
        {"scores": [0.5, float("inf")]},
        {"scores": [1e308, 1e308]},
        {"scores": [0.5, 10**400]},
        {"scores": [0.5]},
        {"scores": [0.5, 0.25, 0.5]},
        {"scores": []},
        {"scores": 0.5},
        {"state": "pruned"},
        {"state": "pruned", "scores": []},
        {"state": "failed"},
        {"parameters": {}},
        {"parameters": {"model.lookback": 3}},
        {"parameters": {"model.alpha": 2.5, "model.lookback": 4}},
        {"parameters": {"model.alpha": 99.0, "model.lookback": 3}},
        {"parameters": {"model.alpha": 2.6, "model.lookback": 3}},
        {"parameters": {"model.alpha": "2.5", "model.lookback": 3}},
        {"parameters": {"model.alpha": float("nan"), "model.lookback": 3}},
        {"parameters": {"model.alpha": 2.5, "model.lookback": 3, "model.hidden": 4}},
        {"parameters": [1, 2]},
    ],
    ids=str,
)
def test_what_no_trial_can_have_left_is_left_out(tmp_path: Path, edit: dict[str, Any]) -> None:
    assert read(tmp_path, {**GOOD, "number": 0}, {**GOOD, **edit}, {**GOOD, "number": 2}) == ([0, 2], 1)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"number": 1, "sta', "null", "{}", '{"number": 1' + "0" * 5000 + "}"])
def test_what_cannot_be_read_is_left_out(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, {**GOOD, "number": 0}, line, {**GOOD, "number": 2}) == ([0, 2], 1)


def test_what_a_search_leaves_is_kept_and_of_one_told_twice_the_first(tmp_path: Path) -> None:
    pruned = {**GOOD, "number": 2, "state": "pruned", "scores": [0.5]}
    failed = {**GOOD, "number": 3, "state": "failed", "scores": [], "reason": "no"}
    assert read(tmp_path, GOOD, pruned, failed, {**GOOD, "scores": [1.0, 1.0]}) == ([1, 2, 3], 0)
