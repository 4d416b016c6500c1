"""The pages in a real browser with the network off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sample_run import sample_run

from engine.compare import compare
from engine.report.run import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NOW = datetime(2026, 11, 23, 7, 44, 6, tzinfo=UTC)
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    first = write_run(sample_run(name="first", bars=120), root, now=NOW)
    write_run(sample_run(name="second", bars=120, trading_seed=2), root, now=NOW)
    compared = compare(["first", "second"], root=root, now=NOW)
    return {"report": first / "report.html", "comparison": compared.path}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def problems() -> list[str]:
    return []


def opened(browser: Any, path: Path, problems: list[str], **options: Any) -> Any:
    page = browser.new_context(offline=True, **options).new_page()
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else problems.append(request.url),
    )
    page.goto(path.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('[data-chart]').length === document.querySelectorAll('.js-plotly-plot').length"
    )
    return page


@pytest.mark.parametrize(("name", "charts"), [("report", 6), ("comparison", 2)])
def test_opens_offline_and_draws(
    browser: Any, pages: dict[str, Path], problems: list[str], name: str, charts: int
) -> None:
    page = opened(browser, pages[name], problems)
    assert page.locator(".js-plotly-plot .main-svg").count() >= charts
    assert page.locator(".js-plotly-plot").count() == charts
    assert page.locator(".scatterlayer path.js-line").count() >= 3
    assert problems == []
    page.context.close()


def test_controls_work(browser: Any, pages: dict[str, Path], problems: list[str]) -> None:
    page = opened(browser, pages["report"], problems)
    page.click("[data-toggles=equity] button[data-value=log]")
    assert page.evaluate("document.querySelector('[data-chart=equity]').layout.yaxis.type") == "log"
    before = page.evaluate("document.querySelector('[data-chart=candles]').data[0].close[0]")
    page.select_option("[data-picks=candles]", label="IBM")
    assert page.evaluate("document.querySelector('[data-chart=candles]').data[0].close[0]") != before
    assert page.evaluate("document.querySelector('[data-chart=equity]').layout.yaxis.type") == "log"
    assert page.locator("[data-title*=Share], [data-title*=loud]").count() == 0
    assert problems == []
    page.context.close()


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_fits_a_phone_in_the_dark(browser: Any, pages: dict[str, Path], problems: list[str], name: str) -> None:
    page = opened(browser, pages[name], problems, viewport={"width": 420, "height": 900}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert page.evaluate("document.querySelector('[data-chart]').layout.font.color") == "#9aa4b3"
    assert problems == []
    page.context.close()
