"""The kill switch of a run that nobody trades any more, on an exchange on this machine."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.trading.client import TradingClient
from kill_stage import REASON, KillStage, entries, served, status_of

from engine.errors import BrokerError, RiskHalt
from engine.live.journal import FILE
from engine.live.kill_notes import KillNotes
from engine.live.rest import AccountLock
from engine.live.switch import Switch
from engine.run_file import load_config
from engine.twin import twin

BOTH = [("sell", "AAPL", 10.0), ("sell", "MSFT", 20.0)]


def test_positions_are_closed_and_the_legs_of_a_bracket_cancelled(exchange: KillStage) -> None:
    run = exchange.break_down()
    assert exchange.held() == {"AAPL": 10.0, "MSFT": 20.0}
    done = exchange.kill()
    assert (done.run.resolve(), done.switch, done.already, done.process) == (run, REASON, False, "none")
    assert (done.flat, done.safe, done.held, done.open_orders, done.left_alone) == (True, True, {}, (), ())
    assert sorted((o.symbol, o.type) for o in done.canceled) == [("AAPL", "limit"), ("AAPL", "stop"), ("MSFT", "limit")]
    assert [(o.side, o.symbol, o.quantity) for o in done.closing] == BOTH
    assert {o.status for o in done.closing} == {"filled"}
    assert exchange.held() == {}
    assert done.cash == done.equity == float(exchange.ask("GET", "/v2/account")["cash"])
    assert len(entries(run, "kill_intent")) == 2
    (killed,) = entries(run, "killed")
    assert [(c["side"], c["symbol"], c["quantity"]) for c in killed.body["closings"]] == BOTH
    assert killed.body["reason"] == REASON


def test_twice_is_harmless(exchange: KillStage) -> None:
    run = exchange.break_down()
    exchange.kill()
    again = exchange.kill(run.name)
    assert (again.already, again.flat, again.switch, again.canceled) == (True, True, REASON, ())
    assert exchange.closings() == BOTH
    assert "was killed with nextbar kill on" in " ".join(exchange.said)


def test_a_restart_books_what_happened_and_halts_and_no_other_does_anything(exchange: KillStage) -> None:
    run = exchange.break_down()
    exchange.kill()
    report = exchange.trade()
    assert (report.run.resolve(), report.status, report.halted) == (run, "halted", REASON)
    assert status_of(run) == "halted"
    assert [(e.body["side"], e.body["symbol"], e.body["quantity"]) for e in entries(run, "fill")][-2:] == BOTH
    assert (run / "report.html").is_file()
    assert exchange.held() == {}
    with pytest.raises(RiskHalt, match="--new"):
        exchange.trade()
    assert exchange.closings() == BOTH
    assert exchange.kill(run.name).flat


def test_a_restart_sends_nothing_before_it_knows_what_a_kill_has_closed(exchange: KillStage) -> None:
    run = exchange.break_down()  # in the middle of a step: the strategy did not come to its decision
    exchange.kill()
    exchange.trade()
    # The intents of the strategy: two orders and a bracket; and none that closes once more what is closed.
    assert [entry.body["order"] for entry in entries(run, "intent")] == [1, 2, 3, 4, 5]
    assert entries(run, "turned_down") == []
    assert twin(run.name, root=Path("runs")).difference == ""


def test_the_orders_and_positions_of_others_are_left_alone(exchange: KillStage) -> None:
    exchange.break_down()
    exchange.order("IBM", "buy", 7)
    exchange.order("AAPL", "buy", 4)
    exchange.advance()
    exchange.order("MSFT", "buy", 3, type="limit", limit_price="1.5", time_in_force="gtc", client_order_id="by-hand")
    done = exchange.kill()
    assert done.flat
    assert exchange.closings() == BOTH
    assert exchange.held() == {"AAPL": 4.0, "IBM": 7.0}
    assert [o["client_order_id"] for o in exchange.ask("GET", "/v2/orders")] == ["by-hand"]
    told = " ".join(done.left_alone)
    assert "AAPL: 4 held" in told
    assert "IBM: 7 held" in told
    assert "by-hand" in told


def test_what_others_have_sold_is_not_sold_once_more(exchange: KillStage) -> None:
    exchange.break_down()
    exchange.ask("POST", "/nextbar/transfer", {"symbol": "MSFT", "qty": "-15", "price": "20"})
    assert exchange.kill().flat
    assert exchange.closings() == [("sell", "AAPL", 10.0), ("sell", "MSFT", 5.0)]
    assert exchange.held() == {}


def test_an_unreachable_broker_leaves_the_run_killed(stage: KillStage, monkeypatch: pytest.MonkeyPatch) -> None:
    config, state = load_config(stage.folder / "run.yaml"), stage.folder / "exchange.sqlite"
    monkeypatch.setenv("APCA_API_KEY_ID", "PKTEST")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "secret")
    with served(stage, config, state=state) as first:
        monkeypatch.setenv("APCA_API_BASE_URL", first.url)
        run = stage.break_down()
    with pytest.raises(BrokerError, match=r"will not trade any more.*say nextbar kill .* again"):
        stage.kill()
    assert stage.said[-1] == "asking its broker what it has there"
    assert Switch(run).look().killed == REASON
    with served(stage, config, state=state) as second:
        monkeypatch.setenv("APCA_API_BASE_URL", second.url)
        done = stage.kill()
        assert (done.already, done.flat) == (True, True)
        assert stage.closings() == BOTH


def test_keys_of_another_account_close_nothing(exchange: KillStage, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange.break_down()
    monkeypatch.setenv("APCA_API_KEY_ID", "PKOTHER")
    with pytest.raises(BrokerError, match="the run trades with account"):
        exchange.kill()
    monkeypatch.setenv("APCA_API_SECRET_KEY", "another")
    with pytest.raises(BrokerError, match="refuses the key") as refused:
        exchange.kill()
    assert "another" not in str(refused.value)
    assert exchange.closings() == []


def test_an_order_whose_answer_is_lost_is_not_sent_twice(exchange: KillStage, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange.break_down()
    submit = TradingClient.submit_order

    def loses(client: TradingClient, request: Any) -> Any:
        submit(client, request)
        raise requests.ConnectionError

    monkeypatch.setattr(TradingClient, "submit_order", loses)
    assert exchange.kill().flat
    assert exchange.closings() == BOTH


@pytest.mark.parametrize("after", ["intend", "done"])
def test_a_kill_that_is_cut_off_is_gone_on_with(
    exchange: KillStage, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    run = exchange.break_down()

    class CutOff(BaseException):
        pass

    def cut(notes: KillNotes, closings: Any) -> None:
        if after == "intend":
            intend(notes, closings)
        raise CutOff

    intend = KillNotes.intend
    with monkeypatch.context() as patch:
        patch.setattr(KillNotes, after, cut)
        with pytest.raises(CutOff):
            exchange.kill()
    assert exchange.closings() == ([] if after == "intend" else BOTH)
    assert exchange.kill().flat
    assert exchange.closings() == BOTH
    assert sum(len(e.body["closings"]) for e in entries(run, "killed")) == 2
    assert exchange.trade().status == "halted"


def test_closing_orders_that_wait_are_not_sent_again(exchange: KillStage) -> None:
    exchange.break_down()
    lock = AccountLock(f"{exchange.url} PKTEST", "PK…")
    lock.take()  # another run trades with the account, and it is that which moves the exchange on
    try:
        first, second = exchange.kill(), exchange.kill()
        for done in (first, second):
            assert (done.flat, done.safe, done.held) == (False, True, {"AAPL": 10.0, "MSFT": 20.0})
            assert "the market is closed" in " ".join(done.remarks)
            assert len(done.open_orders) == len(done.closing) == 2
        assert exchange.closings() == BOTH
        exchange.advance()
        assert exchange.kill().flat
        assert exchange.closings() == BOTH
    finally:
        lock.release()


def test_a_closing_order_that_expired_is_followed_by_another(exchange: KillStage) -> None:
    exchange.break_down()
    lock = AccountLock(f"{exchange.url} PKTEST", "PK…")
    lock.take()
    try:
        waiting = exchange.kill().open_orders
    finally:
        lock.release()
    ours = next(order for order in waiting if order.symbol == "AAPL")
    exchange.ask("DELETE", f"/v2/orders/{ours.broker_id}")
    done = exchange.kill()
    assert done.flat
    assert [order.client_id.rsplit("-", 2)[1:] for order in done.closing] == [
        ["AAPL", "1"],
        ["MSFT", "1"],
        ["AAPL", "2"],
    ]
    assert exchange.held() == {}


def test_two_kills_at_once_close_once(exchange: KillStage) -> None:
    exchange.break_down()
    done: list[Any] = []
    kills = [threading.Thread(target=lambda: done.append(exchange.kill())) for _ in range(3)]
    for thread in kills:
        thread.start()
    for thread in kills:
        thread.join()
    assert [report.flat for report in done] == [True] * 3
    assert exchange.closings() == BOTH


def test_a_damaged_journal_keeps_nothing_open(exchange: KillStage) -> None:
    run = exchange.break_down()
    exchange.order("AAPL", "buy", 4)
    exchange.order("IBM", "buy", 7)
    exchange.advance()
    journal = run / FILE
    whole = journal.read_bytes()
    journal.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    done = exchange.kill()
    assert done.flat
    assert any("the run cannot go on" in remark and "damaged" in remark for remark in done.remarks)
    assert exchange.closings() == BOTH
    assert exchange.held() == {"AAPL": 4.0, "IBM": 7.0}
    assert exchange.kill().flat
    assert exchange.closings() == BOTH


def test_a_run_that_ended_with_positions_may_be_killed_too(exchange: KillStage) -> None:
    report = exchange.trade()
    assert report.status == "completed"
    done = exchange.kill()
    # The exchange has no bar left in which an order could fill: what it holds stays, and its orders are gone.
    assert (done.flat, done.held, done.open_orders) == (False, {"AAPL": 10.0, "MSFT": 20.0}, ())
    assert exchange.closings() == []
    assert "at its end" in " ".join(done.remarks)


def test_an_order_that_nobody_takes_is_told(exchange: KillStage) -> None:
    exchange.break_down()
    # Their own order keeps the shares.
    exchange.order("MSFT", "sell", 18, type="limit", limit_price="999", time_in_force="gtc", client_order_id="by-hand")
    done = exchange.kill()
    assert (done.flat, done.safe, done.held) == (False, False, {"MSFT": 20.0})
    assert any("MSFT: the broker does not take" in remark for remark in done.remarks)
