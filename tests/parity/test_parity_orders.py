"""A plain strategy's orders, one kind at a time: same orders, same fills, and the strategy is told the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import backtrader as bt
import pytest
from lockstep import Outcome, Row, assert_parity, daily, minutes
from wishes import Script, Wish, Wishes

COSTS = {"slippage_bps": 20.0, "commission": {"bps": 2.0, "per_share": 0.01, "minimum": 0.5}}
UP: list[Row | float | None] = [100, 100, (100, 106, 99, 105), 105, (105, 112, 104, 110), 110, 110]
DOWN: list[Row | float | None] = [100, 100, (100, 101, 94, 95), 95, (95, 96, 88, 90), 90, 90]
GAP_DOWN: list[Row | float | None] = [100, 100, 100, (90, 91, 89, 90), 90, 90, 90]
THIN: list[Row | float | None] = [100, None, None, (100, 103, 97, 100), None, (99, 101, 95, 98), 98]


def told(outcome: Outcome, kind: str = "order") -> list[tuple[Any, ...]]:
    """What the strategy was told of one kind."""
    return [row[1:] for row in outcome.seen if row[0] == kind]


def ends(outcome: Outcome) -> list[str]:
    """How each order ended."""
    return [str(state[-2]) for state in outcome.states]


# Script, rows of A (and B), how the orders end.
KINDS: dict[str, tuple[Script, dict[str, list[Any]], list[str]]] = {
    "market": ({0: [Wish()], 3: [Wish(kind="close")]}, {"A": UP}, ["filled"] * 2),
    "market day order in a symbol without a bar": ({0: [Wish(symbol=1, day=True)]}, {"A": UP, "B": THIN}, ["expired"]),
    "market order waits for a bar": ({0: [Wish(symbol=1)]}, {"A": UP, "B": THIN}, ["filled"]),
    "limit touched": ({1: [Wish(kind="limit", limit=0.95)]}, {"A": DOWN}, ["filled"]),
    "limit bettered at the open": ({2: [Wish(kind="limit", limit=0.95)]}, {"A": GAP_DOWN}, ["filled"]),
    "limit day order expires": ({1: [Wish(kind="limit", limit=0.9, day=True)]}, {"A": DOWN}, ["expired"]),
    "limit stays": ({1: [Wish(kind="limit", limit=0.5)]}, {"A": DOWN}, ["open"]),
    "stop touched": ({1: [Wish(kind="stop", stop=1.05)]}, {"A": UP}, ["filled"]),
    "stop gapped": (
        {0: [Wish()], 1: [Wish(kind="stop", side=-1, stop=0.95)]}, {"A": GAP_DOWN}, ["filled", "filled"],
    ),
    "stop-limit at its stop": ({1: [Wish(kind="stop_limit", stop=1.05, limit=1.06)]}, {"A": UP}, ["filled"]),
    "stop-limit triggered and not filled": ({1: [Wish(kind="stop_limit", stop=1.05, limit=0.8)]}, {"A": UP}, ["open"]),
    "bracket reaches its target": (
        {0: [Wish(legs="st", leg_stop=0.9, leg_target=1.05)]}, {"A": UP}, ["filled", "canceled", "filled"],
    ),
    "bracket is stopped": ({0: [Wish(legs="st")]}, {"A": DOWN}, ["filled", "filled", "canceled"]),
    "bracket is stopped by a gap": ({0: [Wish(legs="st")]}, {"A": GAP_DOWN}, ["filled", "filled", "canceled"]),
    "bracket, the target given first": ({0: [Wish(legs="ts")]}, {"A": DOWN}, ["filled", "canceled", "filled"]),
    "bracket behind a limit, stopped in its bar": (
        {1: [Wish(kind="limit", limit=0.97, legs="st")]}, {"A": DOWN}, ["filled", "filled", "canceled"],
    ),
    "bracket behind a stop": (
        {1: [Wish(kind="stop", stop=1.02, legs="st", leg_target=1.1)]}, {"A": UP}, ["filled", "canceled", "filled"],
    ),
    "stop alone": ({0: [Wish(legs="s")]}, {"A": DOWN}, ["filled", "filled"]),
    "target alone": ({0: [Wish(legs="t")]}, {"A": UP}, ["filled", "filled"]),
    "stop-limit leg": ({0: [Wish(legs="lt")]}, {"A": DOWN}, ["filled", "filled", "canceled"]),
    "day bracket expires with its session": ({0: [Wish(legs="st", day=True)]}, {"A": UP}, ["filled"] + ["expired"] * 2),
    "day entry expires with its legs": (
        {0: [Wish(kind="limit", limit=0.5, legs="st", day=True)]}, {"A": UP}, ["expired", "canceled", "canceled"],
    ),
    "short bracket": ({0: [Wish(side=-1, legs="st")]}, {"A": DOWN}, ["filled", "canceled", "filled"]),
    "entry cancelled at once": ({0: [Wish(cancel_now=True)]}, {"A": UP}, ["canceled"]),
    "bracket cancelled at once": ({0: [Wish(legs="st", cancel_now=True)]}, {"A": UP}, ["canceled"] * 3),
    "entry cancelled later": (
        {0: [Wish(kind="limit", limit=0.9)], 1: [Wish(kind="cancel")]}, {"A": DOWN}, ["canceled"],
    ),
    "entry with legs cancelled later": (
        {0: [Wish(kind="limit", limit=0.9, legs="st")], 1: [Wish(kind="cancel", which=3)]},
        {"A": DOWN},
        ["canceled"] * 3,
    ),
    "leg cancelled at once": ({0: [Wish(legs="s"), Wish(kind="cancel_leg")]}, {"A": DOWN}, ["filled", "canceled"]),
    "leg cancelled while it waits": (
        {0: [Wish(kind="limit", limit=0.94, legs="st")], 1: [Wish(kind="cancel_leg")]},
        {"A": DOWN},
        ["filled", "canceled", "canceled"],
    ),
    "leg cancelled when it lives": (
        {0: [Wish(legs="s")], 1: [Wish(kind="cancel_leg")]}, {"A": DOWN}, ["filled", "canceled"],
    ),
    "closed in the bar in which the stop is cancelled": (
        {0: [Wish(legs="s")], 1: [Wish(kind="cancel_leg"), Wish(kind="close")]},
        {"A": DOWN},
        ["filled", "canceled", "filled"],
    ),
    "closed while the stop holds the shares": (
        {0: [Wish(legs="s")], 1: [Wish(kind="close"), Wish(kind="cancel_leg")]},
        {"A": DOWN},
        ["filled", "canceled", "rejected"],
    ),
    "given anew after a cancel": (
        {0: [Wish(kind="limit", limit=0.5)], 1: [Wish(kind="cancel"), Wish(kind="limit", limit=0.95)]},
        {"A": DOWN},
        ["canceled", "filled"],
    ),
    "too large": ({0: [Wish(size=100_000)]}, {"A": UP}, ["refused"]),
    "too large, with legs": ({0: [Wish(size=100_000, legs="st")]}, {"A": UP}, ["refused"] * 3),
    "beyond the buying power": (
        {0: [Wish(share=1.0), Wish(kind="limit", share=0.9, limit=1.2, legs="st")]},
        {"A": UP},
        ["filled"] + ["rejected"] * 3,
    ),
    "fractions where there are none": ({0: [Wish(size=1.5)]}, {"A": UP}, ["rejected"]),
    "more than is held": ({0: [Wish()], 1: [Wish(side=-1, size=11)]}, {"A": UP}, ["filled", "rejected"]),
    "cut at the open": (
        {0: [Wish(size=199)]}, {"A": [100, (140, 141, 139, 140), 140]}, ["canceled"],
    ),
    "cut, with legs for what is left": (
        {0: [Wish(size=199, legs="st", leg_stop=0.9, leg_target=1.5)]},
        {"A": [100, (140, 141, 139, 140), (140, 151, 140, 150), 150]},
        ["canceled", "canceled", "filled"],
    ),
    "on the last bar": ({6: [Wish(), Wish(kind="limit", limit=0.9, legs="st")]}, {"A": UP}, ["open"] * 4),
    "on the last bar, and cancelled": ({6: [Wish(), Wish(kind="cancel")]}, {"A": UP}, ["canceled"]),
    "cancelled on the last bar": (
        {2: [Wish(kind="limit", limit=0.5, legs="st")], 6: [Wish(kind="cancel", which=3)]}, {"A": UP}, ["canceled"] * 3,
    ),
    "from a notification": ({0: [Wish(on_fill=True)]}, {"A": UP}, ["filled", "filled"]),
    "from a notification on the last bar": ({5: [Wish(on_fill=True)]}, {"A": UP}, ["filled", "open"]),
    "two symbols at once": (
        {0: [Wish(legs="st"), Wish(symbol=1, side=-1, legs="st")]},
        {"A": UP, "B": DOWN},
        ["filled", "canceled", "filled"] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "rows", "expected"), KINDS.values(), ids=KINDS)
def test_daily_orders(tmp_path: Path, script: Script, rows: dict[str, list[Any]], expected: list[str]) -> None:
    outcome = assert_parity(daily(rows), Wishes, tmp_path, broker={**COSTS, "short": True}, script=script)
    assert ends(outcome) == expected
    filled = [row for row in told(outcome) if row[2] == "Completed"]
    assert len(filled) == expected.count("filled")


def test_short_sales_that_are_off_and_fractions_that_wait(tmp_path: Path) -> None:
    script = {
        0: [Wish(side=-1), Wish(size=1.5), Wish(size=0.25, kind="limit", limit=0.9)],
        2: [Wish(kind="close"), Wish(size=2.0, kind="limit", limit=0.99, legs="st")],
    }
    outcome = assert_parity(daily({"A": DOWN}), Wishes, tmp_path, broker={**COSTS, "fractional": True}, script=script)
    assert ends(outcome)[:4] == ["rejected", "filled", "rejected", "filled"]


def test_day_orders_within_sessions_of_minutes(tmp_path: Path) -> None:
    script = {
        2: [Wish(kind="limit", limit=0.5, day=True, legs="st")],
        3: [Wish(kind="limit", limit=0.5), Wish(legs="st", day=True, leg_stop=0.5, leg_target=1.9)],
        7: [Wish(kind="limit", limit=0.6, day=True)],
        8: [Wish(kind="limit", limit=0.6, day=True)],
    }
    bars = minutes({"A": [100] * 20, "B": [50, None] * 10})
    outcome = assert_parity(bars, Wishes, tmp_path, broker=COSTS, script=script)
    assert ends(outcome) == ["expired", "canceled", "canceled", "open", "filled"] + ["expired"] * 4


def test_interest_on_debts_and_short_positions(tmp_path: Path) -> None:
    script = {0: [Wish(share=1.6), Wish(symbol=1, side=-1, share=0.3)], 5: [Wish(kind="close")]}
    broker = {**COSTS, "short": True, "borrow_rate_pct": 12.0, "margin_rate_pct": 9.0}
    outcome = assert_parity(daily({"A": UP, "B": THIN}), Wishes, tmp_path, broker=broker, script=script)
    assert outcome.ledger.interest_paid > 0.0


def test_a_margin_call_halts(tmp_path: Path) -> None:
    rows = {"A": [100, 100, (70, 71, 60, 60), (60, 60, 55, 55), 55]}
    outcome = assert_parity(
        daily(rows), Wishes, tmp_path, broker=COSTS, script={0: [Wish(share=1.9)], 3: [Wish(size=1)]}
    )
    assert outcome.halted.startswith("margin call")
    assert ends(outcome)[-1] == "refused"


def test_a_halt_cancels_and_closes(tmp_path: Path) -> None:
    script = {0: [Wish(share=0.9, legs="st", leg_stop=0.5)], 1: [Wish(kind="limit", limit=0.4)], 5: [Wish(size=1)]}
    outcome = assert_parity(
        daily({"A": DOWN}), Wishes, tmp_path, broker=COSTS, risk={"max_drawdown_halt": 0.03}, script=script
    )
    assert outcome.halted.startswith("risk.max_drawdown_halt")
    assert ends(outcome) == ["filled", "canceled", "canceled", "canceled", "filled", "refused"]


def test_prices_below_a_dollar_keep_four_places(tmp_path: Path) -> None:
    rows = {"A": [0.9871, (0.9871, 1.01, 0.955, 0.999), (0.999, 1.0499, 0.9, 0.95), 0.95, 0.95]}
    script = {0: [Wish(kind="limit", limit=0.97777, legs="st")], 2: [Wish(kind="stop", stop=1.000009)]}
    outcome = assert_parity(daily(rows), Wishes, tmp_path, broker=COSTS, script=script)
    assert outcome.orders[0].limit_price == 0.9652
    assert ends(outcome)[0] == "filled"


@pytest.mark.parametrize("symbol", ["abc", "BRK.B", "BRK/B", "A&B", "ÄÖ", "^GSPC", "S" * 40])
def test_symbols_of_every_spelling(tmp_path: Path, symbol: str) -> None:
    script = {0: [Wish()], 2: [Wish(kind="close")]}
    outcome = assert_parity(daily({symbol: UP}), Wishes, tmp_path, warmup=1, script=script)
    assert ends(outcome) == ["filled", "filled"]


# --- where the two do not agree yet ----------------------------------------------------------------------------------


class OddLegs(Wishes):
    """Legs as a strategy may give them and Alpaca does not take them: ``legs`` of a wish names what is odd."""

    def protect(self, wish: Wish, entry: Any) -> None:
        close = entry.data.close[0]
        common = {"data": entry.data, "size": wish.size, "parent": entry}
        if wish.legs == "gtc behind a day order":
            self.keep(self.sell(exectype=bt.Order.Stop, price=close * 0.9, **common))
        elif wish.legs == "target below the stop":
            self.keep(self.sell(exectype=bt.Order.Stop, price=close * 1.05, **common))
            self.keep(self.sell(exectype=bt.Order.Limit, price=close * 1.02, **common))


ONCE_DIFFERENT = [
    pytest.param(
        {"A": [100, 100, 100, (100, 100, 80, 85), 85]},
        {0: [Wish(day=True, legs="gtc behind a day order")]},
        {"strategy": OddLegs},
        id="a gtc leg behind a day entry",
    ),
    pytest.param(
        {"A": [100, 100, 100]},
        {0: [Wish(legs="target below the stop")]},
        {"strategy": OddLegs},
        id="a target below its stop",
    ),
    pytest.param(
        {"A": [100, 100, 100, (94, 94.8, 93, 94), 94]},
        {0: [Wish()], 1: [Wish(kind="stop_limit", side=-1, stop=0.95, limit=0.945)]},
        {},
        id="a stop-limit that a gap triggered fills at its limit in the same bar",
    ),
    pytest.param(
        {"A": [100, (100, 105, 100, 100), (103, 103.5, 102, 103), 103]},
        {0: [Wish(kind="stop_limit", stop=1.05, limit=1.04)]},
        {},
        id="a stop-limit fills in a later bar than the one that triggered it",
    ),
    pytest.param(
        {"A": [100, (100, 100, 90, 92), 92]},
        {0: [Wish(kind="limit", limit=0.95, legs="s", leg_stop=0.96)]},
        {},
        id="a stop above its entry's limit",
    ),
    pytest.param(
        {"A": [100, 100, (100, 106, 100, 100), 100], "B": [100, 100, (100, 106, 94, 100), 100]},
        {0: [Wish(legs="st", late=True), Wish(symbol=1, kind="limit", limit=0.95)]},
        {},
        id="legs given after another entry",
    ),
    pytest.param(
        {"A": [100, 100, (93, 94, 93, 94), 108, 108]},
        {0: [Wish(legs="tl", leg_stop=0.95, leg_target=1.0799)]},
        {},
        id="a target given before a stop-limit",
    ),
    pytest.param(
        {"A": [100, 100, 100]},
        {0: [Wish(kind="limit", limit=0.5)]},
        {"at_stop": "cancel"},
        id="cancelled in stop()",
    ),
    pytest.param(
        {"A": [100] * 8},
        {step: [Wish(size=1)] for step in range(6)},
        {"risk": {"max_orders_per_minute": 3}},
        id="max_orders_per_minute",
    ),
]


@pytest.mark.parametrize(("rows", "script", "more"), ONCE_DIFFERENT)
def test_where_the_two_once_differed(
    tmp_path: Path, rows: dict[str, list[Any]], script: Script, more: dict[str, Any]
) -> None:
    given = {"strategy": Wishes, **more}
    assert_parity(daily(rows), given.pop("strategy"), tmp_path, broker=COSTS, script=script, **given)


class Pairs(Wishes):
    """Gives two exits of which one cancels the other, without a bracket."""

    def next(self) -> None:
        super().next()
        if self.step == 2:
            first = self.keep(self.sell(size=10, exectype=bt.Order.Limit, price=104))
            self.keep(self.sell(size=10, exectype=bt.Order.Stop, price=90, oco=first))


def test_a_pair_of_orders_that_cancel_one_another_is_turned_down_and_said_to_be(tmp_path: Path) -> None:
    """Alpaca knows no such pairs. A backtest takes them, and says that paper trading would not."""
    with pytest.raises(AssertionError):
        assert_parity(daily({"A": UP}), Pairs, tmp_path, broker=COSTS, script={0: [Wish()]})
