"""The two pages as a reader's browser gets them: self-contained, escaped, and saying what must be said."""

from __future__ import annotations

import html as html_text
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from sample_run import changed, charts_of, sample_run

from engine.compare import ComparisonReport, compare
from engine.errors import ConfigError, StorageError
from engine.report.catalogue import best, metric
from engine.report.comparison import compare_runs, config_differences, difference, distinct_labels
from engine.report.run import Run, write_run
from engine.report.tear_sheet import render_report
from engine.report.thinning import kept_rows, wider_candles
from engine.report.verdict import verdict

NOW = datetime(2026, 11, 23, 7, 44, 6, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)"


@pytest.fixture(scope="module")
def run() -> Run:
    return sample_run(bars=160)


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return render_report(run)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ComparisonReport:
    """A baseline, a run like it, and one with other data and other costs."""
    root = tmp_path_factory.mktemp("runs")
    for run in (
        sample_run(name="base", bars=160),
        sample_run(name="like", bars=160, trading_seed=2, forecasts=False),
        sample_run(name="other", bars=160, seed=4, commission_bps=20.0, hashes={"data": "0" * 64}),
    ):
        write_run(run, root, now=NOW)
    return compare(["base", "like", "other"], root=root, now=NOW)


def own_part(page: str) -> str:
    """The page without plotly.js, which names servers in code that the page never calls."""
    scripts = re.findall(r"<script>.*?</script>", page, flags=re.S)
    return page.replace(max(scripts, key=len), "")


def visible(page: str) -> str:
    return html_text.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)))


def test_pages_load_nothing(page: str, report: ComparisonReport) -> None:
    for text in (page, report.path.read_text()):
        assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", own_part(text))
        assert not re.findall(r"@import|url\(|https?://", own_part(text))
        assert "default-src 'none'" in text
        assert text.count("plotly.js v") == 1


def test_the_upload_button_of_plotly_is_off(page: str) -> None:
    assert "showSendToCloud: false" in own_part(page)


def test_hostile_names_are_text() -> None:
    run = sample_run(name=HOSTILE, symbols=(HOSTILE, "<b>X</b>"), bars=60, hashes={HOSTILE: HOSTILE, "data": "x"})
    for text in (render_report(run), _comparison_page(run)):
        assert "<script>alert" not in text
        assert HOSTILE in visible(text)
        assert len(re.findall(r"<script", own_part(text))) == 2
    hover = charts_of(render_report(run))["trade_returns"][0]["data"][0]["text"]
    assert all("<" not in symbol for symbol in hover)


def _comparison_page(run: Run) -> str:
    from engine.report.comparison_page import render_comparison

    runs = [run, run]
    return render_comparison(compare_runs(runs, labels=[run.name, "b"]), runs, links=["a", "b"])


def test_charts_are_valid_plotly_figures(page: str, report: ComparisonReport) -> None:
    for choices in (*charts_of(page).values(), *charts_of(report.path.read_text()).values()):
        for choice in choices:
            go.Figure(data=choice["data"], layout=choice["layout"])


def test_report_shows_what_it_must(page: str, run: Run) -> None:
    assert set(charts_of(page)) == {"equity", "yearly", "distribution", "candles", "trade_returns", "forecasts"}
    assert [c["label"] for c in charts_of(page)["candles"]] == ["AAPL", "GOOG", "IBM", "MSFT"]
    text = visible(page)
    for words in (
        "Buy and hold",
        "Benchmark",
        "95 % interval",
        "Training mean",
        "Worst drawdowns",
        "Slippage",
        "Always up",
    ):
        assert words in text
    for key in ("orders_hash", "fills_hash"):
        assert run.manifest[key] in text
    assert "source: sample:tech" in text


def test_trades_are_marked_on_their_bars(page: str, run: Run) -> None:
    entries = next(t for t in charts_of(page)["candles"][2]["data"] if t.get("name") == "Entry")
    expected = run.trades[run.trades["symbol"] == "IBM"]
    assert entries["x"] == list(expected["entry_time"].dt.strftime("%Y-%m-%d"))
    assert entries["y"] == pytest.approx(list(expected["entry_price"]), rel=1e-6)


@pytest.mark.parametrize(
    ("flag", "badge"),
    [
        ({"in_sample": True}, "IN-SAMPLE"),
        ({"synthetic": True}, "SYNTHETIC"),
        ({"survivor_biased": True}, "SURVIVOR-BIASED"),
        ({"close_only": True}, "CLOSE-ONLY"),
        ({"status": "halted"}, "HALTED"),
        ({"kind": "paper"}, "PAPER"),
    ],
)
def test_badges(run: Run, page: str, flag: dict[str, Any], badge: str) -> None:
    marked = render_report(changed(run, **flag))
    assert f">{badge}</span>" in marked
    assert f">{badge}</span>" not in page
    assert ('class="banner"' in marked) == ("in_sample" in flag)


