"""The kill switch as its user types it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import Result
from kill_stage import KillStage
from typer.testing import CliRunner

from engine import cli, kill, kill_choice
from engine.kill import Timing


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from kill_stage import QUICK

    monkeypatch.setattr(kill, "Timing", lambda: QUICK)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def fails(code: int, *arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("nextbar: ")]
    return line


def test_there_is_nothing_to_kill(stage: KillStage) -> None:
    for command in ("kill", "pause", "resume"):
        assert "there is no paper run" in fails(2, command)
        assert "no such run" in fails(2, command, "nothing-like-it")
    assert run("backtest", "run.yaml").exit_code == 0
    assert "there is no paper run" in fails(2, "kill")
    assert "a backtest, which trades nothing" in fails(2, "kill", "mine")


def test_a_kill_says_what_it_did(exchange: KillStage) -> None:
    name = exchange.break_down().name
    exchange.order("IBM", "buy", 7)
    exchange.advance()
    result = run("kill")
    assert (result.exit_code, result.stdout) == (0, "")
    said = " ".join(result.stderr.split())
    assert f"run {name} is killed" in said
    assert "Cancelled: " in said
    assert "Closing: sell 10 AAPL (filled); sell 20 MSFT (filled)." in said
    assert "Left alone: IBM: 7 held, which no order of this run explains." in said
    assert f"Run {name} is flat; the account has" in said
    again = run("kill", "--json")
    found: dict[str, Any] = json.loads(again.stdout)
    assert again.exit_code == 0
    assert (found["run"], found["process"], found["flat"], found["held"]) == (f"runs/{name}", "none", True, {})
    assert {"switch", "canceled", "closing", "open_orders", "left_alone"} <= found.keys()
    assert "there is nothing to resume" in fails(2, "resume")


def test_a_broker_that_is_not_there(exchange: KillStage, monkeypatch: pytest.MonkeyPatch) -> None:
    name = exchange.break_down().name
    monkeypatch.setenv("APCA_API_BASE_URL", "http://127.0.0.1:9")
    sentence = fails(4, "kill")
    assert "is killed and will not trade any more" in sentence
    assert f"nextbar kill {name} again" in sentence


def test_pause_and_resume_say_what_they_mean(stage: KillStage) -> None:
    name = stage.break_down(replay=True).name
    first, second = run("pause"), run("pause", "mine")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert f"Run {name} is paused." in first.stderr
    assert "exits and protective orders go on" in first.stderr
    assert f"nextbar resume {name}" in first.stderr
    assert "already" in second.stderr
    value = json.loads(run("resume", "--json").stdout)
    assert (value["paused"], value["already"]) == ("", False)
    assert "was not paused" in run("resume").stderr


def test_the_run_that_goes_on_is_the_one_that_is_meant(stage: KillStage) -> None:
    broken = stage.break_down(replay=True)
    stage.trade(replay=True, new=True)
    runs = stage.folder / "runs"
    assert kill_choice.chosen_run(None, root=runs).folder == broken
    assert kill_choice.chosen_run("mine", root=runs).folder != broken
    assert Timing().patience.reaction == 10.0
