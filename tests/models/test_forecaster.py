"""The forecaster: the same bits over a whole series, a cut one, and at its last bar alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_bundle, make_config, make_frame

from models.features import Columns, compute
from models.forecaster import Forecaster


@pytest.fixture(scope="module", params=["quantile", "point", "direction"])
def forecaster(request, tmp_path_factory) -> Forecaster:
    config = make_config(request.param)
    return Forecaster.load(make_bundle(tmp_path_factory.mktemp("bundles"), config=config).path)


def test_rows_without_enough_bars_are_nan(forecaster):
    assert forecaster.memory == 10
    assert forecaster.horizon == 1
    forecasts = forecaster.forecast(Columns.of(make_frame(30)))
    assert forecasts.shape == (30, 3)
    assert forecasts.dtype == np.float64
    assert np.isnan(forecasts[:9]).all()
    assert np.isfinite(forecasts[9:]).all()
    assert np.isnan(forecaster.forecast(Columns.of(make_frame(9)))).all()
    assert forecaster.forecast(Columns.of(make_frame(0))).shape == (0, 3)


def test_it_is_the_networks_own_forecast(forecaster):
    bars = Columns.of(make_frame(10))
    window = compute(forecaster.bundle.features, bars)[-5:]
    with torch.inference_mode():
        expected = forecaster.bundle.network.forecast(torch.from_numpy(window)[None])[0]
    np.testing.assert_allclose(forecaster.latest(bars), expected, rtol=1e-4, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(10, 200))
def test_whole_cut_and_latest_agree_to_the_bit(forecaster, seed, count):
    columns = Columns.of(make_frame(200, seed=seed))
    whole = forecaster.forecast(columns)
    assert forecaster.forecast(columns[:count]).tobytes() == whole[:count].tobytes()
    latest = forecaster.latest(columns[count - 10 : count])
    assert np.array(latest).tobytes() == whole[count - 1].tobytes()


def test_changing_the_future_changes_no_earlier_forecast(forecaster):
    frame = make_frame(150)
    changed = frame.copy()
    changed.iloc[100:] *= 3.0
    before, after = (forecaster.forecast(Columns.of(f)) for f in (frame, changed))
    assert before[:100].tobytes() == after[:100].tobytes()
    assert before[100:].tobytes() != after[100:].tobytes()


def test_latest_wants_exactly_its_memory(forecaster):
    for count in (9, 11):
        with pytest.raises(ValueError, match=f"expected the last 10 bars, found {count}"):
            forecaster.latest(Columns.of(make_frame(count)))


def test_forecasting_does_not_import_lightning():
    code = "import sys, models.forecaster, models.indicator, models.evaluation, models.bundle, engine.training\n"
    code += "sys.exit('pytorch_lightning' in sys.modules or 'lightning_fabric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_several_symbols_in_one_pass_are_each_alone(forecaster):
    """A live step forecasts all its symbols together: row by row the same bits as one at a time."""
    several = [Columns.of(make_frame(forecaster.memory, seed=seed)) for seed in range(70)]
    together = forecaster.latest_of(several)
    assert [values for values, _ in together] == [forecaster.latest(columns) for columns in several]
    features = compute(forecaster.bundle.features, several[3])
    assert together[3][1] == features[-1].tolist()