def test_a_run_without_forecasts_trades_or_benchmark_has_a_page(run: Run) -> None:
    bare = Run(
        manifest=run.manifest,
        config={"data": run.config["data"]},
        metrics={"strategy": {}, "buy_and_hold": {}, "benchmark": {}, "forecast": {}},
        equity=run.equity.assign(buy_and_hold=np.nan, benchmark=np.nan),
        **{name: pd.DataFrame() for name in ("orders", "fills", "trades", "forecasts", "bars")},
    )
    assert set(charts_of(render_report(bare))) == {"equity", "yearly", "distribution"}


def test_downsampling_is_stated_and_keeps_the_extremes() -> None:
    times = pd.date_range("2024-01-02 14:31", periods=12_000, freq="min", tz="UTC", name="time")
    run = sample_run(symbols=("AAPL",), times=times, timeframe="1m", forecasts=False)
    page = render_report(run)
    text = visible(page)
    assert "12,000 points are more than 10,000" in text
    assert "12,000 bars are more than 10,000: each candle joins 2 of them." in text
    drawn = charts_of(page)["equity"][0]["data"][0]["y"]
    assert len(drawn) <= 10_000
    assert max(drawn) == pytest.approx(run.equity["equity"].max(), rel=1e-6)
    assert min(drawn) == pytest.approx(run.equity["equity"].min(), rel=1e-6)


def test_thinning_keeps_a_single_spike() -> None:
    values = np.zeros(50_000)
    values[31_234] = 1.0
    rows = kept_rows(values, limit=100)
    assert len(rows) <= 100
    assert {0, 31_234, 49_999} <= set(rows.tolist())


def test_joined_candles_by_hand() -> None:
    bars = pd.DataFrame(
        {
            "time": pd.date_range("2024-01-01", periods=3, tz="UTC"),
            "symbol": "A",
            "open": [1.0, 2.0, 3.0],
            "high": [5.0, 4.0, 3.5],
            "low": [0.5, 0.4, 2.0],
            "close": [2.0, 3.0, 2.5],
            "volume": [10.0, 20.0, 30.0],
        }
    )
    joined, size = wider_candles(bars, limit=2)
    assert size == 2
    assert joined[["open", "high", "low", "close", "volume"]].to_numpy().tolist() == [
        [1.0, 5.0, 0.4, 3.0, 30.0],
        [3.0, 3.5, 2.0, 2.5, 30.0],
    ]


def sentences(run: Run, **changes: dict[str, Any]) -> str:
    metrics = {key: {**figures, **changes.get(key, {})} for key, figures in run.metrics.items()}
    return " ".join(verdict(changed_metrics(run, metrics)))


def changed_metrics(run: Run, metrics: dict[str, Any]) -> Run:
    from dataclasses import replace

    return replace(run, metrics=metrics)


def test_the_verdict_is_honest(run: Run) -> None:
    assert "Did not beat buy-and-hold after costs" in sentences(
        run, strategy={"total_return_pct": 1.0}, buy_and_hold={"total_return_pct": 2.0}
    )
    assert "Did as buy-and-hold did" in sentences(
        run, strategy={"total_return_pct": 2.0}, buy_and_hold={"total_return_pct": 2.0}
    )
    assert "cannot be told from chance" in sentences(
        run, strategy={"sharpe_ratio": 0.5, "sharpe_low": -0.1, "sharpe_high": 1.1}
    )
    assert "not below the zero forecast's" in sentences(run, forecast={"mae": 0.011, "mae_zero": 0.01})
    assert "no proof of skill" in sentences(run, forecast={"mae": 0.009, "mae_zero": 0.01})
    assert "Nothing was traded" in sentences(run, strategy={"fills": 0})
    assert "has seen these bars" in verdict(changed(run, in_sample=True))[0]


def test_best_knows_the_direction() -> None:
    assert best("sharpe_ratio", [0.1, 0.5, None]) == {1}
    assert best("volatility_ann_pct", [5.0, 9.0]) == {0}
    assert best("max_drawdown_pct", [-5.0, -9.0]) == {0}
    assert best("max_drawdown_duration_days", [30, 10, 10]) == {1, 2}
    assert best("fills", [1, 2]) == best("sharpe_ratio", [1.0, 1.0]) == best("sharpe_ratio", [1.0, None]) == set()


def test_numbers_are_written_for_people() -> None:
    assert metric("max_drawdown_pct").text(-12.346) == "−12.35 %"
    assert metric("commission_paid").text(1234.5) == "1,234.50"
    assert metric("sharpe_ratio").text(-0.001) == "0.00"
    assert metric("mae_zero").text(0.0104) == "104.00"
    assert metric("trades").text(None) == "–"


