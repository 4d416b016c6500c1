"""Scores by hand, and the frame they are computed from."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
from synthetic import make_bars, make_bundle, make_config

from models.evaluation import FORECAST_COLUMNS, forecast_frame, score, score_frame
from models.features import Columns
from models.forecaster import Forecaster

NAN = math.nan


def scored(realised, forecast, *, lower=None, upper=None, last=None, mean=0.5, naive=2.0):
    y, f = np.array(realised, dtype=float), np.array(forecast, dtype=float)
    return score(
        y,
        f,
        np.array(lower if lower is not None else f - 1.0, dtype=float),
        np.array(upper if upper is not None else f + 1.0, dtype=float),
        last_return=np.array(last if last is not None else np.zeros_like(y), dtype=float),
        train_mean=mean,
        train_naive_mae=naive,
    )


def test_every_figure_by_hand():
    figures = scored(
        [1.0, -2.0, 0.0, 3.0],
        [2.0, -1.0, 1.0, -1.0],
        lower=[0.0, -1.5, 0.0, -2.0],
        upper=[1.0, 0.0, 2.0, 2.0],
        last=[1.0, 1.0, 1.0, 1.0],
    )
    assert figures == pytest.approx(
        {
            "n": 4,
            "mae": (1 + 1 + 1 + 4) / 4,
            "rmse": math.sqrt((1 + 1 + 1 + 16) / 4),
            "mase": 1.75 / 2.0,
            "hit_rate_pct": 100 * 2 / 3,  # the row with y = 0 does not count
            "always_up_pct": 100 * 2 / 3,
            "r2_out_of_sample": 1 - 19 / 14,
            "coverage_pct": 50.0,  # 1 in [0, 1] and 0 in [0, 2]: the ends belong to it
            "nominal_coverage_pct": 80.0,
            "mae_zero": 6 / 4,
            "rmse_zero": math.sqrt(14 / 4),
            "mase_zero": 0.75,
            "mae_last_return": (0 + 3 + 1 + 2) / 4,
            "rmse_last_return": math.sqrt(14 / 4),
            "mase_last_return": 0.75,
            "hit_rate_last_return_pct": 100 * 2 / 3,
            "r2_out_of_sample_last_return": 0.0,
            "mae_train_mean": (0.5 + 2.5 + 0.5 + 2.5) / 4,
            "rmse_train_mean": math.sqrt((0.25 + 6.25 + 0.25 + 6.25) / 4),
            "mase_train_mean": 0.75,
            "hit_rate_train_mean_pct": 100 * 2 / 3,
            "r2_out_of_sample_train_mean": 1 - 13 / 14,
        }
    )


def test_a_perfect_forecast_and_a_zero_one():
    perfect = scored([1.0, -2.0], [1.0, -2.0])
    assert (perfect["mae"], perfect["r2_out_of_sample"], perfect["hit_rate_pct"]) == (0.0, 1.0, 100.0)
    zero = scored([1.0, -2.0], [0.0, 0.0])
    assert (zero["r2_out_of_sample"], zero["hit_rate_pct"]) == (0.0, 0.0)  # no sign is no hit


@pytest.mark.parametrize("column", ["realised", "forecast", "lower", "upper", "last"])
def test_a_nan_anywhere_leaves_the_row_out_of_everything(column):
    values = {
        "realised": [1.0, 9.0],
        "forecast": [2.0, 9.0],
        "lower": [0.0, 0.0],
        "upper": [3.0, 1.0],
        "last": [1.0, 5.0],
    }
    alone = scored(**{name: part[:1] for name, part in values.items()})
    values[column] = [values[column][0], NAN]
    assert scored(**values) == alone
    assert alone["n"] == 1


def test_what_is_not_defined_is_none():
    empty = scored([], [])
    assert empty["n"] == 0
    assert all(value is None for name, value in empty.items() if name not in ("n", "nominal_coverage_pct"))
    flat = scored([0.0, 0.0], [1.0, 1.0], naive=0.0)
    assert flat["hit_rate_pct"] is flat["always_up_pct"] is flat["r2_out_of_sample"] is flat["mase"] is None
    assert flat["mae"] == 1.0


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_frame_holds_each_decision_bar_beside_what_came(tmp_path, horizon):
    bars, config = make_bars(), make_config(model={"horizon": horizon})
    forecaster = Forecaster.load(make_bundle(tmp_path, bars=bars, config=config).path)
    frame = forecast_frame(bars, forecaster, config.spans.get("validate"))
    assert tuple(frame.columns) == FORECAST_COLUMNS
    assert frame["symbol"].unique().tolist() == ["AAA", "BBB"]
    for symbol, part in frame.groupby("symbol"):
        own = bars.frames[symbol]
        whole = forecaster.forecast(Columns.of(own))
        positions = own.index.get_indexer(part["time"])
        assert part["time"].dt.date.min() >= config.spans.get("validate")[0]
        assert part["time"].dt.date.max() <= config.spans.get("validate")[1]
        assert part[["forecast", "lower", "upper"]].to_numpy().tobytes() == whole[positions].tobytes()
        logs = np.log(own["close"].to_numpy())
        assert part["realised"].isna().sum() == horizon  # the span's last labels would reach out of it
        taken = positions[:-horizon]
        np.testing.assert_allclose(
            part["realised"][:-horizon], logs[taken + horizon] - logs[taken], rtol=1e-4, atol=1e-7
        )
        np.testing.assert_allclose(
            part["last_return"], logs[positions] - logs[positions - horizon], rtol=1e-4, atol=1e-7
        )


def test_the_frame_of_a_span_without_bars_is_empty_and_scores_to_none(tmp_path):
    bars, config = make_bars(), make_config()
    forecaster = Forecaster.load(make_bundle(tmp_path, bars=bars, config=config).path)
    frame = forecast_frame(bars, forecaster, (date(2030, 1, 1), date(2030, 2, 1)))
    assert len(frame) == 0
    assert score_frame(frame, train_mean=0.0, train_naive_mae=1.0)["n"] == 0


def test_the_frame_starts_with_nan_where_a_symbol_is_too_young(tmp_path):
    bars, config = make_bars(), make_config()
    forecaster = Forecaster.load(make_bundle(tmp_path, bars=bars, config=config).path)
    frame = forecast_frame(bars, forecaster, config.spans.get("train"))
    young = frame[frame["symbol"] == "BBB"]
    assert young["forecast"].isna().sum() == 9
    assert young["last_return"].isna().sum() == 1
    assert score_frame(frame, train_mean=0.0, train_naive_mae=1.0)["n"] == len(frame) - 18 - 2
