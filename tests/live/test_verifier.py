"""Ledger and account: what is a difference, how long it has to last, and what lifts a pause."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import NextbarError
from engine.live.rest import NoAnswer
from engine.live.verifier import Account, Verifier
from engine.trading.ledger import Ledger
from engine.trading.orders import BUY, Fill
from tests.live.test_venue import MemoryLog

CASH = 10_000.0


class Scene:
    """A verifier, a ledger and an account that may differ from it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ledger = Ledger(cash=CASH)
        self.venue: Any = SimpleNamespace(ledger=self.ledger, commission_paid=0.0)
        self.events: list[str] = []
        self.pauses: list[str] = []
        self.log: Any = MemoryLog()
        self.symbols = ("A", "B")
        self.missing = 0.0
        self.foreign: dict[str, float] = {}
        self.answers = True
        self.run: Any = self
        self.verifier = Verifier(self, CASH, monotonic=lambda: self.now)  # type: ignore[arg-type]

    def pause(self, reason: str) -> None:
        self.pauses.append(reason)

    def holdings(self) -> Account:
        if not self.answers:
            raise NoAnswer("try again later")
        held = {symbol: position.quantity for symbol, position in self.ledger.positions.items()}
        return Account(self.ledger.cash - CASH - self.missing, {**held, **self.foreign})

    def fill(self, quantity: float = 1.0, price: float = 10.0, commission: float = 0.0) -> None:
        self.venue.commission_paid += commission
        fill = Fill(order_id=1, symbol="A", side=BUY, quantity=quantity, price=price, reference_price=price,
                    commission=commission, decided=0, time=0)  # fmt: skip
        self.ledger.apply(fill)

    def look(self) -> str:
        """A minute later; why entries are paused."""
        self.now += 61.0
        self.verifier.look(self.run, self.log)
        return self.pauses[-1] if self.pauses else ""

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
    scene.foreign = {"A": 1.0}
    assert scene.look() == ""
    scene.foreign = {"A": 3.0}
    assert scene.look() == ""
    assert scene.look() == "the account differs from our ledger: A: 0 by our ledger, 3 at the broker"


def test_money_that_is_missing_is_noticed_while_trading_goes_on() -> None:
    scene = Scene()
    scene.missing = 500.0
    scene.fill(price=10.0, commission=1.0)
    assert scene.look() == ""
    scene.fill(price=20.0, commission=1.0)  # the sums are others, and what is missing is the same
    assert scene.look().startswith("the account differs from our ledger: cash has changed by -32.00")


def test_costs_that_the_broker_does_not_charge_hide_no_missing_money() -> None:
    scene = Scene()
    for missing in (500.0, 499.0, 498.0):
        scene.missing = missing  # what the broker did not take in commission makes up for some of it
        paused = scene.look()
        scene.fill(commission=1.0)
    assert "cash has changed" in paused


def test_a_fill_lifts_no_pause_and_agreement_does() -> None:
    scene = Scene()
    scene.foreign = {"A": 3.0}
    scene.look()
    paused = scene.look()
    scene.foreign, scene.missing = {"A": 4.0}, 7.0
    assert scene.look().startswith("the account differs from our ledger: A: 0 by our ledger, 4")
    scene.answers = False
    assert scene.look() != ""
    assert paused != ""
    scene.answers, scene.foreign, scene.missing = True, {}, 0.0
    assert scene.look() == ""


def test_while_the_same_is_wrong_the_reason_stays_as_it_was() -> None:
    scene = Scene()
    scene.missing = 500.0
    for _ in range(4):
        scene.look()
        scene.fill()
    assert len(set(scene.pauses[1:])) == 1


def test_positions_in_the_runs_symbols_that_the_ledger_never_touched_are_differences_and_others_are_not_ours() -> None:
    scene = Scene()
    scene.foreign = {"B": -2.0, "Z": 5.0}
    scene.look()
    assert scene.differences() == ["B: 0 by our ledger, -2 at the broker"]
    assert scene.look().endswith("B: 0 by our ledger, -2 at the broker")


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
    scene.answers = False
    assert scene.look() == ""
    assert scene.events == ["try again later"]


def test_at_the_end_differences_are_given_back_noted_and_written() -> None:
    scene = Scene()
    assert scene.verifier.at_the_end(scene.run, scene.log, strict=True) == []
    scene.foreign = {"A": 1.0}
    wanted = ["A: 0 by our ledger, 1 at the broker"]
    assert scene.verifier.at_the_end(scene.run, scene.log, strict=False) == wanted
    assert (scene.events, scene.differences()) == (wanted, wanted)
    with pytest.raises(NextbarError, match="differ: A: 0 by our ledger, 1 at the broker; please report"):
        scene.verifier.at_the_end(scene.run, scene.log, strict=True)


def test_at_the_end_an_account_that_could_not_be_compared_is_said_and_is_an_error_of_a_replay() -> None:
    scene = Scene()
    scene.answers = False
    (said,) = scene.verifier.at_the_end(scene.run, scene.log, strict=False)
    assert said == "the account was not compared: try again later"
    with pytest.raises(NoAnswer):
        scene.verifier.at_the_end(scene.run, scene.log, strict=True)
