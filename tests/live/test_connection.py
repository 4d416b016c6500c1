"""The way to the broker: first checks, questions that end, and nothing left behind."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alpaca.common.enums import BaseURL

from engine.config import RunConfig
from engine.credentials import Credentials, load_credentials
from engine.errors import BrokerError
from engine.live.connection import Connection
from engine.live.control import Control
from engine.live.rest import AccountLock, Line, NoAnswer
from engine.live.streams import Streams
from engine.live.verifier import Account, Books, Holding, gaps
from tests.live.rig import KEY, SECRET, FakeBroker, FakeSockets, config, mute_listener

NOW = datetime.fromisoformat("2024-01-02T10:00:00-05:00").timestamp()


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as made:
        yield made


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests run beside these, with the same key at the same address of Alpaca's."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def connection(fake: FakeBroker, rules: RunConfig | None = None, *, seconds: float = 0.5) -> Connection:
    made = Connection(fake.credentials(), rules or config(), streamed=True, now=lambda: NOW)
    made._line._seconds = seconds
    return made


def refusal(fake: FakeBroker, rules: RunConfig | None = None, *, start: bool = False) -> str:
    """What ``check`` says is wrong; ``start``: it passes, and ``check_start`` says it."""
    with connection(fake, rules) as made:
        if start:
            made.check()
        with pytest.raises(BrokerError) as caught:
            made.check_start() if start else made.check()
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_account_that_is_in_order_passes(fake: FakeBroker) -> None:
    with connection(fake) as made:
        assert made.check() == []
        made.check_start()
    assert {method for method, _, _, _ in fake.seen} == {"GET"}


def test_a_closed_market_is_a_remark(fake: FakeBroker) -> None:
    fake.answers["/v2/clock"].update(is_open=False, next_open="2024-01-03T09:30:00-05:00")
    with connection(fake) as made:
        assert made.check() == ["the market is closed; the next session opens at 2024-01-03T09:30:00-05:00"]


def test_all_that_is_wrong_is_said_at_once(fake: FakeBroker) -> None:
    fake.answers["/v2/account"].update(status="INACTIVE", account_blocked=True, shorting_enabled=False)
    fake.answers["/v2/assets/A"] = {"tradable": False, "fractionable": False, "shortable": False}
    del fake.answers["/v2/assets/B"]
    said = refusal(fake, config(broker={"cash": 1000.0, "fractional": True, "short": True}))
    for part in (
        "7 thing(s) are not right",
        "marked account_blocked",
        "is INACTIVE, expected ACTIVE",
        "the account may not sell short",
        "A cannot be traded",
        "A is traded in whole shares only",
        "A cannot be sold short",
        "B is not known to the broker",
    ):
        assert part in said


def test_what_hinders_only_a_run_that_begins_is_said_where_one_begins_all_at_once(fake: FakeBroker) -> None:
    """One that goes on has its own positions and orders there, and has spent its cash."""
    fake.answers["/v2/account"].update(cash="500")
    fake.answers["/v2/positions"] = [{"symbol": "A", "qty": "5"}, {"symbol": "FOREIGN", "qty": "5"}]
    fake.answers["/v2/orders"] = [{"symbol": "B"}, {"symbol": "FOREIGN"}]
    said = refusal(fake, config(broker={"cash": 1000.0}), start=True)
    for part in (
        "nothing was sent, because 3 thing(s) are not right",
        "broker.cash is 1000.00, and the account has 500.00",
        "holds A already",
        "open orders in B",
    ):
        assert part in said
    assert "FOREIGN" not in said


@pytest.mark.parametrize("fault", ["500", "reset", "mute", "garbage"])
@pytest.mark.parametrize("path", ["/v2/positions", "/v2/orders"])
def test_a_run_does_not_begin_where_the_broker_does_not_say_what_is_there(
    fake: FakeBroker, fault: str, path: str
) -> None:
    fake.faults += [("GET", path, fault)] * (2 if fault == "500" else 1)  # it is asked once more
    refusal(fake, start=True)


def test_a_clock_that_is_off_is_said_where_the_broker_is_elsewhere(fake: FakeBroker) -> None:
    with connection(fake) as made:
        made._now = lambda: NOW + 61.0
        assert made.check() == []  # an exchange on this machine keeps a time of its own
        clock = {"timestamp": "2024-01-02T10:00:00.123456789-05:00"}
        made._credentials = Credentials(key=KEY, secret=SECRET)
        assert made._clock_problems(clock, NOW + 1.0) == []
        (said,) = made._clock_problems(clock, NOW - 61.0)
        assert "-61.1 seconds off" in said


def test_keys_that_are_refused_are_one_sentence_with_the_ends_of_the_key_alone(fake: FakeBroker) -> None:
    fake.faults.append(("GET", "/v2/account", "401"))
    said = refusal(fake)
    assert "refuses the key PK…56" in said
    assert KEY not in said


def test_a_feed_that_the_plan_does_not_include_is_named_at_the_start_and_the_key_is_not_blamed(
    fake: FakeBroker,
) -> None:
    fake.faults.append(("GET", "/v2/stocks/bars", "403"))
    said = refusal(fake, config(data={"source": "alpaca", "symbols": ["A", "B"], "timeframe": "1m",
                                      "start": "2023-06-01", "feed": "sip"}))  # fmt: skip
    assert "data.feed: sip (403" in said
    assert "plan does not include it" in said
    assert "key" not in said
    (query,) = [query for _, path, query, _ in fake.seen if path == "/v2/stocks/bars"]
    assert query["feed"] == ["sip"]
    assert datetime.fromisoformat(query["end"][0]).timestamp() == NOW  # the minutes that only who pays may read


def test_a_key_that_market_data_refuses_is_the_keys_fault(fake: FakeBroker) -> None:
    fake.faults.append(("GET", "/v2/stocks/bars", "401"))
    assert "refuses the key PK…56" in refusal(fake)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("mute", "could not be reached for the account"),
        ("reset", "could not be reached for the account"),
        ("500", "did not answer for the account (500"),
        ("504", "did not answer for the account (504"),
        ("404", "refuses to answer for the account (404"),
        ("garbage", "no JSON"),
    ],
)
def test_a_broker_that_does_not_answer_is_one_sentence(fake: FakeBroker, fault: str, expected: str) -> None:
    asked = 2 if fault in ("500", "504") else 1
    fake.faults += [("GET", "/v2/account", fault)] * asked
    begun = time.monotonic()
    assert expected in refusal(fake)
    assert time.monotonic() - begun < 1.0 + asked
    assert len(fake.seen) == asked  # the SDK would ask four times, three seconds apart


def test_a_failure_of_the_broker_is_asked_once_more_before_a_run_begins(fake: FakeBroker) -> None:
    fake.faults.append(("GET", "/v2/account", "504"))
    with connection(fake) as made:
        made.check()


@pytest.mark.parametrize("answer", [[], "text", 5, None])
def test_an_answer_that_is_no_account_is_one_sentence(fake: FakeBroker, answer: Any) -> None:
    fake.answers["/v2/account"] = answer
    assert "no account" in refusal(fake)


@pytest.mark.parametrize("answer", [{}, {"cash": "1"}, {"status": None, "cash": "1"}])
def test_an_account_that_does_not_say_that_it_is_active_is_not_right(fake: FakeBroker, answer: Any) -> None:
    fake.answers["/v2/account"] = answer
    assert "expected ACTIVE" in refusal(fake)


@pytest.mark.parametrize("cash", [None, "much", [], {}])
def test_an_account_that_does_not_say_what_it_has_is_no_account(fake: FakeBroker, cash: Any) -> None:
    fake.answers["/v2/account"]["cash"] = cash
    assert "no account" in refusal(fake, start=True)


def test_too_many_requests_are_waited_for(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.live.connection._AGAIN_SECONDS", (0.001, 0.002, 0.003))
    fake.faults += [("GET", "/v2/account", "429")] * 2
    with connection(fake) as made:
        made.check()
    fake.faults += [("GET", "/v2/account", "429")] * 20
    assert "429" in refusal(fake)


# --- while it runs -------------------------------------------------------------------------------------------------


def test_a_question_that_fails_while_it_runs_can_be_asked_again(fake: FakeBroker) -> None:
    fake.faults += [("GET", "/v2/stocks/bars", "500"), ("GET", "/v2/account", "mute")]
    with connection(fake) as made:
        made._begins = False
        with pytest.raises(NoAnswer):
            made.rows(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))
        assert made.rows(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC)) == {}
        with pytest.raises(NoAnswer):
            made.holdings()
        assert made.holdings() == Account(100_000.0, {}, {})


def placed(remote_id: str, status: str = "new", **fields: Any) -> dict[str, Any]:
    """An order as the broker lists it."""
    return {"id": remote_id, "symbol": "A", "client_order_id": f"c-{remote_id}", "status": status, **fields}


def test_holdings_are_cash_positions_and_open_orders_of_all_symbols(fake: FakeBroker) -> None:
    fake.answers["/v2/positions"] = [
        {"symbol": "A", "qty": "-5", "avg_entry_price": "10.25"},
        {"symbol": "FOREIGN", "qty": "0.5", "avg_entry_price": "3"},
    ]
    fake.answers["/v2/account"]["cash"] = "99000.5"
    legs = [placed("take", "new"), placed("stop", "held"), placed("gone", "canceled")]
    fake.answers["/v2/orders"] = [placed("entry", "filled", legs=legs), placed("other", "partially_filled", symbol="Z")]
    with connection(fake) as made:
        account = made.holdings()
    assert account.cash == 99_000.5
    assert account.held == {"A": (-5.0, 10.25), "FOREIGN": (0.5, 3.0)}
    # An entry that is filled is over, and the legs that it woke are not: they are of whoever sent it.
    assert account.orders == {"take": ("A", "c-entry"), "stop": ("A", "c-entry"), "other": ("Z", "c-other")}
    (query,) = [query for _, path, query, _ in fake.seen if path == "/v2/orders"]
    assert (query["status"], query["nested"], query["limit"]) == (["open"], ["True"], ["500"])


def test_differences_are_told_and_positions_of_others_are_left_alone(fake: FakeBroker) -> None:
    with connection(fake) as made:
        made.check()
        fake.answers["/v2/positions"] = [
            {"symbol": "A", "qty": "-5", "avg_entry_price": "10"},
            {"symbol": "FOREIGN", "qty": "5", "avg_entry_price": "10"},
        ]
        fake.answers["/v2/account"]["cash"] = "99000"
        fake.answers["/v2/orders"] = [placed("x", symbol="FOREIGN")]

        def found(cash: float, held: dict[str, float], costs: float = 0.0) -> list[str]:
            own = {symbol: Holding(quantity, 10.0) for symbol, quantity in held.items()}
            books = Books(cash=cash, costs=costs, held=own, orders={}, run="run-")
            return [gap.what for gap in gaps(made.holdings(), books, tolerance=0.01)]

        assert found(99_000.0, {"A": -5.0, "B": 0.0}) == []
        assert found(98_999.0, {"A": -5.0}, costs=-1.0) == []  # the paper account charges no commission
        assert found(99_100.0, {"A": 5.0, "B": 1.0}) == ["position", "position", "cash"]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v2/positions", [{"symbol": "A"}]),
        ("/v2/positions", [{"symbol": "A", "qty": None, "avg_entry_price": "1"}]),
        ("/v2/positions", [{"symbol": "A", "qty": "5"}]),
        ("/v2/positions", [{"qty": "5", "avg_entry_price": "1"}]),
        ("/v2/orders", [{"id": "x", "symbol": "A", "status": "new"}]),
        ("/v2/orders", [{"id": "x", "symbol": "A", "client_order_id": "c"}]),
        ("/v2/orders", [None]),
        ("/v2/orders", {"a": 1}),
        ("/v2/orders", [{"id": "x", "symbol": "A", "status": "new", "client_order_id": "c", "legs": [5]}]),
        ("/v2/positions", [None]),
        ("/v2/positions", {"a": 1}),
        ("/v2/account", {}),
        ("/v2/account", {"cash": "much"}),
        ("/v2/account", []),
    ],
)
def test_an_account_that_cannot_be_read_is_a_sentence_and_may_be_asked_again(
    fake: FakeBroker, path: str, answer: Any
) -> None:
    with connection(fake) as made:
        made.check()
        before, fake.answers[path] = fake.answers[path], answer
        with pytest.raises(NoAnswer, match="what cannot be read"):
            made.holdings()
        fake.answers[path] = before
        assert made.holdings() == Account(100_000.0, {}, {})


@pytest.mark.parametrize("bars", [5, {"A": 5}, {"A": [5]}, {"A": [None]}])
def test_bars_that_cannot_be_read_are_a_sentence(fake: FakeBroker, bars: Any) -> None:
    fake.answers["/v2/stocks/bars"] = {"bars": bars, "next_page_token": None}
    with connection(fake) as made, pytest.raises(NoAnswer, match="what cannot be read"):
        made.rows(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))


def test_whether_the_market_is_open_is_the_brokers_word(fake: FakeBroker) -> None:
    with connection(fake) as made:
        assert made.is_open()
        fake.answers["/v2/clock"]["is_open"] = False
        assert not made.is_open()
        answers: list[Any] = [[], {}, {"is_open": "yes"}]
        for answer in answers:
            fake.answers["/v2/clock"] = answer
            with pytest.raises(NoAnswer):
                made.is_open()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_stop_does_not_wait_for_a_broker_that_says_nothing(fake: FakeBroker, method: str) -> None:
    fake.faults += [(method, "/v2/", "mute")] * 2
    with connection(fake, seconds=60.0) as made:
        thread = threading.Timer(0.1, made.inbox.stop)
        thread.start()
        begun = time.monotonic()
        call: Callable[[], Any] = made.trading.get_account if method == "GET" else lambda: made.trading.post("/x", {})
        with pytest.raises(NoAnswer):
            made.asked("the account", call)
        assert time.monotonic() - begun < 2.0
        thread.join()


def test_a_search_for_the_address_that_hangs_is_given_up(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's time-outs begin once the address is known."""
    released = threading.Event()

    def hangs(*args: Any, **kwargs: Any) -> Any:
        released.wait(5.0)
        raise OSError("no address")

    with connection(fake, seconds=0.3) as made:
        monkeypatch.setattr("socket.getaddrinfo", hangs)
        begun = time.monotonic()
        with pytest.raises(NoAnswer, match="could not be reached for the account"):
            made.check()
        assert time.monotonic() - begun < 1.0
        released.set()