def test_comparison_marks_the_best_among_like_runs_only(report: ComparisonReport) -> None:
    compared = report.comparison
    assert compared.labels == ("base", "like", "other")
    assert compared.unlike == ((), (), ("OTHER DATA", "OTHER COSTS"))
    rows = {row.key: row for row in compared.rows}
    row = rows["total_return_pct"]
    values = [v for v in row.values[:2] if v is not None]
    assert row.best == {values.index(max(values))}
    assert all(2 not in row.best for row in compared.rows)
    assert rows["orders"].best == frozenset()
    assert [title for title, _ in compared.passive] == [
        "Buy and hold (base)",
        "Buy and hold (other)",
        "Benchmark (base)",
        "Benchmark (other)",
    ]


def test_comparison_page_says_what_differs(report: ComparisonReport) -> None:
    page = own_part(report.path.read_text())
    text = visible(page)
    for words in ("OTHER DATA", "OTHER COSTS", "Not like for like", "BASELINE", "broker.commission.bps"):
        assert words in text
    assert "OTHER PERIOD" not in text
    assert page.count('class="best"') == sum(len(row.best) for row in report.comparison.rows)
    links = re.findall(r'<a href="([^"]+)"', page)
    assert len(links) == 3
    assert all((report.path.parent / link).is_file() for link in links)
    assert set(charts_of(page)) == {"curves", "rolling"}
    assert all(t["y"][0] == 100.0 for t in charts_of(page)["curves"][0]["data"] if "yaxis" not in t)


def test_comparison_as_json(report: ComparisonReport) -> None:
    told = report.to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["baseline"] == "base"
    assert told["runs"][2]["unlike_baseline"] == ["OTHER DATA", "OTHER COSTS"]
    assert told["config_differences"] == {"broker.commission.bps": {"base": 1.0, "like": 1.0, "other": 20.0}}
    assert told["runs"][1]["difference"]["sessions"] == 159


def test_another_period_is_badged(run: Run) -> None:
    compared = compare_runs([run, sample_run(bars=120)], labels=["a", "b"])
    assert compared.unlike[1] == ("OTHER PERIOD",)


def test_difference_to_itself_is_zero(run: Run) -> None:
    gap = difference(run, run)
    assert gap.daily_return_bps is not None
    assert gap.sharpe_ratio is not None
    assert (gap.sharpe_ratio.value, gap.sharpe_ratio.low, gap.sharpe_ratio.high) == (0.0, 0.0, 0.0)


def test_a_constant_advantage_is_found_and_reproduced(run: Run) -> None:
    better = with_equity(run, run.equity["equity"] * 1.002 ** np.arange(len(run.equity)))
    gap, again = difference(better, run), difference(better, run)
    assert gap == again
    assert gap.daily_return_bps is not None
    assert gap.daily_return_bps.value == pytest.approx(20.0, abs=0.1)
    assert gap.daily_return_bps.low > 19.0
    assert gap.sharpe_ratio is not None
    assert gap.sharpe_ratio.low > 0.0


def test_too_few_common_sessions_say_nothing(run: Run) -> None:
    gap = difference(run, sample_run(bars=21))
    assert (gap.sessions, gap.daily_return_bps, gap.sharpe_ratio) == (20, None, None)


def test_a_run_that_never_traded_can_be_compared(run: Run) -> None:
    idle = with_equity(run, run.equity["equity"] * 0 + 100.0)
    gap = difference(idle, run)
    assert gap.daily_return_bps is not None
    assert gap.sharpe_ratio is None


def with_equity(run: Run, equity: pd.Series) -> Run:
    from dataclasses import replace

    return replace(run, equity=run.equity.assign(equity=equity))


def test_config_differences_and_labels() -> None:
    configs = [
        {"name": "a", "broker": {"cash": 1, "x": 2}},
        {"name": "b", "broker": {"cash": 5, "x": 2}, "model": {"k": 1}},
    ]
    assert config_differences(configs) == {"broker.cash": (1, 5), "model.k": (None, 1)}
    assert distinct_labels(["a", "a", "b"], ["1", "2", "3"]) == ["1", "2", "b"]


def test_comparisons_that_cannot_be(run: Run, tmp_path: Path) -> None:
    write_run(run, tmp_path, now=NOW)
    with pytest.raises(ConfigError, match="at least two runs, found 1"):
        compare(["sample"], root=tmp_path, now=NOW)
    with pytest.raises(ConfigError, match="each run once"):
        compare(["sample", "latest"], root=tmp_path, now=NOW)
    write_run(changed(run, name="second"), tmp_path, now=NOW)
    write_run(changed(run, name="third"), tmp_path, now=NOW)
    with pytest.raises(ConfigError, match="the baseline must be one of the runs compared, found third"):
        compare(["sample", "second"], root=tmp_path, now=NOW, baseline="third")
    (tmp_path / "comparisons").write_text("in the way")
    with pytest.raises(StorageError, match="could not be written"):
        compare(["sample", "second"], root=tmp_path, now=NOW, baseline="second")
