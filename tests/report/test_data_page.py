"""The page of a data check: self-contained, escaped, and showing each fault where it is."""

from __future__ import annotations

import html as html_text
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from sample_run import charts_of

from engine.config import CleaningConfig, DataConfig, RunConfig
from engine.data.cleaning.checking import Checked, check_bars
from engine.data.quality import KINDS
from engine.data.raw import Raw
from engine.data.samples import read_sample
from engine.data_check import check_data
from engine.report.data_maps import missing_times
from engine.report.data_page import SYMBOLS_LISTED, render_data_check
from engine.report.data_words import MEANINGS, verdict
from engine.report.figures import LOSS

HOSTILE = "</script><script>alert(1)"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def check(frames: dict[str, pd.DataFrame], timeframe: str = "1d", **more: Any) -> Checked:
    policy = {kind: how for kind, how in more.items() if kind in KINDS}
    data = DataConfig(source="files", symbols=("A",), timeframe=timeframe, cleaning=CleaningConfig(**policy))
    rest = {key: value for key, value in more.items() if key not in KINDS}
    made = {"adjustment": "none", "source": "files", **rest}
    return check_bars(Raw(frames=frames, timeframe=timeframe, **made), data)


def tech(*symbols: str) -> dict[str, pd.DataFrame]:
    return {symbol: frame.iloc[-400:] for symbol, frame in read_sample("tech", symbols).frames.items()}


def spoilt() -> dict[str, pd.DataFrame]:
    frame = tech("IBM")["IBM"]
    frame.iloc[100, 1] = 1.0  # a high below the low
    frame.iloc[150, 0] = np.nan
    twice = pd.concat([frame, frame.iloc[[200]] * 1.01]).sort_index(kind="stable")
    return {"IBM": twice.drop(frame.index[[300, 301, 302]]), "MSFT": tech("MSFT")["MSFT"]}


@pytest.fixture(scope="module")
def checked() -> Checked:
    return check(spoilt())


@pytest.fixture(scope="module")
def page(checked: Checked) -> str:
    return render_data_check(checked, name="mine")


@pytest.fixture(scope="module")
def minutes() -> Checked:
    raw = read_sample("minutes", ("SYN_CALM", "SYN_LATE", "SYN_THIN"))
    return check_bars(raw, DataConfig(source="sample:minutes", symbols=("all",), timeframe="1m"))


def own_part(page: str) -> str:
    """The page without plotly.js."""
    return page.replace(max(re.findall(r"<script>.*?</script>", page, flags=re.S), key=len), "")


def visible(page: str) -> str:
    return html_text.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)))


def drawn(page: str, kind: str) -> dict[str, dict[str, Any]]:
    """The traces of the worst case of a kind, by name."""
    return {trace["name"]: trace for trace in charts_of(page)[f"spots_{kind}"][0]["data"]}


def test_it_loads_nothing_and_is_small(page: str) -> None:
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", own_part(page))
    assert not re.findall(r"@import|url\(|https?://", own_part(page))
    assert "default-src 'none'" in page
    assert len(own_part(page)) < 180_000


def test_charts_are_valid_plotly_figures(page: str, minutes: Checked) -> None:
    for text in (page, render_data_check(minutes, name="minutes")):
        for choices in charts_of(text).values():
            for choice in choices:
                go.Figure(data=choice["data"], layout=choice["layout"])


def test_every_kind_that_was_found_is_told_and_drawn(page: str, checked: Checked) -> None:
    text = visible(page)
    for kind in checked.quality.counts():
        assert MEANINGS[kind] in text
        assert f"spots_{kind}" in charts_of(page)
    assert {"conflict", "impossible", "missing_value", "gap"} <= set(checked.quality.counts())


