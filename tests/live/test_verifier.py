"""Ledger and account: what is a difference, how long it has to last, what lifts a pause, what a person may accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import BrokerError, NextbarError
from engine.live.rest import NoAnswer
from engine.live.venue import LiveVenue
from engine.live.verifier import Account, Books, Gap, Holding, Verifier, Waiting, foreign, gaps
from engine.trading.costs import Costs
from engine.trading.ledger import Ledger
from engine.trading.orders import BUY, SELL, Fill, Order, OrderStatus
from engine.trading.venue import Bar
from tests.live.rig import HastyInbox, MemoryDesk
from tests.live.test_venue import MemoryLog

CASH, AT_ALPACA = 10_000.0, 25_000.0
BEGUN = datetime(2024, 1, 2, 15, tzinfo=UTC)
OURS = "run-20240102T150000-A"


class Scene:
    """A verifier, a run's account as we see it, and the broker's, which follows ours but for what a test changes."""

    def __init__(self, *, agreed: str = "", symbols: Sequence[str] = ("A", "B")) -> None:
        self.now = 0.0
        self.log: Any = MemoryLog()
        self.desk = MemoryDesk()
        self.ledger = Ledger(cash=CASH)
        self.venue: Any = LiveVenue(
            ledger=self.ledger, costs=Costs(), prices={"A": 90.0}, desk=self.desk, log=self.log, run="run"
        )
        self.events: list[str] = []
        self.pauses: list[str] = []
        self.held_back: dict[str, float] = {}
        self.symbols = symbols
        self.local = False
        self.missing = 0.0
        self.others: dict[str, Holding] = {}
        self.orders: dict[str, Waiting] = {}
        self.gone: set[str] = set()
        self.silence = 0
        self.asks = 0
        self.on_ask: Callable[[int], Any] = lambda number: None
        self.cancelled: list[str] = []
        self.inbox = HastyInbox()
        self.trading = SimpleNamespace(cancel_order_by_id=self.cancelled.append)
        self.run: Any = self
        self.verifier = self.verifies(agreed=agreed)

    def verifies(self, *, account_cash: float = AT_ALPACA, agreed: str = "") -> Verifier:
        return Verifier(
            self,  # type: ignore[arg-type]
            account_cash=account_cash,
            ledger_cash=CASH,
            agreed=agreed,
            monotonic=lambda: self.now,
            clock=lambda: BEGUN + timedelta(seconds=self.now),
        )

    # --- as a run

    def pause(self, source: str, reason: str) -> None:
        assert source == "account"
        self.pauses.append(reason)

    def hold_back(self, theirs: dict[str, float]) -> None:
        self.held_back = theirs

    def close(self, symbol: str) -> float:
        return 90.0

    def adopt(self, trades: Sequence[dict[str, Any]]) -> None:
        before = self.ledger.cash
        self.venue.adopt(trades, decided=1, time=2)
        self.missing += self.ledger.cash - before  # the broker's cash is what it was

    # --- as a connection

    def asked(self, what: str, call: Callable[[], Any], *, missing: Any = None) -> Any:
        return call()

    def holdings(self) -> Account:
        self.asks += 1
        self.on_ask(self.asks)
        if self.silence:
            self.silence -= 1
            raise NoAnswer("try again later")
        held = {s: Holding(p.quantity, p.average_price) for s, p in self.ledger.positions.items() if p.quantity}
        merged = {**held, **self.others}
        waiting = {
            remote: Waiting(order.symbol, self.venue.client_id(order))
            for remote, order in self.venue.at_broker.items()
            if remote not in self.gone
        }
        return Account(
            AT_ALPACA + self.ledger.cash - CASH - self.missing,
            {symbol: holding for symbol, holding in merged.items() if holding.quantity},
            {remote: order for remote, order in {**waiting, **self.orders}.items() if remote not in self.cancelled},
        )

    # --- what happens

    def fill(self, quantity: float = 1.0, price: float = 10.0, commission: float = 0.0, side: int = BUY) -> None:
        self.venue.commission_paid += commission
        fill = Fill(order_id=1, symbol="A", side=side, quantity=quantity, price=price, reference_price=price,
                    commission=commission, decided=0, time=0)  # fmt: skip
        self.ledger.apply(fill)

    def order(self) -> Order:
        """A limit that waits at the broker."""
        made = Order(id=7, symbol="A", side=BUY, quantity=1.0, type="limit", limit_price=50.0)
        assert self.venue.submit(made), made.reason
        self.venue.flush(1)
        return made

    def step(self) -> None:
        """A bar: what the broker told is booked."""
        self.desk.updates += [message.fields for message in self.inbox.take_updates()]  # type: ignore[misc]
        self.venue.on_bars(time=3, session=1, session_ends=True, bars={"A": Bar(90.0, 90.0, 90.0, 90.0)})

    def look(self) -> str:
        """A minute later; why entries are paused."""
        self.now += 61.0
        self.verifier.look(self.run, self.log)
        return self.pauses[-1] if self.pauses else ""

    def reconcile(self, *, accept: bool = False) -> None:
        """As a run does it before it goes on."""
        wrong = self.verifier.differences(self.run, self.log)
        self.verifier.reconcile(self.run, self.log, wrong, accept=accept)

    def differences(self) -> list[str]:
        """What the journal says of the last look."""
        found: list[str] = self.log.of("account")[-1]["differences"]
        return found


def test_an_account_that_agrees_is_no_reason_and_is_asked_once_a_minute() -> None:
    scene = Scene()
    scene.fill()
    assert scene.look() == ""
    scene.verifier.look(scene.run, scene.log)
    assert scene.log.of("account") == [{"differences": []}]


def test_a_difference_of_one_look_may_be_a_fill_that_is_on_its_way() -> None:
    scene = Scene()
    scene.others = {"A": Holding(1.0, 10.0)}
    assert scene.look() == ""
    scene.others = {"A": Holding(3.0, 10.0)}
    assert scene.look() == ""
    assert scene.look() == (
        "the account differs from our ledger: A: 0 by our ledger, 3 at the broker (since 2024-01-02 15:01:01 UTC)"
    )


def test_money_that_is_missing_is_noticed_while_trading_goes_on() -> None:
    scene = Scene()
    scene.missing = 500.0
    scene.fill(price=10.0, commission=1.0)
    assert scene.look() == ""
    scene.fill(price=20.0, commission=1.0)  # the sums are others, and what is missing is the same
    assert scene.look().startswith(
        "the account differs from our ledger: cash should be 24968.00 by our ledger, and is 24468.00 at the broker"
    )


def test_costs_that_the_broker_does_not_charge_hide_no_missing_money() -> None:
    scene = Scene()
    for missing in (500.0, 499.0, 498.0):
        scene.missing = missing  # what the broker did not take in commission makes up for some of it
        paused = scene.look()
        scene.fill(commission=1.0)
    assert "cash should be" in paused


def test_a_fill_lifts_no_pause_and_agreement_does() -> None:
    scene = Scene()
    scene.others = {"A": Holding(3.0, 10.0)}
    scene.look()
    paused = scene.look()
    scene.others, scene.missing = {"A": Holding(4.0, 10.0)}, 7.0
    assert scene.look().startswith("the account differs from our ledger: A: 0 by our ledger, 4")
    scene.silence = 1
    assert scene.look() != ""
    assert paused != ""
    scene.others, scene.missing = {}, 0.0
    assert scene.look() == ""


def test_while_the_same_is_wrong_the_reason_stays_as_it_was() -> None:
    scene = Scene()
    scene.missing = 500.0
    for _ in range(4):
        scene.look()
        scene.fill()
    assert len(set(scene.pauses[1:])) == 1


def test_positions_in_the_runs_symbols_that_the_ledger_never_touched_are_differences() -> None:
    scene = Scene()
    scene.others = {"B": Holding(-2.0, 5.0)}
    scene.look()
    assert scene.differences()[0].startswith("B: 0 by our ledger, -2 at the broker")
    assert "B: 0 by our ledger, -2 at the broker" in scene.look()


def test_a_difference_says_when_both_last_agreed() -> None:
    scene = Scene()
    scene.look()
    scene.others = {"A": Holding(3.0, 10.0)}
    scene.look()
    assert scene.look().endswith("3 at the broker (they agreed at 2024-01-02 15:01:01 UTC)")
    scene.others = {"A": Holding(4.0, 10.0)}
    scene.look()
    assert scene.differences()[0].endswith("4 at the broker (they agreed at 2024-01-02 15:01:01 UTC)")


def test_what_is_not_of_this_run_is_told_once_and_left_alone() -> None:
    scene = Scene()
    scene.others = {"Z": Holding(5.0, 1.0)}
    scene.orders = {"f": Waiting("A", "by-hand"), "g": Waiting("A", "another-run-20240102T150000-A-1")}
    for _ in range(3):
        assert scene.look() == ""
    wanted = [
        "Z is held and not traded by this run",
        "A: order by-hand is open and not of this run",
        "A: order another-run-20240102T150000-A-1 is open and not of this run",
    ]
    assert scene.events == [f"left alone: {sentence}" for sentence in wanted]
    assert [entry.get("foreign") for entry in scene.log.of("account")] == [wanted, None, None]
    assert {tuple(entry["differences"]) for entry in scene.log.of("account")} == {()}
    scene.reconcile()
    assert (scene.cancelled, scene.log.of("adopted")) == ([], [])


def test_an_average_price_alone_is_noted_and_stops_nothing() -> None:
    scene = Scene()
    scene.fill(10.0, 100.0)
    scene.others = {"A": Holding(10.0, 101.0)}
    for _ in range(3):
        assert scene.look() == ""
    assert scene.differences() == [
        "A: bought at 100.0000 on average by our ledger, at 101.0000 at the broker (since 2024-01-02 15:01:01 UTC)"
    ]
    scene.reconcile()
    assert scene.pauses[-1] == ""


@pytest.mark.parametrize(("ours", "theirs", "differs"), [
    (1.0, 1.009, False), (1.0, 1.02, True), (1000.0, 1000.09, False), (1000.0, 1000.11, True), (1000.0, 999.8, True),
])  # fmt: skip
def test_averages_may_differ_by_a_cent_or_a_ten_thousandth(ours: float, theirs: float, differs: bool) -> None:
    books = Books(cash=0.0, costs=0.0, held={"A": Holding(1.0, ours)}, orders={})
    found = gaps(Account(0.0, {"A": Holding(1.0, theirs)}, {}), books, tolerance=0.01)
    assert [gap.what for gap in found] == ["price"] * differs
    assert not any(gap.stops for gap in found)


def test_nothing_is_said_of_the_price_of_a_position_whose_size_differs() -> None:
    books = Books(cash=0.0, costs=0.0, held={"A": Holding(1.0, 10.0), "B": Holding(0.0, 10.0)}, orders={})
    account = Account(0.0, {"A": Holding(2.0, 20.0)}, {})
    assert [gap.what for gap in gaps(account, books, tolerance=0.01)] == ["position"]


# --- orders --------------------------------------------------------------------------------------------------------


def test_an_order_of_ours_that_is_not_there_stops_entries() -> None:
    scene = Scene()
    order = scene.order()
    assert scene.look() == ""
    scene.gone = {"r7"}
    scene.look()
    assert "order 7 (buy 1 A) is open by our books, and not at the broker" in scene.look()
    scene.desk.tell("r7", "canceled")
    scene.step()
    assert not order.alive
    assert scene.look() == ""


def test_an_order_of_this_run_that_we_do_not_know_stops_entries() -> None:
    scene = Scene()
    scene.orders = {"x": Waiting("A", f"{OURS}-9")}
    scene.look()
    assert f"A: order {OURS}-9 of this run is open at the broker, and not in our books" in scene.look()


def test_an_order_that_may_be_there_and_one_that_may_not_have_ended_there_yet_are_no_differences() -> None:
    scene = Scene()
    order = scene.order()
    scene.venue.cancel(order)  # not sent yet
    scene.orders = {"r7": Waiting("A", scene.venue.client_id(order))}
    scene.desk.faults.append("taken")
    doubtful = Order(id=8, symbol="A", side=BUY, quantity=1.0)
    scene.desk.withdraw = lambda remote: None  # type: ignore[method-assign]
    assert scene.venue.submit(doubtful)
    scene.venue.flush(1)
    scene.orders["r8"] = Waiting("A", scene.venue.client_id(doubtful))
    for _ in range(3):
        assert scene.look() == ""
    assert scene.log.of("account")[-1] == {"differences": []}


def test_what_we_know_is_not_foreign_whatever_it_is_called() -> None:
    order = Order(id=1, symbol="A", side=BUY, quantity=1.0)
    books = Books(cash=0.0, costs=0.0, held={"A": Holding(0.0, 0.0)}, orders={"k1": order}, ended=frozenset({"k2"}),
                  run="run-")  # fmt: skip
    account = Account(0.0, {}, {"k1": Waiting("A", "kill-1"), "k2": Waiting("A", "kill-2")})
    assert foreign(account, books) == []
    assert gaps(account, books, tolerance=0.01) == []


def test_one_difference_seen_twice_is_one_however_its_sums_have_moved() -> None:
    gap = Gap("cash", "", (-500.0, -498.0), "")
    assert gap.is_same(Gap("cash", "", (-500.005, -497.0), ""), 0.01)
    assert gap.is_same(Gap("cash", "", (-501.0, -498.005), ""), 0.01)
    assert not gap.is_same(Gap("cash", "", (-501.0, -499.0), ""), 0.01)
    assert not Gap("position", "A", (1.0,), "").is_same(Gap("position", "B", (1.0,), ""), 0.01)
    assert not Gap("position", "A", (1.0,), "").is_same(Gap("position", "A", (1.1,), ""), 100.0)


@pytest.mark.parametrize(
    ("executions", "off", "differs"),
    [(0, 0.009, False), (0, 0.02, True), (2, 0.02, True), (10, 0.049, False), (10, 0.06, True), (100, 0.49, False)],
)
def test_the_broker_may_round_each_execution_to_a_cent(executions: int, off: float, differs: bool) -> None:
    scene = Scene()
    for _ in range(executions):
        scene.fill(commission=0.0)
    scene.missing = off
    scene.look()
    assert bool(scene.differences()) == differs


def test_executions_are_counted_once_also_where_the_ledger_lets_go_of_old_ones() -> None:
    scene = Scene()
    for _ in range(10):
        scene.fill()
    scene.look()
    scene.look()
    del scene.ledger.fills[:5]
    for _ in range(10):
        scene.fill()
    scene.missing = 0.101
    scene.look()
    assert len(scene.differences()) == 1
    scene.missing = 0.099
    scene.look()
    assert scene.differences() == []


def test_a_broker_that_does_not_answer_is_noted() -> None:
    scene = Scene()
    scene.silence = 1
    assert scene.look() == ""
    assert scene.events == ["try again later"]


def test_at_the_end_differences_are_given_back_noted_and_written() -> None:
    scene = Scene()
    assert scene.verifier.at_the_end(scene.run, scene.log, strict=True) == []
    scene.others = {"A": Holding(1.0, 10.0)}
    wanted = ["A: 0 by our ledger, 1 at the broker"]
    assert scene.verifier.at_the_end(scene.run, scene.log, strict=False) == wanted
    assert scene.events == wanted
    assert scene.differences() == [f"{wanted[0]} (they agreed at 2024-01-02 15:00:00 UTC)"]
    with pytest.raises(NextbarError, match="differ: A: 0 by our ledger, 1 at the broker; please report"):
        scene.verifier.at_the_end(scene.run, scene.log, strict=True)


def test_at_the_end_an_account_that_could_not_be_compared_is_said_and_is_an_error_of_a_replay() -> None:
    scene = Scene()
    scene.silence = 1
    (said,) = scene.verifier.at_the_end(scene.run, scene.log, strict=False)
    assert said == "the account was not compared: try again later"
    assert scene.differences() == [said]
    scene.silence = 1_000_000
    with pytest.raises(NoAnswer):
        scene.verifier.at_the_end(scene.run, scene.log, strict=True)
    assert 999_900 < scene.silence < 999_999  # it was asked for a while
    scene.silence = 5
    assert scene.verifier.at_the_end(scene.run, scene.log, strict=True) == []


# --- before a run goes on ------------------------------------------------------------------------------------------


def test_an_account_that_is_what_the_journal_says_is_gone_on_with() -> None:
    scene = Scene()
    scene.fill(10.0, 100.0)
    scene.order()
    scene.reconcile()
    assert scene.pauses == [""]
    assert scene.log.of("account") == [{"differences": []}]
    assert (scene.asks, scene.inbox.waits, scene.log.of("accepted")) == (1, [], [])


def test_each_look_before_a_run_goes_on_is_one_and_says_what_stops_trading() -> None:
    scene = Scene()
    scene.fill(10.0, 100.0)
    scene.others = {"A": Holding(10.0, 101.0), "B": Holding(3.0, 10.0)}  # an average alone stops nothing
    (gap,) = scene.verifier.differences(scene.run, scene.log)
    assert (gap.what, gap.name, gap.sizes) == ("position", "B", (3.0,))
    assert (scene.asks, scene.inbox.waits, scene.pauses) == (1, [], [])
    scene.others = {}
    assert scene.verifier.differences(scene.run, scene.log) == []
    scene.verifier.reconcile(scene.run, scene.log, [], accept=False)
    assert (scene.asks, scene.pauses) == (2, [""])  # what was looked at is not asked for again


def test_a_broker_that_says_nothing_is_asked_again_before_a_run_goes_on_and_nothing_is_taken_for_agreement() -> None:
    scene = Scene()
    scene.silence = 10
    scene.reconcile()
    assert scene.silence == 0
    scene.silence = 1_000
    with pytest.raises(NoAnswer):
        scene.reconcile(accept=True)
    assert (scene.log.of("accepted"), scene.log.of("adopted")) == ([], [])
    scene.silence = 1_000
    scene.inbox.stop()
    with pytest.raises(NoAnswer):
        scene.reconcile()
    assert scene.silence > 990


def spoilt() -> Scene:
    """An account that differs in everything."""
    scene = Scene(agreed="2023-12-31 20:00:00 UTC")
    scene.fill(10.0, 100.0)
    scene.order()
    scene.gone = {"r7"}
    scene.others = {"A": Holding(4.0, 100.0), "Z": Holding(1.0, 1.0)}
    scene.orders = {"x": Waiting("A", f"{OURS}-9")}
    scene.missing = 500.0
    return scene


def test_a_run_does_not_go_on_where_they_differ_and_says_both_figures_and_when_they_agreed() -> None:
    scene = spoilt()
    with pytest.raises(BrokerError) as caught:
        scene.reconcile()
    said = str(caught.value)
    since = "(they agreed at 2023-12-31 20:00:00 UTC)"
    for part in (
        "nothing was sent",
        f"A: 10 by our ledger, 4 at the broker {since}",
        f"cash should be 24000.00 by our ledger, and is 23500.00 at the broker {since}",
        f"order 7 (buy 1 A) is open by our books, and not at the broker {since}",
        f"A: order {OURS}-9 of this run is open at the broker, and not in our books {since}",
        "start again with --accept-broker",
    ):
        assert part in said
    assert "\n" not in said
    assert "Z" not in said
    assert scene.asks == 1
    assert (scene.cancelled, scene.inbox.has_updates, scene.ledger.quantity("A")) == ([], False, 10.0)
    assert {kind for kind in scene.log.kinds() if kind not in ("account", "durable", "ack")} == set()


def agrees_from_now_on(scene: Scene, *, unexplained: float) -> None:
    """This run's verifier and that of the next one, which reads the journal, find nothing any more."""
    (accepted,) = scene.log.of("accepted")
    assert accepted["unexplained_cash"] == pytest.approx(unexplained)
    kinds = scene.log.kinds()
    assert kinds[kinds.index("accepted") + 1] == "durable"
    assert scene.pauses[-1] == ""
    scene.step()
    for _ in range(3):
        scene.look()
        assert scene.differences() == []
    scene.verifier = scene.verifies(account_cash=AT_ALPACA + accepted["unexplained_cash"])
    scene.reconcile()


