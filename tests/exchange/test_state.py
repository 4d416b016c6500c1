"""An exchange that was stopped, or killed, goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, StorageError
from tests.exchange.floor import SECRET, Floor, broker, flat, minutes

PRICES = [flat(100.0), (101.0, 104.0, 99.0, 102.0), (102.0, 108.0, 96.0, 103.0), flat(104.0), flat(106.0), flat(90.0)]
BARS = minutes({"X": PRICES, "Y": [flat(50.0)] * 6})
TERMS = broker(short=True, slippage_bps=2.0, commission={"per_share": 0.01})


def first_half(floor: Floor) -> None:
    floor.order(
        qty=5, time_in_force="gtc",
        order_class="bracket", take_profit={"limit_price": 107}, stop_loss={"stop_price": 97},
    )  # fmt: skip
    resting = floor.order(type="limit", limit_price=95, client_order_id="resting")
    floor.advance()
    floor.ask("PATCH", f"/v2/orders/{resting['id']}", json={"limit_price": 96})
    other = floor.order("sell", 3, symbol="Y", type="limit", limit_price=60)
    floor.try_order(qty=100_000)
    floor.ask("DELETE", f"/v2/orders/{other['id']}")
    floor.order("sell", 3, symbol="Y")
    floor.advance(2)


def second_half(floor: Floor) -> None:
    floor.ask("DELETE", "/v2/positions/X", params={"percentage": 50})
    floor.order(qty=1, symbol="Y", client_order_id="late")
    floor.advance(3)


def picture(floor: Floor) -> list[Any]:
    """Everything a client can see, but the counts of its connections."""
    return [
        floor.get("/v2/account"),
        floor.get("/v2/positions"),
        floor.get("/v2/orders", status="all", nested="true", limit=500),
        floor.get("/v2/account/portfolio/history"),
        floor.get("/v2/clock"),
        floor.get("/nextbar/status"),
        floor.get("/v2/stocks/bars", symbols="X,Y", timeframe="1Min"),
    ]


def test_a_restart_goes_on_as_if_there_had_been_none(tmp_path: Path) -> None:
    with Floor(BARS, terms=TERMS) as floor:
        first_half(floor)
        halfway = picture(floor)
        second_half(floor)
        expected = picture(floor)
    path = tmp_path / "exchange.db"
    with Floor(BARS, terms=TERMS, state=path) as floor:
        first_half(floor)
    with Floor(BARS, terms=TERMS, state=path) as floor:
        assert picture(floor) == halfway
        assert floor.try_order(client_order_id="resting").status_code == 422
        second_half(floor)
    with Floor(BARS, terms=TERMS, state=path) as floor:
        assert picture(floor) == expected
    assert SECRET.encode() not in path.read_bytes()


def test_consecutive_advances_are_one_row(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Floor(BARS, state=path) as floor:
        floor.advance(2)
        floor.order()
        floor.advance(2)
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT kind, count FROM actions ORDER BY number").fetchall()
    database.close()
    assert rows == [("advance", 2), ("submit", 1), ("advance", 2)]


SCRIPT = """
import sys, pathlib
from tests.exchange.floor import Floor
from tests.exchange.test_state import BARS, TERMS, first_half
with Floor(BARS, terms=TERMS, state=pathlib.Path(sys.argv[1])) as floor:
    first_half(floor)
    print("done", flush=True)
    sys.stdin.read()
"""


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        with pytest.raises(StorageError, match="another exchange holds this state"):
            Floor(BARS, terms=TERMS, state=path).exchange.start()
        os.kill(process.pid, signal.SIGKILL)
    with Floor(BARS, terms=TERMS) as floor:
        first_half(floor)
        expected = picture(floor)
    with Floor(BARS, terms=TERMS, state=path) as floor:
        assert picture(floor) == expected


WALKING = """
import sys, pathlib
from tests.exchange.floor import Floor, flat, minutes
with Floor(minutes({"X": [flat(100.0)] * 390})) as floor:
    floor.exchange.keep(pathlib.Path(sys.argv[1]))
    for _ in range(300):
        floor.order(qty=1)
        print(floor.advance()["step"], flush=True)