def test_what_is_refused_is_said_first(page: str, checked: Checked) -> None:
    assert ">REFUSED</span>" in page
    assert verdict(checked)[0].startswith("Loading these bars fails: ")
    assert checked.refusals[0].sentence in visible(page)
    assert ">REFUSED</span>" not in render_data_check(check(spoilt(), conflict="drop"), name="mine")


def test_a_bar_that_is_left_out_is_drawn_as_it_was(page: str) -> None:
    raw = spoilt()["IBM"]
    out = drawn(page, "impossible")["Left out"]
    assert out["high"] == [1.0]
    assert out["close"] == pytest.approx([raw["close"].iloc[100]], rel=1e-6)
    assert out["increasing"]["line"]["color"] == LOSS
    assert 1.0 not in drawn(page, "impossible")["Kept"]["high"]


def test_prices_of_a_bar_without_all_of_them_are_marked(page: str) -> None:
    values = drawn(page, "missing_value")["Its values"]
    row = spoilt()["IBM"].iloc[150]
    assert sorted(values["y"]) == pytest.approx(sorted(row[["high", "low", "close"]]), rel=1e-6)


def test_of_two_bars_of_one_time_both_are_drawn_side_by_side(page: str) -> None:
    traces = drawn(page, "conflict")
    assert len(traces["Left out"]["x"]) == 1
    assert traces["Left out"]["x"][0] + 1 in traces["Kept"]["x"]


def test_a_hole_has_its_width_and_says_how_many_bars_it_lacks(page: str) -> None:
    figure = charts_of(page)["spots_gap"][0]
    assert [said["text"] for said in figure["layout"]["annotations"]] == ["3 missing"]
    (hole,) = figure["layout"]["shapes"]
    assert hole["x1"] - hole["x0"] == 3.0


def test_what_was_repaired_is_marked_at_its_new_value() -> None:
    frame = tech("IBM")["IBM"]
    frame.iloc[100, 1] = frame.iloc[100, 2] * 0.99
    found = check({"IBM": frame}, impossible="repair")
    traces = drawn(render_data_check(found, name="mine"), "impossible")
    marks = dict(zip(traces["Repaired to"]["text"], traces["Repaired to"]["y"], strict=True))
    assert marks["high"] == pytest.approx(found.frames["IBM"]["high"].iloc[100], rel=1e-6)


def test_the_map_shows_missing_sessions_and_nothing_before_a_symbol_starts(page: str) -> None:
    frames = tech("GOOG", "IBM")
    frames["GOOG"] = frames["GOOG"].iloc[100:]
    frames["IBM"] = frames["IBM"].drop(frames["IBM"].index[[200, 201]])
    figure = charts_of(render_data_check(check(frames), name="mine"))["coverage"][0]
    rows = dict(zip(figure["data"][0]["y"], figure["data"][0]["z"], strict=True))
    assert rows["GOOG"][0] is None
    assert max(value for value in rows["GOOG"] if value is not None) == 0.0
    assert sum(value > 0 for value in rows["IBM"] if value is not None) in (1, 2)


def test_minutes_are_mapped_by_the_time_of_day(minutes: Checked) -> None:
    page = render_data_check(minutes, name="minutes")
    figure = charts_of(page)["clock"][0]["data"][0]
    assert figure["x"][0] == "10:00"
    assert figure["x"][-1] == "16:00"
    assert figure["y"][-1] == "all symbols"
    missing = sum(len(times) for times in missing_times(minutes).values())
    there = sum(len(frame) for frame in minutes.frames.values())
    shares = [value for value in figure["z"][-1] if value is not None]
    assert min(shares) <= 100.0 * missing / (missing + there) <= max(shares)
    assert "does not mean lost" in page
    assert "SYNTHETIC" in page


