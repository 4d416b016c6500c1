"""Whatever the bars, the orders and the account: a replay over real sockets is the backtest, to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lockstep import Row, assert_parity, daily, minutes
from wishes import Wish, Wishes

from engine.config import BrokerConfig, RiskConfig
from engine.trading.costs import Costs
from strategies.rule import Context, Floats, Rule
from strategies.runner import RuleStrategy

STEPS = 40


@st.composite
def prices(draw: st.DrawFn) -> list[Row | None]:
    """A walk on the tick, wild enough for gaps and touches, with missing bars, a late start and an early end."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    price = draw(st.sampled_from([100.0, 37.5, 1.02, 0.35]))
    volatility = draw(st.sampled_from([0.01, 0.03, 0.0]))
    first, last = draw(st.sampled_from([(0, STEPS), (0, STEPS), (7, STEPS), (0, 29), (15, 25)]))
    missing = draw(st.sampled_from([0.0, 0.0, 0.2, 0.5]))
    rows: list[Row | None] = []
    for step in range(STEPS):
        moves = np.exp(random.normal(0.0, volatility, 4)) * price
        bar = [_tick(move) for move in moves]
        price = max(bar[3], 0.05)
        there = first <= step < last and random.random() >= missing
        rows.append((bar[0], max(bar), min(bar), bar[3]) if there else None)
    if not any(rows):
        rows[first] = (price,) * 4
    return rows


def _tick(price: float) -> float:
    return max(0.01, round(price, 2 if price >= 1.0 else 4))


AWAY = st.sampled_from([0.9, 0.97, 0.99, 1.0, 1.01, 1.03, 1.1])
KINDS = ["market", "market", "limit", "stop", "stop_limit", "close", "cancel", "cancel_leg"]
LEGS = ["", "", "s", "t", "l", "st", "lt"]
ANY: dict[str, Any] = {
    "kind": st.sampled_from(KINDS),
    "legs": st.sampled_from([*LEGS, "ts", "tl"]),
    "late": st.booleans(),
}
WISHES: dict[str, Any] = {
    "symbol": st.integers(0, 2),
    "side": st.sampled_from([1, 1, -1]),
    "size": st.sampled_from([1.0, 1.0, 1.0, 0.5]),
    "share": st.sampled_from([0.1, 0.02, 0.05, 0.1, 0.2, 0.2, 0.5, 1.0, 1.7, 0.0]),
    "limit": AWAY,
    "stop": AWAY,
    "day": st.booleans(),
    "leg_stop": st.sampled_from([0.9, 0.97, 0.99]),
    "leg_target": st.sampled_from([1.01, 1.03, 1.1]),
    "which": st.integers(1, 4),
    "cancel_now": st.sampled_from([False, False, False, True]),
    "on_fill": st.sampled_from([False, False, True]),
}


def scripts(kinds: dict[str, Any]) -> st.SearchStrategy[dict[int, list[Wish]]]:
    """What is ordered at which step."""
    drawn = st.lists(st.builds(Wish, **WISHES, **kinds), min_size=1, max_size=4)
    return st.dictionaries(st.integers(0, STEPS - 1), drawn, min_size=4, max_size=30)


@st.composite
def accounts(draw: st.DrawFn) -> dict[str, Any]:
    """A broker section of a run file."""
    margin = draw(st.sampled_from([True, True, False]))
    return {
        "cash": draw(st.sampled_from([10_000.0, 2_500.0])),
        "account": "margin" if margin else "cash",
        "short": margin and draw(st.booleans()),
        "fractional": draw(st.booleans()),
        "slippage_bps": draw(st.sampled_from([0.0, 3.0, 150.0])),
        "commission": {
            "bps": draw(st.sampled_from([0.0, 1.7, 50.0])),
            "per_share": draw(st.sampled_from([0.0, 0.0035])),
            "minimum": draw(st.sampled_from([0.0, 1.0])),
        },
        "borrow_rate_pct": draw(st.sampled_from([0.0, 3.0])),
        "margin_rate_pct": draw(st.sampled_from([0.0, 6.5])),
    }


risks = st.fixed_dictionaries(
    {
        "max_position": st.sampled_from([None] * 5 + [0.3]),
        "max_gross": st.sampled_from([2.0, 2.0, 2.0, 1.0]),
        "max_drawdown_halt": st.sampled_from([None] * 4 + [0.05, 0.2]),
        "max_daily_loss_halt": st.sampled_from([None] * 4 + [0.02, 0.1]),
        "max_order_notional": st.sampled_from([None] * 5 + [1500.0]),
        "price_collar": st.sampled_from([None] * 5 + [0.02]),
        "symbols": st.sampled_from([None] * 5 + [["A", "C"]]),
    }
)
markets = st.lists(prices(), min_size=1, max_size=3).map(lambda own: dict(zip("ABC", own, strict=False)))
clocks = st.sampled_from([daily, daily, minutes])
warmups = st.sampled_from([0, 0, 5])

