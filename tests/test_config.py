"""The run file: what it may say, and the one sentence when it says something else."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.config import DataConfig, RunConfig
from engine.errors import ConfigError
from engine.model_sections import BundleReference, LstmConfig
from engine.run_file import load_config
from engine.sections import digest, dump

CONFIGS = Path(__file__).parent.parent / "configs"

SMALL = """
name: small
data: {source: files, symbols: [AAPL, MSFT]}
spans: {test: [2011-01-01, 2011-12-31]}
strategy: {kind: "strategies.sma_cross:SmaCross"}
"""
LSTM = "model: {kind: lstm, features: [log_return]}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str, *overrides: str) -> str:
    """What load_config says of a run file, without the name of the file."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message.removeprefix(f"{path}: ")


# --- files that are no run file -------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match="no such run file; configs/ holds runnable examples"):
        load_config(path)


def test_a_folder_and_a_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be read"):
        load_config(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="could not be read"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a run file is a mapping of sections, found an empty file"),
        ("# nothing\n", "a run file is a mapping of sections, found an empty file"),
        ("- a\n- b\n", "a run file is a mapping of sections, found a list"),
        ("just words", "a run file is a mapping of sections, found a str"),
        ("a: [1, 2\nb: 3\n", "not valid YAML at line 2: expected ',' or ']', but got ':'"),
        ("name: a\n\tb: 1\n", "not valid YAML at line 2: found character '\\t' that cannot start any token"),
        ("name: a\0b", "not valid YAML: unacceptable character #x0000: special characters are not allowed in"),
        ("name: a\n---\nname: b\n", "not valid YAML at line 2: but found another document"),
        ("name: a\nname: b\n", "not valid YAML at line 2: the key 'name' is given twice"),
        ("broker:\n  cash: 1\n  cash: 2\n", "not valid YAML at line 3: the key 'cash' is given twice"),
        ("? [a, b]\n: 1\n", "not valid YAML at line 1: a key must be plain text"),
        ("spans: {test: [2011-13-01, 2012-01-01]}", "not valid YAML: month must be in 1..12"),
        ("n: " + "9" * 5_000, "not valid YAML: Exceeds the limit"),
        ("a: " + "[" * 20_000, "not valid YAML: "),
    ],
)
def test_what_is_no_mapping_or_no_yaml(tmp_path: Path, text: str, expected: str) -> None:
    assert complaint(tmp_path, text).startswith(expected)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch owned']",
        "!!python/object/new:os.system ['touch owned']",
        "!!python/name:os.system",
        "!!python/tuple [1, 2]",
        "!anything {a: 1}",
    ],
)
def test_no_object_is_ever_made_from_a_tag(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "could not determine a constructor for the tag" in complaint(tmp_path, f"{SMALL}risk: {value}\n")
    assert not (tmp_path / "owned").exists()


def test_aliases_are_refused_before_they_can_explode(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert complaint(tmp_path, "\n".join(levels)) == (
        "not valid YAML at line 2: the alias *a0 is not supported; write the value out"
    )
    itself = SMALL.replace('SmaCross"}', 'SmaCross", params: &p {again: *p}}')
    assert "the alias *p is not supported" in complaint(tmp_path, itself)


# --- keys and types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("brokr: {cash: 1}", "brokr: unknown key; did you mean broker?"),
        ("broker: {cahs: 1}", "broker.cahs: unknown key; did you mean cash?"),
        ("broker: {commission: {bsp: 1}}", "broker.commission.bsp: unknown key; did you mean bps?"),
        (
            "broker: {commission: {zzz: 1}}",
            "broker.commission.zzz: unknown key; expected one of bps, per_share, minimum",
        ),
        ("risk: {max_positon: 0.1}", "risk.max_positon: unknown key; did you mean max_position?"),
        ("training: {lr: 0.1}", "training.lr: unknown key; expected one of seed, epochs, "),
        ("model: {kind: lstm, features: [a], looback: 5}", "model.looback: unknown key; did you mean lookback?"),
        ("model: {kind: lstm, featurs: [a]}", "model.featurs: unknown key; did you mean features? (and 1 more)"),
        ("model: {bundle: b, kind: lstm}", "model.kind: unknown key; expected one of bundle"),
        ("folder: /tmp", "folder: unknown key; remove it"),
        ("5: 1", "5: keys should be strings, found 5"),
    ],
)
def test_unknown_keys(tmp_path: Path, addition: str, expected: str) -> None:
    assert complaint(tmp_path, f"{SMALL}{addition}\n").startswith(expected)