def test_many_symbols_are_thinned_and_said_to_be() -> None:
    frame = tech("IBM")["IBM"].iloc[:60]
    frames = {f"S{number:03}": frame for number in range(300)}
    frames["S007"] = frame.drop(frame.index[[30]])
    page = render_data_check(check(frames), name="many")
    figure = charts_of(page)["coverage"][0]["data"][0]
    assert figure["y"] == ["S007"]
    assert "Not drawn: 299 symbols that lack none." in visible(page)
    assert f"300, the {SYMBOLS_LISTED} with the most missing bars listed" in re.sub(r"\s+", " ", visible(page))
    assert len(own_part(page)) < 180_000


def test_one_day_with_faults_in_many_symbols_is_named() -> None:
    frames = {}
    for number in range(6):
        frame = tech("IBM")["IBM"].iloc[:150]
        frame.iloc[100, :4] *= 2.0
        frames[f"S{number}"] = frame
    day = f"{frame.index[100]:%Y-%m-%d}"
    assert any(f"spike: 6 symbols on {day}" in sentence for sentence in verdict(check(frames)))


def test_a_policy_that_looks_ahead_is_said_loudly() -> None:
    frame = tech("IBM")["IBM"]
    frame.iloc[100, :4] *= 3.0
    for policy, loud in (("drop", True), ("repair", True), ("flag", False)):
        page = render_data_check(check({"IBM": frame}, spike=policy), name="mine")
        assert ("CLEANED IN HINDSIGHT" in page) is loud


def test_clean_bars_are_not_called_right() -> None:
    page = render_data_check(check(tech("IBM")), name="mine")
    assert "does not say that the prices are right" in visible(page)
    assert "What was found" not in page


def test_bars_of_which_nothing_can_be_made_still_have_a_page() -> None:
    page = render_data_check(check({"IBM": tech("IBM")["IBM"].iloc[:1]}), name="mine")
    assert "Loading these bars fails" in page
    assert charts_of(page) == {}


def test_the_policy_says_what_else_it_may_be(page: str) -> None:
    text = re.sub(r"\s+", " ", visible(page))
    assert "zero_volume bars without volume flag flag, drop, refuse" in text


def test_splits_that_the_source_tells_are_listed() -> None:
    frame = tech("IBM")["IBM"]
    actions = pd.DataFrame({"split": [2.0, 1.0], "dividend": [0.0, 0.5]}, index=frame.index[[100, 200]])
    page = visible(render_data_check(check({"IBM": frame}, actions={"IBM": actions}), name="mine"))
    assert "1 split and 1 dividend" in page
    assert "2:1" in page


def test_hostile_names_are_text() -> None:
    frame = tech("IBM")["IBM"].drop(tech("IBM")["IBM"].index[[50]])
    page = render_data_check(check({HOSTILE: frame, "B": frame}), name=HOSTILE)
    assert "<script>alert" not in page
    assert HOSTILE in visible(page)
    assert len(re.findall(r"<script", own_part(page))) == 2


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_it_opens_offline_and_fits_a_phone(tmp_path: Path, minutes: Checked) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    config = {
        "name": "browser",
        "data": {"source": "sample:minutes", "symbols": "all", "timeframe": "1m"},
        "spans": {"test": ["2023-11-10", "2023-11-29"]},
        "strategy": {"kind": "strategies.buy_and_hold:BuyAndHold"},
    }
    now = datetime(2026, 11, 24, tzinfo=UTC)
    path = check_data(RunConfig.model_validate(config), root=tmp_path, now=now).page
    problems: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width in (1300, 420):
            shown = browser.new_context(offline=True, viewport={"width": width, "height": 900}).new_page()
            shown.on("pageerror", lambda error: problems.append(str(error)))
            shown.on("console", lambda told: problems.append(told.text) if told.type in ("error", "warning") else None)
            shown.on("request", lambda asked: None if asked.url.startswith("file:") else problems.append(asked.url))
            shown.goto(path.as_uri())
            shown.wait_for_function("document.querySelectorAll('.js-plotly-plot').length === 3")
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert shown.locator(".heatmaplayer image, .heatmaplayer .hm").count() >= 2
        browser.close()
    assert problems == []
