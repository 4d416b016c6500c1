"""Forecasts judged: reference values, the size of the tests, and what stands out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scoringrules
from subjects_of_forecasts import frame_of, panel

from engine.data.bars import Bars
from models.evaluation import alarms, judge, score_frame
from models.evaluation.inference import (
    diebold_mariano,
    hac_mean,
    holm,
    mincer_zarnowitz,
    pesaran_timmermann,
)
from models.evaluation.information import by_group, echo_lag, information, regimes, years
from models.evaluation.intervals import crps_of_quantiles, interval_score, kupiec, pinball


def test_diebold_mariano_has_the_reference_values():
    y, f, g = (
        np.array(values, dtype=float) for values in ([10, 20, 30, 40, 50], [11, 21, 29, 42, 53], [13, 26, 24, 40, 59])
    )
    found = diebold_mariano((y - f) ** 2, (y - g) ** 2, np.arange(5), horizon=1)
    assert found.statistic == pytest.approx(-2.222992, abs=5e-7)
    assert found.p == pytest.approx(0.090311, abs=5e-7)
    assert found.p_better == pytest.approx(0.090311 / 2, abs=5e-7)
    other_way = diebold_mariano((y - g) ** 2, (y - f) ** 2, np.arange(5), horizon=1)
    assert (other_way.statistic, other_way.p) == pytest.approx((-found.statistic, found.p))


def test_diebold_mariano_takes_a_date_for_one_observation_however_many_symbols_it_has():
    random = np.random.default_rng(1)
    own, other = random.random(60), random.random(60)
    alone = diebold_mariano(own, other, np.arange(60), horizon=1)
    thrice = diebold_mariano(np.tile(own, 3), np.tile(other, 3), np.tile(np.arange(60), 3), horizon=1)
    assert (thrice.statistic, thrice.p) == pytest.approx((alone.statistic, alone.p))


@pytest.mark.parametrize(("rows", "horizon"), [(0, 1), (2, 1), (10, 8)])
def test_diebold_mariano_says_nothing_of_too_few_dates(rows, horizon):
    losses = np.random.default_rng(2).random(rows)
    assert diebold_mariano(losses, losses * 2, np.arange(rows), horizon=horizon) is None


def test_equal_losses_are_undefined_not_significant():
    losses = np.random.default_rng(2).random(20)
    assert diebold_mariano(losses, losses.copy(), np.arange(20), horizon=1) is None


def test_pesaran_timmermann_has_the_reference_values():
    actual = np.array([1.2, -0.4, 0, 0.9, -1.1, 0.5, -0.2, 0.3])
    predicted = np.array([0.6, -0.2, -0.1, 1, 0.7, 0.2, -0.4, -0.6])
    found = pesaran_timmermann(actual, predicted, np.arange(8), horizon=1)
    assert found.statistic == pytest.approx(1.414214, abs=5e-7)
    assert found.p == pytest.approx(0.078650, abs=5e-7)
    assert pesaran_timmermann(actual, np.ones(8), np.arange(8), horizon=1) is None


def test_the_panel_form_of_pesaran_timmermann_is_near_the_plain_one_where_both_hold():
    random = np.random.default_rng(3)
    forecast = random.normal(size=800)
    realised = 0.2 * forecast + random.normal(size=800)
    plain = pesaran_timmermann(realised, forecast, np.arange(800), horizon=1)
    panel_form = pesaran_timmermann(realised, forecast, np.arange(800) // 2, horizon=1)
    assert panel_form.statistic == pytest.approx(plain.statistic, rel=0.25)


def test_interval_scores_have_the_reference_values():
    assert pinball(np.array([1.0]), np.array([0.0]), level=0.9) == pytest.approx(0.9)
    assert interval_score(np.array([3.0]), np.array([0.0]), np.array([2.0]), alpha=0.2) == pytest.approx(12.0)
    normal = scoringrules.crps_normal(0.0, 0.0, 1.0, backend="numpy")
    assert float(normal) == pytest.approx(0.2336950, abs=5e-8)
    # Many quantiles of a normal distribution have its CRPS; ours is the same sum of three.
    levels = (np.arange(2000) + 0.5) / 2000
    from scipy.stats import norm

    many = scoringrules.crps_quantile(np.zeros(1), norm.ppf(levels)[None], levels, backend="numpy")
    assert float(many[0]) == pytest.approx(0.2336950, abs=1e-4)


def test_crps_and_interval_score_are_those_of_scoringrules():
    random = np.random.default_rng(4)
    y, middle = random.normal(size=50), random.normal(size=50)
    low, high = middle - random.random(50), middle + random.random(50)
    table = np.column_stack([low, middle, high])
    theirs = scoringrules.crps_quantile(y, table, np.array([0.1, 0.5, 0.9]), backend="numpy")
    np.testing.assert_allclose(crps_of_quantiles(y, middle, low, high, alpha=0.2), theirs, rtol=1e-12)
    theirs = scoringrules.interval_score(y, low, high, 0.2, backend="numpy")
    np.testing.assert_allclose(interval_score(y, low, high, alpha=0.2), theirs, rtol=1e-12)


def test_kupiec_by_hand():
    held = np.array([True] * 90 + [False] * 10)
    # 10 misses of 100 where 20 were promised: LR = -2 ln(.8^90 .2^10 / (.9^90 .1^10))
    ratio = -2.0 * (90 * math.log(0.8 / 0.9) + 10 * math.log(0.2 / 0.1))
    assert kupiec(held, nominal=0.8) == pytest.approx(math.erfc(math.sqrt(ratio / 2.0)))
    assert kupiec(np.array([True] * 8 + [False] * 2), nominal=0.8) == pytest.approx(1.0)
    assert kupiec(np.zeros(0, dtype=bool), nominal=0.8) is None
    assert kupiec(np.ones(50, dtype=bool), nominal=0.8) < 0.001


def test_mincer_zarnowitz_finds_the_line_and_has_nothing_to_say_of_a_constant():
    random = np.random.default_rng(5)
    forecast = random.normal(0.0, 0.01, 2000)
    realised = 0.001 + 0.5 * forecast + random.normal(0.0, 0.005, 2000)
    line = mincer_zarnowitz(realised, forecast, np.arange(2000), horizon=1)
    assert (line.intercept, line.slope) == pytest.approx((0.001, 0.5), abs=0.03)
    assert line.p < 1e-6
    assert line.slope_p < 1e-6
    assert line.r2 == pytest.approx(0.5, abs=0.05)
    honest = mincer_zarnowitz(forecast + random.normal(0.0, 0.01, 2000), forecast, np.arange(2000), horizon=1)
    assert honest.p > 0.01
    assert mincer_zarnowitz(realised, np.full(2000, 0.01), np.arange(2000), horizon=1) is None


def test_hac_errors_of_independent_dates_are_the_usual_ones():
    values = np.random.default_rng(6).normal(0.1, 1.0, 4000)
    found = hac_mean(values, horizon=1)
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(4000), rel=0.1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.04, 0.09, 0.09, None])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("horizon", [1, 20])
def test_forecasts_of_noise_pass_for_skill_no_more_often_than_promised(horizon):
    rejected = {"dm_zero_p": 0, "pt_p": 0, "mz_slope_p": 0, "rank_ic_t": 0}
    for seed in range(100):
        figures = judge(panel(seed=seed, horizon=horizon, symbols=4, dates=250), horizon=horizon)
        for key in rejected:
            value = figures[key]
            rejected[key] += abs(value) > 1.96 if key.endswith("_t") else value < 0.05
    # At 20 bars a naive test is wrong in two of three cases. HAC errors of a dozen independent stretches are too small,
    # but not by much.
    allowed = 11 if horizon == 1 else 25
    assert all(count <= allowed for count in rejected.values()), rejected
    assert rejected["dm_zero_p"] <= 11


def test_a_forecast_with_skill_is_found_in_every_figure():
    frame = panel(seed=1, horizon=1, symbols=6, dates=600, skill=0.3)
    figures = judge(frame, horizon=1)
    assert figures["dm_zero"] < -2
    assert figures["dm_zero_p"] < 0.01
    assert figures["pt_p"] < 0.01
    assert figures["mz_slope"] == pytest.approx(1.0, abs=0.15)
    assert figures["ic"] > 0.1
    assert figures["rank_ic_t"] > 3
    assert figures["echo_lag"] == 0


def test_what_is_not_defined_is_none():
    empty = judge(panel(seed=1, horizon=1, symbols=2, dates=5).iloc[:0], horizon=1)
    assert set(empty.values()) == {None}
    constant = panel(seed=1, horizon=1, symbols=4, dates=50).assign(forecast=0.001)
    figures = judge(constant, horizon=1)
    undefined = {key for key, value in figures.items() if value is None}
    assert {"pt", "pt_p", "mz_slope", "mz_p", "ic", "rank_ic", "icir", "echo_lag"} <= undefined
    assert figures["dm_zero"] is not None
    assert judge(panel(seed=1, horizon=1, symbols=2, dates=50), horizon=1)["ic"] is None


def test_information_of_a_perfect_ranking_is_one():
    frame = panel(seed=2, horizon=1, symbols=5, dates=40)
    random = np.random.default_rng(1)
    frame["forecast"] = np.exp(50 * frame["realised"]) * (1 + 1e-9 * random.random(len(frame)))
    found = information(frame, horizon=1, ranks=True)
    assert found is None or found.mean == pytest.approx(1.0)  # no variation over dates: no test
    half = frame.assign(forecast=np.where(frame["time"].dt.day % 2 == 0, frame["forecast"], -frame["forecast"]))
    found = information(half, horizon=1, ranks=True)
    days = frame.groupby("time").first().index
    assert found.mean == pytest.approx(np.mean(np.where(days.day % 2 == 0, 1.0, -1.0)))
    assert found.dates == 40


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_model_that_repeats_yesterday_is_exposed(horizon):
    frame = panel(seed=3, horizon=horizon, symbols=3, dates=400)
    figures = judge(frame.assign(forecast=frame["last_return"]), horizon=horizon)
    assert figures["echo_lag"] == horizon
    scored = score_frame(frame.assign(forecast=frame["last_return"]), train_mean=0.0, train_naive_mae=0.01)
    assert any("repeats yesterday" in alarm for alarm in alarms({**scored, **figures}, horizon=horizon))
    skilled = panel(seed=3, horizon=horizon, symbols=3, dates=400, skill=0.4)
    scored = score_frame(skilled, train_mean=0.0, train_naive_mae=1.0)
    found = alarms({**scored, **judge(skilled, horizon=horizon)}, horizon=horizon)
    assert not any("repeats yesterday" in alarm for alarm in found)


def test_what_is_too_good_raises_the_alarm():
    figures = {"n": 1000, "rank_ic": 0.2, "hit_rate_pct": 60.0, "sharpe_ratio": 4.0}
    assert len(alarms(figures, horizon=1)) == 3
    assert alarms({**figures, "rank_ic": 0.05, "hit_rate_pct": 52.0, "sharpe_ratio": None}, horizon=1) == []
    assert alarms({**figures, "n": 100}, horizon=1) == []


def test_what_chance_and_a_rising_market_give_raises_none():
    found = []
    for seed in range(200):
        frame = panel(seed=seed, horizon=1, symbols=1, dates=500)
        noise = np.random.default_rng(1000 + seed).normal(0.0, 0.01, len(frame))
        frame = frame.assign(forecast=noise, lower=noise - 0.01, upper=noise + 0.01)
        figures = {"n": 500, "mae": 2.0, "mae_zero": 1.0, "echo_lag": echo_lag(frame, horizon=1)}
        found += alarms(figures, horizon=1)
    assert len(found) <= 2
    figures = {"n": 1000, "rank_ic": 0.2, "hit_rate_pct": 62.0, "always_up_pct": 62.0}
    assert alarms(figures, horizon=20) == []
    assert alarms({**figures, "rank_ic": None}, horizon=1) == []
    assert alarms({**figures, "rank_ic": None, "always_up_pct": 38.0}, horizon=1) == []
    assert len(alarms({**figures, "rank_ic": None, "always_up_pct": 55.0}, horizon=1)) == 1


def test_always_up_over_twenty_bars_of_a_rising_market_raises_none():
    frame = panel(seed=4, horizon=20, symbols=1, dates=500)
    frame = frame.assign(forecast=0.02, realised=frame["realised"] + 0.02)
    figures = {
        **score_frame(frame, train_mean=0.02, train_naive_mae=0.05),
        **judge(frame, horizon=20),
    }
    assert figures["hit_rate_pct"] > 60
    assert alarms(figures, horizon=20) == []


def test_groups_by_symbol_year_and_regime():
    frame = frame_of(dates=700, symbols=("AAA", "BBB"), seed=5)
    by_symbol = by_group(frame, frame["symbol"])
    assert list(by_symbol) == ["AAA", "BBB"]
    own = frame[frame["symbol"] == "AAA"].dropna()
    assert by_symbol["AAA"]["n"] == len(own)
    assert by_symbol["AAA"]["mae"] == pytest.approx((own["realised"] - own["forecast"]).abs().mean())
    assert list(by_group(frame, years(frame))) == sorted({str(time.year) for time in frame["time"]})


def test_regimes_follow_the_volatility_and_no_later_bar_changes_them():
    times = pd.date_range("2018-01-01 21:00", periods=900, freq="B", tz="UTC").as_unit("ns")
    random = np.random.default_rng(7)
    loud = np.where((np.arange(900) // 100) % 2 == 0, 0.005, 0.03)
    close = 50 * np.exp(np.cumsum(random.normal(0, loud)))

    def words(count: int) -> list[str]:
        price = pd.DataFrame({"close": close[:count]}, index=times[:count])
        bars = Bars(frames={"AAA": price}, timeframe="1d", adjustment="none", source="synthetic", synthetic=True)
        frame = pd.DataFrame({"time": times[:count], "symbol": "AAA"})
        return regimes(frame, bars).tolist()

    whole = words(900)
    assert whole[:269] == [""] * 269
    assert set(whole[270:]) == {"calm", "middle", "wild"}
    assert whole[690] == "calm"
    assert whole[730] == "wild"
    assert words(600) == whole[:600]


def test_the_shift_of_a_late_forecast_is_found():
    frame = panel(seed=8, horizon=1, symbols=1, dates=300)
    late = frame["realised"].shift(3)
    assert echo_lag(frame.assign(forecast=late), horizon=1) == 3
    assert echo_lag(frame.assign(forecast=0.0), horizon=1) is None