def test_the_span_validate_has_one_name(tmp_path: Path) -> None:
    text = SMALL.replace("test:", "validate_: [2009-01-01, 2009-12-31], test:")
    assert complaint(tmp_path, text) == "spans.validate_: unknown key; did you mean validate?"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("name", "name: required, and missing"),
        ("data", "data: required, and missing"),
        ("spans", "spans: required, and missing"),
        ("strategy", "strategy: required, and missing"),
    ],
)
def test_missing_sections(tmp_path: Path, section: str, expected: str) -> None:
    text = "\n".join(line for line in SMALL.splitlines() if not line.startswith(f"{section}:"))
    assert complaint(tmp_path, text) == expected


def test_several_problems_are_counted(tmp_path: Path) -> None:
    assert complaint(tmp_path, "name: a\n") == "data: required, and missing (and 2 more)"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("broker.cash=lots", "broker.cash: input should be a valid number"),
        ("broker.cash=", "broker.cash: input should be a valid number, found nothing"),
        ("broker.cash=true", "broker.cash: expected a number, found the boolean true"),
        ("training.epochs=yes", "training.epochs: expected a number, found the boolean true"),
        ("training.devices=true", "training.devices: expected a number, found the boolean true"),
        ("risk.max_position=false", "risk.max_position: expected a number, found the boolean false"),
        ("broker.account=on", "broker.account: input should be 'margin' or 'cash', found True"),
        ("broker.account=credit", "broker.account: input should be 'margin' or 'cash', found 'credit'"),
        ("broker.short=maybe", "broker.short: input should be a valid boolean"),
        ("broker=5", "broker: expected a section of key: value lines, found 5"),
        ("broker=", "broker: expected a section of key: value lines, found nothing"),
        ("broker=[1]", "broker: expected a section of key: value lines"),
        ("training=false", "training: expected a section of key: value lines, found False"),
        ("broker.commission=1", "broker.commission: expected a section of key: value lines, found 1"),
        ("model=5", "model: expected a section of key: value lines, found 5"),
        ("model={}", "model.kind: required, and missing"),
        ("model={kind: gruu, features: [a]}", "model.kind: expected bundle: PATH, or a kind of model: rnn, gru, lstm"),
        ("model={kind: lstm, features: []}", "model.features: expected at least one, found an empty list"),
        ("model={kind: lstm, features: [a, a]}", "model.features: expected each once, found a more than once"),
        ("model={kind: lstm, features: [a], dropout: 1}", "model.dropout: input should be less than 1, found 1"),
        ("data.symbols=AAPL", "data.symbols: expected a list, found 'AAPL'"),
        ("data.symbols=[]", "data.symbols: expected at least one, found an empty list"),
        ("data.symbols=['']", "data.symbols.0: expected a symbol without spaces and without , # ? %, found ''"),
        ("data.symbols=[A B]", "data.symbols.0: expected a symbol without spaces and without , # ? %, found 'A B'"),
        ("data.symbols=[A, B, A, C, B]", "data.symbols: expected each once, found A, B more than once"),
        # YAML reads the ticker ON as true and 0700 as 448.
        ("data.symbols=[ON]", "data.symbols.0: expected text (quote what YAML reads as something else), found True"),
        ("data.symbols=[0700]", "data.symbols.0: expected text (quote what YAML reads as something else), found 448"),
        ("data.timeframe=2d", "data.timeframe: expected minutes, hours, a day, a week or a month, such as 5m"),
        ("data.timeframe=0m", "data.timeframe: expected minutes"),
        ("data.warmup_bars=-1", "data.warmup_bars: input should be greater than or equal to 0, found -1"),
        ("data.columns=[close]", "data.columns: expected a section of key: value lines"),
        ("data.stamp=middle", "data.stamp: input should be 'start' or 'end', found 'middle'"),
        ("data.feed=otc", "data.feed: input should be 'iex' or 'sip', found 'otc'"),
        ("data.adjustment=none", "data.adjustment: input should be 'raw', 'split', 'dividend' or 'all', found 'none'"),
        ("data.start=5", "data.start: expected a date such as 2004-09-01 or today-30, found 5"),
        ("data.start=tomorrow", "data.start: expected a date such as 2004-09-01 or today-30, found 'tomorrow'"),
        ("training.epochs=1.5", "training.epochs: input should be a valid integer"),
        ("training.epochs=0", "training.epochs: input should be greater than or equal to 1, found 0"),
        ("training.seed=-1", "training.seed: input should be greater than or equal to 0, found -1"),
        ("training.seed=4294967296", "training.seed: input should be less than 4294967296, found 4294967296"),
        ("training.learning_rate=0", "training.learning_rate: input should be greater than 0, found 0"),
        ("broker.cash=0", "broker.cash: input should be greater than 0, found 0"),
        ("broker.slippage_bps=10000", "broker.slippage_bps: input should be less than 10000, found 10000"),
        ("broker.commission.bps=-1", "broker.commission.bps: input should be greater than or equal to 0, found -1"),
        ("broker={account: cash, short: true}", "broker: a cash account cannot sell short; use"),
        ("risk.max_gross=2.5", "risk.max_gross: input should be less than or equal to 2, found 2.5"),
        ("risk.max_drawdown_halt=0", "risk.max_drawdown_halt: input should be greater than 0, found 0"),
        ("risk.max_daily_loss_halt=1.1", "risk.max_daily_loss_halt: input should be less than or equal to 1"),
        ("risk.max_order_notional=0", "risk.max_order_notional: input should be greater than 0, found 0"),
        ("risk.price_collar=-0.1", "risk.price_collar: input should be greater than 0, found -0.1"),
        ("risk.symbols=AAPL", "risk.symbols: expected a list, found 'AAPL'"),
        ("risk.symbols=[]", "risk.symbols: expected at least one, found an empty list"),
        ("risk.symbols=[ON]", "risk.symbols.0: expected text (quote what YAML reads as something else), found True"),
        ("risk.max_orders_per_minute=0", "risk.max_orders_per_minute: input should be greater than or equal to 1"),
        ("risk.max_orders_per_minute=1.5", "risk.max_orders_per_minute: input should be a valid integer"),
        ("risk.stale_seconds=0", "risk.stale_seconds: input should be greater than 0, found 0"),
        ("risk.stale_seconds=true", "risk.stale_seconds: expected a number, found the boolean true"),
        ("strategy.kind=SmaCross", "strategy.kind: expected module:Class or ./file.py:Class, found 'SmaCross'"),
        ("strategy.kind=a:b c", "strategy.kind: expected module:Class"),
        ("strategy.params=[1]", "strategy.params: expected a section of key: value lines"),
        ("strategy.params={1: 2}", "strategy.params.1: expected text (quote"),
        ("strategy.params={since: 2011-01-01}", "strategy.params.since: expected text, a number"),
        ("name=../up", "name: expected letters, digits, and . _ - after the first"),
        ("name=.hidden", "name: expected letters"),
        ("name=" + "a" * 65, "name: expected letters"),
        ("name='a\n'", "name: expected letters"),
    ],
)  # fmt: skip
def test_wrong_values(tmp_path: Path, override: str, expected: str) -> None:
    assert complaint(tmp_path, SMALL, override).startswith(expected)


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize(
    "key",
    ["broker.cash", "broker.commission.bps", "broker.slippage_bps", "risk.max_position", "training.learning_rate",
     "strategy.params.a", "strategy.params.deep.list", "model.dropout"],
)  # fmt: skip
def test_numbers_are_finite(tmp_path: Path, key: str, number: str) -> None:
    message = complaint(tmp_path, SMALL + LSTM, f"{key}={number}")
    assert message.startswith(f"{key}: ")
    assert "finite number" in message or "greater than" in message or "less than" in message