@pytest.mark.parametrize(
    ("theirs", "trade", "paid"),
    [
        # ours are 10 at 100; what they paid for the rest is in their average
        (Holding(15.0, 102.0), ("buy", 5.0, 106.0), -530.0),
        # what they got for what they sold, nobody knows: the last close is 90
        (Holding(4.0, 100.0), ("sell", 6.0, 90.0), 540.0),
        (Holding(0.0, 0.0), ("sell", 10.0, 90.0), 900.0),
        (Holding(-5.0, 98.0), ("sell", 15.0, 98.0), 1470.0),
    ],
    ids=["more", "fewer", "flat", "other side"],
)
@pytest.mark.parametrize("unexplained", [0.0, 33.0, -700.0])
def test_what_the_broker_holds_is_booked_where_a_person_says_so(
    theirs: Holding, trade: tuple[str, float, float], paid: float, unexplained: float
) -> None:
    scene = Scene()
    scene.fill(10.0, 100.0)
    scene.others = {"A": theirs}
    scene.missing = -paid - unexplained
    scene.reconcile(accept=True)
    side, quantity, price = trade
    (adopted,) = scene.log.of("adopted")
    assert adopted == {"trades": [{"symbol": "A", "side": side, "quantity": quantity, "price": price}]}
    position = scene.ledger.positions["A"]
    assert position.quantity == theirs.quantity
    if theirs.quantity:
        assert position.average_price == pytest.approx(theirs.average_price)
    assert [fill["order"] for fill in scene.log.of("fill")] == [-1]
    assert scene.log.kinds().index("adopted") < scene.log.kinds().index("fill") < scene.log.kinds().index("accepted")
    assert scene.events[-1].startswith("accepted as the broker has it: A: 10 by our ledger, ")
    agrees_from_now_on(scene, unexplained=unexplained)


