"""The indicator in stock backtrader: the forecaster's own bits in every mode of Cerebro."""

from __future__ import annotations

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from synthetic import make_bars, make_bundle, make_config, make_frame

from engine.errors import BundleError, ConfigError
from models.features import Columns
from models.forecaster import Forecaster
from models.indicator import ForecastIndicator

MODES = {
    "runonce": {},
    "next": {"runonce": False},
    "no preload": {"runonce": False, "preload": False},
    "saving memory": {"exactbars": 1},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles"))


class Recorder(bt.Strategy):
    """Writes down every bar's forecast the first time it is seen; looks from the first bar on."""

    params = (("bundle", None),)

    def __init__(self):
        self.indicators = [ForecastIndicator(data, bundle=self.p.bundle) for data in self.datas]
        self.seen = {data._name: {} for data in self.datas}

    def prenext(self):
        self.next()

    def next(self):
        for data, indicator in zip(self.datas, self.indicators, strict=True):
            if len(data):
                lines = (indicator.forecast[0], indicator.lower[0], indicator.upper[0])
                self.seen[data._name].setdefault(len(data), lines)


def run(frames: dict[str, pd.DataFrame], bundle, **mode) -> dict[str, np.ndarray]:
    cerebro = bt.Cerebro(stdstats=False, **mode)
    for symbol, frame in frames.items():
        data = bt.feeds.PandasData(dataname=frame.set_axis(frame.index.tz_localize(None)), openinterest=-1)
        cerebro.adddata(data, name=symbol)
    cerebro.addstrategy(Recorder, bundle=bundle)
    seen = cerebro.run()[0].seen
    assert all(list(rows) == list(range(1, len(frames[symbol]) + 1)) for symbol, rows in seen.items())
    return {symbol: np.array(list(rows.values())) for symbol, rows in seen.items()}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_every_mode_gives_the_forecasters_bits_for_datas_of_any_start_and_end(bundle, mode):
    frame = make_frame(60, seed=8)
    frames = {
        "whole": frame,
        "late": make_frame(60, seed=9).iloc[25:],
        "early": make_frame(60, seed=10).iloc[:20],
        "short": make_frame(60, seed=11).iloc[40:45],
    }
    lines = run(frames, str(bundle.path), **mode)
    forecaster = Forecaster.load(bundle.path)
    for symbol, expected in frames.items():
        assert lines[symbol].tobytes() == forecaster.forecast(Columns.of(expected)).tobytes(), symbol
    assert np.isfinite(lines["whole"][9:]).all()


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_later_bars_change_no_earlier_line(bundle, mode):
    frame = make_frame(40, seed=8)
    changed = frame.copy()
    changed.iloc[25:] *= 2.0
    whole = run({"AAA": frame}, bundle.path, **mode)["AAA"]
    assert run({"AAA": changed}, bundle.path, **mode)["AAA"][:25].tobytes() == whole[:25].tobytes()
    assert run({"AAA": frame.iloc[:25]}, bundle.path, **mode)["AAA"].tobytes() == whole[:25].tobytes()


def test_it_delays_its_strategy_until_the_memory_is_filled(bundle):
    class Waiting(bt.Strategy):
        def __init__(self):
            self.forecast = ForecastIndicator(self.data, bundle=bundle.path)
            self.lengths = []

        def next(self):
            self.lengths.append(len(self))
            assert self.forecast.lower[0] <= self.forecast[0] <= self.forecast.upper[0]

    cerebro = bt.Cerebro(stdstats=False)
    frame = make_frame(15)
    data = bt.feeds.PandasData(dataname=frame.set_axis(frame.index.tz_localize(None)), openinterest=-1)
    cerebro.adddata(data)
    cerebro.addstrategy(Waiting)
    assert cerebro.run()[0].lengths == list(range(10, 16))


def test_indicators_on_one_folder_share_a_forecaster_and_a_given_one_is_used(bundle, monkeypatch):
    loads = []
    load = Forecaster.load
    monkeypatch.setattr(Forecaster, "load", lambda path: loads.append(path) or load(path))
    moved = make_bundle(bundle.path.parent / "again").path
    frames = {name: make_frame(12, seed=seed) for seed, name in enumerate("abcd")}
    run(frames, moved)
    assert len(loads) == 1
    given = load(bundle.path)
    run(frames, given)
    assert len(loads) == 1


def test_minute_bars_read_the_same_clock_as_the_frame(tmp_path):
    features = ["log_return", "time_of_session", "weekday", "month"]
    config = make_config(model={"features": features})
    bundle = make_bundle(tmp_path, bars=make_bars(), config=config)
    frame = make_frame(300)
    frame.index = pd.date_range("2024-03-08 14:31", periods=300, freq="1min", tz="UTC", name="time").as_unit("ns")
    expected = Forecaster.load(bundle.path).forecast(Columns.of(frame))
    assert run({"AAA": frame}, bundle.path)["AAA"].tobytes() == expected.tobytes()


def test_a_missing_bundle_is_said_at_once(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        run({"AAA": make_frame(12)}, tmp_path / "none")
    with pytest.raises(ConfigError, match="expected a bundle's folder or a Forecaster, found None"):
        run({"AAA": make_frame(12)}, None)
