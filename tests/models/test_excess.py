"""The excess over the median of all symbols, by hand, and what it must not see."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import make_bars, make_config, make_frame

from engine.config import RunConfig
from engine.data.universe import Membership
from engine.errors import ConfigError
from models import fitting
from models.evaluation import forecast_frame
from models.features import parse_features
from models.fitting import fit
from models.fitting.bundles import fit_bundle
from models.forecaster import Forecaster
from models.windows import Windows

(LOG_RETURN,) = parse_features(["log_return"], close_only=False)
DAYS = pd.DatetimeIndex(pd.bdate_range("2024-01-01", periods=5) + pd.Timedelta(hours=21), tz="UTC").as_unit("ns")


def frame(closes: dict[int, float]) -> pd.DataFrame:
    """Bars on some of five days, day -> close."""
    close = np.array(list(closes.values()))
    values = dict.fromkeys(("open", "high", "low", "close"), close) | {"volume": np.ones(len(close))}
    return pd.DataFrame(values, index=DAYS[list(closes)].rename("time"))


def labels(bars, horizon: int = 1) -> dict[str, list[float]]:
    """Symbol -> its labels in per cent of simple returns' logarithms, rounded."""
    windows = Windows.build(bars, [LOG_RETURN], lookback=1, horizons=[horizon], target="excess")
    parts = {s: windows.labels[start : start + len(bars.frames[s]), 0] for s, start in windows.starts.items()}
    return {symbol: np.round(100.0 * part, 3).tolist() for symbol, part in parts.items()}


def up(*per_cent: float) -> dict[int, float]:
    """Closes from day 0 on, from their log returns."""
    return dict(enumerate((100.0 * np.exp(np.cumsum([0.0, *per_cent]) / 100.0)).tolist()))


def test_it_is_the_return_less_the_median_of_the_same_stretch() -> None:
    bars = make_bars({"A": frame(up(1, 5)), "B": frame(up(2, 1)), "C": frame(up(6, 3))})
    np.testing.assert_equal(labels(bars), {"A": [-1, 2, np.nan], "B": [0, -2, np.nan], "C": [4, 0, np.nan]})
    two = labels(bars, horizon=2)  # 6, 3 and 9
    np.testing.assert_equal(two, {"A": [0] + [np.nan] * 2, "B": [-3] + [np.nan] * 2, "C": [3] + [np.nan] * 2})


def test_late_listings_and_gaps_are_compared_with_those_that_have_the_same_stretch() -> None:
    late = {2: 50.0, 3: 51.0, 4: 52.0}
    gap = up(1, 1, 1, 1)
    del gap[2]
    found = labels(make_bars({"A": frame(up(1, 2, 3, 4)), "B": frame(gap), "C": frame(late)}))
    half = round(50 * np.log(51 / 50) - 1.5, 3)
    assert found["A"][:1] == [0.0]  # with B
    assert np.isnan(found["A"][1])  # nobody else has the bars of days 1 and 2
    assert np.isnan(found["B"][1])  # its own next bar is that of day 3
    assert found["A"][2] == pytest.approx(-half, abs=0.002)  # with C
    assert found["C"][0] == pytest.approx(half, abs=0.002)


def test_only_members_of_a_universe_make_the_median() -> None:
    bars = make_bars({"A": frame(up(1, 1)), "B": frame(up(3, 3)), "C": frame(up(90, 90)), "D": frame(up(2, 2))})
    always = ((date(2000, 1, 1), None),)
    spells = {"A": always, "B": always, "C": ((date(2000, 1, 1), date(2023, 1, 1)),), "D": always}
    found = labels(replace(bars, membership=Membership(spells)))
    assert [found[symbol][0] for symbol in "ABCD"] == [-1, 1, 88, 0]


def test_bars_with_nobody_beside_them_are_not_trained_on() -> None:
    bars = make_bars({"A": frame(up(1, 2, 3)), "B": frame({2: 10.0, 3: 11.0})})
    windows = Windows.build(bars, [LOG_RETURN], lookback=1, horizons=[1], target="excess")
    assert windows.rows({"A": slice(0, 3), "B": slice(0, 1)}).tolist() == [2]  # B lacks a return at its first bar


