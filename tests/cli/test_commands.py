"""The commands as their user types them, end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml
from cli_project import Project

HEAVY = ("torch", "pandas", "backtrader", "numpy", "pytorch_lightning")


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['nextbar', '--help']\n"
        "from engine.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
    for name in ("train", "backtest", "report", "compare", "config"):
        assert re.search(rf"^  {name} ", output, re.MULTILINE)


def test_a_backtest_does_not_import_lightning(project: Project) -> None:
    code = (
        "import sys; sys.argv = ['nextbar', 'backtest', 'run.yaml', '--json']\n"
        "from engine.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print('pytorch_lightning' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False"
    assert json.loads(done.stdout)["status"] == "completed"


def test_train_writes_a_bundle_and_names_the_next_command(empty: Project) -> None:
    result = empty.run("train", empty.write())
    assert result.exit_code == 0
    assert result.stdout == ""
    bundle = Path(re.search(r"Wrote (\S+)", result.stderr).group(1))  # type: ignore[union-attr]
    assert {path.name for path in bundle.iterdir()} == {"weights.safetensors", "bundle.json", "training.csv"}
    assert "nextbar backtest" in result.stderr
    for word in ("zero", "last return", "train mean"):
        assert word in result.stderr


def test_train_again_uses_what_is_there_unless_forced(project: Project) -> None:
    first = project.json("train", "run.yaml")
    assert first["reused"] is True
    forced = project.json("train", "run.yaml", "--force")
    assert forced["reused"] is False
    assert forced["evaluation"] == first["evaluation"]


def test_backtest_prints_one_object_and_repeats_itself(project: Project) -> None:
    first, second = (project.json("backtest", "run.yaml") for _ in range(2))
    assert first["status"] == "completed"
    assert set(first["metrics"]) == {"strategy", "benchmark", "buy_and_hold", "forecast"}
    assert first["metrics"]["strategy"]["fills"] > 0
    for key in ("orders_hash", "fills_hash", "metrics"):
        assert first[key] == second[key]
    assert first["run"] != second["run"]
    texts = {(project.folder / value["run"] / "metrics.json").read_bytes() for value in (first, second)}
    assert len(texts) == 1


def test_a_run_folder_holds_what_it_promises(project: Project) -> None:
    folder = project.folder / project.json("backtest", "run.yaml")["run"]
    assert {path.name for path in folder.iterdir()} >= {
        "manifest.json", "config.yaml", "metrics.json", "equity.parquet", "orders.parquet", "fills.parquet",
        "trades.parquet", "forecasts.parquet", "report.html",
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["in_sample"] is False
    assert set(manifest["audit"].values()) == {"passed", "own"}
    fills = pd.read_parquet(folder / "fills.parquet")
    assert (fills["time"] > fills["decision_time"]).all()
    orders = pd.read_parquet(folder / "orders.parquet")
    assert orders["time"].min() >= pd.Timestamp("2011-01-03 21:00", tz="UTC")
    # The resolved run file is a run file: it gives the same run again.
    again = project.write("again.yaml", **yaml.safe_load((folder / "config.yaml").read_text()))
    assert project.json("backtest", again)["orders_hash"] == manifest["orders_hash"]


def test_each_test_of_a_model_is_counted_for_good(project: Project) -> None:
    for _ in range(2):
        folder = project.folder / project.json("backtest", "run.yaml")["run"]
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    trials = [json.loads(line) for line in (project.folder / "runs" / "trials.jsonl").read_text().splitlines()]
    assert [trial["kind"] for trial in trials].count("backtest") == 2
    assert trials[-1]["span"] == {"name": "test", "start": "2011-01-01", "end": "2011-06-30"}


def test_training_counts_as_a_trial_because_it_looks_at_the_test_span(empty: Project) -> None:
    empty.json("train", empty.write())
    (trial,) = [json.loads(line) for line in (empty.folder / "runs" / "trials.jsonl").read_text().splitlines()]
    assert trial["kind"] == "train"
    assert set(trial["hashes"]) == {"config", "data", "model", "strategy"}


def test_seen_bars_are_refused_unless_asked_for_by_name(project: Project) -> None:
    bundle = next((project.folder / "bundles").iterdir())
    seen = project.write("seen.yaml", model={"bundle": str(bundle)}, spans={"test": ["2010-05-01", "2010-12-31"]})
    assert "2010-06-30" in project.fails(2, "backtest", seen)
    earlier = project.write("earlier.yaml", model={"bundle": str(bundle)}, spans={"test": ["2006-01-01", "2006-12-31"]})
    assert "2010-06-30" in project.fails(2, "backtest", earlier)
    assert project.runs == []
    result = project.json("backtest", "run.yaml", "--span", "train")
    folder = project.folder / result["run"]
    assert json.loads((folder / "manifest.json").read_text())["in_sample"] is True
    assert "IN-SAMPLE" in (folder / "report.html").read_text()
    assert pd.read_parquet(folder / "forecasts.parquet")["in_sample"].all()
    assert not (project.folder / "runs" / "trials.jsonl").read_text().count('"kind":"backtest"')


def test_later_bars_do_not_change_a_run(project: Project) -> None:
    bundle = next((project.folder / "bundles").iterdir())
    shorter = project.write("shorter.yaml", model={"bundle": str(bundle)}, spans={"test": ["2011-01-01", "2011-03-31"]})
    short = project.folder / project.json("backtest", shorter)["run"]
    whole = project.folder / project.json("backtest", "run.yaml")["run"]
    fills, all_fills = (pd.read_parquet(folder / "fills.parquet") for folder in (short, whole))
    assert 0 < len(fills) < len(all_fills)
    pd.testing.assert_frame_equal(fills, all_fills.iloc[: len(fills)])


def test_report_and_compare(project: Project) -> None:
    project.json("backtest", "run.yaml")
    project.write("rival.yaml", name="rival", model=None, strategy={"kind": "strategies.buy_and_hold:BuyAndHold"})
    project.json("backtest", "rival.yaml")
    page = project.folder / project.json("report", "tiny")["report"]
    before = page.read_bytes()
    page.unlink()
    project.json("report", "tiny")
    assert page.read_bytes() == before
    compared = project.json("compare", "tiny", "rival")
    assert [run["name"] for run in compared["runs"]] == ["tiny", "rival"]
    assert (project.folder / compared["report"]).is_file()
    assert "each run once" in project.fails(2, "compare", "rival", "latest")


def test_config_prints_every_default_as_a_run_file(project: Project) -> None:
    printed = project.run("config", "run.yaml", "--set", "broker.cash=5000").stdout
    values = yaml.safe_load(printed)
    assert values["broker"]["cash"] == 5000
    assert values["training"]["patience"] == 5
    project.write("resolved.yaml", **values)
    assert project.json("config", "resolved.yaml") == project.json("config", "run.yaml", "--set", "broker.cash=5000")


def test_a_halt_exits_with_5_and_still_leaves_its_report(project: Project) -> None:
    held = project.write("held.yaml", model=None, strategy={"kind": "strategies.buy_and_hold:BuyAndHold"})
    result = project.run("backtest", held, "--set", "risk.max_drawdown_halt=0.05", "--json")
    assert result.exit_code == 5
    value = json.loads(result.stdout)
    assert value["status"] == "halted"
    assert "max_drawdown_halt" in result.stderr
    folder = project.folder / value["run"]
    assert "HALTED" in (folder / "report.html").read_text()
    fills = pd.read_parquet(folder / "fills.parquet")
    signed = fills["quantity"].where(fills["side"] == "buy", -fills["quantity"])
    assert signed.groupby(fills["symbol"]).sum().abs().max() == 0.0


def test_a_strategy_of_ones_own_by_path(project: Project) -> None:
    (project.folder / "mine.py").write_text(
        "import backtrader as bt\n"
        "from models.indicator import ForecastIndicator\n"
        "class Mine(bt.Strategy):\n"
        "    params = (('forecaster', None), ('size', 5))\n"
        "    def __init__(self):\n"
        "        self.forecast = ForecastIndicator(self.data, bundle=self.p.forecaster)\n"
        "    def next(self):\n"
        "        if len(self) % 7 == 1:\n"
        "            self.order_target_size(target=self.p.size if self.forecast.upper[0] > 0 else 0)\n"
        "        elif len(self) % 7 == 4:\n"
        "            self.close()\n"
    )
    mine = project.write("mine.yaml", name="mine", strategy={"kind": "./mine.py:Mine", "params": {"size": 3}})
    first = project.json("backtest", mine)
    assert first["metrics"]["strategy"]["fills"] > 10
    assert set(pd.read_parquet(project.folder / first["run"] / "fills.parquet")["quantity"]) == {3.0}


def test_the_readme_rule_runs(project: Project) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "class Momentum" in block)
    (project.folder / "mine.py").write_text(code)
    mine = project.write("mine.yaml", model=None, strategy={"kind": "./mine.py:Momentum", "params": {"days": 60}})
    assert project.json("backtest", mine)["metrics"]["strategy"]["fills"] > 0


def test_the_readme_indicator_runs_in_a_run_file(project: Project) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "class Mine" in block)
    bundle = next((project.folder / "bundles").iterdir())
    (project.folder / "mine.py").write_text(code.replace("bundles/quickstart-...", str(bundle)).replace("0.0005", "-1"))
    mine = project.write("mine.yaml", model=None, strategy={"kind": "./mine.py:Mine"})
    assert project.json("backtest", mine)["metrics"]["strategy"]["fills"] > 0


def test_every_shipped_run_file_without_a_model_runs(empty: Project) -> None:
    configs = Path(__file__).parents[2] / "configs"
    for path in sorted(configs.glob("*.yaml")):
        if not re.search(r"^models?:", path.read_text(), re.MULTILINE):
            assert empty.json("backtest", path)["metrics"]["strategy"]["fills"] > 0, path


def test_tables_go_to_stderr_and_colours_can_be_switched_off(project: Project) -> None:
    result = project.run("backtest", "run.yaml")
    assert result.stdout == ""
    assert "buy-and-hold" in result.stderr
    assert "\x1b[" not in result.stderr


def test_recorded_forecasts_are_those_the_strategy_saw(project: Project) -> None:
    seen = pd.read_parquet(project.folder / project.json("backtest", "run.yaml")["run"] / "forecasts.parquet")
    hold = project.write("hold.yaml", strategy={"kind": "strategies.buy_and_hold:BuyAndHold"})
    computed = pd.read_parquet(project.folder / project.json("backtest", hold)["run"] / "forecasts.parquet")
    assert seen["forecast"].notna().all()
    pd.testing.assert_frame_equal(seen, computed, check_exact=True)


def test_a_strategy_that_does_nothing_has_a_report_too(project: Project) -> None:
    idle = project.write(
        "idle.yaml", strategy={"kind": "strategies.forecast:Forecast", "params": {"margin_bps": 10000}}
    )
    first = project.json("backtest", idle)
    assert first["metrics"]["strategy"]["total_return_pct"] == 0.0
    assert first["metrics"]["strategy"]["sharpe_ratio"] is None
    assert (first["metrics"]["strategy"]["orders"], first["metrics"]["strategy"]["trades"]) == (0, 0)
    assert project.json("report", "tiny")["run"] == first["run"]


PLAIN_FORECAST = (
    "import backtrader as bt\n"
    "from models.indicator import ForecastIndicator\n"
    "class Mine(bt.Strategy):\n"
    "    params = (('bundle', ''),)\n"
    "    def __init__(self):\n"
    "        self.forecast = ForecastIndicator(self.data, bundle=self.p.bundle)\n"
    "    def next(self):\n"
    "        self.order_target_size(target=5 if len(self) % 5 else 0)\n"
)


def test_a_bundle_that_only_the_strategy_knows_is_held_to_its_span_too(project: Project) -> None:
    (project.folder / "mine.py").write_text(PLAIN_FORECAST)
    bundle = next((project.folder / "bundles").iterdir())
    strategy = {"kind": "./mine.py:Mine", "params": {"bundle": str(bundle)}}
    seen = project.write("mine.yaml", model=None, strategy=strategy, spans={"test": ["2009-06-01", "2009-12-31"]})
    assert bundle.name in project.fails(2, "backtest", seen)
    assert project.runs == []
    later = project.write("mine.yaml", model=None, strategy=strategy, spans={"test": ["2011-01-01", "2011-06-30"]})
    manifest = json.loads((project.folder / project.json("backtest", later)["run"] / "manifest.json").read_text())
    assert (manifest["in_sample"], manifest["bundles"]) == (False, [bundle.name])


def test_only_the_runs_own_model_is_scored(project: Project) -> None:
    own = project.json("backtest", "run.yaml")["metrics"]["forecast"]
    project.json("train", "run.yaml", "--set", "training.seed=8", "--set", "name=other")
    other = next(path for path in (project.folder / "bundles").iterdir() if path.name.startswith("other"))
    (project.folder / "mine.py").write_text(PLAIN_FORECAST)
    both = project.write("both.yaml", strategy={"kind": "./mine.py:Mine", "params": {"bundle": str(other)}})
    assert project.json("backtest", both)["metrics"]["forecast"] == own


def test_a_look_at_unseen_bars_is_a_trial_whatever_the_span_is_called(project: Project) -> None:
    bundle = next((project.folder / "bundles").iterdir())
    spans = {"validate": ["2011-01-01", "2011-03-31"], "test": ["2011-04-01", "2011-06-30"]}
    run = project.write("look.yaml", model={"bundle": str(bundle)}, spans=spans)
    result = project.json("backtest", run, "--span", "validate")
    assert json.loads((project.folder / result["run"] / "manifest.json").read_text())["in_sample"] is False
    trials = [json.loads(line) for line in (project.folder / "runs" / "trials.jsonl").read_text().splitlines()]
    assert trials[-1]["span"]["name"] == "validate"


def test_the_same_trial_under_another_name_has_the_same_subject(project: Project) -> None:
    for override in ("name=one", "name=two", "broker.slippage_bps=3"):
        project.json("backtest", "run.yaml", "--set", override)
    trials = [json.loads(line) for line in (project.folder / "runs" / "trials.jsonl").read_text().splitlines()]
    one, two, three = [trial["subject"] for trial in trials if trial["kind"] == "backtest"]
    assert one == two != three


def test_the_benchmark_is_not_stretched_beyond_its_bars(empty: Project) -> None:
    hold = {"kind": "strategies.buy_and_hold:BuyAndHold"}
    data = {"source": "sample:large20", "symbols": ["AAPL", "KO"], "benchmark": "sample:sp500"}
    run = empty.write(data=data, model=None, strategy=hold, spans={"test": ["2018-06-01", "2019-06-28"]})
    result = empty.json("backtest", run)
    assert any("benchmark" in remark for remark in result["remarks"])
    folder = empty.folder / result["run"]
    benchmark = pd.read_parquet(folder / "equity.parquet")["benchmark"]
    assert benchmark.loc["2018"].notna().all()
    assert benchmark.loc["2019"].isna().all()
    assert "the benchmark has bars from" in (folder / "report.html").read_text()


def test_a_run_file_of_ones_own_strategy_runs_from_its_run_folder(project: Project) -> None:
    (project.folder / "mine.py").write_text(PLAIN_FORECAST)
    bundle = next((project.folder / "bundles").iterdir())
    mine = project.write(strategy={"kind": "./mine.py:Mine", "params": {"bundle": str(bundle)}})
    first = project.json("backtest", mine)
    again = project.json("backtest", Path(first["run"]) / "config.yaml")
    assert again["orders_hash"] == first["orders_hash"]


def test_a_cash_account_with_a_minimum_commission_buys(project: Project) -> None:
    hold = {"kind": "strategies.buy_and_hold:BuyAndHold"}
    broker = {"cash": 1000, "account": "cash", "fractional": True, "commission": {"minimum": 5.0}}
    result = project.json("backtest", project.write(model=None, strategy=hold, broker=broker))
    assert result["metrics"]["strategy"]["fills"] == 2
    assert result["metrics"]["strategy"]["total_return_pct"] == result["metrics"]["buy_and_hold"]["total_return_pct"]
    poor = project.json("backtest", "run.yaml", "--set", "broker.cash=10", "--set", "broker.fractional=false")
    assert any("buy-and-hold could not buy" in remark for remark in poor["remarks"])


def test_a_run_is_found_by_its_whole_name(project: Project) -> None:
    for name in ("sma", "sma-50"):
        project.json("backtest", "run.yaml", "--set", f"name={name}")
    assert project.json("report", "sma")["run"].endswith("Z-sma")
    assert project.json("report", "sma-50")["run"].endswith("Z-sma-50")


def test_a_short_symbol_does_not_stop_the_others(project: Project) -> None:
    folder = project.folder / "bars"
    folder.mkdir()
    days = pd.bdate_range("2011-01-03", "2011-06-30").strftime("%Y-%m-%d")
    days = [day for day in days if day not in ("2011-01-17", "2011-02-21", "2011-04-22", "2011-05-30")]
    for symbol, taken in (("OLD", days), ("NEW", days[-20:])):
        rows = [f"{day},100,{101 + i % 7},99,{100 + i % 5 / 10},1000" for i, day in enumerate(taken)]
        (folder / f"{symbol}.csv").write_text("\n".join(["date,open,high,low,close,volume", *rows]) + "\n")
    data = {"source": "files", "path": "bars", "symbols": ["OLD", "NEW"]}
    strategy = {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 3, "slow": 50}}
    result = project.json("backtest", project.write(data=data, model=None, strategy=strategy))
    fills = pd.read_parquet(project.folder / result["run"] / "fills.parquet")
    assert set(fills["symbol"]) == {"OLD"}


def test_a_users_indicator_that_looks_ahead_is_found_out(project: Project) -> None:
    code = (
        "import backtrader as bt\n"
        "import numpy as np\n"
        "class Level(bt.Indicator):\n"
        "    lines = ('level',)\n"
        "    def next(self): self.lines.level[0] = self.data[0]\n"
        "    def once(self, start, end):\n"
        "        close = np.array(self.data.array)\n"
        "        for i in range(start, end): self.lines.level.array[i] = {value}\n"
        "class Mine(bt.Strategy):\n"
        "    def __init__(self): self.level = Level(self.data.close)\n"
        "    def next(self): self.order_target_size(target=5 if self.level[0] > 0 else 0)\n"
    )
    (project.folder / "mine.py").write_text(code.format(value="close[i] - close.mean()"))
    mine = project.write("mine.yaml", model=None, strategy={"kind": "./mine.py:Mine"})
    assert "Level looks ahead" in project.fails(1, "backtest", mine)
    (project.folder / "mine.py").write_text(code.format(value="close[i] - close[max(0, i - 9) : i + 1].mean()"))
    folder = project.folder / project.json("backtest", mine)["run"]
    assert json.loads((folder / "manifest.json").read_text())["audit"]["indicators_causal"] == "passed"


def test_what_a_strategy_prints_does_not_meet_the_json(project: Project) -> None:
    (project.folder / "mine.py").write_text(
        "import backtrader as bt\nclass Mine(bt.Strategy):\n    def next(self): print('noise')\n"
    )
    result = project.run("backtest", project.write(model=None, strategy={"kind": "./mine.py:Mine"}), "--json")
    assert json.loads(result.stdout)["status"] == "completed"
    assert "noise" in result.stderr


def test_in_sample_and_synthetic_are_said_everywhere(project: Project) -> None:
    result = project.run("backtest", "run.yaml", "--span", "train", "--json")
    assert json.loads(result.stdout)["in_sample"] is True
    assert "IN-SAMPLE" in result.stderr
    minutes = project.run("backtest", Path(__file__).parents[2] / "configs" / "minutes.yaml", "--json")
    assert json.loads(minutes.stdout)["synthetic"] is True
    assert "synthetic" in minutes.stderr


def test_orders_that_were_turned_down_and_symbols_that_stopped_are_remarked_on(project: Project) -> None:
    (project.folder / "mine.py").write_text(
        "import backtrader as bt\nclass Mine(bt.Strategy):\n    def next(self): self.sell(size=1)\n"
    )
    data = {"source": "sample:tech", "symbols": ["AAPL"]}
    spans = {"test": ["2013-02-01", "2013-06-30"]}
    rejected = project.json("backtest", project.write(data=data, model=None, strategy={"kind": "./mine.py:Mine"}))
    assert any("orders were turned down" in remark for remark in rejected["remarks"])
    folder = project.folder / "bars"
    folder.mkdir()
    days = [day for day in pd.bdate_range("2013-02-01", "2013-06-28") if day not in _HOLIDAYS]
    for symbol, taken in (("ON1", days), ("OFF", days[:40])):
        rows = [f"{day:%Y-%m-%d},100,101,99,100,1000" for day in taken]
        (folder / f"{symbol}.csv").write_text("\n".join(["date,open,high,low,close,volume", *rows]) + "\n")
    data = {"source": "files", "path": "bars", "symbols": ["ON1", "OFF"]}
    hold = {"kind": "strategies.buy_and_hold:BuyAndHold"}
    stopped = project.json("backtest", project.write(data=data, spans=spans, model=None, strategy=hold))
    assert any(remark.startswith("OFF has no bars after 2013-0") for remark in stopped["remarks"])


_HOLIDAYS = [pd.Timestamp(day) for day in ("2013-02-18", "2013-03-29", "2013-05-27")]
