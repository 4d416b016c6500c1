"""Promise 1 for every registered feature: finite memory, no future, to the bit; and no absolute prices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from harness import assert_causal, assert_same
from subjects import daily_bars, minute_bars, of_columns

from engine.data.bars import COLUMNS, Bars
from models import features
from models.features import Columns, Feature, compute, parse_features

BARS = {"daily": daily_bars(), "minutes": minute_bars()}


def all_names() -> list[str]:
    """Every feature of the registry; the windowed ones with their shortest, a middle and a long window besides."""
    names = []
    for name, kind in features._KINDS.items():
        windows = () if kind.window is None else sorted({kind.shortest, max(kind.shortest, 7), max(kind.shortest, 33)})
        names += [name, *(f"{name}_{window}" for window in windows)]
    return names


def subject_of(feature: Feature):
    """Its exact values and, beside them, the single-precision ones that a network is given."""

    def values(columns: Columns) -> np.ndarray:
        exact = np.full((len(columns), 1), np.nan)
        if len(columns) >= feature.memory:
            exact[feature.memory - 1 :, 0] = feature.function(columns)
        return np.hstack([exact, compute((feature,), columns)])

    return of_columns(values)


@pytest.mark.parametrize("kind", BARS)
@pytest.mark.parametrize("name", all_names())
def test_a_feature_depends_on_its_last_bars_alone(name: str, kind: str):
    (feature,) = parse_features([name], close_only=False)
    assert_causal(subject_of(feature), BARS[kind], warmup=feature.memory, memory=feature.memory)


@pytest.mark.parametrize("name", all_names())
def test_a_feature_needs_all_of_the_memory_it_declares(name: str):
    (feature,) = parse_features([name], close_only=False)
    columns = Columns.of(BARS["daily"].frames["AAA"])
    values = compute((feature,), columns)[:, 0]
    assert np.isnan(values[: feature.memory - 1]).all()
    assert np.isfinite(values[feature.memory - 1 :]).all()
    window = columns[: feature.memory]
    if feature.reads:
        now = compute((feature,), window)[-1, 0]
        assert any(compute((feature,), changed)[-1, 0] != now for changed in oldest_bar_changed(window))


def oldest_bar_changed(columns: Columns) -> Iterator[Columns]:
    """The same bars with other prices and another volume at the first one; several tries, since signs may survive."""
    random = np.random.default_rng(3)
    for _ in range(20):
        fields = {name: getattr(columns, name).copy() for name in COLUMNS}
        for values in fields.values():
            values[0] *= np.exp(random.normal())
        yield replace(columns, **fields)


def scaled(bars: Bars, *, price: float, volume: float = 1.0) -> Bars:
    """All prices of all symbols times ``price``, all volumes times ``volume``."""
    factors = {"open": price, "high": price, "low": price, "close": price, "volume": volume}
    return replace(bars, frames={symbol: frame * pd.Series(factors) for symbol, frame in bars.frames.items()})


@pytest.mark.parametrize("factor", [0.25, 2.0, 1024.0])
@pytest.mark.parametrize("name", all_names())
def test_prices_times_a_power_of_two_change_no_feature(name: str, factor: float):
    subject = subject_of(parse_features([name], close_only=False)[0])
    bars = BARS["daily"]
    assert_same(subject(bars), subject(scaled(bars, price=factor)), check=f"prices times {factor:g}")
    split = scaled(bars, price=factor, volume=1.0 / factor)
    assert_same(subject(bars), subject(split), check=f"prices times, volumes by {factor:g}")


@pytest.mark.parametrize("name", all_names())
def test_a_later_split_changes_a_feature_by_rounding_only(name: str):
    """A three-for-one split: earlier prices are divided by three and earlier volumes multiplied by it."""
    (feature,) = parse_features([name], close_only=False)
    bars = BARS["daily"]
    for symbol, frame in scaled(bars, price=1.0 / 3.0, volume=3.0).frames.items():
        before, after = (feature.function(Columns.of(f)) for f in (bars.frames[symbol], frame))
        np.testing.assert_allclose(after, before, rtol=0.0, atol=1e-9)
