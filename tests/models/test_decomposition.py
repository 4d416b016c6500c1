"""Decomposition: what statsmodels makes of the same window, from no bar after it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from statsmodels.tsa.seasonal import MSTL, STL
from synthetic import make_frame

from engine.errors import ConfigError
from models.decomposition import COMPONENTS, cycles, weights_of
from models.features import Columns, compute, parse_features


def statsmodels_at_the_end(method: str, log_closes: np.ndarray) -> list[float]:
    """The trend's last step, and the last seasonal (all seasons together) and remainder."""
    window = len(log_closes)
    if method == "stl":
        found = STL(log_closes, period=5, seasonal=cycles(window, 5)).fit()
    else:
        found = MSTL(log_closes, periods=(5, 21), windows=[cycles(window, 5), cycles(window, 21)]).fit()
    seasonal = np.asarray(found.seasonal).reshape(window, -1)[-1].sum()
    return [found.trend[-1] - found.trend[-2], seasonal, found.resid[-1]]


@pytest.mark.parametrize(("method", "window"), [("stl", 11), ("stl", 60), ("stl", 83), ("mstl", 43), ("mstl", 120)])
def test_a_feature_is_statsmodels_decomposition_of_its_window(method, window):
    columns = Columns.of(make_frame(200, seed=6))
    features = parse_features([f"{method}_{component}_{window}" for component in COMPONENTS], close_only=False)
    for end in (window, 150, 200):
        expected = statsmodels_at_the_end(method, np.log(columns.close[end - window : end]))
        exact = [float(feature.function(columns[end - window : end])[-1]) for feature in features]
        np.testing.assert_allclose(exact, expected, rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(compute(features, columns[:end])[-1], expected, rtol=0.0, atol=1e-6)
    assert {feature.memory for feature in features} == {window}


def test_a_weekly_rhythm_is_found_in_the_season_and_a_slope_in_the_trend():
    """Up a quarter of a percent each bar, and one percent higher on every fifth."""
    log_closes = 0.0025 * np.arange(100) + 0.01 * (np.arange(100) % 5 == 4)
    frame = make_frame(returns=np.diff(log_closes, prepend=0.0))
    features = parse_features(["stl_trend", "stl_seasonal", "stl_remainder"], close_only=True)
    trend, seasonal, remainder = compute(features, Columns.of(frame))[-1]
    assert trend == pytest.approx(0.0025, abs=1e-5)
    assert seasonal == pytest.approx(0.008, abs=1e-5), "a fifth of the percent is the trend's"
    assert remainder == pytest.approx(0.0, abs=1e-5)


def test_weights_are_computed_once():
    assert weights_of("stl", "trend", 60) is weights_of("stl", "trend", 60)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stl_trend_10", "stl_trend_10 needs a window of at least 11 bars, found 10"),
        ("mstl_seasonal_42", "at least 43 bars, found 42"),
        ("mstl_trend_5000", "mstl_trend_5000 takes a window of at most 260 bars, found 5000"),
        ("stl_trends", "did you mean stl_trend"),
    ],
)
def test_bad_windows_say_what_fits(name, message):
    with pytest.raises(ConfigError, match=r"model\.features: ") as error:
        parse_features([name], close_only=False)
    assert message in str(error.value)


def test_statsmodels_is_imported_for_such_a_feature_only():
    code = (
        "import sys; from models.features import parse_features as p; "
        "p(['log_return', 'volatility'], close_only=False); before = 'statsmodels' in sys.modules; "
        "p(['stl_trend'], close_only=False); print(before, 'statsmodels' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]
