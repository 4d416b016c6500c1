"""The benchmarks run, agree with their peers, and say what they could not do; how fast they are is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bar_loop
from benchmarks.harness import Comparison, Contender, Disagreement, LeftOut, Turn, rounds

ROOT = Path(bar_loop.__file__).resolve().parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m benchmarks``, with one thread, since tests share the machine."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def comparison(**changes) -> Comparison:
    values = {
        "benchmark": "loop",
        "case": "case",
        "peer": "peer",
        "unit": "bars",
        "amount": 1_000,
        "ours_seconds": (0.5, 1.0, 0.25),
        "peer_seconds": (2.0, 3.0, 1.0),
    }
    return Comparison(**{**values, **changes})


def test_each_benchmark_runs_and_writes_its_comparisons(tmp_path):
    file = tmp_path / "new folder" / "bench.json"
    done = run("--json", str(file))
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text())
    results = written["results"]
    measured = {result["benchmark"] for result in results}
    assert measured >= {"bar loop", "forecasting", "training", "live", "data", "latency", "signals"}
    assert written["quick"] is True
    assert written["machine"]["torch_threads"] == 1
    ratios = [result["ratio"] for result in results if result["kind"] == "comparison"]
    assert len(ratios) >= 7
    assert min(ratios) > 0.0
    assert "these ratios mean nothing" in done.stdout
    assert [path.name for path in file.parent.iterdir()] == ["bench.json"]


def test_both_loops_give_the_same_fills_with_either_broker():
    size = bar_loop.Size(bars=800, symbols=3, bars_a_symbol=300, rounds=1, peer_rounds=1)
    ours, back, several, _ = bar_loop.measure(size)
    assert ours.facts["fills"] == back.facts["fills"] > 10
    assert several.facts["fills"] > 10


def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(bar_loop, "PEER_PYTHON", tmp_path / "python")
    *_, last = bar_loop.measure(bar_loop.Size(bars=200, symbols=1, bars_a_symbol=100, rounds=1, peer_rounds=1))
    assert isinstance(last, LeftOut)
    assert "peer not installed" in last.reason


def test_other_fills_are_a_disagreement():
    fills = [(1.0, "A", 100.0, 10.0), (2.0, "A", -100.0, 11.0)]
    assert bar_loop._same_fills("case", fills, list(fills)) == 2
    with pytest.raises(Disagreement, match="2 fills of ours, 1 of the peer"):
        bar_loop._same_fills("case", fills, fills[:1])
    with pytest.raises(Disagreement, match=r"11\.0.*11\.5"):
        bar_loop._same_fills("case", fills, [fills[0], (2.0, "A", -100.0, 11.5)])


def test_the_ratio_takes_the_best_round_of_each():
    measured = comparison(goal=4.0)
    assert measured.ours_per_second == 4_000.0
    assert measured.peer_per_second == 1_000.0
    assert measured.ratio == 4.0
    assert measured.round_ratios == (4.0, 3.0, 4.0)
    assert measured.reached is True
    assert comparison(goal=4.1).reached is False
    assert comparison().reached is None


def test_who_goes_first_alternates():
    order: list[str] = []

    def contender(name: str) -> Contender[None]:
        def turn() -> Turn[None]:
            order.append(name)
            return Turn(1.0, None)

        return Contender(name, turn)

    rounds(contender("ours"), contender("peer"), count=3)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