def test_an_average_that_no_trade_can_have_made_is_not_believed() -> None:
    scene = Scene()
    scene.fill(10.0, 100.0)
    scene.others = {"A": Holding(11.0, 50.0)}  # the eleventh would have been bought for less than nothing
    scene.reconcile(accept=True)
    assert scene.log.of("adopted")[0]["trades"][0]["price"] == 90.0
    assert scene.ledger.quantity("A") == 11.0


def test_an_order_that_is_gone_is_given_up() -> None:
    scene = Scene()
    order = scene.order()
    scene.gone = {"r7"}
    scene.reconcile(accept=True)
    scene.step()
    assert (order.status, order.reason) == (OrderStatus.CANCELED, "canceled by the broker")
    assert scene.log.of("adopted") == []
    agrees_from_now_on(scene, unexplained=0.0)


def test_what_an_order_that_is_gone_had_filled_stays() -> None:
    scene = Scene()
    order = scene.order()
    scene.desk.tell("r7", "partial_fill", 0.4, 50.0)
    scene.step()
    scene.gone = {"r7"}
    scene.reconcile(accept=True)
    scene.step()
    assert (order.status, order.filled_quantity, scene.ledger.quantity("A")) == (OrderStatus.CANCELED, 0.4, 0.4)
    assert len(scene.log.of("fill")) == 1
    agrees_from_now_on(scene, unexplained=0.0)


