"""``nextbar doctor`` as a user runs it: on the embedded exchange, without keys, and where little is as it should be."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

import engine.doctor
from engine import machine
from engine.cli import app
from engine.errors import BrokerError
from engine.live.rest import AccountLock
from tests.doctor.broker_stub import KEY, SECRET, Stub
from tests.exchange.floor import KEY as EXCHANGE_KEY
from tests.exchange.floor import SECRET as EXCHANGE_SECRET
from tests.exchange.floor import Floor, days, flat, minutes

VARIABLES = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "APCA_API_BASE_URL", "NEXTBAR_NOTIFY")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the present one, and no keys."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*arguments: object, **environment: str) -> Result:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments)], env=environment)
    assert "Traceback" not in result.stderr
    return result


def checks(*arguments: object, code: int = 0, **environment: str) -> dict[str, dict[str, Any]]:
    """The checks of --json by name, after the exit code that they must have given."""
    result = run(*arguments, "--json", **environment)
    answer = json.loads(result.stdout)
    assert set(answer) == {"ok", "checks"}
    made = {check["name"]: check for check in answer["checks"]}
    bad = {name: check for name, check in made.items() if check["state"] in ("differs", "failed")}
    assert result.exit_code == code, bad
    assert answer["ok"] is not bool(bad)
    return made


def keys(url: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    return {"APCA_API_KEY_ID": key, "APCA_API_SECRET_KEY": secret, "APCA_API_BASE_URL": url}


def write_run_file(folder: Path, **data: Any) -> Path:
    path = folder / "run.yaml"
    values = {
        "name": "checked",
        "data": {"source": "sample:tech", "symbols": ["X"], "timeframe": "1m", **data},
        "spans": {"test": ["2024-01-02", "2024-01-03"]},
        "strategy": {"kind": "strategies.buy_and_hold:BuyAndHold"},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def floor() -> Iterator[Floor]:
    """An exchange of minutes that holds a position and knows an order."""
    with Floor(minutes({"X": [flat(100.0)] * 5, "Y": [flat(50.0)] * 5})) as exchange:
        exchange.order(qty=3)
        exchange.advance()
        yield exchange


def test_without_keys_the_machine_is_checked_and_the_broker_is_not() -> None:
    made = checks()
    assert made["keys"]["state"] == "skipped"
    assert "set APCA_API_KEY_ID and APCA_API_SECRET_KEY in the environment or in a .env file" in made["keys"]["found"]
    assert made["alpaca-py"]["expected"] == ">=0.44"
    assert made["locks in runs/"]["state"] == made["SQLite"]["state"] == made["python"]["state"] == "ok"
    assert not {"account", "data socket"} & made.keys()


def test_nothing_is_left_in_the_folder(folder: Path) -> None:
    checks()
    assert list(folder.iterdir()) == []


def test_an_exchange_of_minutes_is_in_order_and_says_where_it_is_not_alpaca(floor: Floor, folder: Path) -> None:
    config = write_run_file(folder)
    made = checks(config, **keys(floor.exchange.url, EXCHANGE_KEY, EXCHANGE_SECRET))
    skipped = {name for name, check in made.items() if check["state"] == "skipped"}
    assert skipped == {"bundle", "notifications", "clock difference", "position not held"}
    assert made["positions"]["found"] == "1 held"
    assert made["orders"]["found"] == "the last 1"
    assert made["rate limit"]["found"] == "1,000,000 a minute; at Alpaca it is 200"
    assert made["bars (iex)"]["found"].endswith("n and vw are made up, unlike Alpaca's")
    assert made["recent SIP bars"]["found"] == "given; this exchange has the same bars for every feed"
    assert made["second data connection"]["found"] == "406: connection limit exceeded"
    assert made["data socket, wrong secret"]["found"] == "402: auth failed"
    assert made["trading socket, wrong secret"]["found"] == "unauthorized"
    assert made["wrong secret"]["found"].startswith("401: ")
    assert floor.get("/v2/orders", status="all", limit=500)[0]["qty"] == "3"
    assert len(floor.get("/v2/orders", status="all", limit=500)) == 1


def test_an_exchange_of_days_is_asked_without_its_run_file() -> None:
    bars = days({"X": [flat(100.0)] * 3}, dates=["2024-01-02", "2024-01-03", "2024-01-04"])
    with Floor(bars) as floor:
        made = checks(**keys(floor.exchange.url, EXCHANGE_KEY, EXCHANGE_SECRET))
    assert made["what is replayed"]["found"].startswith("X in 1d")
    assert made["time of a bar"]["found"] == "midnight in New York, on the days of 1 sessions"


def test_sockets_are_left_alone_while_a_run_trades_with_the_account(floor: Floor) -> None:
    lock = AccountLock(f"{floor.exchange.url} {EXCHANGE_KEY}", "…")
    lock.take()
    try:
        made = checks(**keys(floor.exchange.url, EXCHANGE_KEY, EXCHANGE_SECRET))
    finally:
        lock.release()
    assert made["account"]["state"] == "ok"
    assert made["data socket"]["state"] == "skipped"
    assert made["data socket"]["found"].startswith("another run on this machine trades with account … already")


def test_afterwards_a_run_may_have_the_account(floor: Floor) -> None:
    checks(**keys(floor.exchange.url, EXCHANGE_KEY, EXCHANGE_SECRET))
    lock = AccountLock(f"{floor.exchange.url} {EXCHANGE_KEY}", "…")
    lock.take()
    lock.release()
    floor.data(bars=["X"]).close()


def test_a_connection_that_is_there_already_is_told(floor: Floor) -> None:
    first = floor.data(bars=["X"])
    try:
        made = checks(code=4, **keys(floor.exchange.url, EXCHANGE_KEY, EXCHANGE_SECRET))
    finally:
        first.close()
    assert made["data socket"]["found"].startswith("406: connection limit exceeded: another process")
    assert made["second data connection"]["state"] == "skipped"


def test_keys_that_are_refused_end_the_questions(floor: Floor) -> None:
    made = checks(code=4, **keys(floor.exchange.url, EXCHANGE_KEY, SECRET))
    assert made["account"]["state"] == "failed"
    assert made["account"]["found"].startswith("the broker refuses the key (401: unauthorized.); check APCA_API_KEY_ID")
    assert made["data socket"]["found"] == "the broker does not accept us"


def test_a_broker_that_is_not_there_is_told_at_once() -> None:
    started = time.monotonic()
    made = checks(code=4, **keys("http://127.0.0.1:9"))
    assert time.monotonic() - started < 10.0
    assert made["account"]["found"] == (
        "http://127.0.0.1:9/v2/account could not be reached (ConnectionError); check the network"
    )
    assert {made[name]["found"] for name in ("clock", "data socket")} == {"the broker was not reached"}


def test_a_mute_broker_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.doctor, "_SECONDS_A_CHECK", 0.3)
    monkeypatch.setattr(engine.doctor._Examination.make, "__kwdefaults__", {"most": 0.3})
    with socket.create_server(("127.0.0.1", 0)) as mute:
        made = checks(code=4, **keys(f"http://127.0.0.1:{mute.getsockname()[1]}"))
    assert made["account"]["found"] == "no answer within 0.3 seconds"
    assert made["clock"]["found"] == "the broker was not reached"


def test_all_checks_together_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.doctor, "_SECONDS_IN_ALL", 0.0)
    made = checks(**keys("http://127.0.0.1:9"))
    assert made["python"]["found"] == "the 0 seconds of all checks are over"


def test_the_live_address_is_refused_and_nothing_is_asked() -> None:
    made = checks(code=4, **keys("https://api.alpaca.markets"))
    assert made["keys"]["state"] == "failed"
    assert "trades on paper only" in made["keys"]["found"]
    assert "account" not in made


def test_keys_are_named_with_their_place_and_masked(folder: Path) -> None:
    (folder / ".env").write_text(f"APCA_API_KEY_ID={KEY}\nAPCA_API_SECRET_KEY={SECRET}\n")
    made = checks(code=4, APCA_API_BASE_URL="http://127.0.0.1:9")
    assert made["keys"]["found"] == (
        "key PK…OP: APCA_API_BASE_URL from the environment; APCA_API_KEY_ID, APCA_API_SECRET_KEY from .env"
    )


@pytest.mark.parametrize("form", [(), ("--json",), ("--debug",)])
def test_the_secret_is_in_no_output_whatever_the_broker_says(form: tuple[str, ...]) -> None:
    with Stub() as stub:
        echo = {"message": f"{SECRET} is no secret", "status": SECRET, "id": SECRET, SECRET: SECRET}
        for path in (*stub.routes, "/v2/assets"):
            stub.routes[path] = lambda query: (200, echo)
        result = run(*form, **keys(stub.url))
    assert result.exit_code == 4
    assert SECRET not in result.output + result.stdout + result.stderr
    assert KEY not in result.output + result.stdout + result.stderr


def test_a_server_that_is_no_broker_is_told_in_sentences() -> None:
    with Stub() as stub:
        for path in stub.routes:
            stub.routes[path] = lambda query: (200, [{}, 7, None])
        made = checks(code=4, **keys(stub.url))
    assert not [check for check in made.values() if "cannot be read" in check["found"]]
    assert made["clock"]["found"] == "status 200 and what is no JSON object"
    assert made["data socket"]["state"] == "failed"
    assert "refuses the connection" in made["data socket"]["found"]


def test_the_table_says_what_was_expected_where_it_differs(folder: Path) -> None:
    (folder / "runs").write_text("a file")
    result = run()
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = [line.rstrip() for line in result.stderr.splitlines()]
    at = next(n for n, line in enumerate(lines) if line.startswith("differs"))
    assert "runs/" in lines[at]
    assert "is no folder; move it away" in " ".join(lines[at : at + 2])
    assert any("expected: a folder that can be written" in line for line in lines)
    assert any(line.startswith("ok") and "installed as required" in line for line in lines)


def test_a_package_that_is_too_old_or_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = machine.metadata.version

    def version(name: str) -> str:
        if name == "msgpack":
            raise machine.metadata.PackageNotFoundError(name)
        return "0.1" if name == "rich" else real(name)

    monkeypatch.setattr(machine.metadata, "version", version)
    made = checks(code=1)
    assert (made["rich"]["expected"], made["rich"]["found"]) == (">=14", "0.1; install nextbar anew")
    assert made["msgpack"]["found"] == "not installed; install nextbar anew"


def test_locks_that_lock_nothing_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.fcntl, "flock", lambda file, how: None)
    assert "two runs could not be kept apart" in checks(code=1)["locks in runs/"]["found"]


def test_a_run_file_that_does_not_resolve_and_a_bundle_that_is_not_there(folder: Path) -> None:
    assert checks("nowhere.yaml", code=2)["run file"]["found"].startswith("nowhere.yaml: no such run file")
    config = write_run_file(folder)
    made = checks(config, "--set", "model={bundle: bundles/none}", code=2)
    assert made["run file"]["found"] == f"{config}: X in 1m"
    assert "no such bundle folder" in made["bundle"]["found"]
    assert checks(config)["bundle"]["found"] == "the run file has no model"


def test_a_notification_url_that_cannot_be_used_is_not_shown() -> None:
    made = checks(code=1, NEXTBAR_NOTIFY="nothing://pass-word")
    assert made["notifications"]["state"] == "failed"
    assert "NEXTBAR_NOTIFY" in made["notifications"]["found"]
    assert "pass-word" not in made["notifications"]["found"]


def test_an_error_of_the_lock_is_a_reason_to_skip(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: AccountLock) -> None:
        raise BrokerError("the lock cannot be made")

    monkeypatch.setattr(AccountLock, "take", refuse)
    made = checks(**keys(floor.exchange.url, EXCHANGE_KEY, EXCHANGE_SECRET))
    assert made["data socket"]["found"] == "the lock cannot be made"