def excess_config(**model: object) -> RunConfig:
    return make_config("quantile", model={"target": "excess", **model})


def three_symbols():
    return make_bars({name: make_frame(160, seed=seed) for seed, name in enumerate(("AAA", "BBB", "CCC"))})


def test_the_forecast_is_judged_by_the_excess_that_came_and_sees_one_symbol_only() -> None:
    bars = three_symbols()
    bundle = fit_bundle(excess_config(), bars, root=Path("bundles"))
    forecaster = Forecaster(bundle)
    span = (date(2020, 6, 15), date(2020, 8, 12))
    frame = forecast_frame(bars, forecaster, span)
    returns = {s: np.log(f["close"]).diff() for s, f in bars.frames.items()}
    table = pd.DataFrame(returns)
    expected = table.sub(table.median(axis=1), axis=0)
    for row in frame.iloc[::17].itertuples():
        assert row.last_return == pytest.approx(expected.loc[row.time, row.symbol], abs=1e-6)
    came = frame.pivot(index="time", columns="symbol", values="realised")
    ahead = expected.shift(-1).loc[came.index]
    np.testing.assert_allclose(came.iloc[:-1], ahead.iloc[:-1], atol=1e-6)
    assert came.iloc[-1].isna().all()
    alone = forecast_frame(replace(bars, frames={"BBB": bars.frames["BBB"]}), forecaster, span)
    own = frame[frame["symbol"] == "BBB"].reset_index(drop=True)
    np.testing.assert_array_equal(alone["forecast"], own["forecast"])
    assert alone["realised"].isna().all()


def test_no_later_bar_changes_what_was_fitted() -> None:
    bars = three_symbols()
    scale = np.where(bars.frames["AAA"].index < pd.Timestamp("2020-06-15", tz="UTC"), 1.0, 1.7)
    later = {symbol: frame.mul(scale, axis=0) for symbol, frame in bars.frames.items()}
    later["CCC"] = later["CCC"].iloc[:-20]
    first, second = (
        fit_bundle(excess_config(), each, root=Path("bundles")) for each in (bars, replace(bars, frames=later))
    )
    for (name, one), two in zip(first.network.state_dict().items(), second.network.state_dict().values(), strict=True):
        assert np.array_equal(one.numpy(), two.numpy()), name


def test_who_is_not_learned_from_is_still_among_those_to_be_above_of(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = three_symbols()
    tasks = []
    monkeypatch.setattr(fitting, "fit", lambda task: tasks.append(task) or fit(task))
    for learned in (None, ["BBB"]):
        fit_bundle(excess_config(), bars, root=Path("bundles"), learned=learned)
    whole, some = tasks
    first, last = whole.windows.starts["BBB"], whole.windows.starts["CCC"]
    assert some.train_rows.tolist() == [row for row in whole.train_rows.tolist() if first <= row < last]
    np.testing.assert_array_equal(some.windows.labels, whole.windows.labels)


def test_one_symbol_has_nothing_to_be_above_of() -> None:
    with pytest.raises(ConfigError, match=r"^model\.target: .*no bar has a second symbol beside it"):
        fit_bundle(excess_config(), make_bars({"AAA": make_frame(160)}), root=Path("bundles"))


def test_what_would_need_the_others_bars_as_they_arrive_is_refused() -> None:
    with pytest.raises(ValueError, match="adaptive intervals follow one symbol's errors"):
        excess_config(calibration="adaptive")
    members = [{"kind": "ridge", "target": "excess"}, {"kind": "mlp"}]
    ensemble = {"kind": "ensemble", "features": ["log_return"], "members": members}
    values = make_config().model_dump(by_alias=True)
    with pytest.raises(ValueError, match="all members have one target, found ridge with excess and mlp with return"):
        RunConfig.model_validate({**values, "model": ensemble})
    both = {**ensemble, "members": [{"kind": "ridge"}, {"kind": "mlp"}], "target": "excess"}
    assert RunConfig.model_validate({**values, "model": both}).model.target == "excess"
    with pytest.raises(ValueError, match="online weights"):
        RunConfig.model_validate({**values, "model": {**both, "combine": "online"}})
