"""Features: hand-computed values, the same bits from any history, indifference to price scale, clear errors."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_frame

from engine.errors import ConfigError
from models.features import Columns, compute, max_memory, parse_features

ALL = [
    *("log_return", "log_return_5", "range", "gap", "volatility", "volatility_7", "volume_zscore", "volume_zscore_6"),
    *("rsi", "rsi_3", "distance_from_mean", "distance_from_mean_4", "weekday", "month", "time_of_session"),
]


def value(name: str, columns: Columns) -> float:
    """The feature at the last bar."""
    return float(compute(parse_features([name], close_only=False), columns)[-1, 0])


def of_closes(*closes: float) -> Columns:
    prices = np.array(closes)
    times = pd.date_range("2024-01-02 21:00", periods=len(prices), freq="D").as_unit("ns").asi8
    return Columns(times, prices, prices, prices, prices, np.ones(len(prices)))


def single(time: str) -> Columns:
    one = np.ones(1)
    return Columns(pd.DatetimeIndex([time], tz="UTC").as_unit("ns").asi8, one, one, one, one, one)


def test_returns_range_and_gap_by_hand():
    columns = Columns(
        np.arange(3), np.array([10.0, 11.0, 12.0]), np.array([12.0, 12.0, 15.0]), np.array([9.0, 10.0, 12.0]),
        np.array([11.0, 10.0, 14.0]), np.ones(3),
    )  # fmt: skip
    assert value("log_return", columns) == pytest.approx(math.log(1.4))
    assert value("log_return_2", columns) == pytest.approx(math.log(14 / 11))
    assert value("range", columns) == pytest.approx(math.log(15 / 12))
    assert value("gap", columns) == pytest.approx(math.log(12 / 10))


def test_volatility_is_the_standard_deviation_of_the_log_returns():
    columns = of_closes(1.0, math.e, math.e, math.e**3)  # log returns 1, 0, 2
    assert value("volatility_3", columns) == pytest.approx(math.sqrt(2 / 3))
    assert value("volatility_2", columns) == pytest.approx(1.0)


def test_rsi_is_cutlers_between_minus_one_and_one():
    assert value("rsi_3", of_closes(10, 12, 11, 14)) == pytest.approx((5 - 1) / (5 + 1))  # RSI 83.3
    assert value("rsi_3", of_closes(10, 11, 12, 13)) == 1.0
    assert value("rsi_3", of_closes(13, 12, 11, 10)) == -1.0
    assert value("rsi_3", of_closes(10, 10, 10, 10)) == 0.0


def test_distance_from_mean_includes_the_bar_itself():
    assert value("distance_from_mean_2", of_closes(10, 14)) == pytest.approx(math.log(14 / 12))


def test_volume_zscore_by_hand_and_zero_where_volume_is_constant():
    columns = of_closes(1, 1, 1)
    volumes = np.array([10.0, 10.0, 40.0])  # of their mean 20: 1/2, 1/2, 2; two equal ones and one give sqrt(2)
    varied = Columns(columns.times, columns.open, columns.high, columns.low, columns.close, volumes)
    assert value("volume_zscore_3", varied) == pytest.approx(math.sqrt(2))
    for volume in (0.0, 0.1, 123_457.0):
        constant = Columns(columns.times, columns.open, columns.high, columns.low, columns.close, np.full(3, volume))
        assert value("volume_zscore_3", constant) == 0.0


@pytest.mark.parametrize(
    ("time", "weekday", "month", "share"),
    [
        ("2024-07-03 17:00", 2, 7, 210 / 390),  # 13:00 in summer
        ("2024-01-31 21:00", 2, 1, 1.0),  # 16:00 in winter
        ("2024-02-01 05:00", 2, 1, -570 / 390),  # midnight in New York: the end of Wednesday, in January
        ("2024-03-08 14:31", 4, 3, 1 / 390),  # Friday 9:31, two days before summer time
        ("2024-03-11 13:31", 0, 3, 1 / 390),  # Monday 9:31 in summer time
    ],
)
def test_calendar_features_read_the_new_york_clock(time, weekday, month, share):
    columns = single(time)
    assert value("weekday", columns) == weekday
    assert value("month", columns) == month
    assert value("time_of_session", columns) == pytest.approx(share)


def test_memory_is_declared_and_rows_without_it_are_nan():
    features = parse_features(ALL, close_only=False)
    memory = {feature.name: feature.memory for feature in features}
    assert memory["log_return"] == 2
    assert memory["volatility"] == memory["log_return_5"] + 15 == 21
    assert memory["volume_zscore"] == memory["distance_from_mean"] == 20
    assert memory["weekday"] == memory["range"] == 1
    assert max_memory(features) == 21
    values = compute(features, Columns.of(make_frame(40)))
    assert values.dtype == np.float32
    for position, feature in enumerate(features):
        assert np.isnan(values[: feature.memory - 1, position]).all()
        assert np.isfinite(values[feature.memory - 1 :, position]).all()
    assert np.isnan(compute(features, Columns.of(make_frame(0)))).shape == (0, len(ALL))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), end=st.integers(22, 150), future=st.integers(0, 40))
def test_a_value_is_the_same_to_the_bit_from_any_history(seed, end, future):
    frame = make_frame(end + future, seed=seed)
    features = parse_features(ALL, close_only=False)
    columns = Columns.of(frame)
    whole = compute(features, columns)[end - 1]
    assert compute(features, columns[:end])[-1].tobytes() == whole.tobytes()
    for position, feature in enumerate(features):
        window = compute([feature], columns[end - feature.memory : end])
        assert len(window) == feature.memory
        assert window[-1, 0].tobytes() == whole[position].tobytes(), feature.name


def test_strided_columns_give_the_same_bits_as_contiguous_ones():
    frame = make_frame(60)
    block = frame.to_numpy()  # row-major: each column is strided
    strided = Columns(frame.index.asi8, *block.T)
    features = parse_features(ALL, close_only=False)
    assert compute(features, strided).tobytes() == compute(features, Columns.of(frame)).tobytes()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.sampled_from([0.001, 1 / 7, 0.5, 4.0, 20.0]))
def test_a_later_split_changes_no_feature(seed, factor):
    frame = make_frame(60, seed=seed)
    scaled = frame.mul([factor, factor, factor, factor, 1.0], axis=1)
    prices = [name for name in ALL if not name.startswith("volume")]
    features = parse_features(prices, close_only=False)
    before, after = compute(features, Columns.of(frame)), compute(features, Columns.of(scaled))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["volatilty"], "unknown feature 'volatilty'; did you mean volatility"),
        (["sharpe"], "expected one of log_return"),
        (["weekday_5"], "weekday takes no number of bars"),
        (["volatility_1"], "at least 2 bars, found 1"),
        (["rsi", "rsi"], "rsi is given twice"),
        (["log_return_0"], "unknown feature"),
    ],
)
def test_bad_names_say_where_and_what_to_do(names, message):
    with pytest.raises(ConfigError, match=r"model\.features") as error:
        parse_features(names, close_only=False)
    assert message in str(error.value)


def test_close_only_bars_refuse_features_that_need_more():
    parse_features(["log_return", "rsi", "distance_from_mean", "weekday"], close_only=True)
    for name in ("range", "gap", "volume_zscore"):
        with pytest.raises(ConfigError, match=f"model.features: {name} needs .*closes only"):
            parse_features([name], close_only=True)
