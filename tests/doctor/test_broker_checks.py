"""The checks of the broker over REST, against a server that answers as Alpaca does, and then does not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from engine.checks import Check
from engine.credentials import Credentials
from engine.live.answers import Questioner, Subject
from engine.live.probes import account_question, broker_questions
from tests.doctor.broker_stub import ACCOUNT, ASSET, KEY, NOW, ORDER, SECRET, Stub, clock, minute_bars

SUBJECT = Subject(symbols=("AAPL",), timeframe="1m", feed="iex")


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        yield server


def checks(stub: Stub, subject: Subject = SUBJECT, *, off: float = 0.0) -> dict[str, Check]:
    """All checks by name, as of Alpaca itself (not as of an exchange on this machine)."""
    broker = Questioner(Credentials(key=KEY, secret=SECRET), lambda: NOW.timestamp() + off)
    broker.trading_url = broker.data_url = stub.url
    try:
        asked = [account_question(broker), *broker_questions(broker, subject)]
        made = [question.answered(seconds=10.0, secrets=(SECRET, KEY)) for question in asked]
    finally:
        broker.close()
    assert not any(SECRET in text or KEY in text for check in made for text in (check.found, check.expected))
    return {check.name: check for check in made}


def test_what_answers_as_alpaca_does_is_in_order_and_only_asked(stub: Stub) -> None:
    made = checks(stub, off=1.5)
    assert {name: check.found for name, check in made.items() if check.state != "ok"} == {}
    assert {line.split()[0] for line in stub.asked} == {"GET"}
    assert made["recent SIP bars"].found == "refused: 403: subscription does not permit querying recent SIP data"
    assert made["time of a bar"].found == "12 of 12 bars of 5 minutes open and close with the minutes from t on"
    assert made["rate limit"].found == "200 a minute, 200 left"
    assert made["unknown order"].found == "404, code 40410000"
    assert made["clock difference"].found.startswith("this machine is +1.5")


@pytest.mark.parametrize(
    ("path", "status", "body", "name", "found"),
    [
        (
            "/v2/account",
            200,
            {**ACCOUNT, "cash": 1.5, "multiplier": None},
            "account",
            "cash is 1.5; multiplier is None",
        ),
        ("/v2/account", 200, {k: v for k, v in ACCOUNT.items() if k != "equity"}, "account", "equity missing"),
        ("/v2/account", 200, {**ACCOUNT, "trading_blocked": True}, "account status", "ACTIVE, trading_blocked"),
        ("/v2/account", 200, b"<html>", "account", "status 200 and what is no JSON object"),
        ("/v2/account", 500, {"message": "oh"}, "account", "500: oh"),
        ("/v2/clock", 200, {**clock(), "timestamp": "2026-03-04T18:00:00"}, "clock", "timestamp is '2026-03-04T18:00"),
        ("/v2/calendar", 200, [], "calendar", "no session on 2026-03-05, on which the clock says"),
        (
            "/v2/calendar",
            200,
            [{"date": "2026-03-05", "open": "14:30", "close": "21:00"}],
            "calendar",
            "14:30, and the clock says 09:30 in New York",
        ),
        ("/v2/positions", 200, [{}], "positions", "asset_id, symbol, exchange, asset_class, side, avg_entry_price"),
        ("/v2/orders", 200, [{**ORDER, "id": "one"}], "orders", "id is 'one'"),
        ("/v2/assets/AAPL", 200, {**ASSET, "tradable": False}, "asset AAPL", "it cannot be traded"),
        ("/v2/assets/NEXTBAR.NONE", 200, ASSET, "unknown symbol", "status 200"),
        ("/v2/account/portfolio/history", 200, {"timestamp": []}, "history", "the fields timestamp"),
        ("/v2/stocks/bars", 200, {"bars": {"AAPL": [{"t": 1}]}}, "bars (iex)", "the fields bars; expected bars by"),
        ("/v2/stocks/bars", 429, {"message": "too many requests."}, "bars (iex)", "429: too many requests."),
    ],
)
def test_what_differs_is_told(stub: Stub, path: str, status: int, body: Any, name: str, found: str) -> None:
    stub.routes[path] = lambda query: (status, body)
    check = checks(stub)[name]
    assert (check.state, check.found[: len(found)]) == ("differs", found)


def test_a_clock_that_is_off_differs(stub: Stub) -> None:
    check = checks(stub, off=-30.0)["clock difference"]
    assert check.state == "differs"
    assert check.found.startswith("this machine is -30.") or check.found.startswith("this machine is -29.9")


def test_bars_stamped_by_their_end_are_noticed(stub: Stub) -> None:
    stub.routes["/v2/stocks/bars"] = lambda query: (200, minute_bars(query, stamped_by_end=True))
    assert checks(stub)["time of a bar"].state == "differs"


def test_daily_bars_are_stamped_at_midnight_of_a_session(stub: Stub) -> None:
    daily = Subject(symbols=("AAPL",), timeframe="1d", feed="iex")
    bar = dict.fromkeys(("o", "h", "l", "c", "v", "n", "vw"), 1.0)

    def bars(stamp: str) -> Check:
        stub.routes["/v2/stocks/bars"] = lambda query: (
            200,
            {"bars": {"AAPL": [{**bar, "t": stamp}]}, "next_page_token": None},
        )
        return checks(stub, daily)["time of a bar"]

    assert bars("2026-03-03T05:00:00Z").state == "ok"
    assert bars("2026-03-03T21:00:00Z").state == "differs"
    assert bars("2026-03-01T05:00:00Z").state == "differs"


def test_headers_that_are_missing_are_named(stub: Stub) -> None:
    stub.headers.clear()
    assert checks(stub)["rate limit"].found == "without X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"


def test_sip_that_the_run_file_wants_and_the_plan_does_not_include(stub: Stub) -> None:
    wanted = Subject(symbols=("AAPL",), timeframe="1m", feed="sip")
    assert checks(stub, wanted)["recent SIP bars"].found.startswith("refused, and data.feed is sip (403: subscription")


def test_a_secret_that_an_answer_repeats_is_not_shown(stub: Stub) -> None:
    stub.routes["/v2/account"] = lambda query: (500, {"message": f"no\x1b[31m {SECRET} of {KEY}"})
    assert checks(stub)["account"].found == "500: no [31m … of …"


def test_pages_that_repeat_themselves_are_noticed(stub: Stub) -> None:
    stub.routes["/v2/stocks/bars"] = lambda query: (200, minute_bars({**query, "page_token": "0"}))
    assert checks(stub)["pages of bars"].state == "differs"


def test_a_redirection_is_not_followed_with_the_key(stub: Stub) -> None:
    with Stub() as elsewhere:
        stub.headers["Location"] = f"{elsewhere.url}/v2/account"
        stub.routes["/v2/account"] = lambda query: (302, {})
        assert checks(stub)["account"].found == "status 302"
        assert elsewhere.asked == []


def test_before_the_first_session_is_over_the_stamp_cannot_be_told(stub: Stub) -> None:
    early = NOW - timedelta(hours=2)
    stub.routes["/v2/clock"] = lambda query: (200, clock(early))
    assert checks(stub)["time of a bar"].found == "no session is over yet"