Market = Mapping[str, Sequence[Row | None]]


def check_script(folder: Path, market: Market, clock: Any, warmup: int, script: Any, broker: Any, risk: Any) -> None:
    bars = clock(market)
    # Every symbol is there from the first day or comes later; the first step needs a bar of some symbol.
    assert_parity(bars, Wishes, folder, warmup=_there(market, warmup), broker=broker, risk=risk, script=script)


def _there(market: Market, warmup: int) -> int:
    """As many warm-up steps as there can be."""
    steps = sum(any(own[step] is not None for own in market.values()) for step in range(STEPS))
    return min(warmup, steps - 1)


class DrawnParams(NamedTuple):
    min_change: float = 0.0


class DrawnRule(Rule):
    """Wants what was drawn: row by row targets of all symbols."""

    Params = DrawnParams
    signals = ("close",)
    drawn: list[list[float]]
    step: int

    def lines(self, data: Any) -> list[Any]:
        return [data.close]

    def targets(self, signals: Floats, weights: Floats, bars_held: Floats, params: Any) -> Floats:  # type: ignore[override]
        wanted = self.drawn[self.step % len(self.drawn)]
        self.step += 1
        return np.array([wanted[i % len(wanted)] for i in range(len(weights))])


class Ruled(RuleStrategy):
    """A rule's strategy that writes down its account."""

    params = (("seen", None), ("drawn", None), ("context", None))

    def __init__(self) -> None:
        self.p.rule = DrawnRule({}, self.p.context)
        self.p.rule.drawn, self.p.rule.step = self.p.drawn, 0
        super().__init__()

    def next(self) -> None:
        super().next()
        self.p.seen.append((self._weights.tolist(), self.broker.getcash(), self.broker.getvalue()))

    def notify_order(self, order: Any) -> None:
        self.p.seen.append((order.data._name, order.getstatusname(), order.executed.size, order.executed.price))


def check_rule(folder: Path, market: Market, clock: Any, warmup: int, drawn: Any, broker: Any, risk: Any) -> None:
    section = BrokerConfig.model_validate(broker)
    context = Context(
        costs=Costs.of(section),
        account=section.account,
        max_gross=RiskConfig.model_validate(risk).max_gross,
        fractional=section.fractional,
        short=section.short,
    )
    assert_parity(
        clock(market),
        Ruled,
        folder,
        warmup=_there(market, warmup),
        broker=broker,
        risk=risk,
        drawn=drawn,
        context=context,
    )


targets = st.lists(
    st.lists(st.sampled_from([0.0, 0.0, 0.2, 0.5, 1.0, -0.3, float("nan")]), min_size=3, max_size=3),
    min_size=3,
    max_size=12,
)
QUICK: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where journals are put."""
    return tmp_path_factory.mktemp("journals")


@settings(max_examples=26, **QUICK)
@given(markets, clocks, warmups, scripts(ANY), accounts(), risks)
def test_scripted_orders(
    folder: Path, market: Any, clock: Any, warmup: int, script: Any, broker: Any, risk: Any
) -> None:
    check_script(folder, market, clock, warmup, script, broker, risk)


@settings(max_examples=10, **QUICK)
@given(markets, clocks, warmups, targets, accounts(), risks)
def test_targets_of_a_rule(
    folder: Path, market: Any, clock: Any, warmup: int, drawn: Any, broker: Any, risk: Any
) -> None:
    check_rule(folder, market, clock, warmup, drawn, broker, risk)


@pytest.mark.soak
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(markets, clocks, warmups, scripts(ANY), accounts(), risks)
def test_many_scripted_orders(
    folder: Path, market: Any, clock: Any, warmup: int, script: Any, broker: Any, risk: Any
) -> None:
    check_script(folder, market, clock, warmup, script, broker, risk)


@pytest.mark.soak
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(markets, clocks, warmups, targets, accounts(), risks)
def test_many_targets(folder: Path, market: Any, clock: Any, warmup: int, drawn: Any, broker: Any, risk: Any) -> None:
    check_rule(folder, market, clock, warmup, drawn, broker, risk)