"""


def test_a_kill_at_any_instant_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WALKING, str(path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        heard = [int(process.stdout.readline()) for _ in range(40)]
        os.kill(process.pid, signal.SIGKILL)  # while the next action is being taken
        heard += [int(line) for line in process.stdout]
    with Floor(minutes({"X": [flat(100.0)] * 390}), state=path) as floor:
        status = floor.get("/nextbar/status")
        assert status["step"] >= heard[-1] >= 40
        assert float(floor.get("/v2/positions/X")["qty"]) == status["step"]
        floor.advance()


def test_a_state_may_be_named_after_the_start_but_before_anything_has_happened(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Floor(BARS) as floor:
        assert floor.try_order(qty=100_000).status_code == 403  # turned down: nothing has happened
        floor.exchange.keep(path)
        with pytest.raises(ConfigError, match="begun already"):
            floor.exchange.keep(tmp_path / "other.db")
        floor.order()
        floor.advance()
        expected = picture(floor)
    with Floor(BARS, state=path) as floor:
        assert picture(floor) == expected
    for action in (Floor.order, Floor.advance):
        with Floor(BARS) as floor:
            action(floor)
            with pytest.raises(ConfigError, match="begun already"):
                floor.exchange.keep(tmp_path / "late.db")
    with Floor(BARS) as floor:
        with pytest.raises(StorageError, match="actions already"):
            floor.exchange.keep(path)
        with pytest.raises(StorageError, match="could not be opened"):
            floor.exchange.keep(tmp_path / "no" / "folder.db")
        floor.order()
    before = Floor(BARS)
    before.exchange.keep(tmp_path / "early.db")
    with before as floor:
        floor.advance()
    with Floor(BARS, state=tmp_path / "early.db") as floor:
        assert floor.get("/nextbar/status")["step"] == 1


def begun(path: Path, **more: Any) -> None:
    with Floor(BARS, state=path, **more) as floor:
        floor.order()
        floor.advance()


def test_another_exchanges_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    begun(path)
    other_bars = minutes({"X": [*PRICES[:-1], flat(90.5)], "Y": [flat(50.0)] * 6})
    later = BARS.frames["X"].index[2]
    others = (Floor(other_bars, state=path), Floor(BARS, start=later, state=path), Floor(BARS, terms=TERMS, state=path))
    for other in others:
        with pytest.raises(StorageError, match="belongs to another exchange"):
            other.exchange.start()
    begun(path)  # and it is as good as before


def test_a_file_that_is_no_state_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("this is not a database, but somebody's notes" * 100)
    database = tmp_path / "other.db"
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    for path, words in (
        (text, "could not be opened"),
        (database, "another program's"),
        (tmp_path, "could not be opened"),
    ):
        with pytest.raises(StorageError, match=words):
            Floor(BARS, state=path).exchange.start()
    assert text.read_text().startswith("this is not")
    with pytest.raises(StorageError, match="could not be opened"):
        Floor(BARS, state=tmp_path / "no" / "folder.db").exchange.start()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE actions SET detail = '{' WHERE kind = 'submit'",
        "UPDATE actions SET kind = 'dance' WHERE kind = 'submit'",
        "UPDATE actions SET detail = '{\"id\": \"none\"}', kind = 'cancel' WHERE kind = 'submit'",
        "UPDATE actions SET account = 7 WHERE kind = 'submit'",
        "UPDATE actions SET count = 99 WHERE kind = 'advance'",
    ],
)
def test_a_damaged_log_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "exchange.db"
    begun(path)
    with sqlite3.connect(path) as database:
        database.execute(damage)
    database.close()
    with pytest.raises(StorageError, match="damaged"):
        Floor(BARS, state=path).exchange.start()


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    begun(path)
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(StorageError, match="remove"):
        Floor(BARS, state=path).exchange.start()


def test_an_exchange_that_cannot_write_takes_no_more(tmp_path: Path) -> None:
    with Floor(BARS, state=tmp_path / "exchange.db") as floor:
        log = floor.exchange._exchange._log
        assert log is not None
        log._database.execute("PRAGMA query_only=ON")
        for answer in (floor.try_order(), floor.try_order(), floor.ask("POST", "/nextbar/advance")):
            assert answer.status_code == 500
            assert "could not be written" in answer.json()["message"]