def test_a_number_deep_in_the_parameters_is_named_by_its_path(tmp_path: Path) -> None:
    message = complaint(tmp_path, SMALL, "strategy.params={levels: [1, {low: .nan}]}")
    assert message == "strategy.params.levels.1.low: input should be a finite number, found nan"


# --- spans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ("{}", "spans.test: required, and missing"),
        ("{trian: [2009-01-01, 2009-12-31]}", "spans.trian: unknown key; did you mean train"),
        ("{test: 2011-01-01}", "spans.test: expected a list"),
        ("{test: [2011-01-01]}", "spans.test.1: required, and missing"),
        ("{test: [2011-01-01, 2012-01-01, 2013-01-01]}", "spans.test: a list should have at most 2 items"),
        ("{test: [2011-12-31, 2011-01-01]}", "spans.test: a span starts before it ends, found 2011-12-31"),
        ("{test: [2011, 2012]}", "spans.test.0: expected a date such as 2004-09-01 or today-30, found 2011"),
        ("{test: [0, 86400]}", "spans.test.0: expected a date such as 2004-09-01 or today-30, found 0"),
        ("{test: ['0', 2012-01-01]}", "spans.test.0: expected a date such as 2004-09-01 or today-30, found '0'"),
        ("{test: [1.1.2011, 31.12.2011]}",
         "spans.test.0: expected a date such as 2004-09-01 or today-30, found '1.1.2011'"),
        ("{test: [true, 2012-01-01]}", "spans.test.0: expected a date such as 2004-09-01 or today-30, found True"),
        *(
            (f"{{test: [2011-01-01, '{text}']}}",
             f"spans.test.1: expected a date such as 2004-09-01 or today-30, found '{text}'")
            for text in ("today+1", "today - 1", "today-", "Today", " today", "today-1.5", "today--1", "today-1d",
                         "today-999999", "yesterday", "today٠")
        ),
        ("{test: [today-1, today-2]}", "spans.test: a span starts before it ends, found "),
        ("{train: [today-9, today-5], test: [today-5, today]}", "spans: train must end before test starts, found "),
        ("{test: ['2011-02-30', 2012-01-01]}", "spans.test.0: input should be a valid date"),
        ("{test: [2011-01-01 12:00:00, 2012-01-01]}", "spans.test.0: "),
        ("{train: [2010-01-01, 2011-01-01], test: [2011-01-01, 2011-12-31]}",
         "spans: train must end before test starts, found 2011-01-01 and 2011-01-01"),
        ("{train: [2009-01-01, 2010-06-30], validate: [2010-01-01, 2010-12-31], test: [2011-01-01, 2011-12-31]}",
         "spans: train must end before validate starts, found 2010-06-30 and 2010-01-01"),
        ("{train: [2012-01-01, 2012-12-31], test: [2011-01-01, 2011-12-31]}",
         "spans: train must end before test starts, found 2012-12-31 and 2011-01-01"),
        ("{validate: [2010-01-01, 2011-12-31], test: [2011-01-01, 2011-12-31]}",
         "spans: validate must end before test starts, found 2011-12-31 and 2011-01-01"),
    ],
)  # fmt: skip
def test_spans_that_cannot_be(tmp_path: Path, spans: str, expected: str) -> None:
    assert complaint(tmp_path, SMALL, f"spans={spans}").startswith(expected)


