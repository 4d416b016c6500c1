"""A replay that is killed at any moment comes to what it would have come to: nothing lost, nothing doubled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.crash_points import POINTS, RECOVERY
from tests.faults.harness import DAILY, MINUTES, RULE, assert_undisturbed, moments, run_trials, tally

# A death in the middle, to recover from.
BEFORE = ["after an ack", 4]


def at_points(*numbers: int) -> list[dict[str, Any]]:
    """A trial for each named moment, and each of the times that it comes."""
    return [
        {"name": f"{point} {nth}", "deaths": [BEFORE, [point, nth]] if point in RECOVERY else [[point, nth]]}
        for point in POINTS
        for nth in numbers
    ]


def test_killed_at_every_named_moment_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    results = run_trials(tmp_path, DAILY, at_points(1))
    assert_undisturbed(results)
    for found in results[1:]:
        deaths = 2 if found["name"].rsplit(" ", 1)[0] in RECOVERY else 1
        assert found["killed"] == deaths, found["name"]  # it did die there


def test_killed_at_random_moments_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    results = run_trials(tmp_path, DAILY, moments("random", 10, 1))
    assert_undisturbed(results)
    assert tally(results)["killed"] >= 8


@pytest.mark.parametrize("config", [RULE, MINUTES], ids=["a rule that is halted", "minutes from the stream"])
def test_rules_limits_and_streams_come_back_too(tmp_path: Path, config: dict[str, Any]) -> None:
    deaths = (BEFORE, ["after the exchange moved", 9], ["during a fill", 3], 0.8)
    results = run_trials(tmp_path, config, [{"name": f"{n}", "deaths": [death]} for n, death in enumerate(deaths)])
    assert_undisturbed(results)
    assert tally(results)["killed"] >= 3
    if config is RULE:
        assert results[0]["status"] == "halted"


@pytest.mark.soak
@pytest.mark.parametrize("config", [DAILY, MINUTES, RULE], ids=["daily", "minutes", "rule"])
def test_soak_killed_at_named_and_at_many_random_moments(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [*at_points(1, 2, 5), *moments("soak", 70, 2)]
    results = run_trials(tmp_path, config, trials, workers=3, seconds=3_600.0)
    with capsys.disabled():
        print(f"\n{config['name']}: {tally(results)}")
    assert_undisturbed(results)
