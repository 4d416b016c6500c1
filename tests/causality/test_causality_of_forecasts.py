"""Promise 1 for every network kind and head, and for the indicator that brings the forecast into backtrader."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import assert_causal, assert_same
from subjects import MODELS, daily_bars, of_columns, of_indicator, one_symbol, tiny_forecaster

from models.features import Columns
from models.indicator import DirectionIndicator, ForecastIndicator

RUNS = {
    "lean loop": {"lean": True},
    "stock loop": {"lean": False},
    "nextbar's engine, bar by bar": {"lean": True, "runonce": False, "preload": False},
    "nextbar's engine, preloaded, bar by bar": {"lean": True, "runonce": False},
    "stock loop, preloaded, bar by bar": {"lean": False, "runonce": False},
    "stock loop, bar by bar": {"lean": False, "runonce": False, "preload": False},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_forecast_depends_on_its_last_bars_alone(name: str):
    forecaster = tiny_forecaster(name)
    assert_causal(of_columns(forecaster.forecast), daily_bars(), warmup=forecaster.memory, memory=forecaster.memory)


@pytest.mark.parametrize("name", MODELS)
def test_the_latest_forecast_is_the_last_of_the_series(name: str):
    forecaster = tiny_forecaster(name)

    def one_at_a_time(columns: Columns) -> np.ndarray:
        known = np.full((len(columns), 3), np.nan)
        for end in range(forecaster.memory, len(columns) + 1):
            known[end - 1] = forecaster.latest(columns[end - forecaster.memory : end])
        return known

    bars = daily_bars()
    assert_same(of_columns(forecaster.forecast)(bars), of_columns(one_at_a_time)(bars), check="bar by bar")


@pytest.mark.parametrize("name", MODELS)
def test_an_interval_holds_its_forecast(name: str):
    forecaster = tiny_forecaster(name)
    rows = np.concatenate([forecaster.forecast(Columns.of(frame)) for frame in daily_bars().frames.values()])
    rows = rows[~np.isnan(rows[:, 0])]
    assert len(rows)
    assert (rows[:, 1] <= rows[:, 0]).all()
    assert (rows[:, 0] <= rows[:, 2]).all()


@pytest.mark.parametrize("name", MODELS)
def test_prices_times_a_power_of_two_change_no_forecast(name: str):
    subject = of_columns(tiny_forecaster(name).forecast)
    bars = daily_bars()
    halved = {
        symbol: frame.assign(**{name: frame[name] / 2.0 for name in ("open", "high", "low", "close")})
        for symbol, frame in bars.frames.items()
    }
    assert_same(subject(bars), subject(replace(bars, frames=halved)), check="prices halved")


@pytest.mark.parametrize("bars", [daily_bars(), one_symbol(daily_bars())], ids=["three symbols", "one symbol"])
@pytest.mark.parametrize("run", ["lean loop", "stock loop"])
def test_the_indicator_depends_on_its_last_bars_alone(run: str, bars):
    forecaster = tiny_forecaster()
    subject = of_indicator(ForecastIndicator, params={"bundle": forecaster}, **RUNS[run])
    assert_causal(subject, bars, warmup=forecaster.memory, memory=forecaster.memory)


@pytest.mark.parametrize("bars", [daily_bars(), one_symbol(daily_bars())], ids=["three symbols", "one symbol"])
@pytest.mark.parametrize("run", RUNS)
def test_the_indicator_gives_the_forecasters_own_numbers_however_it_is_run(run: str, bars):
    forecaster = tiny_forecaster()
    expected = of_columns(forecaster.forecast)(bars)
    expected = {time: tuple(tuple(v) if isinstance(v, list) else v for v in row) for time, row in expected.items()}
    subject = of_indicator(ForecastIndicator, params={"bundle": forecaster}, **RUNS[run])
    assert_same(expected, subject(bars), check=run)


@pytest.mark.parametrize("horizon", [2, 3])
@pytest.mark.parametrize("run", RUNS)
def test_classes_of_every_horizon_are_the_forecasters_own_however_they_are_read(run: str, horizon: int):
    forecaster = tiny_forecaster("lstm, direction, two horizons")
    classes = forecaster.at(horizon).with_classes
    bars = daily_bars()
    expected = {
        time: tuple(tuple(v) if isinstance(v, list) else v for v in row)
        for time, row in of_columns(classes.forecast)(bars).items()
    }
    subject = of_indicator(DirectionIndicator, params={"bundle": forecaster, "horizon": horizon}, **RUNS[run])
    assert_same(expected, subject(bars), check=run)


@pytest.mark.parametrize("calibration", ["conformal", "adaptive"])
def test_classes_depend_on_their_last_bars_alone(calibration: str):
    classes = tiny_forecaster("lstm, direction, two horizons", calibration=calibration).at(3).with_classes
    assert_causal(of_columns(classes.forecast), daily_bars(), warmup=classes.memory, memory=classes.memory)