def test_a_span_of_one_day_and_spans_that_touch(tmp_path: Path) -> None:
    spans = (
        "spans={train: [2010-01-04, 2010-01-04], validate: [2010-01-05, 2010-01-05], test: [2010-01-06, 2010-01-06]}"
    )
    config = load_config(write(tmp_path, SMALL), [spans])
    assert config.spans.get("validate") == (date(2010, 1, 5), date(2010, 1, 5))
    assert list(config.spans.named()) == ["train", "validate", "test"]


def test_a_span_that_a_command_needs_and_the_file_has_not(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL))
    with pytest.raises(ConfigError, match=r"^spans\.train: this command needs the train span"):
        config.spans.get("train")


def test_dates_relative_to_today_are_real_ones_once_the_file_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL.replace("[2011-01-01, 2011-12-31]", "[today-29, today]"))
    leap_day = date(2024, 2, 29)
    config = load_config(path, ["spans.train=[2020-01-01, today-30]"], today=leap_day)
    assert config.spans.get("train") == (date(2020, 1, 1), date(2024, 1, 30))
    assert config.spans.get("test") == (date(2024, 1, 31), leap_day)
    assert dump(config)["spans"]["test"] == ["2024-01-31", "2024-02-29"]
    spelt = load_config(path, ["spans.train=[2020-01-01, 2024-01-30]", "spans.test=[2024-01-31, 2024-02-29]"])
    assert digest(dump(spelt)) == digest(dump(config))
    assert dump(load_config(path, ["data.start=today-60"], today=leap_day))["data"]["start"] == "2023-12-31"
    assert load_config(path, ["spans.test=[today-0, today]"], today=leap_day).spans.test == (leap_day, leap_day)