def test_an_answer_that_never_comes_to_its_end_is_given_up() -> None:
    """A server that sends a byte now and then outlasts every time-out that counts from byte to byte."""
    released = threading.Event()
    line = Line(seconds=0.3)

    class Client:
        _base_url = "http://127.0.0.1"
        _retry_codes = (429, 504)

        _session = SimpleNamespace(trust_env=True, request=lambda *args, **kwargs: released.wait(5.0))

    client: Any = line.carry(Client())  # type: ignore[type-var]
    begun = time.monotonic()
    with pytest.raises(Exception, match=r"no answer in 0\.3 s"):
        client._session.request("GET", "http://127.0.0.1")
    assert time.monotonic() - begun < 1.0
    assert client._retry_codes == []
    released.set()
    line.close()


def test_streams_that_do_not_come_up_are_one_sentence(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.live.connection._CONNECT_SECONDS", 0.3)
    with mute_listener() as address:
        made = Connection(fake.credentials(f"ws://{address}"), config(), streamed=True)
        with made, pytest.raises(BrokerError, match="bars, trades stream did not connect within"):
            made.open()


def test_nothing_is_left_behind(fake: FakeBroker) -> None:
    before = set(threading.enumerate())
    with FakeSockets() as sockets:
        running = set(threading.enumerate())
        with Connection(fake.credentials(sockets.url), config(), streamed=True) as made:
            made.trading.get_account()
            made.open()
            assert made.states() == ("connected", "connected", 0)
            assert {t.name for t in set(threading.enumerate()) - running} >= {"nextbar-rest", "nextbar-bars"}
        assert not [t for t in threading.enumerate() if t not in before and t.name.startswith("nextbar-")]


@pytest.mark.parametrize("answer", [[], {}, "text", None, {"mode": "lock-step"}])
def test_a_server_that_is_no_exchange_of_ours_is_one_sentence(fake: FakeBroker, answer: Any) -> None:
    fake.answers["/nextbar/status"] = answer
    control = Control(fake.credentials())
    with pytest.raises(BrokerError, match=r"answered /nextbar/status without (mode, )?time|does not answer"):
        control.status()
    control.close()


# --- one run an account -------------------------------------------------------------------------------------------


def test_two_runs_cannot_have_one_account_on_this_machine(fake: FakeBroker) -> None:
    first, second = connection(fake), connection(fake)
    with first:
        path = first._lock._path
        assert path.stat().st_mode & 0o777 == 0o600
        assert KEY not in path.name + path.read_text()
        with pytest.raises(BrokerError, match="another run on this machine trades with account PK…56 already"):
            second.__enter__()
    assert not path.exists()
    with second:
        assert path.exists()


def test_another_account_is_another_lock(fake: FakeBroker) -> None:
    with connection(fake) as first, Connection(Credentials(key=KEY, secret=SECRET), config(), streamed=True) as second:
        assert first._lock._path != second._lock._path


def test_a_lock_that_was_left_behind_holds_nobody_up(tmp_path: Path) -> None:
    lock = AccountLock("endpoint key", "…", folder=tmp_path)
    lock._path.touch()
    lock.take()
    with pytest.raises(BrokerError, match="another run"):
        AccountLock("endpoint key", "…", folder=tmp_path).take()
    lock.release()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_a_lock_that_its_holder_removes_at_that_moment_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, plain = AccountLock("endpoint key", "…", folder=tmp_path), fcntl.flock
    removed: list[int] = []

    def removes(file: int, how: int) -> None:
        plain(file, how)
        if not removed:
            removed.append(file)
            lock._path.unlink()

    monkeypatch.setattr("engine.live.rest.fcntl.flock", removes)
    lock.take()
    with pytest.raises(BrokerError, match="another run"):
        AccountLock("endpoint key", "…", folder=tmp_path).take()
    lock.release()


def test_a_lock_that_cannot_be_made_is_one_sentence_and_no_link_is_followed(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="cannot be made"):
        AccountLock("a", "…", folder=tmp_path / "nowhere").take()
    lock = AccountLock("b", "…", folder=tmp_path)
    lock._path.symlink_to(tmp_path / "target")
    with pytest.raises(BrokerError, match="cannot be made"):
        lock.take()
    assert not (tmp_path / "target").exists()


# --- paper only ----------------------------------------------------------------------------------------------------


def test_without_an_exchange_here_everything_goes_to_the_paper_endpoint() -> None:
    with Connection(Credentials(key=KEY, secret=SECRET), config(), streamed=True) as made:
        assert made.trading._base_url == BaseURL.TRADING_PAPER
        assert [stream._endpoint for stream in made._streams._streams] == [
            BaseURL.TRADING_STREAM_PAPER,
            "wss://stream.data.alpaca.markets/v2/iex",
        ]


@pytest.mark.parametrize(
    "address", ["https://api.alpaca.markets", "https://paper-api.alpaca.markets.evil.com", "http://1.2.3.4:5"]
)
def test_a_live_endpoint_is_refused(address: str) -> None:
    keys = {"APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": SECRET, "APCA_API_BASE_URL": address}
    with pytest.raises(BrokerError, match="trades on paper only"):
        load_credentials(keys, folder=Path("/nowhere"))


def test_no_picture_of_it_shows_the_secret(fake: FakeBroker) -> None:
    with connection(fake) as made:
        shown = [repr(made), repr(made.trading), repr(made._credentials), repr(made._streams), repr(Streams)]
        assert not [text for text in shown if SECRET in text or KEY in text]
