"""The kill switch as its user types it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from click.testing import Result
from kill_stage import KillStage
from typer.testing import CliRunner

from engine import cli, kill, kill_choice
from engine.errors import StorageError, StrategyError
from engine.kill import Timing
from engine.live import locks
from engine.live.journal import FILE
from engine.live.switch import Switch


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


def test_a_switch_that_cannot_be_written_is_told_of_where_the_broker_is_not_there(
    exchange: KillStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(switch: Switch, reason: str) -> None:
        raise StorageError("switch.json cannot be written")

    exchange.break_down()
    monkeypatch.setenv("APCA_API_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(Switch, "kill", refuse)
    sentence = fails(4, "kill")
    assert "could not be marked as killed (switch.json cannot be written), and what it has at the broker" in sentence


def test_nobody_is_told_to_end_process_0(stage: KillStage) -> None:
    run_folder = stage.break_down(replay=True)
    lock = locks.take(run_folder / FILE)
    try:
        (run_folder / "journal.lock").write_text("0\n")
        assert "held by a process that did not write its id" in fails(1, "kill", run_folder)
    finally:
        os.close(lock)


def test_a_link_in_the_place_of_a_lock_is_not_written_through(stage: KillStage) -> None:
    run_folder, another = stage.break_down(replay=True), stage.folder / "another"
    another.write_text("mine")
    for name in ("journal.lock", "kill.lock"):
        (run_folder / name).unlink(missing_ok=True)
        (run_folder / name).symlink_to(another)
    assert run("kill").exit_code == 0
    assert another.read_text() == "mine"


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


def test_the_run_that_a_process_trades_comes_before_a_newer_one_that_was_cut_off(stage: KillStage) -> None:
    stage.break_down(replay=True)
    (stage.folder / "broken").touch()
    with pytest.raises(StrategyError):
        stage.trade(replay=True, new=True)
    runs = stage.folder / "runs"
    older, newer = sorted(runs.glob("*Z-*"))
    assert kill_choice.chosen_run(None, root=runs).folder == newer
    lock = locks.take(older / FILE)
    try:
        assert kill_choice.chosen_run(None, root=runs).folder == older
    finally:
        os.close(lock)


def test_a_switch_that_cannot_be_read_pauses_until_it_is_written_anew(stage: KillStage) -> None:
    run_folder = stage.break_down(replay=True)
    (run_folder / "switch.json").write_text("{")
    said = " ".join(run("pause").stderr.split())
    assert f"Run {run_folder.name} was paused, because" in said
    assert "switch.json cannot be read; write it anew with nextbar resume or nextbar kill, already." in said
    assert run("resume").exit_code == 0
    assert json.loads((run_folder / "switch.json").read_text()) == {"paused": "", "killed": ""}


def test_a_kill_takes_no_other_run_for_one_whose_manifest_is_damaged(stage: KillStage) -> None:
    older = stage.break_down(replay=True)
    newer = stage.trade(replay=True, new=True).run
    newer.joinpath("manifest.json").write_text("{")
    for command in ("kill", "pause", "resume"):
        sentence = fails(3, command)
        assert f"{newer.name}: whether this paper run goes on cannot be told" in sentence
        assert "name the run that is meant" in sentence
    assert not (older / "switch.json").exists()
    assert run("kill", older.name).exit_code == 0


def test_a_replay_at_its_end_is_not_said_to_be_closed(stage: KillStage) -> None:
    name = stage.trade(replay=True).run.name
    result = run("kill", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["over"], found["flat"], sorted(found["held"])) == (0, True, False, ["AAPL", "MSFT"])
    said = " ".join(run("kill").stderr.split())
    assert f"Run {name} is at the end of its bars with what it holds; the account has" in said
    assert "being closed" not in said


def test_help_names_what_may_be_left_out_once() -> None:
    for command, argument in (("kill", "RUN"), ("doctor", "CONFIG")):
        assert f"[OPTIONS] [{argument}]\n" in run(command, "--help").stdout
