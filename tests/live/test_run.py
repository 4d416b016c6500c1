"""What a run does when the broker is quicker, slower or of another mind than a backtest's venue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from rig import MemoryDesk, config, utc
from test_venue import MemoryLog

from engine.config import BrokerConfig, RiskConfig
from engine.data.bars import Bars
from engine.live.desk import LATE
from engine.live.rest import NoAnswer
from engine.live.run import LiveRun, Plan
from engine.live.sources import Arrived
from engine.trading.orders import Order
from strategies.rule import Context, Rule
from strategies.runner import RuleStrategy

START, MINUTE = utc("2024-01-02 10:00"), 60_000_000_000
CASH = 100_000.0
HALT = RiskConfig(max_drawdown_halt=0.05)


def history() -> Bars:
    times = pd.date_range("2024-01-02 14:40", periods=9, freq="min", tz="UTC").as_unit("ns").rename("time")
    frame = pd.DataFrame(100.0, index=times, columns=["open", "high", "low", "close", "volume"])
    return Bars(frames={"A": frame}, timeframe="1m", adjustment="none", source="test")


def market_fills(price: float = 100.0) -> Callable[[int, MemoryDesk], None]:
    """Fills every market order before the next bar."""

    def before(number: int, desk: MemoryDesk) -> None:
        for order, _, _ in desk.sent:
            if order.type == "market":
                desk.tell(f"r{order.id}", "fill", order.quantity, price)
        desk.sent = [sent for sent in desk.sent if sent[0].type != "market"]

    return before


def play(
    strategy: type[bt.Strategy],
    prices: Sequence[float | None],
    desk: MemoryDesk,
    *,
    before: Callable[[int, MemoryDesk], None] | None = None,
    after: Callable[[], None] = lambda: None,
    between: Callable[[LiveRun, int], None] = lambda run, number: None,
    is_late: Callable[[Order], bool] = lambda order: False,
    risk: RiskConfig | None = None,
    ends_when_halted: bool = False,
    **arguments: Any,
) -> tuple[LiveRun, MemoryLog]:
    """Run over minutes of these prices; None is a step without a bar."""
    log = MemoryLog()
    desk.log = log.entries
    step = before or market_fills()

    class Source:
        def __iter__(self) -> Iterator[Arrived]:
            last = START
            for number, price in enumerate(prices):
                step(number, desk)
                if price is None:
                    yield Arrived(last, {}, False, 0)
                else:
                    last = START + number * MINUTE
                    yield Arrived(last, {"A": (price, price, price, price, 1_000.0)}, True, 0)
                between(run, number)
            after()

    plan = Plan(
        run="run",
        venue="test",
        strategy=strategy,
        arguments=arguments,
        history=history(),
        broker=BrokerConfig(cash=CASH),
        risk=risk or RiskConfig(),
        ends_when_halted=ends_when_halted,
    )
    run = LiveRun(plan, source=Source(), desk=desk, log=log, is_late=is_late)
    run.run()
    return run, log


def held(run: LiveRun) -> float:
    return run.venue.ledger.quantity("A")


class Scripted(bt.Strategy):
    """Does at its bar n what ``script[n]`` says, and keeps the position that it is shown."""

    params = (("script", {}),)

    def __init__(self) -> None:
        self.shown: list[float] = []
        self.told: list[str] = []

    def next(self) -> None:
        self.shown.append(self.position.size)
        self.p.script.get(len(self), lambda strategy: None)(self)

    def notify_order(self, order: Any) -> None:
        self.told.append(order.getstatusname())


def strategy_of(run: LiveRun) -> Scripted:
    """The strategy of a run, to be asked afterwards."""
    return run._strategy  # type: ignore[no-any-return]


def keep(name: str, give: Callable[[Any], Any]) -> Callable[[Any], None]:
    return lambda strategy: setattr(strategy, name, give(strategy))


def test_a_close_that_a_fill_has_overtaken_is_not_sent() -> None:
    """Stop cancelled and position closed in one decision, and the stop was quicker: nothing may be sold twice."""
    desk = MemoryDesk()
    desk.withdraw = lambda remote: desk.tell(remote, "fill", 10.0, 95.0)  # type: ignore[method-assign]
    stop = keep("stop_order", lambda s: s.sell(size=10, exectype=bt.Order.Stop, price=95.0))

    def leave(strategy: Any) -> None:
        strategy.cancel(strategy.stop_order)
        strategy.close()

    run, log = play(Scripted, [100.0] * 6, desk, script={1: lambda s: s.buy(size=10), 3: stop, 4: leave})
    assert held(run) == 0.0
    assert len([kind for kind, _ in desk.log if kind == "sent"]) == 2
    assert log.of("ended")[-1]["reason"] == "overtaken by a fill: 0 were left to close"
    assert strategy_of(run).shown == [0, 10, 10, 10, 0, 0]
    assert strategy_of(run).told[-1] == "Canceled"


def test_a_strategy_sees_the_position_of_a_fill_that_overtook_its_cancel() -> None:
    desk = MemoryDesk()
    desk.withdraw = lambda remote: desk.tell(remote, "fill", 10.0, 99.0)  # type: ignore[method-assign]
    script = {
        1: keep("entry", lambda s: s.buy(size=10, exectype=bt.Order.Limit, price=99.0)),
        3: lambda s: s.cancel(s.entry),
        5: lambda s: None if s.position else s.buy(size=10),
    }
    run, _ = play(Scripted, [100.0] * 7, desk, script=script)
    assert strategy_of(run).shown == [0, 0, 0, 10, 10, 10, 10]
    assert held(run) == 10.0
    assert run.venue.ledger.positions["A"].average_price == 99.0


def bracket(strategy: Any) -> None:
    entry = strategy.buy(size=300)
    strategy.sell(size=300, exectype=bt.Order.Stop, price=81.0, parent=entry)
    strategy.sell(size=300, exectype=bt.Order.Limit, price=200.0, parent=entry)


def test_a_halt_while_the_protective_stop_fills_ends_flat_and_not_short() -> None:
    desk = MemoryDesk()

    def withdraw(remote: str) -> None:
        desk.withdrawn.append(remote)
        desk.tell(remote, *(("fill", 300.0, 81.0) if remote == "r2" else ("canceled",)))  # type: ignore[arg-type]

    desk.withdraw = withdraw  # type: ignore[method-assign]
    run, _ = play(
        Scripted, [100.0, 100.0, 100.0, *[80.0] * 5], desk, risk=HALT, ends_when_halted=True, script={1: bracket}
    )
    assert run.halted
    assert held(run) == 0.0
    # The target that ends with its stop holds shares at the broker, too.
    assert desk.withdrawn == ["r2", "r3"]
    assert [order.id for order, _, _ in desk.sent] == []
    assert run.steps == 4


def test_a_halt_closes_again_what_the_broker_did_not_close() -> None:
    desk = MemoryDesk()
    fills = market_fills(80.0)

    def before(number: int, desk: MemoryDesk) -> None:
        desk.refuse = "insufficient qty available" if number == 3 else ""
        fills(number, desk)

    run, log = play(
        Scripted,
        [100.0, 100.0, 100.0, 80.0, 80.0, 80.0, 80.0],
        desk,
        before=before,
        risk=HALT,
        ends_when_halted=True,
        script={1: lambda s: s.buy(size=300)},
    )
    assert len(log.of("turned_down")) == 1
    assert [intent["side"] for intent in log.of("intent")] == ["buy", "sell", "sell"]
    assert held(run) == 0.0
    assert run.steps == 6


def test_a_halt_goes_on_closing_where_a_cancel_is_not_confirmed() -> None:
    desk = MemoryDesk()

    def withdraw(remote: str) -> None:
        raise NoAnswer("the broker does not say how the order ended")

    desk.withdraw = withdraw  # type: ignore[method-assign]
    run, log = play(Scripted, [100.0, 100.0, 100.0, 80.0, 80.0, 80.0], desk, risk=HALT, script={1: bracket})
    assert log.of("withdrawal_failed")[0]["order"] == 2
    assert held(run) == 0.0


# --- what the broker does not answer -------------------------------------------------------------------------------

SILENT = "the broker says nothing"


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_a_broker_that_says_nothing_ends_no_run_and_gets_each_order_once(fault: str) -> None:
    desk = MemoryDesk()
    desk.faults.extend([fault, "lost", "lost"])
    run, log = play(Scripted, [100.0, None, None, None, *[100.0] * 3], desk, script={1: lambda s: s.buy(size=10)})
    looked = [what for what, _ in desk.asked]
    assert looked == ["send", "find", "find", "find", *(["send"] if fault == "lost" else [])]
    assert held(run) == 10.0
    assert len(log.of("ack")) == 1
    assert [(pause["source"], pause["reason"]) for pause in log.of("pause")] == [("broker", SILENT), ("broker", "")]
    assert run.sent == 1
    assert strategy_of(run).told.count("Completed") == 1


def test_while_something_is_deferred_entries_are_refused_with_the_reason_and_exits_are_not() -> None:
    desk = MemoryDesk()

    def before(number: int, desk: MemoryDesk) -> None:
        if number in (2, 3, 4):
            desk.faults.append("lost")
        market_fills()(number, desk)

    script = {
        1: lambda s: s.buy(size=10),
        3: lambda s: s.buy(size=1, exectype=bt.Order.Limit, price=50.0),  # nobody answers to it
        4: lambda s: (s.buy(size=2), s.close()),
        7: lambda s: s.buy(size=3),
    }
    run, log = play(Scripted, [100.0] * 9, desk, before=before, script=script)
    by_size = {intent["quantity"]: intent for intent in log.of("intent") if intent["side"] == "buy"}
    assert (by_size[2.0]["status"], by_size[2.0]["reason"]) == ("refused", SILENT)
    assert [by_size[size]["status"] for size in (10.0, 1.0, 3.0)] == ["accepted"] * 3
    assert [intent["status"] for intent in log.of("intent") if intent["side"] == "sell"] == ["accepted"]
    assert held(run) == 3.0
    assert run.paused == ""
    assert f"buy 2 A refused: {SILENT}" in run.events


def test_an_entry_whose_bar_is_over_is_turned_down_and_its_strategy_is_told() -> None:
    desk = MemoryDesk()
    desk.faults.append("lost")
    run, log = play(Scripted, [100.0] * 4, desk, script={1: lambda s: s.buy(size=10)}, is_late=lambda order: True)
    assert (held(run), desk.sent, run.sent) == (0.0, [], 0)
    assert run.turned_down == 1
    assert strategy_of(run).told[-1] == "Canceled"
    assert log.of("ended")[-1]["reason"] == f"turned down by the broker: {LATE}"


def test_an_exit_that_nobody_answered_to_is_sent_however_late() -> None:
    desk = MemoryDesk()

    def before(number: int, desk: MemoryDesk) -> None:
        if number == 2:
            desk.faults.append("lost")
        market_fills()(number, desk)

    script = {1: lambda s: s.buy(size=10), 3: lambda s: s.close()}
    run, _ = play(Scripted, [100.0] * 6, desk, before=before, script=script, is_late=lambda order: True)
    assert (held(run), run.sent) == (0.0, 2)


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_a_strategy_may_cancel_what_nobody_has_answered_to(fault: str) -> None:
    desk = MemoryDesk()
    desk.faults.extend([fault, "lost"])
    script = {
        1: keep("entry", lambda s: s.buy(size=10, exectype=bt.Order.Limit, price=99.0)),
        2: lambda s: s.cancel(s.entry),
    }
    run, _ = play(Scripted, [100.0] * 6, desk, script=script)
    assert desk.withdrawn == (["r1"] if fault == "taken" else [])
    assert strategy_of(run).told[-1] == "Canceled"
    assert (run.venue.waiting, run.venue.has_outgoing, held(run)) == ([], False, 0.0)


@pytest.mark.parametrize("fault", ["lost", "taken"])
def test_a_halted_run_ends_only_once_its_close_is_known_to_be_filled(fault: str) -> None:
    desk = MemoryDesk()

    def before(number: int, desk: MemoryDesk) -> None:
        if number == 3:
            desk.faults.extend([fault, "lost"])
        market_fills(80.0)(number, desk)

    run, log = play(
        Scripted,
        [100.0, 100.0, 100.0, 80.0, None, None, None, None],
        desk,
        before=before,
        risk=HALT,
        ends_when_halted=True,
        script={1: lambda s: s.buy(size=300)},
    )
    assert run.halted
    assert held(run) == 0.0
    assert [intent["side"] for intent in log.of("intent")] == ["buy", "sell"]
    assert run.venue.waiting == []


# --- pauses and halts from outside ---------------------------------------------------------------------------------


def test_entries_are_paused_as_long_as_one_source_says_so() -> None:
    pauses = {
        1: [("person", "lunch"), ("account", "cash is off")],
        2: [("account", ""), ("account", "")],
        3: [("person", "")],
    }

    def after(run: LiveRun, number: int) -> None:
        for source, reason in pauses.get(number, []):
            run.pause(source, reason)

    script = {number: lambda s: s.buy(size=10) for number in (1, 2, 3, 4, 5)}
    _, log = play(Scripted, [100.0] * 6, MemoryDesk(), between=after, script=script)
    assert [intent["reason"] for intent in log.of("intent")] == ["", "", "lunch; cash is off", "lunch", ""]
    assert len(log.of("pause")) == 4  # what is so already is not said again


def test_a_halt_that_ends_ends_a_run_that_would_go_on() -> None:
    def after(run: LiveRun, number: int) -> None:
        if number == 2:
            run.halt("a person killed it", ends=True)

    run, log = play(Scripted, [100.0] * 20, MemoryDesk(), between=after, script={1: lambda s: s.buy(size=10)})
    assert held(run) == 0.0
    assert run.steps == 4
    assert [(halt["reason"], halt["outside"], halt["ends"]) for halt in log.of("halt")] == [
        ("a person killed it", True, True)
    ]


def test_a_run_that_is_halted_already_ends_once_it_is_killed() -> None:
    def after(run: LiveRun, number: int) -> None:
        if number == 6:
            run.halt("a person killed it", ends=True)

    run, _ = play(
        Scripted, [100.0, 100.0, 100.0, *[80.0] * 20], MemoryDesk(), between=after, risk=HALT,
        before=market_fills(80.0), script={1: lambda s: s.buy(size=300)},
    )  # fmt: skip
    assert run.halted.startswith("risk.max_drawdown_halt")
    assert run.steps == 8


def test_positions_that_were_closed_in_the_runs_name_are_closed_once() -> None:
    desk = MemoryDesk()
    orders = [{"broker_id": "k1", "symbol": "A", "side": -1, "quantity": 10.0, "decided": START + 2 * MINUTE}]

    def after(run: LiveRun, number: int) -> None:
        if number == 2:
            desk.tell("k1", "fill", 10.0, 98.0)
            run.take_over(orders)
            run.halt("a person killed it", ends=True)

    run, log = play(Scripted, [100.0] * 8, desk, between=after, script={1: lambda s: s.buy(size=10)})
    assert held(run) == 0.0
    assert [order.id for order, _, _ in desk.sent] == []
    assert [intent["side"] for intent in log.of("intent")] == ["buy"]
    assert [(fill["order"], fill["price"]) for fill in log.of("fill")] == [(1, 100.0), (-1, 98.0)]
    assert desk.withdrawn == []
    assert run.steps == 4


def test_a_strategy_sees_the_position_that_somebody_elses_trades_have_made() -> None:
    trades = [{"symbol": "A", "side": -1, "quantity": 4.0, "price": 99.0}]

    def after(run: LiveRun, number: int) -> None:
        if number == 2:
            run.adopt(trades)

    run, _ = play(Scripted, [100.0] * 6, MemoryDesk(), between=after, script={1: lambda s: s.buy(size=10)})
    assert strategy_of(run).shown == [0, 10, 10, 6, 6, 6]
    assert held(run) == 6.0


def test_a_run_is_not_over_while_a_fill_may_still_come() -> None:
    """Halted, its limit order cancelled, and the fill of it unread: the shares are closed before the run ends."""
    desk = MemoryDesk()
    desk.withdraw = lambda remote: desk.tell(remote, "fill", 100.0, 85.0)  # type: ignore[method-assign]
    script = {
        1: lambda s: s.buy(size=300),
        3: lambda s: s.buy(size=100, exectype=bt.Order.Limit, price=85.0),
    }
    prices = [100.0, 100.0, 100.0, 80.0, 80.0, 80.0, 80.0]
    run, _ = play(Scripted, prices, desk, before=market_fills(80.0), risk=HALT, ends_when_halted=True, script=script)
    assert held(run) == 0.0
    assert desk.updates == []


def test_what_comes_between_bars_is_booked_after_the_bar_that_decided_it() -> None:
    """A halted run with a mute feed ends, and every fill is after its decision."""
    run, log = play(
        Scripted,
        [100.0, 100.0, 100.0, 80.0, None, None],
        MemoryDesk(),
        before=market_fills(80.0),
        risk=HALT,
        ends_when_halted=True,
        script={1: lambda s: s.buy(size=300)},
    )
    assert held(run) == 0.0
    assert all(fill["time"] > fill["decided"] for fill in log.of("fill"))
    assert [entry["time"] for entry in log.of("bars")] == [START + number * MINUTE for number in range(4)]
    assert log.of("settled")[0]["time"] == START + 3 * MINUTE + 1_000_000


def test_a_fill_that_came_before_a_stop_is_booked() -> None:
    desk = MemoryDesk()
    run, log = play(
        Scripted, [100.0] * 3, desk, after=lambda: market_fills()(0, desk), script={3: lambda s: s.buy(size=10)}
    )
    assert held(run) == 10.0
    assert len(log.of("fill")) == 1


@pytest.mark.parametrize("pieces", [(4.0, 6.0), (1.0, 2.0, 3.0, 4.0), (0.1, 0.2, 9.7)])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_order_that_is_filled_in_pieces_is_completed_by_the_last_one(pieces: Sequence[float], at_once: bool) -> None:
    desk = MemoryDesk()

    def before(number: int, desk: MemoryDesk) -> None:
        now = pieces if at_once and number == 2 else pieces[number - 2 : number - 1] if not at_once else ()
        for piece in now if number >= 2 else ():
            last = piece == pieces[-1]
            desk.tell("r1", "fill" if last else "partial_fill", piece, 90.0 + piece)

    class Hears(Scripted):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[float] = []

        def notify_order(self, order: Any) -> None:
            super().notify_order(order)
            self.sizes.append(order.executed.size)

    run, _ = play(Hears, [100.0] * 8, desk, before=before, script={1: lambda s: s.buy(size=10)})
    strategy: Any = strategy_of(run)
    filled = [(told, size) for told, size in zip(strategy.told, strategy.sizes, strict=True) if size]
    assert [told for told, _ in filled] == ["Partial"] * (len(pieces) - 1) + ["Completed"]
    assert [size for _, size in filled] == pytest.approx(list(np.cumsum(pieces)))
    assert held(run) == pytest.approx(10.0)


def test_an_order_that_is_filled_in_part_and_ended_in_one_step_is_not_completed() -> None:
    desk = MemoryDesk()

    def before(number: int, desk: MemoryDesk) -> None:
        if number == 2:
            desk.tell("r1", "partial_fill", 4.0, 99.0)
            desk.tell("r1", "partial_fill", 1.0, 99.0)
            desk.tell("r1", "canceled")

    run, _ = play(Scripted, [100.0] * 4, desk, before=before, script={1: lambda s: s.buy(size=10)})
    assert strategy_of(run).told[-3:] == ["Partial", "Partial", "Canceled"]
    assert held(run) == 5.0


def test_an_order_that_was_changed_at_the_broker_is_followed() -> None:
    desk = MemoryDesk()

    def before(number: int, desk: MemoryDesk) -> None:
        if number == 2:
            desk.tell("r1", "partial_fill", 4.0, 99.0)
            desk.tell("r1", "replaced")
            desk.updates[-1]["order"]["replaced_by"] = "another"
        if number == 3:
            desk.tell("another", "fill", 6.0, 98.0)

    script = {1: lambda s: s.buy(size=10, exectype=bt.Order.Limit, price=99.0)}
    run, log = play(Scripted, [100.0] * 5, desk, before=before, script=script)
    assert held(run) == 10.0
    assert [(fill["quantity"], fill["price"]) for fill in log.of("fill")] == [(4.0, 99.0), (6.0, 98.0)]
    assert run.venue.waiting == []


class WantParams(NamedTuple):
    min_change: float = 0.02


class Want(Rule):
    """Half the equity while the price is above 90."""

    Params = WantParams
    signals = ("close",)

    def lines(self, data: Any) -> Sequence[Any]:
        return [data.close]

    @staticmethod
    def targets(signals: Any, weights: Any, bars_held: Any, params: Any) -> Any:
        return np.where(signals[:, 0] > 90.0, 0.5, 0.0)


@pytest.mark.parametrize("event", ["refused", "expired", "rejected"])
def test_a_rule_tries_again_what_the_broker_did_not_do(event: str) -> None:
    desk = MemoryDesk()
    fills = market_fills()

    def before(number: int, desk: MemoryDesk) -> None:
        if event == "refused":
            desk.refuse = "temporarily halted" if number == 3 else ""
        elif number == 4:
            order = desk.sent.pop()[0]
            desk.tell(f"r{order.id}", event)
        fills(number, desk)

    rule = Want({}, Context.of(config(symbols=("A",)), None))
    run, log = play(RuleStrategy, [100.0, 100.0, 100.0, *[80.0] * 5], desk, before=before, rule=rule)
    assert held(run) == 0.0
    assert [intent["side"] for intent in log.of("intent")] == ["buy", "sell", "sell"]
    assert log.of("decision")[-1]["weights"] == [0.0]
