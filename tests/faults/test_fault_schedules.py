"""An exchange that misbehaves: lossless faults change nothing, and whatever happens, the books agree at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.exchange.faults import LOSSLESS, OTHER
from engine.live.journal import Journal
from tests.faults.harness import DAILY, MINUTES, assert_sound, assert_undisturbed, run_trials, schedules, tally

OTHERS = "+".join(OTHER)
# Each costs the time-outs of a request: half a minute.
QUICK_OTHERS = "+".join(kind for kind in OTHER if not kind.startswith("timeout"))


def test_lossless_faults_change_nothing(tmp_path: Path) -> None:
    each = [{"name": kind, "faults": f"{kind}@12,{kind}@30"} for kind in LOSSLESS if "bar" not in kind]
    results = run_trials(tmp_path, DAILY, [*each, *schedules("lossless", range(3))], workers=3)
    assert_undisturbed(results)
    struck = {kind for found in results for _, kind in found.get("struck", ())}
    assert struck >= {kind for kind in LOSSLESS if "bar" not in kind}


def test_lossless_faults_change_nothing_in_the_stream_of_bars_either(tmp_path: Path) -> None:
    each = [{"name": kind, "faults": f"{kind}@40,{kind}@90"} for kind in LOSSLESS if "bar" in kind]
    trials = [*each, *schedules("lossless", range(10, 13), deaths=True)]
    results = run_trials(tmp_path, MINUTES, trials, workers=3)
    assert_undisturbed(results)
    assert {kind for found in results for _, kind in found.get("struck", ())} >= {k for k in LOSSLESS if "bar" in k}


def test_whatever_else_happens_the_books_agree_at_the_end(tmp_path: Path) -> None:
    # An order in two pieces, of which nobody hears: its average is known, and not what each of them paid.
    pieces = {"name": "pieces", "faults": "reorder-updates@3,partial@9,restart@10,restart@34"}
    results = run_trials(tmp_path, DAILY, [pieces, *schedules(QUICK_OTHERS, range(4), deaths=True)], workers=3)
    assert_sound(results)


def test_bars_that_have_passed_are_not_decided_on(tmp_path: Path) -> None:
    results = run_trials(tmp_path, DAILY, [{"name": "jump", "faults": "clock-jump@10,clock-jump@30"}])
    assert_sound(results)
    journal = Journal.read_only(Path(results[1]["run"]) / "journal.sqlite")
    decided = [entry.body["decide"] for entry in journal.entries("bars")]
    journal.close()
    # Of five bars that came at once, the last is decided on.
    assert decided.count(False) == 8
    assert "".join("x" if own else "-" for own in decided).count("----x") == 2


@pytest.mark.soak
@pytest.mark.parametrize(
    ("config", "kinds", "seeds", "deaths"),
    [
        (DAILY, "lossless", range(1_000, 1_300), False),
        (DAILY, "lossless", range(1_300, 1_450), True),
        (MINUTES, "lossless", range(2_000, 2_150), False),
        (MINUTES, "lossless", range(2_150, 2_250), True),
        (DAILY, QUICK_OTHERS, range(3_000, 3_150), False),
        (DAILY, "all", range(3_150, 3_250), True),
        (MINUTES, OTHERS, range(4_000, 4_100), True),
    ],
)
def test_soak_fault_schedules(
    tmp_path: Path,
    config: dict[str, Any],
    kinds: str,
    seeds: range,
    deaths: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = run_trials(tmp_path, config, schedules(kinds, seeds, deaths=deaths), workers=6, seconds=3_600.0)
    with capsys.disabled():
        print(f"\n{config['name']}, seeds {seeds.start} to {seeds.stop - 1}: {tally(results)}")
    if kinds == "lossless":
        assert_undisturbed(results)
    else:
        assert_sound(results)