def test_an_order_of_this_run_that_nobody_knows_is_cancelled_at_the_broker() -> None:
    scene = Scene()
    scene.orders = {"x": Waiting("A", f"{OURS}-9"), "f": Waiting("A", "by-hand")}
    scene.reconcile(accept=True)
    assert scene.cancelled == ["x"]
    agrees_from_now_on(scene, unexplained=0.0)


@pytest.mark.parametrize("paid_in", [500.0, -500.0])
def test_what_was_paid_in_or_out_is_known_from_then_on(paid_in: float) -> None:
    scene = Scene()
    scene.fill(10.0, 100.0)
    scene.missing = -paid_in
    scene.reconcile(accept=True)
    assert scene.ledger.cash == CASH - 1000.0  # the run's own cash is what it was
    agrees_from_now_on(scene, unexplained=paid_in)


@pytest.mark.parametrize(("local", "charged"), [(False, 0.0), (True, 12.0)], ids=["Alpaca", "this machine"])
def test_what_was_paid_in_is_known_to_the_cent_whatever_was_charged_before(local: bool, charged: float) -> None:
    """On this machine commission is charged, and Alpaca's paper account pays none."""
    scene = Scene()
    scene.local = local
    scene.fill(10.0, 100.0, commission=12.0)
    scene.missing = charged - 12.0 - 500.0
    scene.reconcile(accept=True)
    agrees_from_now_on(scene, unexplained=500.0)


