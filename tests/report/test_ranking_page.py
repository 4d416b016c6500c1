"""A ranking's page in a real browser with the network off, of kinds with hostile names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_browser import CHROMIUM, browser, opened, problems  # noqa: F401 - fixtures

from engine.data.bars import Bars
from engine.report.leaderboard import Leaderboard, Trial, leaderboard
from engine.report.ranking import Ranking, Speed, headline
from engine.report.ranking_page import render_ranking

sys.path.append(str(Path(__file__).parents[1] / "models"))
from subjects_of_forecasts import panel

HOSTILE = "<script>alert(1)</script>"


def board_of() -> Leaderboard:
    noise = panel(seed=1, horizon=1, symbols=3, dates=300, skill=0.3)
    forecasts = {
        "zero": noise.assign(forecast=0.0),
        "mean": noise.assign(forecast=0.0005),
        "last_return": noise.assign(forecast=noise["last_return"]),
        HOSTILE: noise,
        "half": noise.assign(forecast=noise["forecast"].where(noise.index % 2 == 0)),
    }
    times = pd.DatetimeIndex(noise["time"].unique())
    equity = pd.Series(100.0, index=times) + pd.Series(range(len(times)), index=times)
    prices = pd.DataFrame({"close": equity}, index=times)
    bars = Bars(
        frames={f"S{i}": prices for i in range(3)}, timeframe="1d", adjustment="none", source="x", synthetic=True
    )
    trials = [
        Trial(label=label, fold=0, seed=7, forecasts=frame, train_naive_mae=0.01, equity=equity, traded=50_000.0)
        for label, frame in forecasts.items()
    ]
    return leaderboard(trials, baselines=["zero", "mean", "last_return"], horizon=1, bars=bars, held=[equity])


@pytest.fixture(scope="module")
def ranking() -> Ranking:
    board = board_of()
    labels = [entry.label for entry in board.entries]
    speed = Speed(training_seconds=None, latency_p50_ms=0.2, latency_p99_ms=0.9, forecasts_per_second=1e5)
    return Ranking(
        name="hostile & quick",
        board=board,
        kinds=dict.fromkeys(labels, "lstm"),
        parameters=dict.fromkeys(labels, 1234),
        memory=dict.fromkeys(labels, 20),
        speeds=dict.fromkeys(labels, speed),
        folds=({"train": ("a", "b"), "validate": ("c", "d"), "test": ("e", "f")},),
        strategy="strategies.forecast:Forecast",
        symbols=("S0", "S1", "S2"),
        timeframe="1d",
        horizon=1,
        flags=("SYNTHETIC",),
        hashes={"config": "0"},
    )


def test_all_are_judged_on_the_rows_that_every_one_of_them_knows(ranking: Ranking) -> None:
    board = ranking.board
    assert (board.rows, board.left_out) == (450, 450)
    assert {entry.accuracy["n"] for entry in board.entries} == {450}
    skilled = next(entry for entry in board.entries if entry.label == HOSTILE)
    assert skilled.beats_naive
    assert HOSTILE in headline(board)[0]


def test_the_page_escapes_what_a_user_wrote(ranking: Ranking) -> None:
    page = render_ranking(ranking)
    assert HOSTILE not in page
    assert "SYNTHETIC" in page
    assert page == render_ranking(ranking)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_opens_offline_and_fits_a_phone(
    browser: Any,  # noqa: F811
    ranking: Ranking,
    tmp_path: Path,
    problems: list[str],  # noqa: F811
) -> None:
    path = tmp_path / "models.html"
    path.write_text(render_ranking(ranking), encoding="utf-8")
    page = opened(browser, path, problems, viewport={"width": 420, "height": 900}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert page.locator(".js-plotly-plot").count() == 3
    assert problems == []
    page.context.close()