def test_today_is_new_yorks(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL.replace("[2011-01-01, 2011-12-31]", "[today, today]"))
    zone = ZoneInfo("America/New_York")
    before = datetime.now(zone).date()
    assert before <= load_config(path).spans.test[0] <= datetime.now(zone).date()


# --- overrides ------------------------------------------------------------------------------------------------------


def test_overrides_win_and_are_yaml(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, SMALL),
        ["broker.cash=50_000", "broker.commission.bps=1.5", "strategy.params.fast=5", "strategy.params.name='5'",
         "data.symbols=[IBM]", "training.learning_rate=1e-3", "strategy.params.why=a=b"],
    )  # fmt: skip
    assert config.broker.cash == 50_000.0
    assert config.broker.commission.bps == 1.5
    assert config.strategy.params == {"fast": 5, "name": "5", "why": "a=b"}
    assert config.data.symbols == ("IBM",)
    assert config.training.learning_rate == 0.001


def test_an_override_can_remove_the_model(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, SMALL + LSTM), ["model=null"]).model is None


@pytest.mark.parametrize("override", ["broker.cash", "=5", ".cash=5", "broker.=5", "broker..cash=5", ""])
def test_malformed_overrides(tmp_path: Path, override: str) -> None:
    message = complaint(tmp_path, SMALL, override)
    assert message == f"--set {override}: expected a.b=value, as in --set broker.cash=50000"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name.first=5", "--set name.first=5: name is not a section of the run file"),
        ("data.symbols.0=IBM", "--set data.symbols.0=IBM: symbols is not a section of the run file"),
        ("broker.cash=[1", "--set broker.cash=[1: not valid YAML at line 1: "),
        ("broker={cash: 1, cash: 2}", "--set broker={cash: 1, cash: 2}: not valid YAML at line 1: the key"),
        ("risk=!!python/name:os.system", "--set risk=!!python/name:os.system: not valid YAML at line 1: could not"),
        ("folder=/tmp", "folder: unknown key; remove it"),
        ("brokr.cash=5", "brokr: unknown key; did you mean broker?"),
    ],
)  # fmt: skip
def test_overrides_that_cannot_be(tmp_path: Path, override: str, expected: str) -> None:
    assert complaint(tmp_path, SMALL, override).startswith(expected)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL))
    assert config.model is None
    assert (config.data.timeframe, config.data.benchmark, config.data.warmup_bars) == ("1d", None, 300)
    assert (config.broker.cash, config.broker.account, config.broker.short) == (100_000.0, "margin", False)
    assert (config.broker.fractional, config.broker.commission.bps, config.broker.slippage_bps) == (False, 0.0, 0.0)
    assert (config.risk.max_position, config.risk.max_gross, config.risk.max_drawdown_halt) == (None, 1.0, None)
    assert (config.training.seed, config.training.epochs, config.training.embargo) == (7, 30, 0)
    lstm = load_config(write(tmp_path, SMALL + LSTM)).model
    assert isinstance(lstm, LstmConfig)
    assert (lstm.lookback, lstm.horizon, lstm.head, lstm.hidden, lstm.layers) == (60, 1, "quantile", 64, 2)


def test_risk_limits_that_are_off_do_not_enter_the_dump(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    assert dump(load_config(path).risk) == {"max_gross": 1.0}
    limits = {
        "max_position": 0.3, "max_gross": 1.0, "max_drawdown_halt": 0.2, "max_daily_loss_halt": 0.05,
        "max_order_notional": 30_000.0, "price_collar": 0.1, "symbols": ["AAPL"], "max_orders_per_minute": 60,
        "stale_seconds": 180.0,
    }  # fmt: skip
    assert dump(load_config(path, [f"risk={json.dumps(limits)}"]).risk) == limits


def test_a_bundle_instead_of_a_model(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL + "model: {bundle: bundles/mine}\n"))
    assert config.model == BundleReference(bundle=Path("bundles/mine"))