def test_everything_at_once_is_accepted_together() -> None:
    scene = spoilt()
    scene.reconcile(accept=True)
    (accepted,) = scene.log.of("accepted")
    assert len(accepted["differences"]) == 4
    assert scene.ledger.quantity("A") == 4.0
    assert scene.cancelled == ["x"]
    agrees_from_now_on(scene, unexplained=-1040.0)  # the six shares are booked with more than there was


def test_what_still_differs_after_it_was_accepted_is_no_agreement() -> None:
    scene = Scene()
    scene.orders = {"x": Waiting("A", f"{OURS}-9")}
    scene.trading.cancel_order_by_id = lambda remote: None
    with pytest.raises(BrokerError, match=f"{OURS}-9"):
        scene.reconcile(accept=True)


def test_where_they_agree_nothing_is_accepted() -> None:
    scene = Scene()
    scene.fill(10.0, 100.0)
    scene.reconcile(accept=True)
    assert (scene.log.of("accepted"), scene.log.of("adopted")) == ([], [])


def test_what_is_sold_short_at_the_broker_is_booked() -> None:
    scene = Scene()
    scene.fill(10.0, 100.0, side=SELL)
    scene.others = {"A": Holding(-14.0, 98.0)}
    scene.missing = -4 * 93.0
    scene.reconcile(accept=True)
    assert scene.log.of("adopted")[0]["trades"] == [
        {"symbol": "A", "side": "sell", "quantity": 4.0, "price": pytest.approx(93.0)}
    ]
    agrees_from_now_on(scene, unexplained=0.0)


