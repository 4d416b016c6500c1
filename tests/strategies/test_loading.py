"""From the run file's strategy section to a strategy, and what can be wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedForecaster, make_bars, run

from engine.config import RunConfig
from engine.errors import ConfigError, StrategyError
from models.forecaster import Forecaster
from strategies.forecast import Forecast
from strategies.loading import LoadedStrategy, load_strategy
from strategies.plain import Plain
from strategies.rule import Context
from strategies.runner import RuleStrategy
from strategies.sma_cross import SmaCross

RULE = """
from typing import NamedTuple
import numpy as np
from strategies.rule import Rule

class P(NamedTuple):
    weight: float = {weight}

class Mine(Rule):
    Params = P
    signals = ("close",)

    def lines(self, data):
        return [data.close]

    @staticmethod
    def targets(signals, weights, bars_held, params):
        return np.full(len(weights), params.weight)
"""

PLAIN = """
import backtrader as bt

class Mine(bt.Strategy):
    params = (("size", 3), ("stop_pct", 2.5), ("fast", True), ("label", "x"), ("anything", None))

    def next(self):
        if not self.position:
            self.buy(size=self.p.size)

class Forecasting(bt.Strategy):
    params = (("forecaster", None), ("size", 1))
"""


def load(
    kind: str,
    *,
    folder: Path = Path(),
    forecaster: Forecaster | None = None,
    params: Mapping[str, Any] | None = None,
    **more: Any,
) -> LoadedStrategy:
    """The strategy of a run file in the folder, with the parameters of ``params`` and ``more``."""
    config = RunConfig.model_validate(
        {
            "name": "loading",
            "data": {"source": "sample:tech", "symbols": ["AAPL"]},
            "spans": {"test": ["2010-01-04", "2010-12-31"]},
            "strategy": {"kind": kind, "params": {**(params or {}), **more}},
            "folder": folder,
        }
    )
    return load_strategy(config, Context.of(config, forecaster))


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


# --- where it is found -----------------------------------------------------------------------------------------------


def test_a_rule_is_found_by_its_module():
    loaded = load("strategies.sma_cross:SmaCross", fast=5, slow=7)
    assert loaded.cls is RuleStrategy
    assert isinstance(loaded.arguments["rule"], SmaCross)
    assert loaded.arguments["rule"].params[:2] == (5.0, 7.0)
    assert loaded.name == "SmaCross"


def test_a_file_is_found_relative_to_the_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "runs", RULE.format(weight=0.5))
    monkeypatch.chdir(tmp_path)
    assert load("./mine.py:Mine", folder=tmp_path / "runs").name == "Mine"
    with pytest.raises(ConfigError, match=r"there is no file mine.py; it is looked for relative to the run file"):
        load("./mine.py:Mine")


def test_two_files_of_one_name_do_not_meet(tmp_path: Path):
    folders = [write(tmp_path / str(weight), RULE.format(weight=weight)) for weight in (0.25, 0.75)]
    loaded = [load("./mine.py:Mine", folder=folder) for folder in folders]
    assert [each.arguments["rule"].params.weight for each in loaded] == [0.25, 0.75]
    bars = make_bars({"A": [0.0, 0.0]})
    bought = [run(bars, each.cls, each.arguments).orders[0].quantity for each in loaded]
    assert bought == [25.0, 75.0]


def test_a_file_that_changed_is_read_anew_and_has_another_hash(tmp_path: Path):
    first = load("./mine.py:Mine", folder=write(tmp_path, RULE.format(weight=0.25)))
    again = load("./mine.py:Mine", folder=tmp_path)
    second = load("./mine.py:Mine", folder=write(tmp_path, RULE.format(weight=0.5)))
    assert first.source_hash == again.source_hash != second.source_hash
    assert second.source_hash == hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    assert second.arguments["rule"].params.weight == 0.5


def test_a_plain_strategy_of_a_file_runs(tmp_path: Path):
    loaded = load("./mine.py:Mine", folder=write(tmp_path, PLAIN), size=4, stop_pct=3, fast=False, anything=[1])
    assert [order.quantity for order in run(make_bars({"A": [0.0] * 3}), loaded.cls, loaded.arguments).orders] == [4.0]


# --- what can be wrong with the place --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("strategies.nothing:Mine", "there is no module strategies.nothing; a file of your own is named as ./file.py"),
        ("nowhere:Mine", "there is no module nowhere"),
        (
            "strategies.forecast:Nope",
            "forecast has no strategy named Nope; expected a Rule or a bt",
        ),
        ("strategies.forecast:ForecastParams", "has no strategy named ForecastParams"),
        ("strategies.forecast:np", "has no strategy named np"),
        ("strategies.rule:Rule", "Rule is not a complete rule: it lacks Params, signals, lines, targets"),
        ("./mine:Mine", "expected module:Class or ./file.py:Class, found ./mine:Mine"),
        ("strategies/forecast:Forecast", "expected module:Class or ./file.py:Class"),
        ("./none.py:Mine", "there is no file none.py"),
    ],
)
def test_what_is_not_there_is_named(kind: str, message: str):
    with pytest.raises(ConfigError, match=rf"^strategy.kind: .*{message}"):
        load(kind)


def test_a_folder_is_not_a_file(tmp_path: Path):
    (tmp_path / "mine.py").mkdir()
    with pytest.raises(ConfigError, match="there is no file"):
        load("./mine.py:Mine", folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "SyntaxError: '\\(' was never closed, line 1"),
        ("\n\nraise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("x = '\0'", "source code string cannot contain null bytes"),
    ],
)
def test_a_file_that_does_not_import_is_named_with_the_reason(text: str, message: str, tmp_path: Path):
    with pytest.raises(StrategyError, match=rf"mine.py: the strategy could not be imported: .*{message}") as caught:
        load("./mine.py:Mine", folder=write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_module_that_does_not_import_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(write(tmp_path, "import nothing_of_this_name", "needs_more.py"))
    with pytest.raises(StrategyError, match="needs_more could not be imported: No module named 'nothing_of_this_name'"):
        load("needs_more:Mine")


def test_a_rule_that_cannot_be_built_is_named(tmp_path: Path):
    text = (
        RULE.format(weight=0.5) + "\n    def __init__(self, values, context):\n        raise ValueError('not today')\n"
    )
    with pytest.raises(StrategyError, match=r"^Mine could not be built: ValueError: not today$"):
        load("./mine.py:Mine", folder=write(tmp_path, text))


def test_a_rule_that_is_not_complete_says_what_it_lacks(tmp_path: Path):
    text = RULE.format(weight=0.5).replace("def lines", "def other").replace("signals =", "signal =")
    with pytest.raises(ConfigError, match=r"^strategy.kind: Mine is not a complete rule: it lacks signals, lines$"):
        load("./mine.py:Mine", folder=write(tmp_path, text))


# --- parameters ------------------------------------------------------------------------------------------------------


def test_an_unknown_parameter_of_a_rule_is_named_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"^strategy.params.fats: unknown to SmaCross; expected one of fast, slow, min"
    ):
        load("strategies.sma_cross:SmaCross", fats=3)


@pytest.mark.parametrize("value", ["3", True, None, [3], {"a": 3}])
def test_a_parameter_of_a_rule_is_a_number(value: Any):
    with pytest.raises(ConfigError, match=r"^strategy.params.fast: expected a finite number, found "):
        load("strategies.sma_cross:SmaCross", fast=value)


def test_an_unknown_parameter_of_a_plain_strategy_is_named_with_the_known_ones(tmp_path: Path):
    write(tmp_path, PLAIN)
    with pytest.raises(ConfigError, match=r"^strategy.params.sise: unknown to Mine; expected one of anything, fast, "):
        load("./mine.py:Mine", folder=tmp_path, sise=3)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("size", "4", "a number, found '4'"),
        ("size", True, "a number, found True"),
        ("stop_pct", None, "a number, found None"),
        ("stop_pct", [1], r"a number, found \[1\]"),
        ("fast", 1, "true or false, found 1"),
        ("label", 2, "text, found 2"),
    ],
)
def test_a_parameter_of_a_plain_strategy_has_the_type_of_its_default(
    name: str, value: Any, expected: str, tmp_path: Path
):
    write(tmp_path, PLAIN)
    with pytest.raises(ConfigError, match=rf"^strategy.params.{name}: expected {expected}$"):
        load("./mine.py:Mine", folder=tmp_path, **{name: value})


# --- the forecaster --------------------------------------------------------------------------------------------------


def test_a_parameter_named_forecaster_is_given_the_runs_own(tmp_path: Path):
    forecaster = ScriptedForecaster()
    loaded = load("./mine.py:Forecasting", folder=write(tmp_path, PLAIN), forecaster=forecaster, size=2)
    assert loaded.arguments == {"forecaster": forecaster, "size": 2}
    assert load("strategies.plain:Plain", forecaster=forecaster).arguments["forecaster"] is forecaster


def test_a_run_file_cannot_name_the_forecaster():
    with pytest.raises(
        ConfigError, match=r"^strategy.params.forecaster: unknown to Plain; expected one of stop_pct, th"
    ):
        load("strategies.plain:Plain", params={"forecaster": "bundles/mine"})


@pytest.mark.parametrize("cls", [Forecast, Plain])
def test_a_strategy_that_needs_a_model_says_so(cls: type):
    with pytest.raises(ConfigError, match=r"trades a forecast, and the run file has no model; add one$"):
        load(f"{cls.__module__}:{cls.__name__}")


@pytest.mark.parametrize("kind", ["strategies.buy_and_hold:BuyAndHold", "strategies.sma_cross:SmaCross"])
def test_the_others_need_none(kind: str):
    assert load(kind).cls is RuleStrategy
