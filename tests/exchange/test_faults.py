"""Schedules: written out, drawn from a seed, armed by steps and spent once."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ConfigError
from engine.exchange.faults import KINDS, LOSSLESS, ArmedFaults, Fault, Faults
from engine.exchange.server import ExchangeServer
from tests.exchange.floor import Floor, flat, minutes


def test_a_schedule_that_is_written_out_is_sorted_by_step_and_gives_its_text_back() -> None:
    faults = Faults.parse("500-after@40, lose-update@12,429@12")
    assert faults.schedule == (Fault(12, "lose-update"), Fault(12, "429"), Fault(40, "500-after"))
    assert str(faults) == "lose-update@12,429@12,500-after@40"
    assert Faults.parse(str(faults)) == faults.over(40) == faults


@pytest.mark.parametrize("text", ["42", "seed=42", "seed=42,count=8", "seed=42,kinds=lossless"])
def test_the_same_seed_gives_the_same_schedule(text: str) -> None:
    drawn = Faults.parse(text).over(390)
    assert str(Faults.parse(text)) == "seed=42,count=8,kinds=lossless"
    assert drawn.schedule == Faults.parse("42").over(390).schedule
    assert drawn.schedule is not None
    assert len({fault.step for fault in drawn.schedule}) == 8
    assert all(1 <= step <= 390 and kind in LOSSLESS for step, kind in drawn.schedule)
    assert Faults.parse(str(drawn)).schedule == drawn.schedule
    assert Faults.parse("43").over(390).schedule != drawn.schedule


def test_kinds_and_count_of_a_drawing() -> None:
    few = Faults.parse("seed=1,count=30,kinds=429+partial").over(30)
    assert {kind for _, kind in few.schedule or ()} == {"429", "partial"}
    assert [step for step, _ in few.schedule or ()] == list(range(1, 31))
    every = Faults.parse("seed=1,count=900,kinds=all").over(1_000)
    assert {kind for _, kind in every.schedule or ()} == set(KINDS)
    assert str(Faults.parse("5,kinds=429+hang-up")) == "seed=5,count=8,kinds=429+hang-up"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected kind@step"),
        ("lose-update", "expected kind@step"),
        ("lose-update@", "the step of lose-update must be a whole number"),
        ("lose-update@-1", "whole number"),
        ("lose-everything@3", "no kind 'lose-everything'"),
        ("lose-update@3,,", "expected kind@step"),
        ("seed=", "seed must be a whole number"),
        ("seed=1,count=many", "count must be a whole number"),
        ("seed=1,kinds=429+nonsense", "no kind 'nonsense'"),
        ("seed=1,size=3", "count= and kinds= only"),
        ("42,429@3", "count= and kinds= only"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Faults.parse(text)


@pytest.mark.parametrize(("text", "words"), [("429@4", "never comes"), ("seed=1,count=4", "a market of 3 steps")])
def test_a_schedule_must_fit_the_market(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Floor(minutes({"X": [flat(100.0)] * 4}), faults=Faults.parse(text))


def test_a_fault_is_armed_by_its_step_and_spent_once() -> None:
    spent: list[Fault] = []
    armed = ArmedFaults(Faults.parse("429@0,500@2,429@2"), spent)
    assert (armed.take("500"), armed.take("429", "500"), armed.take("429")) == ("", "429", "")
    armed.arm(1)
    assert not armed.is_armed(*KINDS)
    armed.arm(3)
    assert armed.take("429", "500", by=1) == ""
    assert [armed.take("429", "500") for _ in range(3)] == ["500", "429", ""]
    assert spent == [(0, "429"), (2, "500"), (2, "429")]


def test_an_exchange_names_its_schedule_and_without_one_has_none() -> None:
    bars = minutes({"X": [flat(100.0)] * 40})
    with Floor(bars, faults=Faults.parse("7")) as floor:
        server: ExchangeServer = floor.exchange
        assert str(server.faults) == str(Faults.parse("7").over(39))
        assert server.faults_spent == []
    plain: Any = Floor(bars).exchange
    assert (plain.faults, plain.faults_spent) == (None, [])