def test_nothing_can_be_changed_afterwards(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL))
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.broker.cash = 1.0  # type: ignore[misc]


def test_relative_paths_are_relative_to_the_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    write(folder, SMALL)
    config = load_config(Path("deep/run.yaml"), ["data.path=bars.csv"])
    assert config.data.path is not None
    assert config.resolve(config.data.path).absolute() == folder / "bars.csv"
    assert config.resolve(Path("/else/bars.csv")) == Path("/else/bars.csv")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_run_file_loads(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert config.folder == CONFIGS


# --- dump and digest ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_dumped_run_file_loads_to_the_same(tmp_path: Path, path: Path) -> None:
    config = load_config(path)
    again = load_config(write(tmp_path, yaml.safe_dump(dump(config))))
    assert dump(again) == dump(config)
    assert again.model_copy(update={"folder": config.folder}) == config


def test_parameters_survive_a_dump(tmp_path: Path) -> None:
    params: dict[str, Any] = {
        "none": None,
        "on": "on",
        "one": 1,
        "half": 0.5,
        "deep": {"day": "2011-01-01", "l": [1, None]},
    }
    config = load_config(write(tmp_path, SMALL), [f"strategy.params={json.dumps(params)}"])
    assert dump(config)["strategy"]["params"] == params
    assert load_config(write(tmp_path, yaml.safe_dump(dump(config)))).strategy.params == params


def test_a_dump_is_plain_names_validate_and_leaves_the_folder_out(tmp_path: Path) -> None:
    config = load_config(CONFIGS / "quickstart.yaml")
    dumped = dump(config)
    assert json.loads(json.dumps(dumped)) == dumped
    assert dumped["spans"]["validate"] == ["2010-01-01", "2010-12-31"]
    assert "folder" not in dumped
    moved = load_config(write(tmp_path, (CONFIGS / "quickstart.yaml").read_text(encoding="utf-8")))
    assert digest(dump(moved)) == digest(dump(config))


def test_the_order_of_keys_does_not_enter_the_digest(tmp_path: Path) -> None:
    reversed_lines = "\n".join(reversed(SMALL.strip().splitlines()))
    one, other = load_config(write(tmp_path, SMALL)), load_config(write(tmp_path, reversed_lines))
    assert digest(dump(one)) == digest(dump(other))


def test_spelling_a_default_or_a_number_otherwise_does_not_enter_the_digest(tmp_path: Path) -> None:
    plain = load_config(write(tmp_path, SMALL))
    spelt = load_config(write(tmp_path, SMALL), ["broker.cash=1.0e+5", "training.seed=7", "risk.max_position=null"])
    assert digest(dump(plain)) == digest(dump(spelt))


def test_each_value_enters_the_digest(tmp_path: Path) -> None:
    digests = {
        digest(dump(load_config(write(tmp_path, SMALL), overrides)))
        for overrides in ([], ["broker.cash=1"], ["data.symbols=[MSFT, AAPL]"], ["strategy.params.a=1"], ["name=other"])
    }
    assert len(digests) == 5


def test_digest_by_hand() -> None:
    # printf '[{"a":1,"b":[2.5,null]},"x"]' | sha256sum
    expected = "3be307228c3080f87d5668e8a3262a57419bdfefee65ab928b1627d1d522ea02"
    assert digest({"b": [2.5, None], "a": 1}, "x") == expected


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), values, max_size=4))
def test_the_digest_of_a_section_does_not_depend_on_the_order_in_which_it_was_made(section: dict[str, Any]) -> None:
    assert digest(dict(reversed(section.items()))) == digest(section)


def test_sections_can_be_made_in_code() -> None:
    with pytest.raises(pydantic.ValidationError, match="expected each once, found A more than once"):
        DataConfig(source="files", symbols=("A", "A"))
    assert "folder" not in RunConfig.model_validate(yaml.safe_load(SMALL)).model_dump()