def test_what_the_broker_has_told_and_is_booked_with_the_next_bar_is_no_difference() -> None:
    scene = Scene()
    order = scene.order()
    scene.others, scene.gone, scene.missing = {"A": Holding(1.0, 50.0)}, {"r7"}, 50.0
    scene.desk.tell("r7", "fill", 1.0, 50.0)
    scene.inbox.put_update(scene.desk.updates.pop())
    for _ in range(5):  # of a daily bar there is none for hours
        assert scene.look() == ""
    assert scene.asks == 0
    scene.step()
    scene.others, scene.missing = {}, 0.0
    assert order.status is OrderStatus.FILLED
    assert scene.look() == ""
    assert scene.asks == 1


def test_what_is_told_of_other_peoples_orders_holds_no_comparison_up() -> None:
    scene = Scene()
    scene.inbox.put_update({"event": "new", "order": {"id": "foreign"}})
    scene.look()
    assert scene.asks == 1


def test_what_the_broker_holds_of_a_symbol_that_differs_is_told_until_both_agree() -> None:
    scene = Scene()
    scene.fill(10.0)
    scene.others = {"A": Holding(4.0, 10.0)}
    scene.look()
    assert scene.held_back == {}
    scene.look()
    assert scene.held_back == {"A": 4.0}
    scene.others = {}
    scene.look()
    assert scene.held_back == {}


def test_what_a_person_accepts_may_take_the_broker_a_moment_to_cancel() -> None:
    scene = Scene()
    scene.orders = {"x1": Waiting("A", OURS)}
    scene.trading.cancel_order_by_id = lambda broker_id: None  # it is pending_cancel for now
    scene.on_ask = lambda number: scene.orders.clear() if number >= 4 else None
    scene.reconcile(accept=True)
    assert scene.pauses == [""]
