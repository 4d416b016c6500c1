"""Clocks that run by themselves: order of matching and showing, pauses, and when they begin."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pandas as pd
import pytest

from engine.data.bars import Bars
from engine.exchange import pace
from engine.exchange.account import AccountSpec
from engine.exchange.exchange import Exchange
from engine.exchange.market import Market
from tests.exchange.floor import Floor, broker, days, events, flat, frame, minutes


def until_done(floor: Floor) -> dict[str, Any]:
    for _ in range(100_000):
        status: dict[str, Any] = floor.get("/nextbar/status")
        if status["done"]:
            return status
    raise AssertionError("the clock never reached the last bar")


def test_as_fast_as_possible_to_the_last_bar_with_nothing_lost() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 390}), speed=math.inf) as floor:
        data, updates = floor.data(), floor.updates()  # listening begins the clock
        status = until_done(floor)
        assert (status["mode"], status["speed"], status["bars"]) == ("accelerated", "inf", 0)
        data.close()
        updates.close()


def test_orders_fill_in_accelerated_time_and_every_bar_arrives() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 390}), speed=6_000.0) as floor:  # 10 ms a bar
        data, updates = floor.data(bars=["*"]), floor.updates()
        made = floor.order()
        fill = events(updates, 3)[2]
        assert (fill["event"], fill["order"]["id"], fill["price"]) == ("fill", made["id"], "100")
        bars = [bar["t"].seconds for _ in range(10) for bar in frame(data)]
        assert bars == sorted(bars)
        assert floor.get("/nextbar/status")["mode"] == "accelerated"


def test_the_wall_clocks_pace_says_so() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 3}), speed=1.0) as floor:
        assert floor.get("/nextbar/status")["mode"] == "wall-clock"
        assert floor.get("/nextbar/status")["speed"] == 1.0


def pauses(bars: Bars) -> list[float]:
    """Simulated seconds before each step after the first bar."""
    times = sorted({time for frame_ in bars.frames.values() for time in frame_.index})
    market = Market(bars, times[1])
    now, found = market.opening, []
    for number in range(len(market)):
        found.append(market.pause(number, now) / 1e9)
        now = market.time(number)
    return found


def test_gaps_inside_a_session_are_waited_for_and_nights_are_skipped() -> None:
    evening = minutes({"X": [flat(1.0), None, None, flat(1.0)]}, first="2024-01-05 15:57")
    morning = minutes({"X": [flat(1.0), flat(1.0)]}, first="2024-01-08 09:31")
    both = {"X": pd.concat([evening.frames["X"], morning.frames["X"]])}
    assert pauses(Bars(frames=both, timeframe="1m", adjustment="none", source="test")) == [180.0, 60.0, 60.0]


def test_a_daily_bar_takes_a_session() -> None:
    bars = days({"X": [flat(1.0)] * 3}, dates=["2024-01-04", "2024-01-05", "2024-01-08"])
    assert pauses(bars) == [23_400.0, 23_400.0]


@pytest.fixture
def exchange() -> Exchange:
    bars = minutes({"X": [flat(100.0)] * 4})
    spec = AccountSpec(key="key", secret="secret", broker=broker())
    return Exchange(Market(bars, bars.frames["X"].index[1]), [spec])


def test_a_clock_waits_to_be_called_upon_and_matches_before_it_shows(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    match, show = exchange.match, exchange.show
    monkeypatch.setattr(exchange, "match", lambda: (done.append("match"), match()))
    monkeypatch.setattr(exchange, "show", lambda: (done.append("show"), show()))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(pace.asyncio, "sleep", sleep)

    async def walk() -> None:
        begin = asyncio.Event()
        walking = asyncio.ensure_future(pace.walk(exchange, speed=math.inf, begin=begin))
        assert not done
        begin.set()
        await walking

    asyncio.run(walk())
    assert done == ["match", "show"] * 3
    assert slept == [0.0] * 3
    assert exchange.done
