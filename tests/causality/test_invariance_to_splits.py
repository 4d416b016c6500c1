"""What is known at a bar does not change when the stock splits: from adjusted prices on to forecasts and decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from harness import assert_same
from subjects import (
    MODELS,
    daily_bars,
    load,
    minute_bars,
    of_columns,
    of_strategy,
    orders_in,
    shipped_strategies,
    tiny_forecaster,
)

from engine.data.adjustment import adjusted
from engine.data.bars import Bars
from engine.data.calendars import ZONE
from engine.data.raw import Raw
from models import features
from models.features import Columns, parse_features

BARS = {"days": daily_bars(of_sessions=True), "minutes": minute_bars()}


def split_in_the_middle(bars: Bars, factor: float) -> Bars:
    """The same history, had every stock split half way through: as a source would have it, adjusted for the split."""
    frames, actions = {}, {}
    for symbol, frame in bars.frames.items():
        day = frame.index[len(frame) // 2].tz_convert(ZONE).normalize()
        scale = np.where(frame.index > day, factor, 1.0)
        prices = {name: frame[name] / scale for name in ("open", "high", "low", "close")}
        frames[symbol] = pd.DataFrame({**prices, "volume": frame["volume"] * scale})
        ex_date = pd.DatetimeIndex([day + pd.Timedelta(hours=16)]).tz_convert("UTC")
        actions[symbol] = pd.DataFrame({"split": [factor], "dividend": [0.0]}, index=ex_date)
    raw = Raw(frames=frames, timeframe=bars.timeframe, adjustment="none", source="files", actions=actions)
    mended, adjustment = adjusted(raw, frames, "split")
    return replace(bars, frames=mended, adjustment=adjustment)


@pytest.mark.parametrize("kind", BARS)
@pytest.mark.parametrize("name", list(features._KINDS))
def test_a_split_changes_no_feature(name: str, kind: str):
    (feature,) = parse_features([name], close_only=False)

    def values(columns: Columns) -> np.ndarray:
        return feature.function(columns)[:, None]

    for factor in (2.0, 0.25):
        for symbol, frame in split_in_the_middle(BARS[kind], factor).frames.items():
            before, after = (values(Columns.of(f)) for f in (BARS[kind].frames[symbol], frame))
            np.testing.assert_array_equal(after, before, err_msg=f"a split of {factor:g} is exact")
    for factor in (3.0, 1.5, 0.1):
        for symbol, frame in split_in_the_middle(BARS[kind], factor).frames.items():
            before, after = (values(Columns.of(f)) for f in (BARS[kind].frames[symbol], frame))
            np.testing.assert_allclose(after, before, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_a_split_changes_no_forecast(name: str):
    subject = of_columns(tiny_forecaster(name).forecast)
    for factor in (2.0, 0.25):
        found = subject(split_in_the_middle(BARS["days"], factor))
        assert_same(subject(BARS["days"]), found, check=f"a split of {factor:g}")


@pytest.mark.parametrize("strategy", shipped_strategies())
def test_a_split_changes_no_decision(strategy: str):
    """Quantities are whole shares of another price; which symbol is bought or sold at which bar stays the same."""
    forecaster = tiny_forecaster()
    subject = of_strategy(lambda: load(strategy, forecaster))
    before, after = (
        [(time, symbol, side) for time, _, symbol, side, *_ in orders_in(subject(bars))]
        for bars in (BARS["days"], split_in_the_middle(BARS["days"], 2.0))
    )
    assert before
    assert after == before
