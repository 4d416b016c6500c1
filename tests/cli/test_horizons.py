"""Several horizons, classes and calibrated intervals as their user types them: trained, tested, replayed, gone through
again."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from cli_project import TINY, Project

from engine.run_file import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
MODEL = {
    "kind": "mlp", "features": ["log_return", "volatility_5"], "lookback": 5, "hidden": 4, "layers": 1,
    "horizon": 1, "more_horizons": [3], "head": "direction", "flat_bps": "costs",
}  # fmt: skip
DIRECTION = {"kind": "strategies.direction:Direction", "params": {"margin": 0.0, "longer": 3}}
LATER = """
from models.indicator import ForecastIndicator
import backtrader as bt


class Later(bt.Strategy):
    params = (("forecaster", None), ("horizon", 3))

    def __init__(self):
        ahead = {"bundle": self.p.forecaster, "horizon": int(self.p.horizon)}
        self.pairs = [(data, ForecastIndicator(data, **ahead)) for data in self.datas]

    def next(self):
        for data, forecast in self.pairs:
            if forecast.forecast[0] > 0.0 and not self.getposition(data).size:
                self.buy(data, size=10)
            elif forecast.forecast[0] < 0.0 and self.getposition(data).size > 0:
                self.close(data)
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle of each calibration."""
    folder = tmp_path_factory.mktemp("horizons")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for calibration in ("conformal", "adaptive"):
            written(Project(folder), calibration)
            report = Project(folder).json("train", "run.yaml")
            assert list(report["more_evaluations"]) == ["3"]
            assert report["more_evaluations"]["3"]["n"] < report["evaluation"]["n"]
            record = json.loads((folder / report["path"] / "bundle.json").read_text())
            assert record["more_evaluations"] == report["more_evaluations"]
            assert record["model"]["flat_bps"] == 6.0
            assert (record["calibration"] is None) == (calibration == "adaptive")
    return folder / "bundles"


def written(project: Project, calibration: str, **sections: object) -> Project:
    spans = {**TINY["spans"], "test": ["2011-01-01", "2011-03-15"]}
    project.write(model={**MODEL, "calibration": calibration}, **{"strategy": DIRECTION, "spans": spans, **sections})
    return project


@pytest.fixture
def trained(bundles: Path, empty: Project) -> Project:
    (empty.folder / "bundles").symlink_to(bundles)
    return empty


def journalled(folder: Path) -> list[dict]:
    """The forecasts in a run's journal."""
    with sqlite3.connect(folder / "journal.sqlite") as connection:
        rows = connection.execute("SELECT body FROM log WHERE kind = 'forecast'").fetchall()
    connection.close()
    return [json.loads(row[0]) for row in rows]


@pytest.mark.parametrize("calibration", ["conformal", "adaptive"])
def test_a_replay_is_the_backtest_and_its_twin_is_identical(trained: Project, calibration: str):
    written(trained, calibration)
    tested = trained.json("backtest", "run.yaml")
    traded = trained.json("paper", "run.yaml", "--replay")
    assert tested["metrics"]["strategy"]["fills"] > 0
    for key in ("status", "orders_hash", "fills_hash", "metrics"):
        assert traded[key] == tested[key], key
    assert trained.json("twin", "latest")["verdict"] == "identical"
    forecasts = journalled(trained.folder / traded["run"])
    for symbol in ("AAPL", "MSFT"):
        forecast, lower, upper, *classes = forecasts[-1]["lines"][symbol]
        assert lower <= forecast <= upper
        assert sum(classes) == pytest.approx(1.0, abs=1e-6)
        ((*_, down, flat, up),) = forecasts[-1]["beside"][symbol]
        assert [down, flat, up] != classes


def test_a_strategy_that_reads_another_horizon_alone_is_scored_by_the_traded_one(trained: Project):
    (trained.folder / "later.py").write_text(LATER)
    written(trained, "conformal", strategy={"kind": "./later.py:Later"})
    tested = trained.json("backtest", "run.yaml")
    traded = trained.json("paper", "run.yaml", "--replay")
    assert tested["metrics"]["strategy"]["fills"] > 0
    assert traded["metrics"] == tested["metrics"]
    assert trained.json("twin", "latest")["verdict"] == "identical"
    forecast = journalled(trained.folder / traded["run"])[-1]
    assert not forecast["lines"]
    assert [len(values) for values in forecast["beside"]["AAPL"]] == [3]


def test_a_horizon_or_classes_that_are_not_there_are_said(trained: Project):
    written(trained, "conformal", strategy={"kind": DIRECTION["kind"], "params": {"longer": 20}})
    assert "expected a horizon that it forecasts (1, 3 bars), found 20" in trained.fails(2, "backtest", "run.yaml")
    written(trained, "conformal", strategy={"kind": DIRECTION["kind"], "params": {"longer": 1.5}})
    assert "strategy.params.longer: expected a number of bars, or 0" in trained.fails(2, "backtest", "run.yaml")


def test_a_model_without_classes_cannot_be_traded_by_them(empty: Project):
    model = {"kind": "mean", "more_horizons": [3]}
    empty.write(model=model, strategy=DIRECTION)
    empty.json("train", "run.yaml")
    assert "a model that forecasts classes, found one without" in empty.fails(2, "backtest", "run.yaml")


def test_the_shipped_run_file_is_of_several_horizons_and_classes():
    config = load_config(CONFIGS / "horizons.yaml")
    assert config.model.horizons == (5, 1, 20)
    assert (config.model.head, config.model.flat_bps) == ("direction", 6.0)
    assert yaml.safe_load((CONFIGS / "horizons.yaml").read_text())["strategy"]["kind"] == DIRECTION["kind"]
